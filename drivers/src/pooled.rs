//! Blocking calls on the bounded pool of a mount.
//!
//! A call that is given up before a thread came to it is not made: whoever waited was told that it is over, and may have done something else by now.

use std::sync::Arc;

use nexus_actors::{Pool, PoolError};
use nexus_kernel::hal::StoreError;

/// Runs `job`, which changes nothing, on `pool`.
pub(crate) async fn look<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    run(pool, what, false, job).await
}

/// Runs `job`, which changes the store, on `pool`. A panic in it leaves its outcome unknown.
pub(crate) async fn change<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    run(pool, what, true, job).await
}

async fn run<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    changing: bool,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let waiting = Arc::new(());
    let wanted = Arc::downgrade(&waiting);
    let told = pool.run(move || {
        let nobody_waits = wanted.strong_count() == 0;
        if nobody_waits { Err(StoreError::Closed) } else { job() }
    });
    let done = told.await;
    drop(waiting);
    done.unwrap_or_else(|error| {
        Err(match error {
            PoolError::Panicked(panicked) => StoreError::Panicked { what: what.into(), panicked, changing },
            PoolError::Closed => StoreError::Backend { what: what.into(), cause: error.to_string() },
        })
    })
}
