//! Messages on their way from many writers to many readers, bounded by their number and by what they weigh together.
//!
//! A queue of slots with sequence numbers, after Dmitry Vyukov's bounded MPMC queue (2010): whoever moves the tail owns the slot there and
//! publishes it by its sequence number, whoever moves the head owns what is published there. A tail and a head also carry how much was written and
//! read up to them, in the same word. So one exchange takes a place and its weight, and the bound of weight holds exactly, without a counter that
//! writers and readers would fight for.
//!
//! Who finds nothing, or no room, can stand in a line. Looking and being woken are a store-buffer (Dekker) pair, as in `gate.rs`:
//!
//! ```text
//! writer:  publish a message,  then look whether readers stand in line
//! reader:  stand in line,      then look whether there is a message
//! ```
//!
//! and the same with room for messages. So nobody sleeps beside what it waits for, and while nobody waits each end pays one load. A message wakes the
//! reader that came first, and nobody else. Whoever leaves the line, served or given up, looks at what is left and wakes the next if that is for it: so
//! a reader that was woken and then cancelled takes no message along, and one that was woken for a message behind one that is still being written
//! costs nobody theirs. Waking is not handing over: somebody who comes just then may be quicker, and who was woken has its old place again.
//!
//! A message that was read can be put back ([`Ring::put_back`]), by a reader whose own caller went away before it heard of it. It comes before all in the slots, and among
//! those that came back it has the place in which it was written. It weighs as one that was never read: what was written into its room meanwhile stays, and nothing
//! more is until there is room again.
//!
//! Who is about to stand in line can look a while longer before ([`Ring::look_for_message`]), where that has paid lately: what comes within the time of a sleep and a
//! wake is cheaper waited for on the spot. Where it does not pay, as between tasks of one thread, it is soon left alone.

mod line;
mod returned;

use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use std::fmt;
use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(all(test, not(nexus_loom)))]
use line::Patience;
use line::{Line, Standing};
use returned::Returned;
pub use returned::Taken;

/// The fewest slots. With one, a slot that is written would look as one that is free for the next.
const SLOTS_MIN: usize = 2;

/// The most slots: positions wrap, and must be told apart over more than a lap.
const SLOTS_MAX: usize = 1 << 24;

/// The most that the messages in a ring can weigh together: sums wrap, and must be told apart.
const WEIGHT_MAX: u32 = 1 << 30;

/// A bounded queue of messages for many writers and many readers.
///
/// Writing and reading without waiting are lock-free; messages of one writer are read in the order in which it wrote them. Waiting is a future that
/// any executor can poll, and that can be dropped at any time: no message is lost with it.
pub struct Ring<T> {
    /// Where the next message is written, and what all before it weigh.
    tail: CachePadded<AtomicU64>,
    /// Where the next message is read, and what all before it weigh.
    head: CachePadded<AtomicU64>,
    slots: Box<[Slot<T>]>,
    capacity: u32,
    returned: CachePadded<Returned<T>>,
    readers: CachePadded<Line>,
    writers: CachePadded<Line>,
}

/// A place for one message.
///
/// Invariant: for the position `p` that stands for it, `sequence` is `p` while it is free, `p + 1` once it is written, and `p` plus the number of
/// slots when it was read: free for the position of the next lap. Between two of these the slot belongs to whoever moved the tail, or the head, past `p`.
struct Slot<T> {
    sequence: AtomicU32,
    weight: AtomicU32,
    message: UnsafeCell<MaybeUninit<T>>,
}

/// A position in the ring (the lower half of a word) and the weight of all before it (the upper half). Both wrap.
///
/// An exchange could take an old word for a new one if its thread slept while just 2^32 messages passed whose weights add up to a multiple of 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u64);

