//! A kernel over a store that counts what is moved.

use std::path::Path;
use std::sync::Arc;

use nexus::blocking::{self, Nexus};
use nexus::hal::{Addressing, ContentStore, ObjectStore, StoreFuture, Transport};
use nexus::{ByteRange, Bytes, Config, ContentId, MountSpec};
use nexus_drivers::cas::Cas;
use nexus_drivers::memory::MemoryTransport;
use parking_lot::Mutex;

use crate::only::only;

pub(crate) const KIB: usize = 1_024;
pub(crate) const MIB: usize = 1_024 * KIB;

/// A kernel whose `/` counts.
pub(crate) struct Bench {
    pub(crate) nx: Nexus,
    pub(crate) store: Store,
}

impl Bench {
    /// Nothing is cached: every byte comes from the driver.
    pub(crate) fn uncached() -> Self {
        Self::with(|config| config.content_cache_bytes(0))
    }

    pub(crate) fn with(change: impl FnOnce(Config) -> Config) -> Self {
        Self::over(Store::new(), change)
    }

    /// Over what another kernel has left.
    pub(crate) fn over(store: Store, change: impl FnOnce(Config) -> Config) -> Self {
        let driver = only("counting", Arc::new(store.clone()));
        let config = Config::in_memory().driver(driver).root(MountSpec::new("counting"));
        Self { nx: blocking::connect(change(config)).expect("it boots"), store }
    }
}

/// What was moved since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) read: usize,
    /// Bytes that were handed to the driver, whether it had them or not.
    pub(crate) given: usize,
    /// Bytes that the driver had to write.
    pub(crate) written: usize,
    /// Most bytes that were on their way at once.
    pub(crate) most: usize,
    /// The largest blob.
    pub(crate) largest: usize,
}

#[derive(Debug, Default)]
struct Counts {
    moved: Moved,
    now: usize,
}

/// A content-addressed store in memory that counts.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    cas: Arc<Cas<MemoryTransport>>,
    counts: Arc<Mutex<Counts>>,
}

impl Store {
    fn new() -> Self {
        Self { cas: Arc::new(Cas::new(MemoryTransport::new())), counts: Arc::default() }
    }

    /// What was moved since this was asked before.
    pub(crate) fn moved(&self) -> Moved {
        std::mem::take(&mut self.counts.lock().moved)
    }

    /// How many bytes were read since.
    pub(crate) fn read_so_far(&self) -> usize {
        self.counts.lock().moved.read
    }

    /// The keys and contents of all blobs.
    pub(crate) fn blobs(&self) -> Vec<(String, Bytes)> {
        let transport = self.cas.transport();
        let keys = wait(transport.list("cas/", None, usize::MAX)).expect("it lists");
        let blob = |key: String| {
            let content = wait(transport.get(&key, ByteRange::ALL)).expect("it reads");
            (key, content)
        };
        keys.into_iter().map(blob).collect()
    }

    /// Changes a byte in the middle of a blob.
    pub(crate) fn damage(&self, key: &str) {
        let mut content = wait(self.cas.transport().get(key, ByteRange::ALL)).expect("it reads").to_vec();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        wait(self.cas.transport().put(key, &[content.into()])).expect("it writes");
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    nexus::actors::block_on(future)
}

impl ObjectStore for Store {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl ContentStore for Store {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let size = data.iter().map(Bytes::len).sum::<usize>();
            {
                let mut counts = self.counts.lock();
                counts.now += size;
                counts.moved.most = counts.moved.most.max(counts.now);
                counts.moved.largest = counts.moved.largest.max(size);
                counts.moved.given += size;
            }
            let there = self.cas.contains(id).await?;
            let written = self.cas.write(id, data).await;
            let mut counts = self.counts.lock();
            counts.now -= size;
            if !there {
                counts.moved.written += size;
            }
            written
        })
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            let read = self.cas.read(id, range).await;
            self.counts.lock().moved.read += read.as_ref().map_or(0, Bytes::len);
            read
        })
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            let read = self.cas.examine(id, range).await;
            self.counts.lock().moved.read += read.as_ref().map_or(0, Bytes::len);
            read
        })
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        self.cas.contains(id)
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        self.cas.delete(id)
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.cas.length(id)
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.cas.list(after, limit)
    }
}

/// Bytes that look random and are the same everywhere.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A kernel on a folder, with its built-in stack.
pub(crate) fn on(folder: &Path) -> Nexus {
    blocking::connect(Config::new(folder)).expect("it boots")
}
