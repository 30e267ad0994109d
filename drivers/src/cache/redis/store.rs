//! The store.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use nexus_actors::Env;
use nexus_kernel::hal::{CacheState, CacheStore, StoreError, StoreFuture, Subscription};
use redis::Cmd;
use tokio::sync::Semaphore;

use super::config::RedisConfig;
use super::link::Link;
use super::listening::{Listening, SUBSCRIBE};

/// Longer than this is for ever: servers refuse times that they cannot count.
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// How many arguments a command has at most, its verb included, and how long two numbers and a word are together.
const ARGUMENTS: usize = 5;
const NUMBERS: usize = 24;

/// What stands in front of values that begin with it, and alone for the empty one. So no value is empty at the server, where a part of one that is not there is.
const ESCAPE: u8 = 0;

/// The value as the server has it.
fn escaped(value: &[u8]) -> Cow<'_, [u8]> {
    match value.first() {
        None | Some(&ESCAPE) => Cow::Owned([&[ESCAPE], value].concat()),
        Some(_) => Cow::Borrowed(value),
    }
}

/// The value of what the server has; none when that is nothing, or more than `max` bytes.
fn unescaped(mut found: Bytes, max: usize) -> Option<Bytes> {
    if found.first()? == &ESCAPE {
        found.advance(1);
    }
    (found.len() <= max).then_some(found)
}

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

    /// The command `verb` about what has this name, with room for arguments of so many bytes.
    fn about(&self, verb: &str, name: &str, more: usize) -> Cmd {
        let mut command =
            Cmd::with_capacity(ARGUMENTS, verb.len() + self.link.config.prefix.len() + name.len() + more);
        command.arg(verb).arg(self.name(name));
        command
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
            let max = self.link.config.value_bytes_max.saturating_sub(key.len());
            // Others may have put more there than is held here: one byte too many says so, beside the one in front.
            let mut command = self.about("GETRANGE", key, NUMBERS);
            command.arg(0).arg(i64::try_from(max).unwrap_or(i64::MAX).saturating_add(1));
            let found = self.link.call("getting a value", false, &command).await?;
            Ok(unescaped(found, max))
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let too_large = key.len().saturating_add(value.len()) > self.link.config.value_bytes_max;
            // What cannot be kept still replaces what was there, and so does what has no time.
            if too_large || ttl.is_some_and(|ttl| ttl.is_zero()) {
                return self.delete(key).await.map(drop);
            }
            let mut command = self.about("SET", key, value.len() + NUMBERS);
            command.arg(&*escaped(&value));
            if let Some(ttl) = ttl.filter(|ttl| *ttl < TTL_MAX) {
                command.arg("PX").arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
            }
            self.link.call("putting a value", true, &command).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let command = self.about("DEL", key, 0);
            self.link.call("deleting a value", true, &command).await
        })
    }

    fn publish<'a>(&'a self, topic: &'a str, message: Bytes) -> StoreFuture<'a, usize> {
        Box::pin(async move {
            let mut command = self.about("PUBLISH", topic, message.len());
            command.arg(&message[..]);
            self.link.call("publishing", true, &command).await
        })
    }

    fn subscribe<'a>(&'a self, topic: &'a str, bound: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        Box::pin(async move {
            if let Some(Err(down)) = self.link.known(SUBSCRIBE) {
                return Err(down);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_and_none_is_nothing() {
        for value in [&b""[..], b"a", b"\0", b"\0a", b"\0\0", b"a\0"] {
            let kept = escaped(value);
            assert!(!kept.is_empty());
            assert_eq!(unescaped(Bytes::copy_from_slice(&kept), 2).as_deref(), Some(value));
        }
        assert_eq!(unescaped(Bytes::new(), 2), None);
        assert_eq!(unescaped(Bytes::from_static(b"abc"), 2), None);
        assert_eq!(unescaped(Bytes::from_static(b"\0abc"), 2), None);
    }
}
