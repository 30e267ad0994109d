//! A driver over any other one that fails, panics and hangs at will: for tests, and for runs that hurt a kernel to see what becomes of it.
//!
//! [`FaultyFactory`] goes into the catalogue under a name of its own. Everything is the other driver's, but where a switch of its [`Faults`] says
//! otherwise; the switches are turned from outside, while the kernel runs.
//!
//! ```
//! use nexus_drivers::faults::{Fault, Faults, FaultyFactory, Where};
//! use std::sync::Arc;
//!
//! let faults = Faults::new();
//! let mut catalogue = nexus_drivers::catalogue();
//! let memory = catalogue.get("memory").expect("built in");
//! catalogue.add(Arc::new(FaultyFactory::new("faulty", memory, faults.clone())))?;
//! // From now on the third change panics, and every read fails until that is taken back.
//! faults.once_after(2, Where::Change, Fault::Panic);
//! faults.always(Where::Look, Fault::Error);
//! faults.clear();
//! # Ok::<(), nexus_kernel::hal::StoreError>(())
//! ```

mod store;
mod switches;

use std::sync::Arc;

use nexus_kernel::hal::{DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture};
use nexus_messages::syscall::MountSpec;

use store::Faulty;
pub use switches::{Fault, Faults, Where};

/// Makes drivers of another kind, with faults.
#[derive(Debug)]
pub struct FaultyFactory {
    name: String,
    inner: Arc<dyn DriverFactory>,
    faults: Faults,
}

impl FaultyFactory {
    /// Drivers called `name` that are those of `inner`, with `faults`.
    pub fn new(name: impl Into<String>, inner: Arc<dyn DriverFactory>, faults: Faults) -> Self {
        Self { name: name.into(), inner, faults }
    }
}

impl DriverFactory for FaultyFactory {
    fn name(&self) -> &str {
        &self.name
    }

    fn options(&self) -> &[DriverOption] {
        self.inner.options()
    }

    fn volatile(&self) -> bool {
        self.inner.volatile()
    }

    fn elsewhere(&self) -> bool {
        self.inner.elsewhere()
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        self.inner.check(spec)
    }

    fn settled(&self, spec: MountSpec) -> MountSpec {
        self.inner.settled(spec)
    }

    fn located(&self, spec: MountSpec) -> MountSpec {
        self.inner.located(spec)
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let (inner, spec, faults) = (self.inner.clone(), spec.clone(), self.faults.clone());
        let opening = move || inner.open(&spec, context);
        let hit = faults.clone();
        Box::pin(async move {
            let store = hit.over(Where::Open, "opening", opening).await?;
            Ok(Arc::new(Faulty { inner: store, faults }) as Arc<dyn ObjectStore>)
        })
    }
}
