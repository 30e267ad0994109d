//! The driver behind one mount, as a supervised child: started, probed, restarted with back-off, stopped once drained.
//!
//! Owns:       the driver instance; publishes it in the mount's slot.
//! Asks:       nobody.
//! On restart: opens the driver anew and publishes it beside the old one, which ends with its last caller.
//! Bounds:     `THREADS_MAX` threads and `CALLS_MAX` waiting calls for a backend that blocks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Env, ExitReason, Start};

use super::mount::Mount;
use super::placeholder::Placeholder;
use crate::hal::{Catalogue, DriverContext, ObjectStore, StoreError};

/// Threads of one mount for a backend that blocks.
const THREADS_MAX: usize = 4;

/// Calls of one mount that may wait for such a thread.
const CALLS_MAX: usize = 1_024;

/// How long the calls inside an old driver may take before it is left to end by itself.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What a driver is started with.
#[derive(Clone)]
pub(super) struct DriverArgs {
    pub(super) mount: Arc<Mount>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) data_folder: Option<std::path::PathBuf>,
}

/// One running driver.
pub(super) struct Driver {
    env: Env,
    mount: Arc<Mount>,
    /// Whether what it stores is gone with the instance.
    volatile: bool,
}

impl Behaviour for Driver {
    type Args = DriverArgs;
    const NAME: &'static str = "driver";

    fn init(args: DriverArgs, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let env = start.env().clone();
        async move {
            let volatile =
                args.catalogue.get(&args.mount.spec.driver).is_some_and(|factory| factory.volatile());
            if volatile && args.mount.has_driver() {
                // What it holds would be gone with it: the instance outlives the crash of its actor.
                return Ok(Self { env, mount: args.mount, volatile });
            }
            let failed = |error: &StoreError| ExitReason::Error(error.to_string().into());
            let driver = open(&env, &args).await.map_err(|error| failed(&error))?;
            driver.probe().await.map_err(|error| failed(&error))?;
            if !args.mount.fits(&*driver) {
                return Err(ExitReason::Error("the driver changed its way of addressing".into()));
            }
            put(&env, &args.mount, driver).await.map_err(|error| failed(&error))?;
            Ok(Self { env, mount: args.mount, volatile })
        }
        .boxed_local()
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        let (env, mount, volatile) = (self.env.clone(), self.mount.clone(), self.volatile);
        async move {
            if volatile {
                return;
            }
            if let Err(error) = put(&env, &mount, Arc::new(Placeholder)).await {
                tracing::warn!(point = %mount.point, %error, "the driver is left to end by itself");
            }
        }
        .boxed_local()
    }
}

async fn open(env: &Env, args: &DriverArgs) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let spec = &args.mount.spec;
    let factory = args.catalogue.get(&spec.driver).ok_or_else(|| StoreError::BadOption {
        why: format!("there is no driver called {:?}", spec.driver),
    })?;
    let pool = env.pool("driver", THREADS_MAX, CALLS_MAX);
    factory.open(spec, DriverContext::new(env.clone(), pool, args.data_folder.clone())).await
}

/// Publishes `driver` in the place of the one that is there, which drains.
async fn put(env: &Env, mount: &Mount, driver: Arc<dyn ObjectStore>) -> Result<(), StoreError> {
    let prepared = std::future::ready(Ok::<_, StoreError>(Box::new(driver)));
    let swapped = mount.driver.swap_overlap(env, DRAIN_MAX, prepared).await;
    swapped.map(drop).map_err(|error| StoreError::Backend {
        what: "replacing the driver".into(),
        cause: error.to_string(),
    })
}
