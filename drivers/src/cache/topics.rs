//! Who listens to what.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use nexus_kernel::hal::{Heard, StoreFuture, Subscription};
use parking_lot::Mutex;

use super::inbox::Inbox;

/// The listeners of each topic. A topic is there as long as somebody listens.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Mutex<BTreeMap<String, Vec<Weak<Inbox>>>>,
}

impl Topics {
    /// Says how many took it.
    pub(super) fn publish(&self, topic: &str, message: &Bytes) -> usize {
        // The lock is held to the end, so that all listeners hear in the same order.
        let topics = self.topics.lock();
        let Some(listeners) = topics.get(topic) else { return 0 };
        listeners.iter().filter_map(Weak::upgrade).filter(|listener| listener.hear(message.clone())).count()
    }

    pub(super) fn subscribe(self: &Arc<Self>, topic: &str, bound: usize) -> Listening {
        let listener = Arc::new(Inbox::new(bound));
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

/// A subscription to a topic. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Listening {
    // Dropped by hand, before its topic is tidied up.
    listener: Arc<Inbox>,
    topics: Weak<Topics>,
    topic: String,
}

impl Subscription for Listening {
    fn next(&mut self) -> StoreFuture<'_, Option<Heard>> {
        self.listener.next()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.listener = Arc::new(Inbox::new(0));
        if let Some(topics) = self.topics.upgrade() {
            topics.forget_ended(&self.topic);
        }
    }
}
