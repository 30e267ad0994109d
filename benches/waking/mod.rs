//! How long it takes to wake a thread that sleeps, beside a raw futex wake in the same run: by one pair of who wakes and who sleeps, and by more at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::futex;

/// What a wake may cost of a raw one.
const RATIO_MAX: f64 = 1.5;

/// Wakes in one round.
const WAKES: usize = 200;

/// Pairs at once, and the most of them.
const PAIRS: [usize; 3] = [1, 2, 4];
const PAIRS_MAX: usize = PAIRS[PAIRS.len() - 1];

/// Rounds of one pair. When there are more at once, as many wakes are had in fewer.
const ROUNDS: usize = 12;
const _: () = assert!(ROUNDS.is_multiple_of(PAIRS_MAX));

/// How long the one who is to be woken is left alone, so that it sleeps.
const ASLEEP_AFTER: Duration = Duration::from_micros(150);

pub(crate) fn median<T: Copy + Ord>(mut of: Vec<T>) -> T {
    of.sort_unstable();
    of[of.len() / 2]
}

/// A round of wakes by one pair: what each of them took.
pub(crate) type Round = Box<dyn FnMut() -> Vec<Duration> + Send>;

/// One way to wake.
pub(crate) struct Way {
    what: &'static str,
    asked: bool,
    pairs: Vec<Round>,
}

impl Way {
    /// One that may cost [`RATIO_MAX`] raw wakes. What `pair` is given is the number of a pair, which shares nothing with the others.
    pub(crate) fn asked(what: &'static str, pair: impl FnMut(usize) -> Round) -> Self {
        Self { what, asked: true, pairs: (0..PAIRS_MAX).map(pair).collect() }
    }

    /// One of which nothing is asked.
    pub(crate) fn shown(what: &'static str, pair: impl FnMut(usize) -> Round) -> Self {
        Self { asked: false, ..Self::asked(what, pair) }
    }

    /// What all wakes take of a round of so many pairs at once.
    fn round(&mut self, pairs: usize) -> Vec<Duration> {
        thread::scope(|scope| {
            let running: Vec<_> = self.pairs[..pairs].iter_mut().map(|pair| scope.spawn(pair)).collect();
            running.into_iter().flat_map(|pair| pair.join().expect("it ends")).collect()
        })
    }
}

/// Takes the ways by turns, with a raw wake as the first of them, and tells what they take.
pub(crate) fn compare(mut ways: Vec<Way>) {
    let awake = Arc::new(AtomicUsize::new(0));
    ways.insert(0, Way::shown("raw futex", |_| raw(&awake)));
    for pairs in PAIRS {
        awake.store(0, Ordering::Relaxed);
        let mut took = vec![Vec::new(); ways.len()];
        for _ in 0..ROUNDS / pairs {
            for (way, took) in ways.iter_mut().zip(&mut took) {
                took.extend(way.round(pairs));
            }
        }
        let count = took[0].len();
        if pairs == 1 {
            println!(
                "median of {count} wakes of a thread that sleeps, from before the wake until it is back:"
            );
        } else {
            println!("  the same by {pairs} pairs at once");
        }
        let awake = awake.load(Ordering::Relaxed);
        let medians: Vec<Duration> = took.into_iter().map(median).collect();
        for (way, took) in ways.iter().zip(&medians) {
            let ratio = took.as_secs_f64() / medians[0].as_secs_f64();
            let beside = match way.asked {
                _ if way.what == ways[0].what && awake == 0 => String::new(),
                _ if way.what == ways[0].what => format!("  {awake} did not sleep yet"),
                true if pairs == 1 => {
                    let verdict = if ratio <= RATIO_MAX { "kept" } else { "OVER" };
                    format!("  {ratio:.2} times that, asked {RATIO_MAX}: {verdict}")
                }
                _ => format!("  {ratio:.2} times that"),
            };
            println!("    {:<40} {took:>10.2?}{beside}", way.what);
        }
    }
}

/// How long it takes from before `wake` until the other thread is back from `sleep`, which tells when that was. Between two wakes `again` makes things as they were.
pub(crate) fn wakes(
    mut wake: impl FnMut() + Send + 'static,
    mut sleep: impl FnMut() -> Instant + Send + 'static,
    mut again: impl FnMut() + Send + 'static,
) -> Round {
    Box::new(move || {
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
    })
}

/// A raw futex wake. Counts those that came before the other one slept: another program had its core.
fn raw(awake: &Arc<AtomicUsize>) -> Round {
    let (word, awake) = (Arc::new(AtomicU32::new(0)), awake.clone());
    let private = futex::Flags::PRIVATE;
    let waits = word.clone();
    wakes(
        move || {
            word.store(1, Ordering::Release);
            let woken = futex::wake(&word, private, 1).expect("it is one");
            awake.fetch_add(1 - woken, Ordering::Relaxed);
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
