//! Streams in memory that processes share: a file for each, mapped by whoever appends or reads.
//!
//! What was acknowledged outlives every process, this one, too, and not the machine. The room is taken when a stream is made. When it is used up the oldest records
//! go, also those that the limits would keep: short ones fill more of it than they cost. But what the kernel keeps there itself, beside a stream (its consumer groups), is
//! mapped by nobody else: it begins small, and is given more room when it has none, so nothing of it goes.

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
    Append, Appended, RECORD_BYTES_MAX, ReadBounds, StoreError, StreamError, StreamFuture, StreamLimits,
    StreamRead, StreamRecord, StreamState, StreamStore, WhenFull, cost_of,
};
use nexus_kernel::streams::groups::stream_of;
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

/// What has become of a log: it has more room, in another file.
const MOVED: u64 = 2;

/// How often a stream is looked for anew that has moved. Each time it has twice the room.
const MOVES_MAX: usize = 64;

/// How much room a log that only the kernel has mapped keeps at least, in bytes, when much of it is not needed any more: what is appended until the next time that it is shortened mostly has
/// room then.
const ROOM_KEPT: usize = 512 << 10;

/// Of how many parts of its room such a log needs one, at most, when it is given less: and it is given four.
const ROOM_SPARE: usize = 16;

/// Bytes of a word of the memory.
const WORD_BYTES: usize = 8;

/// How many places to go on from are kept of each stream.
const HINTS_MAX: usize = 64;

/// The settings of [`SharedStreams`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedStreamsConfig {
    /// How much memory all streams have together, in bytes, whether this process has opened them or not.
    pub bytes_max: u64,
    /// How many streams there can be. One whose groups have taken something counts twice: what they are is a log of its own.
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
    /// Held by who makes, opens, moves or removes a file.
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
        trouble if trouble.may_pass() => StoreError::Locked { what: format!("{what} ({trouble})") }.into(),
        _ => StoreError::Corrupt { what, found: trouble.to_string() }.into(),
    }
}

fn failed(error: io::Error) -> StreamError {
    StoreError::io("the shared memory of a stream", error).into()
}

/// Whether the kernel keeps a stream for itself, beside another one: nobody else has it mapped.
fn is_private(stream: FileId) -> bool {
    stream_of(stream) != stream
}

/// How much room a stream with these limits is made with.
fn room_for(stream: FileId, limits: StreamLimits) -> usize {
    if is_private(stream) {
        return usize::try_from(ROOM_MIN).unwrap_or(usize::MAX);
    }
    let room = limits.bytes_max.map_or(ROOM_DEFAULT, |bytes| bytes.saturating_add(bytes / 2 + ROOM_MIN));
    usize::try_from(room.max(ROOM_MIN)).unwrap_or(usize::MAX)
}

