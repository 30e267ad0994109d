//! Counters that many threads raise at once.
//!
//! A thread has a place of its own for as long as it lives, and in each counter a line at that place that no other thread writes to. So
//! raising it is a load and a store, and no atomic addition, which would cost as much as a tenth of a warm call. Threads that come when
//! all places are taken share one line, and add.

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

/// Threads with a place of their own, in all kernels of the process together.
const PLACES: usize = 63;

/// The place of all other threads.
const SHARED: usize = PLACES;

/// No place was looked for yet.
const NONE: usize = usize::MAX;

/// The places that threads have given back, and the first that was never given.
static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

/// Where the calling thread counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

/// Gives the place back when its thread ends.
struct Tenancy(usize);

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(NONE) };
    static TENANCY: Cell<Option<Tenancy>> = const { Cell::new(None) };
}

impl Place {
    /// The place of the calling thread.
    #[inline]
    pub(super) fn here() -> Self {
        PLACE.with(|place| match place.get() {
            NONE => Self::take(place),
            taken => Self(taken),
        })
    }

    #[cold]
    fn take(place: &Cell<usize>) -> Self {
        let mut free = FREE.lock();
        let (returned, next) = &mut *free;
        let mut taken = returned.pop().unwrap_or(*next);
        if taken == *next {
            *next = (*next + 1).min(SHARED);
        }
        drop(free);
        // A thread that is ending has nowhere to keep its tenancy any more: it must share.
        let kept = taken != SHARED && TENANCY.try_with(|tenancy| tenancy.set(Some(Tenancy(taken)))).is_ok();
        if !kept && taken != SHARED {
            drop(Tenancy(taken));
            taken = SHARED;
        }
        place.set(taken);
        Self(taken)
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        // What this thread still counts, in other destructors, it counts where all may.
        let _ = PLACE.try_with(|place| place.set(SHARED));
        // The lock orders what was stored here before what the next tenant stores.
        FREE.lock().0.push(self.0);
    }
}

/// A line for each place.
#[derive(Debug)]
pub(crate) struct Lines<T>(Box<[CachePadded<T>]>);

impl<T> Lines<T> {
    pub(crate) fn new(mut make: impl FnMut() -> T) -> Self {
        Self((0..=SHARED).map(|_| CachePadded::new(make())).collect())
    }

    /// Raises a number of the calling thread's line by one.
    #[inline]
    pub(crate) fn raise(&self, pick: impl FnOnce(&T) -> &AtomicU64) {
        let Place(place) = Place::here();
        let number = pick(&self.0[place]);
        // Statistics: nothing is ordered by them.
        if place == SHARED {
            number.fetch_add(1, Ordering::Relaxed);
        } else {
            // Nobody else writes here, so nothing is lost between the two.
            number.store(number.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Takes one off again that was raised here or in another line.
    #[inline]
    pub(crate) fn lower(&self, pick: impl FnOnce(&T) -> &AtomicU64) {
        let Place(place) = Place::here();
        let number = pick(&self.0[place]);
        // As when it is raised. One line may go below zero: all together do not.
        if place == SHARED {
            number.fetch_sub(1, Ordering::Relaxed);
        } else {
            number.store(number.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
        }
    }

    /// The numbers of all lines together. What is counted meanwhile may be in it or not.
    pub(crate) fn sum(&self, pick: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.0.iter().map(|line| pick(line).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Lines of what is raised by addition.
pub(super) const SHARDS: usize = 16;

/// The calling thread's line among [`SHARDS`]. It may have it together with others.
pub(super) fn shard() -> usize {
    Place::here().0 % SHARDS
}

/// A number that only grows, for what costs more than an atomic addition anyway.
#[derive(Debug)]
pub(crate) struct Counter([CachePadded<AtomicU64>; SHARDS]);

impl Default for Counter {
    fn default() -> Self {
        Self(array::from_fn(|_| CachePadded::default()))
    }
}

impl Counter {
    /// One more.
    #[inline]
    pub(crate) fn count(&self) {
        self.add(1);
    }

    /// So many more.
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        // Statistics: nothing is ordered by them.
        self.0[shard()].fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were. What is counted meanwhile may be in it or not.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|shard| shard.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the threads are a program's around the kernel")]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    const EACH: u64 = 1_000;

    /// Counts on `threads` threads that live at the same time.
    fn count_on(threads: usize, lines: &Arc<Lines<AtomicU64>>, counter: &Arc<Counter>) {
        let meet = Arc::new(Barrier::new(threads));
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let (lines, counter, meet) = (lines.clone(), counter.clone(), meet.clone());
                thread::spawn(move || {
                    meet.wait();
                    for _ in 0..EACH {
                        lines.raise(|number| number);
                        counter.count();
                    }
                    meet.wait();
                })
            })
            .collect();
        running.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn nothing_is_lost_between_threads_that_come_and_go() {
        let lines = Arc::new(Lines::new(AtomicU64::default));
        let counter = Arc::new(Counter::default());
        // More than there are places for, then others at the places of those that have ended.
        for threads in [PLACES + 9, 8, 8, PLACES + 9] {
            let before = lines.sum(|number| number);
            count_on(threads, &lines, &counter);
            assert_eq!(lines.sum(|number| number) - before, threads as u64 * EACH);
        }
        assert_eq!(counter.sum(), lines.sum(|number| number));
    }

    #[test]
    fn a_thread_that_is_ending_counts_where_all_may() {
        struct Late(Arc<Lines<AtomicU64>>);
        impl Drop for Late {
            fn drop(&mut self) {
                self.0.raise(|number| number);
            }
        }
        thread_local!(static LATE: Cell<Option<Late>> = const { Cell::new(None) });
        let lines = Arc::new(Lines::new(AtomicU64::default));
        for round in 0..2 {
            let mine = lines.clone();
            thread::spawn(move || {
                let late = Late(mine.clone());
                // Destructors run in the opposite order of the first use, or in no order at all: both are met.
                if round == 0 {
                    LATE.with(|kept| kept.set(Some(late)));
                    mine.raise(|number| number);
                } else {
                    mine.raise(|number| number);
                    LATE.with(|kept| kept.set(Some(late)));
                }
            })
            .join()
            .unwrap();
        }
        assert_eq!(lines.sum(|number| number), 4);
    }
}
