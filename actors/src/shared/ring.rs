//! Messages from many writers to many readers, in words that processes share.
//!
//! One writer at a time puts the message where nobody reads, then its length and place, and publishes it with one store of the tail; one reader at a time copies
//! the next message and takes it away with one store of the head. So a process that dies at any instruction has written its message or not, and read it or not.
//! A tail and a head say how many messages are before them and how many bytes, in one word, so both bounds hold exactly.

use bytes::Bytes;

use super::layout::{COMES, GOES, HEAD_AT, HEADER_WORDS, READERS, TAIL_AT, WRITERS, words};
use super::memory::{Memory, SharedTrouble};

/// How a ring is divided: what it is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RingShape {
    /// How many bytes the messages have at most that are written and not read.
    pub(super) capacity: u32,
    /// How many messages; a power of two.
    pub(super) slots: u32,
}

/// The most bytes that a ring can be made for.
pub(super) const CAPACITY_MAX: u32 = 1 << 30;

/// The most slots that a ring can be made with.
pub(super) const SLOTS_MAX: u32 = 1 << 24;

impl RingShape {
    pub(super) fn new(capacity: u32, messages: u32) -> Option<Self> {
        let slots = messages.max(2).checked_next_power_of_two()?;
        ((1..=CAPACITY_MAX).contains(&capacity) && slots <= SLOTS_MAX).then_some(Self { capacity, slots })
    }

    /// Words for the content of messages: each fills its last word up.
    fn content_words(self) -> usize {
        words(self.capacity as usize) + self.slots as usize
    }

    /// Words of the whole region.
    pub(super) fn region_words(self) -> usize {
        HEADER_WORDS + self.slots as usize + self.content_words()
    }
}

/// A ring in shared words.
#[derive(Debug)]
pub(super) struct Ring<M> {
    pub(super) memory: M,
    pub(super) shape: RingShape,
}

/// How many messages are before a place (the lower half), and how many bytes (the upper half). Both wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u64);

#[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
impl Mark {
    fn position(self) -> u32 {
        self.0 as u32
    }

    fn weight(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn past(self, weight: u32) -> Self {
        join(self.weight().wrapping_add(weight), self.position().wrapping_add(1))
    }

    /// Before a message of this weight that ends here.
    fn before(self, weight: u32) -> Self {
        join(self.weight().wrapping_sub(weight), self.position().wrapping_sub(1))
    }
}

fn join(upper: u32, lower: u32) -> Mark {
    Mark(u64::from(upper) << 32 | u64::from(lower))
}

impl<M: Memory> Ring<M> {
    /// Writes a message, if there is room; it has one byte at least.
    pub(super) fn try_push(&self, message: &[u8]) -> Result<bool, SharedTrouble> {
        let memory = &self.memory;
        let Ok(length) = u32::try_from(message.len()) else { return Ok(false) };
        {
            let _locked = WRITERS.lock(memory)?;
            let tail = Mark(memory.load(TAIL_AT));
            let (messages, bytes) = self.between(Mark(memory.load(HEAD_AT)), tail)?;
            if messages == self.shape.slots || length > self.shape.capacity - bytes {
                return Ok(false);
            }
            // Behind the message before, whether that was read or not.
            let before = Mark(memory.peek(self.slot(tail.position().wrapping_sub(1))));
            let room = self.shape.content_words();
            let place = (before.position() as usize % room + words(before.weight() as usize) % room) % room;
            self.write(place, message);
            let place = u32::try_from(place).map_err(|_| SharedTrouble::Damaged)?;
            memory.poke(self.slot(tail.position()), join(length, place).0);
            // The message is there from here on.
            memory.store(TAIL_AT, tail.past(length).0);
        }
        COMES.ring(memory);
        Ok(true)
    }

