//! `SysRead` and `SysWrite` of a pipe, and the ends of one.
//!
//! A pipe takes neither the path lock, nor a commit, nor observers: only resolvers, gate and interceptors stand before it, as before any call. While nobody
//! stands there, a path that was followed to a pipe once is looked up in the table of pipes alone.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::syscall::{
    ByteRange, CommittedOp, Create, Extent, Fence, IoProfile, Place, Precondition, ReadData, SysRead,
    SysWrite, WhichPipe, Written,
};
use nexus_messages::{
    Caller, Consistency, Durability, EntryType, Error, ErrorKind, FileMetadata, Lsn, Op, OpId, Receipt,
    Result, Timestamp, VPath,
};

use nexus_actors::SharedKind;

use super::admit::{Admissible, pass, resolve};
use super::locate::Located;
use super::mutate::fenced;
use super::read::{content_at_hand, take};
use super::span;
use crate::kernel::{Kernel, call_kind};
use crate::namespace::Node;
use crate::pipes::{Closing, GivenMessage, Holder, Known, OpenEnd, OpenPipe, Pipe, Refusal, Side};
use crate::sys;
use crate::volume::Site;

/// How long to wait for the actor that opens pipes, which may be restarting.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Whether this is a pipe of ours: one on a path-addressed mount would be the host's.
fn is_pipe(site: &Site, node: &Node) -> bool {
    node.metadata.entry_type == EntryType::Pipe && !site.mount.is_path_addressed() && !sys::serves(&site.path)
}

/// Whether what was located is a pipe of ours.
pub(super) fn is_there(located: &Located) -> bool {
    located.node.as_ref().is_some_and(|node| is_pipe(&located.site, node))
}

/// Refuses a call for a pipe when what was located is not the one that is meant.
pub(super) fn check_meant(op: Op, meant: Option<WhichPipe>, located: &Located) -> Result<()> {
    let Some(meant) = meant else { return Ok(()) };
    let path = &located.site.path;
    if let Some(meant) = meant.identity() {
        let found = located.node.as_ref().filter(|_| is_there(located));
        let is_meant = found.is_some_and(|found| found.metadata.file_id == meant);
        return if is_meant { Ok(()) } else { Err(refused(op, path, &Refusal::Removed)) };
    }
    let Some(node) = &located.node else { return Err(Error::new(op, path, ErrorKind::NotFound)) };
    match node.metadata.entry_type {
        _ if is_pipe(&located.site, node) => Ok(()),
        directory if directory.is_directory() => Err(Error::new(op, path, ErrorKind::IsADirectory)),
        other => {
            Err(Error::new(op, path, ErrorKind::NotSupported)
                .because(format!("it is a {other}, and no pipe")))
        }
    }
}

/// Refuses a call that is for a pipe where a pipe takes no part.
pub(super) fn check_not_meant(op: Op, path: &VPath, meant: Option<WhichPipe>) -> Result<()> {
    match meant {
        None => Ok(()),
        Some(_) => Err(Error::new(op, path, ErrorKind::InvalidArgument)
            .because("a message of a pipe is a call by itself: no stream, and in no transaction")),
    }
}

/// A pipe and its entry, ready to be read or written.
pub(super) struct Ready {
    pipe: Arc<Pipe>,
    metadata: Arc<FileMetadata>,
}

impl Ready {
    fn of(known: &Arc<Known>) -> Self {
        Self { pipe: known.pipe.clone(), metadata: known.metadata.clone() }
    }
}

/// The pipe that `path` is known to lead to, when nobody is to be asked about the call.
#[inline]
fn known<R>(
    kernel: &Kernel,
    caller: &Caller,
    op: Op,
    path: &VPath,
    look: impl FnOnce(&Arc<Known>) -> R,
) -> Option<R> {
    if !kernel.pipes().may_know(path) || kernel.is_watched(op) {
        return None;
    }
    kernel.pipes().known(kernel.routes().version(), &caller.zone, path, look)
}

/// As [`known`], to be kept, when it is the one that is meant.
pub(super) fn at_hand(
    kernel: &Kernel,
    caller: &Caller,
    op: Op,
    path: &VPath,
    meant: Option<WhichPipe>,
) -> Option<Ready> {
    let ready = known(kernel, caller, op, path, Ready::of)?;
    let is_meant = meant.and_then(WhichPipe::identity).is_none_or(|meant| meant == ready.metadata.file_id);
    is_meant.then_some(ready)
}

