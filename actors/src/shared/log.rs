//! Records that are appended and read by anybody, in words that processes share; the oldest make room for the newest.
//!
//! One writer at a time. What the log is stands in a state that is kept twice: a writer fills the one that is not valid, and makes it valid with one store of
//! the version. So a process that dies at any instruction has appended all of its records or none. Readers take no lock: they copy, and then look whether what
//! they copied was still kept. A writer publishes that the oldest are gone before it writes over them.
//!
//! Appends stand behind each other as frames: the offset of the first record, how many there are and how many words, the time, what they cost; then each record's
//! length and content. Places of frames count on for ever, so one that was found once is never taken for another.

use bytes::Bytes;

use super::layout::{
    COMES, HEADER_WORDS, OP_WORDS, OPS_AT, OPS_ROOM, STATE_WORDS, STATES_AT, TAIL_AT, WRITERS, words,
};
use super::lock::Locked;
use super::memory::{Memory, SharedTrouble};

/// Of how many appends with an identity a log knows: of the last ones.
pub const SHARED_OPS_KEPT: usize = 128;

/// Words of a frame before its records.
const FRAME_WORDS: usize = 4;

/// What no log ever counts up to: sums of such numbers do not wrap.
const COUNT_MAX: u64 = 1 << 60;

/// How often a state is read anew that others change meanwhile: to read it takes less time than to change it twice.
const STATE_READS_MAX: usize = 1_000;

/// How often a read begins anew whose way was written over meanwhile. Each time may take as long as a copy of all that is read at once.
const READS_MAX: usize = 100;

const _: () = assert!(SHARED_OPS_KEPT < OPS_ROOM);

/// What a log is. Its user decides what is kept, and this says where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedState {
    /// The offset of the oldest record; the tail, when there is none.
    pub head: u64,
    /// Where the oldest append is.
    pub head_at: u64,
    /// The offset that the next record will have.
    pub tail: u64,
    /// Where the next append will be.
    pub tail_at: u64,
    /// What the records cost that are there.
    pub bytes: u64,
    /// How many appends with an identity there were.
    pub ops: u64,
    /// What the user of the log makes of it.
    pub user: [u64; 6],
}

impl SharedState {
    fn words(&self) -> [u64; STATE_WORDS] {
        let [a, b, c, d, e, f] = self.user;
        let Self { head, head_at, tail, tail_at, bytes, ops, .. } = *self;
        [head, head_at, tail, tail_at, bytes, ops, a, b, c, d, e, f, 0, 0, 0, 0]
    }

    fn of(words: [u64; STATE_WORDS]) -> Self {
        let [head, head_at, tail, tail_at, bytes, ops, a, b, c, d, e, f, ..] = words;
        Self { head, head_at, tail, tail_at, bytes, ops, user: [a, b, c, d, e, f] }
    }
}

/// An append that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFrame {
    /// The offset of its first record.
    pub first: u64,
    /// How many records it has.
    pub count: u32,
    /// Its time.
    pub at: u64,
    /// What its records cost.
    pub cost: u64,
    words: u32,
}

impl SharedFrame {
    /// The offset behind its last record.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }
}

/// What came of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedRead {
    /// The records from there on, each with the time of its append; and the log as it was.
    Records(Vec<(u64, Bytes)>, SharedState),
    /// The first one is not kept any more, or not there yet.
    Missing(SharedState),
}

/// A log in shared words.
#[derive(Debug)]
pub(super) struct Log<M> {
    pub(super) memory: M,
    /// Words for appends.
    pub(super) room: usize,
}

/// The words of a log's region with room for so many words of appends.
pub(super) fn region_words(room: usize) -> usize {
    HEADER_WORDS + room
}

/// How many words an append of such records fills.
pub(super) fn append_words(records: &[Bytes]) -> usize {
    FRAME_WORDS + records.iter().map(|record| 1 + words(record.len())).sum::<usize>()
}

impl<M: Memory> Log<M> {
    /// Makes what is all zeros an empty log; to be called before anybody else sees it.
    pub(super) fn begin(&self, user: [u64; 6]) {
        self.begin_as(SharedState { user, ..SharedState::default() });
    }