impl Mark {
    #[expect(clippy::cast_possible_truncation, reason = "it is the lower half")]
    #[inline]
    fn position(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn weight(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Behind a message that weighs this much.
    #[inline]
    fn past(self, weight: u32) -> Self {
        let (position, weight) = (self.position().wrapping_add(1), self.weight().wrapping_add(weight));
        Self(u64::from(weight) << 32 | u64::from(position))
    }
}

/// How far `a` is ahead of `b`, both of which wrap.
#[expect(clippy::cast_possible_wrap, reason = "a difference that is negative wraps")]
#[inline]
fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl<T: Send> Ring<T> {
    /// An empty ring for messages that weigh at most `capacity` together, and are at most about `messages`: that number is rounded up to a power of
    /// two, and is 2 at least.
    ///
    /// # Panics
    /// For a `capacity` above 2^30, or more than 2^24 messages.
    pub fn new(messages: usize, capacity: u32) -> Self {
        let slots = messages.max(SLOTS_MIN).next_power_of_two();
        assert!(slots <= SLOTS_MAX && capacity <= WEIGHT_MAX, "larger than a ring can be");
        let slot = |position| Slot {
            sequence: AtomicU32::new(position),
            weight: AtomicU32::new(0),
            message: UnsafeCell::new(MaybeUninit::uninit()),
        };
        Self {
            tail: CachePadded::new(AtomicU64::new(0)),
            head: CachePadded::new(AtomicU64::new(0)),
            slots: (0..u32::try_from(slots).unwrap_or_default()).map(slot).collect(),
            capacity,
            returned: CachePadded::new(Returned::new()),
            readers: CachePadded::new(Line::new()),
            writers: CachePadded::new(Line::new()),
        }
    }

    /// What the messages in the ring may weigh together.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many messages the ring has room for.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many messages are written and not read, and what they weigh; roughly, while others write and read.
    pub fn held(&self) -> (usize, u32) {
        let (head, tail) = (Mark(self.head.load(Ordering::Acquire)), Mark(self.tail.load(Ordering::Acquire)));
        let messages = usize::try_from(ahead(tail.position(), head.position())).unwrap_or(0);
        let weight = u32::try_from(ahead(tail.weight(), head.weight())).unwrap_or(0);
        let (back, weight_back) = self.returned.sum();
        (messages.min(self.slots.len()) + back, weight.min(self.capacity).saturating_add(weight_back))
    }

    /// How many readers, and how many writers, stand in line.
    pub fn waiting(&self) -> (usize, usize) {
        (self.readers.queued.load(Ordering::Relaxed), self.writers.queued.load(Ordering::Relaxed))
    }

    /// Writes a message, unless there is no room for it, or writers stand in line for room: then it comes back. Never waits.
    ///
    /// # Errors
    /// The message.
    #[inline]
    pub fn try_push(&self, message: T, weight: u32) -> Result<(), T> {
        if !self.writers.is_empty() {
            return Err(message);
        }
        self.put(message, weight)
    }

    /// Reads the next message, if there is one. Never waits. One that is being written is not there yet, and neither are those behind it.
    #[inline]
    pub fn try_pop(&self) -> Option<T> {
        self.try_take().map(Taken::into_message)
    }

    /// As [`try_pop`](Self::try_pop), for who may [put it back](Self::put_back).
    #[inline]
    pub fn try_take(&self) -> Option<Taken<T>> {
        if !self.returned.is_empty()
            && let Some(taken) = self.take_returned()
        {
            return Some(taken);
        }
        let mut head = Mark(self.head.load(Ordering::SeqCst));
        loop {
            let slot = self.slot(head);
            // Acquires the message from who wrote it.
            let lead = ahead(slot.sequence.load(Ordering::SeqCst), head.position().wrapping_add(1));
            if lead < 0 {
                return None;
            }
            if lead > 0 {
                // Others have read it meanwhile.
                head = Mark(self.head.load(Ordering::SeqCst));
                continue;
            }
            // Relaxed: written before the sequence number that we have seen. If the slot is used again by now, the head has moved.
            let weight = slot.weight.load(Ordering::Relaxed);
            let next = head.past(weight);
            match self.head.compare_exchange_weak(head.0, next.0, Ordering::SeqCst, Ordering::SeqCst) {
                Err(moved) => head = Mark(moved),
                Ok(_) => {
                    let message = taken::read(slot);
                    // Free for the next lap. Releases the slot, and is one of the four steps of the pair.
                    slot.sequence.swap(head.position().wrapping_add(self.lap()), Ordering::SeqCst);
                    loom_fence();
                    if self.writers.queued.load(Ordering::SeqCst) != 0 {
                        self.wake_writer();
                    }
                    return Some(Taken { message, place: head.position(), weight });
                }
            }
        }
    }

    /// Takes the first of those that came back.
    #[cold]
    fn take_returned(&self) -> Option<Taken<T>> {
        let taken = self.returned.take()?;
        // As behind the freeing of a slot.
        loom_fence();
        if self.writers.queued.load(Ordering::SeqCst) != 0 {
            self.wake_writer();
        }
        Some(taken)
    }

    /// Puts a message back that was taken from this ring: it is read next, but for those that were written before it and came back, too. Never waits. There is room for it,
    /// also when others have written meanwhile. Places are told apart as long as fewer than 2^31 messages are written while one is away.
    pub fn put_back(&self, taken: Taken<T>) {
        // As the publishing of a message: before the look at the line.
        self.returned.put(taken);
        loom_fence();
        if self.readers.queued.load(Ordering::SeqCst) != 0 {
            self.wake_reader();
        }
    }

    /// As [`try_pop`](Self::try_pop) of a ring that was found empty: looks for a message for a moment longer, if that has paid lately and nobody stands in line for
    /// one. Takes no longer than a sleep and a wake would.
    pub fn look_for_message(&self) -> Option<T> {
        self.readers.patience.look(|| if self.readers.is_empty() { self.try_pop() } else { None })
    }

    /// As [`try_push`](Self::try_push) to a ring that was found full: looks for room for a moment longer, if that has paid lately and nobody stands in line for
    /// some. Takes no longer than a sleep and a wake would.
    ///
    /// # Errors
    /// The message.
    pub fn look_for_room(&self, message: T, weight: u32) -> Result<(), T> {
        let mut message = Some(message);
        let written = self.writers.patience.look(|| match self.try_push(message.take()?, weight) {
            Ok(()) => Some(()),
            Err(back) => {
                message = Some(back);
                None
            }
        });
        match message {
            Some(back) if written.is_none() => Err(back),
            _ => Ok(()),
        }
    }

    /// Writes a message as soon as there is room for it and all have been served who stood in line before. `over` tells whether to give up instead: it is
    /// asked before each attempt, so whoever makes it true calls [`wake_all`](Self::wake_all). Dropping the future leaves the line and drops the message.
    ///
    /// The result is the message when it was given up.
    ///
    /// # Panics
    /// For a message for which an empty ring has no room.
    pub fn push<F: Fn() -> bool>(&self, message: T, weight: u32, over: F) -> Push<'_, T, F> {
        assert!(weight <= self.capacity, "a message of {weight} for a ring of {}", self.capacity);
        Push { ring: self, message: Some(message), weight, over, place: None }
    }

    /// Reads the next message as soon as there is one, in the order in which readers came. `over` tells whether to give up when there is none: it is
    /// asked before each attempt, so what was written before it became true is still read. Whoever makes it true calls [`wake_all`](Self::wake_all).
    /// Dropping the future leaves the line, and the message to others.
    ///
    /// The result is none when it was given up.
    pub fn pop<F: Fn() -> bool>(&self, over: F) -> Pop<'_, T, F> {
        Pop(self.take(over))
    }

