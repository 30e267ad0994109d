//! Who waits at a ring, for a message or for room, and whether it pays to look again before.

use crate::sync::Lock;
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::task::Waker;

use super::loom_fence;

/// Who waits, in the order in which they came.
pub(super) struct Line {
    pub(super) patience: Patience,
    /// How many stand in line, those that were called and have not come yet left out. Changed under the lock.
    pub(super) queued: AtomicUsize,
    waiting: Lock<Waiting>,
}

/// Whether it pays to look again before one stands in line.
pub(super) struct Patience {
    /// How much it has paid lately. Of what others add meanwhile some may be lost: it is a guess.
    credit: AtomicU32,
}

impl Patience {
    /// How often one looks again, about as long as a sleep and a wake take.
    #[cfg(not(nexus_loom))]
    pub(super) const LOOKS: u32 = 48;
    /// To look again changes nothing but the time, which a model has none of.
    #[cfg(nexus_loom)]
    pub(super) const LOOKS: u32 = 0;

    /// What is taken off when it did not pay; it is tried again once in so many times when nothing is left.
    pub(super) const COST: u32 = 64;
    /// What is added when it paid.
    const GAIN: u32 = 128;
    const CREDIT_MAX: u32 = 8 * Self::GAIN;

    pub(super) fn new() -> Self {
        Self { credit: AtomicU32::new(Self::GAIN) }
    }

    /// Looks again for a while, if that is worth it.
    pub(super) fn look<R>(&self, mut look: impl FnMut() -> Option<R>) -> Option<R> {
        let credit = self.credit.load(Ordering::Relaxed);
        if credit < Self::COST {
            self.credit.store(credit + 1, Ordering::Relaxed);
            return None;
        }
        for _ in 0..Self::LOOKS {
            std::hint::spin_loop();
            if let Some(seen) = look() {
                self.credit.store((credit + Self::GAIN).min(Self::CREDIT_MAX), Ordering::Relaxed);
                return Some(seen);
            }
        }
        self.credit.store(credit - Self::COST, Ordering::Relaxed);
        None
    }
}

struct Waiting {
    /// The place of who comes next.
    next: u64,
    /// Invariant: one entry for each living future that stands in line and was not called. So there are no more than callers hold.
    called_by: BTreeMap<u64, (u32, Waker)>,
}

/// Where somebody stands who came to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was called, or is the first: it may try.
    First,
    /// Others stand before it.
    Behind,
}

impl Line {
    pub(super) fn new() -> Self {
        let waiting = Lock::new(Waiting { next: 0, called_by: BTreeMap::new() });
        Self { patience: Patience::new(), queued: AtomicUsize::new(0), waiting }
    }

    /// Whether nobody stands in line. Orders nothing: it is for the sake of fairness alone.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queued.load(Ordering::Relaxed) == 0
    }

    /// Stands in line; at the place that it had, if it had one.
    pub(super) fn join(&self, place: &mut Option<u64>, weight: u32, waker: &Waker) -> Standing {
        let waker = waker.clone(); // Without the lock, as all that others may have written.
        let mut waiting = self.waiting.lock();
        let place = *place.get_or_insert_with(|| {
            waiting.next += 1;
            waiting.next
        });
        let replaced = waiting.called_by.insert(place, (weight, waker));
        self.count(&waiting);
        let first = waiting.called_by.first_key_value().map(|(first, _)| *first);
        drop(waiting);
        drop(replaced);
        if first == Some(place) { Standing::First } else { Standing::Behind }
    }

    /// Where one stands that came before.
    pub(super) fn standing(&self, place: u64) -> Standing {
        let waiting = self.waiting.lock();
        match waiting.called_by.first_key_value() {
            Some((first, _)) if *first != place && waiting.called_by.contains_key(&place) => Standing::Behind,
            _ => Standing::First,
        }
    }

    pub(super) fn leave(&self, place: u64) {
        let mut waiting = self.waiting.lock();
        let left = waiting.called_by.remove(&place);
        self.count(&waiting);
        drop(waiting);
        drop(left);
    }

    /// Calls the first in line if `may` says so of its weight.
    pub(super) fn call_first(&self, may: impl FnOnce(u32) -> bool) {
        let mut waiting = self.waiting.lock();
        let called = match waiting.called_by.first_entry() {
            Some(first) if may(first.get().0) => Some(first.remove().1),
            _ => None,
        };
        self.count(&waiting);
        drop(waiting);
        if let Some(waker) = called {
            waker.wake();
        }
    }

    pub(super) fn call_all(&self) {
        let mut waiting = self.waiting.lock();
        let called = std::mem::take(&mut waiting.called_by);
        self.count(&waiting);
        drop(waiting);
        called.into_values().for_each(|(_, waker)| waker.wake());
    }

    /// Tells the other side how many stand in line: one of the four steps of the pair.
    fn count(&self, waiting: &Waiting) {
        self.queued.store(waiting.called_by.len(), Ordering::SeqCst);
        loom_fence();
    }
}
