//! Pipes and logs in memory that several processes map: each reads and writes with no message to any other, and may die at any instruction.
//!
//! ```text
//! folder.rs   the files of one store: which there are, how much room they take
//! region.rs   a file, mapped: made, found again, checked; who sleeps at it
//! ring.rs     messages, each read once        log.rs   records, read from any place
//! lock.rs     one process at a time           lives.rs  which processes are dead
//! bell.rs     waking who sleeps, in any process
//! memory.rs   words that others see           layout.rs  where what is
//! mapped.rs   the mapping itself
//! ```
//!
//! What is read of the memory is checked before it is used: another process may have written anything there. It can make up messages so, or take them away, and
//! it can keep others out for some tens of milliseconds each time; it has no other effect on them, as long as it does not make the file shorter: that ends those who
//! have it mapped, as a signal to them would, which it may send as well, being of the same user.
//!
//! Who forks goes on as if it had not, and the child must not use what its parent had mapped before it becomes another program.

mod bell;
mod folder;
mod layout;
mod lives;
mod lock;
mod log;
mod mapped;
mod memory;
mod region;
mod ring;
mod word;

#[cfg(test)]
#[cfg(not(nexus_loom))]
mod crash;
#[cfg(test)]
#[cfg(nexus_loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(nexus_loom))]
mod tests;

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

pub use bell::PATROL as SHARED_PATROL;
pub use folder::{SharedFolder, SharedHome, SharedKind};
pub use log::{SHARED_OPS_KEPT, SharedFrame, SharedRead, SharedState};
pub use memory::SharedTrouble;
pub use region::Sleepers;
pub use word::SharedWords;

use self::bell::Bell;
use self::layout::{COMES, GOES};
use self::log::{Log, Writing, append_words, region_words};
use self::mapped::Mapped;
use self::region::Region;
use self::ring::{Ring, RingShape};
use crate::Env;

/// Looks before who waits in its thread sleeps, when nothing else is said: some tens of microseconds.
pub const SHARED_LOOKS: u32 = 10_000;

/// Words of appends that no log has: its region would be larger than memory.
const ROOM_MAX: usize = usize::MAX / 16;

/// A pipe in memory that processes share. Messages of one writer are read in its order, each once and whole.
///
/// Calls take some hundred instructions and a copy of the message; while another process holds the lock they block, for some tens of milliseconds at most.
#[derive(Debug)]
pub struct SharedPipe(Region<Ring<Mapped>>);

/// Records in memory that processes share: appended, and read from any place, by anybody.
///
/// Calls take some hundred instructions and a copy of the records; writers block while another one has the log, for some tens of milliseconds at most. Readers never do.
#[derive(Debug)]
pub struct SharedLog(Region<Log<Mapped>>);

/// A log that one process writes to; others wait until this is dropped.
pub struct SharedWriting<'a> {
    writing: Writing<'a, Mapped>,
    /// Dropped after it: then those are told who wait in this process.
    _told: region::Told<'a>,
}

impl SharedPipe {
    /// The pipe with this identity in `folder`: the one that is there, with what is in it, if it is made so; else an empty one, when all pipes there have no more than
    /// `bytes_max` with it. To be called by the owner of the folder. Blocks: it makes a file.
    ///
    /// # Errors
    /// `InvalidInput` for bounds that no pipe has, `StorageFull`, and what the system says: no room is an error here, and never later.
    pub fn make(
        folder: &SharedFolder,
        id: u64,
        capacity: u32,
        messages: u32,
        bytes_max: u64,
    ) -> io::Result<Self> {
        let shape = RingShape::new(capacity, messages).ok_or(io::ErrorKind::InvalidInput)?;
        let made = ([capacity.into(), shape.slots.into()], shape.region_words());
        let found = Self::attach(&folder.file(SharedKind::Pipe, id), folder.store(), id);
        if let Some(found) = there(found)?.filter(|found| found.0.of.shape == shape) {
            return Ok(found);
        }
        let ring = |memory| Ring { memory, shape };
        region::create(folder, SharedKind::Pipe, id, made, bytes_max, ring).map(Self)
    }

    /// The pipe in this file, which another process has made. Blocks: it opens a file.
    ///
    /// # Errors
    /// `InvalidData` for what is none, or another; `Unsupported` where the system does not tell which processes live; what it says otherwise.
    pub fn attach(file: &Path, store: u64, id: u64) -> io::Result<Self> {
        region::attach(file, SharedKind::Pipe, (store, id), |[capacity, slots]| {
            let (capacity, slots) = (u32::try_from(capacity).ok()?, u32::try_from(slots).ok()?);
            let shape = RingShape::new(capacity, slots).filter(|shape| shape.slots == slots)?;
            Some((shape.region_words(), move |memory| Ring { memory, shape }))
        })
        .map(Self)
    }

