//! Where one thread sleeps, and is woken by any.

use std::sync::atomic::Ordering;
use std::time::Duration;

/// Nobody sleeps, and nobody woke.
const EMPTY: u32 = 0;
/// Somebody woke, and the thread has not heard of it.
const WOKEN: u32 = 1;
/// The thread sleeps, or is about to.
const ASLEEP: u32 = 2;

/// A word at which a thread sleeps. It is [`EMPTY`] at first.
pub(super) trait Word {
    fn exchange(&self, old: u32, new: u32, order: Ordering) -> Result<u32, u32>;

    fn swap(&self, new: u32, order: Ordering) -> u32;

    /// Sleeps while the word is `expected`, for at most so long. May return early.
    fn sleep(&self, expected: u32, most: Option<Duration>);

    /// Wakes the thread that sleeps there.
    fn wake(&self);
}

/// A bed for one thread. Whoever wakes touches this one word, and the system only if the thread sleeps.
pub(super) struct Bed<W>(W);

impl<W: Word> Bed<W> {
    pub(super) fn new(word: W) -> Self {
        Self(word)
    }

    /// Wakes the thread, or keeps it from going to sleep once.
    pub(super) fn wake(&self) {
        // Release: what the waking thread wrote is seen by the one that was woken.
        if self.0.swap(WOKEN, Ordering::Release) == ASLEEP {
            self.0.wake();
        }
    }

    /// Sleeps until somebody wakes, for at most so long; at once awake when somebody woke before. Says whether somebody did: it may return early. Of the
    /// bed's own thread alone.
    pub(super) fn sleep(&self, most: Option<Duration>) -> bool {
        // Relaxed: nothing is read because of it.
        if self.0.exchange(EMPTY, ASLEEP, Ordering::Relaxed).is_ok() {
            self.0.sleep(ASLEEP, most);
        }
        self.is_woken()
    }

    /// Whether somebody woke since this was asked last.
    pub(super) fn is_woken(&self) -> bool {
        // Acquire: what they wrote who woke is seen, all of them: each wake is one change of the word.
        self.0.swap(EMPTY, Ordering::Acquire) == WOKEN
    }
}

#[cfg(all(test, nexus_loom))]
mod tests {
    use loom::sync::atomic::AtomicU32;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    #[derive(Default)]
    struct Modelled {
        word: AtomicU32,
        asleep: Mutex<()>,
        wakes: Condvar,
    }

    impl Word for Modelled {
        fn exchange(&self, old: u32, new: u32, order: Ordering) -> Result<u32, u32> {
            self.word.compare_exchange(old, new, order, order)
        }

        fn swap(&self, new: u32, order: Ordering) -> u32 {
            self.word.swap(new, order)
        }

        fn sleep(&self, expected: u32, _: Option<Duration>) {
            let asleep = self.asleep.lock().unwrap();
            // As a futex: the look and the sleep are one, to who wakes. It sees what the system orders, and no older value.
            if self.word.fetch_or(0, Ordering::Relaxed) == expected {
                drop(self.wakes.wait(asleep).unwrap());
            }
        }

        fn wake(&self) {
            drop(self.asleep.lock().unwrap());
            self.wakes.notify_one();
        }
    }

    /// Mutations: who wakes does not look whether the thread sleeps, or wakes before it says so; who sleeps does not say so; either order is relaxed.
    #[test]
    fn loom_each_wake_is_heard_with_what_was_written_before_it() {
        loom::model(|| {
            let bed = Arc::new((Bed::new(Modelled::default()), [AtomicU32::new(0), AtomicU32::new(0)]));
            let wakers: Vec<_> = (0..2)
                .map(|n| {
                    let bed = bed.clone();
                    thread::spawn(move || {
                        bed.1[n].store(1, Ordering::Relaxed);
                        bed.0.wake();
                    })
                })
                .collect();
            while bed.1.iter().any(|written| written.load(Ordering::Relaxed) == 0) {
                bed.0.sleep(None);
            }
            for waker in wakers {
                waker.join().unwrap();
            }
        });
    }
}
