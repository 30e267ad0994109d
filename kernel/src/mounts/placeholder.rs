//! What stands in a mount's slot while no driver does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, VPath};

use super::health::{Health, Standing};
use crate::hal::{
    Addressing, ContentStore, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathUpload,
    PathWrite, StoreError, StoreFuture,
};

/// Answers every call with the fact that there is no driver.
#[derive(Debug, Clone)]
pub(super) struct Placeholder {
    pub(super) point: VPath,
    pub(super) path_addressed: bool,
    /// What became of the driver.
    pub(super) health: Arc<Health>,
}

impl Placeholder {
    fn refuse<'a, T: Send + 'a>(&self) -> StoreFuture<'a, T> {
        let not_open = || {
            let cause = match self.health.standing() {
                Standing::Opening { cause } | Standing::Failed { cause, .. } => cause,
                Standing::Good => self.health.cause(),
            };
            StoreError::Unavailable {
                mount: self.point.to_string(),
                cause: format!("its driver is not open: {cause}"),
                retry_in: Duration::ZERO,
            }
        };
        Box::pin(std::future::ready(Err(self.health.end().unwrap_or_else(not_open))))
    }
}

impl ObjectStore for Placeholder {
    fn addressing(&self) -> Addressing<'_> {
        if self.path_addressed { Addressing::Path(self) } else { Addressing::Content(self) }
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.refuse()
    }
}

impl ContentStore for Placeholder {
    fn write<'a>(&'a self, _: &'a ContentId, _: &'a [Bytes]) -> StoreFuture<'a, ()> {
        self.refuse()
    }

    fn read<'a>(&'a self, _: &'a ContentId, _: ByteRange) -> StoreFuture<'a, Bytes> {
        self.refuse()
    }

    fn examine<'a>(&'a self, _: &'a ContentId, _: ByteRange) -> StoreFuture<'a, Bytes> {
        self.refuse()
    }

    fn contains<'a>(&'a self, _: &'a ContentId) -> StoreFuture<'a, bool> {
        self.refuse()
    }

    fn delete<'a>(&'a self, _: &'a ContentId) -> StoreFuture<'a, ()> {
        self.refuse()
    }

    fn length<'a>(&'a self, _: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.refuse()
    }

    fn list<'a>(&'a self, _: Option<&'a ContentId>, _: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.refuse()
    }

    fn reclaim(&self) -> StoreFuture<'_, u64> {
        self.refuse()
    }

    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        self.refuse()
    }
}

impl PathStore for Placeholder {
    fn capabilities(&self) -> PathCapabilities {
        // What would be refused for want of a capability is to be refused for want of a driver.
        PathCapabilities { upload: true, ..PathCapabilities::POSIX }
    }

    fn stat<'a>(&'a self, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.refuse()
    }

    fn read<'a>(&'a self, _: &'a str, _: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        self.refuse()
    }

    fn write<'a>(
        &'a self,
        _: &'a str,
        _: &'a [Bytes],
        _: PathWrite,
        _: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.refuse()
    }

    fn upload<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        self.refuse()
    }

    fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, ()> {
        self.refuse()
    }

    fn list<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: usize) -> StoreFuture<'a, ListPage> {
        self.refuse()
    }

    fn make_directory<'a>(&'a self, _: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        self.refuse()
    }

    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.refuse()
    }

    fn copy<'a>(&'a self, _: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.refuse()
    }

    fn make_link<'a>(&'a self, _: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.refuse()
    }

    fn set_attributes<'a>(&'a self, _: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        self.refuse()
    }
}
