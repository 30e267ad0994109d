//! The new store of contents, while files by their paths become content in it: what it is given is announced in the journal, so that an abort removes just that.
//!
//! What is read is read from where it lies, whatever was verified before: it is looked at to see whether it is a copy. A write goes on when nobody waits for it any
//! more, so that who closes the store knows that nothing comes later.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::contents::{contents, name_of};
use super::journal::Journal;
use crate::hal::{Addressing, ContentStore, ObjectStore, StoreError, StoreFuture};

/// How many writes may be under way at once.
const WRITES: u32 = 1 << 10;

/// A store whose writes are announced.
#[derive(Debug)]
pub(super) struct Recorded {
    env: Env,
    inner: Arc<dyn ObjectStore>,
    journal: Arc<Journal>,
    writes: Arc<Semaphore>,
}

impl Recorded {
    pub(super) fn new(env: &Env, inner: Arc<dyn ObjectStore>, journal: Arc<Journal>) -> Self {
        Self { env: env.clone(), inner, journal, writes: Arc::new(Semaphore::new(WRITES as usize)) }
    }

    /// Lets nothing be begun any more.
    pub(super) fn give_up(&self) {
        self.writes.close();
    }

    /// Lets nothing be written any more, for as long as what this gives is there; none when the writes that are under way do not end in time.
    pub(super) async fn close(&self, within: Duration) -> Option<OwnedSemaphorePermit> {
        let closing = self.writes.clone().acquire_many_owned(WRITES);
        self.env.timeout(within, closing).await.ok()?.ok()
    }
}

/// Writes the content `id`, and announces it before, unless it is there: then it is not the migration's, or was announced.
async fn write(
    inner: &dyn ObjectStore,
    journal: &Journal,
    id: &ContentId,
    data: &[Bytes],
) -> Result<(), StoreError> {
    let store = contents(inner)?;
    if store.contains(id).await? {
        return store.write(id, data).await;
    }
    let name = name_of(id).ok_or(StoreError::NotSupported { what: "content but by its hash" })?;
    journal.announce_content(&name).await.map_err(|failed| StoreError::Backend {
        what: format!("announcing content {id}"),
        cause: failed.why,
    })?;
    store.write(id, data).await?;
    journal.content_is_stored(name);
    Ok(())
}

impl ObjectStore for Recorded {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.inner.probe()
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        self.inner.flush()
    }
}

impl ContentStore for Recorded {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let permit = self.writes.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let (inner, journal) = (self.inner.clone(), self.journal.clone());
            let (id, data, (done, written)) = (id.clone(), data.to_vec(), oneshot::channel());
            self.env.spawn("migration.write", async move {
                // Who asked may be gone.
                let _ = done.send(write(&*inner, &journal, &id, &data).await);
                drop(permit);
            });
            // It is dropped unanswered when the driver panics, or the kernel ends.
            let panicked =
                || StoreError::Backend { what: "writing content".into(), cause: "its task has ended".into() };
            written.await.unwrap_or_else(|_| Err(panicked()))
        })
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        self.examine(id, range)
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move { contents(&*self.inner)?.examine(id, range).await })
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        Box::pin(async move { contents(&*self.inner)?.contains(id).await })
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        Box::pin(async move { contents(&*self.inner)?.length(id).await })
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        Box::pin(async move { contents(&*self.inner)?.delete(id).await })
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        Box::pin(async move { contents(&*self.inner)?.list(after, limit).await })
    }
}
