//! Streams of attached clients: content that comes and goes in pieces of bounded size; the ends of pipes that they have opened; and their [watches](super::watches).
//!
//! The owner's process has the stream; the client asks for piece after piece, or sends it. A client that goes away takes its streams along: what it
//! was writing is given up, because only the client says which piece was the last.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use nexus_actors::Env;
use nexus_kernel::{ContentReader, GivenMessage, Kernel, MappedPipe, PipeReader, PipeWriter};
use nexus_messages::syscall::{IoProfile, SysRead, SysWrite, Written};
use nexus_messages::{Caller, Error, ErrorKind, FileMetadata, Op, Result, VPath};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::client::{Remote, of};
use super::message::{Given, Request, Streaming};
use super::places::Use;
use super::watches::Watching;

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
    /// It is being opened, and has its place.
    Coming(Use),
    Reader(Arc<tokio::sync::Mutex<Reading>>),
    Writer(Writer),
    PipeReader(Arc<PipeReader>),
    PipeWriter(Arc<PipeWriter>),
    Watch(Arc<tokio::sync::Mutex<Watching>>),
}

impl Open {
    fn kind(&self) -> Use {
        match self {
            Self::Coming(kind) => *kind,
            Self::Reader(_) => Use::Read,
            Self::Writer(_) => Use::Write,
            Self::PipeReader(_) | Self::PipeWriter(_) => Use::Pipe,
            Self::Watch(_) => Use::Watch,
        }
    }
}

/// A stream that is read. Nothing of it is lost with a call that is given up.
struct Reading {
    reader: ContentReader,
    /// Where in the stream the piece begins that was asked for last.
    start: u64,
    piece: Bytes,
    /// What there is of a piece that is not whole yet.
    part: BytesMut,
    is_whole: bool,
    /// Whether nothing comes after it.
    is_last: bool,
}

impl Reading {
    fn new(reader: ContentReader) -> Self {
        Self { reader, start: 0, piece: Bytes::new(), part: BytesMut::new(), is_whole: false, is_last: false }
    }