/// How many bytes of room a log is to be given that has room for so many words and fills so many; none when it is to keep its room.
fn spared(room: usize, filled: u64) -> Option<usize> {
    let filled = usize::try_from(filled).unwrap_or(usize::MAX);
    let less = filled.saturating_mul(4 * WORD_BYTES).max(ROOM_KEPT);
    // What is given less is not given more again soon.
    (filled <= room / ROOM_SPARE && less <= room * WORD_BYTES / 2).then_some(less)
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
            let (frame, next) = self.writing.frame(self.at, self.offset).map_err(troubled)?;
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
        let (frame, _) = self.writing.frame(self.at, self.offset).map_err(troubled)?;
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
        let is_gone = self.log.flags() & (REMOVED | MOVED) != 0;
        if is_gone { Err(StreamError::NoStream { stream: self.id }) } else { Ok(()) }
    }

    /// Whether it is to be looked for anew.
    fn has_moved(&self) -> bool {
        self.log.flags() & MOVED != 0
    }

    /// Whether it is to be given less room.
    fn has_room_to_spare(&self) -> bool {
        is_private(self.id)
            && self.log.state().is_ok_and(|state| {
                let room = usize::try_from(self.log.room_bytes()).unwrap_or(0) / WORD_BYTES;
                spared(room, state.tail_at.saturating_sub(state.head_at)).is_some()
            })
    }

    fn write(&self) -> Result<SharedWriting<'_>, StreamError> {
        self.check()?;
        let writing = self.log.write().map_err(troubled)?;
        // Whoever moves or removes it may have had it until now.
        self.check().map(|()| writing)
    }

    /// As [`StreamStore::append`]. Does not wait, but for the moment that another one appends.
    ///
    /// # Errors
    /// As there; `EBUSY` when another process has stopped while it appended.
    pub fn append(&self, append: &Append) -> Result<Appended, StreamError> {
        let full = || {
            let (held, most) = (self.state().map_or(0, |state| state.bytes), self.log.room_bytes());
            Err(StreamError::Full { held, most, wanted: append.check().unwrap_or(0) })
        };
        self.append_if_room(append)?.map_or_else(full, Ok)
    }

    /// As [`append`](Self::append); none when there is no room and it is to be given more.
    fn append_if_room(&self, append: &Append) -> Result<Option<Appended>, StreamError> {
        let wanted = append.check()?;
        let mut writing = self.write()?;
        let before = writing.state();
        let state = state_of(&before);
        if let Some((first, count)) = append.op.and_then(|op| writing.find_op(op.0)) {
            return Ok(Some(Appended::new(first, count, state.tail, true)));
        }
        let mut walk = Walk::new(&writing);
        let mut after = rules::admit(&state, append, wanted, |at| walk.kept(at))?;
        let mut head_at = walk.to(after.head)?;
        let words = SharedWriting::words_of(&append.records);
        let (room, grows) = (writing.room(), is_private(self.id));
        if words > room && !grows {
            let (found, most) = (words as u64 * 8, room as u64 * 8);
            return Err(StreamError::TooLarge { what: "bytes of memory for an append", found, most });
        }
        // Where the limits would keep more than there is room for.
        while before.tail_at.saturating_sub(head_at) + words as u64 > room as u64 {
            if grows {
                return Ok(None);
            }
            if state.limits.when_full == WhenFull::Refuse {
                let (held, most) = (after.bytes.saturating_sub(wanted), room as u64 * 8);
                return Err(StreamError::Full { held, most, wanted });
            }
            let (frame, next) = writing.frame(head_at, after.head).map_err(troubled)?;
            after.head = frame.end();
            after.bytes = after.bytes.saturating_sub(frame.cost).max(wanted);
            head_at = next;
        }
        let shared = SharedState { head: after.head, head_at, bytes: after.bytes, ..before };
        let (at, op) = (append.at.0, append.op.map(|op| op.0));
        writing.append(&append.records, at, wanted, op, shared);
        Ok(Some(Appended::new(state.tail, append.records.len() as u64, after.tail, false)))
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
        // Whatever another process wrote there is no record.
        if records.iter().any(|(_, data)| data.len() > RECORD_BYTES_MAX) {
            return Err(troubled(SharedTrouble::Damaged));
        }
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
        let mut writing = self.write()?;
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

    /// Does it with the stream, and again when that has moved meanwhile.
    async fn with<T>(
        &self,
        stream: FileId,
        job: impl Fn(&SharedStream) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        for _ in 0..MOVES_MAX {
            let open = self.find(stream).await?;
            match job(&open) {
                Err(_) if open.has_moved() => {}
                done => return done,
            }
        }
        Err(StoreError::Full.into())
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
        let log = match (SharedLog::open(&self.folder, stream.0), make) {
            (Ok(Some(log)), _) => log,
            (Ok(None), None) => return Err(StreamError::NoStream { stream }),
            (Err(error), None) => return Err(failed(error)),
            (_, Some(limits)) => {
                let (most, (there, _)) =
                    (self.config.streams_max, self.folder.held(SharedKind::Log).map_err(failed)?);
                if there >= most {
                    return Err(StreamError::TooMany { most });
                }
                let (room, user) = (room_for(stream, limits), user_of(false, limits));
                SharedLog::make(&self.folder, stream.0, room, user, self.config.bytes_max).map_err(failed)?
            }
        };
        let opened = Arc::new(SharedStream::new(stream, log));
        self.open.write().insert(stream, opened.clone());
        Ok(opened)
    }

    /// Gives the stream more room, so that an append has some that fills so many words.
    fn make_room(&self, stream: &Arc<SharedStream>, words: usize) -> Result<(), StreamError> {
        let _one = self.files.lock();
        let writing = match stream.write() {
            Err(_) if stream.has_moved() => return Ok(()),
            writing => writing?,
        };
        let state = writing.state();
        let held = usize::try_from(state.tail_at.saturating_sub(state.head_at)).unwrap_or(usize::MAX);
        let room = writing.room().max(held.saturating_add(words)).saturating_mul(2 * WORD_BYTES);
        self.move_to(stream, &writing, room)
    }

    /// Gives the stream less room, when it fills little of what it has. Does nothing otherwise.
    fn spare_room(&self, stream: &Arc<SharedStream>) -> Result<(), StreamError> {
        let _one = self.files.lock();
        let writing = match stream.write() {
            Err(_) if stream.has_moved() => return Ok(()),
            writing => writing?,
        };
        let state = writing.state();
        match spared(writing.room(), state.tail_at.saturating_sub(state.head_at)) {
            Some(room) => self.move_to(stream, &writing, room),
            None => Ok(()),
        }
    }

    /// Has the stream go on in a file with room for so many bytes.
    fn move_to(
        &self,
        stream: &Arc<SharedStream>,
        writing: &SharedWriting<'_>,
        room: usize,
    ) -> Result<(), StreamError> {
        let moved = writing.moved(&self.folder, stream.id.0, room, self.config.bytes_max).map_err(failed)?;
        let moved = Arc::new(SharedStream::new(stream.id, moved));
        self.open.write().insert(stream.id, moved);
        // Before anybody else may write to it; and who is told so finds the other one.
        stream.log.change_flags(MOVED, 0);
        Ok(())
    }

    fn remove(&self, stream: FileId) -> Result<bool, StreamError> {
        let _one = self.files.lock();
        let open = self.open.write().remove(&stream);
        if let Some(open) = open {
            open.log.change_flags(REMOVED, 0);
        } else if let Ok(Some(log)) = SharedLog::open(&self.folder, stream.0) {
            log.change_flags(REMOVED, 0);
        }
        self.folder.remove(SharedKind::Log, stream.0).map_err(failed)
    }
}

