//! Streams: records that are appended, and read again from any place, by any number of readers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::{ErrorKind, FileId, OpId, Timestamp};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// The largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// How many records one append has at most.
pub const APPEND_RECORDS_MAX: usize = 1_024;

/// How many bytes one append costs at most; see [`cost_of`].
pub const APPEND_BYTES_MAX: u64 = 4 << 20;

/// How many records are read at once at most.
pub const READ_RECORDS_MAX: usize = 16_384;

/// How many bytes are read at once at most, by what the records cost.
pub const READ_BYTES_MAX: u64 = 8 << 20;

/// What a record costs beside its content, in bytes, of what a stream may hold: so a stream of records without content has an end, too.
pub const RECORD_COST: u64 = 4;

/// Of how many appends with an identity each stream knows that they were executed: of the last ones.
pub const STREAM_OPS_KEPT: usize = 128;

const _: () = assert!(RECORD_BYTES_MAX as u64 + RECORD_COST <= APPEND_BYTES_MAX);

/// What a stream's operation gives. It may be polled by any executor.
pub type StreamFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StreamError>> + Send + 'a>>;

/// Many streams, each known by an identity that is never used again. This is what a kind of streams implements: in memory, as a log on disk, and others.
///
/// A record has a number, its **offset**: the first of a stream is 0, and each next one has the next number, without gaps, over the end of the process,
/// too; no number is given twice to what was acknowledged. An append is there as a whole or not at all, and what one append brings stands side by side. Readers
/// take nothing away: each has its own offset, and keeps it itself. What a reader was given is as durable as the store is.
///
/// Nobody waits here for what comes: who waits above is told each new tail by the appends. Nothing blocks the thread that polls. Times are given, never
/// taken. A driver is done when `hal::conformance::stream_store` passes.
pub trait StreamStore: fmt::Debug + Send + Sync + 'static {
    /// Whether what was acknowledged, and what was read, survives the process and the loss of power.
    fn is_durable(&self) -> bool;

    /// Makes the stream, empty and open; one that is there is given these limits, and keeps all else. They hold from the next append or
    /// [`retain`](Self::retain) on. Durable on return. Repeat: safe.
    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState>;

    /// Puts records at the tail, durable on return, and lets go of what the limits no longer keep, as of the append's time; it tells where they are. Appends of many
    /// writers share what makes them durable. What is asked for while the future is polled may be executed although the future is dropped.
    ///
    /// Repeat: safe with an identity, as long as it is among the last [`STREAM_OPS_KEPT`] of its stream: it tells where the records of the first time are or
    /// were, also when the stream was closed since. Without one, records may be there twice.
    ///
    /// # Errors
    ///
    /// [`StreamError::Closed`], [`StreamError::Full`], [`StreamError::TooLarge`], [`StreamError::Empty`]: nothing was done. Whether it may have been,
    /// [`StreamError::is_unknown`] tells.
    fn append(&self, stream: FileId, append: Append) -> StreamFuture<'_, Appended>;

    /// As [`append`](Self::append), of a store that waits for nobody meanwhile. None, and nothing is done: it is one that may.
    fn append_at_once(&self, stream: FileId, append: &Append) -> Option<Result<Appended, StreamError>> {
        let _ = (stream, append);
        None
    }

    /// The records from `from` on, as many as `most` allows and at least one when there is one; none at the tail. Repeat: safe.
    ///
    /// # Errors
    ///
    /// [`StreamError::Trimmed`] with the oldest when `from` is no longer there, [`StreamError::BeyondTail`] when it is not there yet, and
    /// [`StoreError::Corrupt`] when a record is not what was written: none is left out, and those before it can be read.
    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead>;

    /// As [`read`](Self::read), of a store that waits for nobody meanwhile. None: it is one that may.
    fn read_at_once(
        &self,
        stream: FileId,
        from: u64,
        most: ReadBounds,
    ) -> Option<Result<StreamRead, StreamError>> {
        let _ = (stream, from, most);
        None
    }

    /// What the stream is now. Repeat: safe.
    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState>;

    /// Lets go of the appends all of whose records are before `before`: of the one that reaches over it nothing goes. Durable on return. Repeat: safe.
    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState>;

    /// Lets go of what the stream's limits do not keep at the time `now`: for streams to which nothing is appended. Durable on return. Repeat: safe.
    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState>;

    /// Takes no more appends; what is there stays readable. Durable on return. Repeat: safe.
    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState>;

    /// Forgets the stream, and says whether there was one. Durable on return. Its identity must not be used again. Repeat: safe.
    fn remove(&self, stream: FileId) -> StreamFuture<'_, bool>;

    /// Waits until the stream has another tail than this, or is closed or gone, by what somebody does who is not asked here: another process. What is appended here tells
    /// its new tail itself. May end early. Where nobody else can, it never ends.
    fn grown(&self, stream: FileId, tail: u64) -> StreamFuture<'_, ()> {
        let _ = (stream, tail);
        Box::pin(std::future::pending())
    }

    /// The streams whose identities are above `after`, in their order, at most `limit`. Repeat: safe.
    fn list(&self, after: Option<FileId>, limit: usize) -> StreamFuture<'_, Vec<FileId>>;
}

