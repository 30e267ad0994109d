//! What this process knows of blobs without looking.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// How many blobs are remembered; the least lately learned are forgotten, in halves.
const REMEMBERED_MAX: usize = 131_072;

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// This process wrote it. It is whole on disk, if it is still there; what is read of it was not looked at yet.
    Written,
    /// This process read all of it, and it was whole. It has so many bytes.
    Verified(u64),
    /// It was found damaged, or its write failed midway: it must be written again.
    Bad,
}

/// A bounded memory of blobs. Forgetting is safe: what is not known is looked at.
#[derive(Debug)]
pub(super) struct Standings {
    halves: Mutex<Halves>,
    half_max: usize,
}

#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<[u8; 32], Standing, RandomState>,
    older: HashMap<[u8; 32], Standing, RandomState>,
}

impl Halves {
    fn of(&self, hash: &[u8; 32]) -> Option<Standing> {
        self.newer.get(hash).or_else(|| self.older.get(hash)).copied()
    }
}

impl Default for Standings {
    fn default() -> Self {
        Self::bounded(REMEMBERED_MAX)
    }
}

impl Standings {
    fn bounded(max: usize) -> Self {
        Self { halves: Mutex::default(), half_max: max.div_ceil(2) }
    }

    pub(super) fn of(&self, hash: &[u8; 32]) -> Option<Standing> {
        self.halves.lock().of(hash)
    }

    /// Of each blob, with this hash and length, whether it is known to be whole.
    pub(super) fn are_verified<'a>(&self, blobs: impl Iterator<Item = (&'a [u8; 32], u64)>) -> Vec<bool> {
        // Taken once: looks that do not wait for each other wait for memory together.
        let halves = self.halves.lock();
        blobs.map(|(hash, size)| halves.of(hash) == Some(Standing::Verified(size))).collect()
    }

    pub(super) fn learn(&self, hash: &[u8; 32], standing: Standing) {
        let mut halves = self.halves.lock();
        if halves.newer.len() >= self.half_max && !halves.newer.contains_key(hash) {
            halves.older = std::mem::take(&mut halves.newer);
        }
        halves.older.remove(hash);
        halves.newer.insert(*hash, standing);
    }

    pub(super) fn forget(&self, hash: &[u8; 32]) {
        let mut halves = self.halves.lock();
        halves.newer.remove(hash);
        halves.older.remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_word_counts_and_the_memory_is_bounded() {
        let standings = Standings::bounded(8);
        let hash = |n: u8| [n; 32];
        for n in 0..100 {
            standings.learn(&hash(n), Standing::Verified(1));
            standings.learn(&hash(n), Standing::Bad);
            assert_eq!(standings.of(&hash(n)), Some(Standing::Bad));
        }
        assert_eq!((0..100).filter(|n| standings.of(&hash(*n)).is_some()).count(), 8);
        standings.learn(&hash(93), Standing::Verified(1));
        assert_eq!(standings.of(&hash(93)), Some(Standing::Verified(1)));
        standings.forget(&hash(93));
        assert_eq!(standings.of(&hash(93)), None);
    }
}
