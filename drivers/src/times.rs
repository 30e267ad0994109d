//! Times as others write them.

use std::time::Duration;

use chrono::DateTime;
use nexus_messages::Timestamp;
use reqwest::header::{DATE, HeaderMap, HeaderName, LAST_MODIFIED};
#[cfg(feature = "connectors")]
use serde_json::Value;

/// Nanoseconds of a second: as exact as all that is told of one entry is, whoever tells it.
const NANOS: u64 = 1_000_000_000;

/// How long after its last change an answer must be given, so that its date is of this content alone: that is how exact dates are (RFC 9110, section 8.8.2.2).
const DATES_APART: Duration = Duration::from_secs(1);

/// What `text` says: a date of HTTP, one of RFC 3339, or seconds since 1970. To the second.
pub(crate) fn parsed(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let dated = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc2822(text));
    let seconds = match dated {
        Ok(date) => u64::try_from(date.timestamp()).unwrap_or(0),
        Err(_) => text.parse().ok()?,
    };
    Some(of_seconds(seconds))
}

/// As [`parsed`], of JSON.
#[cfg(feature = "connectors")]
pub(crate) fn of_json(value: &Value) -> Option<Timestamp> {
    value.as_str().map_or_else(|| value.as_u64().map(of_seconds), parsed)
}

/// Whether an answer with these headers was given so long after the last change of its content that the date of that change is of this content alone. Both by the
/// server's own clock.
pub(crate) fn is_dated(headers: &HeaderMap) -> bool {
    let date = |name: HeaderName| parsed(headers.get(name)?.to_str().ok()?);
    let apart = |changed: Timestamp, given: Timestamp| {
        u128::from(given.nanos().saturating_sub(changed.nanos())) >= DATES_APART.as_nanos()
    };
    date(LAST_MODIFIED).zip(date(DATE)).is_some_and(|(changed, given)| apart(changed, given))
}

fn of_seconds(seconds: u64) -> Timestamp {
    Timestamp(seconds.saturating_mul(NANOS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_however_they_are_written() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(parsed(text), seconds.map(of_seconds), "{text}");
        };
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("1994-11-06T08:49:37.25Z", Some(784_111_777));
        check("1994-11-06T09:49:37+01:00", Some(784_111_777));
        check("784111777", Some(784_111_777));
        check("1969-12-31T00:00:00Z", Some(0));
        for garbage in ["", "yesterday", "-1", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            check(garbage, None);
        }
    }
}
