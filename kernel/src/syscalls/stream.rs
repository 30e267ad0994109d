//! Content that is larger than memory: the syscalls `SysRead` and `SysWrite`, with their bytes one after the other.
//!
//! A read passes resolvers, gate and hooks once, when it is opened. A write goes the way of every write, and its bytes come between the
//! hooks that run before it and the path lock: a slow writer holds up nobody, and what is there is checked when all bytes are safe.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use nexus_messages::syscall::{Extent, Place, ReadData, SysRead, SysWrite, Written};
use nexus_messages::{Caller, EntryType, Error, ErrorKind, FileMetadata, Result};

use super::admit::admit;
use super::mutate::{begin, carry_out, writable};
use super::past::then;
use crate::kernel::Kernel;
use crate::volume::{Intake, Source, Stop};

/// A part of a file's content, piece by piece; see [`Kernel::open_stream`].
pub struct ContentReader {
    metadata: Arc<FileMetadata>,
    source: Source,
    is_over: bool,
}

impl ContentReader {
    /// The file whose content this is, as it was when the stream was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        &self.metadata
    }

    /// The next bytes, never none; at the end nothing. After an error the stream is at its end.
    ///
    /// # Errors
    /// `EIO` when the content is damaged; `EBUSY` when it is a plain file's, and that changed since the stream was opened.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.is_over {
            return None;
        }
        let next = self.source.next().await.transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl fmt::Debug for ContentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentReader").field("path", &self.metadata.path).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens the content that `call` asks for, one run of it, as a stream. What is written to the file later is not in it.
    ///
    /// # Errors
    /// As [`SysRead`]; `EINVAL` for several runs.
    pub async fn open_stream(self: &Arc<Self>, caller: &Arc<Caller>, call: SysRead) -> Result<ContentReader> {
        let counted = self.syscalls().begin(SysRead::OP, self.env());
        let opened = Box::pin(open(self, caller, call)).await;
        counted.with(opened.as_ref().err().map(Error::errno));
        opened
    }

    /// Makes what comes from `data` the content that `call` writes. `call` has no bytes of its own, and replaces the whole content. Nothing is held
    /// but a few chunks. The path is locked, and what the call expects to find is looked at, once all bytes are safe. A stream that ends with an
    /// error, or whose future is dropped before, changes nothing.
    ///
    /// Hooks see the call without its bytes.
    ///
    /// # Errors
    /// As [`SysWrite`]; the error that comes from `data`; `EINVAL` for a call with bytes, `EOPNOTSUPP` for one that does not replace the whole content;
    /// `EBUSY` when another mount was attached over the path meanwhile.
    pub async fn write_stream<S>(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        call: SysWrite,
        data: S,
    ) -> Result<Written>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let counted = self.syscalls().begin(SysWrite::OP, self.env());
        let written = Box::pin(write(self, caller, call, data)).await;
        counted.with(written.as_ref().err().map(Error::errno));
        written
    }
}

async fn open(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysRead) -> Result<ContentReader> {
    let Extent::One(range) = call.extent else {
        let error = Error::new(SysRead::OP, &call.path, ErrorKind::InvalidArgument);
        return Err(error.because("a stream has one run of bytes"));
    };
    let admitted = admit(kernel, caller, call, None).await?;
    let opened = async {
        let located = match admitted.call.as_of {
            None => admitted.first.clone(),
            Some(as_of) => then(kernel, caller, &admitted.call, &admitted.first, as_of).await?,
        };
        let (site, node) = located.existing(SysRead::OP)?;
        match node.metadata.entry_type {
            EntryType::Reg => {}
            EntryType::Dir | EntryType::Mount => {
                return Err(Error::new(SysRead::OP, &site.path, ErrorKind::IsADirectory));
            }
            _ => return Err(Error::new(SysRead::OP, &site.path, ErrorKind::NotSupported)),
        }
        let source = Source::open(kernel, SysRead::OP, &site, &node, range).await?;
        Ok(ContentReader { metadata: node.metadata, source, is_over: false })
    };
    let opened = opened.await;
    let told = opened.as_ref().map(|opened| ReadData::new(Bytes::new(), opened.metadata.clone()));
    admitted.after(&told.map_err(Error::clone)).await;
    opened
}

async fn write(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: SysWrite,
    data: impl Stream<Item = Result<Bytes>> + Send,
) -> Result<Written> {
    if !call.data.is_empty() {
        let error = Error::new(SysWrite::OP, &call.path, ErrorKind::InvalidArgument);
        return Err(error.because("a write whose bytes come as a stream has none of its own"));
    }
    if call.place != Place::Whole {
        let error = Error::new(SysWrite::OP, &call.path, ErrorKind::NotSupported);
        return Err(error.because("a stream becomes the whole content"));
    }
    let (mut intent, admitted) = begin(kernel, caller, call).await?;
    let taken = async {
        // Before the first byte is kept: also what is beside the file would be a change.
        writable(&intent, &admitted.first.site)?;
        let mut intake = Intake::begin(kernel, SysWrite::OP, &admitted.first.site).await?;
        let mut data = std::pin::pin!(data);
        while let Some(piece) = data.next().await {
            intake.take(piece?).await?;
        }
        match intake.finish(&intent).await {
            Ok(staged) => Ok(staged),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Again) => Err(Error::new(SysWrite::OP, &admitted.first.site.path, ErrorKind::Busy)),
        }
    };
    let staged = match taken.await {
        Ok(staged) => staged,
        Err(error) => {
            let refused = Err(error);
            admitted.after(&refused).await;
            return refused;
        }
    };
    let size = staged.size();
    intent.staged = Some(staged);
    let mut written = carry_out(kernel, intent, admitted).await?;
    // A repeat is answered from the call, which does not have the bytes.
    written.written = size;
    Ok(written)
}
