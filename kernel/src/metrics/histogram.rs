//! How values are spread: a count for each of some ranges, and the sum.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The ranges of durations, in nanoseconds: 1, 2.5 and 5 of each power of ten between a microsecond and ten seconds.
pub(crate) const DURATIONS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Counts values in `N` ranges, each up to and with its bound, and beyond the last.
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

/// What a histogram has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    /// The ranges, each with how many values are up to its bound.
    pub(crate) buckets: Vec<Bucket>,
    /// How many values there were.
    pub(crate) count: u64,
    /// All of them together.
    pub(crate) sum: u64,
}

/// How many values are at most `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The bound.
    pub upto: u64,
    /// How many values are not above it; those of the smaller bounds are among them.
    pub count: u64,
}

impl<const N: usize> Histogram<N> {
    /// Nothing counted. The bounds grow.
    pub(crate) fn new(bounds: &'static [u64; N]) -> Self {
        debug_assert!(bounds.is_sorted());
        Self {
            bounds,
            counts: array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts `value`.
    pub(crate) fn add(&self, value: u64) {
        let range = self.bounds.partition_point(|bound| *bound < value);
        // Statistics: nothing is ordered by them.
        self.counts.get(range).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far by this one and by `others` of the same bounds.
    pub(crate) fn with<'h>(&'h self, others: impl IntoIterator<Item = &'h Self>) -> Measured {
        let all: Vec<&Self> = std::iter::once(self).chain(others).collect();
        let total = |pick: &dyn Fn(&Self) -> u64| all.iter().map(|one| pick(one)).sum::<u64>();
        let mut count = 0;
        let buckets = self.bounds.iter().enumerate().map(|(range, upto)| {
            count += total(&|one| one.counts[range].load(Ordering::Relaxed));
            Bucket { upto: *upto, count }
        });
        let buckets = buckets.collect();
        count += total(&|one| one.beyond.load(Ordering::Relaxed));
        Measured { buckets, count, sum: total(&|one| one.sum.load(Ordering::Relaxed)) }
    }

    /// What was counted so far.
    pub(crate) fn measured(&self) -> Measured {
        self.with([])
    }
}

impl<const N: usize> fmt::Debug for Histogram<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.measured().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_range() {
        let histogram = Histogram::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 11, 100, 101, 5_000] {
            histogram.add(value);
        }
        let measured = histogram.measured();
        let counts: Vec<_> = measured.buckets.iter().map(|bucket| (bucket.upto, bucket.count)).collect();
        assert_eq!(counts, [(1, 2), (10, 4), (100, 6)]);
        assert_eq!((measured.count, measured.sum), (8, 5_225));
        let two = histogram.with([&histogram]);
        assert_eq!((two.count, two.buckets[2].count, two.sum), (16, 12, 10_450));
    }
}