    fn begin_as(&self, state: SharedState) {
        for (n, word) in state.words().into_iter().enumerate() {
            self.memory.poke(state_at(0) + n, word);
        }
    }

    /// What the log is.
    pub(super) fn state(&self) -> Result<SharedState, SharedTrouble> {
        self.versioned().map(|(_, state)| state)
    }

    /// What the log is, and the version of that.
    fn versioned(&self) -> Result<(u64, SharedState), SharedTrouble> {
        let memory = &self.memory;
        for _ in 0..STATE_READS_MAX {
            let version = memory.load(TAIL_AT);
            let state = self.read_state(version);
            memory.fence();
            if memory.load(TAIL_AT) == version {
                return Ok((version, self.checked(state)?));
            }
        }
        Err(SharedTrouble::Overtaken)
    }

    /// The version of the state: another one means that something has changed.
    pub(super) fn version(&self) -> u64 {
        self.memory.load(TAIL_AT)
    }

    fn read_state(&self, version: u64) -> SharedState {
        let from = state_at(version);
        let mut words = [0; STATE_WORDS];
        for (n, word) in words.iter_mut().enumerate() {
            *word = self.memory.peek(from + n);
        }
        SharedState::of(words)
    }

    fn checked(&self, state: SharedState) -> Result<SharedState, SharedTrouble> {
        let SharedState { head, head_at, tail, tail_at, bytes, ops, .. } = state;
        let filled = tail_at.checked_sub(head_at).and_then(|filled| usize::try_from(filled).ok());
        let counts = [tail, tail_at, bytes, ops].into_iter().all(|count| count <= COUNT_MAX);
        let makes_sense = counts && head <= tail && filled.is_some_and(|filled| filled <= self.room);
        if makes_sense { Ok(state) } else { Err(SharedTrouble::Damaged) }
    }

    fn content(&self, at: u64) -> usize {
        HEADER_WORDS + usize::try_from(at % self.room as u64).unwrap_or_default()
    }

    /// The frame at this place, which begins with the record `offset`, if it may be one: who holds no lock looks afterwards whether it was kept until then. It has records
    /// and words, and ends where the log does or before: so whoever goes from one to the next comes to an end, whatever is there.
    fn frame(&self, at: u64, offset: u64, state: &SharedState) -> Result<SharedFrame, SharedTrouble> {
        let [first, counts, time, cost] = [0, 1, 2, 3].map(|n| self.memory.peek(self.content(at + n)));
        #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
        let (count, words) = ((counts >> 32) as u32, counts as u32);
        let end = first.checked_add(count.into()).is_some_and(|end| end <= state.tail);
        let fits = words as usize > FRAME_WORDS
            && at.checked_add(words.into()).is_some_and(|end| end <= state.tail_at)
            && count < words;
        if count > 0 && end && fits && first == offset {
            Ok(SharedFrame { first, count, at: time, cost, words })
        } else {
            Err(SharedTrouble::Damaged)
        }
    }

