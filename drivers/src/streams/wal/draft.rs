//! A batch, as it is drawn up: each call over what those before it are going to leave.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_kernel::hal::{Append, Appended, StoreError, StreamError, StreamLimits, StreamState};
use nexus_messages::{FileId, Timestamp};

use super::index::Extent;
use super::record::{self, Appending, Entry};
use super::store::{Ask, Store, Told, Writer};
use super::table::Change;
use crate::frames::frame::{self, Seed};
use crate::frames::segment::Last;
use crate::streams::memory::own;
use crate::streams::rules::{self, Executed, Kept};

/// What a batch is going to write, and what the streams are after it.
pub(super) struct Draft<'s> {
    store: &'s Store,
    pub(super) changes: BTreeMap<FileId, Change>,
    pub(super) buffer: Vec<u8>,
    pub(super) seed: Seed,
    pub(super) last: Last,
    pub(super) durable: u64,
    /// Where the frames go.
    pub(super) begin: u64,
    /// How many streams there are after it.
    pub(super) streams: usize,
}

impl<'s> Draft<'s> {
    pub(super) fn new(store: &'s Store, writer: &mut Writer) -> Self {
        Self {
            store,
            changes: BTreeMap::new(),
            buffer: std::mem::take(&mut writer.buffer),
            seed: writer.current.seed,
            last: writer.last,
            durable: writer.last.seq,
            begin: writer.current.end,
            streams: store.table.read().streams.len(),
        }
    }

    pub(super) fn ask(&mut self, stream: FileId, ask: Ask) -> Result<Told, StreamError> {
        match ask {
            Ask::Create(limits) => self.create(stream, limits).map(Told::State),
            Ask::Append(append) => self.append(stream, &append).map(Told::Appended),
            Ask::Trim(before) => {
                let state = self.state(stream)?;
                let after = rules::trim(&state, before, |at| self.oldest(stream, at))?;
                self.head(stream, &state, after).map(Told::State)
            }
            Ask::Retain(now) => {
                let state = self.state(stream)?;
                let after = rules::let_go(&state, now, 0, |at| self.oldest(stream, at))?;
                self.head(stream, &state, after).map(Told::State)
            }
            Ask::Close => self.close(stream).map(Told::State),
            Ask::Remove => self.remove(stream).map(Told::Removed),
        }
    }

    fn known(&self, stream: FileId) -> Option<StreamState> {
        match self.changes.get(&stream) {
            Some(change) => change.state,
            None => self.store.table.read().state(stream).ok(),
        }
    }

    fn state(&self, stream: FileId) -> Result<StreamState, StreamError> {
        self.known(stream).ok_or(StreamError::NoStream { stream })
    }

    fn change(&mut self, stream: FileId) -> &mut Change {
        let state = self.known(stream);
        self.changes.entry(stream).or_insert_with(|| Change { state, ..Change::default() })
    }

    /// A frame with this entry. Gives where it is going to be, and its length.
    pub(super) fn frame(&mut self, entry: &Entry, data: &[Bytes]) -> Result<(u64, u64), StreamError> {
        let at = self.buffer.len();
        let write = |out: &mut Vec<u8>| record::encode(out, &[entry], data);
        let (seq, previous) = (self.last.seq + 1, self.last.checksum);
        match frame::encode(&mut self.buffer, self.seed, seq, self.durable, previous, write) {
            Some(header) => {
                self.last = Last { seq, checksum: header.checksum };
                Ok((self.begin + at as u64, header.frame_bytes()))
            }
            None => {
                self.buffer.truncate(at);
                let (what, cause) = ("appending to a stream".into(), "it is too large for a frame".into());
                Err(StoreError::Backend { what, cause }.into())
            }
        }
    }

    /// A frame that changes nothing: it says that those before it are on disk.
    pub(super) fn says_nothing(&mut self) {
        let (seq, previous) = (self.last.seq + 1, self.last.checksum);
        let write = |out: &mut Vec<u8>| record::encode(out, &[], &[]);
        if let Some(header) = frame::encode(&mut self.buffer, self.seed, seq, self.durable, previous, write) {
            self.last = Last { seq, checksum: header.checksum };
        }
    }

