//! What loom proves of `Snap`. Each test names a mutation that makes it fail.

use super::*;
use loom::sync::Arc;
use loom::thread;

/// Two fields that a reader must see together. The second cell is loom's, and the drop writes it, so that a look which
/// races with the writing or the freeing is reported.
struct Pair {
    number: u64,
    written: loom::cell::UnsafeCell<u64>,
}

#[expect(unsafe_code, reason = "shares loom's checked cell, which panics where real code would race")]
mod checked {
    use super::Pair;

    // SAFETY: loom reports a racing access instead of performing it.
    unsafe impl Send for Pair {}
    // SAFETY: as above.
    unsafe impl Sync for Pair {}

    impl Pair {
        pub(super) fn new(number: u64) -> Self {
            let pair = Self { number, written: loom::cell::UnsafeCell::new(0) };
            // SAFETY: nobody else has it yet.
            pair.written.with_mut(|written| unsafe { *written = number });
            pair
        }

        /// The number, once both fields agree.
        pub(super) fn whole(&self) -> u64 {
            // SAFETY: written before it was published.
            self.written.with(|written| unsafe { assert_eq!(*written, self.number) });
            self.number
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            // SAFETY: as above.
            self.written.with_mut(|written| unsafe { *written = u64::MAX });
            super::FREED.with(|freed| freed.set(freed.get() + 1));
        }
    }
}

// How many were freed in one test: all the threads of a model run on the test's own thread.
std::thread_local!(static FREED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });

/// Mutations: a relaxed load in `Pinned::load`; a relaxed swap in `Pinned::swap`.
#[test]
fn loom_a_snapshot_is_seen_whole() {
    loom::model(|| {
        let snap = Arc::new(Snap::new(Pair::new(0)));
        let writer = snap.clone();
        let writer = thread::spawn(move || writer.publish(1, Pair::new(1)).unwrap());
        let first = snap.read(Pair::whole);
        let second = snap.get().whole();
        assert!(first <= second, "a reader went back in time");
        writer.join().unwrap();
        assert_eq!(snap.read(Pair::whole), 1);
    });
}

/// The real epochs: what was replaced is freed while the snap lives, and not under a reader.
/// Mutations: a `retire` that frees at once; a `retire` that forgets.
#[cfg(crossbeam_loom)]
#[test]
fn loom_a_snapshot_is_freed_but_not_under_its_reader() {
    let freed_early = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = freed_early.clone();
    loom::model(move || {
        let snap = Arc::new(Snap::new(Pair::new(0)));
        let reader = snap.clone();
        let reader = thread::spawn(move || reader.read(Pair::whole));
        let before = FREED.with(std::cell::Cell::get);
        for number in 1..=3 {
            snap.publish(1, Pair::new(number)).unwrap();
        }
        counted.fetch_add(FREED.with(std::cell::Cell::get) - before, Ordering::Relaxed);
        assert!(reader.join().unwrap() <= 3);
    });
    assert_ne!(freed_early.load(Ordering::Relaxed), 0, "nothing was freed while the snap lived");
}

/// Three threads on the real epochs are too many executions.
/// Mutations: a publish without the check of the generation; a check outside of the lock.
#[cfg(not(crossbeam_loom))]
#[test]
fn loom_a_ghost_never_overwrites_its_successor() {
    loom::model(|| {
        let snap = Arc::new(Snap::new(Pair::new(0)));
        let ghost = snap.clone();
        let ghost = thread::spawn(move || ghost.publish(1, Pair::new(1)).is_ok());
        let reader = snap.clone();
        let reader = thread::spawn(move || {
            let first = reader.read(Pair::whole);
            assert!(first <= reader.read(Pair::whole), "the ghost wrote after its successor");
        });
        snap.publish(2, Pair::new(2)).unwrap();
        let ghost_wrote = ghost.join().unwrap();
        reader.join().unwrap();
        assert_eq!(snap.read(Pair::whole), 2);
        assert_eq!(snap.version(), if ghost_wrote { 2 } else { 1 });
    });
}

/// Mutations: a claim that does not raise the generation; a claim that looks before it raises, without the lock.
#[test]
fn loom_what_was_claimed_changes_only_by_the_claimer() {
    loom::model(|| {
        let snap = Arc::new(Snap::new(Pair::new(0)));
        let ghost = snap.clone();
        let ghost = thread::spawn(move || ghost.publish(1, Pair::new(1)).is_ok());
        let start = snap.claim(2).unwrap().whole();
        assert_eq!(snap.read(Pair::whole), start);
        assert_eq!(ghost.join().unwrap(), start == 1);
        assert_eq!(snap.read(Pair::whole), start);
    });
}

/// Mutations: a version raised before the snapshot is replaced; a relaxed version.
#[test]
fn loom_a_version_promises_its_snapshot() {
    loom::model(|| {
        let snap = Arc::new(Snap::new(Pair::new(0)));
        let writer = snap.clone();
        let writer = thread::spawn(move || writer.publish(1, Pair::new(1)).unwrap());
        let version = snap.version();
        assert!(version <= snap.read(Pair::whole));
        writer.join().unwrap();
    });
}
