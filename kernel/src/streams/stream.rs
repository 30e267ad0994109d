//! One stream: its place in a store, and who waits at its tail.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nexus_actors::Env;
use nexus_messages::syscall::{IoProfile, StreamStart};
use nexus_messages::{ErrorKind, FileId, FileMetadata, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::groups::{Desk, GroupError, GroupLogError};
use super::view::StreamEntry;
use crate::hal::{
    Append, Appended, ReadBounds, StreamError, StreamFuture, StreamRead, StreamRecord, StreamState,
    StreamStore,
};
use crate::metrics::Counter;

/// How often a read of the oldest record looks for the next one when that went meanwhile: whoever has a stream mapped may write anything into it.
pub(super) const OLDEST_ATTEMPTS_MAX: usize = 100;

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
    #[error("the stream has no group {0}")]
    NoGroup(Arc<str>),
    #[error("the stream has as many groups as may be, {}", super::groups::GROUPS_MAX)]
    TooManyGroups,
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    GroupLog(#[from] GroupLogError),
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
            Self::NoGroup(_) => ErrorKind::NotFound,
            Self::TooManyGroups => ErrorKind::StoreFull,
            Self::Group(GroupError::NotYours { .. }) => ErrorKind::NotHeld,
            Self::Group(GroupError::Outstanding { .. }) => ErrorKind::WouldBlock,
            Self::Group(GroupError::TooMany { .. }) => ErrorKind::InvalidArgument,
            Self::GroupLog(GroupLogError::Stream(error) | GroupLogError::Partly(error)) => error.kind(),
            Self::GroupLog(GroupLogError::InDoubt) => ErrorKind::Io,
            Self::Store(error) => error.kind(),
        }
    }

    /// Whether records may have been appended all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unknown(),
            Self::GroupLog(error) => error.is_unknown(),
            _ => false,
        }
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

/// What was counted of all streams.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) appends: Counter,
    pub(super) appended: Counter,
    pub(super) read: Counter,
}

/// A stream that is open.
pub(crate) struct Stream {
    pub(super) id: FileId,
    pub(super) mount: FileId,
    pub(super) io_profile: IoProfile,
    store: Arc<dyn StreamStore>,
    now: RwLock<Now>,
    /// Wakes all who wait, in the order in which they came, when that has changed.
    changed: Notify,
    waiting: AtomicUsize,
    /// What its entry was when it was looked up last.
    seen: Mutex<Arc<FileMetadata>>,
    totals: Arc<Totals>,
    /// For how long it keeps records; and whether it is looked at when the oldest is older.
    age_max: Option<Duration>,
    is_looked_at: AtomicBool,
    /// Where its groups are asked, once somebody did.
    pub(super) desk: OnceLock<Arc<Desk>>,
}

