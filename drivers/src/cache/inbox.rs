//! What waits for one listener, within a bound. What had no room is told in its place.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use nexus_kernel::hal::{Heard, Missed, StoreFuture};
use parking_lot::Mutex;

/// How many bytes of messages may wait for one listener.
const BYTES_MAX: usize = 8 << 20;

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
    // Invariant: the lengths of the messages, together; never above `BYTES_MAX`.
    bytes: usize,
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
        let fits = message.len() <= BYTES_MAX - queue.bytes;
        let room = queue.messages < self.bound && fits && !queue.over;
        if room {
            queue.messages += 1;
            queue.bytes += message.len();
            queue.heard.push_back(Heard::Message(message));
        } else {
            queue.miss(Missed::Counted(1));
        }
        let waiting = queue.waiting.take();
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
        room
    }

    #[cfg(any(test, feature = "redis"))]
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
                if let Heard::Message(message) = &heard {
                    queue.messages -= 1;
                    queue.bytes -= message.len();
                }
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

#[cfg(test)]
mod tests {
    use nexus_actors::block_on;

    use super::*;

    #[test]
    fn neither_messages_nor_their_bytes_nor_gaps_pile_up() {
        let inbox = Inbox::new(3);
        let large = Bytes::from(vec![0; BYTES_MAX]);
        assert!(inbox.hear(large.clone()) && !inbox.hear(Bytes::from_static(b"1")));
        (0..100).for_each(|_| inbox.miss(Missed::Unknown));
        assert!(!inbox.hear(large.clone()));
        assert_eq!(inbox.queue.lock().heard.len(), 2);
        let next = || block_on(inbox.next()).expect("it does not fail");
        assert_eq!(next(), Some(Heard::Message(large)));
        assert_eq!(next(), Some(Heard::Missed(Missed::Unknown)));
        assert!(inbox.hear(Bytes::from_static(b"2")));
        inbox.end();
        assert_eq!(next(), Some(Heard::Message(Bytes::from_static(b"2"))));
        assert_eq!((next(), next()), (None, None));
    }
}
