//! Streams in memory that processes share: a file for each, mapped by whoever appends or reads.
//!
//! What was acknowledged outlives every process, this one, too, and not the machine. The room is taken when a stream is made. When it is used up the oldest records
//! go, also those that the limits would keep: short ones fill more of it than they cost.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{
    Env, Pool, SHARED_LOOKS, SharedFolder, SharedKind, SharedLog, SharedRead, SharedState, SharedTrouble,
    SharedWriting, Sleepers,
};
use nexus_kernel::hal::{
    Append, Appended, ReadBounds, StoreError, StreamError, StreamFuture, StreamLimits, StreamRead,
    StreamRecord, StreamState, StreamStore, WhenFull, cost_of,
};
use nexus_messages::{FileId, Timestamp};
use parking_lot::{Mutex, RwLock};

use super::rules::{self, Kept};

/// Room for the records of a stream that says nothing, in bytes: the largest append has room twice.
const ROOM_DEFAULT: u64 = 10 << 20;

/// The least room, in bytes.
const ROOM_MIN: u64 = 64 << 10;

/// In the state of a log: it takes no more appends.
const CLOSED: u64 = 1;

/// In the state of a log: what has no room is refused.
const REFUSES: u64 = 2;

/// What has become of a log, for all who have it mapped: it was removed.
const REMOVED: u64 = 1;

/// How many places to go on from are kept of each stream.
const HINTS_MAX: usize = 64;

/// The settings of [`SharedStreams`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedStreamsConfig {
    /// How much room all streams have together, in bytes, as far as this process has opened them.
    pub bytes_max: u64,
    /// How many streams may be open.
    pub streams_max: usize,
}

impl Default for SharedStreamsConfig {
    fn default() -> Self {
        Self { bytes_max: 4 << 30, streams_max: 4_096 }
    }
}

/// Streams in a folder of shared memory, which this process owns.
#[derive(Debug, Clone)]
pub struct SharedStreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: SharedFolder,
    sleepers: Sleepers,
    config: SharedStreamsConfig,
    open: RwLock<BTreeMap<FileId, Arc<SharedStream>>>,
    /// Held by who makes, opens or removes a file.
    files: Mutex<()>,
    pool: NoDebug<Pool>,
}

struct NoDebug<T>(T);

impl<T> std::fmt::Debug for NoDebug<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// One stream in shared memory, as any process uses it. It goes on when the owner of the kernel is dead.
#[derive(Debug)]
pub struct SharedStream {
    id: FileId,
    log: SharedLog,
    /// Offsets at which appends begin, and their places, so that a reader need not look for them from the oldest on.
    hints: Mutex<BTreeMap<u64, u64>>,
}

fn user_of(closed: bool, limits: StreamLimits) -> [u64; 6] {
    let refuses = limits.when_full == WhenFull::Refuse;
    let flags = if closed { CLOSED } else { 0 } | if refuses { REFUSES } else { 0 };
    let (seconds, nanos) = limits.age_max.map_or((u64::MAX, 0), |age| (age.as_secs(), age.subsec_nanos()));
    [flags, limits.bytes_max.unwrap_or(u64::MAX), seconds, nanos.into(), 0, 0]
}

fn state_of(shared: &SharedState) -> StreamState {
    let [flags, bytes_max, seconds, nanos, ..] = shared.user;
    let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
    let mut limits = StreamLimits::NONE;
    limits.bytes_max = (bytes_max != u64::MAX).then_some(bytes_max);
    limits.age_max = (seconds != u64::MAX).then(|| Duration::new(seconds, nanos));
    if flags & REFUSES != 0 {
        limits.when_full = WhenFull::Refuse;
    }
    let mut state = StreamState::new(limits);
    (state.head, state.tail, state.bytes) = (shared.head, shared.tail, shared.bytes);
    state.closed = flags & CLOSED != 0;
    state
}

fn troubled(trouble: SharedTrouble) -> StreamError {
    let what = "the shared memory of a stream".to_owned();
    match trouble {
        SharedTrouble::Held { .. } => StoreError::Locked { what: format!("{what} ({trouble})") }.into(),
        _ => StoreError::Corrupt { what, found: trouble.to_string() }.into(),
    }
}

