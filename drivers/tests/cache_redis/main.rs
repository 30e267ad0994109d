//! The cache in a server that speaks the Redis protocol, against a real one.

mod conforms;
mod faults;
mod outages;
#[path = "../servers/redis.rs"]
mod redis;
mod secrets;
#[path = "../servers/mod.rs"]
#[allow(dead_code, reason = "each target uses some of it")]
mod servers;

use std::time::{Duration, Instant};

use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::cache::redis::{RedisCache, RedisConfig};
use nexus_kernel::hal::{CacheState, CacheStore as _};

/// How long anything may take here.
const WITHIN: Duration = Duration::from_secs(30);

/// How long the calls of these tests may take.
const CALL_WITHIN: Duration = Duration::from_millis(300);

/// The real world, which ends with the test.
struct World(Env);

impl World {
    fn new() -> Self {
        Self(Env::host(HostConfig::default()).expect("threads can be started"))
    }

    fn cache(&self, config: RedisConfig) -> RedisCache {
        RedisCache::start(&self.0, config)
    }

    /// Asks until there is something; in small steps, because a server cannot say when it is there.
    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let start = self.0.now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(self.0.now() - start < WITHIN, "{what}: not within {WITHIN:?}");
            block_on(self.0.sleep(Duration::from_millis(5)));
        }
    }

    fn until_it_serves(&self, cache: &RedisCache) {
        self.until("it serves", || (cache.state() == CacheState::Serving).then_some(()));
    }

    /// What it gives, and how long that took.
    fn timed<T>(&self, call: impl FnOnce() -> T) -> (T, Duration) {
        let start: Instant = self.0.now();
        let done = call();
        (done, self.0.now() - start)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The settings for a server on this port.
fn config(port: u16) -> RedisConfig {
    let mut config = RedisConfig::default().port(port);
    config.call_within = CALL_WITHIN;
    config.connect_within = CALL_WITHIN;
    config
}
