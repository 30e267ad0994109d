//! Replacing the service of a [`Slot`]: prepare, drain, hand over, publish, in one of two modes.
//!
//! Everything before the publish may fail, panic or be dropped, and leaves the old generation serving with its gate open.
//! The publish is one pointer swap. There is no await between it and the shutting of the old gate.

use super::Slot;
use super::generation::{Generation, Lease, Retired};
use crate::sync::atomic::Ordering;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

/// The time that a swap goes by, handed in by its caller: a slot has neither clock nor timers of its own.
pub trait Timer {
    /// The present moment.
    fn now(&self) -> Instant;

    /// Ends after `duration`; polled from the executor that polls the swap.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// What a swap did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwapReport {
    /// The generation that served before.
    pub from: u64,
    /// The generation that serves now.
    pub to: u64,
    /// How many callers were inside the old generation when it let nobody in any more.
    pub inside: usize,
    /// Whether the last of them had left when the report was made.
    pub drained: bool,
    /// How many callers waited before the shut gate when it ended. None with overlap.
    pub waited: usize,
    /// How long the callers of the old generation took to leave.
    pub drain: Duration,
    /// How long nobody was let in. Zero with overlap.
    pub pause: Duration,
}

/// A swap that succeeded.
pub struct Swapped<S: ?Sized> {
    /// What it did.
    pub report: SwapReport,
    /// The generation that it replaced.
    pub retired: Retired<S>,
}

impl<S: ?Sized> fmt::Debug for Swapped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swapped").field("report", &self.report).field("retired", &self.retired).finish()
    }
}

/// Why a swap did not happen. The old generation serves on, as if nothing had been tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError<E> {
    /// Another swap of this slot is under way.
    #[error("another swap of this service is under way")]
    InProgress,
    /// The new version could not be prepared.
    #[error("preparing the new version failed: {0}")]
    Prepare(E),
    /// The callers of the old generation did not leave within the limit.
    #[error("{in_flight} calls were still inside when the limit of the swap ended")]
    DrainTimeout {
        /// How many were inside at the end.
        in_flight: usize,
    },
    /// The state could not be handed over.
    #[error("handing the state over failed: {0}")]
    HandOver(E),
    /// The handing over was not done within the limit.
    #[error("handing the state over took longer than the limit of the swap")]
    HandOverTimeout,
}

impl<S: ?Sized + Send + Sync + 'static> Slot<S> {
    /// Replaces the service while both versions may run side by side. No caller waits.
    ///
    /// `prepare` makes and probes the new service. It is published at once, and then the old generation drains for at
    /// most `limit`. What is late is not an error, since the new version serves already: the report says so, and
    /// [`Swapped::retired`] can be waited for.
    ///
    /// Dropping the future before the publish changes nothing. Dropping it while the old generation drains leaves the
    /// new one serving, and the old service ends after its last caller.
    ///
    /// # Errors
    /// [`SwapError::InProgress`], [`SwapError::Prepare`].
    pub async fn swap_overlap<E>(
        &self,
        timer: &impl Timer,
        limit: Duration,
        prepare: impl Future<Output = Result<Box<S>, E>>,
    ) -> Result<Swapped<S>, SwapError<E>> {
        let turn = Turn::take(self).ok_or(SwapError::InProgress)?;
        let service = prepare.await.map_err(SwapError::Prepare)?;
        let old = self.current.get();
        let (to, waited) = turn.publish(&old, service);
        let mut retired = Retired::new(old); // Shuts the old gate, after the publish: who is turned away finds the new one.
        let inside = retired.in_flight();

        let began = timer.now();
        let drained = within(pin!(timer.sleep(limit)), retired.drained()).await.is_some();
        let report = SwapReport {
            from: retired.generation(),
            to,
            inside,
            drained,
            waited,
            drain: timer.now().duration_since(began),
            pause: Duration::ZERO,
        };
        Ok(Swapped { report, retired })
    }

    /// Replaces the service so that never two versions are called at once, handing the state over.
    ///
    /// `prepare` does what can be done beside the old version. Then the gate shuts: callers wait in
    /// [`lease`](Self::lease) and [`with`](Self::with) says `None`. When the last caller has left, `hand_over` is given a
    /// lease of the old generation, to take a *copy* of its state, and what was prepared, and makes the new service.
    /// `limit` bounds the whole pause, and the wait for that lease should `hand_over` have kept it.
    ///
    /// On every error, on a panic, and when the future is dropped, the gate opens again and the old version serves on.
    ///
    /// # Errors
    /// All of [`SwapError`].
    pub async fn swap_exclusive<P, E, H>(
        &self,
        timer: &impl Timer,
        limit: Duration,
        prepare: impl Future<Output = Result<P, E>>,
        hand_over: impl FnOnce(Lease<S>, P) -> H,
    ) -> Result<Swapped<S>, SwapError<E>>
    where
        H: Future<Output = Result<Box<S>, E>>,
    {
        let turn = Turn::take(self).ok_or(SwapError::InProgress)?;
        let prepared = prepare.await.map_err(SwapError::Prepare)?;
        let old = self.current.get();
        let began = timer.now();
        let mut limit = pin!(timer.sleep(limit));

        let shut = Shut::new(self, &old);
        let inside = old.gate().in_flight();
        within(limit.as_mut(), old.gate().drained())
            .await
            .ok_or_else(|| SwapError::DrainTimeout { in_flight: old.gate().in_flight() })?;
        let drain = timer.now().duration_since(began);
        let lease = Lease::past_the_gate(&old);
        let service = within(limit.as_mut(), hand_over(lease, prepared))
            .await
            .ok_or(SwapError::HandOverTimeout)?
            .map_err(SwapError::HandOver)?;
        shut.for_good();

        let (to, waited) = turn.publish(&old, service);
        let pause = timer.now().duration_since(began);
        let mut retired = Retired::new(old);
        let drained = within(limit, retired.drained()).await.is_some();
        let report = SwapReport { from: retired.generation(), to, inside, drained, waited, drain, pause };
        Ok(Swapped { report, retired })
    }
}