/// How much room a stream with these limits is made with.
fn room_for(limits: StreamLimits) -> usize {
    let room = limits.bytes_max.map_or(ROOM_DEFAULT, |bytes| bytes.saturating_add(bytes / 2 + ROOM_MIN));
    usize::try_from(room.max(ROOM_MIN)).unwrap_or(usize::MAX)
}

/// A walk along the appends, from the oldest on.
struct Walk<'a, 'b> {
    writing: &'a SharedWriting<'b>,
    offset: u64,
    at: u64,
    tail: u64,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(writing: &'a SharedWriting<'b>) -> Self {
        let state = writing.state();
        Self { writing, offset: state.head, at: state.head_at, tail: state.tail }
    }

    /// Goes to the append that begins at `offset`.
    fn to(&mut self, offset: u64) -> Result<u64, StreamError> {
        while self.offset < offset {
            let (frame, next) = self.writing.frame(self.at).map_err(troubled)?;
            (self.offset, self.at) = (frame.end(), next);
        }
        Ok(self.at)
    }

    /// The append that holds the record at `offset`.
    fn kept(&mut self, offset: u64) -> Result<Option<Kept>, StreamError> {
        self.to(offset)?;
        if self.offset >= self.tail {
            return Ok(None);
        }
        let (frame, _) = self.writing.frame(self.at).map_err(troubled)?;
        Ok(Some(Kept { end: frame.end(), bytes: frame.cost, at: Timestamp(frame.at) }))
    }
}

impl SharedStream {
    fn new(id: FileId, log: SharedLog) -> Self {
        Self { id, log, hints: Mutex::default() }
    }

    /// Maps the stream in this file, which the owner of its folder has made. Blocks for a moment.
    ///
    /// # Errors
    /// What the system says, and what is told of a file that is no such stream.
    pub fn map(file: &Path, store: u64, id: FileId) -> io::Result<Self> {
        SharedLog::attach(file, store, id.0).map(|log| Self::new(id, log))
    }

    fn check(&self) -> Result<(), StreamError> {
        let removed = self.log.flags() & REMOVED != 0;
        if removed { Err(StreamError::NoStream { stream: self.id }) } else { Ok(()) }
    }

    /// As [`StreamStore::append`]. Does not wait, but for the moment that another one appends.
    ///
    /// # Errors
    /// As there; `EBUSY` when another process has stopped while it appended.
    pub fn append(&self, append: &Append) -> Result<Appended, StreamError> {
        let wanted = append.check()?;
        self.check()?;
        let mut writing = self.log.write().map_err(troubled)?;
        let before = writing.state();
        let state = state_of(&before);
        if let Some((first, count)) = append.op.and_then(|op| writing.find_op(op.0)) {
            return Ok(Appended::new(first, count, state.tail, true));
        }
        let mut walk = Walk::new(&writing);
        let mut after = rules::admit(&state, append, wanted, |at| walk.kept(at))?;
        let mut head_at = walk.to(after.head)?;
        let words = SharedWriting::words_of(&append.records);
        let room = writing.room();
        if words > room {
            let (found, most) = (words as u64 * 8, room as u64 * 8);
            return Err(StreamError::TooLarge { what: "bytes of memory for an append", found, most });
        }
        // Where the limits would keep more than there is room for.
        while before.tail_at.saturating_sub(head_at) + words as u64 > room as u64 {
            if state.limits.when_full == WhenFull::Refuse {
                let (held, most) = (after.bytes.saturating_sub(wanted), room as u64 * 8);
                return Err(StreamError::Full { held, most, wanted });
            }
            let (frame, next) = writing.frame(head_at).map_err(troubled)?;
            after.head = frame.end();
            after.bytes = after.bytes.saturating_sub(frame.cost).max(wanted);
            head_at = next;
        }
        let shared = SharedState { head: after.head, head_at, bytes: after.bytes, ..before };
        let (at, op) = (append.at.0, append.op.map(|op| op.0));
        writing.append(&append.records, at, wanted, op, shared);
        Ok(Appended::new(state.tail, append.records.len() as u64, after.tail, false))
    }

