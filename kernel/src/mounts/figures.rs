//! What the calls of a mount's driver came to: how long they took, what they moved, and which errors they gave.
//!
//! Counted by whoever makes a call, without a lock: a few additions each, which is nothing beside the call.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_messages::{Errno, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::metrics::{DURATIONS, Histogram, Measured};

/// What a call of a driver is for, as far as its time is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// Whether something is there, and what it is.
    Look,
    /// Content.
    Read,
    /// Any change.
    Write,
    /// Names.
    List,
}

impl CallKind {
    pub(crate) const ALL: [Self; 4] = [Self::Look, Self::Read, Self::Write, Self::List];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
        }
    }
}

/// How long the calls of one kind took that ended, failures included. Calls that their callers gave up, and probes, are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CallTimes {
    /// How many there were.
    pub calls: u64,
    /// All of them together, in nanoseconds.
    pub total_ns: u64,
    /// Half of them took at most this long: the bound of a range, 1, 2.5 or 5 of a power of ten; none before the first.
    pub median_ns: Option<u64>,
    /// And 99 of 100.
    pub p99_ns: Option<u64>,
    /// The longest of them.
    pub longest_ns: u64,
}

/// How long the calls of a mount's driver took, by what they were for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DriverTimes {
    /// Whether something is there, and what it is.
    pub looks: CallTimes,
    /// Content.
    pub reads: CallTimes,
    /// Changes of all kinds.
    pub writes: CallTimes,
    /// Pages of listings.
    pub listings: CallTimes,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// None for what is not timed.
    pub(super) kind: Option<CallKind>,
    pub(super) took: Duration,
    pub(super) error: Option<ErrorKind>,
    /// How many bytes came from the driver.
    pub(super) read: u64,
    /// How many bytes it was given, and took.
    pub(super) written: u64,
}

#[derive(Debug)]
struct Times {
    ranges: Histogram<{ DURATIONS.len() }>,
    longest: AtomicU64,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Figures {
    times: [Times; CallKind::ALL.len()],
    errors: [AtomicU64; Errno::ALL.len()],
    read: AtomicU64,
    written: AtomicU64,
}

impl Figures {
    pub(super) fn new() -> Self {
        Self {
            times: array::from_fn(|_| Times {
                ranges: Histogram::new(&DURATIONS),
                longest: AtomicU64::new(0),
            }),
            errors: array::from_fn(|_| AtomicU64::new(0)),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// Counts a call.
    pub(super) fn count(&self, ended: Ended) {
        // Statistics: nothing is ordered by them.
        if let Some(kind) = ended.kind {
            let times = &self.times[kind as usize];
            let took = u64::try_from(ended.took.as_nanos()).unwrap_or(u64::MAX);
            times.ranges.add(took);
            times.longest.fetch_max(took, Ordering::Relaxed);
        }
        let errno = ended.error.map(ErrorKind::errno);
        if let Some(place) = errno.and_then(|errno| Errno::ALL.iter().position(|known| *known == errno)) {
            self.errors[place].fetch_add(1, Ordering::Relaxed);
        }
        for (counter, bytes) in [(&self.read, ended.read), (&self.written, ended.written)] {
            if bytes > 0 {
                counter.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn times(&self) -> DriverTimes {
        let of = |kind: CallKind| self.times[kind as usize].told();
        DriverTimes {
            looks: of(CallKind::Look),
            reads: of(CallKind::Read),
            writes: of(CallKind::Write),
            listings: of(CallKind::List),
        }
    }

    /// The times of one kind of calls, range by range.
    pub(super) fn measured(&self, kind: CallKind) -> Measured {
        self.times[kind as usize].ranges.measured()
    }

    /// How often calls answered with an error, by the names of the errors.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        let counts = self.errors.iter().map(|count| count.load(Ordering::Relaxed));
        let named = Errno::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        named.map(|(errno, count)| (errno.name().to_owned(), count)).collect()
    }

    /// How many bytes came from the driver, and how many it took.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }
}

impl Times {
    fn told(&self) -> CallTimes {
        let measured = self.ranges.measured();
        let longest_ns = self.longest.load(Ordering::Relaxed);
        // No value is in a range whose bound is far above the longest one.
        let quantile = |percent: u64| {
            let wanted = (measured.count * percent).div_ceil(100);
            let range = measured.buckets.iter().find(|range| range.count >= wanted);
            (measured.count > 0).then(|| range.map_or(longest_ns, |range| range.upto.min(longest_ns)))
        };
        CallTimes {
            calls: measured.count,
            total_ns: measured.sum,
            median_ns: quantile(50),
            p99_ns: quantile(99),
            longest_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(kind: CallKind, micros: u64) -> Ended {
        let took = Duration::from_micros(micros);
        Ended { kind: Some(kind), took, error: None, read: 0, written: 0 }
    }

    #[test]
    fn half_and_all_but_a_hundredth_are_within_what_is_told() {
        let figures = Figures::new();
        assert_eq!(figures.times(), DriverTimes::default());
        for micros in [10, 10, 10, 20, 30_000_000] {
            figures.count(ended(CallKind::Read, micros));
        }
        figures.count(ended(CallKind::List, 3));
        let times = figures.times();
        let reads = times.reads;
        assert_eq!((reads.calls, reads.median_ns), (5, Some(10_000)));
        // Above all ranges: then it is the longest itself.
        assert_eq!((reads.p99_ns, reads.longest_ns), (Some(30_000_000_000), 30_000_000_000));
        assert_eq!((times.listings.median_ns, times.writes), (Some(3_000), CallTimes::default()));
    }

    #[test]
    fn errors_are_counted_by_name_and_bytes_by_direction() {
        let figures = Figures::new();
        let mut one = ended(CallKind::Write, 1);
        one.written = 5;
        figures.count(one);
        one.error = Some(ErrorKind::NotFound);
        one.written = 0;
        one.kind = None;
        figures.count(one);
        figures.count(Ended { error: Some(ErrorKind::Io), read: 7, ..one });
        let errors = figures.errors();
        let errors: Vec<_> = errors.iter().map(|(name, count)| (&**name, *count)).collect();
        assert_eq!(errors, [("EIO", 1), ("ENOENT", 1)]);
        assert_eq!((figures.bytes(), figures.times().writes.calls), ((7, 5), 1));
    }
}
