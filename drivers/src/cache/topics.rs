//! Who listens to what.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use nexus_kernel::hal::{StoreFuture, Subscription};
use parking_lot::Mutex;

/// The listeners of each topic. A topic is there as long as somebody listens.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Mutex<BTreeMap<String, Vec<Weak<Listener>>>>,
}

/// One listener's queue.
#[derive(Debug)]
struct Listener {
    inbox: Mutex<Inbox>,
    bound: usize,
}

#[derive(Debug, Default)]
struct Inbox {
    // Invariant: never longer than the listener's bound.
    messages: VecDeque<Bytes>,
    lost: u64,
    over: bool,
    waiting: Option<Waker>,
}

impl Topics {
    /// Says how many took it.
    pub(super) fn publish(&self, topic: &str, message: &Bytes) -> usize {
        // The lock is held to the end, so that all listeners hear in the same order.
        let topics = self.topics.lock();
        let Some(listeners) = topics.get(topic) else { return 0 };
        listeners.iter().filter_map(Weak::upgrade).filter(|listener| listener.hear(message)).count()
    }

    pub(super) fn subscribe(self: &Arc<Self>, topic: &str, bound: usize) -> Listening {
        let listener = Arc::new(Listener { inbox: Mutex::default(), bound });
        self.topics.lock().entry(topic.into()).or_default().push(Arc::downgrade(&listener));
        Listening { listener, topics: Arc::downgrade(self), topic: topic.into() }
    }

    fn forget_ended(&self, topic: &str) {
        let mut topics = self.topics.lock();
        let Some(listeners) = topics.get_mut(topic) else { return };
        listeners.retain(|listener| listener.strong_count() > 0);
        if listeners.is_empty() {
            topics.remove(topic);
        }
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        for listener in self.topics.get_mut().values().flatten().filter_map(Weak::upgrade) {
            listener.end();
        }
    }
}

impl Listener {
    /// Whether there was room.
    fn hear(&self, message: &Bytes) -> bool {
        let mut inbox = self.inbox.lock();
        if inbox.messages.len() >= self.bound {
            inbox.lost += 1;
            return false;
        }
        inbox.messages.push_back(message.clone());
        let waiting = inbox.waiting.take();
        drop(inbox);
        waiting.into_iter().for_each(Waker::wake);
        true
    }

    fn end(&self) {
        let mut inbox = self.inbox.lock();
        inbox.over = true;
        let waiting = inbox.waiting.take();
        drop(inbox);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut inbox = self.inbox.lock();
        match inbox.messages.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if inbox.over => Poll::Ready(None),
            None => {
                inbox.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A subscription to a topic. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Listening {
    // Dropped by hand, before its topic is tidied up.
    listener: Arc<Listener>,
    topics: Weak<Topics>,
    topic: String,
}

impl Subscription for Listening {
    fn next(&mut self) -> StoreFuture<'_, Option<Bytes>> {
        // A message is taken only in the poll that returns it: a future that is dropped has taken none.
        Box::pin(std::future::poll_fn(|cx| self.listener.poll_next(cx).map(Ok)))
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.listener.inbox.lock().lost)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.listener = Arc::new(Listener { inbox: Mutex::default(), bound: 0 });
        if let Some(topics) = self.topics.upgrade() {
            topics.forget_ended(&self.topic);
        }
    }
}
