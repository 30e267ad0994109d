//! Blobs under flat keys: what an addressing engine stands on.

use std::fmt;

use bytes::Bytes;
use nexus_messages::syscall::ByteRange;

use super::{StoreError, StoreFuture};

/// Blobs under flat keys, such as `cas/ab/cd/abcd..`: a disk, a bucket, memory. Addressing engines add what content means.
///
/// Nothing here blocks the thread that polls. Keys are relative paths without `.` and `..`; a `/` in them may become a directory.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Whether changes are refused.
    fn read_only(&self) -> bool {
        false
    }

    /// Makes the buffers, one after the other, the blob at `key`. Atomic and durable on return: a reader and a crash see the old blob, or none,
    /// or the new one, and what this returned for is never lost. Repeat: safe.
    fn put<'a>(&'a self, key: &'a str, data: &'a [Bytes]) -> StoreFuture<'a, ()>;

    /// The part `range` of the blob at `key`. What lies beyond the end is left out. Repeat: safe.
    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> StoreFuture<'a, Bytes>;

    /// All of each of the blobs at these keys, in their order: each as [`get`](Self::get) has it. Repeat: safe.
    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Result<Bytes, StoreError>>> {
        Box::pin(async move {
            let mut blobs = Vec::with_capacity(keys.len());
            for key in keys {
                blobs.push(self.get(key, ByteRange::ALL).await);
            }
            Ok(blobs)
        })
    }

    /// The blob's length, whether it is there or not. Repeat: safe.
    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<BlobInfo>>;

    /// Removes the blob. What is not there is told as [`NotFound`](super::StoreError::NotFound).
    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()>;

    /// The keys that start with `prefix` and are greater than `after`, in order, at most `limit`. Repeat: safe.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<String>>;

    /// Gives back some of the space that removed blobs still take, and says how many bytes that were; 0 when there is nothing more to be gained.
    /// Reads and writes go on meanwhile. Repeat: safe.
    fn reclaim(&self) -> StoreFuture<'_, u64> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// The parts of the transport's own files that it found damaged, each in words that name it. What is known, without looking for more. Repeat: safe.
    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// What a transport knows of a blob without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// The length in bytes.
    pub size: u64,
}
