//! One step at a time: what each outcome of a swap leaves behind.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc;
use std::thread;

fn slot() -> Slot<Service> {
    Slot::new(Service::boxed(1, 0))
}

/// The slot serves `version` as `generation`, its gate is open, and another swap can begin.
fn assert_serves(slot: &Slot<Service>, version: u64, generation: u64) {
    assert_eq!(slot.with(Service::call), Some(version));
    assert_eq!(block_on(slot.lease()).call(), version);
    assert_eq!(slot.generation(), generation);
    assert_eq!(slot.in_flight(), 0);
    let probe = overlap(slot, &Limit::never(), Err("probe"));
    assert!(matches!(probe, Err(SwapError::Prepare("probe"))), "{probe:?}");
}

#[test]
fn overlap_publishes_and_gives_the_old_one_back() {
    let slot = slot();
    let done = overlap(&slot, &Limit::never(), Ok(Service::boxed(2, 0))).unwrap();
    assert_serves(&slot, 2, 2);
    let report = SwapReport {
        from: 1,
        to: 2,
        inside: 0,
        drained: true,
        waited: 0,
        drain: Duration::ZERO,
        pause: Duration::ZERO,
    };
    assert_eq!(done.report, report);
    let old = done.retired.into_service().unwrap();
    overlap(&slot, &Limit::never(), Ok(old)).unwrap();
    assert_serves(&slot, 1, 3); // Swapped back, under a number of its own.
}

#[test]
fn overlap_reports_callers_that_stay_and_waits_for_them_later() {
    let slot = slot();
    let lease = slot.try_lease().unwrap();
    let done = overlap(&slot, &Limit::at_once(), Ok(Service::boxed(2, 0))).unwrap();
    assert!(!done.report.drained);
    assert_serves(&slot, 2, 2);
    let mut retired = done.retired.into_service().err().expect("somebody is inside");
    assert_eq!((retired.in_flight(), retired.generation(), lease.call()), (1, 1, 1));
    assert!(poll_once(pin!(retired.drained())).is_pending());
    drop(lease);
    block_on(retired.drained());
    assert_eq!(retired.into_service().unwrap().calls(), 1);
}

#[test]
fn those_inside_are_waited_for_also_when_their_swapper_is_gone() {
    let slot = slot();
    let (first, second) = (slot.try_lease().unwrap(), slot.try_lease().unwrap());
    let limit = Limit::never();
    {
        let swap = slot.swap_overlap(&limit, Duration::ZERO, ready(Made::Ok(Service::boxed(2, 0))));
        assert!(poll_once(pin!(swap)).is_pending(), "it waits for those inside, and is given up");
    }
    assert_serves(&slot, 2, 2);
    // Another swap later, whose own callers are none.
    let third = slot.try_lease().unwrap();
    drop(third);
    overlap(&slot, &Limit::never(), Ok(Service::boxed(3, 0))).unwrap();
    let inside_the_current_one = slot.try_lease().unwrap();
    let mut left = pin!(slot.left());
    for lease in [first, second] {
        assert!(poll_once(left.as_mut()).is_pending());
        assert!(poll_once(pin!(slot.left())).is_pending());
        assert_eq!(lease.call(), 1);
        drop(lease);
    }
    block_on(left);
    block_on(slot.left());
    assert_eq!(inside_the_current_one.call(), 3);
}

#[test]
fn a_failed_prepare_changes_nothing() {
    let slot = slot();
    assert_eq!(overlap(&slot, &Limit::never(), Err("bad")).unwrap_err(), SwapError::Prepare("bad"));
    let failed = block_on(slot.swap_exclusive(
        &Limit::never(),
        Duration::ZERO,
        ready(Err::<(), _>("bad")),
        |_, ()| ready(Ok(Service::boxed(2, 0))),
    ));
    assert_eq!(failed.unwrap_err(), SwapError::Prepare("bad"));
    assert_serves(&slot, 1, 1);
}

