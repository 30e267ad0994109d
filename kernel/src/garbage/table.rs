//! What a collection knows: which content is reachable, and since when the rest is not.

use crate::content::Hash;

/// How many contents are marked at once, at 16 bytes each: 64 MiB. A store that holds more is collected range by range of the hashes.
pub(super) const MARKS_MAX: usize = 1 << 22;

/// How many contents wait for the end of their grace, at 24 bytes each. What comes beyond begins its grace with a later collection.
pub(super) const CONDEMNED_MAX: usize = 1 << 20;

/// The first half of a hash: two contents that share it stay both as long as one is reachable.
pub(super) type Key = [u8; 16];

/// The key of a hash.
pub(super) fn key_of(hash: &Hash) -> Key {
    let [first @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hash;
    first
}

/// Where a hash lies in the range of all hashes.
pub(super) fn place_of(hash: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Which content is reachable, within a range of the hashes that gets smaller when there is too much of it.
#[derive(Debug)]
pub(super) struct Marks {
    start: u64,
    /// The last place that belongs to it.
    last: u64,
    keys: Vec<Key>,
    max: usize,
}

impl Marks {
    /// No marks, for the range that begins at `start`.
    pub(super) fn new(start: u64, max: usize) -> Self {
        Self { start, last: u64::MAX, keys: Vec::new(), max }
    }

    /// The last place of the range.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether the content lies in the range.
    pub(super) fn covers(&self, hash: &Hash) -> bool {
        (self.start..=self.last).contains(&place_of(hash))
    }

    /// Marks the content as reachable.
    pub(super) fn add(&mut self, hash: &Hash) {
        if !self.covers(hash) {
            return;
        }
        self.keys.push(key_of(hash));
        if self.keys.len() < self.max {
            return;
        }
        self.settle();
        // Half of it is free then, so that it is not sorted again and again for a few.
        while self.keys.len() > self.max / 2 && self.last > self.start {
            self.last = self.start + (self.last - self.start) / 2;
            let last = self.last;
            self.keys.retain(|key| {
                let [a, b, c, d, e, f, g, h, ..] = *key;
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) <= last
            });
        }
    }

    /// All is marked: from now on it may be asked.
    pub(super) fn settle(&mut self) {
        self.keys.sort_unstable();
        self.keys.dedup();
    }

    /// Whether the content was marked. To be asked of what the range covers, after [`settle`](Self::settle).
    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.keys.binary_search(&key_of(hash)).is_ok()
    }

    /// How many contents are marked.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// Since when content was found unreachable, in nanoseconds since the epoch, by every collection since then.
#[derive(Debug, Default)]
pub(super) struct Condemned {
    // Invariant: sorted by key, and each key once.
    before: Vec<(Key, u64)>,
    now: Vec<(Key, u64)>,
}

impl Condemned {
    /// What earlier collections found.
    pub(super) fn of(mut before: Vec<(Key, u64)>) -> Self {
        before.sort_unstable();
        // Of two times the later one: grace is rather too long than too short.
        before.reverse();
        before.dedup_by_key(|(key, _)| *key);
        before.reverse();
        Self { before, now: Vec::new() }
    }

    /// The content was found unreachable at `at`: since when it is.
    pub(super) fn since(&self, hash: &Hash, at: u64) -> u64 {
        let key = key_of(hash);
        match self.before.binary_search_by_key(&key, |(key, _)| *key) {
            // A clock that was set back must not make it wait for ever.
            Ok(found) => self.before[found].1.min(at),
            Err(_) => at,
        }
    }

    /// The content stays, unreachable since `since`.
    pub(super) fn keep(&mut self, hash: &Hash, since: u64) {
        if self.now.len() < CONDEMNED_MAX {
            self.now.push((key_of(hash), since));
        }
    }

    /// What this collection leaves to the next one.
    pub(super) fn into_next(self) -> Vec<(Key, u64)> {
        Self::of(self.now).before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn hash(n: u64) -> Hash {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    proptest! {
        /// However many there are, range by range all that was marked is found, and nothing else, and memory is bounded.
        #[test]
        fn marks_are_what_was_added(count in 0u64..600, max in 8usize..200) {
            let all: BTreeSet<Hash> = (0..count).map(hash).collect();
            let (mut start, mut ranges, mut seen) = (0, 0, 0);
            loop {
                let mut marks = Marks::new(start, max);
                all.iter().chain(&all).for_each(|hash| {
                    marks.add(hash);
                    assert!(marks.len() <= max);
                });
                marks.settle();
                for n in 0..2 * count {
                    let hash = hash(n);
                    if marks.covers(&hash) {
                        prop_assert_eq!(marks.has(&hash), n < count);
                        seen += u64::from(n < count);
                    }
                }
                ranges += 1;
                prop_assert!(ranges < 1_000);
                let Some(next) = marks.last().checked_add(1) else { break };
                start = next;
            }
            prop_assert_eq!(seen, count);
        }
    }

    #[test]
    fn grace_begins_when_content_is_first_found_unreachable() {
        let mut first = Condemned::default();
        assert_eq!(first.since(&hash(1), 100), 100);
        first.keep(&hash(1), 100);
        first.keep(&hash(2), 90);
        first.keep(&hash(1), 100);
        let mut second = Condemned::of(first.into_next());
        assert_eq!((second.since(&hash(1), 200), second.since(&hash(3), 200)), (100, 200));
        assert_eq!(second.since(&hash(1), 50), 50, "the clock was set back");
        second.keep(&hash(1), 100);
        // Was reachable meanwhile: it begins anew.
        let third = Condemned::of(second.into_next());
        assert_eq!((third.since(&hash(1), 300), third.since(&hash(2), 300)), (100, 300));
    }

    #[test]
    fn of_two_times_of_one_content_the_later_counts() {
        let both = Condemned::of(vec![(key_of(&hash(1)), 5), (key_of(&hash(1)), 9)]);
        assert_eq!(both.since(&hash(1), 20), 9);
    }
}
