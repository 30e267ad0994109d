//! Waiting until something changed, without a runtime: an event count (Reed and Kanodia, 1979).
//!
//! Read the count, look at the condition, then wait for the count to pass what was read: a change between the look and
//! the wait is never missed. Polled from any executor; a plain mutex inside, held for a few instructions.

use crate::sync::{Mutex, lock};
use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Counts changes and wakes who waits for the next one.
#[derive(Debug)]
pub(crate) struct EventCount {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    count: u64,
    next_key: u64,
    /// Invariant: one entry for each living [`Past`] that was polled at this count, oldest first, so that waiters are
    /// woken in the order in which they came. Its size is bounded by the futures that the callers themselves hold.
    waiting: BTreeMap<u64, Waker>,
}

impl EventCount {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { count: 0, next_key: 0, waiting: BTreeMap::new() }) }
    }

    /// The number of changes so far.
    pub(crate) fn read(&self) -> u64 {
        lock(&self.state).count
    }

    /// Counts one change and wakes all waiters. Returns how many there were.
    pub(crate) fn advance(&self) -> usize {
        let woken = {
            let mut state = lock(&self.state);
            state.count += 1;
            mem::take(&mut state.waiting)
        };
        let number = woken.len();
        woken.into_values().for_each(Waker::wake); // Without the lock: a waker may run anything.
        number
    }

    /// Waits until the count is past `seen`. Dropping the future leaves nothing behind.
    pub(crate) fn past(&self, seen: u64) -> Past<'_> {
        Past { event: self, seen, key: None }
    }
}

/// The future of [`EventCount::past`].
#[derive(Debug)]
pub(crate) struct Past<'a> {
    event: &'a EventCount,
    seen: u64,
    key: Option<u64>,
}

impl Future for Past<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let replaced;
        let mut state = lock(&self.event.state);
        if state.count != self.seen {
            drop(state);
            self.key = None; // Taken out by whoever advanced.
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            state.next_key += 1;
            state.next_key
        });
        replaced = state.waiting.insert(key, waker);
        drop(state);
        drop(replaced); // Without the lock: dropping a waker may drop a whole task.
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Past<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = lock(&self.event.state).waiting.remove(&key);
            drop(waker);
        }
    }
}

#[cfg(all(test, not(nexus_loom)))]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Wake;

    /// Remembers the order in which the wakers of one test were woken.
    struct Noted(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Noted {
        fn wake(self: Arc<Self>) {
            lock(&self.1).push(self.0);
        }
    }

    #[test]
    fn waiters_are_woken_in_the_order_in_which_they_came() {
        let event = EventCount::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waits: Vec<_> = (0..5).map(|_| Box::pin(event.past(0))).collect();
        for (number, wait) in waits.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Noted(number, order.clone())));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        waits.remove(2);
        assert_eq!(event.advance(), 4);
        assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4]);
    }

    #[test]
    fn a_dropped_or_repolled_wait_leaves_one_entry_or_none() {
        let event = EventCount::new();
        let mut cx = Context::from_waker(Waker::noop());
        {
            let mut wait = pin!(event.past(0));
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert_eq!(lock(&event.state).waiting.len(), 1);
        }
        assert_eq!(lock(&event.state).waiting.len(), 0);
        assert_eq!(event.advance(), 0);
        assert!(pin!(event.past(0)).poll(&mut cx).is_ready());
    }
}

#[cfg(all(test, nexus_loom))]
mod loom_tests {
    use super::*;
    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering};
    use loom::thread;

    /// Mutation it catches: a poll that does not compare the count (the test then hangs, which loom reports).
    #[test]
    fn loom_a_change_between_the_look_and_the_wait_is_not_missed() {
        loom::model(|| {
            let shared = Arc::new((EventCount::new(), AtomicBool::new(false)));
            let changer = shared.clone();
            let changer = thread::spawn(move || {
                changer.1.store(true, Ordering::Relaxed);
                changer.0.advance();
            });
            block_on(async {
                loop {
                    let seen = shared.0.read();
                    if shared.1.load(Ordering::Relaxed) {
                        break;
                    }
                    shared.0.past(seen).await;
                }
            });
            changer.join().unwrap();
        });
    }
}
