//! What loom proves of the gate. Each test names a mutation that makes it fail.

use super::*;
use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

/// Something that is torn down by a write; loom refuses a write that a read may run beside.
struct Guarded {
    gate: Gate,
    alive: UnsafeCell<bool>,
}

#[expect(unsafe_code, reason = "shares loom's checked cell, which panics where real code would race")]
mod checked {
    use super::Guarded;

    // SAFETY: loom reports a racing access instead of performing it.
    unsafe impl Sync for Guarded {}

    impl Guarded {
        pub(super) fn assert_alive(&self) {
            // SAFETY: as above.
            self.alive.with(|alive| unsafe { assert!(*alive, "used after the teardown") });
        }

        pub(super) fn tear_down(&self) {
            // SAFETY: as above.
            self.alive.with_mut(|alive| unsafe { *alive = false });
        }
    }
}

fn guarded() -> Arc<Guarded> {
    Arc::new(Guarded { gate: Gate::new(), alive: UnsafeCell::new(true) })
}

fn call(guarded: &Arc<Guarded>, shard: usize) -> thread::JoinHandle<()> {
    let guarded = guarded.clone();
    thread::spawn(move || {
        LOOM_SHARD.with(|own| own.set(shard));
        if let Some(_inside) = guarded.gate.enter() {
            guarded.assert_alive();
        }
    })
}

/// Mutations: no barrier between counting and looking (in `count_in`, or in `close`); looking before counting; a leave
/// that does not release.
#[test]
fn loom_nobody_is_inside_an_empty_shut_gate() {
    loom::model(|| {
        let guarded = guarded();
        let callers = [call(&guarded, 0), call(&guarded, 1)];
        guarded.gate.close();
        if guarded.gate.is_empty() {
            guarded.tear_down();
        }
        for caller in callers {
            caller.join().unwrap();
        }
    });
}

/// Mutations: no barrier in `leave` between counting and looking, or a leaver that does not wake (the drain then hangs);
/// a drainer that reads the event count after it looked at the shards; a drain that looks at the first shard only.
#[test]
fn loom_the_last_leaver_wakes_the_drainer() {
    loom::model(|| {
        let guarded = guarded();
        let caller = call(&guarded, 1);
        guarded.gate.close();
        block_on(guarded.gate.drained());
        guarded.tear_down();
        assert!(guarded.gate.enter().is_none());
        caller.join().unwrap();
    });
}