    /// As [`pop`](Self::pop), for who may [put it back](Self::put_back).
    pub fn take<F: Fn() -> bool>(&self, over: F) -> Take<'_, T, F> {
        Take { ring: self, over, place: None }
    }

    /// Has everybody who stands in line look anew whether it is to give up. What changed for them has to be changed before.
    pub fn wake_all(&self) {
        self.readers.call_all();
        self.writers.call_all();
    }

    /// Drops all messages that are written, and says how many they were.
    pub fn clear(&self) -> usize {
        std::iter::from_fn(|| self.try_pop()).count()
    }

    /// Writes a message if there is room for it, whoever stands in line.
    #[inline]
    fn put(&self, message: T, weight: u32) -> Result<(), T> {
        let mut tail = Mark(self.tail.load(Ordering::SeqCst));
        loop {
            // After the tail: of a head that is the newer one, less can only have been read by then.
            let head = Mark(self.head.load(Ordering::SeqCst));
            let slot = self.slot(tail);
            // Acquires the slot from who read what was in it.
            let lead = ahead(slot.sequence.load(Ordering::SeqCst), tail.position());
            if lead < 0 {
                // What was written there a lap ago is not read, or is being read.
                return Err(message);
            }
            let held = ahead(tail.weight(), head.weight());
            if lead > 0 || held < 0 {
                // Others have written there meanwhile.
                tail = Mark(self.tail.load(Ordering::SeqCst));
                continue;
            }
            let left = i64::from(self.capacity) - i64::from(held) - i64::from(self.returned.weight());
            if i64::from(weight) > left {
                return Err(message);
            }
            let next = tail.past(weight);
            match self.tail.compare_exchange_weak(tail.0, next.0, Ordering::SeqCst, Ordering::SeqCst) {
                Err(moved) => tail = Mark(moved),
                Ok(_) => {
                    slot.weight.store(weight, Ordering::Relaxed);
                    taken::write(slot, message);
                    // Publishes the message, and is one of the four steps of the pair.
                    slot.sequence.swap(tail.position().wrapping_add(1), Ordering::SeqCst);
                    loom_fence();
                    if self.readers.queued.load(Ordering::SeqCst) != 0 {
                        self.wake_reader();
                    }
                    return Ok(());
                }
            }
        }
    }

    #[inline]
    fn slot(&self, mark: Mark) -> &Slot<T> {
        // A power of two, so that a position keeps its slot when it wraps.
        &self.slots[mark.position() as usize & (self.slots.len() - 1)]
    }

    /// The number of slots.
    #[expect(clippy::cast_possible_truncation, reason = "there are SLOTS_MAX of them at most")]
    #[inline]
    fn lap(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether a message can be read.
    fn is_readable(&self) -> bool {
        if !self.returned.is_empty() {
            return true;
        }
        loop {
            let head = Mark(self.head.load(Ordering::SeqCst));
            match ahead(self.slot(head).sequence.load(Ordering::SeqCst), head.position().wrapping_add(1)) {
                0 => return true,
                lead if lead < 0 => return false,
                _ => {}
            }
        }
    }

    /// Whether there is room for a message that weighs this much.
    fn has_room(&self, weight: u32) -> bool {
        loop {
            let tail = Mark(self.tail.load(Ordering::SeqCst));
            let head = Mark(self.head.load(Ordering::SeqCst));
            let lead = ahead(self.slot(tail).sequence.load(Ordering::SeqCst), tail.position());
            let held = ahead(tail.weight(), head.weight());
            if lead < 0 {
                return false;
            }
            if lead == 0 && held >= 0 {
                let held = i64::from(held) + i64::from(self.returned.weight());
                return held + i64::from(weight) <= i64::from(self.capacity);
            }
        }
    }

    #[cold]
    fn wake_reader(&self) {
        self.readers.call_first(|_| true);
    }

    /// Wakes the first writer in line if there is room for its message; one that has none is left there, and keeps others from taking what becomes free.
    #[cold]
    fn wake_writer(&self) {
        self.writers.call_first(|weight| self.has_room(weight));
    }
}

