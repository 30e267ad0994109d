//! What loom proves of a swap under calls. Each test names a mutation that makes it fail.

use super::*;
use crate::gate::LOOM_SHARD;
use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;
use std::future::{Future, poll_fn, ready};
use std::task::Poll;
use std::time::{Duration, Instant};

/// How often a thread of a model with three threads is preempted, at most.
const PREEMPTIONS: usize = 3;
/// The same where no bound is set from outside, as in `.ci/long`.
const PREEMPTIONS_LONG: usize = 4;

/// A service with state of its own; loom refuses a teardown that a call may run beside.
struct Counter {
    generation: u64,
    calls: loom::sync::atomic::AtomicU64,
    alive: loom::cell::UnsafeCell<bool>,
}

#[expect(unsafe_code, reason = "shares loom's checked cell, which panics where real code would race")]
mod checked {
    use super::Counter;
    use std::sync::atomic::Ordering;

    // SAFETY: loom reports a racing access instead of performing it.
    unsafe impl Send for Counter {}
    // SAFETY: as above.
    unsafe impl Sync for Counter {}

    impl Counter {
        pub(super) fn call(&self) -> u64 {
            // SAFETY: as above.
            self.alive.with(|alive| unsafe { assert!(*alive, "called after the teardown") });
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.generation
        }

        pub(super) fn tear_down(&self) {
            // SAFETY: as above.
            self.alive.with_mut(|alive| unsafe { *alive = false });
        }
    }
}

impl Counter {
    fn new(generation: u64, calls: u64) -> Box<Self> {
        Box::new(Self { generation, calls: calls.into(), alive: loom::cell::UnsafeCell::new(true) })
    }

