//! Opening: what the streams are, by the segment that was written to last; where their records are in the others, by their indexes; and what a crash tore.
//!
//! A segment begins with a frame that tells what all streams are, so only the last one is read frame by frame, and of the others only the tables of their indexes. What is whole in the last segment, and of which nothing that was written
//! after it says that it was on disk, may lie in the system's memory alone: the process was killed, or a flush failed. It is written anew, in the first frame of another
//! segment, together with what the streams were before it; the old segment ends before it then.
//!
//! On a disk that has no room for that it is written anew where it stands.
//!
//! A frame that is missing although a later one says that it was on disk is damage, and nothing is opened around it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::StoreError;
use nexus_messages::FileId;

use super::index::{self, Extent, Index};
use super::proof;
use super::record::{self, Entry, Item};
use super::spare;
use super::table::{Table, extent_of};
use crate::disk::Folder;
use crate::frames::frame::{self, CHAIN_START, Header, Seed};
use crate::frames::segment::{Last, Segment, Unwritten, failed, name_of, numbers};

/// What was found.
pub(super) struct Found {
    pub(super) table: Table,
    pub(super) current: Segment,
    /// The last frame.
    pub(super) last: Last,
    /// The number of the first frame of the segment that is written to.
    pub(super) start: u64,
    /// How long that frame is.
    pub(super) start_bytes: u64,
    /// Up to here it is said that all is on disk.
    pub(super) said: u64,
    /// Whether there was no room for another segment.
    pub(super) is_full: bool,
}

/// A frame of which it is not known whether it is on disk.
struct Waiting {
    header: Header,
    place: u64,
    items: Vec<Item>,
}

/// Opens the log in `folder`.
pub(super) fn open(
    folder: &Arc<dyn Folder>,
    salt: u64,
    ahead: u64,
    recent_max: u64,
) -> Result<Found, StoreError> {
    let all = numbers(folder)?;
    let mut older = all.clone();
    let mut void = Vec::new();
    let mut newest = None;
    while let Some(number) = older.pop() {
        let segment = Segment::open(folder, salt, number, false)?;
        if let Some((header, payload)) = segment.frame(0)? {
            newest = Some((segment, header, items_of(number, &header, payload)?));
            break;
        }
        // A segment is written to only when its first frame is on disk.
        if let Some(proof) = segment.any_frame()? {
            return Err(StoreError::Corrupt {
                what: format!("the beginning of segment {number} of the log"),
                found: format!("nothing whole, and frame {proof} was written after it was on disk"),
            });
        }
        void.push(number);
    }
    let next = all.last().map_or(1, |last| last + 1);
    let mut table = Table::new(recent_max);
    let Some((segment, header, items)) = newest else {
        if let Some(left) = left_alone(folder)? {
            return Err(StoreError::Corrupt {
                what: "the segments of the log".into(),
                found: format!(
                    "nothing whole, and there is {left}, which was written when they were on disk"
                ),
            });
        }
        let before = Last { seq: 0, checksum: CHAIN_START };
        let (current, last, start_bytes) =
            begin(folder, salt, ahead, next, before, &[Entry::Start(Vec::new())], &[]).map_err(said)?;
        remove(folder, &void);
        table.segments.entry(current.number).or_default();
        lay_down(folder);
        return Ok(Found { table, current, last, start: last.seq, start_bytes, said: 0, is_full: false });
    };
    // An index is written when the next segment is on disk.
    if read_index(folder, &segment).is_some() {
        return Err(StoreError::Corrupt {
            what: format!("the segment behind segment {} of the log", segment.number),
            found: "nothing whole, and it was on disk when the index of this one was written".into(),
        });
    }
    let start = header;
    let proof = proof::read(folder, segment.seed);
    let read = read_last(segment, header, items, proof, &mut table)?;
    let before = Last { seq: start.seq.saturating_sub(1), checksum: start.previous };
    let is_begun = read.proven != before;
    let mut found = if is_begun && read.waiting.iter().all(|waiting| waiting.items.is_empty()) {
        let mut current = read.segment;
        current.end = read.proven_end;
        let (last, start_bytes) = (read.proven, start.frame_bytes());
        Found { table, current, last, start: start.seq, start_bytes, said: last.seq, is_full: false }
    } else {
        let carried: Vec<&Item> = read.waiting.iter().flat_map(|waiting| &waiting.items).collect();
        let mut entries = vec![Entry::Start(table.snapshots())];
        entries.extend(carried.iter().map(|item| item.entry.clone()));
        let data: Vec<Bytes> = carried.iter().map(|item| item.data.clone()).collect();
        match begin(folder, salt, ahead, next, read.proven, &entries, &data) {
            Ok((current, last, start_bytes)) => {
                let Reading { segment: old, proven, proven_end, .. } = &read;
                if is_begun {
                    let index = seal(folder, old, *proven, *proven_end, &table.extents_in(old.number));
                    table.ended(old.number, *proven_end, index.as_ref());
                } else {
                    void.push(old.number);
                }
                for item in carried {
                    table.replay(current.number, 0, start_bytes, item);
                }
                let said = proven.seq;
                Found { table, current, last, start: last.seq, start_bytes, said, is_full: false }
            }
            Err(Unwritten::Not(StoreError::Full)) => in_place(folder, read, &start, table)?,
            Err(unwritten) => return Err(said(unwritten)),
        }
    };
    remove(folder, &void);
    remove(folder, &without_segment(folder, &all)?);
    found.table.segments.entry(found.current.number).or_default();
    place_older(folder, salt, &mut found.table, older, before)?;
    lay_down(folder);
    Ok(found)
}

