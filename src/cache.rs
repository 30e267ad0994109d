//! The cache that services are handed, from the setting.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nexus_actors::Env;
use nexus_drivers::cache::{CacheConfig, MemoryCache};
use nexus_kernel::hal::{CacheStore, StoreError};
use serde::Deserialize;

/// What the key `cache` says. There may be a password in it, so it is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Said")]
pub(crate) struct CacheSpec {
    said: Said,
    /// Whether the environment is asked for a password.
    loaded: bool,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Said {
    /// A kind, or a URL.
    Word(String),
    /// The options of a cache in a server that speaks the Redis protocol.
    Options(BTreeMap<String, Value>),
}

/// A value of an option, as one writes it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Flag(bool),
    Text(String),
}

impl From<Said> for CacheSpec {
    fn from(said: Said) -> Self {
        Self { said, loaded: false }
    }
}

impl From<Value> for String {
    fn from(value: Value) -> Self {
        match value {
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Text(text) => text,
        }
    }
}

/// A cache and its kind.
pub(crate) type Opened = (&'static str, Arc<dyn CacheStore>);

/// The beginnings of the URLs of servers that speak the Redis protocol.
const REDIS: [&str; 7] = ["redis:", "rediss:", "valkey:", "valkeys:", "redis+unix:", "valkey+unix:", "unix:"];

impl CacheSpec {
    pub(crate) fn new(spec: impl Into<String>) -> Self {
        Said::Word(spec.into()).into()
    }

    pub(crate) fn options(options: BTreeMap<String, String>) -> Self {
        Said::Options(options.into_iter().map(|(key, text)| (key, Value::Text(text))).collect()).into()
    }

    /// It was loaded, from a place where one would rather not write the password.
    pub(crate) fn loaded(&mut self) {
        self.loaded = true;
    }

    /// None for one that keeps nothing. Does not wait for a server.
    pub(crate) fn open(&self, env: &Env) -> Result<Option<Opened>, StoreError> {
        let said = match &self.said {
            Said::Word(said) => said.as_str(),
            Said::Options(options) => {
                let of = |(key, value): (&String, &Value)| (key.clone(), value.clone().into());
                return redis(env, &options.iter().map(of).collect(), self.loaded).map(Some);
            }
        };
        match said {
            "null" => Ok(None),
            "memory" => {
                let clock = env.clone();
                let cache = MemoryCache::new(&CacheConfig::default(), Arc::new(move || clock.now()));
                Ok(Some(("memory", Arc::new(cache))))
            }
            url if REDIS.iter().any(|scheme| url.starts_with(scheme)) => {
                redis(env, &BTreeMap::from([("url".into(), url.into())]), self.loaded).map(Some)
            }
            _ => Err(StoreError::BadOption {
                why: "it is to be null, memory, a URL of a cache, or the options of one".into(),
            }),
        }
    }
}

#[cfg(feature = "redis")]
fn redis(env: &Env, options: &BTreeMap<String, String>, loaded: bool) -> Result<Opened, StoreError> {
    use nexus_drivers::cache::redis::{RedisCache, RedisConfig};
    if env.is_simulated() {
        return Err(StoreError::NotSupported { what: "a cache in a server, in a simulation" });
    }
    let config = RedisConfig::from_options(options)?;
    let config = if loaded { config.password_from_environment() } else { config };
    Ok(("redis", Arc::new(RedisCache::start(env, config))))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &Env, _: &BTreeMap<String, String>, _: bool) -> Result<Opened, StoreError> {
    Err(StoreError::BadOption { why: "a cache in Redis is in builds with the feature redis".into() })
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self::new("null")
    }
}

impl fmt::Debug for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.said {
            Said::Word(word) if word == "null" => "null",
            Said::Word(word) if word == "memory" => "memory",
            Said::Word(_) => "a URL",
            Said::Options(_) => "options",
        })
    }
}
