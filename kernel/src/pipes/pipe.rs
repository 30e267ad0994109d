//! One pipe: the ring, what has become of it, and who has opened it.
//!
//! A pipe that nobody has opened is there for all who read and write by its path: an empty one may get a message, a full one may get room. Who opens an end
//! says that it will come again, and so its going away means something: when writers had opened it and the last is gone, an empty pipe is at its end; when
//! readers had and the last is gone, nothing can be written. Whoever opens an end of that side anew takes that back.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, Ring, SharedPipe, SharedTrouble, Sleepers};
use nexus_messages::syscall::{IoProfile, PIPE_CAPACITY_MAX, PipeSpec};
use nexus_messages::{ErrorKind, FileId, FileMetadata, LifeId, OpId};
use parking_lot::Mutex;

use super::ENDS_MAX;
use super::body::Body;
use super::end::{Closing, OpenEnd};
use super::given::{Away, GivenMessage, Taken};
use super::once::{Begun, Once, Remembered};
use super::unsettled::{Looking, Unsettled};
use super::view::{PipeEnd, PipeEntry};
use crate::metrics::Lines;

/// It was removed, or its mount detached.
const REMOVED: u8 = 1;

/// The kernel has ended.
const DOWN: u8 = 2;

/// Writers had opened it, and the last of them is gone.
const NO_WRITERS: u8 = 4;

/// Readers had opened it, and the last of them is gone.
const NO_READERS: u8 = 8;

/// It is for a child process, and none has an end of it.
const NO_CHILD: u8 = 16;

/// No end was found: so often no read was counted.
const NO_END: u64 = u64::MAX;

/// Why nothing was read, or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no message in the pipe")]
    Empty,
    #[error("there is no room in the pipe")]
    Full,
    #[error("no message came within {0:?}")]
    NothingCame(Duration),
    #[error("there was no room within {0:?}")]
    StayedFull(Duration),
    #[error("the message has {length} bytes, and the pipe holds {capacity}")]
    TooLarge { length: usize, capacity: u32 },
    #[error("the last of its readers is gone")]
    NoReaders,
    #[error("a write of the same identity is under way")]
    UnderWay,
    #[error("no child process is on the other side")]
    NoChild,
    #[error("the pipe was removed")]
    Removed,
    #[error("the kernel has ended")]
    Down,
    #[error("its owner's life has ended, and the end of the pipe with it")]
    EndClosed,
    #[error("it has {ENDS_MAX} ends, and no more may be open at once")]
    TooManyEnds,
    #[error(
        "as many pipes are open as may be: {} of them, for {} bytes in all",
        super::PIPES_MAX,
        super::PIPES_BYTES_MAX
    )]
    TooManyPipes,
    #[error("it is made in a way that this kernel does not know")]
    Unknown,
    #[error("its memory cannot be had: {1}")]
    NotMade(std::io::ErrorKind, Arc<str>),
    #[error(transparent)]
    Shared(#[from] SharedTrouble),
}

impl Refusal {
    /// Whether it may be otherwise a moment later.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Empty | Self::Full => true,
            Self::Shared(trouble) => trouble.may_pass(),
            _ => false,
        }
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty | Self::Full => ErrorKind::WouldBlock,
            Self::NothingCame(_) | Self::StayedFull(_) => ErrorKind::TimedOut,
            Self::TooLarge { .. } => ErrorKind::MessageTooLarge,
            Self::NoReaders | Self::NoChild => ErrorKind::BrokenPipe,
            Self::Removed => ErrorKind::NotFound,
            Self::Down => ErrorKind::Down,
            Self::EndClosed => ErrorKind::NotHeld,
            Self::TooManyEnds | Self::TooManyPipes | Self::UnderWay => ErrorKind::Busy,
            Self::Unknown => ErrorKind::NotSupported,
            Self::NotMade(std::io::ErrorKind::StorageFull, _) => ErrorKind::StoreFull,
            Self::Shared(trouble) if trouble.may_pass() => ErrorKind::Busy,
            Self::NotMade(std::io::ErrorKind::Unsupported, _) => ErrorKind::NotSupported,
            Self::NotMade(..) | Self::Shared(_) => ErrorKind::Io,
        }
    }
}

/// Which end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Reader,
    Writer,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
        }
    }

    /// What is so when the last of this side is gone.
    fn gone(self) -> u8 {
        match self {
            Self::Reader => NO_READERS,
            Self::Writer => NO_WRITERS,
        }
    }
}

/// Messages written to all pipes, and read.
pub(super) type Totals = Lines<[AtomicU64; 2]>;

