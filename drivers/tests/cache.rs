//! The cache stores against their suite, which rejects those that are wrong in one way each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_drivers::cache::{CacheConfig, Clock, MemoryCache};
use nexus_kernel::hal::conformance::cache_store::{Subject, check};
use nexus_kernel::hal::{CacheStore, Heard, NullCache, StoreFuture, Subscription};

/// A clock that stands still until it is told otherwise, and what tells it.
#[expect(clippy::disallowed_methods, reason = "some instant is needed to count from")]
fn clock() -> (Clock, impl Fn(Duration) + 'static) {
    let (start, passed) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let read = passed.clone();
    let clock: Clock = Arc::new(move || start + Duration::from_millis(read.load(Ordering::SeqCst)));
    let pass = move |time: Duration| {
        passed.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    };
    (clock, pass)
}

#[test]
fn the_cache_in_memory_conforms() {
    let make = || {
        let (clock, pass) = clock();
        Subject::new(MemoryCache::new(&CacheConfig::default(), clock), pass)
    };
    check(&make).assert_passed();
}

#[test]
fn a_queue_without_room_is_one_of_one_message() {
    let (clock, _) = clock();
    let cache = MemoryCache::new(&CacheConfig::default().queue_max(0), clock);
    nexus_actors::block_on(cache.subscribe("topic", 5)).expect("there is room");
}

#[test]
fn the_null_cache_conforms() {
    check(&|| Subject::keeping_nothing(NullCache)).assert_passed();
}

/// What is wrong with a cache.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    IgnoresTtl,
    LosesSilently,
    PutKeepsTheOldTime,
    HearsEveryTopic,
    CountsTheDeaf,
    KeepsTheDeleted,
}

#[derive(Debug)]
struct Broken {
    cache: MemoryCache,
    fault: Fault,
    subscribed: AtomicU64,
}

fn reject(fault: Fault, claim: &str) {
    let make = || {
        let (clock, pass) = clock();
        let cache = MemoryCache::new(&CacheConfig::default(), clock);
        // Whoever is cut off loses nothing here, and is told nothing.
        Subject::new(Broken { cache, fault, subscribed: AtomicU64::new(0) }, pass).severed_by(|| ())
    };
    check(&make).assert_rejected_by(claim);
}

#[test]
fn a_cache_that_ignores_time_is_rejected() {
    reject(Fault::IgnoresTtl, "a_value_is_gone_when_its_time_is_over");
}

#[test]
fn a_cache_that_loses_silently_is_rejected() {
    reject(Fault::LosesSilently, "a_full_listener_loses_and_is_told");
}

#[test]
fn a_cache_that_hides_a_gap_is_rejected() {
    reject(Fault::LosesSilently, "a_listener_that_was_cut_off_is_told_and_hears_on");
}

#[test]
fn a_cache_whose_put_keeps_the_old_value_is_rejected() {
    reject(Fault::PutKeepsTheOldTime, "a_put_replaces_value_and_time");
}

#[test]
fn a_cache_whose_listeners_hear_every_topic_is_rejected() {
    reject(Fault::HearsEveryTopic, "a_listener_hears_only_its_topic_and_from_then_on");
}

#[test]
fn a_cache_that_counts_who_did_not_hear_is_rejected() {
    reject(Fault::CountsTheDeaf, "a_publication_tells_how_many_heard");
}

#[test]
fn a_cache_that_keeps_what_is_deleted_is_rejected() {
    reject(Fault::KeepsTheDeleted, "a_deleted_key_is_gone");
}

#[derive(Debug)]
struct Silent(Box<dyn Subscription>);

impl Subscription for Silent {
    fn next(&mut self) -> StoreFuture<'_, Option<Heard>> {
        Box::pin(async move {
            loop {
                match self.0.next().await? {
                    Some(Heard::Missed(_)) => {}
                    heard => return Ok(heard),
                }
            }
        })
    }
}

impl Broken {
    fn topic<'a>(&self, topic: &'a str) -> &'a str {
        if self.fault == Fault::HearsEveryTopic { "" } else { topic }
    }
}

impl CacheStore for Broken {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        self.cache.get(key)
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            match self.fault {
                Fault::IgnoresTtl => self.cache.put(key, value, None).await,
                Fault::PutKeepsTheOldTime if self.cache.get(key).await?.is_some() => Ok(()),
                _ => self.cache.put(key, value, ttl).await,
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, bool> {
        match self.fault {
            Fault::KeepsTheDeleted => Box::pin(async { Ok(self.cache.get(key).await?.is_some()) }),
            _ => self.cache.delete(key),
        }
    }

    fn publish<'a>(&'a self, topic: &'a str, message: Bytes) -> StoreFuture<'a, usize> {
        Box::pin(async move {
            let heard = self.cache.publish(self.topic(topic), message).await?;
            let all = usize::try_from(self.subscribed.load(Ordering::SeqCst)).unwrap_or_default();
            Ok(if self.fault == Fault::CountsTheDeaf { all } else { heard })
        })
    }

    fn subscribe<'a>(&'a self, topic: &'a str, bound: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        Box::pin(async move {
            self.subscribed.fetch_add(1, Ordering::SeqCst);
            let listener = self.cache.subscribe(self.topic(topic), bound).await?;
            match self.fault {
                Fault::LosesSilently => Ok(Box::new(Silent(listener)) as Box<dyn Subscription>),
                _ => Ok(listener),
            }
        })
    }
}
