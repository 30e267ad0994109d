//! Large content on a content-addressed mount: where its chunks and lists are.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;
use tokio::sync::oneshot;

use super::rows::RowVolume;
use super::write::Kept;
use crate::content::{Blobs, Cursor, Hash, List, Part, Sort};
use crate::garbage::Hold;
use crate::hal::{Addressing, ObjectStore, StoreError};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{InodeRow, Placement};

/// The store of a mount, with the cache before it.
#[derive(Clone)]
pub(crate) struct MountBlobs {
    kernel: Arc<Kernel>,
    mount: Arc<Mount>,
    /// Whether chunks that are read or written are kept in the cache.
    keep: bool,
    /// Holds what is written.
    hold: Hold,
    /// Whether calls of the driver go on by themselves. The other end of a stream may be silent for longer than a call may take, and nobody polls meanwhile: a
    /// deadline would measure that end, and not the driver.
    aside: bool,
    /// Whether what is read comes from the store, whatever the cache has.
    afresh: bool,
}

impl MountBlobs {
    /// The same, reading from the store itself.
    pub(super) fn afresh(self) -> Self {
        Self { afresh: true, ..self }
    }

    fn cached(&self, id: &ContentId) -> Option<Bytes> {
        if self.afresh { None } else { self.kernel.caches().content.lookup(id) }
    }

    /// The same for a stream.
    pub(super) fn aside(self) -> Self {
        Self { aside: true, ..self }
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.aside {
            return call.await;
        }
        // What needs no waiting costs less here than to have somebody else do it.
        let mut call = Box::pin(call);
        if let Some(done) = call.as_mut().now_or_never() {
            return done;
        }
        let (done, answer) = oneshot::channel();
        self.kernel.env().spawn("stream.call", async move {
            // Who asked may be gone: what was stored is named by nothing then.
            let _ = done.send(call.await);
        });
        // It is dropped unanswered when the kernel ends.
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// Content before it is changed.
pub(super) enum Old {
    /// In memory.
    Whole(Bytes),
    /// To be read where it is needed.
    Chunked(Cursor<MountBlobs>),
}

impl Blobs for MountBlobs {
    async fn get(&self, sort: Sort, hash: &Hash) -> Result<Bytes, StoreError> {
        let (cache, id) = (&self.kernel.caches().content, ContentId::Blake3(*hash));
        if let Some(blob) = self.cached(&id) {
            return Ok(blob);
        }
        let (kernel, mount, wanted) = (self.kernel.clone(), self.mount.clone(), id.clone());
        let read = async move {
            let volume = RowVolume { kernel: &kernel, mount: &mount, within: None, as_of: None };
            volume.stored(&wanted, ByteRange::ALL).await
        };
        let blob = self.call(read).await?;
        if self.keep || sort == Sort::List {
            cache.keep(&id, &blob);
        }
        Ok(blob)
    }

    async fn get_chunks(&self, hashes: &[Hash]) -> Result<Vec<Bytes>, StoreError> {
        if self.keep {
            // What goes to the cache has memory of its own.
            return try_join_all(hashes.iter().map(|hash| self.get(Sort::Chunk, hash))).await;
        }
        let ids: Vec<_> = hashes.iter().map(|hash| ContentId::Blake3(*hash)).collect();
        let mut chunks: Vec<_> = ids.iter().map(|id| self.cached(id)).collect();
        let missing: Vec<_> =
            ids.into_iter().zip(&chunks).filter(|(_, chunk)| chunk.is_none()).map(|(id, _)| id).collect();
        if !missing.is_empty() {
            let (kernel, mount) = (self.kernel.clone(), self.mount.clone());
            let read = async move {
                let volume = RowVolume { kernel: &kernel, mount: &mount, within: None, as_of: None };
                volume.stored_many(&missing).await
            };
            let mut read = self.call(read).await?.into_iter();
            chunks.iter_mut().filter(|chunk| chunk.is_none()).for_each(|chunk| *chunk = read.next());
        }
        chunks.into_iter().zip(hashes).map(|(chunk, hash)| chunk.ok_or_else(|| not_read(hash))).collect()
    }

    async fn put(&self, sort: Sort, hash: Hash, blob: Bytes) -> Result<(), StoreError> {
        let id = ContentId::Blake3(hash);
        self.hold.content(&hash).await;
        let (mount, written, data) = (self.mount.clone(), id.clone(), blob.clone());
        let write = async move {
            let driver = mount.lease().await;
            let Addressing::Content(store) = driver.addressing() else {
                return Err(StoreError::NotSupported { what: "content by its hash" });
            };
            store.write(&written, std::slice::from_ref(&data)).await
        };
        self.call(write).await?;
        if sort == Sort::List {
            // From now on all that it tells is held by the list, so that what is held does not grow with the content.
            self.hold.list(&hash).await;
            if let Ok(list) = List::parse(blob.clone()) {
                let told = (0..list.entries()).filter_map(|n| list.entry(n));
                told.filter(|entry| entry.hash != hash).for_each(|entry| self.hold.release(&entry.hash));
            }
        }
        let cache = &self.kernel.caches().content;
        match sort {
            Sort::List => cache.keep(&id, &blob),
            // A copy: a chunk shares its memory with others that were cut with it, which may leave the cache before it.
            Sort::Chunk if self.keep => cache.keep(&id, &Bytes::copy_from_slice(&blob)),
            Sort::Chunk => {}
        }
        Ok(())
    }

    async fn crunch<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.kernel.crunch(job).await
    }
}

impl RowVolume<'_> {
    /// Where the chunks of this mount are. `keep` says whether those that pass are soon read again. What is written is held.
    pub(super) fn blobs(&self, keep: bool, hold: &Hold) -> MountBlobs {
        let (kernel, mount, hold) = (self.kernel.clone(), self.mount.clone(), hold.clone());
        MountBlobs { kernel, mount, keep, aside: false, afresh: false, hold }
    }