/// Lays down what is written to when there is no room.
fn lay_down(folder: &Arc<dyn Folder>) {
    proof::lay_down(folder);
    spare::lay_down(folder);
}

/// Goes on in the segment that was written to last, although it is not known whether all of it is on disk: what is in doubt is written again as it stands there, which takes no room, and of
/// frames behind it that nobody was told of nothing is left. A crash meanwhile leaves what this is begun with.
fn in_place(
    folder: &Arc<dyn Folder>,
    read: Reading,
    start: &Header,
    mut table: Table,
) -> Result<Found, StoreError> {
    let Reading { segment: current, proven, proven_end, waiting } = read;
    tracing::warn!(segment = current.number, "there is no room for another segment of the streams' log");
    let failed = failed("writing the end of the log again");
    let again = current.write_again(proven_end, current.end);
    let cleared = again.and_then(|()| current.zero(current.end, current.written));
    cleared.and_then(|()| current.file.sync()).and_then(|()| folder.sync()).map_err(failed)?;
    let mut last = proven;
    for Waiting { header, place, items } in &waiting {
        items.iter().for_each(|item| table.replay(current.number, *place, header.frame_bytes(), item));
        last = Last { seq: header.seq, checksum: header.checksum };
    }
    let (start, start_bytes) = (start.seq, start.frame_bytes());
    Ok(Found { table, current, last, start, start_bytes, said: proven.seq, is_full: true })
}

/// What is only written when there is a segment, and stays when that is gone.
pub(super) fn left_alone(folder: &Arc<dyn Folder>) -> Result<Option<String>, StoreError> {
    let names = folder.list().map_err(failed("listing the streams' log"))?;
    Ok(names.into_iter().find(|name| index::number_of(name).is_some() || name == proof::NAME))
}

/// The numbers of indexes without a segment.
fn without_segment(folder: &Arc<dyn Folder>, segments: &[u64]) -> Result<Vec<u64>, StoreError> {
    let names = folder.list().map_err(failed("listing the streams' log"))?;
    let indexes = names.iter().filter_map(|name| index::number_of(name));
    Ok(indexes.filter(|number| segments.binary_search(number).is_err()).collect())
}

/// A segment that is read to its end.
struct Reading {
    segment: Segment,
    /// The last frame that is known to be on disk, and where it ends.
    proven: Last,
    proven_end: u64,
    /// Those after it.
    waiting: VecDeque<Waiting>,
}