/// Reads the next message of a pipe that is at hand. None: there is none, or it is another call.
#[inline]
pub(super) fn read_warm(kernel: &Kernel, caller: &Caller, call: &SysRead) -> Option<ReadData> {
    if !matches!(call.extent, Extent::One(ByteRange::ALL)) {
        return None;
    }
    let read = known(kernel, caller, SysRead::OP, &call.path, |known| {
        if known.pipe.is_shared() {
            return Err(Some(known.clone()));
        }
        match known.pipe.try_read() {
            Ok(message) => Ok(ReadData::new(message, known.metadata.clone())),
            Err(Refusal::Empty) if call.wait.is_some() => Err(Some(known.clone())),
            Err(_) => Err(None),
        }
    })?;
    match read {
        Ok(read) => Some(read),
        // By itself: what was looked up under a pin is not looked at for long there.
        Err(known) => {
            let known = known?;
            let found =
                if known.pipe.is_shared() { known.pipe.try_read() } else { known.pipe.look_for_message() };
            Some(ReadData::new(found.ok()?, known.metadata.clone()))
        }
    }
}

/// Writes a message to a pipe that is at hand. None: there is no room, or it is another call, which is as it was.
#[inline]
pub(super) fn write_warm(kernel: &Kernel, caller: &Caller, call: &mut SysWrite) -> Option<Written> {
    if !kernel.pipes().may_know(&call.path) || call.op_id.is_some() || call.fence.is_some() {
        return None;
    }
    let [place] = &mut call.data[..] else { return None };
    let length = place.len();
    let message = mem::take(place);
    let mut message = Some(message);
    let mut full = None;
    let mut done = known(kernel, caller, SysWrite::OP, &call.path, |known| {
        check_write(&call.path, call).ok()?;
        if known.pipe.is_shared() {
            full = Some(known.clone());
            return None;
        }
        match known.pipe.try_write(message.take()?) {
            Ok(()) => Some(known.for_writers.clone()),
            Err((refusal, back)) => {
                message = Some(back);
                full = (refusal == Refusal::Full && call.wait.is_some()).then(|| known.clone());
                None
            }
        }
    })
    .flatten();
    // By itself: what was looked up under a pin is not looked at for long there.
    if let Some(known) = full
        && let Some(waiting) = message.take()
    {
        let written = if known.pipe.is_shared() {
            known.pipe.try_write(waiting)
        } else {
            known.pipe.look_for_room(waiting)
        };
        match written {
            Ok(()) => done = Some(known.for_writers.clone()),
            Err((_, back)) => message = Some(back),
        }
    }
    if let (Some(back), Some(place)) = (message, call.data.first_mut()) {
        *place = back;
    }
    done.map(|metadata| written(call.op_id, length as u64, metadata))
}

fn written(op_id: Option<OpId>, length: u64, metadata: Arc<FileMetadata>) -> Written {
    Written::new(length, Some(0), metadata, receipt(op_id))
}

fn receipt(op_id: Option<OpId>) -> Receipt {
    Receipt::unchanged(op_id.unwrap_or(OpId(0)), Lsn(0), Durability::Volatile)
}

/// The pipe at `located`, opened if it is not; and notes the path, so that the next call finds it at hand.
pub(super) async fn ready(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    op: Op,
    asked: &VPath,
    located: &Located,
) -> Result<Ready> {
    let (site, node) = located.clone().existing(op)?;
    // Before the look at what is there, which may be newer.
    let (routes, generation) = (kernel.routes().version(), site.mount.counted_generation());
    let changes = kernel.pipes().changes();
    let pipe = match kernel.pipes().get(node.metadata.file_id) {
        Some(pipe) => pipe,
        None => open(kernel, op, &site, &node).await?,
    };
    // Where hooks or links led, they may lead elsewhere the next time.
    if located.way.is_empty() && *asked == site.path && !kernel.is_watched(op) {
        let now = super::locate::locate(kernel, op, &caller.zone, asked, true).await?;
        if now.way.is_empty()
            && let Some(now) = now.node.filter(|now| now.metadata.file_id == node.metadata.file_id)
        {
            let (zone, path) = (caller.zone.clone(), asked.clone());
            let known = Known::new(zone, path, pipe.clone(), now.metadata, generation, routes);
            kernel.pipes().note(known, changes);
        }
    }
    Ok(Ready { pipe, metadata: node.metadata })
}

