//! The store: what is asked becomes frames, which become durable together; and what is read.

use std::ops::Bound;
use std::sync::Arc;

use nexus_kernel::hal::{
    Append, Appended, ReadBounds, StoreError, StreamError, StreamLimits, StreamRead, StreamRecord,
    StreamState, cost_of,
};
use nexus_messages::{FileId, Timestamp};
use parking_lot::{Mutex, RwLock};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::config::WalStreamsConfig;
use super::draft::Draft;
use super::index::{self, Extent, Part};
use super::proof;
use super::reading::Opened;
use super::record::Entry;
use super::recovery;
use super::spare;
use super::table::{Extents, Found, Table};
use crate::disk::Folder;
use crate::frames::frame::Seed;
use crate::frames::segment::{Last, Segment, Unwritten, failed};

/// How much of a segment is read at once, when more than one append is wanted, in bytes.
const WINDOW_BYTES: u64 = 128 << 10;

/// How often a read looks again for records that were moved meanwhile.
const LOOKS_MAX: usize = 8;

/// A segment grows until what it begins with is at most one in so many of its bytes.
const START_SHARE: u64 = 4;

/// How many bytes of records are moved between two batches.
const MOVED_BYTES: u64 = 1 << 20;

/// So often is a segment that is mostly dead looked for while one is filled.
const LOOKS_IN_SEGMENT: u64 = 4;

/// Segments that are not full may take so much space beyond twice what is alive, in segments.
const SPARE_SEGMENTS: u64 = 4;

/// So much of the current segment is kept for what lets go of records, in bytes: a disk that is full can be emptied.
const KEPT_BYTES: usize = 16 << 10;

/// What is asked of a stream.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Create(StreamLimits),
    Append(Append),
    Trim(u64),
    Retain(Timestamp),
    Close,
    Remove,
}

impl Ask {
    /// Whether it needs no more room than its frame.
    fn lets_go(&self) -> bool {
        !matches!(self, Self::Create(_) | Self::Append(_))
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    State(StreamState),
    Appended(Appended),
    Removed(bool),
}

/// The streams of a folder.
#[derive(Debug)]
pub(super) struct Store {
    folder: Arc<dyn Folder>,
    salt: u64,
    pub(super) config: WalStreamsConfig,
    /// Held for the length of a batch.
    writer: Mutex<Writer>,
    // Invariant: only what is on disk is in it; changed with the writer's lock held.
    pub(super) table: RwLock<Table>,
    /// Appends by the segment and the part of its index.
    parts: Cache<(u64, u64), Arc<[Extent]>, PartWeight>,
    /// How many appends were moved.
    #[cfg(test)]
    pub(super) moved: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Clone)]
struct PartWeight;

impl Weighter<(u64, u64), Arc<[Extent]>> for PartWeight {
    fn weight(&self, _: &(u64, u64), part: &Arc<[Extent]>) -> u64 {
        (size_of::<Extent>() * part.len()) as u64 + 64
    }
}

/// About how long a part of an index is, in bytes: only to make the cache's table large enough.
const PART_BYTES: u64 = 4 << 10;