    /// Reads the next message, if there is one.
    pub(super) fn try_pop(&self) -> Result<Option<Bytes>, SharedTrouble> {
        let memory = &self.memory;
        if memory.load(HEAD_AT) == memory.load(TAIL_AT) {
            return Ok(None);
        }
        let message = {
            let _locked = READERS.lock(memory)?;
            let head = Mark(memory.load(HEAD_AT));
            let (messages, bytes) = self.between(head, Mark(memory.load(TAIL_AT)))?;
            if messages == 0 {
                return Ok(None);
            }
            let slot = Mark(memory.peek(self.slot(head.position())));
            let (length, room) = (slot.weight(), self.shape.content_words());
            let mut at = slot.position() as usize;
            if length == 0 || length > bytes || at >= room {
                return Err(SharedTrouble::Damaged);
            }
            let mut message = Vec::with_capacity(words(length as usize) * 8);
            for _ in 0..words(length as usize) {
                message.extend_from_slice(&memory.peek(self.content(at)).to_le_bytes());
                at = if at + 1 == room { 0 } else { at + 1 };
            }
            message.truncate(length as usize);
            // The message is gone from here on: nobody else reads it, whatever becomes of this process.
            memory.store(HEAD_AT, head.past(length).0);
            message
        };
        GOES.ring(memory);
        Ok(Some(message.into()))
    }

    /// Writes a message before all others, if there is room: one that was read and comes back. It has one byte at least.
    pub(super) fn try_put_back(&self, message: &[u8]) -> Result<bool, SharedTrouble> {
        let memory = &self.memory;
        let Ok(length) = u32::try_from(message.len()) else { return Ok(false) };
        {
            // Both: what is free before the head is what writers write into. Nobody else has both at once.
            let _writers = WRITERS.lock(memory)?;
            let _readers = READERS.lock(memory)?;
            let head = Mark(memory.load(HEAD_AT));
            let (messages, bytes) = self.between(head, Mark(memory.load(TAIL_AT)))?;
            if messages == self.shape.slots || length > self.shape.capacity - bytes {
                return Ok(false);
            }
            // What is there is in one piece: right before the first of it, or of an empty ring before where the next would have been.
            let room = self.shape.content_words();
            let first = Mark(memory.peek(self.slot(head.position()))).position() as usize % room;
            let place = (first + room - words(length as usize) % room) % room;
            self.write(place, message);
            let at = u32::try_from(place).map_err(|_| SharedTrouble::Damaged)?;
            let before = head.before(length);
            memory.poke(self.slot(before.position()), join(length, at).0);
            // The message is there from here on.
            memory.store(HEAD_AT, before.0);
        }
        COMES.ring(memory);
        Ok(true)
    }

    /// Writes content from a word on.
    fn write(&self, mut at: usize, message: &[u8]) {
        let room = self.shape.content_words();
        for chunk in message.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.memory.poke(self.content(at), u64::from_le_bytes(word));
            at = if at + 1 == room { 0 } else { at + 1 };
        }
    }

    /// How many messages are written and not read, and how many bytes; roughly, while others write and read.
    pub(super) fn held(&self) -> (usize, u32) {
        let (head, tail) = (Mark(self.memory.load(HEAD_AT)), Mark(self.memory.load(TAIL_AT)));
        let (messages, bytes) = self.between(head, tail).unwrap_or_default();
        (messages as usize, bytes)
    }

    /// Whether there is a message.
    pub(super) fn has_message(&self) -> bool {
        self.memory.load(HEAD_AT) != self.memory.load(TAIL_AT)
    }

    fn between(&self, head: Mark, tail: Mark) -> Result<(u32, u32), SharedTrouble> {
        let messages = tail.position().wrapping_sub(head.position());
        let bytes = tail.weight().wrapping_sub(head.weight());
        let RingShape { capacity, slots } = self.shape;
        let makes_sense = messages <= slots && bytes <= capacity && (messages == 0) == (bytes == 0);
        if makes_sense { Ok((messages, bytes)) } else { Err(SharedTrouble::Damaged) }
    }

    fn slot(&self, position: u32) -> usize {
        HEADER_WORDS + (position & (self.shape.slots - 1)) as usize
    }

    fn content(&self, at: usize) -> usize {
        HEADER_WORDS + self.shape.slots as usize + at
    }
}
