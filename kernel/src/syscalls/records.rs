//! `SysRead` and `SysWrite` of a stream.
//!
//! As a pipe, a stream takes neither the path lock, nor a commit, nor observers: resolvers, gate and interceptors stand before it, as before any call.

use std::sync::Arc;

use nexus_actors::Ref;
use nexus_messages::syscall::{
    CommittedOp, Create, Extent, Fence, Place, Precondition, ReadData, Record, RecordRange, Records,
    StreamStart, SysRead, SysWrite, Written,
};
use nexus_messages::{
    Caller, Consistency, Durability, EntryType, Error, ErrorKind, FileMetadata, Lsn, Op, OpId, Receipt,
    Result, Timestamp, VPath,
};

use super::admit::Admissible;
use super::locate::Located;
use super::mutate::fenced;
use crate::advisory::Hold;
use crate::content;
use crate::hal::{Append, Appended, ReadBounds, StreamRead};
use crate::kernel::Kernel;
use crate::namespace::Node;
use crate::owned::Owned;
use crate::streams::{Age, Refusal, Stream, StreamTable, Streams};
use crate::sys;
use crate::underway::Passing;

/// How often an append with an identity is under way: as each change, and as this one.
const BEGUN: usize = 2;

/// Whether what was located is a stream of ours: one on a path-addressed mount would be the host's.
pub(super) fn is_there(located: &Located) -> bool {
    let site = &located.site;
    located.node.as_ref().is_some_and(|node| node.metadata.entry_type == EntryType::Stream)
        && !site.mount.is_path_addressed()
        && !sys::serves(&site.path)
}

/// A stream and its entry, ready to be read or appended to.
pub(super) struct Ready {
    stream: Arc<Stream>,
    metadata: Arc<FileMetadata>,
}

impl Ready {
    pub(super) fn into_stream(self) -> Arc<Stream> {
        self.stream
    }
}

/// The stream that `path` is known to lead to, when it is open and nobody is to be asked about the call.
pub(super) fn at_hand(kernel: &Kernel, caller: &Caller, op: Op, path: &VPath) -> Option<Ready> {
    if kernel.is_watched(op) {
        return None;
    }
    let is_stream = |node: &Node| node.metadata.entry_type == EntryType::Stream;
    let metadata = kernel.known(caller, path, |node| is_stream(&node).then_some(node.metadata))?;
    let stream = kernel.streams().get(metadata.file_id)?;
    Some(Ready { stream, metadata })
}

/// Whether it appends without an identity and a fence: what is sent again, or under a lock, is looked at with what is under way.
pub(super) fn is_plain_append(call: &SysWrite) -> bool {
    call.place == Place::End && call.pipe.is_none() && call.op_id.is_none() && call.fence.is_none()
}

/// Appends to a stream that is at hand, and takes records at once. None, and nothing was done: it may not, or is to be told why not.
pub(super) fn append_warm(kernel: &Kernel, caller: &Caller, call: &SysWrite) -> Option<Written> {
    if !is_plain_append(call) {
        return None;
    }
    let Ready { stream, metadata } = at_hand(kernel, caller, SysWrite::OP, &call.path)?;
    // What comes from a store that outlives the process is kept by who does not end with the caller.
    if stream.is_durable() {
        return None;
    }
    call.validate().and_then(|()| check_write(call, false)).ok()?;
    let append = append_of(kernel, call);
    let appended = stream.append_at_once(&append)?;
    note_age(kernel.streams(), kernel.streams_actor(), &stream, append.at);
    Some(written(call, metadata, false, &appended))
}

/// Reads records of a stream that is at hand, and has them at once. None: it may not, has none yet for who waits, or is to be told why not.
pub(super) fn read_warm(
    kernel: &Kernel,
    caller: &Caller,
    call: &SysRead,
    range: RecordRange,
) -> Option<ReadData> {
    let StreamStart::At(from) = range.from else { return None };
    if call.as_of.is_some() {
        return None;
    }
    let Ready { stream, metadata } = at_hand(kernel, caller, SysRead::OP, &call.path)?;
    let read = stream.read_at_once(from, bounds(range))?;
    if read.records.is_empty() && !read.closed && call.wait.is_some() {
        return None;
    }
    Some(read_data(read, metadata))
}

/// The stream at `located`, opened if it is not.
pub(super) async fn ready(kernel: &Kernel, op: Op, located: &Located) -> Result<Ready> {
    let (site, node) = located.clone().existing(op)?;
    let opened = Box::pin(kernel.open_records(&site.mount, &node.metadata, node.placement)).await;
    let stream = opened.map_err(|refusal| refused(op, &site.path, &refusal))?;
    Ok(Ready { stream, metadata: node.metadata })
}

/// The entry of the stream at `located`, which is open now; none for what is no stream.
pub(super) async fn opened(kernel: &Kernel, op: Op, located: &Located) -> Result<Option<Arc<FileMetadata>>> {
    if !is_there(located) {
        return Ok(None);
    }
    Ok(Some(ready(kernel, op, located).await?.metadata))
}

pub(super) fn refused(op: Op, path: &VPath, refusal: &Refusal) -> Error {
    let error = Error::new(op, path, refusal.kind()).because(refusal);
    if refusal.is_unknown() { error.outcome_unknown() } else { error }
}

/// Reads records.
pub(super) async fn read(kernel: &Kernel, ready: Ready, call: &SysRead) -> Result<ReadData> {
    let invalid =
        |why: &str| Err(Error::new(SysRead::OP, &call.path, ErrorKind::InvalidArgument).because(why));
    if call.as_of.is_some() {
        return invalid("a stream has no versions: its records are there by their offsets");
    }
    let Extent::Records(range) = call.extent else {
        return invalid("a stream is read record by record: say from which one");
    };
    let Ready { stream, metadata } = ready;
    let read = Box::pin(stream.read(kernel.env(), range.from, bounds(range), call.wait)).await;
    let read = read.map_err(|refusal| refused(SysRead::OP, &call.path, &refusal))?;
    Ok(read_data(read, metadata))
}

