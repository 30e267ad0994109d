//! Messages that were read and came back: those are read first, in the order in which they were written.

use crate::sync::Lock;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::collections::VecDeque;

use super::ahead;

/// A message that was read, with its place among the others, for who may [put it back](super::Ring::put_back).
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<T> {
    /// What was read.
    pub message: T,
    pub(super) place: u32,
    pub(super) weight: u32,
}

impl<T> Taken<T> {
    /// The message, which is not put back any more.
    #[inline]
    pub fn into_message(self) -> T {
        self.message
    }
}

/// What came back.
pub(super) struct Returned<T> {
    /// How many there are (the lower half) and what they weigh (the upper half), for those who look without the lock. Invariant: changed under the lock, to what is there.
    sum: AtomicU64,
    /// Invariant: by their places.
    messages: Lock<VecDeque<Taken<T>>>,
}

impl<T> Returned<T> {
    pub(super) fn new() -> Self {
        Self { sum: AtomicU64::new(0), messages: Lock::new(VecDeque::new()) }
    }

    /// Whether there is nothing: one load. In one order with the lines of those who wait.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.sum.load(Ordering::SeqCst) == 0
    }

    /// What all of it weighs.
    #[inline]
    pub(super) fn weight(&self) -> u32 {
        self.sum().1
    }

    /// How many there are, and what they weigh.
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    #[inline]
    pub(super) fn sum(&self) -> (usize, u32) {
        let sum = self.sum.load(Ordering::SeqCst);
        (sum as u32 as usize, (sum >> 32) as u32)
    }

    /// Takes the first.
    pub(super) fn take(&self) -> Option<Taken<T>> {
        let mut messages = self.messages.lock();
        let taken = messages.pop_front();
        self.count(&messages);
        taken
    }

    /// Puts one in its place.
    pub(super) fn put(&self, taken: Taken<T>) {
        let mut messages = self.messages.lock();
        let at = messages.partition_point(|other| ahead(other.place, taken.place) < 0);
        messages.insert(at, taken);
        self.count(&messages);
    }

    fn count(&self, messages: &VecDeque<Taken<T>>) {
        let weight: u64 = messages.iter().map(|taken| u64::from(taken.weight)).sum();
        let (count, weight) = (messages.len() as u64, weight.min(u32::MAX.into()));
        // Behind the messages, in one order with the lines of those who wait.
        self.sum.swap(weight << 32 | count, Ordering::SeqCst);
    }
}
