//! When a server is held for dead, and how long it is left alone. Pure: handed what happened.

use std::time::Duration;

/// So many calls in a row that ran into their deadline, and the server is held for dead.
pub const TIMEOUTS_MAX: u32 = 8;

/// How long the first attempt to connect again is put off, and any of them, at most.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(BACK_OFF_MIN.as_nanos() < BACK_OFF_MAX.as_nanos());

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// A connection was there for so long. One that breaks at once is no success.
    pub(super) fn served(&mut self, time: Duration) {
        if time >= BACK_OFF_MAX {
            self.failures = 0;
        }
    }

    /// How long to wait before the next attempt: twice as long each time, of which half is drawn from `random`, so that many who lost the same server do not come
    /// back in step.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let doubled = BACK_OFF_MIN.saturating_mul(2u32.saturating_pow(self.failures)).min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        let half = doubled / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(random % nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_each_time_and_never_too_long() {
        let mut back_off = BackOff::default();
        let waits: Vec<_> = (0..40).map(|_| back_off.next(0)).collect();
        assert_eq!(waits[0], BACK_OFF_MIN / 2);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits[39], BACK_OFF_MAX / 2);
        assert!(BackOff { failures: 40 }.next(u64::MAX) <= BACK_OFF_MAX);
    }

    #[test]
    fn only_a_connection_that_lasts_is_a_success() {
        let mut back_off = BackOff { failures: 9 };
        back_off.served(Duration::from_millis(1));
        assert_eq!(back_off.next(0), BACK_OFF_MAX / 2);
        back_off.served(BACK_OFF_MAX);
        assert_eq!(back_off.next(0), BACK_OFF_MIN / 2);
    }
}
