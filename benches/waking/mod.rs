//! How long it takes to wake a thread that sleeps, beside a raw futex wake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::futex;

/// What a wake may cost of a raw one.
pub(crate) const RATIO_MAX: f64 = 1.5;

/// Wakes in one round.
const WAKES: usize = 200;

/// How long the one who is to be woken is left alone, so that it sleeps.
const ASLEEP_AFTER: Duration = Duration::from_micros(150);

pub(crate) fn median<T: Copy + Ord>(mut of: Vec<T>) -> T {
    of.sort_unstable();
    of[of.len() / 2]
}

/// How long it takes from before `wake` until the other thread is back from `sleep`, which tells when that was: a round of it. Between two wakes `again`
/// makes things as they were.
pub(crate) fn wakes(
    mut wake: impl FnMut(),
    mut sleep: impl FnMut() -> Instant + Send + 'static,
    mut again: impl FnMut(),
) -> impl FnMut() -> Vec<Duration> {
    move || {
        let (ready, go) = (AtomicBool::new(false), AtomicBool::new(true));
        let (told, awake) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let (ready_of_it, goes, sleep) = (&ready, &go, &mut sleep);
            scope.spawn(move || {
                for _ in 0..WAKES {
                    while !goes.swap(false, Ordering::Acquire) {
                        thread::yield_now();
                    }
                    ready_of_it.store(true, Ordering::Release);
                    if told.send(sleep()).is_err() {
                        return;
                    }
                }
            });
            let mut took = Vec::new();
            for _ in 0..WAKES {
                while !ready.swap(false, Ordering::Acquire) {
                    thread::yield_now();
                }
                thread::sleep(ASLEEP_AFTER);
                let began = Instant::now();
                wake();
                took.push(awake.recv().expect("it was woken").duration_since(began));
                again();
                go.store(true, Ordering::Release);
            }
            took
        })
    }
}

/// A raw futex wake.
pub(crate) fn raw() -> impl FnMut() -> Vec<Duration> {
    let word = Arc::new(AtomicU32::new(0));
    let private = futex::Flags::PRIVATE;
    let waits = word.clone();
    wakes(
        move || {
            word.store(1, Ordering::Release);
            assert_eq!(futex::wake(&word, private, 1).expect("it is one"), 1, "it slept");
        },
        move || {
            while waits.swap(0, Ordering::Acquire) == 0 {
                let _ = futex::wait(&waits, private, 0, None);
            }
            Instant::now()
        },
        || (),
    )
}
