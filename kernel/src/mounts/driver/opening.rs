//! Opening and probing drivers. Both run their code for the first time, so they run it aside: not on the actor's thread, and with a limit.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{Env, Panicked, Pool, PoolError, block_on};
use nexus_messages::syscall::MountSpec;
use parking_lot::Mutex;

use super::DriverArgs;
use crate::hal::{Addressing, DriverContext, ObjectStore, StoreError};
use crate::mounts::guarded::Caught;
use crate::mounts::options::{MountOptions, Nature, for_driver};

/// Threads of one driver for a backend that blocks.
const THREADS_MAX: usize = 4;

/// Calls of one driver that may wait for such a thread.
const CALLS_MAX: usize = 1_024;

/// A mount whose drivers hold up this many threads aside, or threads of so many instances, for good, is opened no more.
const STUCK_MAX: usize = 8;

/// How much later than the limit one gives up on a thread that does not look at the clock.
const BLOCKED_GRACE: Duration = Duration::from_millis(100);

/// A driver that was opened, and answered.
#[derive(Debug, Clone)]
pub(in crate::mounts) struct Opened {
    pub(in crate::mounts) driver: Arc<dyn ObjectStore>,
    pub(in crate::mounts) spec: Arc<MountSpec>,
    pub(in crate::mounts) options: MountOptions,
    pub(in crate::mounts) path_addressed: bool,
    /// Whether what it stores is gone with it.
    pub(super) volatile: bool,
    /// Whether its backend keeps permission bits.
    pub(super) keeps_modes: bool,
    /// Whether it changes nothing.
    pub(in crate::mounts) read_only: bool,
}

impl Opened {
    /// What the driver turned out to be.
    pub(in crate::mounts) fn nature(&self) -> Nature {
        Nature { path_addressed: self.path_addressed, volatile: self.volatile, read_only: self.read_only }
    }
}

/// Opens a driver for `spec` and probes it. `is_again`: it was mounted before, and nobody asks for it just now.
pub(in crate::mounts) async fn open(
    env: Env,
    threads: Arc<Threads>,
    args: DriverArgs,
    spec: Arc<MountSpec>,
    is_again: bool,
) -> Result<Opened, StoreError> {
    let options = MountOptions::of(&spec)?;
    let factory = args.catalogue.get(&spec.driver).ok_or_else(|| StoreError::BadOption {
        why: format!("there is no driver called {:?}", spec.driver),
    })?;
    let pool = threads.of_instance(&env)?;
    let mut context = DriverContext::new(env.clone(), pool, args.data_folder);
    context.is_again = is_again;
    let bare = for_driver(&spec, factory.options());
    let opening = async move {
        let volatile = factory.volatile();
        let driver = factory.open(&bare, context).await?;
        driver.probe().await?;
        let (path_addressed, keeps_modes) = match driver.addressing() {
            Addressing::Path(store) => (true, store.capabilities().attributes),
            // Rows do.
            Addressing::Content(_) => (false, true),
        };
        let read_only = driver.read_only();
        Ok(Opened { driver, spec, options, path_addressed, volatile, keeps_modes, read_only })
    };
    threads.aside(&env, options.open, "opening it", opening).await
}

/// Asks `driver` whether its backend answers.
pub(super) async fn probe(
    env: Env,
    threads: Arc<Threads>,
    driver: Arc<dyn ObjectStore>,
    limit: Duration,
) -> Result<(), StoreError> {
    threads.aside(&env, limit, "probing", async move { driver.probe().await }).await
}

/// The threads that the drivers of one mount hold. Code that blocks for good keeps its thread for good; this bounds how many those are.
#[derive(Debug, Default)]
pub(in crate::mounts) struct Threads {
    aside: Mutex<Vec<Pool>>,
    instances: Mutex<Vec<Pool>>,
}

impl Threads {
    /// Threads for the blocking calls of a new instance.
    fn of_instance(&self, env: &Env) -> Result<Pool, StoreError> {
        let mut pools = self.instances.lock();
        pools.retain(|pool| pool.busy() > 0);
        let pool = env.pool("driver", THREADS_MAX, CALLS_MAX);
        within_bound(&mut pools, pool)
    }

    /// A thread that nothing holds up.
    fn free(&self, env: &Env) -> Result<Pool, StoreError> {
        let mut pools = self.aside.lock();
        if let Some(free) = pools.iter().find(|pool| pool.busy() == 0) {
            return Ok(free.clone());
        }
        within_bound(&mut pools, env.pool("driver-aside", 1, 1))
    }

    /// Runs a driver's code on a thread of its own, where it may block, for at most `limit`.
    async fn aside<T: Send + 'static>(
        &self,
        env: &Env,
        limit: Duration,
        what: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (timer, work) = (env.clone(), Caught::new(Box::pin(work)));
        let limited = async move { timer.timeout(limit, work).await };
        let answer = if env.is_simulated() {
            // Its one thread cannot wait for itself.
            limited.await
        } else {
            let pool = self.free(env)?;
            match env.timeout(limit + BLOCKED_GRACE, pool.run(move || block_on(limited))).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(PoolError::Panicked(panicked))) => Ok(Err(panicked)),
                Ok(Err(error)) => {
                    return Err(StoreError::Backend { what: what.into(), cause: error.to_string() });
                }
                Err(elapsed) => Err(elapsed),
            }
        };
        match answer {
            Ok(answer) => answer.unwrap_or_else(|panicked: Panicked| {
                Err(StoreError::Panicked { what: what.into(), panicked, changing: false })
            }),
            Err(_) => Err(StoreError::TimedOut { what: what.into(), limit, changing: false }),
        }
    }

    /// Drops `value`, whose destructor may block, on a thread of its own.
    pub(in crate::mounts) async fn end<T: Send + 'static>(&self, env: &Env, value: T) {
        let limit = super::DRAIN_MAX;
        let ended = self.aside(env, limit, "ending", async move {
            drop(value);
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!(%error, "the end of a driver");
        }
    }
}

fn within_bound(pools: &mut Vec<Pool>, pool: Pool) -> Result<Pool, StoreError> {
    if pools.len() >= STUCK_MAX {
        return Err(StoreError::Backend {
            what: "opening it".into(),
            cause: format!("{STUCK_MAX} threads were lost in it before, and no more are risked"),
        });
    }
    pools.push(pool.clone());
    Ok(pool)
}