/// What a slot holds is touched here alone.
#[expect(unsafe_code, reason = "the message in a slot is there or not by the slot's sequence number")]
mod taken {
    use super::{Ring, Slot};

    // SAFETY: a message is handed from the thread that writes it to one thread that reads it, which `T: Send` allows; no reference to one is ever
    // shared. All else in a ring is atomic or behind a lock.
    unsafe impl<T: Send> Sync for Ring<T> {}
    // SAFETY: a ring owns its messages.
    unsafe impl<T: Send> Send for Ring<T> {}

    /// To be called by who moved the head past the position at which the slot is written.
    #[inline]
    pub(super) fn read<T>(slot: &Slot<T>) -> T {
        // SAFETY: the sequence number that was seen says that the slot is written, and its load acquired the message. The head was moved past this
        // position by one exchange, which one thread wins: nobody else reads here, and nobody writes before the sequence number is raised.
        slot.message.with(|message| unsafe { (*message).assume_init_read() })
    }

    /// To be called by who moved the tail past the position for which the slot is free.
    #[inline]
    pub(super) fn write<T>(slot: &Slot<T>, message: T) {
        // SAFETY: the sequence number that was seen says that the slot is free, and its load acquired that what was in it is read. The tail was moved
        // past this position by one exchange, which one thread wins: nobody else writes here, and nobody reads before the sequence number is raised.
        slot.message.with_mut(|place| unsafe {
            (*place).write(message);
        });
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let mut head = Mark(self.head.load(Ordering::Relaxed));
        loop {
            let slot = &self.slots[head.position() as usize & (self.slots.len() - 1)];
            if slot.sequence.load(Ordering::Relaxed) != head.position().wrapping_add(1) {
                return;
            }
            drop(taken::read(slot));
            head = head.past(0);
        }
    }
}