/// Opens the pipe.
async fn open(kernel: &Kernel, op: Op, site: &Site, node: &Node) -> Result<Arc<Pipe>> {
    let fail = |kind| Error::new(op, &site.path, kind);
    let mount = &site.mount;
    let shared = match (node.metadata.io_profile, kernel.pipes().shared(), node.metadata.pipe()) {
        (Some(IoProfile::Shared), Some(place), Some(spec)) => {
            // Before there is memory for it, and once more by who opens it.
            if !kernel.pipes().has_place() {
                return Err(refused(op, &site.path, &Refusal::TooManyPipes));
            }
            let made = Box::pin(place.make(node.metadata.file_id, spec)).await;
            Some(made.map_err(|refusal| refused(op, &site.path, &refusal))?)
        }
        _ => None,
    };
    let shared = shared.map(|pipe| Arc::new(parking_lot::Mutex::new(Some(pipe))));
    let message = OpenPipe { mount: mount.root, tree: mount.tree, metadata: node.metadata.clone(), shared };
    match kernel.pipes_actor().call(message, OPEN_WAIT_MAX).await {
        Ok(opened) => opened.map_err(|refusal| refused(op, &site.path, &refusal)),
        // Nothing was read or written, whatever became of it.
        Err(error) => Err(fail(call_kind(error)).because(error)),
    }
}

fn refused(op: Op, path: &VPath, refusal: &Refusal) -> Error {
    Error::new(op, path, refusal.kind()).because(refusal)
}

fn check_read(call: &SysRead) -> Result<()> {
    let invalid =
        |why: &str| Err(Error::new(SysRead::OP, &call.path, ErrorKind::InvalidArgument).because(why));
    if call.as_of.is_some() {
        return invalid("what was in a pipe is not kept");
    }
    match call.extent {
        Extent::One(ByteRange::ALL) => Ok(()),
        _ => invalid("a pipe is read message by message"),
    }
}

fn check_write(path: &VPath, call: &SysWrite) -> Result<()> {
    let fail = |kind, why: &str| Err(Error::new(SysWrite::OP, path, kind).because(why));
    if call.create == Create::Exclusive {
        return Err(Error::new(SysWrite::OP, path, ErrorKind::AlreadyExists));
    }
    if !matches!(call.place, Place::Whole | Place::End) {
        return fail(ErrorKind::InvalidArgument, "a pipe is written message by message");
    }
    if !call.attributes.is_empty() {
        return fail(ErrorKind::InvalidArgument, "a write to a pipe sets no attributes");
    }
    if call.precondition != Precondition::None {
        return fail(ErrorKind::InvalidArgument, "a pipe has no version to expect");
    }
    if call.consistency == Some(Consistency::Strong) {
        return fail(ErrorKind::NotSupported, "nothing in a pipe outlives the process");
    }
    Ok(())
}

/// The end that a call goes through, if it goes through one.
fn end_of(pipe: &Pipe, meant: Option<WhichPipe>) -> std::result::Result<Option<Arc<Closing>>, Refusal> {
    match meant {
        Some(WhichPipe::End { number, .. }) => pipe.closing(number).map(Some).ok_or(Refusal::EndClosed),
        _ => Ok(None),
    }
}

/// Does what waits at a pipe, for as long as the end is open that it goes through, if it goes through one.
async fn while_open<T>(
    end: Option<&Closing>,
    waits: impl Future<Output = std::result::Result<T, Refusal>>,
) -> std::result::Result<T, Refusal> {
    match end {
        Some(end) => end.unless_closed(waits).await,
        None => waits.await,
    }
}

/// Reads the next message, which goes back when it is not handed over.
pub(super) async fn read(
    kernel: &Kernel,
    ready: Ready,
    call: &SysRead,
) -> Result<(ReadData, Option<GivenMessage>)> {
    check_read(call)?;
    let Ready { pipe, metadata } = ready;
    let failed = |refusal| refused(SysRead::OP, &call.path, &refusal);
    let end = end_of(&pipe, call.pipe).map_err(failed)?;
    let given = match call.wait {
        None => pipe.try_take(kernel.env()),
        Some(wait) => while_open(end.as_deref(), pipe.take(kernel.env(), wait)).await,
    };
    let given = given.map_err(failed)?;
    let message = given.as_ref().map(GivenMessage::message).unwrap_or_default();
    Ok((ReadData::new(message, metadata), given))
}

