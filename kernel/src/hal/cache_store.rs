//! What may be lost: ephemeral keys, and messages to whoever listens.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::StoreFuture;

/// Ephemeral keys with a time to live, and topics. Anything in it may vanish at any time; nothing may depend on its being there.
///
/// A driver is done when `hal::conformance::cache_store` passes.
pub trait CacheStore: fmt::Debug + Send + Sync + 'static {
    /// The value at `key`; none when there is none, or its time is over, or the store dropped it. Repeat: safe.
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Bytes>>;

    /// Keeps `value` at `key`, for `ttl` at most; none for as long as there is room. Repeat: safe.
    fn put<'a>(&'a self, key: &'a str, value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()>;

    /// Forgets `key`; says whether there was a value. Repeat: safe.
    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, bool>;

    /// Hands `message` to all who listen to `topic` now, and says to how many. A listener that is full loses it, and is told so.
    fn publish<'a>(&'a self, topic: &'a str, message: Bytes) -> StoreFuture<'a, usize>;

    /// Listens to `topic` from now on, with room for `bound` messages.
    fn subscribe<'a>(&'a self, topic: &'a str, bound: usize) -> StoreFuture<'a, Box<dyn Subscription>>;
}

/// One listener to a topic. Dropping it ends it.
pub trait Subscription: fmt::Debug + Send {
    /// The next message, in the order of publication; none when the store is gone. Dropping the future loses no message.
    fn next(&mut self) -> StoreFuture<'_, Option<Bytes>>;

    /// How many messages were lost since the last time this was asked, because the listener was full.
    fn take_lost(&mut self) -> u64;
}

/// Keeps nothing and hears nobody: what a kernel has when no cache is configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullCache;

#[derive(Debug)]
struct Silence;

impl Subscription for Silence {
    fn next(&mut self) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn take_lost(&mut self) -> u64 {
        0
    }
}

impl CacheStore for NullCache {
    fn get<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn put<'a>(&'a self, _: &'a str, _: Bytes, _: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, bool> {
        Box::pin(std::future::ready(Ok(false)))
    }

    fn publish<'a>(&'a self, _: &'a str, _: Bytes) -> StoreFuture<'a, usize> {
        Box::pin(std::future::ready(Ok(0)))
    }

    fn subscribe<'a>(&'a self, _: &'a str, _: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        Box::pin(std::future::ready(Ok(Box::new(Silence) as Box<dyn Subscription>)))
    }
}
