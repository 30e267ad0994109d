//! Drives a future on the thread of a test, which parks meanwhile: the parts here need no runtime, and their tests neither.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(nexus_loom)]
use loom::thread::{self, Thread};
#[cfg(not(nexus_loom))]
use std::thread::{self, Thread};

struct Unpark {
    thread: Thread,
    /// A late wake must not disturb what the thread waits for next: loom's `unpark` ends any waiting.
    over: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        if !self.over.load(Ordering::Relaxed) {
            self.thread.unpark();
        }
    }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let unpark = Arc::new(Unpark { thread: thread::current(), over: AtomicBool::new(false) });
    let waker = Waker::from(unpark.clone());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            unpark.over.store(true, Ordering::Relaxed);
            return done;
        }
        thread::park();
    }
}

/// One poll, as far as the future gets by itself.
pub(crate) fn poll_once<T>(work: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Poll<T> {
    work.poll(&mut Context::from_waker(Waker::noop()))
}