/// Reads the segment that was written to last, into the table as far as it is known to be on disk.
fn read_last(
    mut segment: Segment,
    first: Header,
    items: Vec<Item>,
    proof: Option<Last>,
    table: &mut Table,
) -> Result<Reading, StoreError> {
    let number = segment.number;
    // What the streams were is known, whether that is on disk or not.
    let (start, carried): (Vec<Item>, Vec<Item>) =
        items.into_iter().partition(|item| matches!(item.entry, Entry::Start(_)));
    start.iter().for_each(|item| table.replay(number, 0, first.frame_bytes(), item));
    let mut waiting = VecDeque::from([Waiting { header: first, place: 0, items: carried }]);
    // Until something says that the first frame is on disk, it is as the frames after it: not known to be.
    let (mut proven, mut proven_end) =
        (Last { seq: first.seq.saturating_sub(1), checksum: first.previous }, 0);
    let mut last = Last { seq: first.seq, checksum: first.checksum };
    segment.end = first.frame_bytes();
    let mut prove = |waiting: &mut VecDeque<Waiting>, durable: u64| {
        while let Some(next) = waiting.pop_front_if(|next| next.header.seq <= durable) {
            let length = next.header.frame_bytes();
            next.items.iter().for_each(|item| table.replay(number, next.place, length, item));
            proven = Last { seq: next.header.seq, checksum: next.header.checksum };
            proven_end = next.place + length;
        }
    };
    while let Some((header, payload)) = segment.frame(segment.end)? {
        if header.seq != last.seq + 1 || header.previous != last.checksum {
            // Left over from a frame that nobody was told of.
            break;
        }
        let items = items_of(number, &header, payload)?;
        waiting.push_back(Waiting { header, place: segment.end, items });
        prove(&mut waiting, header.durable);
        last = Last { seq: header.seq, checksum: header.checksum };
        segment.end += header.frame_bytes();
    }
    let missing = last.seq + 1;
    let said = match proof {
        Some(proof) if proof.seq >= missing => Some("the streams were closed".into()),
        _ => segment.proves(segment.end, missing)?.map(|proof| format!("frame {} was written", proof.seq)),
    };
    if let Some(said) = said {
        return Err(StoreError::Corrupt {
            what: format!("frame {missing} of the log (segment {number}, at {})", segment.end),
            found: format!("nothing whole, and {said} after it was on disk"),
        });
    }
    if let Some(proof) = proof {
        prove(&mut waiting, proof.seq);
    }
    Ok(Reading { segment, proven, proven_end, waiting })
}

fn items_of(segment: u64, header: &Header, payload: Vec<u8>) -> Result<Vec<Item>, StoreError> {
    record::decode(&payload.into()).map_err(|found| StoreError::Corrupt {
        what: format!("frame {} of the log (segment {segment})", header.seq),
        found,
    })
}

fn said(unwritten: Unwritten) -> StoreError {
    match unwritten {
        Unwritten::Not(error) | Unwritten::Unknown(error) => error,
    }
}

/// A segment that was begun, its first frame, and how long that is.
pub(super) type Begun = (Segment, Last, u64);

/// Begins the segment `number` with a frame of these entries, behind the frame `before`. On return it is on disk, and its name is. When it is told as not written,
/// there is no such segment.
pub(super) fn begin(
    folder: &Arc<dyn Folder>,
    salt: u64,
    ahead: u64,
    number: u64,
    before: Last,
    entries: &[Entry],
    data: &[Bytes],
) -> Result<Begun, Unwritten> {
    let make = |_| Segment::open(folder, salt, number, true);
    begin_in(make, folder, salt, ahead, number, before, entries, data)
}

/// As [`begin`], in the file that was laid down for when there is no room.
pub(super) fn begin_in_spare(
    folder: &Arc<dyn Folder>,
    salt: u64,
    number: u64,
    before: Last,
    entries: &[Entry],
) -> Result<Begun, Unwritten> {
    let take = |bytes| spare::take(folder, salt, number, bytes);
    begin_in(take, folder, salt, 1, number, before, entries, &[])
}

