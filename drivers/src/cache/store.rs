//! The store.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_kernel::hal::{CacheStore, StoreError, StoreFuture, Subscription};
use parking_lot::Mutex;

use super::config::CacheConfig;
use super::entries::Entries;
use super::topics::Topics;

/// Tells the time that passes.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// An ephemeral store in memory, for one process. Bounded: what was put longest ago goes when there is no room.
pub struct MemoryCache {
    entries: Mutex<Entries>,
    topics: Arc<Topics>,
    clock: Clock,
    queue_max: usize,
}

impl MemoryCache {
    /// An empty one, for which time passes as `clock` says.
    pub fn new(config: &CacheConfig, clock: Clock) -> Self {
        Self {
            entries: Mutex::new(Entries::new(config.bytes_max)),
            topics: Arc::default(),
            clock,
            queue_max: config.queue_max,
        }
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("queue_max", &self.queue_max).finish_non_exhaustive()
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Ok::<_, StoreError>(value)))
}

impl CacheStore for MemoryCache {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        ready(self.entries.lock().get(key, (self.clock)()))
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        self.entries.lock().put(key, value, ttl, (self.clock)());
        ready(())
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, bool> {
        ready(self.entries.lock().delete(key, (self.clock)()))
    }

    fn publish<'a>(&'a self, topic: &'a str, message: Bytes) -> StoreFuture<'a, usize> {
        ready(self.topics.publish(topic, &message))
    }

    fn subscribe<'a>(&'a self, topic: &'a str, bound: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        let listening = self.topics.subscribe(topic, bound.clamp(1, self.queue_max.max(1)));
        ready(Box::new(listening) as Box<dyn Subscription>)
    }
}