/// A pipe that is open.
pub(crate) struct Pipe {
    pub(super) id: FileId,
    pub(super) mount: FileId,
    spec: PipeSpec,
    body: Body,
    /// What has become of it: some of the flags above.
    state: AtomicU8,
    /// Invariant: `NO_WRITERS`, `NO_READERS` and `NO_CHILD` in `state` are changed under this lock alone.
    ends: Mutex<Ends>,
    /// What its entry was when it was looked up last.
    seen: Mutex<Arc<FileMetadata>>,
    totals: Arc<Totals>,
    once: Once,
    pub(super) unsettled: Unsettled,
}

#[derive(Default)]
struct Ends {
    next: u64,
    open: BTreeMap<u64, End>,
}

struct End {
    side: Side,
    agent: Arc<str>,
    closing: Arc<Closing>,
    of_child: bool,
}

/// Who opens an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Somebody who calls.
    Caller,
    /// A child process, by what carries its messages.
    Child,
}

impl Pipe {
    /// The pipe whose entry `metadata` is: empty, or `shared` with what is in it.
    pub(super) fn new(
        mount: FileId,
        metadata: Arc<FileMetadata>,
        shared: Option<(SharedPipe, Sleepers)>,
        totals: Arc<Totals>,
        remembered: Remembered,
    ) -> Result<Self, Refusal> {
        let spec = metadata.pipe().ok_or(Refusal::Unknown)?;
        if !(1..=PIPE_CAPACITY_MAX).contains(&spec.capacity) {
            return Err(Refusal::Unknown);
        }
        let messages = usize::try_from(spec.messages_max()).map_err(|_| Refusal::Unknown)?;
        Ok(Self {
            id: metadata.file_id,
            mount,
            spec,
            body: match shared {
                None => Body::Memory(Ring::new(messages, spec.capacity)),
                Some((pipe, sleepers)) => Body::Shared { pipe, sleepers, away: Away::default() },
            },
            state: AtomicU8::new(if spec.io_profile == IoProfile::Stdio { NO_CHILD } else { 0 }),
            ends: Mutex::default(),
            seen: Mutex::new(metadata),
            totals,
            once: Once::new(remembered),
            unsettled: Unsettled::default(),
        })
    }

