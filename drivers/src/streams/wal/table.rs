//! What the streams are and where their records are: published by who writes the log, and looked at by readers. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{ReadBounds, StreamError, StreamRead, StreamRecord, StreamState, cost_of};
use nexus_messages::{FileId, Timestamp};

use super::index::{Extent, Index, Part, StoredRun};
use super::record::{Appending, Entry, Item, Snapshot};
use crate::streams::rules::{Executed, Ops};

/// What a record in memory costs beside its content, in bytes.
const HELD_COST: u64 = 48;

/// How many appends of the segment that is written to a reader is told of at once.
const EXTENTS_MAX: usize = 256;

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) streams: BTreeMap<FileId, Stream>,
    /// The segments that hold something, or did.
    pub(super) segments: BTreeMap<u64, Holding>,
    recent: Recent,
}

/// A segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Holding {
    // Invariant: how many runs of all streams are in it.
    pub(super) runs: usize,
    /// Where its last frame ends; 0 for the one that is written to.
    pub(super) end: u64,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) state: StreamState,
    pub(super) ops: Ops,
    // Invariant: none overlaps another; all that there is from the head to the tail is in them, unless it is damaged.
    runs: BTreeMap<u64, Run>,
    // Invariant: side by side up to the tail.
    recent: VecDeque<Held>,
}

/// Records that stand side by side in one segment, from the offset under which the run is filed.
#[derive(Debug, Clone)]
struct Run {
    end: u64,
    /// How long the frames are together that they stand in: what a record takes there is more than what it costs, and what is alive is told from what is dead by that.
    bytes: u64,
    segment: u64,
    place: Place,
}

/// Where the appends of a run are known.
#[derive(Debug, Clone)]
enum Place {
    /// Here: the segment is written to.
    Here(Vec<Extent>),
    /// In the segment's index. They may be more than those of the run.
    Stored(Part),
}

/// The last appends of all streams.
#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<(FileId, u64)>,
    held: u64,
    max: u64,
}

/// An append in memory.
#[derive(Debug)]
struct Held {
    first: u64,
    at: Timestamp,
    records: Box<[Bytes]>,
    cost: u64,
}

impl Held {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

/// Where a record is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) segment: u64,
    /// Where its run ends: what follows is elsewhere.
    pub(super) end: u64,
    pub(super) extents: Extents,
}

/// The appends among which a record is.
#[derive(Debug, Clone)]
pub(super) enum Extents {
    Here(Arc<[Extent]>),
    Stored(Part),
}

/// What a batch made of a stream.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// None: it is gone.
    pub(super) state: Option<StreamState>,
    /// What there was of it before is gone.
    pub(super) anew: bool,
    pub(super) ops: Vec<Executed>,
    /// Appends, and their records.
    pub(super) appends: Vec<(Extent, Box<[Bytes]>)>,
}

impl Table {
    pub(super) fn new(recent_max: u64) -> Self {
        Self { recent: Recent { max: recent_max, ..Recent::default() }, ..Self::default() }
    }