pub(super) struct Writer {
    pub(super) current: Segment,
    /// The last frame. All are on disk between two batches.
    pub(super) last: Last,
    /// The number of the segment's first frame, and how long it is.
    start: u64,
    start_bytes: u64,
    /// Up to here it is said that all is on disk.
    said: u64,
    /// Why nothing is written any more.
    closed: Option<String>,
    /// Memory of the last batch.
    pub(super) buffer: Vec<u8>,
    /// Segments whose records could not be read when they were to be moved.
    stuck: Vec<u64>,
    /// How many bytes were written since somebody looked for a segment that is mostly dead.
    grown: u64,
    /// Whether one was found then.
    moving: bool,
    /// Whether there was no room for what was written last.
    is_full: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("segment", &self.current.number)
            .field("end", &self.current.end)
            .field("last", &self.last)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// How much memory is kept for the next batch, in bytes.
const BUFFER_MAX: usize = 1 << 20;

impl Store {
    /// Opens the streams in `folder`, whose frames are bound to this salt. Blocks.
    pub(super) fn open(
        folder: Arc<dyn Folder>,
        salt: u64,
        config: WalStreamsConfig,
    ) -> Result<Self, StoreError> {
        let found = recovery::open(&folder, salt, config.ahead_bytes, config.recent_bytes)?;
        let index_bytes = config.index_bytes;
        let parts = usize::try_from(index_bytes / PART_BYTES).unwrap_or(usize::MAX).max(16);
        let writer = Writer {
            current: found.current,
            last: found.last,
            start: found.start,
            start_bytes: found.start_bytes,
            said: found.said,
            closed: None,
            buffer: Vec::new(),
            stuck: Vec::new(),
            grown: 0,
            moving: true,
            is_full: found.is_full,
        };
        Ok(Self {
            folder,
            salt,
            config,
            writer: Mutex::new(writer),
            table: RwLock::new(found.table),
            parts: Cache::with_weighter(parts, index_bytes, PartWeight),
            #[cfg(test)]
            moved: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Does what is asked, one after the other, and makes it durable with one flush. What is refused changes nothing. Blocks.
    pub(super) fn commit(&self, asked: Vec<(FileId, Ask)>) -> Vec<Result<Told, StreamError>> {
        let writer = &mut *self.writer.lock();
        if let Err(error) = writer.check() {
            return asked.iter().map(|_| Err(error.clone().into())).collect();
        }
        self.rotate_in_time(writer);
        if let Err(error) = writer.check() {
            return asked.iter().map(|_| Err(error.clone().into())).collect();
        }
        let letting_go: Vec<_> = asked.iter().enumerate().filter(|(_, (_, ask))| ask.lets_go()).collect();
        let letting_go: Vec<_> = letting_go.into_iter().map(|(at, asked)| (at, asked.clone())).collect();
        let mut told = self.commit_all(writer, asked);
        let no_room = |told: &_| matches!(told, Err(StreamError::Store(StoreError::Full)));
        if letting_go.len() < told.len() && told.iter().any(no_room) {
            // It does not wait for room that it may be making.
            let (places, asked): (Vec<_>, Vec<_>) = letting_go.into_iter().unzip();
            for (at, again) in places.into_iter().zip(self.commit_all(writer, asked)) {
                told[at] = again;
            }
        }
        told
    }

    fn commit_all(&self, writer: &mut Writer, asked: Vec<(FileId, Ask)>) -> Vec<Result<Told, StreamError>> {
        let keeps = if asked.iter().all(|(_, ask)| ask.lets_go()) { 0 } else { KEPT_BYTES };
        let mut draft = Draft::new(self, writer);
        // Each with whether something is to be written by then for its stream.
        let asked = asked.into_iter().map(|(stream, ask)| {
            let told = draft.ask(stream, ask);
            (told, draft.changes.contains_key(&stream))
        });
        let (mut told, hang_on_it): (Vec<_>, Vec<_>) = asked.unzip();
        let Draft { buffer, last, changes, .. } = draft;
        if let Err(error) = self.write(writer, &buffer, last, keeps) {
            for (told, _) in told.iter_mut().zip(hang_on_it).filter(|(_, hangs)| *hangs) {
                // It may have been refused for what else was asked of its stream, and was not done.
                if told.is_ok() || !error.is_unknown() {
                    *told = Err(error.clone().into());
                }
            }
        } else {
            let segment = writer.current.number;
            let mut table = self.table.write();
            changes.into_iter().for_each(|(stream, change)| table.take(stream, change, segment));
        }
        writer.keep(buffer);
        told
    }

    /// Puts frames at the end of the log, the last of which is `last`, where that leaves room for `keeps` bytes. On return they are on disk.
    fn write(&self, writer: &mut Writer, frames: &[u8], last: Last, keeps: usize) -> Result<(), StoreError> {
        if frames.is_empty() {
            return Ok(());
        }
        let ahead = self.config.ahead_bytes;
        let room = writer.current.extend(frames.len() + keeps, ahead).map_err(Unwritten::Not);
        match room.and_then(|()| writer.current.write(frames, ahead, None)) {
            Ok(()) => writer.is_full &= keeps == 0,
            Err(Unwritten::Not(error)) => {
                writer.is_full |= matches!(error, StoreError::Full);
                return Err(error);
            }
            Err(Unwritten::Unknown(error)) => return Err(writer.close(&error)),
        }
        if let Err(error) = writer.current.file.sync() {
            return Err(writer.close(&failed("flushing the log")(error)));
        }
        writer.said = writer.last.seq;
        writer.current.end += frames.len() as u64;
        writer.grown += frames.len() as u64;
        writer.last = last;
        Ok(())
    }

    /// Begins another segment, when this one is full. When that cannot be done, this one is written to.
    fn rotate_in_time(&self, writer: &mut Writer) {
        let most = self.config.segment_bytes.max(START_SHARE * writer.start_bytes);
        if writer.current.end < most || writer.last.seq == writer.start {
            return;
        }
        self.rotate(writer, |entries, number, last| {
            recovery::begin(&self.folder, self.salt, self.config.ahead_bytes, number, last, entries, &[])
        });
    }

    /// Goes on in another segment, in the space that was laid down for it, when this one holds nothing and room is short: the space of this one comes back with that.
    fn rotate_when_short(&self, writer: &mut Writer) {
        let current = writer.current.number;
        let holds = self.table.read().segments.get(&current).is_some_and(|held| held.runs > 0);
        if holds || writer.last.seq == writer.start || !(writer.is_full || self.is_short(writer)) {
            return;
        }
        self.rotate(writer, |entries, number, last| {
            recovery::begin_in_spare(&self.folder, self.salt, number, last, entries)
        });
        if writer.current.number == current || writer.check().is_err() {
            return;
        }
        // The other segments may go when something says that the first frame of this one is on disk.
        let mut draft = Draft::new(self, writer);
        draft.says_nothing();
        let Draft { buffer, last, .. } = draft;
        match self.write(writer, &buffer, last, 0) {
            Ok(()) => writer.is_full = false,
            Err(error) => tracing::warn!(%error, "the streams' log gives no space back yet"),
        }
        writer.keep(buffer);
    }

    /// Whether there is little room, and some comes back with this segment.
    fn is_short(&self, writer: &Writer) -> bool {
        let free = || self.folder.free_bytes().ok().flatten();
        writer.current.end.saturating_sub(writer.start_bytes) > self.config.ahead_bytes
            && free().is_some_and(|free| free < self.config.segment_bytes)
    }

    fn rotate(
        &self,
        writer: &mut Writer,
        begin: impl FnOnce(&[Entry], u64, Last) -> Result<recovery::Begun, Unwritten>,
    ) {
        let entries = [Entry::Start(self.table.read().snapshots())];
        let number = writer.current.number + 1;
        match begin(&entries, number, writer.last) {
            Ok((segment, last, start_bytes)) => {
                let old = std::mem::replace(&mut writer.current, segment);
                let (old_last, old_end) = (writer.last, old.end);
                (writer.last, writer.start, writer.start_bytes) = (last, last.seq, start_bytes);
                writer.said = old_last.seq;
                // Readers go on while it is written.
                let extents = self.table.read().extents_in(old.number);
                let index = recovery::seal(&self.folder, &old, old_last, old_end, &extents);
                let table = &mut *self.table.write();
                table.segments.entry(number).or_default();
                table.ended(old.number, old_end, index.as_ref());
            }
            Err(Unwritten::Not(error)) => {
                tracing::warn!(%error, "the streams' log goes on in a segment that is full");
            }
            Err(Unwritten::Unknown(error)) => drop(writer.close(&error)),
        }
    }

    /// Does what can wait: removes segments that hold nothing, and moves what little others hold. Says whether there is more to do. Blocks.
    pub(super) fn tidy(&self) -> bool {
        let writer = &mut *self.writer.lock();
        if writer.check().is_ok() {
            self.rotate_when_short(writer);
        }
        // Until something says that the first frame of the segment is on disk, those before it say what the streams are.
        if writer.check().is_err() || writer.last.seq == writer.start {
            return false;
        }
        let current = writer.current.number;
        let empty: Vec<u64> = {
            let table = &mut *self.table.write();
            let empty = table.segments.iter().filter(|(number, held)| held.runs == 0 && **number < current);
            let empty: Vec<u64> = empty.map(|(number, _)| *number).collect();
            table.segments.retain(|number, _| !empty.contains(number));
            empty
        };
        recovery::remove(&self.folder, &empty);
        if !empty.is_empty() {
            spare::lay_down(&self.folder);
        }
        // To look costs as much as there are runs.
        if !writer.moving && writer.grown < self.config.segment_bytes / LOOKS_IN_SEGMENT {
            return false;
        }
        let victim = self.sparse(writer);
        (writer.grown, writer.moving) = (0, victim.is_some());
        let Some(victim) = victim else { return false };
        match self.move_from(writer, victim) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(segment = victim, %error, "the records of a segment could not be moved");
                writer.stuck.push(victim);
                false
            }
        }
    }

    /// The segment of which least is alive, when segments take much more space than what is alive in them.
    fn sparse(&self, writer: &Writer) -> Option<u64> {
        let table = self.table.read();
        let sealed =
            table.segments.iter().filter(|(number, held)| **number < writer.current.number && held.end > 0);
        let taken: u64 = sealed.clone().map(|(_, held)| held.end).sum();
        if taken <= SPARE_SEGMENTS * self.config.segment_bytes {
            return None;
        }
        let live = table.live_bytes();
        let alive: u64 = live.values().sum();
        if taken <= 2 * alive + SPARE_SEGMENTS * self.config.segment_bytes {
            return None;
        }
        let of = |number: &u64| live.get(number).copied().unwrap_or_default();
        let movable = sealed.filter(|(number, _)| !writer.stuck.contains(number));
        let least =
            movable.min_by_key(|(number, held)| u128::from(of(number)) * 1_000 / u128::from(held.end));
        least.filter(|(number, held)| of(number) * 2 <= held.end).map(|(number, _)| *number)
    }

    /// Moves some of the records that are alive in a segment to the end of the log.
    fn move_from(&self, writer: &mut Writer, segment: u64) -> Result<(), StreamError> {
        self.rotate_in_time(writer);
        writer.check()?;
        let mut draft = Draft::new(self, writer);
        let mut moved: Vec<(FileId, Extent)> = Vec::new();
        let mut from: Option<(FileId, u64)> = None;
        while (draft.buffer.len() as u64) < MOVED_BYTES {
            let next = self.table.read().any_in(segment, from);
            let Some((stream, offset)) = next else { break };
            let (at, extent) = self.extent_at(stream, offset)?.ok_or_else(|| lost(stream, offset))?;
            if at == segment {
                let file = Opened::new(&*self.folder, self.salt, segment)?;
                let item = file.item(&extent, stream)?;
                let entry = Entry::Moved {
                    stream,
                    first: extent.first,
                    at: extent.at,
                    lengths: item.entry.lengths().to_vec(),
                };
                let (place, length) = draft.frame(&entry, &[item.data])?;
                moved.push((stream, Extent { place, length, ..extent }));
            }
            from = Some((stream, extent.end()));
        }
        let Draft { buffer, last, .. } = draft;
        self.write(writer, &buffer, last, KEPT_BYTES)?;
        #[cfg(test)]
        self.moved.fetch_add(moved.len(), std::sync::atomic::Ordering::Relaxed);
        let table = &mut *self.table.write();
        moved.into_iter().for_each(|(stream, extent)| table.place(stream, writer.current.number, extent));
        Ok(())
    }

    /// What the stream is.
    pub(super) fn state(&self, stream: FileId) -> Result<StreamState, StreamError> {
        self.table.read().state(stream)
    }

    /// The streams after one.
    pub(super) fn list(&self, after: Option<FileId>, limit: usize) -> Vec<FileId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let table = self.table.read();
        table.streams.range((from, Bound::Unbounded)).take(limit).map(|(stream, _)| *stream).collect()
    }