    /// The records from `from` on, as long as `allow` is content with one more of that length; and where reads may go on. `hint` is an offset and the place of
    /// the append that begins with it, from an earlier read.
    pub(super) fn read(
        &self,
        from: u64,
        hint: Option<(u64, u64)>,
        mut allow: impl FnMut(usize, usize) -> bool,
    ) -> Result<(SharedRead, Option<(u64, u64)>), SharedTrouble> {
        for _ in 0..READS_MAX {
            let (version, state) = self.versioned()?;
            if from < state.head || from > state.tail {
                return Ok((SharedRead::Missing(state), None));
            }
            if from == state.tail {
                return Ok((SharedRead::Records(Vec::new(), state), None));
            }
            let hint = hint.filter(|(offset, at)| {
                (state.head..=from).contains(offset) && (state.head_at..state.tail_at).contains(at)
            });
            let begin = hint.unwrap_or((state.head, state.head_at));
            let copied = self.copy(from, begin, (version, &state), &mut allow);
            // What was copied was kept until now, or it may be anything: the version is looked at behind a fence there, and so behind the copy.
            let now = self.state()?;
            if now.head > from {
                return Ok((SharedRead::Missing(now), None));
            }
            match copied {
                Ok((records, next)) => return Ok((SharedRead::Records(records, state), next)),
                // The way to it was written over meanwhile.
                Err(_) if now.head != state.head => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(SharedTrouble::Overtaken)
    }

    #[expect(clippy::type_complexity, reason = "records, and where to go on")]
    fn copy(
        &self,
        from: u64,
        (mut offset, mut at): (u64, u64),
        (mut version, state): (u64, &SharedState),
        allow: &mut impl FnMut(usize, usize) -> bool,
    ) -> Result<(Vec<(u64, Bytes)>, Option<(u64, u64)>), SharedTrouble> {
        let mut records = Vec::new();
        while offset < state.tail {
            let frame = self.frame(at, offset, state)?;
            // Before it shows the way: one that was written over meanwhile leads to where no frame is, and what stands there may look like one.
            self.memory.fence();
            if self.version() != version {
                let now;
                (version, now) = self.versioned()?;
                if now.head > offset {
                    return Err(SharedTrouble::Overtaken);
                }
            }
            let frame_end = at + u64::from(frame.words);
            if frame.end() > from {
                let mut place = at + FRAME_WORDS as u64;
                for offset_of in frame.first..frame.end() {
                    let length = usize::try_from(self.memory.peek(self.content(place))).unwrap_or(usize::MAX);
                    let end = (words(length) as u64).checked_add(place + 1).filter(|end| *end <= frame_end);
                    let end = end.ok_or(SharedTrouble::Damaged)?;
                    if offset_of >= from {
                        if !allow(records.len(), length) {
                            return Ok((records, Some((offset, at))));
                        }
                        records.push((frame.at, self.bytes_at(place + 1, length)));
                    }
                    place = end;
                }
            }
            (offset, at) = (frame.end(), frame_end);
        }
        Ok((records, Some((offset, at))))
    }

    fn bytes_at(&self, place: u64, length: usize) -> Bytes {
        let (mut at, end) = (self.content(place), HEADER_WORDS + self.room);
        let mut bytes = Vec::with_capacity(words(length) * 8);
        for _ in 0..words(length) {
            bytes.extend_from_slice(&self.memory.peek(at).to_le_bytes());
            at = if at + 1 == end { HEADER_WORDS } else { at + 1 };
        }
        bytes.truncate(length);
        bytes.into()
    }

    /// Keeps other writers out until what it gives is dropped.
    pub(super) fn write(&self) -> Result<Writing<'_, M>, SharedTrouble> {
        let locked = WRITERS.lock(&self.memory)?;
        let state = self.checked(self.read_state(self.memory.load(TAIL_AT)))?;
        // Whatever is poked from here on is seen after what was published before, by whomever.
        self.memory.fence();
        Ok(Writing { log: self, state, locked: Some(locked), changed: false })
    }
}

fn state_at(version: u64) -> usize {
    STATES_AT + if version & 1 == 0 { 0 } else { STATE_WORDS }
}

/// A log that one process writes to.
pub(super) struct Writing<'a, M: Memory> {
    log: &'a Log<M>,
    state: SharedState,
    /// Invariant: there until this is dropped.
    locked: Option<Locked<'a, M>>,
    changed: bool,
}