/// What a stream keeps. What is let go of is always the oldest, and whole appends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamLimits {
    /// How many bytes it holds at most, by what its records [cost](cost_of); none for as many as the store has room for.
    pub bytes_max: Option<u64>,
    /// For how long a record is kept at most, counted from the time of its append; none for ever.
    pub age_max: Option<Duration>,
    /// What is done with an append for which there is no room.
    pub when_full: WhenFull,
}

impl StreamLimits {
    /// No limits.
    pub const NONE: Self = Self { bytes_max: None, age_max: None, when_full: WhenFull::DropOldest };

    /// Holds at most so many bytes.
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

    /// Says what is done with an append for which there is no room.
    #[must_use]
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }
}

/// What is done with an append for which a stream has no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenFull {
    /// The oldest appends go.
    #[default]
    DropOldest,
    /// The append is refused; somebody has to trim.
    Refuse,
}

/// Records that are put at a stream's tail together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Append {
    /// The records. At least one, at most [`APPEND_RECORDS_MAX`], each of at most [`RECORD_BYTES_MAX`] bytes; all together cost at most
    /// [`APPEND_BYTES_MAX`].
    pub records: Vec<Bytes>,
    /// When.
    pub at: Timestamp,
    /// Its identity, if it may come again.
    pub op: Option<OpId>,
}

impl Append {
    /// Records that are appended at this time.
    pub fn new(records: impl IntoIterator<Item = Bytes>, at: Timestamp) -> Self {
        Self { records: records.into_iter().collect(), at, op: None }
    }

    /// Gives it an identity: sent again, it is not executed again.
    #[must_use]
    pub fn op(mut self, op: OpId) -> Self {
        self.op = Some(op);
        self
    }

    /// What the records cost, in bytes. To be asked before anything is done.
    ///
    /// # Errors
    ///
    /// [`StreamError::Empty`] and [`StreamError::TooLarge`].
    pub fn check(&self) -> Result<u64, StreamError> {
        if self.records.is_empty() {
            return Err(StreamError::Empty);
        }
        let too_large = |what, found: u64, most: u64| StreamError::TooLarge { what, found, most };
        if self.records.len() > APPEND_RECORDS_MAX {
            let (found, most) = (self.records.len() as u64, APPEND_RECORDS_MAX as u64);
            return Err(too_large("records in an append", found, most));
        }
        if let Some(record) = self.records.iter().find(|record| record.len() > RECORD_BYTES_MAX) {
            return Err(too_large("bytes in a record", record.len() as u64, RECORD_BYTES_MAX as u64));
        }
        let cost = cost_of(self.records.iter().map(Bytes::len));
        if cost > APPEND_BYTES_MAX {
            return Err(too_large("bytes in an append", cost, APPEND_BYTES_MAX));
        }
        Ok(cost)
    }
}

/// What records of these lengths cost, in bytes: their content, and [`RECORD_COST`] each.
pub fn cost_of(lengths: impl IntoIterator<Item = usize>) -> u64 {
    lengths.into_iter().map(|length| length as u64 + RECORD_COST).sum()
}

/// Where records are that were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The offset of the first one.
    pub first: u64,
    /// How many there are.
    pub count: u64,
    /// The stream's tail, as of then or later: readers that wait for less than this have something to read.
    pub tail: u64,
    /// Whether it was executed before, and not now.
    pub repeated: bool,
}

impl Appended {
    /// So many records from `first` on.
    pub fn new(first: u64, count: u64, tail: u64, repeated: bool) -> Self {
        Self { first, count, tail, repeated }
    }
}

/// How much is read at once. In any case no more than [`READ_RECORDS_MAX`] records, which cost no more than [`READ_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadBounds {
    /// At most so many records; 0 counts as 1.
    pub records: usize,
    /// Records that cost at most so many bytes together; one always may.
    pub bytes: u64,
}

impl ReadBounds {
    /// No bounds but those that every read has.
    pub const ALL: Self = Self { records: usize::MAX, bytes: u64::MAX };

