//! The cache that the kernel hands to its services: whatever [`CacheStore`] is configured, held so that nothing can depend on it.
//!
//! No method fails, and none takes longer than [`ANSWER_MAX`]: a store that is gone, slow or broken is one that has nothing. One that was late [`LATE_MAX`] times in a
//! row is not asked for [`LEFT_ALONE`], after which one call tries it again.
//!
//! What it gives may be old: a `put` or `delete` may not have reached it, and another kernel may have put something since. So whoever keeps what is made of something
//! else files it under the identity of what it is made of, such as the hash of a file's content: what is there is then right, however long ago it was put.

mod bypass;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::bypass::Bypass;
use crate::hal::{CacheState, CacheStore, NullCache, StoreError, StoreFuture, Subscription};
use crate::kernel::Kernel;
use crate::metrics::{Bucket, DURATIONS, Histogram};

pub use self::bypass::{LATE_MAX, LEFT_ALONE};

/// How long a look into the cache may take: what is slower than this helps nobody.
pub const ANSWER_MAX: Duration = Duration::from_millis(100);

/// How long subscribing may take: it may have to connect.
pub const SUBSCRIBE_MAX: Duration = Duration::from_secs(2);

/// The kernel's cache.
#[derive(Debug)]
pub(crate) struct KernelCache {
    env: Env,
    store: OnceLock<(Box<str>, Arc<dyn CacheStore>)>,
    bypass: Mutex<Bypass>,
    hits: AtomicU64,
    misses: AtomicU64,
    changes: AtomicU64,
    errors: AtomicU64,
    late: AtomicU64,
    bypassed: AtomicU64,
    took: Took,
}

struct Took(Histogram<{ DURATIONS.len() }>);

impl fmt::Debug for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Took")
    }
}

/// The cache, as `/__sys__/store/cache` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceCacheEntry {
    /// Its kind: `null`, `memory`, or what it is configured to be.
    pub kind: String,
    /// Why it does not serve; none when it does.
    pub down: Option<String>,
    /// Looks that found something.
    pub hits: u64,
    /// Looks that found nothing, and had an answer.
    pub misses: u64,
    /// Changes and messages that it took.
    pub changes: u64,
    /// Calls in which it failed; late ones are not among them.
    pub errors: u64,
    /// Calls that were given up because they were late.
    pub late: u64,
    /// Calls that were not made because it was late too often.
    pub bypassed: u64,
    /// How long the calls took that had an answer, in nanoseconds, all together.
    pub took_ns: u64,
    /// Such calls by how long they took.
    pub latency: Vec<Bucket>,
}

impl KernelCache {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            store: OnceLock::new(),
            bypass: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            late: AtomicU64::new(0),
            bypassed: AtomicU64::new(0),
            took: Took(Histogram::new(&DURATIONS)),
        }
    }

    fn store(&self) -> &dyn CacheStore {
        self.store.get().map_or(&NullCache, |(_, store)| &**store)
    }

    /// Makes a call, within its time; none when there is no answer.
    async fn ask<'f, T>(&self, limit: Duration, call: impl FnOnce() -> StoreFuture<'f, T>) -> Option<T> {
        if !self.bypass.lock().may_ask(self.env.now()) {
            self.bypassed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let start = self.env.now();
        let answered = self.env.timeout(limit, call()).await;
        let now = self.env.now();
        self.bypass.lock().answered(answered.is_ok(), now);
        match answered {
            Ok(answer) => {
                let took = now.saturating_duration_since(start);
                self.took.0.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                answer.inspect_err(|error| self.failed(error)).ok()
            }
            Err(_) => {
                self.late.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn failed(&self, error: &StoreError) {
        tracing::debug!(%error, "the cache failed");
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn entry(&self) -> ServiceCacheEntry {
        let took = self.took.0.measured();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let down = match self.store().state() {
            CacheState::Down { cause } => Some(cause),
            CacheState::Serving => {
                let left_alone = self.bypass.lock().is_left_alone(self.env.now());
                left_alone.then(|| format!("it was late {LATE_MAX} times in a row"))
            }
        };
        ServiceCacheEntry {
            kind: self.store.get().map_or("null", |(kind, _)| &**kind).into(),
            down,
            hits: count(&self.hits),
            misses: count(&self.misses),
            changes: count(&self.changes),
            errors: count(&self.errors),
            late: count(&self.late),
            bypassed: count(&self.bypassed),
            took_ns: took.sum,
            latency: took.buckets,
        }
    }
}

impl Kernel {
    /// Gives the kernel its cache, which is shown under `kind`. To be called once, before the tree runs; a kernel without it has one that keeps nothing.
    pub fn set_cache(&self, kind: &str, store: Arc<dyn CacheStore>) {
        let set = self.kernel_cache().store.set((kind.into(), store));
        debug_assert!(set.is_ok(), "a kernel gets its cache once");
    }
}

/// The kernel's cache as one service has it: its keys and topics are its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    /// None for one that keeps nothing.
    cache: Option<Arc<KernelCache>>,
    prefix: Arc<str>,
}

impl Cache {
    pub(crate) fn new(cache: Option<Arc<KernelCache>>, owner: &str) -> Self {
        Self { cache, prefix: format!("{owner}/").into() }
    }

    fn name(&self, name: &str) -> String {
        [&*self.prefix, name].concat()
    }

    /// The value at `key`, or an older one; none when there is none, or no answer in time.
    pub async fn get(&self, key: &str) -> Option<Bytes> {
        let (cache, key) = (self.cache.as_ref()?, self.name(key));
        let answer = cache.ask(ANSWER_MAX, || cache.store().get(&key)).await?;
        let counter = if answer.is_some() { &cache.hits } else { &cache.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Keeps `value` at `key`, for `ttl` at most, if it can. Says whether the store took it; when it did not, an older value may still be there.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>, ttl: Option<Duration>) -> bool {
        let Some(cache) = &self.cache else { return false };
        let (key, value) = (self.name(key), value.into());
        self.changed(cache.ask(ANSWER_MAX, || cache.store().put(&key, value, ttl)).await.is_some())
    }

    /// Forgets `key`, if it can. Says whether the store did so; when it did not, a value may still be there.
    pub async fn delete(&self, key: &str) -> bool {
        let Some(cache) = &self.cache else { return false };
        let key = self.name(key);
        self.changed(cache.ask(ANSWER_MAX, || cache.store().delete(&key)).await.is_some())
    }

    /// Hands `message` to all who listen to `topic`; says to how many the store did, which is nobody when there is no answer in time.
    pub async fn publish(&self, topic: &str, message: impl Into<Bytes>) -> usize {
        let Some(cache) = &self.cache else { return 0 };
        let (topic, message) = (self.name(topic), message.into());
        let heard = cache.ask(ANSWER_MAX, || cache.store().publish(&topic, message)).await;
        self.changed(heard.is_some());
        heard.unwrap_or(0)
    }

    /// Listens to `topic`, with room for `bound` messages; none when there is no answer in time. What may be missing comes in its place.
    pub async fn subscribe(&self, topic: &str, bound: usize) -> Option<Box<dyn Subscription>> {
        let topic = self.name(topic);
        let cache = self.cache.as_ref()?;
        cache.ask(SUBSCRIBE_MAX, || cache.store().subscribe(&topic, bound)).await
    }

    fn changed(&self, done: bool) -> bool {
        if let Some(cache) = self.cache.as_ref().filter(|_| done) {
            cache.changes.fetch_add(1, Ordering::Relaxed);
        }
        done
    }
}