    /// The piece that begins at `offset`: the next one, or once more the one before it.
    async fn piece_at(&mut self, offset: u64) -> Result<(Bytes, bool)> {
        if self.is_whole && !self.is_last && offset == self.start + self.piece.len() as u64 {
            (self.start, self.is_whole) = (offset, false);
        }
        if offset != self.start {
            let error = Error::new(Op::Read, &self.reader.metadata().path, ErrorKind::InvalidArgument);
            return Err(error.because(format!("no piece of the stream begins at {offset}")));
        }
        while !self.is_whole {
            match self.reader.next().await {
                Some(data) => self.part.extend_from_slice(&data?),
                None => self.is_last = true,
            }
            self.is_whole = self.is_last || self.part.len() >= PIECE_MAX;
            if self.is_whole {
                self.piece = std::mem::take(&mut self.part).freeze();
            }
        }
        Ok((self.piece.clone(), self.is_last))
    }
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
    /// What is taken from a pipe is kept by who gets `taken`, or goes back.
    pub(super) async fn serve(
        &self,
        kernel: &Arc<Kernel>,
        caller: &Arc<Caller>,
        call: Streaming,
        taken: &mut Option<GivenMessage>,
    ) -> Result<Given> {
        match call {
            Streaming::Open(number, call) => {
                let place = self.place(number, Use::Read, Op::Read)?;
                let reader = kernel.open_stream(caller, call).await?;
                let metadata = reader.metadata().clone();
                place.fill(Open::Reader(Arc::new(tokio::sync::Mutex::new(Reading::new(reader)))));
                Ok(Given::Opened(Some(metadata)))
            }
            Streaming::Next(number, offset) => {
                let reading = match self.0.open.lock().get(&number) {
                    Some(Open::Reader(reading)) => reading.clone(),
                    _ => return Err(gone(Op::Read)),
                };
                let piece = reading.lock().await.piece_at(offset).await;
                if piece.is_err() {
                    self.take(number);
                }
                piece.map(|(data, is_last)| Given::Piece(data, is_last))
            }
            Streaming::Begin(number, call) => {
                self.place(number, Use::Write, Op::Write)?.fill(Open::Writer(begin(kernel, caller, call)));
                Ok(Given::Opened(None))
            }
            Streaming::Piece(_, data) if data.len() > PIECE_MAX => {
                let error = Error::global(Op::Write, ErrorKind::TooLarge);
                Err(error.because(format!("a piece of {} bytes, where {PIECE_MAX} travel", data.len())))
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
                let closed = self.take(number);
                drop(closed);
                Ok(Given::Piece(Bytes::new(), true))
            }
            Streaming::Reader(number, path) => {
                let place = self.place(number, Use::Pipe, Op::Read)?;
                let end = kernel.open_pipe_reader(caller, &path).await?;
                let metadata = end.metadata().clone();
                place.fill(Open::PipeReader(Arc::new(end)));
                Ok(Given::Opened(Some(metadata)))
            }
            Streaming::Writer(number, path) => {
                let place = self.place(number, Use::Pipe, Op::Write)?;
                let end = kernel.open_pipe_writer(caller, &path).await?;
                let metadata = end.metadata().clone();
                place.fill(Open::PipeWriter(Arc::new(end)));
                Ok(Given::Opened(Some(metadata)))
            }
            Streaming::Take(number, wait) => {
                let end = match self.0.open.lock().get(&number) {
                    Some(Open::PipeReader(end)) => end.clone(),
                    _ => return Err(gone(Op::Read)),
                };
                let message;
                (message, *taken) = end.take(wait).await?;
                let is_last = message.is_none();
                Ok(Given::Piece(message.unwrap_or_default(), is_last))
            }
            Streaming::Put(number, message, wait) => {
                let end = match self.0.open.lock().get(&number) {
                    Some(Open::PipeWriter(end)) => end.clone(),
                    _ => return Err(gone(Op::Write)),
                };
                end.write(message, wait).await?;
                Ok(Given::Piece(Bytes::new(), false))
            }
            Streaming::Watch(number, call, goes_on) => {
                let place = self.place(number, Use::Watch, Op::Watch)?;
                let watching = Watching::begin(kernel, caller, call, goes_on).await?;
                let cursor = watching.cursor();
                place.fill(Open::Watch(Arc::new(tokio::sync::Mutex::new(watching))));
                Ok(Given::Watching(cursor))
            }
            Streaming::Events(number, came, wait) => {
                let watching = match self.0.open.lock().get(&number) {
                    Some(Open::Watch(watching)) => watching.clone(),
                    _ => return Ok(Given::NoWatch),
                };
                let watched = watching.lock().await.next(came, wait).await;
                if watched.is_err() {
                    self.take(number);
                }
                watched.map(|watched| Given::Answer(watched.into()))
            }
        }
    }

    /// A place for another stream, free again when it is not filled. A client waits for one by itself; none that does is refused.
    fn place(&self, number: u64, kind: Use, op: Op) -> Result<Opening<'_>> {
        let mut open = self.0.open.lock();
        if open.values().filter(|open| open.kind() == kind).count() >= kind.places_max() {
            return Err(kind.busy(|busy| Error::global(op, busy)));
        }
        if open.contains_key(&number) {
            let error = Error::global(op, ErrorKind::InvalidArgument);
            return Err(error.because("two streams have one number"));
        }
        open.insert(number, Open::Coming(kind));
        Ok(Opening { streams: self, number, is_filled: false })
    }

    /// Takes the stream while a call uses it. One whose call fails, or is given up, is not put back.
    fn take(&self, number: u64) -> Option<Open> {
        self.0.open.lock().remove(&number)
    }

    fn put(&self, number: u64, stream: Open) {
        self.0.open.lock().insert(number, stream);
    }
}

/// The place of a stream that is being opened.
struct Opening<'a> {
    streams: &'a Streams,
    number: u64,
    is_filled: bool,
}

impl Opening<'_> {
    fn fill(mut self, stream: Open) {
        self.is_filled = true;
        // Closed meanwhile, it is not opened. What is dropped may be the end of a pipe, which wakes others: without the lock.
        let before = match self.streams.0.open.lock().get_mut(&self.number) {
            Some(place) => std::mem::replace(place, stream),
            None => stream,
        };
        drop(before);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.is_filled {
            self.streams.take(self.number);
        }
    }
}

