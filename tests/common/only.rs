//! A kind of mount with one store behind it, which the test holds as well.

use std::sync::Arc;

use nexus::MountSpec;
use nexus::hal::{DriverContext, DriverFactory, DriverOption, ObjectStore, StoreFuture};

#[derive(Debug)]
struct Only {
    name: &'static str,
    store: Arc<dyn ObjectStore>,
}

/// The kind of mount called `name`, whose every mount is `store`.
pub(crate) fn only(name: &'static str, store: Arc<dyn ObjectStore>) -> Arc<dyn DriverFactory> {
    Arc::new(Only { name, store })
}

impl DriverFactory for Only {
    fn name(&self) -> &str {
        self.name
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn open(&self, _: &MountSpec, _: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        Box::pin(std::future::ready(Ok(self.store.clone())))
    }
}
