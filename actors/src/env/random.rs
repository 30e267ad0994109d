//! Random numbers: SplitMix64, by Steele, Lea and Flood (2014). One atomic addition a number, no lock. And secrets, which are slower and cannot be guessed.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Random(AtomicU64::new(seed))
    }

    /// Starts where the operating system says.
    pub(crate) fn from_system() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    pub(crate) fn next(&self) -> u64 {
        // Relaxed: each caller needs a number of its own, in no order.
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above 0.
    pub(crate) fn below(&self, end: usize) -> usize {
        let wide = u128::from(self.next()) * end as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

/// Gives each number another one that nobody can tell who knows the others that it gave.
pub struct Secret(Key);

enum Key {
    /// SipHash-1-3, under a key of the operating system's.
    System(RandomState),
    /// Replayed from its seed, so it hides nothing.
    Seeded(u64),
}

impl Secret {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Key::Seeded(seed))
    }

    pub(crate) fn from_system() -> Self {
        Self(Key::System(RandomState::new()))
    }

    /// The number that belongs to `n`: always the same of this secret. Shares nothing that changes, so tasks that use it do not disturb each other.
    #[inline]
    pub fn of(&self, n: u64) -> u64 {
        match &self.0 {
            Key::System(key) => key.hash_one(n),
            Key::Seeded(seed) => Random::seeded(seed ^ n.wrapping_mul(GOLDEN)).next(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_one_number_the_same_and_others_others() {
        for secret in [Secret::seeded(1), Secret::from_system()] {
            let given: std::collections::BTreeSet<u64> = (0..1000).map(|n| secret.of(n)).collect();
            assert_eq!(given.len(), 1000);
            assert_eq!(secret.of(7), secret.of(7));
        }
        assert_ne!(Secret::seeded(1).of(7), Secret::seeded(2).of(7));
        assert_ne!(Secret::from_system().of(7), Secret::from_system().of(7));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let (a, b, c) = (Random::seeded(1), Random::seeded(1), Random::seeded(2));
        let draw = |r: &Random| (0..8).map(|_| r.next()).collect::<Vec<_>>();
        let first = draw(&a);
        assert_eq!(first, draw(&b));
        assert_ne!(first, draw(&c));
    }

    #[test]
    fn below_stays_below() {
        let r = Random::seeded(3);
        assert!((0..1000).all(|_| r.below(7) < 7));
    }
}
