//! The queue of an actor: bounded, first come first served, and its places come back when a message is withdrawn.
//!
//! Synchronous and without a clock; the cell holds the lock around it.

use std::collections::VecDeque;
use std::time::Instant;

/// Callers that may wait for room in one mailbox; one more is refused at once.
pub(crate) const CALLERS_WAITING_MAX: usize = 65_536;

/// How much a mailbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxBounds {
    /// Messages queued at once, and messages in progress at once. At least one.
    pub messages: usize,
}

impl Default for MailboxBounds {
    fn default() -> Self {
        MailboxBounds { messages: 1024 }
    }
}

/// What is queued, and by when it must have begun.
pub(crate) struct Entry<T> {
    seq: u64,
    pub(crate) deadline: Option<Instant>,
    pub(crate) item: T,
}

pub(crate) struct Mailbox<T> {
    bound: usize,
    /// Served first and not counted: exits and the like, whose senders bound them.
    signals: VecDeque<T>,
    /// Invariant: at most `bound` long, ordered by `seq`, and shorter only while `waiting` is empty.
    queue: VecDeque<Entry<T>>,
    /// Messages of callers that wait for room. Invariant: ordered by `seq`, all later than those in `queue`.
    waiting: VecDeque<Entry<T>>,
    next_seq: u64,
}

/// No room; the message is given back.
pub(crate) struct Full<T>(pub(crate) T);

impl<T> Mailbox<T> {
    pub(crate) fn new(bounds: MailboxBounds) -> Self {
        Mailbox {
            bound: bounds.messages.max(1),
            signals: VecDeque::new(),
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            next_seq: 0,
        }
    }

    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn callers_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn signal(&mut self, item: T) {
        self.signals.push_back(item);
    }

    /// Queues `item`; its number is for `withdraw`. Without room a patient one waits for some.
    pub(crate) fn push(&mut self, item: T, deadline: Option<Instant>, patient: bool) -> Result<u64, Full<T>> {
        let lane = if self.queue.len() < self.bound {
            &mut self.queue
        } else if patient && self.waiting.len() < CALLERS_WAITING_MAX {
            &mut self.waiting
        } else {
            return Err(Full(item));
        };
        self.next_seq += 1;
        lane.push_back(Entry { seq: self.next_seq, deadline, item });
        Ok(self.next_seq)
    }

    /// The next message. Who waited longest for room gets the place.
    pub(crate) fn pop(&mut self) -> Option<Entry<T>> {
        if let Some(item) = self.signals.pop_front() {
            return Some(Entry { seq: 0, deadline: None, item });
        }
        let entry = self.queue.pop_front();
        self.admit();
        entry
    }

    /// Takes back the message with this number.
    pub(crate) fn withdraw(&mut self, seq: u64) -> Option<T> {
        let taken = [&mut self.queue, &mut self.waiting].into_iter().find_map(|lane| {
            let at = lane.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
            lane.remove(at)
        });
        self.admit();
        Some(taken?.item)
    }

    /// Takes out all whose deadline has passed, and says the earliest deadline of the others.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<T>, Option<Instant>) {
        let mut expired = Vec::new();
        let mut earliest: Option<Instant> = None;
        for lane in [&mut self.queue, &mut self.waiting] {
            let due = |entry: &Entry<T>| entry.deadline.is_some_and(|d| d <= now);
            if lane.iter().any(due) {
                let (out, kept) = std::mem::take(lane).into_iter().partition::<Vec<_>, _>(due);
                expired.extend(out.into_iter().map(|entry| entry.item));
                *lane = kept.into();
            }
            earliest = lane.iter().filter_map(|entry| entry.deadline).chain(earliest).min();
        }
        self.admit();
        (expired, earliest)
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) -> Vec<T> {
        let signals = std::mem::take(&mut self.signals);
        let entries = std::mem::take(&mut self.queue).into_iter().chain(std::mem::take(&mut self.waiting));
        signals.into_iter().chain(entries.map(|entry| entry.item)).collect()
    }

    fn admit(&mut self) {
        while self.queue.len() < self.bound
            && let Some(entry) = self.waiting.pop_front()
        {
            self.queue.push_back(entry);
        }
    }
}
