//! Blocking calls on the bounded pool of a mount.
//!
//! Who gives a call up was told that it is over, and may have done something else by now: one that no thread has come to is not made, and one that is
//! being made asks before it does what cannot be taken back.

use std::sync::{Arc, Weak};

use nexus_actors::{Pool, PoolError};
use nexus_kernel::hal::StoreError;

/// Tells a call that is being made whether somebody waits for it.
#[derive(Debug)]
pub(crate) struct Wanted(Weak<()>);

impl Wanted {
    /// Refuses to go on with what nobody waits for.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        // It orders nothing: the wait may end right after the look.
        if self.0.strong_count() == 0 { Err(StoreError::Closed) } else { Ok(()) }
    }
}

#[cfg(test)]
impl Wanted {
    /// Somebody waits, as long as it is there.
    pub(crate) fn by(waiting: &Arc<()>) -> Self {
        Self(Arc::downgrade(waiting))
    }

    /// Nobody waits.
    pub(crate) fn by_nobody() -> Self {
        Self(Weak::new())
    }
}

/// Runs `job`, which changes nothing, on `pool`.
pub(crate) async fn look<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    run(pool, what, false, |_| job()).await
}

/// Runs `job`, which changes the store, on `pool`. A panic in it leaves its outcome unknown.
pub(crate) async fn change<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    job: impl FnOnce(&Wanted) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    run(pool, what, true, job).await
}

async fn run<T: Send + 'static>(
    pool: &Pool,
    what: &'static str,
    changing: bool,
    job: impl FnOnce(&Wanted) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let waiting = Arc::new(());
    let wanted = Wanted(Arc::downgrade(&waiting));
    let done = pool.run(move || wanted.check().and_then(|()| job(&wanted))).await;
    drop(waiting);
    done.unwrap_or_else(|error| {
        Err(match error {
            PoolError::Panicked(panicked) => StoreError::Panicked { what: what.into(), panicked, changing },
            PoolError::Closed => StoreError::Backend { what: what.into(), cause: error.to_string() },
        })
    })
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use nexus_actors::{Env, HostConfig};

    use super::*;

    /// Begins a call, and gives it up once `begun`.
    fn give_up<T>(call: impl Future<Output = T>, begun: impl FnOnce()) {
        let mut call = Box::pin(call);
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        begun();
    }

    #[test]
    fn a_change_that_was_given_up_is_not_begun_and_one_that_was_begun_can_tell() {
        let env = Env::host(HostConfig::default()).unwrap();
        let pool = env.pool("test", 1, 8);
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let held = change(&pool, "holding the thread", move |wanted| {
            tell.send(wanted.check().is_ok()).unwrap();
            enter.send(()).unwrap();
            left.recv().unwrap();
            tell.send(wanted.check().is_ok()).unwrap();
            Ok(())
        });
        let (begin, begun) = mpsc::channel::<()>();
        let queued = change(&pool, "waiting for the thread", move |_| {
            begin.send(()).unwrap();
            Ok(())
        });
        give_up(held, || {
            entered.recv().unwrap();
            give_up(queued, || {});
        });
        leave.send(()).unwrap();
        assert_eq!((told.recv(), told.recv()), (Ok(true), Ok(false)));
        // The job is gone, and was not made.
        assert!(begun.recv().is_err());
        env.stop();
    }
}
