//! How fast a scrub reads: what it has read is paid for with time.

use std::time::{Duration, Instant};

/// Time that was not used is not saved up: a scrub that waited for a slow store reads no faster afterwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    bytes_per_s: u64,
    /// All that was read is paid for by then.
    paid: Option<Instant>,
}

impl Pace {
    /// At most so many bytes in a second, at least one.
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), paid: None }
    }

    /// How long to wait at `now` before the next read.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now))
    }

    /// So many bytes were read, by `now`.
    pub(super) fn took(&mut self, bytes: u64, now: Instant) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.paid.map_or(now, |paid| paid.max(now));
        self.paid = from.checked_add(cost).or(self.paid);
    }
}

#[cfg(test)]
mod tests {
    use nexus_actors::Env;

    use super::*;

    #[test]
    fn what_is_read_takes_its_time_and_time_is_not_saved_up() {
        let (env, _simulation) = Env::seeded(1);
        let (start, second) = (env.now(), Duration::from_secs(1));
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.wait(start), Duration::ZERO);
        pace.took(500, start);
        pace.took(1_500, start);
        assert_eq!(pace.wait(start), second * 2);
        assert_eq!(pace.wait(start + second), second);
        let late = start + second * 100;
        assert_eq!(pace.wait(late), Duration::ZERO);
        pace.took(3_000, late);
        assert_eq!(pace.wait(late), second * 3);
    }
}