    /// How many bytes it holds.
    pub fn capacity(&self) -> u32 {
        self.0.of.shape.capacity
    }

    /// Writes a message, if there is room for it. One without bytes is none.
    ///
    /// # Errors
    /// [`SharedTrouble`]: nothing was written.
    pub fn try_push(&self, message: &[u8]) -> Result<bool, SharedTrouble> {
        let done = message.is_empty() || self.0.of.try_push(message)?;
        self.0.told(COMES);
        Ok(done)
    }

    /// Reads the next message, if there is one.
    ///
    /// # Errors
    /// [`SharedTrouble`]: nothing was read.
    pub fn try_pop(&self) -> Result<Option<Bytes>, SharedTrouble> {
        let message = self.0.of.try_pop()?;
        if message.is_some() {
            self.0.told(GOES);
        }
        Ok(message)
    }

    /// Writes a message before all others, if there is room for it: one that was read and comes back. One without bytes is none.
    ///
    /// # Errors
    /// [`SharedTrouble`]: nothing was written.
    pub fn try_put_back(&self, message: &[u8]) -> Result<bool, SharedTrouble> {
        let done = message.is_empty() || self.0.of.try_put_back(message)?;
        if done {
            self.0.told(COMES);
        }
        Ok(done)
    }

    /// How many messages are written and not read, and how many bytes they have; roughly, while others write and read.
    pub fn held(&self) -> (usize, u32) {
        self.0.of.held()
    }

    /// How many wait in this process for a message, and for room.
    pub fn waiting(&self) -> (usize, usize) {
        (self.0.waiting(COMES), self.0.waiting(GOES))
    }

    /// What has become of it: bits that its owner has [set](Self::change_flags).
    pub fn flags(&self) -> u64 {
        self.0.flags()
    }

    /// Sets and clears bits that all see who have the pipe, and has them look.
    pub fn change_flags(&self, set: u64, clear: u64) {
        self.0.change_flags(set, clear);
    }

    /// Has everybody look anew who waits in this process.
    pub fn wake_all(&self) {
        self.0.wake_here();
    }

    /// Waits until `look` finds something. It is asked again when a message came, or for `room` one was read, or [`wake_all`](Self::wake_all) was called; and now
    /// and then. Dropping the future changes nothing.
    pub async fn wait<T>(&self, sleepers: &Sleepers, room: bool, look: impl FnMut() -> Option<T>) -> T {
        self.0.wait(sleepers, side(room), look).await
    }

    /// As [`wait`](Self::wait), in this thread, for so long; the first `looks` without sleeping. None when nothing was found.
    pub fn wait_here<T>(
        &self,
        env: &Env,
        room: bool,
        within: Duration,
        looks: u32,
        look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        self.0.wait_here(env, side(room), within, looks, |pipe| !room && !pipe.has_message(), look)
    }
}

/// What was found; nothing when it is not there, or is of no use.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            tracing::warn!(%error, "a region of shared memory is of no use, and is made anew");
            Ok(None)
        }
        found => found.map(Some),
    }
}

fn side(room: bool) -> Bell {
    if room { GOES } else { COMES }
}

impl SharedLog {
    /// The log with this identity in `folder`: the one that is there, with what is in it; else an empty one, with room for so many bytes of appends, whose state
    /// has these `user` numbers, when all logs there have no more than `bytes_max` with it. To be called by the owner of the folder. Blocks: it makes a file.
    ///
    /// # Errors
    /// `StorageFull`, and what the system says: no room is an error here, and never later.
    pub fn make(
        folder: &SharedFolder,
        id: u64,
        room: usize,
        user: [u64; 6],
        bytes_max: u64,
    ) -> io::Result<Self> {
        let found = Self::attach(&folder.file(SharedKind::Log, id), folder.store(), id);
        if let Some(found) = there(found)? {
            return Ok(found);
        }
        Self::create(folder, id, room, bytes_max, |log| log.begin(user))
    }

    fn create(
        folder: &SharedFolder,
        id: u64,
        room: usize,
        bytes_max: u64,
        begin: impl FnOnce(&Log<Mapped>),
    ) -> io::Result<Self> {
        let room = layout::words(room);
        if !(1..ROOM_MAX).contains(&room) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let log = |memory| {
            let log = Log { memory, room };
            begin(&log);
            log
        };
        let made = ([room as u64, 0], region_words(room));
        region::create(folder, SharedKind::Log, id, made, bytes_max, log).map(Self)
    }

    /// The log in this file, which is there already. Blocks: it opens a file.
    ///
    /// # Errors
    /// `NotFound`; `InvalidData` for what is none, or another; `Unsupported` where the system does not tell which processes live; what it says otherwise.
    pub fn attach(file: &Path, store: u64, id: u64) -> io::Result<Self> {
        region::attach(file, SharedKind::Log, (store, id), |[room, _]| {
            let room = usize::try_from(room).ok().filter(|room| (1..ROOM_MAX).contains(room))?;
            Some((region_words(room), move |memory| Log { memory, room }))
        })
        .map(Self)
    }