    /// As [`StreamStore::read`]. Never waits.
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, from: u64, most: ReadBounds) -> Result<StreamRead, StreamError> {
        self.check()?;
        let hint = self.hints.lock().range(..=from).next_back().map(|(offset, at)| (*offset, *at));
        let mut bytes = 0;
        let allow = |count: usize, length: usize| {
            // Read once more from the start, it counts anew.
            bytes = if count == 0 { 0 } else { bytes };
            let allowed = most.allow(count, bytes, length);
            bytes += cost_of([length]);
            allowed
        };
        let (read, next) = self.log.read(from, hint, allow).map_err(troubled)?;
        let (records, shared) = match read {
            SharedRead::Records(records, shared) => (records, shared),
            SharedRead::Missing(SharedState { head, tail, .. }) if from > tail => {
                let _ = head;
                return Err(StreamError::BeyondTail { from, tail });
            }
            SharedRead::Missing(SharedState { head, .. }) => return Err(StreamError::Trimmed { from, head }),
        };
        if let Some((offset, at)) = next {
            let mut hints = self.hints.lock();
            hints.insert(offset, at);
            if hints.len() > HINTS_MAX {
                hints.pop_first();
            }
        }
        let state = state_of(&shared);
        let records = (from..).zip(records);
        let records = records.map(|(offset, (at, data))| StreamRecord::new(offset, Timestamp(at), data));
        Ok(StreamRead::new(from, records.collect(), state.tail, state.closed))
    }

    /// As [`StreamStore::state`].
    ///
    /// # Errors
    /// As there.
    pub fn state(&self) -> Result<StreamState, StreamError> {
        self.check()?;
        Ok(state_of(&self.log.state().map_err(troubled)?))
    }

    fn change(
        &self,
        change: impl FnOnce(&StreamState, &mut Walk<'_, '_>) -> Result<StreamState, StreamError>,
    ) -> Result<StreamState, StreamError> {
        self.check()?;
        let mut writing = self.log.write().map_err(troubled)?;
        let before = writing.state();
        let mut walk = Walk::new(&writing);
        let after = change(&state_of(&before), &mut walk)?;
        let (head_at, user) = (walk.to(after.head)?, user_of(after.closed, after.limits));
        let shared = SharedState { head: after.head, head_at, bytes: after.bytes, user, ..before };
        if shared != before {
            writing.publish(shared);
        }
        Ok(after)
    }

    /// What waits for another tail than this, or for the end of the stream.
    fn has_grown(&self, tail: u64) -> Option<()> {
        let is_same = self.check().is_ok()
            && self.log.state().is_ok_and(|shared| shared.tail == tail && shared.user[0] & CLOSED == 0);
        (!is_same).then_some(())
    }

    /// Waits until the stream has another tail than this, or is closed or gone.
    pub async fn grown(&self, sleepers: &Sleepers, tail: u64) {
        self.log.wait(sleepers, || self.has_grown(tail)).await;
    }

    /// As [`grown`](Self::grown), in this thread, for so long: it looks for some tens of microseconds before it sleeps, and is woken without a detour.
    pub fn grown_here(&self, env: &Env, tail: u64, wait: Duration) -> bool {
        self.log.wait_here(env, wait, SHARED_LOOKS, || self.has_grown(tail)).is_some()
    }

    /// As [`grown_here`](Self::grown_here), after so many looks.
    pub fn grown_after(&self, env: &Env, tail: u64, wait: Duration, looks: u32) -> bool {
        self.log.wait_here(env, wait, looks, || self.has_grown(tail)).is_some()
    }
}

impl SharedStreams {
    /// The streams in this folder, with what is in them. `pool` makes and opens files.
    pub fn new(folder: SharedFolder, sleepers: Sleepers, pool: Pool, config: SharedStreamsConfig) -> Self {
        let (open, files, pool) = (RwLock::default(), Mutex::new(()), NoDebug(pool));
        Self(Arc::new(Inner { folder, sleepers, config, open, files, pool }))
    }

    fn known(&self, stream: FileId) -> Option<Arc<SharedStream>> {
        self.0.open.read().get(&stream).cloned()
    }

    /// The stream, opened if it is not.
    async fn find(&self, stream: FileId) -> Result<Arc<SharedStream>, StreamError> {
        if let Some(known) = self.known(stream) {
            return Ok(known);
        }
        let inner = self.0.clone();
        self.aside(move || inner.open(stream, None)).await
    }

