//! A path-addressed store in memory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathUpload, PathWrite,
    StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, Timestamp};
use parking_lot::RwLock;

use super::nodes::Nodes;
use super::transport::part_of;
use crate::path::split_last;

/// Tells the time of day.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A file system in memory, with all that POSIX has. Nothing of it survives its process; "durable" means "visible".
pub struct MemoryPaths {
    nodes: Arc<RwLock<Nodes>>,
    clock: WallClock,
}

impl MemoryPaths {
    /// An empty one, whose files are as old as `clock` says.
    pub fn new(clock: WallClock) -> Self {
        Self { nodes: Arc::default(), clock }
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
        let mut can = PathCapabilities::POSIX;
        (can.if_match, can.upload, can.conditional_upload) = (true, true, true);
        can
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

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        let begun = split_last(path).map(|_| {
            let (nodes, clock) = (self.nodes.clone(), self.clock.clone());
            Box::new(MemoryUpload { nodes, clock, data: Vec::new() }) as Box<dyn PathUpload>
        });
        ready(begun)
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

/// Content on its way, in memory as all of it.
struct MemoryUpload {
    nodes: Arc<RwLock<Nodes>>,
    clock: WallClock,
    data: Vec<Bytes>,
}

impl fmt::Debug for MemoryUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryUpload").field("pieces", &self.data.len()).finish_non_exhaustive()
    }
}

impl PathUpload for MemoryUpload {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        self.data.push(data);
        ready(Ok(()))
    }

    fn finish<'a>(
        self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        if let PathWrite::At { .. } | PathWrite::Append = how {
            return ready(Err(StoreError::NotSupported { what: "an upload to the middle of a file" }));
        }
        ready(self.nodes.write().write(path, &self.data, how, attributes, (self.clock)()))
    }
}
