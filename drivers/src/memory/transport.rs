//! Blobs in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{Bytes, BytesMut};
use nexus_kernel::hal::{BlobInfo, StoreError, StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;
use parking_lot::RwLock;

/// Blobs in memory. Nothing of it survives its process; "durable" means "visible". Its size is bounded by what is put in.
#[derive(Debug, Default)]
pub struct MemoryTransport {
    blobs: RwLock<BTreeMap<String, Bytes>>,
}

impl MemoryTransport {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The buffers as one; a single one is not copied.
pub(super) fn joined(data: &[Bytes]) -> Bytes {
    match data {
        [one] => one.clone(),
        _ => data
            .iter()
            .fold(BytesMut::new(), |mut all, part| {
                all.extend_from_slice(part);
                all
            })
            .freeze(),
    }
}

/// The part `range` of `content`, in its memory.
pub(super) fn part_of(content: &Bytes, range: ByteRange) -> Bytes {
    let (from, to) = range.within(content.len() as u64);
    // Both are at most the length.
    #[expect(clippy::cast_possible_truncation)]
    content.slice(from as usize..to as usize)
}

fn ready<'a, T: Send + 'a>(result: Result<T, StoreError>) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(result))
}

fn missing(key: &str) -> StoreError {
    StoreError::NotFound { what: key.into() }
}

impl Transport for MemoryTransport {
    fn put<'a>(&'a self, key: &'a str, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        self.blobs.write().insert(key.into(), joined(data));
        ready(Ok(()))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> StoreFuture<'a, Bytes> {
        ready(self.blobs.read().get(key).map(|blob| part_of(blob, range)).ok_or_else(|| missing(key)))
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<BlobInfo>> {
        ready(Ok(self.blobs.read().get(key).map(|blob| BlobInfo { size: blob.len() as u64 })))
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        ready(self.blobs.write().remove(key).map(drop).ok_or_else(|| missing(key)))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<String>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let blobs = self.blobs.read();
        let keys = blobs.range::<str, _>((start, Bound::Unbounded)).map(|(key, _)| key);
        ready(Ok(keys.take_while(|key| key.starts_with(prefix)).take(limit).cloned().collect()))
    }
}
