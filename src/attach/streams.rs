//! Streams of attached clients: content that comes and goes in pieces of bounded size.
//!
//! The owner's process has the stream; the client asks for piece after piece, or sends it. A client that goes away takes its streams along: what it
//! was writing is given up, because only the client says which piece was the last.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use nexus_kernel::{ContentReader, Kernel};
use nexus_messages::syscall::{SysRead, SysWrite, Written};
use nexus_messages::{Caller, Error, ErrorKind, FileMetadata, Op, Result};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::client::Remote;
use super::message::{Given, Request, Streaming};

/// Streams that one client may have open.
const STREAMS_MAX: usize = 64;

/// The largest piece that travels.
const PIECE_MAX: usize = 1 << 20;

/// Pieces of a stream that may wait to be taken by the kernel.
const PIECES_WAITING: usize = 2;

/// The streams that one client has open.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Inside>);

#[derive(Default)]
struct Inside {
    open: Mutex<HashMap<u64, Open>>,
}

enum Open {
    Reader(ContentReader),
    Writer(Writer),
}

struct Writer {
    pieces: mpsc::Sender<Piece>,
    written: oneshot::Receiver<Result<Written>>,
}

enum Piece {
    Data(Bytes),
    /// There are no more: the write may be committed.
    End,
}

impl Streams {
    pub(super) async fn serve(
        &self,
        kernel: &Arc<Kernel>,
        caller: &Arc<Caller>,
        call: Streaming,
    ) -> Result<Given> {
        match call {
            Streaming::Open(call) => {
                let number = self.number(kernel, Op::Read)?;
                let reader = kernel.open_stream(caller, call).await?;
                let metadata = reader.metadata().clone();
                self.put(number, Open::Reader(reader));
                Ok(Given::Opened(number, Some(metadata)))
            }
            Streaming::Next(number) => {
                let Some(Open::Reader(mut reader)) = self.take(number) else { return Err(gone(Op::Read)) };
                let (data, last) = gather(&mut reader).await?;
                if !last {
                    self.put(number, Open::Reader(reader));
                }
                Ok(Given::Piece(data, last))
            }
            Streaming::Begin(call) => {
                let number = self.number(kernel, Op::Write)?;
                self.put(number, Open::Writer(begin(kernel, caller, call)));
                Ok(Given::Opened(number, None))
            }
            Streaming::Piece(number, data) => {
                let Some(Open::Writer(writer)) = self.take(number) else { return Err(gone(Op::Write)) };
                if writer.pieces.send(Piece::Data(data)).await.is_err() {
                    // It has ended before its end, and says why.
                    writer.written.await.map_err(|_| gone(Op::Write))??;
                    return Err(gone(Op::Write));
                }
                self.put(number, Open::Writer(writer));
                Ok(Given::Piece(Bytes::new(), false))
            }
            Streaming::Finish(number) => {
                let Some(Open::Writer(writer)) = self.take(number) else { return Err(gone(Op::Write)) };
                // Who does not take it any more has ended, and says why.
                let _ = writer.pieces.send(Piece::End).await;
                let crashed = |_| Error::global(Op::Write, ErrorKind::Crashed).outcome_unknown();
                let written = writer.written.await.map_err(crashed)??;
                Ok(Given::Answer(written.into()))
            }
            Streaming::Close(number) => {
                self.0.open.lock().remove(&number);
                Ok(Given::Piece(Bytes::new(), true))
            }
        }
    }

    /// The number of another stream. Never one that another connection may know: a client that comes back after its owner's restart must not meet
    /// somebody else's stream under the number of its own.
    fn number(&self, kernel: &Kernel, op: Op) -> Result<u64> {
        let open = self.0.open.lock();
        if open.len() >= STREAMS_MAX {
            let error = Error::global(op, ErrorKind::Busy);
            return Err(error.because(format!("this client has {STREAMS_MAX} streams open")));
        }
        loop {
            let number = kernel.env().random();
            if !open.contains_key(&number) {
                return Ok(number);
            }
        }
    }

    /// Takes the stream while a call uses it. One whose call fails, or is given up, is not put back.
    fn take(&self, number: u64) -> Option<Open> {
        self.0.open.lock().remove(&number)
    }

    fn put(&self, number: u64, stream: Open) {
        self.0.open.lock().insert(number, stream);
    }
}

/// A stream that is not there: it failed before, or its connection was another.
fn gone(op: Op) -> Error {
    Error::global(op, ErrorKind::Down).because("the stream has ended")
}

/// The next bytes, as many as travel at once, and whether they are the last.
async fn gather(reader: &mut ContentReader) -> Result<(Bytes, bool)> {
    let mut data = BytesMut::new();
    while data.len() < PIECE_MAX {
        match reader.next().await {
            Some(piece) => data.extend_from_slice(&piece?),
            None => return Ok((data.freeze(), true)),
        }
    }
    Ok((data.freeze(), false))
}