/// A read that waits, for as long as it lives.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

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
        (state, totals): (StreamState, Arc<Totals>),
    ) -> Self {
        Self {
            id: metadata.file_id,
            mount,
            io_profile,
            store,
            now: RwLock::new(Now { tail: state.tail, life: Life::Open }),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            seen: Mutex::new(metadata),
            totals,
            age_max: state.limits.age_max,
            is_looked_at: AtomicBool::new(false),
            desk: OnceLock::new(),
        }
    }

    /// Notes what its entry is now.
    pub(super) fn see(&self, metadata: &Arc<FileMetadata>) {
        let before = std::mem::replace(&mut *self.seen.lock(), metadata.clone());
        drop(before);
    }

    /// The identity of its entry.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// What is acknowledged is there after a crash.
    pub(crate) fn is_durable(&self) -> bool {
        self.store.is_durable()
    }

    pub(super) fn store(&self) -> &Arc<dyn StreamStore> {
        &self.store
    }

    /// Hears of what is appended from now on, and of the end.
    pub(super) fn heard(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Returns when there is more than up to `tail`, where others than this process may append; never elsewhere.
    pub(super) fn grown(&self, tail: u64) -> StreamFuture<'_, ()> {
        self.store.grown(self.id, tail)
    }

    /// Counts among those who wait, as long as it lives.
    pub(super) fn wait(&self) -> Waiting<'_> {
        Waiting::among(&self.waiting)
    }

    /// What it keeps, if it is there still.
    pub(crate) async fn state_now(&self) -> Result<StreamState, Refusal> {
        self.check()?;
        self.store.state(self.id).await.map_err(|error| self.failed(error))
    }

    /// Whether nothing was ever appended to it, nobody waits for a record, and nobody has asked about groups of it. Not, when that cannot be told.
    pub(crate) async fn is_unused(&self) -> bool {
        let was_asked = self.desk.get().is_some() || self.readers_waiting() > 0;
        !was_asked && self.state_now().await.is_ok_and(|state| state.tail == 0)
    }

    /// The records from `from` on, of which there is one at least.
    pub(super) async fn read_at(&self, from: u64, most: ReadBounds) -> Result<Vec<StreamRecord>, Refusal> {
        self.check()?;
        let read = self.store.read(self.id, from, most).await.map_err(|error| self.failed(error))?;
        Ok(read.records)
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        let life = self.now.read().life;
        match life {
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
        self.tell_of(&appended);
        Ok(appended)
    }

    /// As [`append`](Self::append), where that waits for nobody. None: it may, or nothing came of it, and nothing was done.
    pub(crate) fn append_at_once(&self, append: &Append) -> Option<Appended> {
        self.check().ok()?;
        let appended = self.store.append_at_once(self.id, append)?.ok()?;
        self.tell_of(&appended);
        Some(appended)
    }

    /// Counts an append, and tells those who wait.
    fn tell_of(&self, appended: &Appended) {
        if !appended.repeated {
            self.totals.appends.count();
            self.totals.appended.add(appended.count);
        }
        self.change(|now| {
            let is_new = appended.tail > now.tail;
            now.tail = now.tail.max(appended.tail);
            is_new
        });
    }

    /// The records from `from` on, where looking for them waits for nobody; none at the tail. None at all: it may, or they cannot be read.
    pub(crate) fn read_at_once(&self, from: u64, most: ReadBounds) -> Option<StreamRead> {
        self.check().ok()?;
        let read = self.store.read_at_once(self.id, from, most)?.ok()?;
        self.totals.read.add(read.records.len() as u64);
        Some(read)
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
        self.totals.read.add(read.records.len() as u64);
        Ok(read)
    }

    async fn read_on(&self, from: StreamStart, most: ReadBounds, waits: bool) -> Result<StreamRead, Refusal> {
        let is_oldest = from == StreamStart::Oldest;
        let mut from = match from {
            StreamStart::At(offset) => offset,
            start => {
                self.check()?;
                let state = self.store.state(self.id).await.map_err(|error| self.failed(error))?;
                if start == StreamStart::Oldest { state.head } else { state.tail }
            }
        };
        let (mut waiting, mut attempts) = (None, 0..OLDEST_ATTEMPTS_MAX);
        loop {
            // Before the look: what is appended after it is heard of.
            let changed = self.changed.notified();
            self.check()?;
            let tail = match self.store.read(self.id, from, most).await {
                Ok(read) if read.records.is_empty() && !read.closed && waits => read.tail,
                // The oldest has gone meanwhile: there is another one.
                Err(StreamError::Trimmed { head, .. }) if is_oldest && attempts.next().is_some() => {
                    from = head;
                    continue;
                }
                read => return read.map_err(|error| self.failed(error)),
            };
            waiting.get_or_insert_with(|| Waiting::among(&self.waiting));
            // Of what fails there the next read tells.
            let (heard, grown) = (std::pin::pin!(changed), self.store.grown(self.id, tail));
            futures_util::future::select(heard, grown).await;
        }
    }

    /// Changes what those who wait look at, and wakes them when that says that it did.
    fn change(&self, change: impl FnOnce(&mut Now) -> bool) {
        let is_changed = change(&mut self.now.write());
        if is_changed {
            self.changed.notify_waiters();
        }
    }

    /// When records that were appended at this time are too old, if nobody looks at the stream by then.
    pub(super) fn first_due(&self, at: Timestamp) -> Option<Timestamp> {
        let age_max = self.age_max?;
        // SeqCst, here and where it is taken back: who finds it set has appended before the look that will follow.
        (!self.is_looked_at.swap(true, Ordering::SeqCst)).then(|| at.after(age_max))
    }

    /// Whoever appends next has it looked at.
    pub(super) fn is_looked_at_no_more(&self) {
        self.is_looked_at.store(false, Ordering::SeqCst);
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
        self.change(|now| {
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
            stdio: seen.io_profile == Some(IoProfile::Stdio),
            state: self.state(),
            readers_waiting: self.readers_waiting(),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("now", &*self.now.read()).finish_non_exhaustive()
    }
}
