//! What waits for one listener, within a bound. What had no room is told in its place.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use nexus_kernel::hal::{Heard, Missed, StoreFuture};
use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    bound: usize,
}

#[derive(Debug, Default)]
struct Queue {
    // Invariant: no two gaps side by side, and at most `bound` messages: so never longer than twice the bound and one.
    heard: VecDeque<Heard>,
    messages: usize,
    over: bool,
    waiting: Option<Waker>,
}

impl Inbox {
    pub(super) fn new(bound: usize) -> Self {
        Self { queue: Mutex::default(), bound }
    }

    /// Whether there was room.
    pub(super) fn hear(&self, message: Bytes) -> bool {
        let mut queue = self.queue.lock();
        let room = queue.messages < self.bound && !queue.over;
        if room {
            queue.messages += 1;
            queue.heard.push_back(Heard::Message(message));
        } else {
            queue.miss(Missed::Counted(1));
        }
        let waiting = queue.waiting.take();
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
        room
    }

    pub(super) fn miss(&self, missed: Missed) {
        let mut queue = self.queue.lock();
        queue.miss(missed);
        let waiting = queue.waiting.take();
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        let mut queue = self.queue.lock();
        queue.over = true;
        let waiting = queue.waiting.take();
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// It is taken only in the poll that returns it: a future that is dropped has taken nothing.
    pub(super) fn next(&self) -> StoreFuture<'_, Option<Heard>> {
        Box::pin(std::future::poll_fn(|cx| self.poll_next(cx).map(Ok)))
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        let mut queue = self.queue.lock();
        match queue.heard.pop_front() {
            Some(heard) => {
                queue.messages -= usize::from(matches!(heard, Heard::Message(_)));
                Poll::Ready(Some(heard))
            }
            None if queue.over => Poll::Ready(None),
            None => {
                queue.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Queue {
    fn miss(&mut self, missed: Missed) {
        match self.heard.back_mut() {
            Some(Heard::Missed(before)) => *before = before.and(missed),
            _ => self.heard.push_back(Heard::Missed(missed)),
        }
    }
}
