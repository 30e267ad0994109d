//! The gate by itself; what may run concurrently is in `loom_tests.rs`.

use super::*;
use crate::parked::{block_on, poll_once};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::thread;

#[test]
fn a_shut_gate_refuses_and_keeps_who_is_inside() {
    let gate = Gate::new();
    let inside = gate.enter().unwrap();
    gate.close();
    assert!(gate.enter().is_none());
    assert_eq!(gate.in_flight(), 1);
    assert!(!gate.is_empty());
    drop(inside);
    assert!(gate.is_empty());
    gate.reopen();
    assert!(gate.enter().is_some());
}

#[test]
fn a_panic_inside_leaves() {
    let gate = Gate::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _inside = gate.enter();
        panic!("inside");
    }));
    assert!(panicked.is_err());
    gate.close();
    assert!(gate.is_empty());
}

#[test]
fn a_pass_may_be_given_back_by_another_thread() {
    let gate = Gate::new();
    let passes: Vec<_> = (0..3).map(|_| gate.enter().unwrap()).collect();
    gate.close();
    thread::scope(|scope| {
        for pass in passes {
            scope.spawn(|| drop(pass));
        }
        block_on(gate.drained());
    });
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn a_drain_that_is_given_up_can_be_begun_again() {
    let gate = Gate::new();
    let inside = gate.enter().unwrap();
    gate.close();
    assert!(poll_once(pin!(gate.drained())).is_pending());
    let mut second = pin!(gate.drained());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(inside);
    assert!(poll_once(second).is_ready());
}

/// The round number changes only while the gate is shut and drained, so no caller sees it change.
#[test]
fn nothing_happens_inside_after_the_drain() {
    const ROUNDS: u64 = if cfg!(miri) { 20 } else { 500 };
    let gate = Gate::new();
    let round = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while round.load(Ordering::Relaxed) < ROUNDS {
                    if let Some(_inside) = gate.enter() {
                        let entered = round.load(Ordering::Relaxed);
                        thread::yield_now();
                        assert_eq!(
                            entered,
                            round.load(Ordering::Relaxed),
                            "the round changed under a caller"
                        );
                    }
                    thread::yield_now();
                }
            });
        }
        for _ in 0..ROUNDS {
            gate.close();
            block_on(gate.drained());
            round.fetch_add(1, Ordering::Relaxed);
            gate.reopen();
        }
    });
}
