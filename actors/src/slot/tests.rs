//! Swaps on real threads, under load, with an error at each step. No call may fail and no state may be lost.

mod load;
mod single;

use super::*;
use crate::parked::{block_on, poll_once};
use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An instance and its hooks, which belong together and are replaced together.
struct Service {
    version: u64,
    hooks: Vec<u64>,
    calls: AtomicU64,
    ended: AtomicBool,
}

impl Service {
    fn boxed(version: u64, calls: u64) -> Box<Self> {
        let (calls, ended) = (calls.into(), false.into());
        Box::new(Self { version, hooks: vec![version; 4], calls, ended })
    }

    /// One call, which finds all of its own hooks and a service that has not ended.
    fn call(&self) -> u64 {
        assert!(!self.ended.load(Ordering::SeqCst), "called after the end");
        assert_eq!(self.hooks, [self.version; 4], "hooks absent or mixed");
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.ended.load(Ordering::SeqCst), "ended under a call");
        self.version
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// A clock that stands still, and limits that are reached at once or never.
struct Limit {
    now: Instant,
    reached: bool,
}

impl Limit {
    #[expect(clippy::disallowed_methods, reason = "any moment will do, it stands still")]
    fn new(reached: bool) -> Self {
        Self { now: Instant::now(), reached }
    }

    fn never() -> Self {
        Self::new(false)
    }

    fn at_once() -> Self {
        Self::new(true)
    }
}

impl Timer for Limit {
    fn now(&self) -> Instant {
        self.now
    }

    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + Send {
        let reached = self.reached;
        std::future::poll_fn(
            move |_| if reached { std::task::Poll::Ready(()) } else { std::task::Poll::Pending },
        )
    }
}

type Made = Result<Box<Service>, &'static str>;

fn overlap(
    slot: &Slot<Service>,
    limit: &Limit,
    made: Made,
) -> Result<Swapped<Service>, SwapError<&'static str>> {
    block_on(slot.swap_overlap(limit, Duration::ZERO, ready(made)))
}

fn exclusive(
    slot: &Slot<Service>,
    limit: &Limit,
    hand_over: impl FnOnce(&Service) -> Made,
) -> Result<Swapped<Service>, SwapError<&'static str>> {
    block_on(slot.swap_exclusive(limit, Duration::ZERO, ready(Ok(())), |old, ()| ready(hand_over(&old))))
}
