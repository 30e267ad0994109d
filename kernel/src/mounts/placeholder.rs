//! What stands in a mount's slot while no driver does.

use bytes::Bytes;
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;

use crate::hal::{Addressing, ContentStore, ObjectStore, StoreError, StoreFuture};

/// Answers every call with the fact that there is no driver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placeholder;

fn refuse<'a, T: Send + 'a>() -> StoreFuture<'a, T> {
    let error = StoreError::Backend { what: "the mount".into(), cause: "its driver is not running".into() };
    Box::pin(std::future::ready(Err(error)))
}

impl ObjectStore for Placeholder {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        refuse()
    }
}

impl ContentStore for Placeholder {
    fn write<'a>(&'a self, _: &'a ContentId, _: &'a [Bytes]) -> StoreFuture<'a, ()> {
        refuse()
    }

    fn read<'a>(&'a self, _: &'a ContentId, _: ByteRange) -> StoreFuture<'a, Bytes> {
        refuse()
    }

    fn contains<'a>(&'a self, _: &'a ContentId) -> StoreFuture<'a, bool> {
        refuse()
    }

    fn delete<'a>(&'a self, _: &'a ContentId) -> StoreFuture<'a, ()> {
        refuse()
    }
}
