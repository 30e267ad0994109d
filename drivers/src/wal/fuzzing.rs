//! What the log is fuzzed with.

use std::borrow::Cow;
use std::sync::Arc;

use arbitrary::Unstructured;
use bytes::Bytes;
use nexus_kernel::fuzzing::damage;
use nexus_kernel::hal::{LogItem, LogRecord, RowKey, StoreError, Table, Told, ToldEvent, TreeId};
use nexus_messages::{EntryType, EventKind, Lsn, Op, OpId, Timestamp, VPath, ZoneId};

use super::frame::{self, FrameEntry, Header, Payload, Seed};
use super::journal::Journal;
use crate::disk::Folder;
use crate::disk::sim::SimDisk;
use crate::frames::frame::HEADER_BYTES;
use crate::fuzzing::damage_a_file;

const SALT: u64 = 9;

/// So far ahead of its frames a segment has zeros.
const AHEAD: u64 = 512;

/// Bytes of any kind as a frame, as a payload, and a frame that was damaged.
pub(crate) fn frame(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let seed = Seed::of(SALT, 3);
    if u.arbitrary()? {
        let noise = u.bytes(u.len())?;
        // Who is told what is compared with what finds the checksums. What has the right ones is a frame, and read as far as it is sound.
        let framed = read(seed, noise).map(|(_, payload)| payload);
        for payload in framed.into_iter().chain(frame::decode(noise)) {
            let mut written = Vec::new();
            frame::encode(&mut written, seed, 1, 0, 0, &payload).expect("it is short");
            let again = read(seed, &written).map(|(_, payload)| payload);
            assert_eq!(again, Some(payload), "a payload is another one when it was written again");
        }
        return Ok(());
    }
    let payload = payload(u, 1)?;
    let (seq, durable, previous) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
    let mut bytes = Vec::new();
    let header = frame::encode(&mut bytes, seed, seq, durable, previous, &payload).expect("it is short");
    assert_eq!((bytes.len() as u64, header.seq, header.durable), (header.frame_bytes(), seq, durable));
    damage(u, &mut bytes)?;
    if let Some(found) = read(seed, &bytes) {
        // What fills a frame up is not looked at.
        assert_eq!(found, (header, payload), "damage was read as another frame");
    }
    Ok(())
}

/// The frame that `bytes` begin with.
fn read(seed: Seed, bytes: &[u8]) -> Option<(Header, Payload<'static>)> {
    let (header, payload) = crate::frames::frame::read(seed, bytes)?;
    Some((header, frame::decode(payload).ok()?))
}

fn told(u: &mut Unstructured<'_>) -> arbitrary::Result<Arc<Told>> {
    let event = ToldEvent {
        kind: *u.choose(EventKind::ALL)?,
        entry_type: EntryType::Reg,
        size: u.arbitrary()?,
        content_id: None,
        version: u.arbitrary()?,
        generation: 1,
        is_new: u.arbitrary()?,
        owner: Arc::from("coder-7"),
    };
    let events = smallvec::smallvec![Some(event), None];
    let user = u.arbitrary::<bool>()?.then(|| Arc::from("ada"));
    Ok(Arc::new(Told { zone: ZoneId::root(), admin: u.arbitrary()?, events, user }))
}

fn payload(u: &mut Unstructured<'_>, lsn: u64) -> arbitrary::Result<Payload<'static>> {
    let path = |name: u8| VPath::parse(&format!("/{name}")).expect("it is a path");
    let mut entries = Vec::new();
    for _ in 0..u.int_in_range(0..=2)? {
        let item = LogItem { op: Op::Write, path: path(u.arbitrary()?), other: None };
        let record = LogRecord {
            lsn: Lsn(lsn),
            op_id: OpId(u.arbitrary()?),
            caller: Arc::from("coder-7"),
            op: Op::Write,
            path: path(u.arbitrary()?),
            other: if u.arbitrary()? { Some(path(1)) } else { None },
            items: vec![item; u.int_in_range(0..=2)?],
            told: if u.arbitrary()? { Some(told(u)?) } else { None },
            at: Timestamp(u.arbitrary()?),
        };
        let mut rows = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            let key = RowKey::new(*u.choose(&Table::ALL)?, u.arbitrary::<[u8; 3]>()?);
            let length = u.int_in_range(0..=60)?;
            let value = if u.arbitrary()? { Some(Bytes::from(vec![u.arbitrary()?; length])) } else { None };
            rows.push((key, value));
        }
        entries.push(FrameEntry {
            tree: TreeId(0),
            repeatable: u.arbitrary()?,
            record: Cow::Owned(record),
            rows: Cow::Owned(rows),
        });
    }
    Ok(Payload { next_file_id: u.arbitrary()?, entries })
}

