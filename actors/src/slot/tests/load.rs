//! Swaps while threads call without pause.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::thread;

const SWAPS: u64 = if cfg!(miri) { 14 } else { 210 };
/// Calls that must have gone through before the next swap begins, so that each meets a load.
const BETWEEN: u64 = if cfg!(miri) { 2 } else { 10 };

/// Runs `swaps` against three threads that repeat `call` until it is done; answers the sum of what they return.
fn under_load(
    slot: &Slot<Service>,
    call: impl Fn(&Slot<Service>) -> u64 + Sync,
    swaps: impl FnOnce(&Load),
) -> u64 {
    let load = Load { calls: AtomicU64::new(0), done: AtomicBool::new(false) };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let _ends = EndsLoad(&load); // A failed caller must not leave the swapper waiting for calls.
                while !load.done.load(Ordering::Relaxed) {
                    let calls = call(slot);
                    load.calls.fetch_add(calls, Ordering::Relaxed);
                }
            });
        }
        let _ends = EndsLoad(&load);
        swaps(&load);
    });
    load.calls.into_inner()
}

struct Load {
    calls: AtomicU64,
    done: AtomicBool,
}

impl Load {
    fn wait(&self) {
        let enough = self.calls.load(Ordering::Relaxed) + BETWEEN;
        while self.calls.load(Ordering::Relaxed) < enough && !self.done.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
}

struct EndsLoad<'a>(&'a Load);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

#[test]
fn exclusive_swaps_with_errors_at_each_step_lose_no_call_and_no_state() {
    let slot = Slot::new(Service::boxed(1, 0));
    let leased = |slot: &Slot<Service>| {
        let lease = block_on(slot.lease());
        let first = lease.call();
        thread::yield_now();
        assert_eq!(lease.nested().call(), first, "the version changed under a lease");
        2
    };
    let mut swapped = 0;
    let calls = under_load(&slot, leased, |load| {
        let never = Limit::never();
        for swap in 0..SWAPS {
            load.wait();
            match swap % 7 {
                0 => {
                    let bad = block_on(slot.swap_exclusive(
                        &never,
                        Duration::ZERO,
                        ready(Err::<(), _>("bad")),
                        |_, ()| ready(Ok(Service::boxed(0, 0))),
                    ));
                    assert_eq!(bad.unwrap_err(), SwapError::Prepare("bad"));
                }
                1 => {
                    let held = block_on(slot.lease());
                    let late = exclusive(&slot, &Limit::at_once(), |_| unreachable!("not drained"));
                    assert!(matches!(late, Err(SwapError::DrainTimeout { .. })), "{late:?}");
                    drop(held);
                }
                2 => {
                    let bad = exclusive(&slot, &never, |_| Err("bad"));
                    assert_eq!(bad.unwrap_err(), SwapError::HandOver("bad"));
                }
                3 => {
                    let panics = || exclusive(&slot, &never, |_| std::panic::resume_unwind(Box::new("bad")));
                    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
                }
                4 => {
                    let prepared = ready(Ok::<_, &str>(()));
                    let hand_over = |_old, ()| pending::<Made>();
                    let mut dropped = pin!(slot.swap_exclusive(&never, Duration::ZERO, prepared, hand_over));
                    assert!(poll_once(dropped.as_mut()).is_pending());
                }
                _ => {
                    let version = swapped + 2;
                    let hand_over = |old: &Service| {
                        let carried = old.calls();
                        old.end(); // From here on nobody may call the old one.
                        Ok(Service::boxed(version, carried))
                    };
                    let done = exclusive(&slot, &never, hand_over).unwrap();
                    assert!(done.report.drained);
                    assert_eq!(done.report.to, version);
                    swapped += 1;
                }
            }
        }
    });
    assert_eq!(slot.with(Service::calls), Some(calls), "a call was lost or doubled");
    assert_eq!(slot.generation(), 1 + swapped);
    assert_eq!(swapped, SWAPS / 7 * 2);
}

#[test]
fn overlap_swaps_with_errors_refuse_no_call_and_never_call_the_ended() {
    let slot = Slot::new(Service::boxed(1, 0));
    let direct = |slot: &Slot<Service>| {
        let first = slot.with(Service::call).expect("overlap refuses nobody");
        let second = slot.try_lease().expect("overlap refuses nobody").call();
        assert!(first <= second, "a caller went back to version {second} from {first}");
        2
    };
    let (mut swapped, mut ended_calls) = (0, 0);
    let calls = under_load(&slot, direct, |load| {
        for swap in 0..SWAPS {
            load.wait();
            if swap % 7 == 0 {
                assert_eq!(
                    overlap(&slot, &Limit::never(), Err("bad")).unwrap_err(),
                    SwapError::Prepare("bad")
                );
                continue;
            }
            swapped += 1;
            let done = overlap(&slot, &Limit::never(), Ok(Service::boxed(swapped + 1, 0))).unwrap();
            assert!(done.report.drained);
            let old = done.retired.into_service().expect("drained");
            old.end();
            ended_calls += old.calls();
        }
    });
    assert_eq!(slot.with(Service::calls), Some(calls - ended_calls), "a call was lost or doubled");
    assert_eq!(slot.generation(), 1 + swapped);
}

/// Both modes in turn, while callers hold on to leases: an operation keeps the one set of instance and hooks that it began
/// with, and there is always one to begin with.
#[test]
fn hooks_are_never_absent_or_mixed() {
    let slot = Slot::new(Service::boxed(1, 0));
    let operation = |slot: &Slot<Service>| {
        let lease = block_on(slot.lease());
        let hooks = lease.hooks.clone();
        thread::yield_now();
        assert_eq!(hooks, [lease.call(); 4]);
        1
    };
    under_load(&slot, operation, |load| {
        for version in 2..SWAPS {
            load.wait();
            if version % 2 == 0 {
                overlap(&slot, &Limit::never(), Ok(Service::boxed(version, 0))).unwrap();
            } else {
                exclusive(&slot, &Limit::never(), |_| Ok(Service::boxed(version, 0))).unwrap();
            }
        }
    });
    assert_eq!(slot.generation(), SWAPS - 1);
}