#[expect(clippy::too_many_arguments, reason = "they are those of `begin`")]
fn begin_in(
    file: impl FnOnce(usize) -> Result<Segment, StoreError>,
    folder: &Arc<dyn Folder>,
    salt: u64,
    ahead: u64,
    number: u64,
    before: Last,
    entries: &[Entry],
    data: &[Bytes],
) -> Result<Begun, Unwritten> {
    let mut bytes = Vec::new();
    let entries: Vec<&Entry> = entries.iter().collect();
    let seq = before.seq + 1;
    let write = |out: &mut Vec<u8>| record::encode(out, &entries, data);
    let seed = Seed::of(salt, number);
    let header =
        frame::encode(&mut bytes, seed, seq, before.seq, before.checksum, write).ok_or_else(|| {
            let (what, cause) = ("beginning a segment of the log".into(), "the streams are too many".into());
            Unwritten::Not(StoreError::Backend { what, cause })
        })?;
    let begun = file(bytes.len()).map_err(Unwritten::Not).and_then(|mut segment| {
        segment.write(&bytes, ahead, None)?;
        Ok(segment)
    });
    let mut segment = match begun {
        Ok(segment) => segment,
        // Whatever of it is there must not be taken for the end of the log later.
        Err(Unwritten::Not(error)) => {
            let removed = folder.remove(&name_of(number)).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            });
            return Err(match removed.and_then(|()| folder.sync()) {
                Ok(()) => Unwritten::Not(error),
                Err(_) => Unwritten::Unknown(error),
            });
        }
        Err(unknown) => return Err(unknown),
    };
    let flushed = segment.file.sync().and_then(|()| folder.sync());
    flushed.map_err(|error| Unwritten::Unknown(failed("flushing a new segment of the log")(error)))?;
    segment.end = header.frame_bytes();
    let last = Last { seq, checksum: header.checksum };
    Ok((segment, last, header.frame_bytes()))
}

/// Writes the index of a segment that is no longer written to. When that fails, what it would say stays in memory.
pub(super) fn seal(
    folder: &Arc<dyn Folder>,
    segment: &Segment,
    last: Last,
    end: u64,
    extents: &BTreeMap<FileId, Vec<Extent>>,
) -> Option<Index> {
    let written = write_index(folder, segment, last, end, extents);
    written
        .inspect_err(|error| {
            tracing::warn!(segment = segment.number, %error, "the index of a segment stays in memory");
        })
        .ok()
}

fn write_index(
    folder: &Arc<dyn Folder>,
    segment: &Segment,
    last: Last,
    end: u64,
    extents: &BTreeMap<FileId, Vec<Extent>>,
) -> Result<Index, StoreError> {
    let (bytes, index) = index::encode(segment.seed, segment.number, last, end, index::runs_of(extents));
    let failed = failed("writing the index of a segment");
    let file = folder.open(&index::name_of(segment.number), true).map_err(&failed)?;
    // One of an earlier life may be longer.
    file.set_len(0).and_then(|()| file.write_at(0, &bytes)).map_err(&failed)?;
    Ok(index)
}

/// The index of a segment, when it is there and whole.
pub(super) fn read_index(folder: &Arc<dyn Folder>, segment: &Segment) -> Option<Index> {
    let file = folder.open(&index::name_of(segment.number), false).ok()?;
    let mut head = [0; index::HEAD];
    file.read_at(0, &mut head).ok()?;
    let length = index::table_bytes(&head)?;
    if length as u64 > file.len().ok()? {
        return None;
    }
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes).ok()?;
    index::decode(segment.seed, &bytes).filter(|index| index.segment == segment.number)
}