/// Writes one message; under the lock of its fence, if it has one.
pub(super) async fn write(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    ready: Ready,
    call: &SysWrite,
) -> Result<Written> {
    check_write(&call.path, call)?;
    let Ready { pipe, metadata } = ready;
    let length = match &call.fence {
        None => place(kernel, caller, &pipe, call).await,
        Some(fence) => {
            // Few are made so: no other write has room for it.
            let placing = place(kernel, caller, &pipe, call);
            let done = Box::pin(under(kernel, caller, (call, fence), placing)).await;
            done.unwrap_or_else(|stale| before(&pipe, call)?.ok_or(stale))
        }
    };
    Ok(written(call.op_id, length?, metadata))
}

/// Does what places a message under a lock that is looked at before each attempt, and kept from others meanwhile: whoever gets it next finds the message placed, or it
/// never is. While there is no room the lock is kept from nobody. The outer error: the lock is not held, and nothing was written.
async fn under(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    (call, fence): (&SysWrite, &Fence),
    placing: impl Future<Output = Result<u64>>,
) -> Result<Result<u64>> {
    let mut placing = pin!(placing);
    loop {
        let held = fenced(kernel, caller, (SysWrite::OP, &call.path), Some(fence)).await?;
        let attempt = poll_fn(|cx| Poll::Ready(placing.as_mut().poll(cx))).await;
        drop(held);
        if let Poll::Ready(done) = attempt {
            return Ok(done);
        }
        // Until that attempt is told to come again.
        let mut is_told = false;
        poll_fn(|_| if mem::replace(&mut is_told, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// How many bytes a write of this identity wrote, if it was executed.
fn before(pipe: &Pipe, call: &SysWrite) -> Result<Option<u64>> {
    let before = call.op_id.map_or(Ok(None), |op| pipe.wrote(op));
    before.map_err(|refusal| refused(SysWrite::OP, &call.path, &refusal))
}

/// Places the message of a write, and tells its length.
async fn place(kernel: &Kernel, caller: &Arc<Caller>, pipe: &Pipe, call: &SysWrite) -> Result<u64> {
    let message = match &call.data[..] {
        [] => Bytes::new(),
        [one] => one.clone(),
        several => several.concat().into(),
    };
    let length = message.len() as u64;
    let failed = |refusal| refused(SysWrite::OP, &call.path, &refusal);
    let end = end_of(pipe, call.pipe).map_err(failed)?;
    let end = end.as_deref();
    let done = match (call.op_id, call.wait) {
        (Some(op), wait) => {
            // Until it is noted: who asks what became of it finds it there, or here.
            let _passing = kernel.underway().begin(op, caller, SysWrite::OP, &call.path);
            let done = while_open(end, pipe.write_once(kernel.env(), op, message, wait)).await;
            if done.is_ok() {
                let at = Timestamp(kernel.env().wall());
                let receipt = receipt(Some(op));
                let executed = CommittedOp::new(receipt, SysWrite::OP, call.path.clone(), None, at);
                kernel.underway().executed(caller, executed);
            }
            done
        }
        (None, None) => pipe.try_write(message).map_err(|(refusal, _)| refusal).map(|()| length),
        (None, Some(wait)) => while_open(end, pipe.write(kernel.env(), message, wait)).await.map(|()| length),
    };
    done.map_err(failed)
}

/// What is at `path`, opened, when it is in memory that processes share, and the caller may read it, or write to it.
pub(crate) async fn shared_at(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    path: &VPath,
    op: Op,
) -> Result<Option<(Arc<FileMetadata>, SharedKind)>> {
    match op {
        Op::Read => shared_to(kernel, caller, SysRead::at(path)).await,
        _ => shared_to(kernel, caller, SysWrite::vectored(path, Vec::new())).await,
    }
}

async fn shared_to<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    mut call: S,
) -> Result<Option<(Arc<FileMetadata>, SharedKind)>> {
    resolve(kernel, caller, &mut call).await?;
    let (located, _) = pass(kernel, caller, &call).await?;
    let asked = call.path().clone();
    let is_shared = |node: &Node| node.metadata.io_profile == Some(IoProfile::Shared);
    if !located.node.as_ref().is_some_and(is_shared) {
        located.existing(S::OP)?;
        return Ok(None);
    }
    if is_there(&located) {
        let ready = ready(kernel, caller, S::OP, &asked, &located).await?;
        return Ok(Some((ready.metadata, SharedKind::Pipe)));
    }
    let metadata = super::records::opened(kernel, S::OP, &located).await?;
    Ok(metadata.map(|metadata| (metadata, SharedKind::Log)))
}

impl Kernel {
    /// As [`send`](Self::send) of a read, for who hands a message of a pipe on: it goes back, before all others, when the other result is dropped before it is kept.
    ///
    /// # Errors
    /// As [`SysRead`].
    pub async fn take_message(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        call: SysRead,
    ) -> Result<(ReadData, Option<GivenMessage>)> {
        // Of files alone: what is read so from a pipe does not come back.
        if !self.pipes().may_know(&call.path)
            && !span::is_wanted()
            && let Some(read) = content_at_hand(self, caller, &call)
        {
            self.syscalls().warm(Op::Read);
            return Ok((read, None));
        }
        let counted = self.syscalls().begin(Op::Read, self.env());
        let taken = if span::is_wanted() {
            let span = span::of(caller, &call.clone().into());
            Box::pin(span::within(span, take(self, caller, call))).await
        } else {
            Box::pin(take(self, caller, call)).await
        };
        counted.with(taken.as_ref().err().map(Error::errno));
        taken
    }

    /// Opens the reading end of the pipe at `path`.
    ///
    /// # Errors
    /// As [`SysRead`], but for what is told of its messages; `EOPNOTSUPP` for what is no pipe, `EBUSY` when it has as many ends as may be.
    pub async fn open_pipe_reader(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        path: &VPath,
    ) -> Result<PipeReader> {
        let call = SysRead::at(path);
        let end = Box::pin(End::open(self, caller, call, Side::Reader, Holder::Caller));
        end.await.map(PipeReader)
    }

    /// As [`open_pipe_reader`](Self::open_pipe_reader), for a child process.
    pub(crate) async fn open_child_reader(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        path: &VPath,
    ) -> Result<PipeReader> {
        let end = Box::pin(End::open(self, caller, SysRead::at(path), Side::Reader, Holder::Child));
        end.await.map(PipeReader)
    }

    /// As [`open_pipe_writer`](Self::open_pipe_writer), for a child process.
    pub(crate) async fn open_child_writer(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        path: &VPath,
    ) -> Result<PipeWriter> {
        let call = SysWrite::vectored(path, Vec::new());
        let end = Box::pin(End::open(self, caller, call, Side::Writer, Holder::Child));
        end.await.map(PipeWriter)
    }

    /// Opens the writing end of the pipe at `path`.
    ///
    /// # Errors
    /// As [`SysWrite`], but for what is told of its messages; `EOPNOTSUPP` for what is no pipe, `EBUSY` when it has as many ends as may be.
    pub async fn open_pipe_writer(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        path: &VPath,
    ) -> Result<PipeWriter> {
        let call = SysWrite::vectored(path, Vec::new());
        let end = Box::pin(End::open(self, caller, call, Side::Writer, Holder::Caller));
        end.await.map(PipeWriter)
    }
}

/// The reading end of a pipe; see [`Kernel::open_pipe_reader`]. It is closed when it is dropped, and with the life of its caller.
pub struct PipeReader(End);

/// The writing end of a pipe; see [`Kernel::open_pipe_writer`]. It is closed when it is dropped, and with the life of its caller.
pub struct PipeWriter(End);

struct End {
    kernel: Arc<Kernel>,
    caller: Arc<Caller>,
    /// As it was asked for: hooks and gate see the calls there.
    path: VPath,
    pipe: Arc<Pipe>,
    metadata: Arc<FileMetadata>,
    end: OpenEnd,
}

impl End {
    async fn open<S: Admissible>(
        kernel: &Arc<Kernel>,
        caller: &Arc<Caller>,
        mut call: S,
        side: Side,
        holder: Holder,
    ) -> Result<Self> {
        let path = call.path().clone();
        resolve(kernel, caller, &mut call).await?;
        let (located, _) = pass(kernel, caller, &call).await?;
        let asked = call.path().clone();
        check_meant(S::OP, Some(WhichPipe::Any), &located)?;
        let Ready { pipe, metadata } = ready(kernel, caller, S::OP, &asked, &located).await?;
        let end = kernel.pipes().open_end(&pipe, side, holder, &caller.agent, caller.life);
        let end = end.map_err(|refusal| refused(S::OP, &located.site.path, &refusal))?;
        let opened = Self { kernel: kernel.clone(), caller: caller.clone(), path, pipe, metadata, end };
        // The life may have ended before there was an end to be closed with it.
        match kernel.lives().goes_on(caller.life) {
            true => Ok(opened),
            false => Err(refused(S::OP, &opened.path, &Refusal::EndClosed)),
        }
    }

    fn is_open(&self, op: Op) -> Result<()> {
        match self.end.is_closed() {
            false => Ok(()),
            true => Err(refused(op, &self.path, &Refusal::EndClosed)),
        }
    }

    /// Its pipe, and no other that is at its path by now, through this end.
    fn meant(&self) -> WhichPipe {
        WhichPipe::End { pipe: self.metadata.file_id, number: self.end.number() }
    }
}

impl PipeReader {
    /// What the entry was when the end was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        &self.0.metadata
    }

    /// The next message, which it waits for so long, or not at all; none at the end: writers had opened the pipe, and the last of them is gone. Dropping the
    /// future takes no message along. Where hooks or a permission provider are registered, they see each read.
    ///
    /// # Errors
    /// As [`SysRead`] of a pipe; `EPERM` when the life of the caller has ended, and this end with it, also while it waits: then it has taken no message.
    pub async fn read(&self, wait: Option<Duration>) -> Result<Option<Bytes>> {
        let End { kernel, caller, path, pipe, end, .. } = &self.0;
        self.0.is_open(Op::Read)?;
        let message = if kernel.is_watched(Op::Read) {
            let mut call = SysRead::at(path).of_pipe(self.0.meant());
            call.wait = wait;
            Box::pin(kernel.send(caller, call)).await?.data
        } else {
            let read = match (pipe.try_read(), wait) {
                (Err(refusal), Some(wait)) if refusal.passes() => match pipe.look_for_message() {
                    Err(refusal) if refusal.passes() => {
                        end.unless_closed(pipe.read(kernel.env(), wait)).await
                    }
                    read => read,
                },
                (read, _) => read,
            };
            kernel.syscalls().warm(Op::Read);
            read.map_err(|refusal| refused(Op::Read, path, &refusal))?
        };
        Ok(Some(message).filter(|message| !message.is_empty()))
    }
}

impl PipeReader {
    /// As [`read`](Self::read), for who hands the message on: it goes back, before all others, when the other result is dropped before it is kept.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn take(&self, wait: Option<Duration>) -> Result<(Option<Bytes>, Option<GivenMessage>)> {
        let End { kernel, caller, path, pipe, end, .. } = &self.0;
        self.0.is_open(Op::Read)?;
        let given = if kernel.is_watched(Op::Read) {
            let mut call = SysRead::at(path).of_pipe(self.0.meant());
            call.wait = wait;
            Box::pin(kernel.take_message(caller, call)).await?.1
        } else {
            let taken = match wait {
                None => pipe.try_take(kernel.env()),
                Some(wait) => end.unless_closed(pipe.take(kernel.env(), wait)).await,
            };
            kernel.syscalls().warm(Op::Read);
            taken.map_err(|refusal| refused(Op::Read, path, &refusal))?
        };
        Ok((given.as_ref().map(GivenMessage::message), given))
    }
}

impl PipeWriter {
    /// What the entry was when the end was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        &self.0.metadata
    }

    /// Writes one message, and waits for room for so long, or not at all. One without bytes is none. Dropping the future while it waits writes nothing. Where
    /// hooks or a permission provider are registered, they see each write.
    ///
    /// # Errors
    /// As [`SysWrite`] to a pipe; `EPERM` when the life of the caller has ended, and this end with it, also while it waits: then nothing was written.
    pub async fn write(&self, message: impl Into<Bytes>, wait: Option<Duration>) -> Result<()> {
        let End { kernel, caller, path, pipe, end, .. } = &self.0;
        self.0.is_open(Op::Write)?;
        let message = message.into();
        if kernel.is_watched(Op::Write) {
            let mut call = SysWrite::at(path, message).to_pipe(self.0.meant());
            call.wait = wait;
            return Box::pin(kernel.send(caller, call)).await.map(drop);
        }
        let done = match (pipe.try_write(message), wait) {
            (Err((refusal, message)), Some(wait)) if refusal.passes() => match pipe.look_for_room(message) {
                Err((refusal, message)) if refusal.passes() => {
                    end.unless_closed(pipe.write(kernel.env(), message, wait)).await
                }
                done => done.map_err(|(refusal, _)| refusal),
            },
            (done, _) => done.map_err(|(refusal, _)| refusal),
        };
        kernel.syscalls().warm(Op::Write);
        done.map_err(|refusal| refused(Op::Write, path, &refusal))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.kernel.pipes().close_end(&self.pipe, &self.end);
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").field("path", &self.0.path).finish_non_exhaustive()
    }
}
