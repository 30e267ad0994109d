//! Verified content by its address, bounded in bytes.
//!
//! Content under an address never changes, so nothing is ever invalidated.

use std::hash::{BuildHasher, Hash, Hasher};

use bytes::Bytes;
use nexus_messages::ContentId;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};

use crate::metrics::Counter;

/// What an item costs beside its bytes.
const ITEM_OVERHEAD: u64 = 128;

/// An item larger than this part of the whole is not kept: it would push out too much.
const ITEM_SHARE: u64 = 8;

/// So many times the largest item may pass in one stream and be kept: half of the whole.
const STREAM_SHARES: u64 = ITEM_SHARE / 2;

/// How large an item is expected to be when the table is laid out.
const ITEM_EXPECTED: u64 = 8 * 1024;

/// Contents that were read and verified, or written.
#[derive(Debug)]
pub(crate) struct ContentCache {
    items: Cache<Address, Bytes, ByBytes, First>,
    item_max: u64,
    hits: Counter,
    misses: Counter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address([u8; 32]);

struct AddressRef<'a>(&'a [u8; 32]);

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        AddressRef(&self.0).hash(state);
    }
}

impl Hash for AddressRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = *self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Equivalent<Address> for AddressRef<'_> {
    fn equivalent(&self, key: &Address) -> bool {
        *self.0 == key.0
    }
}

/// Takes the first bytes of an address, which are as good as random.
#[derive(Debug, Clone, Copy)]
struct First;

#[derive(Debug)]
struct FirstHasher(u64);

impl BuildHasher for First {
    type Hasher = FirstHasher;

    fn build_hasher(&self) -> FirstHasher {
        FirstHasher(0)
    }
}

impl Hasher for FirstHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an address is hashed by its first eight bytes");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<Address, Bytes> for ByBytes {
    fn weight(&self, _: &Address, content: &Bytes) -> u64 {
        content.len() as u64 + ITEM_OVERHEAD
    }
}

impl ContentCache {
    /// Room for `bytes` bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let expected = usize::try_from(bytes / ITEM_EXPECTED).unwrap_or(usize::MAX).max(16);
        let items = Cache::with(expected, bytes, ByBytes, First, DefaultLifecycle::default());
        Self { items, item_max: bytes / ITEM_SHARE, hits: Counter::default(), misses: Counter::default() }
    }

    /// The content at `id`. Copies nothing, and counts nothing: a hit is counted as a call.
    #[inline]
    pub(crate) fn get(&self, id: &ContentId) -> Option<Bytes> {
        self.items.get(&AddressRef(id.blake3()?))
    }

    /// As [`get`](Self::get), and counts.
    pub(crate) fn lookup(&self, id: &ContentId) -> Option<Bytes> {
        let found = self.get(id);
        if found.is_some() {
            self.hits.count();
        } else {
            self.misses.count();
        }
        found
    }

    /// How often [`lookup`](Self::lookup) had it, and how often not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.sum(), self.misses.sum())
    }

    /// Keeps `content`, which was verified against `id`.
    pub(crate) fn keep(&self, id: &ContentId, content: &Bytes) {
        if let Some(hash) = id.blake3()
            && self.takes(content.len() as u64)
        {
            self.items.insert(Address(*hash), content.clone());
        }
    }

    /// Whether content of `size` bytes would be kept.
    pub(crate) fn takes(&self, size: u64) -> bool {
        size + ITEM_OVERHEAD <= self.item_max
    }

    /// Whether a stream of `size` bytes leaves its chunks here. One that would fill the cache would find none of them when it comes again.
    pub(crate) fn holds_streams_of(&self, size: u64) -> bool {
        size <= self.item_max * STREAM_SHARES
    }

    /// How many bytes are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.items.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_in_bytes_and_keeps_no_giants() {
        let bound = 1 << 20;
        let cache = ContentCache::new(bound);
        for n in 0..2_000u32 {
            let content = Bytes::from(vec![1u8; 4_096]);
            cache.keep(&ContentId::Blake3(*blake3::hash(&n.to_le_bytes()).as_bytes()), &content);
        }
        assert!(cache.bytes() <= bound, "{} of {bound}", cache.bytes());
        let giant = Bytes::from(vec![0u8; 1 << 19]);
        let id = crate::content::address(std::slice::from_ref(&giant));
        cache.keep(&id, &giant);
        assert_eq!(cache.get(&id), None);
    }

    #[test]
    fn what_was_kept_is_given_without_a_copy() {
        let cache = ContentCache::new(1 << 20);
        let content = Bytes::from_static(b"hello");
        let id = crate::content::address(std::slice::from_ref(&content));
        cache.keep(&id, &content);
        assert_eq!(cache.get(&id).unwrap().as_ptr(), content.as_ptr());
    }
}
