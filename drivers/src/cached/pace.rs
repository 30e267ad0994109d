//! How fast what is pending goes to a store that fails. Pure: it is handed the time, in nanoseconds.
//!
//! A file that fails waits by itself. When it is the store that fails, all wait for it: else as many attempts as there are files would come at a server
//! that is down. After each wait one file goes, and when that comes through, all others do.

use std::time::Duration;

/// How long a store is left alone after its first failure, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The pace of one store.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Waits in a row.
    pauses: u32,
    /// When the last of them ends.
    until: u64,
}

impl Pace {
    /// How many files may be on their way, of `most` at a store that is well.
    pub(super) fn hands(&self, now: u64, most: usize) -> usize {
        match self.pauses {
            0 => most,
            _ if now < self.until => 0,
            _ => 1,
        }
    }

    /// When the next may go, if it is not to go now.
    pub(super) fn waits_until(&self, now: u64) -> Option<u64> {
        (self.pauses > 0 && now < self.until).then_some(self.until)
    }

    /// The store failed. Those that were on their way together fail together, and count once.
    pub(super) fn failed(&mut self, now: u64) {
        if now < self.until {
            return;
        }
        let wait = PAUSE.0.saturating_mul(1 << self.pauses.min(16)).min(PAUSE.1);
        self.pauses = self.pauses.saturating_add(1);
        self.until = now + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Something came through.
    pub(super) fn came_through(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MOST: usize = 16;

    #[test]
    fn a_store_that_fails_is_asked_once_after_each_wait_until_something_comes_through() {
        let mut pace = Pace::default();
        let (mut now, mut waits) = (SECOND, Vec::new());
        assert_eq!((pace.hands(now, MOST), pace.waits_until(now)), (MOST, None));
        for _ in 0..7 {
            // All that were on their way.
            for _ in 0..MOST {
                pace.failed(now);
            }
            let until = pace.waits_until(now).expect("it waits");
            assert_eq!((pace.hands(now, MOST), pace.hands(until, MOST)), (0, 1));
            waits.push((until - now) / 1_000_000);
            now = until;
        }
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        pace.came_through();
        assert_eq!((pace.hands(now, MOST), pace.waits_until(now)), (MOST, None));
    }
}