/// Finds the records in the older segments, from the newest of them down. `limit` is the frame that the segment above them follows.
fn place_older(
    folder: &Arc<dyn Folder>,
    salt: u64,
    table: &mut Table,
    mut older: Vec<u64>,
    limit: Last,
) -> Result<(), StoreError> {
    let mut limit = limit;
    while let Some(number) = older.pop() {
        let segment = Segment::open(folder, salt, number, false)?;
        let start = segment.header(0)?;
        if start.is_some_and(|start| start.seq > limit.seq) {
            // It was begun after a crash, and another one was after the next.
            remove(folder, &[number]);
            continue;
        }
        let fits = |index: &Index| {
            index.last.seq < limit.seq
                || (index.last.seq == limit.seq && index.last.checksum == limit.checksum)
        };
        let end = match read_index(folder, &segment).filter(fits) {
            Some(index) => {
                index.runs.iter().for_each(|run| table.place_stored(number, run));
                index.end
            }
            None => {
                let Scanned { last, end, extents } = scan(&segment, limit.seq)?;
                match seal(folder, &segment, last, end, &extents) {
                    Some(index) => index.runs.iter().for_each(|run| table.place_stored(number, run)),
                    None => index::runs_of(&extents)
                        .for_each(|(stream, run)| table.place_scanned(number, stream, run)),
                }
                end
            }
        };
        table.segments.entry(number).or_default().end = end;
        if let Some(start) = start {
            limit = Last { seq: start.seq.saturating_sub(1), checksum: start.previous };
        }
    }
    Ok(())
}

/// What a segment has that was read as a whole.
pub(super) struct Scanned {
    last: Last,
    end: u64,
    /// By stream, in the order of their offsets.
    pub(super) extents: BTreeMap<FileId, Vec<Extent>>,
}

/// Reads a whole segment, up to the frame `limit`. What is damaged in it is left out: to read that is an error then.
pub(super) fn scan(segment: &Segment, limit: u64) -> Result<Scanned, StoreError> {
    // What comes later takes the place of what came before.
    let mut extents: BTreeMap<FileId, BTreeMap<u64, Extent>> = BTreeMap::new();
    let mut learn = |place: u64, header: &Header, payload: Vec<u8>| {
        for item in record::decode(&payload.into()).unwrap_or_default() {
            if let Some((stream, first, at)) = item.entry.records() {
                let extent = extent_of(&item, first, at, place, header.frame_bytes());
                extents.entry(stream).or_default().insert(first, extent);
            }
            if let Entry::Remove { stream } = &item.entry {
                extents.remove(stream);
            }
        }
    };
    let (mut at, mut last) = (0, None::<Last>);
    while let Some((header, payload)) = segment.frame(at)? {
        let follows = last.is_none_or(|last| header.seq == last.seq + 1 && header.previous == last.checksum);
        if !follows || header.seq > limit {
            break;
        }
        learn(at, &header, payload);
        at += header.frame_bytes();
        last = Some(Last { seq: header.seq, checksum: header.checksum });
    }
    let mut reached = last.unwrap_or(Last { seq: 0, checksum: CHAIN_START });
    if reached.seq < limit && segment.proves(at, reached.seq + 1)?.is_some_and(|proof| proof.seq <= limit) {
        tracing::error!(segment = segment.number, at, "a segment of the streams' log is damaged");
        segment.search(at, &mut |place, header, payload| {
            if header.seq > reached.seq && header.seq <= limit {
                learn(place, &header, payload);
                at = place + header.frame_bytes();
                reached = Last { seq: header.seq, checksum: header.checksum };
            }
            true
        })?;
    }
    let extents =
        extents.into_iter().map(|(stream, extents)| (stream, extents.into_values().collect())).collect();
    Ok(Scanned { last: reached, end: at, extents })
}

/// Removes segments that hold nothing. What is not removed is found again when the log is opened.
pub(super) fn remove(folder: &Arc<dyn Folder>, segments: &[u64]) {
    for number in segments {
        for name in [name_of(*number), index::name_of(*number)] {
            match folder.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%name, %error, "a file of the streams' log could not be removed");
                }
                _ => {}
            }
        }
    }
}
