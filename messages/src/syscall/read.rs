//! Reads content.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{AsOf, RecordRange, Records, StreamStart, WhichPipe};
use crate::metadata::FileMetadata;
use crate::path::VPath;

/// Reads content of the file at `path`. Links are followed. Changes nothing, may be repeated.
///
/// All parts of a reply come from one and the same content. What lies beyond the end is left out, not an error.
///
/// Of a pipe it takes the next message, whole, and repeating it takes another: see [`wait`](Self::wait). Without a message it is
/// [`WouldBlock`](crate::ErrorKind::WouldBlock), or [`TimedOut`](crate::ErrorKind::TimedOut) when it has waited; nothing was taken then. No bytes are the
/// end of the pipe: writers had opened it, and the last of them is gone. Who goes away before it hears of the message has not taken it: others read it then, before all others
/// that were written later, as far as those were not read meanwhile. `ENOENT` when the pipe is removed meanwhile. A pipe has neither ranges nor a
/// past: `EINVAL`.
///
/// Of a stream it gives [`records`](Self::records), which it takes from nobody, in [`ReadData::records`]. At the tail it gives none, or waits for the next one when
/// that is asked for; [`TimedOut`](crate::ErrorKind::TimedOut) when none came. [`NotKept`](crate::ErrorKind::NotKept) when the offset is older than what is
/// kept, and the cause tells the oldest; `EINVAL` when it is beyond the tail; `ENOENT` when the stream is removed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysRead {
    /// The file.
    pub path: VPath,
    /// Which part of it.
    pub extent: Extent,
    /// As of when; none for what is there now.
    pub as_of: Option<AsOf>,
    /// For how long to wait for a message of a pipe, or for a record at the tail of a stream; none for not at all. Of no matter for a file.
    pub wait: Option<Duration>,
    /// The pipe that must be there; none for whatever is.
    pub pipe: Option<WhichPipe>,
}

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// The first byte.
    pub offset: u64,
    /// How many bytes; none for all that follow.
    pub count: Option<u64>,
}

impl ByteRange {
    /// The whole content.
    pub const ALL: Self = Self { offset: 0, count: None };

    /// `count` bytes from `offset` on.
    pub fn new(offset: u64, count: u64) -> Self {
        Self { offset, count: Some(count) }
    }

    /// The part of a content of `size` bytes that the range covers, as start and end.
    pub fn within(self, size: u64) -> (u64, u64) {
        let start = self.offset.min(size);
        let end = match self.count {
            Some(count) => self.offset.saturating_add(count).clamp(start, size),
            None => size,
        };
        (start, end)
    }
}

/// Which parts of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Extent {
    /// One run of bytes.
    One(ByteRange),
    /// Several, in the order in which they are wanted; they may overlap.
    Vector(Vec<ByteRange>),
    /// Records of a stream.
    Records(RecordRange),
}

/// What [`SysRead`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReadData {
    /// The bytes of the one run asked for; of a vector, those of its first run.
    pub data: Bytes,
    /// The bytes of the further runs of a vector, in its order.
    pub more: Vec<Bytes>,
    /// The file whose content this is.
    pub metadata: Arc<FileMetadata>,
    /// The records of a stream; none for what is no stream.
    pub records: Option<Box<Records>>,
}

impl ReadData {
    /// One run of the content of the file that `metadata` describes.
    pub fn new(data: Bytes, metadata: Arc<FileMetadata>) -> Self {
        Self { data, more: Vec::new(), metadata, records: None }
    }

    /// Records of the stream that `metadata` describes.
    pub fn of_stream(records: Records, metadata: Arc<FileMetadata>) -> Self {
        Self { records: Some(Box::new(records)), ..Self::new(Bytes::new(), metadata) }
    }

    /// All runs, in the order in which they were asked for.
    pub fn runs(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.data).chain(&self.more)
    }
}

impl SysRead {
    /// Reads the whole content of the file at `path`.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self { path: path.into(), extent: Extent::One(ByteRange::ALL), as_of: None, wait: None, pipe: None }
    }

    /// Reads `count` bytes from `offset` on, as `pread` does.
    #[must_use]
    pub fn range(mut self, offset: u64, count: u64) -> Self {
        self.extent = Extent::One(ByteRange::new(offset, count));
        self
    }

    /// Reads all bytes from `offset` on.
    #[must_use]
    pub fn from_offset(mut self, offset: u64) -> Self {
        self.extent = Extent::One(ByteRange { offset, count: None });
        self
    }

    /// Reads several runs at once. An empty vector reads nothing.
    #[must_use]
    pub fn vectored(mut self, ranges: Vec<ByteRange>) -> Self {
        self.extent = Extent::Vector(ranges);
        self
    }

    /// Reads records of a stream from here on: from an offset, from the oldest, or from the tail.
    #[must_use]
    pub fn records_from(self, from: impl Into<StreamStart>) -> Self {
        self.records(RecordRange::from(from))
    }

    /// Reads these records of a stream.
    #[must_use]
    pub fn records(mut self, range: RecordRange) -> Self {
        self.extent = Extent::Records(range);
        self
    }

    /// Waits for a message of a pipe, or for a record at the tail of a stream, for so long at most.
    #[must_use]
    pub fn wait(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most);
        self
    }

    /// Reads a message of this pipe, and nothing else that is there.
    #[must_use]
    pub fn of_pipe(mut self, pipe: WhichPipe) -> Self {
        self.pipe = Some(pipe);
        self
    }

    /// Looks at what was there before.
    #[must_use]
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = Some(as_of);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_where_the_content_ends() {
        let check = |offset, count, expected| {
            let range = ByteRange { offset, count };
            assert_eq!(range.within(10), expected, "{range:?}");
        };
        check(0, None, (0, 10));
        check(3, Some(4), (3, 7));
        check(8, Some(50), (8, 10));
        check(10, Some(5), (10, 10));
        check(99, None, (10, 10));
        check(5, Some(u64::MAX), (5, 10));
        check(5, Some(0), (5, 5));
    }
}