/// A stream that is not there: it failed before, or its connection was another.
fn gone(op: Op) -> Error {
    Error::global(op, ErrorKind::Down).because("the stream has ended")
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
    stream: Numbered,
    metadata: Arc<FileMetadata>,
    /// How much has come.
    offset: u64,
}

impl RemoteReader {
    pub(crate) async fn open(remote: &Arc<Remote>, caller: &Arc<Caller>, call: SysRead) -> Result<Self> {
        let path = call.path.clone();
        let stream = Numbered::new(remote, caller, Use::Read, Op::Read, &path).await?;
        match stream.ask(|number| Streaming::Open(number, call), false).await {
            Ok(Given::Opened(Some(metadata))) => Ok(Self { stream, metadata, offset: 0 }),
            Ok(_) => Err(stream.unexpected()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn metadata(&self) -> &Arc<FileMetadata> {
        &self.metadata
    }

    /// The next piece. One that is dropped before it came comes with the next call.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.stream.is_over {
            return None;
        }
        let offset = self.offset;
        let next = match self.stream.ask(|number| Streaming::Next(number, offset), false).await {
            Ok(Given::Piece(data, last)) => {
                self.offset += data.len() as u64;
                if last {
                    self.stream.close();
                }
                return (!data.is_empty()).then_some(Ok(data));
            }
            Ok(_) => self.stream.unexpected(),
            Err(error) => error,
        };
        self.stream.close();
        Some(Err(next))
    }
}

/// The client's end of a pipe. It is closed with its connection.
pub(crate) struct RemoteEnd {
    end: Numbered,
    metadata: Arc<FileMetadata>,
    /// Its memory, when the pipe is one that processes share: then messages go through that, and nothing is asked of the owner.
    mapped: Option<MappedPipe>,
}

impl RemoteEnd {
    /// Opens the reading end of the pipe, for `Op::Read`, or the writing end.
    pub(crate) async fn open(
        remote: &Arc<Remote>,
        caller: &Arc<Caller>,
        op: Op,
        path: &VPath,
    ) -> Result<Self> {
        let end = Numbered::new(remote, caller, Use::Pipe, op, path).await?;
        let open = |number| match op {
            Op::Read => Streaming::Reader(number, path.clone()),
            _ => Streaming::Writer(number, path.clone()),
        };
        match end.ask(open, false).await? {
            Given::Opened(Some(metadata)) => {
                let mapped = Self::map(remote, caller, op, path, &metadata).await?;
                Ok(Self { end, metadata, mapped })
            }
            _ => Err(end.unexpected()),
        }
    }

    /// Maps the pipe, if it is in shared memory and may be mapped. What cannot be is used through the owner.
    async fn map(
        remote: &Arc<Remote>,
        caller: &Arc<Caller>,
        op: Op,
        path: &VPath,
        metadata: &FileMetadata,
    ) -> Result<Option<MappedPipe>> {
        if metadata.io_profile != Some(IoProfile::Shared) {
            return Ok(None);
        }
        let region = remote.region(caller, path, op).await?;
        let Some(region) = region.filter(|region| region.metadata.file_id == metadata.file_id) else {
            return Ok(None);
        };
        let mapped = MappedPipe::map(&region, path, remote.sleepers());
        let warned =
            |error| tracing::warn!(%path, %error, "a pipe in shared memory is used through its owner");
        Ok(mapped.map_err(warned).ok())
    }

    /// The pipe's memory, when messages go through that.
    pub(crate) fn mapped(&self) -> Option<(&MappedPipe, &Env)> {
        self.mapped.as_ref().map(|mapped| (mapped, self.end.remote.env()))
    }

    pub(crate) fn metadata(&self) -> &Arc<FileMetadata> {
        &self.metadata
    }

