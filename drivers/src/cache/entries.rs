//! Keys with a time to live, within a bound: the pure core of the cache. Handed the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// What an entry costs beside its key and value.
const ENTRY_BYTES: usize = 96;

#[derive(Debug)]
pub(super) struct Entries {
    entries: BTreeMap<String, Entry>,
    // Invariant: the key of each entry by the number of its put, so that the oldest is found first.
    by_age: BTreeMap<u64, String>,
    // Invariant: the sum of the entries' costs; never above `bytes_max`.
    bytes: usize,
    bytes_max: usize,
    puts: u64,
}

#[derive(Debug)]
struct Entry {
    value: Bytes,
    /// None for one that ends never, or so late that it cannot be counted.
    ends: Option<Instant>,
    put: u64,
}

fn cost(key: &str, value: &Bytes) -> usize {
    key.len().saturating_mul(2).saturating_add(value.len()).saturating_add(ENTRY_BYTES)
}

impl Entries {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { entries: BTreeMap::new(), by_age: BTreeMap::new(), bytes: 0, bytes_max, puts: 0 }
    }

    pub(super) fn get(&mut self, key: &str, now: Instant) -> Option<Bytes> {
        let entry = self.entries.get(key)?;
        if entry.ends.is_some_and(|ends| ends <= now) {
            self.remove(key);
            return None;
        }
        Some(entry.value.clone())
    }

    pub(super) fn put(&mut self, key: &str, value: Bytes, ttl: Option<Duration>, now: Instant) {
        self.remove(key);
        let cost = cost(key, &value);
        if cost > self.bytes_max {
            return;
        }
        while self.bytes + cost > self.bytes_max {
            let Some((_, oldest)) = self.by_age.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        self.puts += 1;
        self.bytes += cost;
        self.by_age.insert(self.puts, key.into());
        let ends = ttl.and_then(|ttl| now.checked_add(ttl));
        // A value of its own: a slice would keep the whole buffer that it was cut from.
        let value = Bytes::copy_from_slice(&value);
        self.entries.insert(key.into(), Entry { value, ends, put: self.puts });
    }

    /// Whether there was a value whose time was not over.
    pub(super) fn delete(&mut self, key: &str, now: Instant) -> bool {
        let lives = self.get(key, now).is_some();
        self.remove(key);
        lives
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= cost(key, &entry.value);
            self.by_age.remove(&entry.put);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant is needed to count from")]
    fn the_oldest_goes_when_there_is_no_room() {
        let now = Instant::now();
        let one = cost("0", &Bytes::from_static(b"value"));
        let mut entries = Entries::new(3 * one);
        for key in ["0", "1", "2"] {
            entries.put(key, Bytes::from_static(b"value"), None, now);
        }
        entries.put("0", Bytes::from_static(b"again"), None, now);
        entries.put("3", Bytes::from_static(b"value"), None, now);
        let there = ["0", "1", "2", "3"].map(|key| entries.get(key, now).is_some());
        assert_eq!(there, [true, false, true, true]);
        assert_eq!(entries.bytes, 3 * one);
        entries.put("large", Bytes::from(vec![0; 4 * one]), None, now);
        assert_eq!(entries.get("large", now), None);
        assert_eq!(entries.entries.len(), 3, "what cannot be kept drives nothing out");
    }
}
