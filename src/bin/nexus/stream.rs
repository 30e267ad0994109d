//! `stream make`, `stream append`, `stream read`, `stream tail`; its consumer groups are in `group.rs`.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nexus::syscall::{IoProfile, Record, RecordRange, StreamSpec, StreamStart};
use nexus::{Bytes, EntryType, Error, ErrorKind, Fence, Op, StreamReader, SysWrite, VPath};
use serde_json::{Value, json};

use crate::args::{StreamAppendArgs, StreamArgs, StreamCommand, StreamKind, StreamMakeArgs};
use crate::args::{StreamReadArgs, StreamTailArgs};
use crate::failure::{Failure, Outcome, Status};
use crate::group;
use crate::session::{Session, fence, path};

/// How long one call of `tail -f` waits; then the next one does.
const FOLLOW_WAIT: Duration = Duration::from_secs(60);

pub(crate) async fn stream(session: &Session, args: StreamArgs) -> Outcome {
    match args.command {
        StreamCommand::Make(args) => make(session, args).await,
        StreamCommand::Append(args) => append(session, args).await,
        StreamCommand::Read(args) => read(session, args).await,
        StreamCommand::Tail(args) => tail(session, args).await,
        StreamCommand::Groups(args) => group::groups(session, args).await,
        StreamCommand::Take(args) => group::take(session, args).await,
        StreamCommand::Ack(args) => group::ack(session, args).await,
        StreamCommand::GiveBack(args) => group::give_back(session, args).await,
        StreamCommand::RemoveGroup(args) => group::remove(session, args).await,
    }
}

async fn make(session: &Session, args: StreamMakeArgs) -> Outcome {
    let at = path(Op::Setattr, &args.path)?;
    let mut spec = StreamSpec::new();
    spec.bytes_max = args.bytes_max;
    spec.age_max = args.age_max.map(Into::into);
    spec.io_profile = args.kind.map(|kind| match kind {
        StreamKind::Memory => IoProfile::Memory,
        StreamKind::Durable => IoProfile::Durable,
        StreamKind::Shared => IoProfile::Shared,
    });
    let done = session.nx.make_stream(&at, spec).await?;
    session.out.quiet(&json!({ "path": at, "created": done.created }))
}

async fn append(session: &Session, args: StreamAppendArgs) -> Outcome {
    let at = path(Op::Append, &args.path)?;
    let mut records: Vec<_> = args.records.into_iter().map(|record| record.into_bytes().into()).collect();
    if records.is_empty() {
        let mut record = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut record);
        read.map_err(|error| Failure::host("append", Path::new("standard input"), error))?;
        records.push(record.into());
    }
    let count = records.len();
    let first = match fence(Op::Append, &at, &args.fence)? {
        None => session.nx.append_records(&at, records).await,
        Some(fence) => append_under(session, &at, records, fence).await,
    };
    let first = first.map_err(|error| error.during(Op::Append))?;
    session.out.quiet(&json!({ "path": at, "first": first, "count": count }))
}

/// As [`Nexus::append_records`](nexus::Nexus::append_records), while the lock of `fence` is held.
async fn append_under(
    session: &Session,
    at: &VPath,
    records: Vec<Bytes>,
    fence: Fence,
) -> nexus::Result<u64> {
    let other = || Error::new(Op::Write, at, ErrorKind::NotSupported).because("it is no stream");
    if session.nx.stat(at).await?.entry_type != EntryType::Stream {
        return Err(other());
    }
    let done = session.nx.send(SysWrite::vectored(at, records).append().fence(fence)).await?;
    done.first_record.ok_or_else(other)
}

async fn read(session: &Session, args: StreamReadArgs) -> Outcome {
    let at = path(Op::Read, &args.path)?;
    let from = args.from.map_or(StreamStart::Oldest, StreamStart::At);
    let mut reader = session.nx.stream_reader(&at, from)?;
    let wait: Option<Duration> = args.wait.map(Into::into);
    let mut left = args.number;
    while left != Some(0) {
        let Some(record) = reader.next(wait).await? else { break };
        left = left.map(|left| left - 1);
        show(session, &record)?;
    }
    if left.is_some_and(|left| left > 0) {
        session.out.ends_with(Status::Failed);
    }
    Ok(())
}

async fn tail(session: &Session, args: StreamTailArgs) -> Outcome {
    let at = path(Op::Read, &args.path)?;
    // Where the stream ends: the last records are counted back from there, and what follows comes behind them.
    let look = nexus::syscall::SysRead::at(&at).records(RecordRange::from(StreamStart::Tail));
    let tail = session.nx.send(look).await?.records.map_or(0, |records| records.tail);
    let look =
        nexus::syscall::SysRead::at(&at).records(RecordRange::from(StreamStart::Oldest).records_max(1));
    let oldest = session.nx.send(look).await?.records;
    let oldest = oldest.and_then(|read| read.records.first().map(|record| record.offset)).unwrap_or(tail);
    let from = tail.saturating_sub(args.number).max(oldest);
    let mut reader: StreamReader = session.nx.stream_reader(&at, from)?;
    loop {
        let wait = args.follow.then_some(FOLLOW_WAIT);
        match reader.next(wait).await? {
            Some(record) => show(session, &record)?,
            None if args.follow => {}
            None => return Ok(()),
        }
    }
}

fn show(session: &Session, record: &Record) -> Outcome {
    show_with(session, record, json!({ "offset": record.offset, "at_ms": record.at.0 / 1_000_000 }))
}

/// Prints a record, and with --json what is to be said of it.
pub(crate) fn show_with(session: &Session, record: &Record, mut object: Value) -> Outcome {
    if session.out.is_json() {
        match std::str::from_utf8(&record.data) {
            Ok(text) => object["text"] = text.into(),
            Err(_) => object["base64"] = STANDARD.encode(&record.data).into(),
        }
        session.out.json(&object)?;
    } else {
        session.out.bytes(&record.data)?;
        session.out.bytes(b"\n")?;
    }
    // Who waits for the next one is to see this one.
    session.out.flush()
}
