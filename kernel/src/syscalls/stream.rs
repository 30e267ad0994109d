//! Content that is larger than memory: the syscalls `SysRead` and `SysWrite`, with their bytes one after the other.
//!
//! A read passes resolvers, gate and hooks once, when it is opened. A write passes the gate before its first byte, and goes the way of every write when all its
//! bytes are safe: a slow writer holds up nobody, not even a swap of a service with hooks.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use nexus_messages::syscall::{ByteRange, Extent, Place, ReadData, SysRead, SysWrite, Written};
use nexus_messages::{Caller, Error, ErrorKind, FileMetadata, Result};

use super::admit::{Admissible, Admitted, admit, pass, resolve};
use super::locate::{ATTEMPTS_MAX, Located};
use super::mutate::{begin_as, carry_out, intent, passing, writable};
use super::past::then;
use super::pipe;
use crate::content;
use crate::kernel::Kernel;
use crate::volume::{Intake, Intent, Site, Source, Staged, Stop};

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
    /// Hooks see the call when all has come, without its bytes but with their number. They may send it to another path of the same mount, unless its driver has bound
    /// what came to the first one, as buckets do with large content: `EOPNOTSUPP`.
    ///
    /// # Errors
    /// As [`SysWrite`]; the error that comes from `data`; `EINVAL` for a call with bytes, `EOPNOTSUPP` for one that does not replace the whole content;
    /// `EBUSY` when the path leads to another mount by then, or the mount's files have moved to another driver; `EACCES` when a hook gave the call bytes.
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
    pipe::check_not_meant(SysRead::OP, &call.path, call.pipe)?;
    let Extent::One(range) = call.extent else {
        let error = Error::new(SysRead::OP, &call.path, ErrorKind::InvalidArgument);
        return Err(error.because("a stream has one run of bytes"));
    };
    let mut admitted = admit(kernel, caller, call, None).await?;
    let mut attempts = 0..ATTEMPTS_MAX;
    let opened = loop {
        let located = match led_to(kernel, caller, &admitted).await {
            Ok(located) => located,
            Err(error) => break Err(error),
        };
        let opened = open_at(kernel, &located, range).await;
        // What it reads is held now. When the path leads to it still, it was there when it was held, and stays.
        let now = match pass(kernel, caller, &admitted.call).await {
            Ok((now, _)) => now,
            Err(error) => break opened.and(Err(error)),
        };
        admitted.first = now;
        let now = match led_to(kernel, caller, &admitted).await {
            Ok(now) => now,
            Err(error) => break opened.and(Err(error)),
        };
        if now.has_same_content(&located) || attempts.next().is_none() {
            break opened;
        }
    };
    let told = opened.as_ref().map(|opened| ReadData::new(Bytes::new(), opened.metadata.clone()));
    admitted.after(&told.map_err(Error::clone)).await;
    opened
}

/// What the stream is to be of: what is there, or was then.
async fn led_to(kernel: &Arc<Kernel>, caller: &Arc<Caller>, admitted: &Admitted<SysRead>) -> Result<Located> {
    match admitted.call.as_of {
        None => Ok(admitted.first.clone()),
        Some(as_of) => then(kernel, caller, &admitted.call, &admitted.first, as_of).await,
    }
}

async fn open_at(kernel: &Arc<Kernel>, located: &Located, range: ByteRange) -> Result<ContentReader> {
    let (site, node) = located.clone().existing_file(SysRead::OP)?;
    let source = Source::open(kernel, SysRead::OP, &site, &node, range).await?;
    Ok(ContentReader { metadata: node.metadata, source, is_over: false })
}

async fn write(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: SysWrite,
    data: impl Stream<Item = Result<Bytes>> + Send,
) -> Result<Written> {
    if content::length(&call.data) > 0 {
        let error = Error::new(SysWrite::OP, &call.path, ErrorKind::InvalidArgument);
        return Err(error.because("a write whose bytes come as a stream has none of its own"));
    }
    if call.place != Place::Whole {
        let error = Error::new(SysWrite::OP, &call.path, ErrorKind::NotSupported);
        return Err(error.because("a stream becomes the whole content"));
    }
    pipe::check_not_meant(SysWrite::OP, &call.path, call.pipe)?;
    call.validate()?;
    let mut intent = intent(kernel, caller, &call);
    let passing = passing(kernel, &intent, &call);
    let staged = take(kernel, &intent, call.clone(), data).await?;
    let size = staged.size();
    intent.staged = Some(staged.clone());
    // Only now, with nothing to wait for: from its first hook to its last a call holds the services whose hooks it meets, and who swaps one waits for it.
    let (intent, admitted) = begin_as(kernel, intent, call).await?;
    if let Err(error) = unharmed(&admitted.call, &admitted.first.site, &staged) {
        let refused = Err(error);
        admitted.after(&refused).await;
        return refused;
    }
    let mut written = carry_out(kernel, intent, passing, admitted).await?;
    // A repeat is answered from the call, which does not have the bytes.
    written.written = size;
    Ok(written)
}

/// Takes all that comes, once it is clear that the call may be made, and makes it safe where the call leads now.
async fn take(
    kernel: &Arc<Kernel>,
    intent: &Intent,
    mut call: SysWrite,
    data: impl Stream<Item = Result<Bytes>> + Send,
) -> Result<Staged> {
    resolve(kernel, &intent.caller, &mut call).await?;
    let (Located { site, .. }, _) = pass(kernel, &intent.caller, &call).await?;
    // Before the first byte is kept: also what is beside the file would be a change.
    writable(intent, &site)?;
    let mut intake = Intake::begin(kernel, SysWrite::OP, &site).await?;
    let mut data = std::pin::pin!(data);
    while let Some(piece) = data.next().await {
        intake.take(piece?).await?;
    }
    intake.finish(intent).await.map_err(|stop| match stop {
        Stop::Failed(error) => error,
        Stop::Again => Error::new(SysWrite::OP, &site.path, ErrorKind::Busy),
    })
}

/// Whether hooks left a call as it can still be made: its bytes are where it led before they were asked.
fn unharmed(call: &SysWrite, site: &Site, staged: &Staged) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(SysWrite::OP, &site.path, ErrorKind::Refused).because(why));
    if content::length(&call.data) > 0 || call.place != Place::Whole {
        return refuse("a hook gave bytes to a write whose bytes came as a stream");
    }
    if !staged.is_on(&site.mount) {
        let error = Error::new(SysWrite::OP, &site.path, ErrorKind::Busy);
        return Err(error.because("the path leads to another mount since the stream began"));
    }
    Ok(())
}
