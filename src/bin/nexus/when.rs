//! Points in time in what commands print.

use std::fmt;

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