/// A frame that was written, and where.
struct Written {
    segment: String,
    at: u64,
    bytes: Vec<u8>,
    header: Header,
    payload: Payload<'static>,
}

/// A log of some segments, damaged in one of them.
pub(crate) fn log(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let open = |applied: u64, replayed: &mut Vec<(u64, Payload<'static>)>| {
        Journal::open(folder.clone(), SALT, applied, AHEAD, |seq, payload| {
            replayed.push((seq, payload));
            Ok(())
        })
    };
    let mut journal = open(0, &mut Vec::new()).expect("the disk is well");
    let mut written: Vec<Written> = Vec::new();
    // What was folded before the end: all up to the end of a segment.
    let mut applied = 0;
    let (mut at, mut previous, mut durable) = (0, frame::CHAIN_START, 0);
    for seq in 1..=u.int_in_range(1..=8)? {
        let (number, payload) = (journal.segment(), payload(u, seq)?);
        let mut bytes = Vec::new();
        let seed = Seed::of(SALT, number);
        let header = frame::encode(&mut bytes, seed, seq, durable, previous, &payload).expect("it is short");
        journal.append(&payload, None).expect("the disk is well");
        written.push(Written { segment: format!("{number:020}.wal"), at, bytes, header, payload });
        at += header.frame_bytes();
        previous = header.checksum;
        if u.ratio(3, 4)? {
            journal.sync().expect("the disk is well");
            durable = seq;
        }
        if u.ratio(1, 5)? {
            journal.prepare().expect("the disk is well");
            journal.rotate().expect("the disk is well");
            (at, durable) = (0, seq);
            applied = if u.arbitrary()? { seq } else { applied };
        }
    }
    drop(journal);
    for place in &written {
        assert!(stands(&*folder, place), "a frame is not where it was thought to be");
    }
    damage_a_file(u, &*folder)?;
    // Before the log is opened: a segment of which nothing is wanted may be used again.
    let standing: Vec<Header> =
        written.iter().filter(|frame| stands(&*folder, frame)).map(|frame| frame.header).collect();
    let mut replayed = Vec::new();
    let opened = open(applied, &mut replayed);
    let expected = written.iter().filter(|frame| frame.header.seq > applied);
    for ((seq, payload), frame) in replayed.iter().zip(expected) {
        assert_eq!((*seq, payload), (frame.header.seq, &frame.payload), "another frame was read");
    }
    let end = applied + replayed.len() as u64;
    assert!(end <= written.len() as u64, "there are more frames than were written");
    match opened {
        Ok(_) => {
            let proof = standing.iter().find(|header| header.durable > end).map(|header| header.seq);
            assert_eq!(
                proof, None,
                "the log ends with frame {end}, and a later one says that more was on disk"
            );
        }
        Err(StoreError::Corrupt { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    Ok(())
}

/// Whether the frame is where it was written, as it was. What fills it up to the next one may be anything, and is there.
fn stands(folder: &dyn Folder, frame: &Written) -> bool {
    let mut found = vec![0; frame.header.payload_bytes() + HEADER_BYTES];
    let file = folder.open(&frame.segment, false).expect("the disk is well");
    let is_there = file.len().expect("the disk is well") >= frame.at + frame.header.frame_bytes();
    is_there && file.read_at(frame.at, &mut found).is_ok() && found == frame.bytes[..found.len()]
}