    pub(crate) async fn read(&self, wait: Option<Duration>) -> Result<Option<Bytes>> {
        if let Some((mapped, env)) = self.mapped() {
            return mapped.read(env, wait).await;
        }
        match self.end.ask(|number| Streaming::Take(number, wait), true).await? {
            Given::Piece(message, is_last) => Ok((!is_last).then_some(message)),
            _ => Err(self.end.unexpected()),
        }
    }

    pub(crate) async fn write(&self, message: Bytes, wait: Option<Duration>) -> Result<()> {
        if let Some((mapped, env)) = self.mapped() {
            return mapped.write(env, &message, wait).await;
        }
        match self.end.ask(|number| Streaming::Put(number, message, wait), true).await? {
            Given::Piece(..) => Ok(()),
            _ => Err(self.end.unexpected()),
        }
    }
}

/// A stream by the number that this end gave it. The other end has it until it is told that it is not used any more: also when it was given up before this
/// end heard that it is open.
pub(super) struct Numbered {
    remote: Arc<Remote>,
    caller: Arc<Caller>,
    op: Op,
    path: VPath,
    number: u64,
    kind: Use,
    /// Its place with the owner, until that has heard of its end.
    place: Option<OwnedSemaphorePermit>,
    is_over: bool,
}

impl Numbered {
    /// Another stream, when there is a place for it. Its number is drawn: a client that comes back after its owner's restart must not meet one under the number of an
    /// older one.
    pub(super) async fn new(
        remote: &Arc<Remote>,
        caller: &Arc<Caller>,
        kind: Use,
        op: Op,
        path: &VPath,
    ) -> Result<Self> {
        let place = remote.places().take(remote.env(), kind, op, path).await?;
        let number = remote.env().random();
        Ok(Self {
            remote: remote.clone(),
            caller: caller.clone(),
            op,
            path: path.clone(),
            number,
            kind,
            place: Some(place),
            is_over: false,
        })
    }

    pub(super) async fn ask(&self, call: impl FnOnce(u64) -> Streaming, changes: bool) -> Result<Given> {
        let given = self.remote.stream(&self.caller, call(self.number), self.op, &self.path, changes).await;
        self.remote.places().moved(self.kind);
        given
    }

    pub(super) fn unexpected(&self) -> Error {
        Error::new(self.op, &self.path, ErrorKind::Io).because("the reply is that of another call")
    }

    /// The owner has said that there is no such stream.
    pub(super) fn is_gone(&mut self) {
        self.is_over = true;
        self.place = None;
    }

    /// Tells the owner that the stream is not used any more.
    fn close(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let (remote, caller, path) = (self.remote.clone(), self.caller.clone(), self.path.clone());
        let (number, op, place) = (self.number, self.op, self.place.take());
        self.remote.env().spawn("attach.close", async move {
            // A connection that is lost has taken the stream along.
            let _ = remote.stream(&caller, Streaming::Close(number), op, &path, false).await;
            drop(place);
        });
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.close();
    }
}

impl Remote {
    pub(crate) async fn write_stream(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        mut call: SysWrite,
        data: impl Stream<Item = Result<Bytes>> + Send,
    ) -> Result<Written> {
        let path = call.path.clone();
        let op_id = *call.op_id.get_or_insert_with(|| self.new_op_id());
        let mut stream = Numbered::new(self, caller, Use::Write, Op::Write, &path).await?;
        match stream.ask(|number| Streaming::Begin(number, call), false).await {
            Ok(Given::Opened(_)) => {}
            Ok(_) => return Err(stream.unexpected()),
            Err(error) => return Err(error),
        }
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
                    let sent = held.split().freeze();
                    stream.ask(|number| Streaming::Piece(number, sent), false).await?;
                }
            }
            if is_last {
                break;
            }
        }
        let done = stream.ask(Streaming::Finish, true).await;
        // It has ended by itself. Given up before, the call may not have left: then the stream is to be closed.
        stream.is_over = true;
        match done.map_err(|error| of(error, Some(op_id)))? {
            Given::Answer(nexus_messages::syscall::Answer::Write(written)) => Ok(written),
            _ => Err(of(stream.unexpected().outcome_unknown(), Some(op_id))),
        }
    }
}

impl From<Streaming> for Request {
    fn from(call: Streaming) -> Self {
        Self::Stream(call)
    }
}