impl StreamStore for SharedStreams {
    fn is_durable(&self) -> bool {
        false
    }

    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            let inner = self.0.clone();
            self.aside(move || inner.open(stream, Some(limits))).await?;
            self.with(stream, |open| open.change(|state, _| Ok(state.limited(limits)))).await
        })
    }

    fn append(&self, stream: FileId, append: Append) -> StreamFuture<'_, Appended> {
        Box::pin(async move {
            for _ in 0..MOVES_MAX {
                if let Some(appended) = self.with(stream, |open| open.append_if_room(&append)).await? {
                    return Ok(appended);
                }
                let (inner, open) = (self.0.clone(), self.find(stream).await?);
                let words = SharedWriting::words_of(&append.records);
                self.aside(move || inner.make_room(&open, words)).await?;
            }
            Err(StoreError::Full.into())
        })
    }

    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead> {
        Box::pin(self.with(stream, move |open| open.read(from, most)))
    }

    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        Box::pin(self.with(stream, SharedStream::state))
    }

    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            let trim = |open: &SharedStream| {
                open.change(|state, walk| rules::trim(state, before, |at| walk.kept(at)))
            };
            let trimmed = self.with(stream, trim).await?;
            if let Some(open) = self.known(stream).filter(|open| open.has_room_to_spare()) {
                let inner = self.0.clone();
                if let Err(error) = self.aside(move || inner.spare_room(&open)).await {
                    // It is trimmed, and has the room that it had.
                    tracing::debug!(%stream, %error, "a log in shared memory was not given less room");
                }
            }
            Ok(trimmed)
        })
    }

    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState> {
        Box::pin(self.with(stream, move |open| {
            open.change(|state, walk| rules::let_go(state, now, 0, |at| walk.kept(at)))
        }))
    }

    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        Box::pin(self.with(stream, |open| open.change(|state, _| Ok(state.closed()))))
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
