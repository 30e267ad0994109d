//! What is got, and how that is looked at and measured: the same for all who do it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::iter;

/// Gets in a round, and how many of them are under way at once.
pub(crate) const GETS: usize = 20_000;
pub(crate) const AT_ONCE: usize = 64;

/// Values that are there, and how large each is.
pub(crate) const VALUES: usize = 1_000;
pub(crate) const VALUE_BYTES: usize = 100;

pub(crate) fn key(number: usize) -> String {
    format!("key {}", number % VALUES)
}

pub(crate) fn value(number: usize) -> Vec<u8> {
    let mut value = key(number).into_bytes();
    value.resize(VALUE_BYTES, b'.');
    value
}

/// The time of a round of gets, each by the number of its key.
pub(crate) async fn round<F: Future<Output = Bytes>>(get: impl Fn(usize) -> F) -> Duration {
    let began = Instant::now();
    let gets = iter(0..GETS).map(async |number| (number, get(number).await));
    let looked_at = |(number, got): (usize, Bytes)| {
        assert_eq!(got, value(number));
        std::future::ready(())
    };
    gets.buffer_unordered(AT_ONCE).for_each(looked_at).await;
    began.elapsed()
}