impl<T: Send> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((messages, weight), (readers, writers)) = (self.held(), self.waiting());
        f.debug_struct("Ring")
            .field("messages", &messages)
            .field("weight", &weight)
            .field("capacity", &self.capacity)
            .field("readers_waiting", &readers)
            .field("writers_waiting", &writers)
            .finish_non_exhaustive()
    }
}

/// The future of [`Ring::push`].
#[must_use = "nothing is written before it is polled"]
pub struct Push<'a, T: Send, F: Fn() -> bool> {
    ring: &'a Ring<T>,
    /// Invariant: there until the future has ended.
    message: Option<T>,
    weight: u32,
    over: F,
    place: Option<u64>,
}

impl<T: Send, F: Fn() -> bool> Push<'_, T, F> {
    /// Tries once; none when there is no room.
    fn attempt(&mut self) -> Option<Result<(), T>> {
        let message = self.message.take()?;
        if (self.over)() {
            return Some(Err(message));
        }
        match self.ring.put(message, self.weight) {
            Ok(()) => Some(Ok(())),
            Err(message) => {
                self.message = Some(message);
                None
            }
        }
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.ring.writers.leave(place);
            // The room that we were called for, or that is left, may be for the next.
            self.ring.wake_writer();
        }
    }
}

impl<T: Send, F: Fn() -> bool> Future for Push<'_, T, F> {
    type Output = Result<(), T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let may_try = match self.place {
            Some(place) => self.ring.writers.standing(place) == Standing::First,
            None => self.ring.writers.is_empty(),
        };
        let mut done = if may_try { self.attempt() } else { None };
        if done.is_none() {
            let (ring, weight) = (self.ring, self.weight);
            let standing = ring.writers.join(&mut self.place, weight, cx.waker());
            // Once more: what became free before we stood in line called nobody.
            if standing == Standing::First || (self.over)() {
                done = self.attempt();
            }
        }
        match done {
            Some(done) => {
                self.leave();
                Poll::Ready(done)
            }
            None => Poll::Pending,
        }
    }
}

// Nothing in it is pinned.
impl<T: Send, F: Fn() -> bool> Unpin for Push<'_, T, F> {}

impl<T: Send, F: Fn() -> bool> Drop for Push<'_, T, F> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The future of [`Ring::pop`].
#[must_use = "nothing is read before it is polled"]
pub struct Pop<'a, T: Send, F: Fn() -> bool>(Take<'a, T, F>);

impl<T: Send, F: Fn() -> bool> Future for Pop<'_, T, F> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|taken| taken.map(Taken::into_message))
    }
}

/// The future of [`Ring::take`].
#[must_use = "nothing is read before it is polled"]
pub struct Take<'a, T: Send, F: Fn() -> bool> {
    ring: &'a Ring<T>,
    over: F,
    place: Option<u64>,
}

impl<T: Send, F: Fn() -> bool> Take<'_, T, F> {
    /// Tries once; none when there is no message yet.
    #[expect(clippy::option_option, reason = "whether it has ended, and whether with a message")]
    fn attempt(&self) -> Option<Option<Taken<T>>> {
        // Before the look: what was written before it was over is there then.
        let over = (self.over)();
        match self.ring.try_take() {
            None if !over => None,
            read => Some(read),
        }
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.ring.readers.leave(place);
            // The message that we were called for, or another that is left, may be for the next.
            if self.ring.is_readable() {
                self.ring.wake_reader();
            }
        }
    }
}

impl<T: Send, F: Fn() -> bool> Future for Take<'_, T, F> {
    type Output = Option<Taken<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut done = self.attempt();
        if done.is_none() {
            let ring = self.ring;
            ring.readers.join(&mut self.place, 0, cx.waker());
            // Once more: what was written before we stood in line called nobody.
            done = self.attempt();
        }
        match done {
            Some(done) => {
                self.leave();
                Poll::Ready(done)
            }
            None => Poll::Pending,
        }
    }
}

// Nothing in it is pinned.
impl<T: Send, F: Fn() -> bool> Unpin for Take<'_, T, F> {}

impl<T: Send, F: Fn() -> bool> Drop for Take<'_, T, F> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// As in `gate.rs`: loom takes `SeqCst` accesses for weaker ones, and orders fences alone.
#[inline]
fn loom_fence() {
    #[cfg(nexus_loom)]
    crate::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(all(test, not(nexus_loom)))]
mod tests;

#[cfg(all(test, nexus_loom))]
mod loom_tests;
