//! Streams in memory that processes share, mapped: appended to and read with no message to anybody.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, SHARED_LOOKS, Sleepers};
use nexus_drivers::streams::SharedStream;
use nexus_kernel::hal::{Append, ReadBounds, StreamError};
use nexus_messages::syscall::{Record, RecordRange, Records, StreamStart};
use nexus_messages::{Error, ErrorKind, FileMetadata, IntoPath, Op, Result, Timestamp, VPath};

use crate::handle::{Link, Nexus, path};

/// How often the oldest record is looked for anew that goes before it was read.
const OLDEST_ATTEMPTS_MAX: usize = 100;

/// A stream in shared memory; see [`Nexus::map_stream`].
pub struct MappedStream {
    stream: SharedStream,
    path: VPath,
    metadata: Arc<FileMetadata>,
    env: Env,
    sleepers: Sleepers,
}

impl Nexus {
    /// Maps the stream, which is in shared memory, into this process: appends and reads ask nobody from then on, and go on when the owner of the kernel dies. Whether the
    /// caller may read it and append to it is asked once, here. Who appends or reads through the path sees the same records.
    ///
    /// # Errors
    /// As `SysRead` and `SysWrite` of the stream; `EOPNOTSUPP` for what is no stream in shared memory, and while hooks or a permission provider are to see each call.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::{IoProfile, RecordRange, StreamSpec};
    ///
    /// nx.make_stream("/ticks", StreamSpec::new().io_profile(IoProfile::Shared)).await?;
    /// let ticks = nx.map_stream("/ticks").await?;
    /// assert_eq!(ticks.append(vec!["one".into(), "two".into()])?, 0);
    /// assert_eq!(nx.append_record("/ticks", "three").await?, 2);
    /// let read = ticks.read(RecordRange::from(1), None).await?;
    /// assert_eq!(read.records.iter().map(|record| &record.data[..]).collect::<Vec<_>>(), [&b"two"[..], b"three"]);
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub async fn map_stream(&self, at: impl IntoPath) -> Result<MappedStream> {
        let path = path(Op::Read, at)?;
        let caller = self.shared_caller();
        let ((writes, reads), env, sleepers) = match &self.link {
            Link::Local(machine) => {
                machine.serving_for(Op::Read)?;
                let kernel = &machine.kernel;
                let writes = kernel.shared_region(caller, &path, Op::Write).await?;
                let reads = kernel.shared_region(caller, &path, Op::Read).await?;
                ((writes, reads), machine.env().clone(), kernel.sleepers().cloned())
            }
            Link::Remote(remote) => {
                let writes = remote.region(caller, &path, Op::Write).await?;
                let reads = remote.region(caller, &path, Op::Read).await?;
                ((writes, reads), remote.env().clone(), Some(remote.sleepers().clone()))
            }
        };
        let not_one = |why: &str| Error::new(Op::Read, &path, ErrorKind::NotSupported).because(why);
        // What may be read and not appended to, or the other way round, goes through its owner; so does what became another stream between the two.
        let region =
            writes.zip(reads).filter(|(writes, reads)| writes.metadata.file_id == reads.metadata.file_id);
        let region = region.map(|(_, reads)| reads).zip(sleepers);
        let (region, sleepers) =
            region.ok_or_else(|| not_one("it is no stream in shared memory that may be mapped"))?;
        let mapped = SharedStream::map(Path::new(&region.file), region.store, region.metadata.file_id);
        let stream = mapped.map_err(|error| not_one(&format!("it cannot be mapped: {error}")))?;
        Ok(MappedStream { stream, path, metadata: region.metadata, env, sleepers })
    }
}

impl MappedStream {
    /// What the entry was when the stream was mapped.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        &self.metadata
    }

    fn fail(&self, op: Op, error: &StreamError) -> Error {
        Error::new(op, &self.path, error.kind()).because(error)
    }

    /// Appends records, side by side and all or none, and tells the offset of the first. Does not wait, but for the moment that somebody else appends.
    ///
    /// # Errors
    /// As of an append through the path; `EBUSY` when another process has stopped within one.
    pub fn append(&self, records: Vec<Bytes>) -> Result<u64> {
        let append = Append::new(records, Timestamp(self.env.wall()));
        let appended = self.stream.append(&append).map_err(|error| self.fail(Op::Write, &error))?;
        Ok(appended.first)
    }

    /// The records; at the tail none, or it waits for one for so long. Dropping the future changes nothing.
    ///
    /// # Errors
    /// As of a read through the path: `ENODATA` for what is not kept any more, `ETIMEDOUT` when nothing came.
    pub async fn read(&self, range: RecordRange, wait: Option<Duration>) -> Result<Records> {
        let (from, most, read) = self.begin(range)?;
        let Some(wait) = wait.filter(|_| read.records.is_empty()) else { return Ok(read) };
        // Its end is an answer of the next read.
        let grown = self.stream.grown(&self.sleepers, from);
        self.env.timeout(wait, grown).await.map_err(|_| self.nothing_came(wait))?;
        self.read_from(from, most)
    }

    /// As [`read`](Self::read), in this thread: it looks for some tens of microseconds before it sleeps, and is woken without a detour.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_here(&self, range: RecordRange, wait: Duration) -> Result<Records> {
        self.read_after(range, wait, SHARED_LOOKS)
    }

    /// As [`read_here`](Self::read_here): it looks so often before it sleeps; with 0 it sleeps at once.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_after(&self, range: RecordRange, wait: Duration, looks: u32) -> Result<Records> {
        let (from, most, read) = self.begin(range)?;
        if !read.records.is_empty() {
            return Ok(read);
        }
        if !self.stream.grown_after(&self.env, from, wait, looks) {
            return Err(self.nothing_came(wait));
        }
        self.read_from(from, most)
    }

    fn nothing_came(&self, wait: Duration) -> Error {
        let error = Error::new(Op::Read, &self.path, ErrorKind::TimedOut);
        error.because(format!("no record came within {wait:?}"))
    }

    /// Where the read begins, how much it gives at most, and what is there.
    fn begin(&self, range: RecordRange) -> Result<(u64, ReadBounds, Records)> {
        let state = || self.stream.state().map_err(|error| self.fail(Op::Read, &error));
        let records = usize::try_from(range.records_max).unwrap_or(usize::MAX);
        let most = ReadBounds::new(records, range.bytes_max);
        let mut attempts = 0..OLDEST_ATTEMPTS_MAX;
        loop {
            let from = match range.from {
                StreamStart::At(offset) => offset,
                StreamStart::Tail => state()?.tail,
                _ => state()?.head,
            };
            match self.read_from(from, most) {
                // The oldest has gone meanwhile: there is another one.
                Err(error)
                    if range.from == StreamStart::Oldest
                        && error.kind() == ErrorKind::NotKept
                        && attempts.next().is_some() => {}
                read => return Ok((from, most, read?)),
            }
        }
    }

    fn read_from(&self, from: u64, most: ReadBounds) -> Result<Records> {
        let read = self.stream.read(from, most).map_err(|error| self.fail(Op::Read, &error))?;
        let records =
            read.records.into_iter().map(|record| Record::new(record.offset, record.at, record.data));
        Ok(Records::new(records.collect(), read.next, read.tail))
    }
}

impl fmt::Debug for MappedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedStream").field("path", &self.path).finish_non_exhaustive()
    }
}