impl<M: Memory> Writing<'_, M> {
    pub(super) fn state(&self) -> SharedState {
        self.state
    }

    /// How many words of appends the log has room for in all.
    pub(super) fn room(&self) -> usize {
        self.log.room
    }

    /// The append at this place, which begins with the record `first`, and the place behind it. The place is the head's, or one that this gave.
    pub(super) fn frame(&self, at: u64, first: u64) -> Result<(SharedFrame, u64), SharedTrouble> {
        if !(self.state.head_at..self.state.tail_at).contains(&at) {
            return Err(SharedTrouble::Damaged);
        }
        let frame = self.log.frame(at, first, &self.state)?;
        Ok((frame, at + u64::from(frame.words)))
    }

    /// What is known of the append with this identity: the offset of its first record, and how many it had.
    pub(super) fn find_op(&self, op: u128) -> Option<(u64, u64)> {
        let kept = self.state.ops.min(SHARED_OPS_KEPT as u64);
        let memory = &self.log.memory;
        // A repeat mostly comes soon.
        (0..kept)
            .map(|back| op_at(self.state.ops - 1 - back))
            .find_map(|at| {
                let found = u128::from(memory.peek(at)) << 64 | u128::from(memory.peek(at + 1));
                (found == op).then(|| (memory.peek(at + 2), memory.peek(at + 3)))
            })
            // What was never appended is not known.
            .filter(|(first, count)| {
                *count > 0 && first.checked_add(*count).is_some_and(|end| end <= self.state.tail)
            })
    }

    /// Makes what is all zeros a log with all that is in this one, for which it has room; before anybody else sees it.
    pub(super) fn copy_to(&self, other: &Log<M>) {
        let (from, to) = (&self.log.memory, &other.memory);
        other.begin_as(self.state);
        (OPS_AT..HEADER_WORDS).for_each(|at| to.poke(at, from.peek(at)));
        for at in self.state.head_at..self.state.tail_at {
            to.poke(other.content(at), from.peek(self.log.content(at)));
        }
    }

    /// Makes this the state: all at once.
    pub(super) fn publish(&mut self, state: SharedState) {
        let memory = &self.log.memory;
        let version = memory.load(TAIL_AT).wrapping_add(1);
        for (n, word) in state.words().into_iter().enumerate() {
            memory.poke(state_at(version) + n, word);
        }
        memory.store(TAIL_AT, version);
        // As in `write`.
        memory.fence();
        self.state = state;
        self.changed = true;
    }

    /// Appends records behind the tail, for which there is room once what is before `head` is gone. `state` says what the log's user makes of it, and the costs.
    pub(super) fn append(
        &mut self,
        records: &[Bytes],
        at: u64,
        cost: u64,
        op: Option<u128>,
        state: SharedState,
    ) {
        if state.head != self.state.head {
            let SharedState { tail, tail_at, ops, user, .. } = self.state;
            // Before anything is written over it: who reads it hears that it is gone.
            self.publish(SharedState {
                tail,
                tail_at,
                ops,
                user,
                bytes: state.bytes.saturating_sub(cost),
                ..state
            });
        }
        let (memory, log) = (&self.log.memory, self.log);
        let count = records.len() as u64;
        let total = append_words(records) as u64;
        let first = self.state.tail;
        let (mut index, end) = (log.content(self.state.tail_at), HEADER_WORDS + log.room);
        let mut put = |word| {
            memory.poke(index, word);
            index = if index + 1 == end { HEADER_WORDS } else { index + 1 };
        };
        [first, count << 32 | total, at, cost].into_iter().for_each(&mut put);
        for record in records {
            put(record.len() as u64);
            for chunk in record.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                put(u64::from_le_bytes(word));
            }
        }
        let mut ops = self.state.ops;
        if let Some(op) = op {
            let to = op_at(ops);
            #[expect(clippy::cast_possible_truncation, reason = "halves of an identity")]
            let halves = [(op >> 64) as u64, op as u64];
            for (n, word) in halves.into_iter().chain([first, count]).enumerate() {
                memory.poke(to + n, word);
            }
            ops += 1;
        }
        let (tail, tail_at) = (first + count, self.state.tail_at + total);
        self.publish(SharedState { tail, tail_at, ops, ..state });
    }
}

impl<M: Memory> Drop for Writing<'_, M> {
    fn drop(&mut self) {
        drop(self.locked.take());
        if self.changed {
            COMES.ring(&self.log.memory);
        }
    }
}

fn op_at(number: u64) -> usize {
    OPS_AT + usize::try_from(number % OPS_ROOM as u64).unwrap_or_default() * OP_WORDS
}
