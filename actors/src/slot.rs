//! A service that is called directly, without a mailbox, and replaced while it is called.
//!
//! A slot holds one *generation* of a service behind an epoch pointer, with a [`Gate`](crate::Gate) that counts its
//! callers. What belongs together (an instance, its hooks, its exports) is one value `S`, so that one publish changes all
//! of it: a caller sees the old set or the new one, never none and never a mixture.

mod generation;
mod swap;

pub use generation::{Lease, Retired};
pub use swap::{SwapError, SwapReport, Swapped, Timer};

use crate::epoch::EpochPtr;
use crate::eventcount::EventCount;
use crate::gate;
use crate::sync::Lock;
use crate::sync::atomic::AtomicBool;
use generation::Generation;
use std::fmt;
use std::sync::{Arc, Weak};

/// The current generation of a service, callable from any thread and replaceable under its callers.
///
/// A call never fails because of a swap: under [`swap_overlap`](Self::swap_overlap) callers notice nothing, and under
/// [`swap_exclusive`](Self::swap_exclusive) they wait in [`lease`](Self::lease) for the length of the pause.
pub struct Slot<S: ?Sized + Send + Sync + 'static> {
    /// Invariant: replaced only by the holder of `swapping`, by a generation whose number is one higher.
    current: EpochPtr<Generation<S>>,
    /// Counts what callers before a shut gate wait for: a publish, or a reopening.
    moved: EventCount,
    /// Whether a swap is under way; there is one at a time.
    swapping: AtomicBool,
    /// Generations that somebody may still be inside of, though they were replaced. Weak: they keep nothing alive, and one that is gone has nobody
    /// inside.
    ///
    /// Invariant: a generation is here before its successor is published, and its gate is shut for good when the turn of its swap ends.
    left_behind: Lock<Vec<Weak<Generation<S>>>>,
}

impl<S: ?Sized + Send + Sync + 'static> Slot<S> {
    /// A slot that serves `service` as its first generation, number 1.
    pub fn new(service: Box<S>) -> Self {
        Self {
            current: EpochPtr::new(Arc::new(Generation::new(1, service))),
            moved: EventCount::new(),
            swapping: AtomicBool::new(false),
            left_behind: Lock::new(Vec::new()),
        }
    }

    /// Calls the current generation, on this thread, without touching a reference count.
    ///
    /// `None`, without a call, while an exclusive swap holds the gate shut: [`lease`](Self::lease) waits instead. `call`
    /// must not block, since it delays a swap and the freeing of memory in the whole process. It may panic.
    #[inline]
    pub fn with<R>(&self, call: impl FnOnce(&S) -> R) -> Option<R> {
        let pinned = self.current.pin();
        let shard = gate::this_thread();
        loop {
            let generation = pinned.load();
            if let Some(visit) = generation.visit(shard) {
                return Some(call(&visit));
            }
            // Shut, and nothing newer stands here: an exclusive swap is under way.
            if pinned.load().is(&generation) {
                return None;
            }
        }
    }

    /// A [`Lease`] of the current generation; `None` while an exclusive swap holds the gate shut. Never waits.
    pub fn try_lease(&self) -> Option<Lease<S>> {
        let pinned = self.current.pin();
        let shard = gate::this_thread();
        loop {
            let generation = pinned.load();
            if let Some(visit) = generation.visit(shard) {
                return Some(visit.into_lease(generation.to_arc()));
            }
            if pinned.load().is(&generation) {
                return None;
            }
        }
    }

    /// A [`Lease`] of the current generation, waiting while an exclusive swap holds the gate shut: at most the pause that
    /// the swap was allowed. Never fails. Dropping the future gives up the wait and leaves nothing behind.
    ///
    /// Who already holds a lease of this slot must call through it, or through [`Lease::nested`]: waiting here for a swap
    /// that waits for that lease ends only with the swap's limit.
    pub async fn lease(&self) -> Lease<S> {
        loop {
            if let Some(lease) = self.try_lease() {
                return lease;
            }
            let seen = self.moved.read();
            // Once more, now that a change cannot be missed.
            if let Some(lease) = self.try_lease() {
                return lease;
            }
            self.moved.past(seen).await;
        }
    }

    /// Waits until the generation of this number is no longer the current one. Dropping the future leaves nothing behind.
    pub async fn replaced(&self, generation: u64) {
        loop {
            let seen = self.moved.read(); // Before the look, so that a publish in between is not missed.
            if self.generation() != generation {
                return;
            }
            self.moved.past(seen).await;
        }
    }

    /// Waits until nobody is inside any generation that was replaced before this is first polled, whoever replaced it: for who takes over from a
    /// swapper that is gone, and its [`Retired`] with it. Dropping the future leaves nothing behind.
    pub async fn left(&self) {
        let current = self.generation();
        // The last reference may be among them: so none is dropped under the lock.
        let behind: Vec<_> = self.left_behind.lock().iter().filter_map(Weak::upgrade).collect();
        // By number: one whose successor is about to be published is on the list already.
        for generation in behind.into_iter().filter(|generation| generation.number() < current) {
            generation.gate().close(); // It never reopens. Its swapper may be just about to shut it.
            generation.gate().drained().await;
        }
    }

    /// The number of the current generation: 1, and one more with each swap.
    pub fn generation(&self) -> u64 {
        self.current.pin().load().number()
    }

    /// How many calls and leases are inside the current generation, roughly while they come and go.
    pub fn in_flight(&self) -> usize {
        self.current.pin().load().gate().in_flight()
    }
}

impl<S: ?Sized + Send + Sync + 'static> fmt::Debug for Slot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("generation", &self.generation())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(nexus_loom)))]
mod tests;

#[cfg(all(test, nexus_loom))]
mod loom_tests;
