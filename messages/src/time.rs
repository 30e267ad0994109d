//! Points in time.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since the Unix epoch, UTC. Reaches to the year 2554.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The earliest time that is known to be one: the epoch itself, or before. 0 stands for a time that nobody knows, so it is told as this, a nanosecond later.
    pub const EARLIEST: Self = Self(1);

    /// The nanoseconds since the Unix epoch.
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// The whole seconds since the Unix epoch.
    pub fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// This point moved earlier by `by`; the epoch at least.
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// This point moved later by `by`; the last representable one at most.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    /// The epoch, and what is before it, becomes [`EARLIEST`](Timestamp::EARLIEST).
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)).max(Self::EARLIEST)
    }
}

impl From<Timestamp> for SystemTime {
    /// [`EARLIEST`](Timestamp::EARLIEST) becomes the epoch, as which it was told.
    fn from(time: Timestamp) -> Self {
        match time {
            Timestamp::EARLIEST => UNIX_EPOCH,
            Timestamp(nanos) => UNIX_EPOCH + Duration::from_nanos(nanos),
        }
    }
}

/// Shows as RFC 3339 in UTC: `2026-11-03T12:00:00.000000001Z`; with `{:#}` as `2026-11-03 12:00`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.secs();
        let (year, month, day) = civil(secs / 86_400);
        let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
        if f.alternate() {
            return write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}");
        }
        let nanos = self.nanos() % 1_000_000_000;
        write!(f, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.secs(), self.0 % 1_000_000_000)
    }
}

/// The year, month and day of a day since the epoch: Howard Hinnant's `civil_from_days`, for days that are not negative.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_known_is_never_none() {
        let check = |time: SystemTime, told: u64, back: SystemTime| {
            assert_eq!(Timestamp::from(time), Timestamp(told));
            assert_eq!(SystemTime::from(Timestamp(told)), back);
        };
        check(UNIX_EPOCH, 1, UNIX_EPOCH);
        check(UNIX_EPOCH - Duration::from_secs(86_400), 1, UNIX_EPOCH);
        let later = UNIX_EPOCH + Duration::new(3, 7);
        check(later, 3_000_000_007, later);
    }

    #[test]
    fn times_are_shown_in_utc() {
        let check = |secs: u64, expected| {
            assert_eq!(format!("{:#}", Timestamp(secs * 1_000_000_000)), expected);
        };
        check(0, "1970-01-01 00:00");
        check(951_782_340, "2000-02-28 23:59");
        check(951_782_400, "2000-02-29 00:00");
        check(951_868_800, "2000-03-01 00:00");
        check(1_735_689_599, "2024-12-31 23:59");
        check(4_107_542_400, "2100-03-01 00:00");
        let exact = Timestamp(1_000_000_007);
        assert_eq!(exact.to_string(), "1970-01-01T00:00:01.000000007Z");
    }
}