    /// At most so many records, which cost at most so many bytes together.
    pub fn new(records: usize, bytes: u64) -> Self {
        Self { records, bytes }
    }

    /// Whether one more record of this length fits behind `count` that cost `bytes`.
    pub fn allow(self, count: usize, bytes: u64, length: usize) -> bool {
        let (records, most) = (self.records.min(READ_RECORDS_MAX), self.bytes.min(READ_BYTES_MAX));
        count == 0 || (count < records && bytes.saturating_add(cost_of([length])) <= most)
    }
}

/// Records that were read, and what the stream was then.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamRead {
    /// The records, in the order of their offsets, without gaps.
    pub records: Vec<StreamRecord>,
    /// Where to go on: behind the last record, or where the read began when there was none.
    pub next: u64,
    /// The stream's tail. When it is `next`, there was nothing more.
    pub tail: u64,
    /// Whether the stream was closed: at its tail nothing will come any more.
    pub closed: bool,
}

impl StreamRead {
    /// What was read from `from` on.
    pub fn new(from: u64, records: Vec<StreamRecord>, tail: u64, closed: bool) -> Self {
        Self { next: from + records.len() as u64, records, tail, closed }
    }

    /// Whether all was read that there ever will be.
    pub fn is_end(&self) -> bool {
        self.closed && self.next == self.tail
    }
}

/// A record of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamRecord {
    /// Its number.
    pub offset: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// What it holds.
    pub data: Bytes,
}

impl StreamRecord {
    /// A record.
    pub fn new(offset: u64, at: Timestamp, data: Bytes) -> Self {
        Self { offset, at, data }
    }
}

/// What a stream is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamState {
    /// The offset of the oldest record that is there; the tail, when there is none.
    pub head: u64,
    /// The offset that the next record will have. It never goes down.
    pub tail: u64,
    /// What the records cost that are there, in bytes.
    pub bytes: u64,
    /// Whether it takes no more appends.
    pub closed: bool,
    /// What it keeps.
    pub limits: StreamLimits,
}

impl StreamState {
    /// An empty, open stream.
    pub fn new(limits: StreamLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// This one, closed.
    #[must_use]
    pub fn closed(self) -> Self {
        Self { closed: true, ..self }
    }

    /// This one, with other limits.
    #[must_use]
    pub fn limited(self, limits: StreamLimits) -> Self {
        Self { limits, ..self }
    }
}

/// Why an operation on a stream failed. Nothing was changed, unless [`is_unknown`](Self::is_unknown) says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// There is no such stream.
    #[error("there is no stream {stream}")]
    NoStream {
        /// Its identity.
        stream: FileId,
    },
    /// What was to be read is not kept any more.
    #[error("the stream is kept from offset {head} on, and {from} was asked for")]
    Trimmed {
        /// Where the read was to begin.
        from: u64,
        /// The oldest that is there; the tail, when nothing is.
        head: u64,
    },
    /// What was to be read is not there yet, not even as the next one.
    #[error("the stream ends at offset {tail}, and {from} was asked for")]
    BeyondTail {
        /// Where the read was to begin.
        from: u64,
        /// The offset that the next record will have.
        tail: u64,
    },
    /// The stream takes no more appends.
    #[error("the stream was closed at offset {tail}")]
    Closed {
        /// Its tail, for ever.
        tail: u64,
    },
    /// The stream has no room for the append, and may not drop what it has.
    #[error("the stream holds {held} of {most} bytes, and {wanted} more were to be appended")]
    Full {
        /// What its records cost.
        held: u64,
        /// What they may cost.
        most: u64,
        /// What the append costs.
        wanted: u64,
    },
    /// An append is larger than can be, or than its stream can ever hold.
    #[error("{found} {what}, of which there may be {most}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much was given.
        found: u64,
        /// How much may be.
        most: u64,
    },
    /// An append has no records.
    #[error("there is nothing to append")]
    Empty,
    /// The store has as many streams as it can.
    #[error("there are {most} streams, and there can be no more")]
    TooMany {
        /// How many there can be.
        most: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StreamError {
    /// The kind that a caller sees.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoStream { .. } => ErrorKind::NotFound,
            Self::Trimmed { .. } => ErrorKind::NotKept,
            Self::BeyondTail { .. } | Self::Empty => ErrorKind::InvalidArgument,
            Self::Closed { .. } => ErrorKind::ReadOnly,
            Self::Full { .. } | Self::TooMany { .. } => ErrorKind::StoreFull,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Store(error) => error.kind(),
        }
    }

    /// Whether the operation may have been carried out all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_unknown())
    }
}