    /// Holds nothing yet.
    pub(super) fn hold(&self) -> Hold {
        self.kernel.garbage().hold()
    }

    /// Opens content of `size` bytes that is in chunks.
    pub(super) async fn chunks(
        &self,
        id: &ContentId,
        size: u64,
        keep: bool,
    ) -> Result<Cursor<MountBlobs>, StoreError> {
        Self::chunks_of(self.blobs(keep, &self.hold()), id, size).await
    }

    /// As [`chunks`](Self::chunks), out of `blobs`.
    pub(super) async fn chunks_of(
        blobs: MountBlobs,
        id: &ContentId,
        size: u64,
    ) -> Result<Cursor<MountBlobs>, StoreError> {
        let Some(root) = id.chunks() else {
            let found = "an address that is of no chunk list".into();
            return Err(StoreError::Corrupt { what: format!("content {id}"), found });
        };
        Cursor::open(blobs, root, size).await
    }

    /// The content of the file with this row, as far as it is needed to change it.
    pub(super) async fn old(&self, row: &InodeRow) -> Result<Old, StoreError> {
        Ok(match (&row.content_id, row.placement) {
            (None, _) | (_, Placement::None) => Old::Whole(Bytes::new()),
            (Some(id), Placement::Chunked) => Old::Chunked(self.chunks(id, row.size, true).await?),
            (Some(id), placement) => Old::Whole(self.whole(id, placement).await?),
        })
    }
}

fn not_read(hash: &Hash) -> StoreError {
    StoreError::Corrupt { what: format!("blob {}", ContentId::Blake3(*hash)), found: "nothing".into() }
}

impl Kept {
    /// Large content whose root this is, and which is held.
    pub(super) fn chunked(root: Part, hold: Hold) -> Self {
        let (id, size) = (ContentId::Chunks(root.hash), root.length);
        Self { id, size, placement: Placement::Chunked, whole: None, hold }
    }
}