#[test]
fn a_late_drain_reopens_the_old_one() {
    let slot = slot();
    let held = slot.try_lease().unwrap();
    let late = exclusive(&slot, &Limit::at_once(), |_| Ok(Service::boxed(2, 0)));
    assert_eq!(late.unwrap_err(), SwapError::DrainTimeout { in_flight: 1 });
    drop(held);
    assert_serves(&slot, 1, 1);
}

#[test]
fn a_failed_or_late_hand_over_reopens_the_old_one_with_its_state() {
    let slot = slot();
    slot.with(Service::call);
    assert_eq!(exclusive(&slot, &Limit::never(), |_| Err("bad")).unwrap_err(), SwapError::HandOver("bad"));
    let late = block_on(slot.swap_exclusive(
        &Limit::at_once(),
        Duration::ZERO,
        ready(Ok::<_, &str>(())),
        |_old, ()| pending(),
    ));
    assert_eq!(late.unwrap_err(), SwapError::HandOverTimeout);
    assert_eq!(slot.with(Service::calls), Some(1));
    assert_serves(&slot, 1, 1);
}

#[test]
fn a_panic_in_the_hand_over_reopens_the_old_one() {
    let slot = slot();
    let panicked =
        catch_unwind(AssertUnwindSafe(|| exclusive(&slot, &Limit::never(), |_| panic!("in hand-over"))));
    assert!(panicked.is_err());
    assert_serves(&slot, 1, 1);
}

#[test]
fn a_swap_dropped_while_it_drains_or_hands_over_reopens_and_wakes() {
    for held in [true, false] {
        let slot = slot();
        let lease = held.then(|| slot.try_lease().unwrap());
        let mut waiting = pin!(slot.lease());
        {
            let limit = Limit::never();
            let prepared = ready(Ok::<_, &str>(()));
            let mut swap =
                pin!(slot.swap_exclusive(&limit, Duration::ZERO, prepared, |_old, ()| pending::<Made>()));
            assert!(poll_once(swap.as_mut()).is_pending());
            assert!(slot.with(Service::call).is_none());
            assert!(slot.try_lease().is_none());
            assert!(poll_once(waiting.as_mut()).is_pending());
        }
        let std::task::Poll::Ready(served) = poll_once(waiting.as_mut()) else {
            panic!("still shut after the swap was dropped");
        };
        assert_eq!(served.call(), 1);
        drop((served, lease));
        assert_serves(&slot, 1, 1);
    }
}

#[test]
fn who_waits_is_served_by_the_new_one_and_counted() {
    let slot = slot();
    let (waiters, limit) = (3, Limit::never());
    let done = thread::scope(|scope| {
        let (ready_to_wait, waits) = mpsc::channel();
        let slot = &slot;
        let swap = slot.swap_exclusive(&limit, Duration::ZERO, ready(Ok(())), |old, ()| {
            for _ in 0..waiters {
                let ready_to_wait = ready_to_wait.clone();
                scope.spawn(move || {
                    let mut lease = pin!(slot.lease());
                    assert!(poll_once(lease.as_mut()).is_pending());
                    ready_to_wait.send(()).unwrap();
                    assert_eq!(block_on(lease).call(), 2);
                });
            }
            waits.iter().take(waiters).for_each(drop);
            ready(Ok::<_, Infallible>(Service::boxed(2, old.calls())))
        });
        block_on(swap).unwrap()
    });
    assert_eq!((done.report.waited, done.report.drained), (waiters, true));
    assert_serves(&slot, 2, 2);
}

#[test]
fn a_second_swap_is_refused_and_leaves_the_first_its_turn() {
    let slot = slot();
    let limit = Limit::never();
    let mut first = pin!(slot.swap_overlap(&limit, Duration::ZERO, pending::<Made>()));
    assert!(poll_once(first.as_mut()).is_pending());
    for _ in 0..2 {
        let second = overlap(&slot, &limit, Ok(Service::boxed(9, 0)));
        assert_eq!(second.unwrap_err(), SwapError::InProgress);
    }
    assert_eq!(slot.generation(), 1);
}

