//! Caches that are of no use, each in a way of its own.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use nexus::Bytes;
use nexus::hal::{CacheState, CacheStore, StoreError, StoreFuture, Subscription};

/// One that is not reached.
#[derive(Debug)]
pub(crate) struct Gone;

fn gone<'a, T: Send + 'a>() -> StoreFuture<'a, T> {
    let (mount, cause) = ("the cache".into(), "it is gone".into());
    Box::pin(std::future::ready(Err(StoreError::Unavailable { mount, cause, retry_in: Duration::ZERO })))
}

impl CacheStore for Gone {
    fn get<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        gone()
    }

    fn put<'a>(&'a self, _: &'a str, _: Bytes, _: Option<Duration>) -> StoreFuture<'a, ()> {
        gone()
    }

    fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, bool> {
        gone()
    }

    fn publish<'a>(&'a self, _: &'a str, _: Bytes) -> StoreFuture<'a, usize> {
        gone()
    }

    fn subscribe<'a>(&'a self, _: &'a str, _: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        gone()
    }

    fn state(&self) -> CacheState {
        CacheState::Down { cause: "it is gone".into() }
    }
}

/// One that never answers.
#[derive(Debug)]
pub(crate) struct Hung;

impl CacheStore for Hung {
    fn get<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(std::future::pending())
    }

    fn put<'a>(&'a self, _: &'a str, _: Bytes, _: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(std::future::pending())
    }

    fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, bool> {
        Box::pin(std::future::pending())
    }

    fn publish<'a>(&'a self, _: &'a str, _: Bytes) -> StoreFuture<'a, usize> {
        Box::pin(std::future::pending())
    }

    fn subscribe<'a>(&'a self, _: &'a str, _: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        Box::pin(std::future::pending())
    }
}

/// One that gives the first value that was ever put, whatever was put or deleted since.
#[derive(Debug, Default)]
pub(crate) struct Old(Mutex<BTreeMap<String, Bytes>>);

fn ready<'a, T: Send + 'a>(value: T) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl CacheStore for Old {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        ready(self.0.lock().expect("nobody panicked").get(key).cloned())
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, _: Option<Duration>) -> StoreFuture<'a, ()> {
        self.0.lock().expect("nobody panicked").entry(key.into()).or_insert(value);
        ready(())
    }

    fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, bool> {
        ready(true)
    }

    fn publish<'a>(&'a self, _: &'a str, _: Bytes) -> StoreFuture<'a, usize> {
        ready(0)
    }

    fn subscribe<'a>(&'a self, _: &'a str, _: usize) -> StoreFuture<'a, Box<dyn Subscription>> {
        gone()
    }
}