/// Starts a write whose pieces are to come.
fn begin(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysWrite) -> Writer {
    let (pieces, taken) = mpsc::channel(PIECES_WAITING);
    let (done, written) = oneshot::channel();
    let (kernel, caller) = (kernel.clone(), caller.clone());
    let env = kernel.env().clone();
    env.spawn("attach.stream", async move {
        let lost = Error::new(Op::Write, &call.path, ErrorKind::Down).because("its writer went away");
        let data = stream::unfold(Some(taken), move |taken| {
            let lost = lost.clone();
            async move {
                let mut taken = taken?;
                match taken.recv().await {
                    Some(Piece::Data(data)) => Some((Ok(data), Some(taken))),
                    Some(Piece::End) => None,
                    None => Some((Err(lost), None)),
                }
            }
        });
        // Nobody waits for it when the client has gone.
        let _ = done.send(kernel.write_stream(&caller, call, data).await);
    });
    Writer { pieces, written }
}

/// The client's end of a stream that is read.
pub(crate) struct RemoteReader {
    remote: Arc<Remote>,
    caller: Arc<Caller>,
    metadata: Arc<FileMetadata>,
    /// None at its end.
    number: Option<u64>,
}

impl RemoteReader {
    pub(crate) async fn open(remote: &Arc<Remote>, caller: &Arc<Caller>, call: SysRead) -> Result<Self> {
        let path = call.path.clone();
        match remote.stream(caller, Streaming::Open(call), Op::Read, &path, false).await? {
            Given::Opened(number, Some(metadata)) => {
                Ok(Self { remote: remote.clone(), caller: caller.clone(), metadata, number: Some(number) })
            }
            _ => Err(Error::new(Op::Read, &path, ErrorKind::Io).because("the reply is that of another call")),
        }
    }

    pub(crate) fn metadata(&self) -> &Arc<FileMetadata> {
        &self.metadata
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Bytes>> {
        let number = self.number?;
        let path = &self.metadata.path;
        let next = self.remote.stream(&self.caller, Streaming::Next(number), Op::Read, path, false).await;
        match next {
            Ok(Given::Piece(data, last)) => {
                if last {
                    self.number = None;
                }
                (!data.is_empty()).then_some(Ok(data))
            }
            Ok(_) => {
                self.number = None;
                let error = Error::new(Op::Read, path, ErrorKind::Io);
                Some(Err(error.because("the reply is that of another call")))
            }
            Err(error) => {
                self.number = None;
                Some(Err(error))
            }
        }
    }
}

impl Drop for RemoteReader {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            close(&self.remote, &self.caller, number, Op::Read, &self.metadata.path);
        }
    }
}

/// Tells the owner that a stream is not used any more.
fn close(remote: &Arc<Remote>, caller: &Arc<Caller>, number: u64, op: Op, path: &nexus_messages::VPath) {
    let (remote, caller, path) = (remote.clone(), caller.clone(), path.clone());
    let env = remote.env().clone();
    env.spawn("attach.close", async move {
        // A connection that is lost has taken the stream along.
        let _ = remote.stream(&caller, Streaming::Close(number), op, &path, false).await;
    });
}

/// A stream that is being written; given up when it is dropped.
struct Writing<'a> {
    remote: &'a Arc<Remote>,
    caller: &'a Arc<Caller>,
    path: &'a nexus_messages::VPath,
    number: Option<u64>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            close(self.remote, self.caller, number, Op::Write, self.path);
        }
    }
}

impl Remote {
    pub(crate) async fn write_stream(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        call: SysWrite,
        data: impl Stream<Item = Result<Bytes>> + Send,
    ) -> Result<Written> {
        let path = call.path.clone();
        let wrong =
            || Error::new(Op::Write, &path, ErrorKind::Io).because("the reply is that of another call");
        let begun = self.stream(caller, Streaming::Begin(call), Op::Write, &path, false).await?;
        let Given::Opened(number, _) = begun else { return Err(wrong()) };
        let mut writing = Writing { remote: self, caller, path: &path, number: Some(number) };
        let mut data = pin!(data);
        let mut held = BytesMut::new();
        loop {
            let next = data.next().await.transpose()?;
            let is_last = next.is_none();
            let mut piece = next.unwrap_or_default();
            while !piece.is_empty() || (is_last && !held.is_empty()) {
                let room = PIECE_MAX - held.len();
                held.extend_from_slice(&piece.split_to(piece.len().min(room)));
                if held.len() == PIECE_MAX || is_last {
                    let sent = Streaming::Piece(number, held.split().freeze());
                    self.stream(caller, sent, Op::Write, &path, false).await?;
                }
            }
            if is_last {
                break;
            }
        }
        writing.number = None;
        match self.stream(caller, Streaming::Finish(number), Op::Write, &path, true).await? {
            Given::Answer(nexus_messages::syscall::Answer::Write(written)) => Ok(written),
            _ => Err(wrong().outcome_unknown()),
        }
    }
}

impl From<Streaming> for Request {
    fn from(call: Streaming) -> Self {
        Self::Stream(call)
    }
}