/// The right to swap, of which each slot has one.
struct Turn<'a, S: ?Sized + Send + Sync + 'static> {
    slot: &'a Slot<S>,
}

impl<'a, S: ?Sized + Send + Sync + 'static> Turn<'a, S> {
    fn take(slot: &'a Slot<S>) -> Option<Self> {
        // Acquire and release hand the slot from one swap to the next.
        (!slot.swapping.swap(true, Ordering::Acquire)).then(|| Self { slot }) // Lazily: a turn that is dropped ends.
    }

    /// The point of no return. Answers the new number, and how many callers waited for it.
    fn publish(&self, old: &Arc<Generation<S>>, service: Box<S>) -> (u64, usize) {
        let number = old.number() + 1;
        // Nobody else changes the list. What was alive is dropped without the lock: the last reference may be among it.
        let alive: Vec<_> = self.slot.left_behind.lock().iter().filter_map(Weak::upgrade).collect();
        // They are shut for good, so that an empty one stays empty.
        let occupied = alive.iter().filter(|generation| !generation.gate().is_empty());
        let behind = occupied.chain([old]).map(Arc::downgrade).collect();
        *self.slot.left_behind.lock() = behind;
        let pinned = self.slot.current.pin();
        pinned.swap(Arc::new(Generation::new(number, service)));
        pinned.collect();
        (number, self.slot.moved.advance())
    }
}

impl<S: ?Sized + Send + Sync + 'static> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        self.slot.swapping.store(false, Ordering::Release);
    }
}

/// A gate that is shut for the time of a swap. Dropping it opens the gate and wakes who waited before it.
struct Shut<'a, S: ?Sized + Send + Sync + 'static> {
    slot: &'a Slot<S>,
    generation: &'a Generation<S>,
    reopens: bool,
}

impl<'a, S: ?Sized + Send + Sync + 'static> Shut<'a, S> {
    fn new(slot: &'a Slot<S>, generation: &'a Generation<S>) -> Self {
        generation.gate().close();
        Self { slot, generation, reopens: true }
    }

    fn for_good(mut self) {
        self.reopens = false;
    }
}

impl<S: ?Sized + Send + Sync + 'static> Drop for Shut<'_, S> {
    fn drop(&mut self) {
        if self.reopens {
            self.generation.gate().reopen();
            self.slot.moved.advance();
        }
    }
}

/// What `work` gives, or nothing when `limit` ends before it.
async fn within<T>(
    mut limit: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => limit.as_mut().poll(cx).map(|()| None),
    })
    .await
}
