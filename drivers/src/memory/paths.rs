//! A path-addressed store in memory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathWrite, StoreError,
    StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, Timestamp};
use parking_lot::RwLock;

use super::nodes::Nodes;
use super::transport::part_of;

/// Tells the time of day.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A file system in memory, with all that POSIX has. Nothing of it survives its process; "durable" means "visible".
pub struct MemoryPaths {
    nodes: RwLock<Nodes>,
    clock: WallClock,
}

impl MemoryPaths {
    /// An empty one, whose files are as old as `clock` says.
    pub fn new(clock: WallClock) -> Self {
        Self { nodes: RwLock::default(), clock }
    }
}

impl fmt::Debug for MemoryPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPaths").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

fn ready<'a, T: Send + 'a>(result: Result<T, StoreError>) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(result))
}

impl ObjectStore for MemoryPaths {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        ready(Ok(()))
    }
}

impl PathStore for MemoryPaths {
    fn capabilities(&self) -> PathCapabilities {
        PathCapabilities::POSIX
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        ready(self.nodes.read().stat(path))
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        let content = self.nodes.read().content(path);
        ready(content.map(|(content, info)| (part_of(&content, range), info)))
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        ready(self.nodes.write().write(path, data, how, attributes, (self.clock)()))
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        ready(self.nodes.write().delete(path))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        ready(self.nodes.read().list(path, after, limit))
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        ready(self.nodes.write().make_directory(path, attributes, (self.clock)()))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        ready(self.nodes.write().rename(from, to))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        ready(self.nodes.write().make_link(path, target, (self.clock)()))
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        ready(self.nodes.write().set_attributes(path, attributes))
    }
}
