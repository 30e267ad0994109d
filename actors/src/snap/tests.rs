//! `Snap` on real threads and real epochs; what may run concurrently is gone through in `loom_tests.rs`.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(u64),
    Claim(u64),
}
use Step::{Claim, Publish};

/// Runs `steps`; the value that a publish writes is its position, from 1. Refused are the positions in `refused`.
fn check(steps: &[Step], refused: &[usize], last: usize) {
    let snap = Snap::new(0);
    let mut versions = 0;
    for (position, step) in (1..).zip(steps) {
        let done = match *step {
            Publish(writer) => snap.publish(writer, position).inspect(|()| versions += 1),
            Claim(writer) => snap.claim(writer).map(|start| assert_eq!(*start, *snap.get())),
        };
        assert_eq!(done.is_err(), refused.contains(&position), "step {position} of {steps:?}: {done:?}");
    }
    assert_eq!(snap.read(|value| *value), last, "{steps:?}");
    assert_eq!(snap.version(), versions);
}

#[test]
fn a_writer_older_than_the_newest_is_refused() {
    check(&[], &[], 0);
    check(&[Publish(1), Publish(1), Publish(2)], &[], 3);
    check(&[Publish(2), Publish(1)], &[2], 1);
    check(&[Publish(5), Publish(4), Publish(5), Publish(1), Publish(6)], &[2, 4], 5);
    check(&[Publish(1), Claim(2), Publish(1)], &[3], 1); // Refused before its successor has published.
    check(&[Claim(3), Claim(2), Publish(3)], &[2], 3);
    check(&[Publish(0), Claim(0), Publish(0)], &[], 3);
}

#[test]
fn the_refusal_says_who_and_by_whom() {
    let snap = Snap::new("new");
    snap.publish(7, "newer").unwrap();
    let refused = snap.publish(3, "ghost").unwrap_err();
    assert_eq!(refused, Superseded { writer: 3, newest: 7 });
    assert_eq!(refused.to_string(), "generation 3 was superseded by generation 7");
}

#[test]
fn what_was_read_or_got_does_not_change_under_its_reader() {
    let snap = Snap::new(vec![1]);
    let kept = snap.get();
    snap.read(|seen| {
        snap.publish(1, vec![2]).unwrap();
        assert_eq!((seen.as_slice(), kept.as_slice()), (&[1][..], &[1][..]));
        snap.read(|newer| assert_eq!(newer, &[2]));
    });
    drop(snap);
    assert_eq!(*kept, [1]);
}

/// Counts the living.
struct Alive<'a>(&'a AtomicUsize);

impl<'a> Alive<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Alive(count)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn replaced_snapshots_are_freed_while_publishing_goes_on() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    let snap = Snap::new(Alive::new(&ALIVE));
    let mut published = 0;
    // Another test may be pinned at any moment, so *when* is not promised, but without freeing this never ends.
    while published < 100 || ALIVE.load(Ordering::SeqCst) > 10 {
        snap.publish(1, Alive::new(&ALIVE)).unwrap();
        published += 1;
        assert!(published < 1_000_000, "nothing is ever freed");
    }
}

/// A snapshot whose value publishes when it is dropped: no lock may be held where destructors run.
#[test]
fn a_destructor_may_publish() {
    struct Again(Arc<Snap<Option<Again>>>);
    impl Drop for Again {
        fn drop(&mut self) {
            self.0.publish(1, None).unwrap();
        }
    }
    let snap = Arc::new(Snap::new(None));
    snap.publish(1, Some(Again(snap.clone()))).unwrap();
    let mut published = snap.version();
    while snap.version() == published {
        snap.publish(1, None).unwrap();
        drop(snap.claim(1).unwrap());
        published += 1;
        assert!(published < 1_000_000, "no destructor ran");
    }
}

/// Writers of rising generations against readers: whole snapshots, never backwards, none of an overtaken writer.
#[test]
fn readers_see_whole_snapshots_in_order_while_writers_take_over() {
    const GENERATIONS: u64 = if cfg!(miri) { 5 } else { 50 };
    const EACH: u64 = if cfg!(miri) { 4 } else { 100 };
    let snap = Snap::new((0_u64, 0_u64, vec![0; 8]));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = (0, 0);
                while !done.load(Ordering::Relaxed) {
                    let seen = snap.read(|(writer, number, copies)| {
                        assert!(copies.iter().all(|copy| copy == number), "torn");
                        (*writer, *number)
                    });
                    assert!(seen >= last, "{seen:?} after {last:?}");
                    last = seen;
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let writer = snap.read(|(writer, ..)| *writer);
                if let Some(ghost) = writer.checked_sub(1) {
                    snap.publish(ghost, (ghost, u64::MAX, vec![u64::MAX; 8])).unwrap_err();
                }
            }
        });
        let mut number = 0;
        for writer in 1..=GENERATIONS {
            snap.claim(writer).unwrap();
            for _ in 0..EACH {
                number += 1;
                snap.publish(writer, (writer, number, vec![number; 8])).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(snap.read(|(writer, number, _)| (*writer, *number)), (GENERATIONS, GENERATIONS * EACH));
}