    /// The streams as the first frame of a segment tells them.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let snapshot = |(stream, known): (&FileId, &Stream)| Snapshot {
            stream: *stream,
            state: known.state,
            ops: known.ops.iter().copied().collect(),
        };
        self.streams.iter().map(snapshot).collect()
    }

    /// Takes the streams that the first frame of a segment tells.
    fn begin(&mut self, snapshots: &[Snapshot]) {
        for Snapshot { stream, state, ops } in snapshots {
            let known = self.streams.entry(*stream).or_default();
            known.state = *state;
            ops.iter().for_each(|executed| known.ops.push(*executed));
        }
    }

    /// Takes what a batch made of a stream, whose appends are in `segment`.
    pub(super) fn take(&mut self, stream: FileId, change: Change, segment: u64) {
        if change.anew || change.state.is_none() {
            self.forget(stream);
        }
        let Some(state) = change.state else { return };
        let known = self.streams.entry(stream).or_default();
        known.state = state;
        change.ops.into_iter().for_each(|executed| known.ops.push(executed));
        for (extent, records) in change.appends {
            self.place(stream, segment, extent);
            self.recent.hold(&mut self.streams, stream, &extent, records);
        }
        self.let_go(stream);
    }

    /// Takes what stands in a frame of `segment`, which begins at `place`, when the log is read again.
    pub(super) fn replay(&mut self, segment: u64, place: u64, length: u64, item: &Item) {
        if let Some((stream, first, at)) = item.entry.records()
            && let Some(known) = self.streams.get_mut(&stream)
        {
            let extent = extent_of(item, first, at, place, length);
            if let Entry::Append(Appending { op, head, bytes, .. }) = &item.entry {
                (known.state.tail, known.state.head, known.state.bytes) = (extent.end(), *head, *bytes);
                if let Some(op) = op {
                    known.ops.push(Executed { op: *op, first, count: extent.count });
                }
            }
            self.place(stream, segment, extent);
            self.let_go(stream);
            return;
        }
        match &item.entry {
            Entry::Start(snapshots) => self.begin(snapshots),
            Entry::Create { stream, limits } => match self.streams.get_mut(stream) {
                Some(known) => known.state.limits = *limits,
                None => {
                    let state = StreamState::new(*limits);
                    self.streams.insert(*stream, Stream { state, ..Stream::default() });
                }
            },
            Entry::Head { stream, head, bytes } => {
                if let Some(known) = self.streams.get_mut(stream) {
                    (known.state.head, known.state.bytes) = (*head, *bytes);
                }
                self.let_go(*stream);
            }
            Entry::Close { stream } => {
                if let Some(known) = self.streams.get_mut(stream) {
                    known.state.closed = true;
                }
            }
            Entry::Remove { stream } => self.forget(*stream),
            // Of a stream that is not there.
            Entry::Append(_) | Entry::Moved { .. } => {}
        }
    }

    /// Forgets a stream with all that it has.
    fn forget(&mut self, stream: FileId) {
        let Some(known) = self.streams.remove(&stream) else { return };
        known.recent.iter().for_each(|held| self.recent.held -= held.cost);
        known.runs.values().for_each(|run| leave(&mut self.segments, run.segment));
    }

    /// Lets go of what is before a stream's head.
    fn let_go(&mut self, stream: FileId) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let head = known.state.head;
        while let Some(first) = known.runs.first_entry().filter(|run| run.get().end <= head) {
            leave(&mut self.segments, first.remove().segment);
        }
        while let Some(held) = known.recent.front().filter(|held| held.end() <= head) {
            self.recent.held -= held.cost;
            known.recent.pop_front();
        }
    }

    /// An append of a stream is in `segment`, which is written to, and nowhere else from now on.
    pub(super) fn place(&mut self, stream: FileId, segment: u64, extent: Extent) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        known.clear(extent.first, extent.end(), &mut self.segments);
        if let Some((_, run)) = known.runs.range_mut(..extent.first).next_back()
            && run.segment == segment
            && run.end == extent.first
            && let Place::Here(extents) = &mut run.place
        {
            run.end = extent.end();
            run.bytes += extent.length;
            extents.push(extent);
            return;
        }
        let place = Place::Here(vec![extent]);
        let run = Run { end: extent.end(), bytes: extent.length, segment, place };
        known.runs.insert(extent.first, run);
        self.segments.entry(segment).or_default().runs += 1;
    }

    /// A run that an index tells is in a segment that is older than those of which runs were told before.
    pub(super) fn place_stored(&mut self, segment: u64, stored: &StoredRun) {
        let StoredRun { stream, first, end, bytes, part } = *stored;
        self.place_older(segment, stream, first..end, bytes, &Place::Stored(part));
    }

    /// A run that was found by reading a segment, which is older than those of which runs were told before.
    pub(super) fn place_scanned(&mut self, segment: u64, stream: FileId, extents: &[Extent]) {
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else { return };
        let bytes = extents.iter().map(|extent| extent.length).sum();
        self.place_older(segment, stream, first.first..last.end(), bytes, &Place::Here(extents.to_vec()));
    }

    /// What newer segments have of it, the segment no longer holds.
    fn place_older(&mut self, segment: u64, stream: FileId, all: Range<u64>, bytes: u64, place: &Place) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let until = all.end.min(known.state.tail);
        let mut first = all.start.max(known.state.head);
        let share = |length: u64| {
            let whole = u128::from(all.end.saturating_sub(all.start)).max(1);
            u64::try_from(u128::from(bytes) * u128::from(length) / whole).unwrap_or(u64::MAX)
        };
        while first < until {
            // What covers it here, or the next one that covers something.
            let here = known.runs.range(..=first).next_back().filter(|(_, run)| run.end > first);
            if let Some((_, run)) = here {
                first = run.end;
                continue;
            }
            let end = known.runs.range(first..).next().map_or(until, |(next, _)| until.min(*next));
            let run = Run { end, bytes: share(end - first), segment, place: place.clone() };
            known.runs.insert(first, run);
            self.segments.entry(segment).or_default().runs += 1;
            first = end;
        }
    }

    /// The appends of a segment by stream, in the order of their offsets.
    pub(super) fn extents_in(&self, segment: u64) -> BTreeMap<FileId, Vec<Extent>> {
        let mut all: BTreeMap<FileId, Vec<Extent>> = BTreeMap::new();
        for (stream, known) in &self.streams {
            for run in known.runs.values().filter(|run| run.segment == segment) {
                if let Place::Here(extents) = &run.place {
                    all.entry(*stream).or_default().extend(extents);
                }
            }
        }
        all
    }

    /// A segment ended. What its index says, when it is written, need not be known here.
    pub(super) fn ended(&mut self, segment: u64, end: u64, index: Option<&Index>) {
        self.segments.entry(segment).or_default().end = end;
        for stored in index.into_iter().flat_map(|index| &index.runs) {
            let Some(known) = self.streams.get_mut(&stored.stream) else { continue };
            for (_, run) in known.runs.range_mut(stored.first..stored.end) {
                if run.segment == segment {
                    run.place = Place::Stored(stored.part);
                }
            }
        }
    }

    /// The state of a stream.
    pub(super) fn state(&self, stream: FileId) -> Result<StreamState, StreamError> {
        self.streams.get(&stream).map(|known| known.state).ok_or(StreamError::NoStream { stream })
    }

    /// The append that holds the record of a stream at `offset`, when that is known without looking on disk.
    pub(super) fn extent_here(&self, stream: FileId, offset: u64) -> Option<Extent> {
        let known = self.streams.get(&stream)?;
        let (_, run) = known.runs.range(..=offset).next_back().filter(|(_, run)| run.end > offset)?;
        let Place::Here(extents) = &run.place else { return None };
        let extent = extents.get(extents.partition_point(|extent| extent.end() <= offset))?;
        (extent.first <= offset).then_some(*extent)
    }

    /// The offset of the next record of a stream behind `offset` that is somewhere; its tail, when none is.
    pub(super) fn next_found(&self, stream: FileId, offset: u64) -> u64 {
        let Some(known) = self.streams.get(&stream) else { return offset };
        known.runs.range(offset..).next().map_or(known.state.tail, |(first, _)| *first)
    }

    /// Where the record of a stream at `offset` is; none when it is nowhere.
    pub(super) fn find(&self, stream: FileId, offset: u64) -> Option<Found> {
        let known = self.streams.get(&stream)?;
        let (_, run) = known.runs.range(..=offset).next_back().filter(|(_, run)| run.end > offset)?;
        let extents = match &run.place {
            Place::Here(extents) => {
                let from = extents.partition_point(|extent| extent.end() <= offset);
                let until = extents.len().min(from + EXTENTS_MAX);
                Extents::Here(extents[from..until].into())
            }
            Place::Stored(part) => Extents::Stored(*part),
        };
        Some(Found { segment: run.segment, end: run.end, extents })
    }

    /// What can be read from memory; none when it is not there.
    pub(super) fn at_hand(
        &self,
        stream: FileId,
        from: u64,
        most: ReadBounds,
    ) -> Result<Option<StreamRead>, StreamError> {
        let known = self.streams.get(&stream).ok_or(StreamError::NoStream { stream })?;
        let StreamState { head, tail, closed, .. } = known.state;
        if from < head {
            return Err(StreamError::Trimmed { from, head });
        }
        if from > tail {
            return Err(StreamError::BeyondTail { from, tail });
        }
        if from < tail && known.recent.front().is_none_or(|held| held.first > from) {
            return Ok(None);
        }
        let (mut records, mut bytes): (Vec<StreamRecord>, u64) = (Vec::new(), 0);
        let begin = known.recent.partition_point(|held| held.end() <= from);
        'all: for held in known.recent.range(begin..) {
            for (offset, data) in (held.first..).zip(&held.records).filter(|(offset, _)| *offset >= from) {
                if !most.allow(records.len(), bytes, data.len()) {
                    break 'all;
                }
                bytes += cost_of([data.len()]);
                records.push(StreamRecord::new(offset, held.at, data.clone()));
            }
        }
        Ok(Some(StreamRead::new(from, records, tail, closed)))
    }

    /// About how many bytes of each segment are alive: of the frames of records that are there.
    pub(super) fn live_bytes(&self) -> BTreeMap<u64, u64> {
        let mut live: BTreeMap<u64, u64> = self.segments.keys().map(|segment| (*segment, 0)).collect();
        for known in self.streams.values() {
            for (first, run) in &known.runs {
                let there = run.end - known.state.head.clamp(*first, run.end);
                let share = u128::from(run.bytes) * u128::from(there) / u128::from(run.end - first).max(1);
                *live.entry(run.segment).or_default() += u64::try_from(share).unwrap_or(u64::MAX);
            }
        }
        live
    }

    /// A record in this segment that is alive, of which stream and at which offset, none before `from`; none when there is none.
    pub(super) fn any_in(&self, segment: u64, from: Option<(FileId, u64)>) -> Option<(FileId, u64)> {
        let (stream, offset) = from.unwrap_or((FileId(0), 0));
        self.streams.range(stream..).find_map(|(at, known)| {
            let from = if *at == stream { offset } else { 0 }.max(known.state.head);
            let mut there = known.runs.iter().filter(|(_, run)| run.segment == segment && run.end > from);
            there.next().map(|(first, _)| (*at, from.max(*first)))
        })
    }
}