#[test]
fn a_nested_call_goes_through_while_the_swap_drains() {
    let slot = slot();
    let outer = slot.try_lease().unwrap();
    let limit = Limit::never();
    let prepared = ready(Ok::<_, &str>(()));
    let mut swap = pin!(slot.swap_exclusive(&limit, Duration::ZERO, prepared, |old, ()| {
        ready(Ok(Service::boxed(2, old.calls())))
    }));
    assert!(poll_once(swap.as_mut()).is_pending());
    assert!(slot.try_lease().is_none());
    let nested = outer.nested();
    drop(outer);
    assert!(poll_once(swap.as_mut()).is_pending(), "the nested lease counts by itself");
    assert_eq!((nested.call(), nested.generation()), (1, 1));
    drop(nested);
    block_on(swap).unwrap();
    assert_eq!(slot.with(Service::calls), Some(1));
}

#[test]
fn a_panic_in_a_call_leaves_the_gate_right() {
    let slot = slot();
    let panicked = catch_unwind(AssertUnwindSafe(|| slot.with(|_| panic!("in a call"))));
    assert!(panicked.is_err());
    exclusive(&slot, &Limit::at_once(), |old| Ok(Service::boxed(2, old.calls()))).unwrap();
    assert_serves(&slot, 2, 2);
}

#[test]
fn a_hand_over_that_keeps_its_lease_is_reported() {
    let slot = slot();
    let (mut kept, limit) = (None, Limit::at_once());
    let swap = slot.swap_exclusive(&limit, Duration::ZERO, ready(Ok::<_, &str>(())), |old, ()| {
        kept = Some(old);
        ready(Ok(Service::boxed(2, 0)))
    });
    let done = block_on(swap).unwrap();
    assert!(!done.report.drained);
    assert_eq!(kept.take().unwrap().call(), 1);
    assert!(done.retired.into_service().is_ok());
}

/// Says which thread dropped it.
struct Witness(mpsc::Sender<thread::ThreadId>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.send(thread::current().id()).expect("the test still listens");
    }
}

#[test]
fn the_old_service_ends_with_its_swapper_or_else_after_its_last_caller() {
    let (dropped, drops) = mpsc::channel();
    let slot = Slot::new(Box::new(Witness(dropped.clone())));
    let swap = |limit: &Limit| {
        let made = ready(Ok::<_, Infallible>(Box::new(Witness(dropped.clone()))));
        drop(block_on(slot.swap_overlap(limit, Duration::ZERO, made)).unwrap());
    };
    swap(&Limit::never());
    assert_eq!(drops.try_recv(), Ok(thread::current().id()));

    let lease = slot.try_lease().unwrap();
    swap(&Limit::at_once());
    assert!(drops.try_recv().is_err(), "torn down under a lease");
    drop(lease);
    // The memory of the generation goes with the epochs, which turn as long as anybody swaps.
    for _ in 0..1_000_000 {
        if drops.try_recv().is_ok() {
            return;
        }
        swap(&Limit::never());
        assert!(drops.recv().is_ok());
    }
    panic!("never torn down");
}

#[test]
fn a_slot_holds_trait_objects_and_its_swaps_may_be_spawned() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    trait Greet: Send + Sync {
        fn greet(&self) -> &'static str;
    }
    struct Hello;
    impl Greet for Hello {
        fn greet(&self) -> &'static str {
            "hello"
        }
    }
    let slot: Slot<dyn Greet> = Slot::new(Box::new(Hello));
    let limit = Limit::never();
    let prepared = ready(Ok::<Box<dyn Greet>, Infallible>(Box::new(Hello)));
    block_on(assert_send(slot.swap_overlap(&limit, Duration::ZERO, prepared))).unwrap();
    let swap =
        slot.swap_exclusive(&limit, Duration::ZERO, ready(Ok::<_, Infallible>(())), |old, ()| async move {
            drop(old);
            Ok(Box::new(Hello) as Box<dyn Greet>)
        });
    block_on(assert_send(swap)).unwrap();
    assert_eq!(slot.with(|service| service.greet()), Some("hello"));
    assert_eq!(assert_send(block_on(assert_send(slot.lease()))).greet(), "hello");
}
