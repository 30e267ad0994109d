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

    /// Hands `message` to all who listen to `topic` now, and says to how many; a store that does not know which of them are full, or gone a moment ago,
    /// counts those too. A listener that is full loses it, and is told so.
    fn publish<'a>(&'a self, topic: &'a str, message: Bytes) -> StoreFuture<'a, usize>;

    /// Listens to `topic` from now on, with room for `bound` messages, at least one.
    fn subscribe<'a>(&'a self, topic: &'a str, bound: usize) -> StoreFuture<'a, Box<dyn Subscription>>;

    /// Whether it does its work. Neither waits nor blocks.
    fn state(&self) -> CacheState {
        CacheState::Serving
    }
}

/// One listener to a topic. Dropping it ends it.
pub trait Subscription: fmt::Debug + Send {
    /// What comes next, in the order of publication; none when the store is gone. Dropping the future loses nothing.
    ///
    /// That something is missing comes in its place between the messages, so nobody overlooks it: whoever keeps something because no message told
    /// otherwise lets go of it then.
    fn next(&mut self) -> StoreFuture<'_, Option<Heard>>;
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(Bytes),
    /// Here messages are missing, or may be.
    Missed(Missed),
}

/// How many messages a listener did not hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// So many: there was no room for them.
    Counted(u64),
    /// Any number, none as well: for a while the store was not reached.
    Unknown,
}

impl Missed {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Counted(one), Self::Counted(other)) => Self::Counted(one.saturating_add(other)),
            _ => Self::Unknown,
        }
    }
}

/// How a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheState {
    /// It serves.
    Serving,
    /// It is not reached, and tried again by itself: calls fail at once.
    Down {
        /// Why.
        cause: String,
    },
}

/// Keeps nothing and hears nobody: what a kernel has when no cache is configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullCache;

#[derive(Debug)]
struct Silence;

impl Subscription for Silence {
    fn next(&mut self) -> StoreFuture<'_, Option<Heard>> {
        Box::pin(std::future::ready(Ok(None)))
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