impl Stream {
    /// What is in these offsets is elsewhere from now on.
    fn clear(&mut self, from: u64, to: u64, segments: &mut BTreeMap<u64, Holding>) {
        loop {
            let overlapping = self.runs.range(..to).next_back().filter(|(_, run)| run.end > from);
            let Some((first, run)) = overlapping.map(|(first, run)| (*first, run.clone())) else { return };
            self.runs.remove(&first);
            leave(segments, run.segment);
            let mut keep = |first: u64, end: u64| {
                if first < end {
                    segments.entry(run.segment).or_default().runs += 1;
                    self.runs.insert(first, Run { end, ..run.clone() });
                }
            };
            keep(first, from.min(run.end));
            keep(to.max(first), run.end);
        }
    }
}

/// The append that stands in a frame.
pub(super) fn extent_of(item: &Item, first: u64, at: Timestamp, place: u64, length: u64) -> Extent {
    let lengths = item.entry.lengths();
    // Both are far within what 32 bits can say: an append is bounded.
    let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let bytes = cost_of(lengths.iter().map(|length| *length as usize));
    Extent { first, count: short(lengths.len() as u64), bytes: short(bytes), at, place, length }
}

/// A run of a segment is gone.
fn leave(segments: &mut BTreeMap<u64, Holding>, segment: u64) {
    if let Some(holding) = segments.get_mut(&segment) {
        holding.runs -= 1;
    }
}

impl Recent {
    fn hold(
        &mut self,
        streams: &mut BTreeMap<FileId, Stream>,
        stream: FileId,
        extent: &Extent,
        records: Box<[Bytes]>,
    ) {
        let cost = u64::from(extent.bytes) + records.len() as u64 * HELD_COST;
        let Some(known) = streams.get_mut(&stream).filter(|_| cost <= self.max && !records.is_empty()) else {
            // What is in memory ends with the tail, or there is nothing.
            if let Some(known) = streams.get_mut(&stream) {
                known.recent.drain(..).for_each(|held| self.held -= held.cost);
            }
            return;
        };
        known.recent.push_back(Held { first: extent.first, at: extent.at, records, cost });
        self.order.push_back((stream, extent.first));
        self.held += cost;
        // Those that went with their stream, or before its head, are still in the order; they are passed over, and never pile up above what is held.
        while self.held > self.max || self.order.len() as u64 > 2 * self.max / HELD_COST + 16 {
            let Some((stream, first)) = self.order.pop_front() else { break };
            let Some(known) = streams.get_mut(&stream) else { continue };
            while let Some(held) = known.recent.front().filter(|held| held.first <= first) {
                self.held -= held.cost;
                known.recent.pop_front();
            }
        }
    }
}
