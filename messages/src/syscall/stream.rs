//! What a stream is made with, and what is read of one.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::IoProfile;
use crate::time::Timestamp;

/// What a stream is made with.
///
/// A stream keeps records, each with a number, its **offset**: the first has 0, and each next one the next number. Any number of readers read them from any
/// offset, and take nothing away. When it keeps no more, the oldest go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamSpec {
    /// Where its records are; none for on disk where the mount and the kernel outlive the process, and in memory elsewhere.
    pub io_profile: Option<IoProfile>,
    /// How many bytes it keeps at most, by the records' content and four bytes each; none for as many as there is room for.
    pub bytes_max: Option<u64>,
    /// For how long it keeps a record at most, in whole milliseconds. What is too old goes by itself, at most about a second late. None for ever.
    pub age_max: Option<Duration>,
}

impl StreamSpec {
    /// A stream as the mount keeps it, without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says where its records are.
    #[must_use]
    pub fn io_profile(mut self, io_profile: IoProfile) -> Self {
        self.io_profile = Some(io_profile);
        self
    }

    /// Keeps so many bytes at most.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Keeps records for so long at most.
    #[must_use]
    pub fn age_max(mut self, age: Duration) -> Self {
        self.age_max = Some(age);
        self
    }
}

/// Where a read of a stream begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StreamStart {
    /// At the oldest record that is kept.
    #[default]
    Oldest,
    /// At the record with this offset.
    At(u64),
    /// Behind the last record: at what comes next.
    Tail,
}

impl From<u64> for StreamStart {
    fn from(offset: u64) -> Self {
        Self::At(offset)
    }
}

/// Which records of a stream are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordRange {
    /// The first one.
    pub from: StreamStart,
    /// How many at most; 0 counts as 1.
    pub records_max: u64,
    /// How many bytes at most, by their content and four bytes each; the first one always may.
    pub bytes_max: u64,
}

impl RecordRange {
    /// Records from here on, as many as one call gives.
    pub fn from(from: impl Into<StreamStart>) -> Self {
        Self { from: from.into(), records_max: u64::MAX, bytes_max: u64::MAX }
    }

    /// At most so many.
    #[must_use]
    pub fn records_max(mut self, records: u64) -> Self {
        self.records_max = records;
        self
    }

    /// At most so many bytes.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }
}

/// A record of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Its number.
    pub offset: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// What it holds.
    pub data: Bytes,
}

impl Record {
    /// A record.
    pub fn new(offset: u64, at: Timestamp, data: Bytes) -> Self {
        Self { offset, at, data }
    }
}

/// Records that were read of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Records {
    /// The records, in the order of their offsets, without gaps. None: there was nothing yet.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: u64,
    /// The offset that the next record of the stream will have, as of the read. When it is `next`, there was nothing more.
    pub tail: u64,
}

impl Records {
    /// These records, of a stream with this tail.
    pub fn new(records: Vec<Record>, next: u64, tail: u64) -> Self {
        Self { records, next, tail }
    }
}