fn bounds(range: RecordRange) -> ReadBounds {
    ReadBounds::new(usize::try_from(range.records_max).unwrap_or(usize::MAX), range.bytes_max)
}

fn read_data(read: StreamRead, metadata: Arc<FileMetadata>) -> ReadData {
    let (next, tail) = (read.next, read.tail);
    let records = read.records.into_iter().map(|record| Record::new(record.offset, record.at, record.data));
    ReadData::of_stream(Records::new(records.collect(), next, tail), metadata)
}

fn check_write(call: &SysWrite, is_durable: bool) -> Result<()> {
    let fail = |kind, why: &str| Err(Error::new(SysWrite::OP, &call.path, kind).because(why));
    if call.create == Create::Exclusive {
        return Err(Error::new(SysWrite::OP, &call.path, ErrorKind::AlreadyExists));
    }
    if call.place != Place::End {
        return fail(ErrorKind::InvalidArgument, "records are appended to a stream");
    }
    if !call.attributes.is_empty() {
        return fail(ErrorKind::InvalidArgument, "an append to a stream sets no attributes");
    }
    if call.precondition != Precondition::None {
        return fail(ErrorKind::InvalidArgument, "a stream has no version to expect");
    }
    if call.consistency == Some(Consistency::Strong) && !is_durable {
        return fail(ErrorKind::NotSupported, "nothing in this stream outlives the process");
    }
    Ok(())
}

/// Appends the buffers as records; under the lock of its fence, if it has one.
pub(super) async fn write(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    ready: Ready,
    call: &SysWrite,
) -> Result<Written> {
    let Ready { stream, metadata } = ready;
    let is_durable = stream.is_durable();
    check_write(call, is_durable)?;
    let append = append_of(kernel, call);
    let receipt = receipt(call, is_durable);
    let (table, actor) = (kernel.streams().clone(), kernel.streams_actor().clone());
    let (underway, caller, path) = (kernel.underway().clone(), caller.clone(), call.path.clone());
    let passing = call.op_id.map(|op_id| underway.begin(op_id, &caller, SysWrite::OP, &path));
    let fence = call.fence.clone().map(|fence| (kernel.clone(), fence));
    // Also when the caller goes away meanwhile: who waits has to hear of what is there, and who asks what became of it, too.
    let appended = Owned::from_start(kernel.env(), "streams.append", async move {
        let at = append.at;
        // Kept until the records are there: whoever gets that lock next finds them.
        let _held = match fence {
            None => None,
            // Few are made so: no other append has room for it.
            Some((kernel, fence)) => {
                Box::pin(held(&kernel, (&caller, &path), &fence, passing.as_ref())).await?
            }
        };
        let appended = stream.append(append).await.map_err(|refusal| refused(SysWrite::OP, &path, &refusal));
        if appended.is_ok() {
            note_age(&table, &actor, &stream, at);
        }
        let Some(passing) = passing else { return appended };
        if appended.is_ok() {
            underway.executed(&caller, CommittedOp::new(receipt, SysWrite::OP, path, None, at));
        }
        passing.ends(appended)
    });
    let appended = appended.await?;
    Ok(written(call, metadata, is_durable, &appended))
}

fn append_of(kernel: &Kernel, call: &SysWrite) -> Append {
    let append = Append::new(call.data.iter().cloned(), Timestamp(kernel.env().wall()));
    match call.op_id {
        Some(op_id) => append.op(op_id),
        None => append,
    }
}

fn receipt(call: &SysWrite, is_durable: bool) -> Receipt {
    let durability = if is_durable { Durability::Strong } else { Durability::Volatile };
    Receipt::unchanged(call.op_id.unwrap_or(OpId(0)), Lsn(0), durability)
}

fn written(call: &SysWrite, metadata: Arc<FileMetadata>, is_durable: bool, appended: &Appended) -> Written {
    let (length, receipt) = (content::length(&call.data), receipt(call, is_durable));
    let mut written = Written::new(length, Some(metadata.size), metadata, receipt);
    (written.places, written.first_record) = (call.data.len() as u64, Some(appended.first));
    written
}

/// Has the stream looked at when its oldest record is too old, if that is not noted yet.
fn note_age(table: &StreamTable, actor: &Ref<Streams>, stream: &Stream, at: Timestamp) {
    if table.note_age(stream, at) {
        // One that has ended is followed by one that looks before all else.
        let _ = actor.signal(Age);
    }
}

/// Keeps a lock from others for an append under it. None of an append that was executed before: sent again, it is told where its records are, whoever has the lock by now.
async fn held(
    kernel: &Arc<Kernel>,
    (caller, path): (&Arc<Caller>, &VPath),
    fence: &Fence,
    passing: Option<&Passing>,
) -> Result<Option<Hold>> {
    let stale = match fenced(kernel, caller, (SysWrite::OP, path), Some(fence)).await {
        Ok(held) => return Ok(held),
        Err(stale) => stale,
    };
    let Some(passing) = passing else { return Err(stale) };
    // First who is under way: what ends in between is found among what was executed.
    let is_again = passing.is_again(BEGUN);
    match kernel.underway().elsewhere(passing.op_id()) {
        Ok(_) => Ok(None),
        Err(_) if is_again => {
            let error = Error::new(SysWrite::OP, path, ErrorKind::Busy);
            Err(error.because("an append of the same identity is under way"))
        }
        Err(_) => Err(stale),
    }
}
