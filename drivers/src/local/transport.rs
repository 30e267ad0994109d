//! Blobs on the local disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nexus_actors::Pool;
use nexus_kernel::hal::{BlobInfo, StoreError, StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;

use super::blobs::Blobs;
use crate::pooled;

/// Blobs as files in a folder that belongs to the store. What `put` returned for is on disk, with every folder that leads to it.
#[derive(Debug)]
pub struct LocalTransport {
    blobs: Arc<Blobs>,
    pool: Pool,
}

impl LocalTransport {
    /// Blobs in `folder`, which is made when it is missing; what a crash left half-written is removed. All blocking is done on `pool`.
    pub async fn open(folder: impl AsRef<Path>, pool: Pool) -> Result<Self, StoreError> {
        let folder: PathBuf = folder.as_ref().into();
        let blobs = pooled::change(&pool, "opening a folder of blobs", move |_| Blobs::open(&folder)).await?;
        Ok(Self { blobs: Arc::new(blobs), pool })
    }

    /// Says whether the folder is there. Cheap.
    pub fn probe(&self) -> StoreFuture<'_, ()> {
        let blobs = self.blobs.clone();
        Box::pin(pooled::look(&self.pool, "probing", move || blobs.probe()))
    }
}

impl Transport for LocalTransport {
    fn put<'a>(&'a self, key: &'a str, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        let (blobs, key, data) = (self.blobs.clone(), key.to_owned(), data.to_vec());
        Box::pin(pooled::change(&self.pool, "writing a blob", move |_| blobs.put(&key, &data)))
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> StoreFuture<'a, Bytes> {
        let (blobs, key) = (self.blobs.clone(), key.to_owned());
        Box::pin(pooled::look(&self.pool, "reading a blob", move || blobs.get(&key, range)))
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<BlobInfo>> {
        let (blobs, key) = (self.blobs.clone(), key.to_owned());
        Box::pin(pooled::look(&self.pool, "looking at a blob", move || blobs.head(&key)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        let (blobs, key) = (self.blobs.clone(), key.to_owned());
        Box::pin(pooled::change(&self.pool, "deleting a blob", move |_| blobs.delete(&key)))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<String>> {
        let (blobs, prefix, after) = (self.blobs.clone(), prefix.to_owned(), after.map(str::to_owned));
        Box::pin(pooled::look(&self.pool, "listing blobs", move || {
            blobs.list(&prefix, after.as_deref(), limit)
        }))
    }
}