    /// The log in `folder`, of which the caller is the owner, if it is there.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), but for `NotFound`.
    pub fn open(folder: &SharedFolder, id: u64) -> io::Result<Option<Self>> {
        match Self::attach(&folder.file(SharedKind::Log, id), folder.store(), id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// What it is.
    ///
    /// # Errors
    /// [`SharedTrouble`].
    pub fn state(&self) -> Result<SharedState, SharedTrouble> {
        self.0.of.state()
    }

    /// How many bytes of appends it has room for, by what they fill.
    pub fn room_bytes(&self) -> u64 {
        self.0.of.room as u64 * 8
    }

    /// A number that is another when anything has changed.
    pub fn version(&self) -> u64 {
        self.0.of.version()
    }

    /// The records from `from` on, as long as `allow` is content with one more of that length behind so many. `hint` is where an earlier read said that it could
    /// go on; the other result is where this one can.
    ///
    /// # Errors
    /// [`SharedTrouble`].
    pub fn read(
        &self,
        from: u64,
        hint: Option<(u64, u64)>,
        allow: impl FnMut(usize, usize) -> bool,
    ) -> Result<(SharedRead, Option<(u64, u64)>), SharedTrouble> {
        self.0.of.read(from, hint, allow)
    }

    /// Keeps other writers out until what it gives is dropped.
    ///
    /// # Errors
    /// [`SharedTrouble`].
    pub fn write(&self) -> Result<SharedWriting<'_>, SharedTrouble> {
        Ok(SharedWriting { writing: self.0.of.write()?, _told: self.0.tells(COMES) })
    }

    /// What has become of it: bits that its owner has [set](Self::change_flags).
    pub fn flags(&self) -> u64 {
        self.0.flags()
    }

    /// Sets and clears bits that all see who have the log, and has them look.
    pub fn change_flags(&self, set: u64, clear: u64) {
        self.0.change_flags(set, clear);
    }

    /// As [`SharedPipe::wait`], for records.
    pub async fn wait<T>(&self, sleepers: &Sleepers, look: impl FnMut() -> Option<T>) -> T {
        self.0.wait(sleepers, COMES, look).await
    }

    /// As [`SharedPipe::wait_here`], for records.
    pub fn wait_here<T>(
        &self,
        env: &Env,
        within: Duration,
        looks: u32,
        look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let version = self.version();
        self.0.wait_here(env, COMES, within, looks, |log| log.version() == version, look)
    }
}

impl SharedWriting<'_> {
    /// What the log is.
    pub fn state(&self) -> SharedState {
        self.writing.state()
    }

    /// How many words the log has room for in all.
    pub fn room(&self) -> usize {
        self.writing.room()
    }

    /// A log with room for so many bytes of appends, and with all that is in this one, which takes the place of its file. To be called by the owner of the folder, for a log that
    /// only it has mapped, and which has no more room, or far more than it needs: nothing may be done with that one any more once this is dropped. Who dies before it comes back leaves
    /// the one or the other file, each whole. Blocks: it makes a file.
    ///
    /// # Errors
    /// As [`SharedLog::make`], and `InvalidInput` for less room than is filled; then nothing has changed.
    pub fn moved(
        &self,
        folder: &SharedFolder,
        id: u64,
        room: usize,
        bytes_max: u64,
    ) -> io::Result<SharedLog> {
        let state = self.state();
        if (layout::words(room) as u64) < state.tail_at.saturating_sub(state.head_at) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        SharedLog::create(folder, id, room, bytes_max, |log| self.writing.copy_to(log))
    }

    /// How many words an append of these records fills.
    pub fn words_of(records: &[Bytes]) -> usize {
        append_words(records)
    }

    /// The append at this place, which begins with the record `first`, and the place behind it: the head's place, or one that this gave.
    ///
    /// # Errors
    /// [`SharedTrouble::Damaged`].
    pub fn frame(&self, at: u64, first: u64) -> Result<(SharedFrame, u64), SharedTrouble> {
        self.writing.frame(at, first)
    }

    /// Where the records of the append with this identity are or were, and how many; of the last [`SHARED_OPS_KEPT`] that had one.
    pub fn find_op(&self, op: u128) -> Option<(u64, u64)> {
        self.writing.find_op(op)
    }

    /// Makes this the state, all at once; of the tail, its place and the identities nothing may be changed.
    pub fn publish(&mut self, state: SharedState) {
        self.writing.publish(state);
    }

    /// Appends records, all at once: `state` is what the log is then but for its tail, and has a head before which enough room is.
    pub fn append(&mut self, records: &[Bytes], at: u64, cost: u64, op: Option<u128>, state: SharedState) {
        self.writing.append(records, at, cost, op, state);
    }
}
