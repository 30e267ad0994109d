//! Points in time in what commands print.

use std::fmt;
use std::time::Duration;

use nexus::Timestamp;

/// Shows, also in JSON, as `2026-11-03T12:00:00.000000001Z`; with `{:#}` as `2026-11-03 12:00`.
pub(crate) struct When(pub(crate) Timestamp);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for When {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time that something lasts, such as `30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|why| format!("{why}; a time is such as 500ms, 30s or 5m"))
}
