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