    /// Whether it is in memory that processes share: another one can keep this one from it for some tens of milliseconds.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.body, Body::Shared { .. })
    }

    pub(super) fn capacity(&self) -> u64 {
        self.spec.capacity.into()
    }

    /// Messages and bytes that are written and not read, and how many reads and writes wait.
    pub(super) fn load(&self) -> ((usize, u64), (usize, usize)) {
        let (messages, bytes) = self.body.held();
        ((messages, u64::from(bytes)), self.body.waiting())
    }

    /// Whether nobody has opened it, nothing is in it, and nobody waits at it.
    pub(crate) fn is_unused(&self) -> bool {
        self.ends.lock().open.is_empty() && self.load() == ((0, 0), (0, 0))
    }

    /// Notes what its entry is now.
    pub(super) fn see(&self, metadata: &Arc<FileMetadata>) {
        let before = std::mem::replace(&mut *self.seen.lock(), metadata.clone());
        drop(before);
    }

    /// Whether it is neither removed nor ended.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        // Acquire pairs with the release that sets a flag.
        self.state.load(Ordering::Acquire) & (REMOVED | DOWN) == 0
    }

    /// The next message; no bytes at the end. Never waits.
    #[inline]
    pub(crate) fn try_read(&self) -> Result<Bytes, Refusal> {
        // Before the look: what the last writer wrote before it went away is read first.
        let end = self.end_of_all(0);
        if self.is_open()
            && let Some(message) = self.body.try_pop()?
        {
            self.totals.raise(|[_, read]| read);
            return Ok(message);
        }
        if self.is_at(end)? { Ok(Bytes::new()) } else { Err(Refusal::Empty) }
    }

    /// As [`try_read`](Self::try_read), of a pipe that was found empty, for who is ready to wait: looks a moment longer.
    #[cold]
    pub(crate) fn look_for_message(&self) -> Result<Bytes, Refusal> {
        if Self::ended(self.state.load(Ordering::Acquire)).is_some() {
            return self.try_read();
        }
        let message = self.body.look_for_message()?.ok_or(Refusal::Empty)?;
        self.totals.raise(|[_, read]| read);
        Ok(message)
    }

    /// As [`try_read`](Self::try_read), and waits for a message for so long. Dropping the future takes no message along.
    pub(crate) async fn read(&self, env: &Env, wait: Duration) -> Result<Bytes, Refusal> {
        let read = async {
            let end = AtomicU64::new(NO_END);
            loop {
                if let Some(message) = self.body.pop(env, || self.is_over(0, &end)).await? {
                    self.totals.raise(|[_, read]| read);
                    return Ok(message);
                }
                if self.is_at(Some(end.load(Ordering::Relaxed)))? {
                    return Ok(Bytes::new());
                }
                // A writer has come since, or a message may have come back.
            }
        };
        env.timeout(wait, read).await.unwrap_or(Err(Refusal::NothingCame(wait)))
    }

    /// As [`try_read`](Self::try_read), for who hands the message on: it goes back when that does not happen. None at the end.
    pub(crate) fn try_take(self: &Arc<Self>, env: &Env) -> Result<Option<GivenMessage>, Refusal> {
        let looking = Looking::begin(self);
        let end = self.end_of_all(1);
        if self.is_open()
            && let Some(taken) = self.body.try_take()?
        {
            looking.has_taken();
            return Ok(Some(self.given(env, taken)));
        }
        if self.is_at(end)? { Ok(None) } else { Err(Refusal::Empty) }
    }

    /// As [`try_take`](Self::try_take), and waits for a message for so long.
    pub(crate) async fn take(
        self: &Arc<Self>,
        env: &Env,
        wait: Duration,
    ) -> Result<Option<GivenMessage>, Refusal> {
        let mut take = pin!(async {
            let end = AtomicU64::new(NO_END);
            loop {
                if let Some(taken) = self.body.take(env, || self.is_over(1, &end)).await? {
                    return Ok(Some(self.given(env, taken)));
                }
                if self.is_at(Some(end.load(Ordering::Relaxed)))? {
                    return Ok(None);
                }
                // A writer has come since, or a message may have come back.
            }
        });
        let take = poll_fn(|cx| {
            // While it waits there is nothing that could come back.
            let looking = Looking::begin(self);
            let taken = take.as_mut().poll(cx);
            if matches!(taken, Poll::Ready(Ok(Some(_)))) {
                looking.has_taken();
            }
            taken
        });
        env.timeout(wait, take).await.unwrap_or(Err(Refusal::NothingCame(wait)))
    }

    /// That nothing is written any more and nothing comes back, as far as can be told before the look: for [`is_at`](Self::is_at) behind it. `own` says how many of the reads
    /// that are counted are of who asks.
    #[inline]
    fn end_of_all(&self, own: u64) -> Option<u64> {
        match Self::ended(self.state.load(Ordering::Acquire)) {
            Some(Ok(_)) => self.unsettled.none_but(own),
            _ => None,
        }
    }

    /// Whether who waits for a message is to wait no longer when there is none. To be asked before each look.
    fn is_over(&self, own: u64, end: &AtomicU64) -> bool {
        let found = self.end_of_all(own);
        // Both are of one task.
        end.store(found.unwrap_or(NO_END), Ordering::Relaxed);
        found.is_some() || !self.is_open()
    }

    /// Whether a pipe that was found empty is at its end; not when something may come.
    fn is_at(&self, end: Option<u64>) -> Result<bool, Refusal> {
        match Self::ended(self.state.load(Ordering::Acquire)) {
            None => Ok(false),
            Some(Err(gone)) => Err(gone),
            Some(Ok(_)) => Ok(end.is_some_and(|end| self.unsettled.is_still(end))),
        }
    }

    /// A read that may give back what it takes has taken nothing, or what it took is with who asked for it, or in the pipe again.
    pub(super) fn settle(&self) {
        if self.unsettled.settle() {
            // Who found the pipe empty waits for its end.
            self.body.wake_all();
        }
    }

    fn given(self: &Arc<Self>, env: &Env, taken: Taken) -> GivenMessage {
        self.totals.raise(|[_, read]| read);
        GivenMessage::new(env, self, taken)
    }

    /// Puts a message back that was taken: whoever reads next gets it.
    pub(super) fn put_back(&self, taken: Taken) {
        self.totals.lower(|[_, read]| read);
        self.body.put_back(taken);
        if self.state.load(Ordering::Acquire) & REMOVED != 0 {
            // What was left in it was let go of meanwhile.
            self.body.clear();
        }
    }

    /// A message that was taken is not waited for any longer.
    pub(super) fn is_settled(self: &Arc<Self>, env: &Env) {
        self.body.settled();
        self.carry_back(env);
        self.settle();
    }

    /// Has other processes see what came back, as soon as there is room for it.
    pub(super) fn carry_back(self: &Arc<Self>, env: &Env) {
        if self.body.carry_back() {
            let (pipe, own) = (self.clone(), env.clone());
            env.spawn("pipes.carry_back", async move {
                pipe.body.carried_back(&own, || !pipe.is_open()).await;
            });
        }
    }

    /// What a read of an empty pipe comes to in this state, if it need not wait.
    pub(super) fn ended(state: u8) -> Option<Result<Bytes, Refusal>> {
        if state & REMOVED != 0 {
            Some(Err(Refusal::Removed))
        } else if state & DOWN != 0 {
            Some(Err(Refusal::Down))
        } else {
            (state & (NO_WRITERS | NO_CHILD) != 0).then(|| Ok(Bytes::new()))
        }
    }

    /// Writes one message. Never waits; what is not written comes back.
    #[inline]
    pub(crate) fn try_write(&self, message: Bytes) -> Result<(), (Refusal, Bytes)> {
        let weight = match self.weigh(&message) {
            Ok(Some(weight)) => weight,
            Ok(None) => return Ok(()),
            Err(refusal) => return Err((refusal, message)),
        };
        self.body.try_push(message, weight)?;
        self.totals.raise(|[written, _]| written);
        Ok(())
    }

    /// As [`try_write`](Self::try_write), to a pipe that was found full, for who is ready to wait: looks a moment longer.
    #[cold]
    pub(crate) fn look_for_room(&self, message: Bytes) -> Result<(), (Refusal, Bytes)> {
        let weight = match self.weigh(&message) {
            Ok(Some(weight)) => weight,
            Ok(None) => return Ok(()),
            Err(refusal) => return Err((refusal, message)),
        };
        self.body.look_for_room(message, weight)?;
        self.totals.raise(|[written, _]| written);
        Ok(())
    }

    /// As [`try_write`](Self::try_write), and waits for room for so long, behind those who came before. Dropping the future writes nothing, unless it was written.
    pub(crate) async fn write(&self, env: &Env, mut message: Bytes, wait: Duration) -> Result<(), Refusal> {
        let write = async {
            loop {
                let Some(weight) = self.weigh(&message)? else { return Ok(()) };
                let over = || Self::refused(self.state.load(Ordering::Acquire)).is_some();
                match self.body.push(env, message, weight, over).await? {
                    Ok(()) => {
                        self.totals.raise(|[written, _]| written);
                        return Ok(());
                    }
                    // What was over may be no more: a reader has come since.
                    Err(back) => message = back,
                }
            }
        };
        env.timeout(wait, write).await.unwrap_or(Err(Refusal::StayedFull(wait)))
    }

    /// Writes one message once, whoever repeats the write: says how many bytes the first of this identity wrote, when that is among the last that had one. One under way
    /// is waited for, as long as this one may wait.
    pub(crate) async fn write_once(
        &self,
        env: &Env,
        op: OpId,
        message: Bytes,
        wait: Option<Duration>,
    ) -> Result<u64, Refusal> {
        // No deadline: one may wait for longer than there are times.
        let began = env.now();
        let left = || wait.map(|wait| wait.saturating_sub(env.now().saturating_duration_since(began)));
        let writing = loop {
            match self.once.begin(op) {
                Begun::First(writing) => break writing,
                Begun::Before(length) => return Ok(length),
                Begun::UnderWay(ended) => {
                    let Some(left) = left().filter(|left| !left.is_zero()) else {
                        return Err(Refusal::UnderWay);
                    };
                    if env.timeout(left, ended).await.is_err() {
                        return Err(Refusal::UnderWay);
                    }
                }
            }
        };
        let length = message.len() as u64;
        match left() {
            None => self.try_write(message).map_err(|(refusal, _)| refusal)?,
            Some(left) => self.write(env, message, left).await.map_err(|refusal| match (refusal, wait) {
                (Refusal::StayedFull(_), Some(wait)) => Refusal::StayedFull(wait),
                (refusal, _) => refusal,
            })?,
        }
        // With the write: there is nothing to wait for in between.
        writing.executed(length);
        Ok(length)
    }

    /// How many bytes the write of this identity wrote, if it was executed and is among those that are remembered.
    pub(crate) fn wrote(&self, op: OpId) -> Result<Option<u64>, Refusal> {
        self.once.executed(op).ok_or(Refusal::UnderWay)
    }

    /// What a message weighs, if it may be written at all; nothing for one that is empty.
    #[inline]
    fn weigh(&self, message: &Bytes) -> Result<Option<u32>, Refusal> {
        if let Some(refusal) = Self::refused(self.state.load(Ordering::Acquire)) {
            return Err(refusal);
        }
        let (length, capacity) = (message.len(), self.body.capacity());
        match u32::try_from(length) {
            Ok(weight) if weight <= capacity => Ok((weight > 0).then_some(weight)),
            _ => Err(Refusal::TooLarge { length, capacity }),
        }
    }

    #[inline]
    pub(super) fn refused(state: u8) -> Option<Refusal> {
        if state & (REMOVED | DOWN | NO_READERS | NO_CHILD) == 0 {
            None
        } else if state & REMOVED != 0 {
            Some(Refusal::Removed)
        } else if state & DOWN != 0 {
            Some(Refusal::Down)
        } else if state & NO_CHILD != 0 {
            Some(Refusal::NoChild)
        } else {
            Some(Refusal::NoReaders)
        }
    }

    /// Opens an end. With a new child a pipe for children begins anew: who went away before it came does not count.
    pub(super) fn open_end(
        &self,
        side: Side,
        holder: Holder,
        agent: &Arc<str>,
        life: LifeId,
    ) -> Result<OpenEnd, Refusal> {
        let mut ends = self.ends.lock();
        if let Some(Err(gone)) = Self::ended(self.state.load(Ordering::Acquire)) {
            return Err(gone);
        }
        if ends.open.len() >= ENDS_MAX {
            return Err(Refusal::TooManyEnds);
        }
        ends.next += 1;
        let (number, closing) = (ends.next, Arc::<Closing>::default());
        let of_child = holder == Holder::Child && self.spec.io_profile == IoProfile::Stdio;
        ends.open.insert(number, End { side, agent: agent.clone(), closing: closing.clone(), of_child });
        let begins = if of_child { NO_CHILD | NO_READERS | NO_WRITERS } else { side.gone() };
        self.state.fetch_and(!begins, Ordering::AcqRel);
        self.body.tell(0, side.gone());
        Ok(OpenEnd { number, closing, life })
    }

    /// What becomes of the end that was opened under this number; none when it is closed.
    pub(crate) fn closing(&self, number: u64) -> Option<Arc<Closing>> {
        self.ends.lock().open.get(&number).map(|end| end.closing.clone())
    }

    /// Closes an end: what waits through it is told, and with the last of its side all who wait on the other. May be repeated.
    pub(super) fn close_end(&self, number: u64) {
        let (closing, last) = {
            let mut ends = self.ends.lock();
            let Some(end) = ends.open.remove(&number) else { return };
            // Before others are told that it is gone: what waits is not done after that.
            end.closing.close();
            let mut over = 0;
            if !ends.open.values().any(|other| other.side == end.side) {
                over |= end.side.gone();
                // Once this one is removed, who shares its memory may have it through another one by now.
                if self.state.load(Ordering::Acquire) & REMOVED == 0 {
                    self.body.tell(end.side.gone(), 0);
                }
            }
            if end.of_child && !ends.open.values().any(|other| other.of_child) {
                over |= NO_CHILD;
            }
            // Releases what the last writer wrote to whoever finds the flag.
            self.state.fetch_or(over, Ordering::AcqRel);
            (end.closing, over != 0)
        };
        closing.tell();
        if last {
            self.body.wake_all();
        }
    }

    /// Lets nobody read or write any more. Who waits is told by [`wake_all`](Self::wake_all).
    pub(super) fn remove(&self) {
        self.state.fetch_or(REMOVED, Ordering::AcqRel);
        self.body.tell(REMOVED, 0);
    }

    /// The kernel has ended.
    pub(super) fn end(&self) {
        // For this process: others go on without the kernel.
        self.state.fetch_or(DOWN, Ordering::AcqRel);
        self.body.wake_all();
    }

    /// Tells all who wait, and lets go of what is left in it when it is removed.
    pub(super) fn wake_all(&self) {
        self.body.wake_all();
        if !self.is_open() {
            self.body.clear();
        }
    }

    pub(super) fn entry(&self) -> PipeEntry {
        let seen = self.seen.lock().clone();
        let ((messages, bytes), (readers_waiting, writers_waiting)) = self.load();
        let ends = {
            let ends = self.ends.lock();
            let end = |end: &End| PipeEnd { side: end.side.name().into(), agent: end.agent.clone() };
            ends.open.values().map(end).collect()
        };
        PipeEntry {
            id: self.id,
            zone: seen.zone.clone(),
            path: seen.path.clone(),
            capacity: self.capacity(),
            io_profile: self.spec.io_profile,
            messages,
            bytes,
            readers_waiting,
            writers_waiting,
            ends,
        }
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("id", &self.id).field("body", &self.body).finish_non_exhaustive()
    }
}
