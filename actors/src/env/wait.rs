//! Drives a future on the calling thread, with no runtime.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use super::parker::Driving;

/// Drives `future` to its end on the calling thread, which sleeps while there is nothing to do. Needs no runtime
/// and disturbs none. Blocks: call it from synchronous code, not from a task.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let driving = Driving::begin();
    let waker = driving.waker();
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
            return out;
        }
        driving.sleep();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Mutex;
    use std::task::Waker;

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
