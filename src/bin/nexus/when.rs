//! Points in time as people write them, in UTC.

use std::fmt;

use nexus::Timestamp;

/// Shows as `2026-11-03T12:00:00.000000001Z`; with `{:#}` as `2026-11-03 12:00`.
pub(crate) struct When(pub(crate) Timestamp);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.secs();
        let (year, month, day) = civil(secs / 86_400);
        let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
        if f.alternate() {
            return write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}");
        }
        let nanos = self.0.nanos() % 1_000_000_000;
        write!(f, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

impl serde::Serialize for When {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
    fn times_are_shown_in_utc() {
        let check = |secs: u64, expected| {
            assert_eq!(format!("{:#}", When(Timestamp(secs * 1_000_000_000))), expected);
        };
        check(0, "1970-01-01 00:00");
        check(951_782_340, "2000-02-28 23:59");
        check(951_782_400, "2000-02-29 00:00");
        check(951_868_800, "2000-03-01 00:00");
        check(1_735_689_599, "2024-12-31 23:59");
        check(4_107_542_400, "2100-03-01 00:00");
        let exact = When(Timestamp(1_000_000_007));
        assert_eq!(exact.to_string(), "1970-01-01T00:00:01.000000007Z");
    }
}
