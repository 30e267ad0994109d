//! The cache that services are handed, from the setting.

use std::fmt;
use std::sync::Arc;

use nexus_actors::Env;
use nexus_drivers::cache::{CacheConfig, MemoryCache};
use nexus_kernel::hal::{CacheStore, StoreError};
use serde::Deserialize;

/// What the key `cache` says. There may be a password in it, so it is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct CacheSpec {
    said: String,
    /// Whether the environment is asked for a password.
    #[serde(skip)]
    loaded: bool,
}

/// A cache and its kind.
pub(crate) type Opened = (&'static str, Arc<dyn CacheStore>);

/// The beginnings of the URLs of servers that speak the Redis protocol.
const REDIS: [&str; 7] = ["redis:", "rediss:", "valkey:", "valkeys:", "redis+unix:", "valkey+unix:", "unix:"];

impl CacheSpec {
    pub(crate) fn new(spec: impl Into<String>) -> Self {
        Self { said: spec.into(), loaded: false }
    }

    /// It was loaded, from a place where one would rather not write the password.
    pub(crate) fn loaded(&mut self) {
        self.loaded = true;
    }

    /// None for one that keeps nothing. Does not wait for a server.
    pub(crate) fn open(&self, env: &Env) -> Result<Option<Opened>, StoreError> {
        match self.said.as_str() {
            "null" => Ok(None),
            "memory" => {
                let clock = env.clone();
                let cache = MemoryCache::new(&CacheConfig::default(), Arc::new(move || clock.now()));
                Ok(Some(("memory", Arc::new(cache))))
            }
            url if REDIS.iter().any(|scheme| url.starts_with(scheme)) => {
                redis(env, url, self.loaded).map(Some)
            }
            _ => Err(StoreError::BadOption { why: "it is to be null, memory, or a URL of a cache".into() }),
        }
    }
}

#[cfg(feature = "redis")]
fn redis(env: &Env, url: &str, loaded: bool) -> Result<Opened, StoreError> {
    use nexus_drivers::cache::redis::{RedisCache, RedisConfig};
    if env.is_simulated() {
        return Err(StoreError::NotSupported { what: "a cache in a server, in a simulation" });
    }
    let config = RedisConfig::from_url(url)?;
    let config = if loaded { config.password_from_environment() } else { config };
    Ok(("redis", Arc::new(RedisCache::start(env, config))))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &Env, _: &str, _: bool) -> Result<Opened, StoreError> {
    Err(StoreError::BadOption { why: "a cache in Redis is in builds with the feature redis".into() })
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self::new("null")
    }
}

impl fmt::Debug for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.said.as_str() {
            "null" => "null",
            "memory" => "memory",
            _ => "a URL",
        })
    }
}