    /// Runs what blocks.
    async fn aside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StreamError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let done = self.0.pool.0.run(job).await;
        done.unwrap_or_else(|error| {
            Err(StoreError::io("the shared memory of a stream", io::Error::other(error)).into())
        })
    }
}

impl Inner {
    /// Opens the stream; makes it with these limits, when some are given.
    fn open(&self, stream: FileId, make: Option<StreamLimits>) -> Result<Arc<SharedStream>, StreamError> {
        let _one = self.files.lock();
        if let Some(known) = self.open.read().get(&stream) {
            return Ok(known.clone());
        }
        let most = self.config.streams_max;
        if self.open.read().len() >= most {
            return Err(StreamError::TooMany { most });
        }
        let failed = |error| StreamError::from(StoreError::io("the shared memory of a stream", error));
        let log = match (SharedLog::open(&self.folder, stream.0), make) {
            (Ok(Some(log)), _) => log,
            (Ok(None), None) => return Err(StreamError::NoStream { stream }),
            (Err(error), None) => return Err(failed(error)),
            (_, Some(limits)) => {
                let room = room_for(limits);
                let held: u64 = self.open.read().values().map(|open| open.log.room_bytes()).sum();
                if held.saturating_add(room as u64) > self.config.bytes_max {
                    return Err(StoreError::Full.into());
                }
                let user = user_of(false, limits);
                SharedLog::make(&self.folder, stream.0, room, user, false).map_err(failed)?
            }
        };
        let opened = Arc::new(SharedStream::new(stream, log));
        self.open.write().insert(stream, opened.clone());
        Ok(opened)
    }

    fn remove(&self, stream: FileId) -> Result<bool, StreamError> {
        let _one = self.files.lock();
        let open = self.open.write().remove(&stream);
        if let Some(open) = open {
            open.log.change_flags(REMOVED, 0);
        } else if let Ok(Some(log)) = SharedLog::open(&self.folder, stream.0) {
            log.change_flags(REMOVED, 0);
        }
        let removed = self.folder.remove(SharedKind::Log, stream.0);
        removed.map_err(|error| StoreError::io("the shared memory of a stream", error).into())
    }
}

impl StreamStore for SharedStreams {
    fn is_durable(&self) -> bool {
        false
    }

    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            let inner = self.0.clone();
            let open = self.aside(move || inner.open(stream, Some(limits))).await?;
            open.change(|state, _| Ok(state.limited(limits)))
        })
    }

    fn append(&self, stream: FileId, append: Append) -> StreamFuture<'_, Appended> {
        Box::pin(async move { self.find(stream).await?.append(&append) })
    }

    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead> {
        Box::pin(async move { self.find(stream).await?.read(from, most) })
    }

    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        Box::pin(async move { self.find(stream).await?.state() })
    }

    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            self.find(stream).await?.change(|state, walk| rules::trim(state, before, |at| walk.kept(at)))
        })
    }

    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            self.find(stream).await?.change(|state, walk| rules::let_go(state, now, 0, |at| walk.kept(at)))
        })
    }

    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        Box::pin(async move { self.find(stream).await?.change(|state, _| Ok(state.closed())) })
    }

    fn remove(&self, stream: FileId) -> StreamFuture<'_, bool> {
        let inner = self.0.clone();
        Box::pin(self.aside(move || inner.remove(stream)))
    }

    fn grown(&self, stream: FileId, tail: u64) -> StreamFuture<'_, ()> {
        Box::pin(async move {
            self.find(stream).await?.grown(&self.0.sleepers, tail).await;
            Ok(())
        })
    }

    fn list(&self, after: Option<FileId>, limit: usize) -> StreamFuture<'_, Vec<FileId>> {
        let inner = self.0.clone();
        Box::pin(self.aside(move || {
            let ids = inner.folder.ids(SharedKind::Log);
            let ids = ids.map_err(|error| StoreError::io("the shared memory of streams", error))?;
            let ids = ids.into_iter().map(FileId).filter(|id| after.is_none_or(|after| *id > after));
            Ok(ids.take(limit).collect())
        }))
    }
}