    /// What can be read from memory; none when somebody has to look on disk.
    pub(super) fn at_hand(
        &self,
        stream: FileId,
        from: u64,
        most: ReadBounds,
    ) -> Result<Option<StreamRead>, StreamError> {
        self.table.read().at_hand(stream, from, most)
    }

    /// Reads, on disk when it must. Blocks.
    pub(super) fn read(
        &self,
        stream: FileId,
        from: u64,
        most: ReadBounds,
    ) -> Result<StreamRead, StreamError> {
        for _ in 0..LOOKS_MAX {
            if let Some(read) = self.at_hand(stream, from, most)? {
                return Ok(read);
            }
            match self.read_from_disk(stream, from, most) {
                // Its segment was removed between the look and the read: it was moved, or let go of.
                Err(StreamError::Store(StoreError::NotFound { .. })) => {}
                done => return done,
            }
        }
        Err(lost(stream, from))
    }

    fn read_from_disk(&self, stream: FileId, from: u64, most: ReadBounds) -> Result<StreamRead, StreamError> {
        let state = self.state(stream)?;
        let StreamState { tail, closed, .. } = state;
        let (mut records, mut bytes): (Vec<StreamRecord>, u64) = (Vec::new(), 0);
        let (mut next, mut file) = (from, None::<Opened>);
        'all: while next < tail {
            let found = match self.extents_from(stream, next) {
                Ok(Some(found)) => found,
                // What was read is whole, and the next read tells this.
                _ if !records.is_empty() => break,
                Ok(None) => return Err(lost(stream, next)),
                Err(error) => return Err(error.into()),
            };
            let (segment, end, extents) = found;
            if file.as_ref().is_none_or(|file| file.number != segment) {
                match Opened::new(&*self.folder, self.salt, segment) {
                    Ok(opened) => file = Some(opened),
                    Err(_) if !records.is_empty() => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(file) = &mut file else { break };
            let begin = next;
            for extent in extents.iter().take_while(|extent| extent.first < end) {
                if extent.first > next {
                    break;
                }
                if !records.is_empty() && !most.allow(records.len(), bytes, 0) {
                    break 'all;
                }
                let ahead =
                    if most.records > 1 { most.bytes.saturating_sub(bytes).min(WINDOW_BYTES) } else { 0 };
                let item = match file.item_ahead(extent, stream, ahead) {
                    Ok(item) => item,
                    Err(_) if !records.is_empty() => break 'all,
                    Err(error) => return Err(error.into()),
                };
                let from = next;
                for (offset, data) in (extent.first..).zip(item.split()).filter(|(at, _)| *at >= from) {
                    if !most.allow(records.len(), bytes, data.len()) {
                        break 'all;
                    }
                    bytes += cost_of([data.len()]);
                    records.push(StreamRecord::new(offset, extent.at, data));
                    next = offset + 1;
                }
            }
            if next == begin {
                // It is in none of the appends that the index tells: that was damaged when the index was made.
                if records.is_empty() {
                    return Err(lost(stream, next));
                }
                break;
            }
        }
        Ok(StreamRead::new(from, records, tail, closed))
    }

    /// The append of a stream that holds the record at `offset`, and its segment; none when that is nowhere. Blocks.
    fn extent_at(&self, stream: FileId, offset: u64) -> Result<Option<(u64, Extent)>, StoreError> {
        let Some((segment, _, extents)) = self.extents_from(stream, offset)? else { return Ok(None) };
        let first = extents.iter().next().filter(|extent| extent.first <= offset);
        Ok(first.map(|extent| (segment, *extent)))
    }

    /// The appends of a stream from the one that holds the record at `offset` on, as far as they are in one segment: the segment, where that ends, and
    /// they. Blocks.
    pub(super) fn extents_from(
        &self,
        stream: FileId,
        offset: u64,
    ) -> Result<Option<(u64, u64, Tail)>, StoreError> {
        let Some(Found { segment, end, extents }) = self.table.read().find(stream, offset) else {
            return Ok(None);
        };
        let extents = match extents {
            Extents::Here(extents) => extents,
            Extents::Stored(part) => self.part(stream, segment, part)?,
        };
        let from = extents.partition_point(|extent| extent.end() <= offset);
        Ok(Some((segment, end, Tail { extents, from })))
    }

    /// A part of the index of a segment.
    fn part(&self, stream: FileId, segment: u64, part: Part) -> Result<Arc<[Extent]>, StoreError> {
        let key = (segment, part.at);
        if let Some(extents) = self.parts.get(&key) {
            return Ok(extents);
        }
        let extents: Arc<[Extent]> = match self.load(segment, part) {
            Some(extents) => extents.into(),
            None => {
                tracing::error!(
                    segment,
                    "the index of a segment is damaged, and the segment is read instead"
                );
                let there = Segment::open(&self.folder, self.salt, segment, false)?;
                let mut extents = recovery::scan(&there, u64::MAX)?.extents;
                extents.remove(&stream).unwrap_or_default().into()
            }
        };
        self.parts.insert(key, extents.clone());
        Ok(extents)
    }

    fn load(&self, segment: u64, part: Part) -> Option<Vec<Extent>> {
        let file = self.folder.open(&index::name_of(segment), false).ok()?;
        let length = part.bytes()?;
        if part.at.checked_add(length as u64)? > file.len().ok()? {
            return None;
        }
        let mut bytes = vec![0; length];
        file.read_at(part.at, &mut bytes).ok()?;
        part.decode(Seed::of(self.salt, segment), &bytes)
    }

    /// How many segments there are.
    #[cfg(test)]
    pub(super) fn segments(&self) -> usize {
        self.table.read().segments.len()
    }

    /// The operations that each stream knows.
    #[cfg(test)]
    pub(super) fn ops(&self) -> std::collections::BTreeMap<FileId, Vec<crate::streams::rules::Executed>> {
        let table = self.table.read();
        table.streams.iter().map(|(stream, known)| (*stream, known.ops.iter().copied().collect())).collect()
    }

    /// The number of the segment that is written to.
    #[cfg(test)]
    pub(super) fn current(&self) -> u64 {
        self.writer.lock().current.number
    }
}

impl Store {
    /// Takes nothing more, and says in the log that all of it is on disk. Waits for the batch that is being written. Repeat: safe.
    pub(super) fn close(&self) {
        let writer = &mut *self.writer.lock();
        if writer.closed.is_some() {
            return;
        }
        writer.closed = Some("it was closed".into());
        if writer.said < writer.last.seq {
            // Then nobody has to ask at the next start whether the last batch was flushed.
            proof::write(&self.folder, writer.current.seed, writer.last);
        }
    }
}

impl Writer {
    /// Refuses to write after what was written is in doubt.
    fn check(&self) -> Result<(), StoreError> {
        match &self.closed {
            Some(cause) => Err(StoreError::ReadOnly { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Writes nothing any more, and tells what was to be written as unknown.
    fn close(&mut self, error: &StoreError) -> StoreError {
        tracing::error!(%error, "the streams are read-only until they are opened again");
        self.closed = Some(error.to_string());
        StoreError::Unknown { what: "appending to the streams' log".into(), cause: error.to_string() }
    }

    /// Keeps the memory of a batch for the next one.
    fn keep(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(BUFFER_MAX);
        self.buffer = buffer;
    }
}

/// Appends, from one of them on.
pub(super) struct Tail {
    extents: Arc<[Extent]>,
    from: usize,
}

impl Tail {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Extent> {
        self.extents[self.from..].iter()
    }
}

fn lost(stream: FileId, offset: u64) -> StreamError {
    let what = format!("the record {offset} of stream {stream}");
    StoreError::Corrupt { what, found: "nothing whole in the log".into() }.into()
}
