//! One stream: its place in a store, and who waits at its tail.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nexus_actors::Env;
use nexus_messages::syscall::{IoProfile, StreamStart};
use nexus_messages::{ErrorKind, FileId, FileMetadata};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::view::StreamEntry;
use crate::hal::{Append, Appended, ReadBounds, StreamError, StreamRead, StreamState, StreamStore};

/// Why nothing was appended, or read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no record came within {0:?}")]
    NothingCame(Duration),
    #[error("the stream was removed")]
    Removed,
    #[error("the kernel has ended")]
    Down,
    #[error("as many streams are open as may be, {}", super::STREAMS_MAX)]
    TooManyStreams,
    #[error("its records are on disk, and this kernel keeps no streams there")]
    NoStore,
    #[error("it is not known that its entry is on disk")]
    NotSettled,
    #[error("it is made in a way that this kernel does not know")]
    Unknown,
    #[error(transparent)]
    Store(#[from] StreamError),
}

impl Refusal {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NothingCame(_) => ErrorKind::TimedOut,
            Self::Removed => ErrorKind::NotFound,
            Self::Down => ErrorKind::Down,
            Self::TooManyStreams => ErrorKind::Busy,
            Self::NoStore | Self::Unknown => ErrorKind::NotSupported,
            Self::NotSettled => ErrorKind::Io,
            Self::Store(error) => error.kind(),
        }
    }

    /// Whether records may have been appended all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_unknown())
    }
}

/// What those who wait look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Now {
    /// The tail, as far as this process has heard.
    tail: u64,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// Its entry was removed, or its mount detached.
    Removed,
    /// The kernel has ended.
    Down,
}

/// What was counted: appends, records appended, records read.
pub(super) type Totals = [AtomicU64; 3];

/// A stream that is open.
pub(crate) struct Stream {
    pub(super) id: FileId,
    pub(super) mount: FileId,
    pub(super) io_profile: IoProfile,
    store: Arc<dyn StreamStore>,
    now: watch::Sender<Now>,
    waiting: AtomicUsize,
    /// What its entry was when it was looked up last.
    seen: Mutex<Arc<FileMetadata>>,
    pub(super) totals: Arc<Totals>,
}

/// A read that waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a AtomicUsize) -> Self {
        // Statistics: nothing is ordered by it.
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stream {
    pub(super) fn new(
        mount: FileId,
        io_profile: IoProfile,
        store: Arc<dyn StreamStore>,
        metadata: Arc<FileMetadata>,
        state: StreamState,
    ) -> Self {
        Self {
            id: metadata.file_id,
            mount,
            io_profile,
            store,
            now: watch::Sender::new(Now { tail: state.tail, life: Life::Open }),
            waiting: AtomicUsize::new(0),
            seen: Mutex::new(metadata),
            totals: Arc::default(),
        }
    }

    /// Notes what its entry is now.
    pub(super) fn see(&self, metadata: &Arc<FileMetadata>) {
        let before = std::mem::replace(&mut *self.seen.lock(), metadata.clone());
        drop(before);
    }

    /// What is acknowledged is there after a crash.
    pub(crate) fn is_durable(&self) -> bool {
        self.store.is_durable()
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.now.borrow().life {
            Life::Open => Ok(()),
            Life::Removed => Err(Refusal::Removed),
            Life::Down => Err(Refusal::Down),
        }
    }

    /// What a failure of the store is: of a stream that is gone, that.
    fn failed(&self, error: StreamError) -> Refusal {
        match self.check() {
            Err(why) if !error.is_unknown() => why,
            _ if matches!(error, StreamError::NoStream { .. }) => Refusal::Removed,
            _ => Refusal::Store(error),
        }
    }

    /// Appends, and tells those who wait. To be polled to its end: when it is dropped, records may be there that nobody was told of.
    pub(crate) async fn append(&self, append: Append) -> Result<Appended, Refusal> {
        self.check()?;
        let appended = self.store.append(self.id, append).await.map_err(|error| self.failed(error))?;
        if !appended.repeated {
            // Statistics: nothing is ordered by them.
            self.totals[0].fetch_add(1, Ordering::Relaxed);
            self.totals[1].fetch_add(appended.count, Ordering::Relaxed);
        }
        self.now.send_if_modified(|now| {
            let is_new = appended.tail > now.tail;
            now.tail = now.tail.max(appended.tail);
            is_new
        });
        Ok(appended)
    }

    /// The records from `from` on. At the tail none, or it waits for one for so long. Dropping the future changes nothing.
    pub(crate) async fn read(
        &self,
        env: &Env,
        from: StreamStart,
        most: ReadBounds,
        wait: Option<Duration>,
    ) -> Result<StreamRead, Refusal> {
        let read = self.read_on(from, most, wait.is_some());
        let read = match wait {
            None => read.await,
            Some(wait) => env.timeout(wait, read).await.unwrap_or(Err(Refusal::NothingCame(wait))),
        }?;
        self.totals[2].fetch_add(read.records.len() as u64, Ordering::Relaxed);
        Ok(read)
    }

    async fn read_on(&self, from: StreamStart, most: ReadBounds, waits: bool) -> Result<StreamRead, Refusal> {
        // Before the look: what is appended after it is heard of.
        let mut heard = self.now.subscribe();
        let is_oldest = from == StreamStart::Oldest;
        let mut from = match from {
            StreamStart::At(offset) => offset,
            start => {
                self.check()?;
                let state = self.store.state(self.id).await.map_err(|error| self.failed(error))?;
                if start == StreamStart::Oldest { state.head } else { state.tail }
            }
        };
        let mut waiting = None;
        loop {
            heard.mark_unchanged();
            self.check()?;
            let tail = match self.store.read(self.id, from, most).await {
                Ok(read) if read.records.is_empty() && !read.closed && waits => read.tail,
                // The oldest has gone meanwhile: there is another one.
                Err(StreamError::Trimmed { head, .. }) if is_oldest => {
                    from = head;
                    continue;
                }
                read => return read.map_err(|error| self.failed(error)),
            };
            waiting.get_or_insert_with(|| Waiting::among(&self.waiting));
            // Its other end is in this value. Of what fails there the next read tells.
            let (heard, grown) = (std::pin::pin!(heard.changed()), self.store.grown(self.id, tail));
            futures_util::future::select(heard, grown).await;
        }
    }

    /// Lets nobody append or read any more, and wakes who waits.
    pub(super) fn remove(&self) {
        self.end_as(Life::Removed);
    }

    /// The kernel has ended.
    pub(super) fn end(&self) {
        self.end_as(Life::Down);
    }

    fn end_as(&self, life: Life) {
        self.now.send_if_modified(|now| {
            let was_open = now.life == Life::Open;
            if was_open {
                now.life = life;
            }
            was_open
        });
    }

    pub(super) fn readers_waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What it keeps, when its store says so at once.
    pub(super) fn state(&self) -> Option<StreamState> {
        use futures_util::FutureExt;
        self.store.state(self.id).now_or_never()?.ok()
    }

    pub(super) fn entry(&self) -> StreamEntry {
        let seen = self.seen.lock().clone();
        StreamEntry {
            id: self.id,
            zone: seen.zone.clone(),
            path: seen.path.clone(),
            io_profile: self.io_profile,
            state: self.state(),
            readers_waiting: self.readers_waiting(),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("id", &self.id)
            .field("now", &*self.now.borrow())
            .finish_non_exhaustive()
    }
}
