//! Streams: made, appended to, and read by readers that know how far they are.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::syscall::{
    Record, RecordRange, SetattrDone, StreamSpec, StreamStart, SysRead, SysSetattr, SysWrite, Written,
};
use nexus_messages::{EntryType, Error, ErrorKind, IntoPath, Op, Result, VPath};

use crate::handle::{Nexus, path};

/// How many records a reader asks for at once.
const READ_AHEAD_RECORDS: u64 = 256;

/// How many bytes a reader asks for at once.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// Reads the records of a stream one after the other; see [`Nexus::stream_reader`].
pub struct StreamReader {
    nx: Nexus,
    path: VPath,
    from: StreamStart,
    /// What was read and not given yet.
    ahead: VecDeque<Record>,
}

impl Nexus {
    /// Makes a stream: agents append records through its path, and any number of readers read them from any offset. Nothing happens when there is one, however it was made. Its
    /// records are on disk where those of files are that outlive the process, and in memory elsewhere, unless `spec` says where.
    ///
    /// # Errors
    /// `EINVAL` for limits that no stream has, `EEXIST` when something else is there, `EOPNOTSUPP` where files are found by their paths, and for records on
    /// disk where entries end with the process.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::{StreamSpec, StreamStart};
    ///
    /// nx.make_stream("/log", StreamSpec::new().bytes_max(1 << 20)).await?;
    /// assert_eq!(nx.append_record("/log", "began").await?, 0);
    /// assert_eq!(nx.append_record("/log", "ended").await?, 1);
    /// let mut reader = nx.stream_reader("/log", StreamStart::Oldest)?;
    /// assert_eq!(reader.next(None).await?.unwrap().data, "began");
    /// let ended = reader.next(None).await?.unwrap();
    /// assert_eq!((ended.offset, &ended.data[..]), (1, &b"ended"[..]));
    /// assert_eq!(reader.next(None).await?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn make_stream(&self, at: impl IntoPath, spec: StreamSpec) -> Result<SetattrDone> {
        self.send(SysSetattr::stream_with(path(Op::Setattr, at)?, spec)).await
    }

    /// Appends one record to the stream, and tells its offset. It is on disk when this returns, if the stream is.
    ///
    /// # Errors
    /// As [`SysWrite`] to a stream; `EOPNOTSUPP` for what is no stream.
    pub async fn append_record(&self, at: impl IntoPath, record: impl Into<Bytes>) -> Result<u64> {
        self.append_records(at, vec![record.into()]).await
    }

    /// Appends records to the stream, side by side and all or none, and tells the offset of the first.
    ///
    /// # Errors
    /// As [`append_record`](Self::append_record).
    pub async fn append_records(&self, at: impl IntoPath, records: Vec<Bytes>) -> Result<u64> {
        let at = path(Op::Write, at)?;
        let there = self.stat(&at).await.map_err(|error| error.during(Op::Write))?;
        if there.entry_type != EntryType::Stream {
            return Err(Error::new(Op::Write, &at, ErrorKind::NotSupported).because("it is no stream"));
        }
        let written: Written = self.send(SysWrite::vectored(&at, records).append()).await?;
        let first = written.first_record;
        first.ok_or_else(|| {
            Error::new(Op::Write, &at, ErrorKind::NotSupported).because("it is no stream any more")
        })
    }

    /// Reads the records of the stream one after the other, from here on. The reader is in this handle alone: nothing is asked of the kernel before the first
    /// record is, and another reader sees the same records.
    ///
    /// # Errors
    /// `EINVAL` for what is no path.
    pub fn stream_reader(&self, at: impl IntoPath, from: impl Into<StreamStart>) -> Result<StreamReader> {
        let path = path(Op::Read, at)?;
        Ok(StreamReader { nx: self.clone(), path, from: from.into(), ahead: VecDeque::new() })
    }
}

impl StreamReader {
    /// Where it goes on: from the record after the last one that it gave. To be kept by who wants to go on in another process.
    pub fn position(&self) -> StreamStart {
        self.ahead.front().map_or(self.from, |record| StreamStart::At(record.offset))
    }

    /// The next record, which it waits for so long; none when there is none yet, or none came. Dropping the future passes over nothing.
    ///
    /// A reader that begins at the tail and waits in vain begins at the tail anew the next time, unless it asked once without waiting.
    ///
    /// # Errors
    /// `ENODATA` when the next record is not kept any more, and the cause tells the oldest; `ENOENT` when the stream is removed, also meanwhile; `EINVAL` for an offset
    /// beyond the tail, and for what is no stream.
    pub async fn next(&mut self, wait: Option<Duration>) -> Result<Option<Record>> {
        if let Some(record) = self.ahead.pop_front() {
            return Ok(Some(record));
        }
        let range = RecordRange::from(self.from).records_max(READ_AHEAD_RECORDS).bytes_max(READ_AHEAD_BYTES);
        let mut call = SysRead::at(&self.path).records(range);
        call.wait = wait;
        let read = match self.nx.send(call).await {
            Err(error) if wait.is_some() && error.kind() == ErrorKind::TimedOut => return Ok(None),
            read => read?,
        };
        if let Some(records) = read.records {
            self.from = StreamStart::At(records.next);
            self.ahead = records.records.into();
        }
        Ok(self.ahead.pop_front())
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader")
            .field("path", &self.path)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
