//! Blocking calls on the bounded pool of a mount.

use nexus_actors::{Pool, PoolError};
use nexus_kernel::hal::StoreError;

/// Runs `job`, which changes nothing, on `pool`.
pub(crate) async fn look<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    pool.run(job).await.unwrap_or_else(|error| Err(not_run(what, &error)))
}

/// Runs `job`, which changes the store, on `pool`. A panic in it leaves its outcome unknown.
pub(crate) async fn change<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    pool.run(job).await.unwrap_or_else(|error| match error {
        PoolError::Panicked(_) => Err(StoreError::Unknown { what: what.into(), cause: error.to_string() }),
        PoolError::Closed => Err(not_run(what, &error)),
    })
}

fn not_run(what: &str, error: &PoolError) -> StoreError {
    StoreError::Backend { what: what.into(), cause: error.to_string() }
}
