//! The store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_kernel::hal::{CacheState, CacheStore, StoreError, StoreFuture, Subscription};
use redis::cmd;
use tokio::sync::Semaphore;

use super::config::RedisConfig;
use super::link::Link;
use super::listening::Listening;

/// Longer than this is for ever: servers refuse times that they cannot count.
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// A cache in a server that speaks the Redis protocol. Every call ends by its deadline, whatever the server does; none waits for the server when it is known to be
/// out of reach. Dropping it ends its connections and its listeners.
///
/// Of a failed call: [`StoreError::Unavailable`] when the server is not reached, [`StoreError::Io`] with the kind `EACCES` when it refuses the login or the call,
/// [`StoreError::TimedOut`] at the deadline, [`StoreError::Unknown`] when the connection broke under a change, [`StoreError::Full`], and [`StoreError::Backend`] for what else the server says.
pub struct RedisCache {
    link: Arc<Link>,
    listeners: Arc<Semaphore>,
}

impl RedisCache {
    /// Connects in the background, on the I/O runtime of `env`, which is no simulation. Neither waits nor fails.
    pub fn start(env: &Env, config: RedisConfig) -> Self {
        let listeners = Arc::new(Semaphore::new(config.listeners_max.min(Semaphore::MAX_PERMITS)));
        Self { link: Link::start(env, config), listeners }
    }

    fn name(&self, name: &str) -> String {
        [self.link.config.prefix.as_str(), name].concat()
    }
}

impl Drop for RedisCache {
    fn drop(&mut self) {
        self.link.closed.set(());
    }
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache").field("config", &self.link.config).finish_non_exhaustive()
    }
}

impl CacheStore for RedisCache {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            let mut command = cmd("GET");
            command.arg(self.name(key));
            self.link.call("getting a value", false, &command).await
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let too_large = key.len().saturating_add(value.len()) > self.link.config.value_bytes_max;
            // What cannot be kept still replaces what was there, and so does what has no time.
            if too_large || ttl.is_some_and(|ttl| ttl.is_zero()) {
                return self.delete(key).await.map(drop);
            }
            let mut command = cmd("SET");
            command.arg(self.name(key)).arg(&value[..]);
            if let Some(ttl) = ttl.filter(|ttl| *ttl < TTL_MAX) {
                command.arg("PX").arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
            }
            self.link.call("putting a value", true, &command).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut command = cmd("DEL");
            command.arg(self.name(key));
            self.link.call("deleting a value", true, &command).await
        })
    }

    fn publish<'a>(&'a self, topic: &'a str, message: Bytes) -> StoreFuture<'a, usize> {
        Box::pin(async move {
            let mut command = cmd("PUBLISH");
            command.arg(self.name(topic)).arg(&message[..]);
            self.link.call("publishing", true, &command).await
        })
    }

    fn subscribe<'a>(&'a self, topic: &'a str, bound: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        Box::pin(async move {
            let place = self.listeners.clone().try_acquire_owned().map_err(|_| StoreError::Full)?;
            let bound = bound.clamp(1, self.link.config.queue_max.max(1));
            let listening = Listening::start(&self.link, self.name(topic), bound, place).await?;
            Ok(Box::new(listening) as Box<dyn Subscription>)
        })
    }

    fn state(&self) -> CacheState {
        self.link.state()
    }
}