    fn calls(&self) -> u64 {
        self.calls.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A time in which no limit is ever reached, so that a lost wake-up is a hang; or each at once.
struct Limit {
    now: Instant,
    reached: bool,
}

impl Limit {
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn never() -> Self {
        Self { now: Instant::now(), reached: false }
    }

    fn at_once() -> Self {
        Self { reached: true, ..Self::never() }
    }
}

impl Timer for Limit {
    fn now(&self) -> Instant {
        self.now
    }

    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + Send {
        let reached = self.reached;
        poll_fn(move |_| if reached { Poll::Ready(()) } else { Poll::Pending })
    }
}

type Exports = Result<Box<Counter>, &'static str>;

/// Mutations: the old gate shut before the publish (the caller is refused); a relaxed shut flag (likewise); the old
/// service taken without the drain (it is called after the teardown).
#[test]
fn loom_overlap_refuses_nobody_and_tears_nothing_down_under_a_call() {
    loom::model(|| {
        let slot = Arc::new(Slot::new(Counter::new(1, 0)));
        let caller = slot.clone();
        let caller = thread::spawn(move || {
            let first = caller.with(Counter::call).expect("overlap refuses nobody");
            let second = caller.with(Counter::call).expect("overlap refuses nobody");
            assert!(first <= second);
        });
        let prepare = ready::<Exports>(Ok(Counter::new(2, 0)));
        let done = block_on(slot.swap_overlap(&Limit::never(), Duration::ZERO, prepare)).unwrap();
        assert_eq!((done.report.from, done.report.to, done.report.drained), (1, 2, true));
        done.retired.into_service().unwrap().tear_down();
        caller.join().unwrap();
        assert_eq!(slot.with(Counter::call), Some(2));
    });
}

/// Mutation: a `take` that does not look whether the gate is empty.
#[test]
fn loom_a_late_service_is_taken_only_when_its_callers_have_left() {
    loom::model(|| {
        let slot = Arc::new(Slot::new(Counter::new(1, 0)));
        let caller = slot.clone();
        let caller = thread::spawn(move || caller.with(Counter::call).expect("overlap refuses nobody"));
        let prepare = ready::<Exports>(Ok(Counter::new(2, 0)));
        let done = block_on(slot.swap_overlap(&Limit::at_once(), Duration::ZERO, prepare)).unwrap();
        if let Ok(old) = done.retired.into_service() {
            old.tear_down();
        }
        caller.join().unwrap();
    });
}

/// Mutations: a hand-over without the drain (a call is lost, or races the export); a publish that wakes nobody, or a
/// waiter that reads the event count after it looked (the caller hangs).
#[test]
fn loom_exclusive_loses_no_call_and_wakes_who_waits() {
    loom::model(|| {
        let slot = Arc::new(Slot::new(Counter::new(1, 0)));
        let caller = slot.clone();
        let caller = thread::spawn(move || {
            LOOM_SHARD.with(|shard| shard.set(1));
            block_on(caller.lease()).call()
        });
        let hand_over = |old: Lease<Counter>, ()| {
            old.tear_down();
            ready::<Exports>(Ok(Counter::new(2, old.calls())))
        };
        let done =
            block_on(slot.swap_exclusive(&Limit::never(), Duration::ZERO, ready(Ok(())), hand_over)).unwrap();
        assert!(done.report.drained);
        assert!(matches!(caller.join().unwrap(), 1 | 2));
        assert_eq!(slot.with(Counter::calls), Some(1));
    });
}

/// A call that comes back to its own service while the gate shuts, and outlives the lease that it came from.
/// Mutation: a nested lease in another shard than the outer one (a drain that has passed that shard misses it).
#[test]
fn loom_a_nested_lease_holds_the_drain_up_and_never_waits_for_it() {
    loom::model(|| {
        let slot = Arc::new(Slot::new(Counter::new(1, 0)));
        let caller = slot.clone();
        let caller = thread::spawn(move || {
            LOOM_SHARD.with(|shard| shard.set(1));
            let outer = block_on(caller.lease());
            let nested = outer.nested();
            drop(outer);
            nested.call();
        });
        let hand_over = |old: Lease<Counter>, ()| {
            old.tear_down();
            ready::<Exports>(Ok(Counter::new(2, old.calls())))
        };
        block_on(slot.swap_exclusive(&Limit::never(), Duration::ZERO, ready(Ok(())), hand_over)).unwrap();
        caller.join().unwrap();
        assert_eq!(slot.with(Counter::calls), Some(1));
    });
}

/// Mutations: a rollback that does not reopen, or that reopens and wakes nobody.
#[test]
fn loom_a_rollback_wakes_who_waits_for_the_old_one() {
    loom::model(|| {
        let slot = Arc::new(Slot::new(Counter::new(1, 0)));
        let caller = slot.clone();
        let caller = thread::spawn(move || block_on(caller.lease()).call());
        let refused =
            block_on(slot.swap_exclusive(&Limit::never(), Duration::ZERO, ready(Ok(())), |_, ()| {
                ready::<Exports>(Err("bad"))
            }));
        assert_eq!(refused.unwrap_err(), SwapError::HandOver("bad"));
        assert_eq!(caller.join().unwrap(), 1);
        assert_eq!(slot.with(Counter::calls), Some(1));
    });
}

/// Mutations: taking the turn by a load and a store, or a refused swap that ends the turn of the one under way (in both
/// a number is published twice, and one version is lost).
#[test]
fn loom_of_two_swaps_each_is_published_once_or_refused() {
    loom::model(|| {
        let slot = Arc::new(Slot::new(Counter::new(1, 0)));
        let swap = |slot: Arc<Slot<Counter>>| {
            let prepare = ready::<Exports>(Ok(Counter::new(0, 0)));
            match block_on(slot.swap_overlap(&Limit::never(), Duration::ZERO, prepare)) {
                Ok(done) => Some(done.report.to),
                Err(SwapError::InProgress) => None,
                Err(other) => panic!("{other}"),
            }
        };
        let other = slot.clone();
        let other = thread::spawn(move || [swap(other.clone()), swap(other)]);
        let own = swap(slot.clone());
        let mut numbers = Vec::from_iter(other.join().unwrap().into_iter().chain([own]).flatten());
        numbers.sort_unstable();
        assert!(matches!(numbers[..], [2] | [2, 3] | [2, 3, 4]), "published {numbers:?}");
        assert_eq!(slot.generation(), *numbers.last().unwrap());
    });
}

/// Somebody else than the swapper tears down what callers of the old generation use.
/// Mutations: a publish that does not note the old generation, or notes it after it published the new one; a wait that does not drain.
#[test]
fn loom_who_takes_over_from_a_swapper_waits_for_those_inside() {
    let mut builder = loom::model::Builder::new();
    let bound = builder.preemption_bound.map_or(PREEMPTIONS_LONG, |bound| bound.min(PREEMPTIONS));
    builder.preemption_bound = Some(bound);
    builder.check(|| {
        let slot = Arc::new(Slot::new(Counter::new(1, 0)));
        let used = Arc::new(Counter::new(1, 0));
        let caller = (slot.clone(), used.clone());
        let caller = thread::spawn(move || {
            let (slot, used) = caller;
            let lease = slot.try_lease().expect("overlap refuses nobody");
            if lease.generation() == 1 {
                used.call();
            }
        });
        let swapper = slot.clone();
        let swapper = thread::spawn(move || {
            let prepare = ready::<Exports>(Ok(Counter::new(2, 0)));
            drop(block_on(swapper.swap_overlap(&Limit::at_once(), Duration::ZERO, prepare)).unwrap());
        });
        // Waits for it, so that each run comes here. Who only looked would never be shown what a third thread published.
        block_on(slot.replaced(1));
        block_on(slot.left());
        used.tear_down();
        swapper.join().unwrap();
        caller.join().unwrap();
    });
}