    fn create(&mut self, stream: FileId, limits: StreamLimits) -> Result<StreamState, StreamError> {
        let before = self.known(stream);
        if let Some(state) = before.filter(|state| state.limits == limits) {
            return Ok(state);
        }
        let most = self.store.config.streams_max;
        if before.is_none() && self.streams >= most {
            return Err(StreamError::TooMany { most });
        }
        self.frame(&Entry::Create { stream, limits }, &[])?;
        let state = before.map_or(StreamState::new(limits), |state| state.limited(limits));
        self.streams += usize::from(before.is_none());
        self.change(stream).state = Some(state);
        Ok(state)
    }

    fn append(&mut self, stream: FileId, append: &Append) -> Result<Appended, StreamError> {
        let wanted = append.check()?;
        let state = self.state(stream)?;
        if let Some(executed) = append.op.and_then(|op| self.executed(stream, op)) {
            return Ok(executed.again(state.tail));
        }
        let after = rules::admit(&state, append, wanted, |at| self.oldest(stream, at))?;
        let short = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let entry = Entry::Append(Appending {
            stream,
            first: state.tail,
            op: append.op,
            at: append.at,
            head: after.head,
            bytes: after.bytes,
            lengths: append.records.iter().map(|record| short(record.len())).collect(),
        });
        let (place, length) = self.frame(&entry, &append.records)?;
        let count = short(append.records.len());
        let extent = Extent {
            first: state.tail,
            count,
            bytes: u32::try_from(wanted).unwrap_or(u32::MAX),
            at: append.at,
            place,
            length,
        };
        let change = self.change(stream);
        change.state = Some(after);
        change.ops.extend(append.op.map(|op| Executed { op, first: state.tail, count }));
        change.appends.push((extent, own(&append.records)));
        Ok(Appended::new(state.tail, u64::from(count), after.tail, false))
    }

    fn executed(&self, stream: FileId, op: nexus_messages::OpId) -> Option<Executed> {
        let change = self.changes.get(&stream);
        if let Some(executed) =
            change.and_then(|change| change.ops.iter().rev().find(|executed| executed.op == op))
        {
            return Some(*executed);
        }
        if change.is_some_and(|change| change.anew) {
            return None;
        }
        let table = self.store.table.read();
        table.streams.get(&stream).and_then(|known| known.ops.find(op).copied())
    }

    /// The append that holds the record at `offset`, as far as limits are about it. Of what is nowhere nothing is kept.
    fn oldest(&self, stream: FileId, offset: u64) -> Result<Option<Kept>, StreamError> {
        let change = self.changes.get(&stream);
        let fresh = change.into_iter().flat_map(|change| &change.appends);
        let mut fresh = fresh.map(|(extent, _)| extent).filter(|extent| extent.end() > offset);
        if let Some(extent) = fresh.next().filter(|extent| extent.first <= offset) {
            return Ok(Some(extent.kept()));
        }
        if let Some(extent) = self.store.table.read().extent_here(stream, offset) {
            return Ok(Some(extent.kept()));
        }
        let Some((_, end, there)) = self.store.extents_from(stream, offset)? else {
            let next = self.store.table.read().next_found(stream, offset + 1);
            return Ok((next > offset).then_some(Kept { end: next, bytes: 0, at: Timestamp(0) }));
        };
        let first = there.iter().next().filter(|extent| extent.first < end);
        // What is damaged is let go of with what is before it.
        let damaged = |until| Kept { end: until, bytes: 0, at: Timestamp(0) };
        Ok(Some(match first {
            Some(extent) if extent.first <= offset => extent.kept(),
            Some(extent) => damaged(extent.first),
            None => damaged(end),
        }))
    }

    fn head(
        &mut self,
        stream: FileId,
        before: &StreamState,
        after: StreamState,
    ) -> Result<StreamState, StreamError> {
        if after.head != before.head {
            self.frame(&Entry::Head { stream, head: after.head, bytes: after.bytes }, &[])?;
            self.change(stream).state = Some(after);
        }
        Ok(after)
    }

    fn close(&mut self, stream: FileId) -> Result<StreamState, StreamError> {
        let state = self.state(stream)?;
        if state.closed {
            return Ok(state);
        }
        self.frame(&Entry::Close { stream }, &[])?;
        let state = state.closed();
        self.change(stream).state = Some(state);
        Ok(state)
    }

    fn remove(&mut self, stream: FileId) -> Result<bool, StreamError> {
        if self.known(stream).is_none() {
            return Ok(false);
        }
        self.frame(&Entry::Remove { stream }, &[])?;
        self.streams -= 1;
        self.changes.insert(stream, Change { anew: true, ..Change::default() });
        Ok(true)
    }
}
