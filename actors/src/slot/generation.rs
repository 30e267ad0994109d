//! One generation of a service: its gate, and the service itself until the gate says that nobody uses it any more.
#![expect(
    unsafe_code,
    reason = "hands out references that the gate protects, and takes the service out when it is empty"
)]

use crate::gate::Gate;
use crate::sync::UnsafeCell;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;

pub(super) struct Generation<S: ?Sized> {
    number: u64,
    gate: Gate,
    /// Invariant: read only by who is counted in `gate`. Taken out only by the one [`Retired`] of this generation, whose
    /// gate is shut for good, after it found the gate empty.
    service: UnsafeCell<Option<Box<S>>>,
}

// SAFETY: the cell is shared for reading (needs `S: Sync`) and emptied by one owner on any thread (needs `S: Send`); the
// gate keeps the two apart.
unsafe impl<S: ?Sized + Send + Sync> Send for Generation<S> {}
// SAFETY: as above.
unsafe impl<S: ?Sized + Send + Sync> Sync for Generation<S> {}

impl<S: ?Sized> Generation<S> {
    pub(super) fn new(number: u64, service: Box<S>) -> Self {
        Self { number, gate: Gate::new(), service: UnsafeCell::new(Some(service)) }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Enters the gate; `None` when it is shut.
    #[inline]
    pub(super) fn visit(&self, shard: usize) -> Option<Visit<'_, S>> {
        self.gate.admit(shard).then(|| Visit { generation: self, shard }) // Lazily: a visit that is dropped leaves.
    }

    /// # Safety
    /// The caller is counted in the gate for as long as it uses the reference.
    #[inline]
    unsafe fn service(&self) -> &S {
        self.service.with(|service| {
            // SAFETY: the caller is inside, so by the invariant nobody takes the service out.
            unsafe { &*service }.as_deref().expect("a service stays until its gate is drained")
        })
    }
}

/// A call inside a generation.
pub(super) struct Visit<'a, S: ?Sized> {
    generation: &'a Generation<S>,
    shard: usize,
}

impl<'a, S: ?Sized> Visit<'a, S> {
    /// Keeps the place inside, and owns the generation from now on. `generation` must be the one that is visited.
    pub(super) fn into_lease(self, generation: Arc<Generation<S>>) -> Lease<S> {
        assert!(std::ptr::eq(self.generation, &raw const *generation), "a lease of another generation");
        let lease = Lease { generation, shard: self.shard };
        mem::forget(self); // The lease leaves in its stead.
        lease
    }
}

impl<S: ?Sized> Deref for Visit<'_, S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        // SAFETY: a visit is counted in the gate until it is dropped.
        unsafe { self.generation.service() }
    }
}

impl<S: ?Sized> Drop for Visit<'_, S> {
    #[inline]
    fn drop(&mut self) {
        self.generation.gate.leave(self.shard);
    }
}

/// A place inside one generation of a service, which is not torn down while the lease lives.
///
/// Send, so it may be held over an await; a swap waits for it, within its limit.
#[must_use = "dropping the lease is leaving"]
pub struct Lease<S: ?Sized> {
    generation: Arc<Generation<S>>,
    shard: usize,
}

impl<S: ?Sized> Lease<S> {
    /// For a swap that has shut and drained the gate: it alone comes in, to hand the state over.
    pub(super) fn past_the_gate(generation: &Arc<Generation<S>>) -> Self {
        let shard = crate::gate::this_thread();
        generation.gate.count_in(shard);
        Self { generation: generation.clone(), shard }
    }

    /// Another lease of the same generation, also while its gate is shut: for a call that comes back to the service that
    /// it came from. It neither waits for a swap under way nor fails because of it.
    pub fn nested(&self) -> Self {
        // The same shard, whose count is above zero by our own place in it.
        self.generation.gate.count_in(self.shard);
        Self { generation: self.generation.clone(), shard: self.shard }
    }

    /// The number of the generation that is leased.
    pub fn generation(&self) -> u64 {
        self.generation.number
    }
}

impl<S: ?Sized> Deref for Lease<S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        // SAFETY: a lease is counted in the gate until it is dropped.
        unsafe { self.generation.service() }
    }
}

impl<S: ?Sized> Drop for Lease<S> {
    fn drop(&mut self) {
        self.generation.gate.leave(self.shard);
    }
}

impl<S: ?Sized> fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("generation", &self.generation.number).finish_non_exhaustive()
    }
}

/// A generation that was replaced, and the way to get its service back when the last caller has left.
///
/// Dropping it tears the service down: at once, on this thread, when nobody is inside, else
/// some time after its last caller has left, on whichever thread comes by.
#[must_use = "dropping it tears the old service down"]
pub struct Retired<S: ?Sized> {
    /// Invariant: the only `Retired` of this generation; its gate is shut and never reopened.
    generation: Arc<Generation<S>>,
    /// Whether the last caller was seen to have left. Kept because later counts may come from callers turned away.
    empty: bool,
}

impl<S: ?Sized> Retired<S> {
    /// `generation` is no longer published, and no other `Retired` of it is made.
    pub(super) fn new(generation: Arc<Generation<S>>) -> Self {
        generation.gate.close();
        Self { generation, empty: false }
    }

    /// The number that it had.
    pub fn generation(&self) -> u64 {
        self.generation.number
    }

    /// How many callers are still inside.
    pub fn in_flight(&self) -> usize {
        self.generation.gate.in_flight()
    }

    /// Waits for the last caller. Dropping the future is harmless.
    pub async fn drained(&mut self) {
        if !self.empty {
            self.generation.gate.drained().await;
            self.empty = true;
        }
    }

    /// The old service, to be ended in order or to be swapped in again. Never waits; succeeds once
    /// [`drained`](Self::drained) has.
    ///
    /// # Errors
    /// Itself, while somebody is inside.
    pub fn into_service(mut self) -> Result<Box<S>, Self> {
        self.take().ok_or(self)
    }

    fn take(&mut self) -> Option<Box<S>> {
        self.empty = self.empty || self.generation.gate.is_empty();
        if !self.empty {
            return None;
        }
        // SAFETY: the gate is shut for good and was found empty since, so nobody is inside or will be; `&mut` of the only
        // `Retired` keeps a second taker out.
        self.generation.service.with_mut(|service| unsafe { (*service).take() })
    }
}

impl<S: ?Sized> Drop for Retired<S> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<S: ?Sized> fmt::Debug for Retired<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired")
            .field("generation", &self.generation.number)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
