//! Content that is larger than memory, in and out.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use nexus_kernel::ContentReader;
use nexus_messages::syscall::{SysRead, SysWrite, Written};
use nexus_messages::{FileMetadata, IntoPath, Op, Result};

use crate::attach::RemoteReader;
use crate::handle::{Link, Nexus, path};

/// The content of a file, piece by piece; see [`Nexus::stream`].
///
/// A few pieces are read ahead. What is written to the file after the stream was opened is not in it; on a mount of plain files, whose content is
/// overwritten in place, such a stream ends with an error.
pub struct ContentStream(Inner);

enum Inner {
    Local(Box<ContentReader>),
    Remote(RemoteReader),
}

impl Nexus {
    /// The whole content of the file as a stream.
    ///
    /// # Errors
    /// As [`read`](Self::read); what is wrong with the content is told when it is come to.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// nx.write("/large", vec![7; 3_000_000]).await?;
    /// let mut stream = nx.stream("/large").await?;
    /// let mut size = 0;
    /// while let Some(piece) = stream.next().await {
    ///     size += piece?.len();
    /// }
    /// assert_eq!(size, 3_000_000);
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub async fn stream(&self, at: impl IntoPath) -> Result<ContentStream> {
        self.stream_range(at, ..).await
    }

    /// A part of the file as a stream: fewer bytes where the content ends, none beyond it.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub async fn stream_range(
        &self,
        at: impl IntoPath,
        range: impl RangeBounds<u64>,
    ) -> Result<ContentStream> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match range.start_bound() {
            Included(start) => *start,
            Excluded(before) => before.saturating_add(1),
            Unbounded => 0,
        };
        let call = SysRead::at(path(Op::Read, at)?);
        let call = match range.end_bound() {
            Included(last) => call.range(start, last.saturating_add(1).saturating_sub(start)),
            Excluded(end) => call.range(start, end.saturating_sub(start)),
            Unbounded => call.from_offset(start),
        };
        self.open_stream(call).await
    }

    /// What `call` reads, one run of bytes, as a stream.
    ///
    /// # Errors
    /// As [`stream`](Self::stream); `EINVAL` for several runs.
    pub async fn open_stream(&self, call: SysRead) -> Result<ContentStream> {
        let inner = match &self.link {
            Link::Local(machine) => {
                machine.serving_for(Op::Read)?;
                let opened = machine.kernel.open_stream(self.shared_caller(), call).await;
                Inner::Local(Box::new(opened.map_err(|error| machine.told(error))?))
            }
            Link::Remote(remote) => {
                Inner::Remote(RemoteReader::open(remote, self.shared_caller(), call).await?)
            }
        };
        Ok(ContentStream(inner))
    }

    /// Makes what comes from `data` the whole content of the file, and makes the file when it is missing: all of it in one commit, or nothing. A few pieces are
    /// in memory at a time. The path is not locked while the pieces come, so a slow stream holds up nobody. An error in `data` is given back, and
    /// nothing has changed then; nor has it when the future is dropped before the last piece came.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use futures_util::stream;
    /// use nexus::Bytes;
    ///
    /// let pieces = (0..1_000u32).map(|n| Ok(Bytes::from(format!("line {n}\n"))));
    /// let written = nx.write_stream("/log", stream::iter(pieces)).await?;
    /// assert_eq!(written.metadata.size, nx.stat("/log").await?.size);
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub async fn write_stream<S>(&self, at: impl IntoPath, data: S) -> Result<Written>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        self.send_stream(SysWrite::vectored(path(Op::Write, at)?, Vec::new()).create(), data).await
    }

    /// Does what `call` says, with the bytes that come from `data`. `call` has none, and replaces the whole content; its preconditions are checked when all bytes have
    /// come.
    ///
    /// # Errors
    /// As [`write_stream`](Self::write_stream), and what `call` expects and does not find.
    pub async fn send_stream<S>(&self, call: SysWrite, data: S) -> Result<Written>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        match &self.link {
            Link::Local(machine) => {
                machine.serving_for(Op::Write)?;
                let written = machine.kernel.write_stream(self.shared_caller(), call, data).await;
                written.map_err(|error| machine.told(error))
            }
            Link::Remote(remote) => remote.write_stream(self.shared_caller(), call, data).await,
        }
    }
}

impl ContentStream {
    /// The file whose content this is, as it was when the stream was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        match &self.0 {
            Inner::Local(reader) => reader.metadata(),
            Inner::Remote(reader) => reader.metadata(),
        }
    }

    /// The next bytes, never none; at the end nothing. After an error the stream is at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        match &mut self.0 {
            Inner::Local(reader) => reader.next().await,
            Inner::Remote(reader) => reader.next().await,
        }
    }

    /// The stream as others take one.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::unfold(self, |mut stream| async move { stream.next().await.map(|piece| (piece, stream)) })
    }
}

impl fmt::Debug for ContentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentStream").field("path", &self.metadata().path).finish_non_exhaustive()
    }
}
