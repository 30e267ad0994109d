//! Counts who is inside, and can be shut: what a swap or an unmount drains before it tears something down.
//!
//! Entering is one add on a counter that few threads share. Entering and shutting are a store-buffer (Dekker) pair:
//!
//! ```text
//! enter:  count up,   then look whether shut         close:  shut, then look at the counters
//! leave:  count down, then look whether shut         drain:  shut, then look at the counters
//! ```
//!
//! So of a caller and a closer at least one sees the other: either the caller finds the gate shut and turns back, or the
//! closer finds the caller counted. Likewise either the leaver wakes the drainer, or the drainer finds it gone. This needs
//! one total order of all four steps, so each of them is `SeqCst`; nothing weaker will do. Accesses rather than fences,
//! because an atomic add is a full barrier already on x86 and a fence beside it would double the price.

use crate::eventcount::EventCount;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crossbeam_utils::CachePadded;
use std::array;

/// Counters of one gate. More would cost memory (128 bytes each) and a longer sum, fewer would make cores share lines.
#[cfg(not(nexus_loom))]
const SHARDS: usize = 16;
#[cfg(nexus_loom)]
const SHARDS: usize = 2;

/// The door to something that is torn down only when nobody is inside.
///
/// Safe to share; entering and leaving never wait. At most one party may close and reopen at a time. Of a gate that never reopens, any number may
/// wait until it is drained.
#[derive(Debug)]
pub struct Gate {
    /// Invariant: who counted itself in a shard leaves by the same one, so that no shard ever goes below zero and a sum
    /// that reads the shards one after the other cannot miss somebody who stayed inside.
    inside: [CachePadded<AtomicUsize>; SHARDS],
    shut: AtomicBool,
    left: EventCount,
}

/// The right to be inside; dropping it, in a panic too, is leaving.
#[derive(Debug)]
#[must_use = "dropping the pass is leaving"]
pub struct Pass<'a> {
    gate: &'a Gate,
    shard: usize,
}

impl Gate {
    /// An open gate with nobody inside.
    pub fn new() -> Self {
        Self {
            inside: array::from_fn(|_| CachePadded::new(AtomicUsize::new(0))),
            shut: AtomicBool::new(false),
            left: EventCount::new(),
        }
    }

    /// Goes in, or finds the gate shut. Never waits. A pass may travel to another thread.
    pub fn enter(&self) -> Option<Pass<'_>> {
        let shard = this_thread();
        self.admit(shard).then(|| Pass { gate: self, shard }) // Lazily: a pass that is dropped leaves.
    }

    /// Lets nobody in from now on. Who is inside stays until it leaves. May be repeated.
    pub fn close(&self) {
        // Releases too: who finds the gate shut also finds what was published before it was shut.
        self.shut.store(true, Ordering::SeqCst);
        loom_fence();
    }

    /// Lets callers in again, as if it had never been shut. May be repeated.
    pub fn reopen(&self) {
        self.shut.store(false, Ordering::SeqCst);
    }

    /// Waits until all who were let in have left. It must be [closed](Self::close) before, and then nobody is inside until
    /// it [reopens](Self::reopen), and all that was done inside has happened before. Dropping the future is harmless.
    pub async fn drained(&self) {
        // A shard that was once empty stays so, but for callers that count themselves and are then turned away. So the
        // shards are gone through one after the other, and never again.
        for shard in &self.inside {
            loop {
                let seen = self.left.read(); // Before the look, so that a leaver in between is not missed.
                if is_zero(shard) {
                    break;
                }
                self.left.past(seen).await;
            }
        }
    }

    /// Whether nobody is inside. Of a [closed](Self::close) gate *true* is final, until it reopens; *false* may come from
    /// a caller that is just being turned away.
    pub fn is_empty(&self) -> bool {
        self.inside.iter().all(|shard| is_zero(shard))
    }

    /// How many are inside, roughly while callers come and go.
    pub fn in_flight(&self) -> usize {
        self.inside.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Goes in by `shard`, by which [`leave`](Self::leave) must happen once if the answer is true.
    #[inline]
    pub(crate) fn admit(&self, shard: usize) -> bool {
        if self.is_shut() {
            return false; // Without counting: callers before a shut gate must not hold up its draining.
        }
        self.count_in(shard);
        if self.is_shut() {
            self.leave(shard);
            return false;
        }
        true
    }

    /// Goes in without asking: for who is inside already by the same `shard`, or has shut the gate itself.
    #[inline]
    pub(crate) fn count_in(&self, shard: usize) {
        self.inside[shard % SHARDS].fetch_add(1, Ordering::SeqCst);
        loom_fence();
    }

    /// Undoes one `admit` or `count_in` of this `shard`.
    #[inline]
    pub(crate) fn leave(&self, shard: usize) {
        // Releases too: what was done inside happens before the teardown.
        let before = self.inside[shard % SHARDS].fetch_sub(1, Ordering::SeqCst);
        debug_assert_ne!(before, 0, "somebody left who had not entered");
        loom_fence();
        if before == 1 && self.is_shut() {
            self.wake_drainer();
        }
    }

    #[inline]
    fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    #[cold]
    fn wake_drainer(&self) {
        self.left.advance();
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.shard);
    }
}

fn is_zero(shard: &AtomicUsize) -> bool {
    // Acquires too, from each leaver: what it did inside is visible to who may now tear down.
    shard.load(Ordering::SeqCst) == 0
}

/// loom takes `SeqCst` accesses for `AcqRel` ones and orders fences alone, so in a model each access that the algorithm
/// needs the total order for is followed by the fence that it stands for. Miri checks the accesses as they are.
#[inline]
fn loom_fence() {
    #[cfg(nexus_loom)]
    crate::sync::atomic::fence(Ordering::SeqCst);
}

/// The shard of the calling thread: threads are dealt out round robin, so that the first `SHARDS` share none.
#[cfg(not(nexus_loom))]
#[inline]
pub(crate) fn this_thread() -> usize {
    use std::cell::Cell;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: Cell<usize> = const { Cell::new(usize::MAX) });
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

/// In a model each thread says which shard is its own; 0 unless told.
#[cfg(nexus_loom)]
pub(crate) fn this_thread() -> usize {
    LOOM_SHARD.with(|shard| shard.get())
}

#[cfg(nexus_loom)]
loom::thread_local!(pub(crate) static LOOM_SHARD: std::cell::Cell<usize> = std::cell::Cell::new(0));

#[cfg(all(test, not(nexus_loom)))]
mod tests;

#[cfg(all(test, nexus_loom))]
mod loom_tests;
