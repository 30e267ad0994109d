//! Drives a future on the calling thread, with no runtime.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

thread_local! {
    /// That of the thread, when no future is driven on it: whoever waits needs no memory then.
    static SPARE: Cell<Option<Arc<Parker>>> = const { Cell::new(None) };
}

impl Parker {
    /// One of this thread that nobody else waits with.
    fn take() -> Arc<Self> {
        // Without what belongs to the thread it is about to end.
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let parker = spare
            .unwrap_or_else(|| Arc::new(Self { thread: thread::current(), woken: AtomicBool::new(false) }));
        // Relaxed: only those are to be heard who are told of the waker from now on. Who was told of it before wakes nobody, or once for nothing.
        parker.woken.store(false, Ordering::Relaxed);
        parker
    }

    /// Keeps it for the next one who waits on this thread.
    fn keep(self: Arc<Self>) {
        let _ = SPARE.try_with(|spare| spare.set(Some(self)));
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: what the waking thread wrote is seen by the poll that follows.
        if !self.woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

/// Drives `future` to its end on the calling thread, which sleeps while there is nothing to do. Needs no runtime
/// and disturbs none. Blocks: call it from synchronous code, not from a task.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let parker = Parker::take();
    let waker = Waker::from(parker.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
            parker.keep();
            return out;
        }
        while !parker.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Mutex;

    use super::*;

    /// Is woken by itself, `times` often, and hands out its waker.
    async fn woken(times: usize, wakers: &Mutex<Vec<Waker>>) -> usize {
        let mut polls = 0;
        poll_fn(|cx| {
            wakers.lock().unwrap().push(cx.waker().clone());
            polls += 1;
            if polls > times {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        polls
    }

    #[test]
    fn whoever_is_driven_within_another_does_not_take_its_wakes() {
        let wakers = Mutex::new(Vec::new());
        let mut inner = None;
        let outer = poll_fn(|cx| {
            if inner.is_some() {
                return Poll::Ready(());
            }
            // Its wake comes before the inner one waits, and is still there behind it.
            cx.waker().wake_by_ref();
            inner = Some(block_on(woken(3, &wakers)));
            Poll::Pending
        });
        block_on(outer);
        assert_eq!(inner, Some(4));
    }

    #[test]
    fn a_waker_that_comes_late_wakes_the_next_one_for_nothing_at_most() {
        let wakers = Mutex::new(Vec::new());
        assert_eq!(block_on(woken(1, &wakers)), 2);
        let late: Vec<Waker> = wakers.lock().unwrap().drain(..).collect();
        late.into_iter().for_each(Waker::wake);
        assert_eq!(block_on(woken(2, &wakers)), 3);
    }
}
