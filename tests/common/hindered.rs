//! Streams in memory that somebody hinders.

use std::sync::atomic::{AtomicBool, Ordering};

use nexus::{FileId, Timestamp};
use nexus_drivers::streams::MemoryStreams;
use nexus_kernel::hal::{
    Append, Appended, ReadBounds, StoreError, StreamFuture, StreamLimits, StreamRead, StreamState,
    StreamStore,
};
use tokio::sync::Semaphore;

#[derive(Debug)]
pub(crate) struct Hindered {
    inner: MemoryStreams,
    /// Whether there is no room for anything more.
    pub(crate) is_full: AtomicBool,
    /// How often a stream was looked at.
    pub(crate) asked: Semaphore,
    /// Who has this holds up who looks at a stream.
    pub(crate) may_go: Semaphore,
}

impl Default for Hindered {
    fn default() -> Self {
        let (asked, may_go) = (Semaphore::new(0), Semaphore::new(1));
        Self { inner: MemoryStreams::default(), is_full: AtomicBool::new(false), asked, may_go }
    }
}

impl StreamStore for Hindered {
    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }

    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState> {
        self.inner.create(stream, limits)
    }

    fn append(&self, stream: FileId, append: Append) -> StreamFuture<'_, Appended> {
        if self.is_full.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(StoreError::Full.into())));
        }
        self.inner.append(stream, append)
    }

    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead> {
        self.inner.read(stream, from, most)
    }

    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            self.asked.add_permits(1);
            drop(self.may_go.acquire().await.expect("nobody closes it"));
            self.inner.state(stream).await
        })
    }

    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState> {
        self.inner.trim(stream, before)
    }

    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState> {
        self.inner.retain(stream, now)
    }

    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        self.inner.close(stream)
    }

    fn remove(&self, stream: FileId) -> StreamFuture<'_, bool> {
        self.inner.remove(stream)
    }

    fn list(&self, after: Option<FileId>, limit: usize) -> StreamFuture<'_, Vec<FileId>> {
        self.inner.list(after, limit)
    }
}
