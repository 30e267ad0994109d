//! Streams in memory. Nothing of them survives their process.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nexus_kernel::hal::{
    Append, Appended, ReadBounds, StoreError, StreamError, StreamFuture, StreamLimits, StreamRead,
    StreamRecord, StreamState, StreamStore, cost_of,
};
use nexus_messages::{FileId, Timestamp};
use parking_lot::{Mutex, RwLock};

use super::rules::{self, Executed, Kept, Ops};

/// The settings of [`MemoryStreams`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStreamsConfig {
    /// How many bytes all streams hold together, by what their records cost; an append beyond it is refused, whatever its stream's limits say.
    pub bytes_max: u64,
    /// How many streams there can be.
    pub streams_max: usize,
}

impl Default for MemoryStreamsConfig {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, streams_max: 65_536 }
    }
}

impl MemoryStreamsConfig {
    /// Sets how many bytes all streams hold together.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Sets how many streams there can be.
    #[must_use]
    pub fn streams_max(mut self, streams: usize) -> Self {
        self.streams_max = streams;
        self
    }
}

/// Streams in memory, for one process. Readers share the bytes.
#[derive(Debug)]
pub struct MemoryStreams {
    streams: RwLock<BTreeMap<FileId, Arc<Mutex<Stream>>>>,
    // Invariant: what the records of all streams cost, and what is about to come; never above the bound.
    held: AtomicU64,
    config: MemoryStreamsConfig,
}

#[derive(Debug)]
struct Stream {
    state: StreamState,
    ops: Ops,
    // Invariant: all records from the head to the tail, side by side.
    appends: VecDeque<Held>,
    /// It is in no list any more; who found it before must not go on with it.
    removed: bool,
}

#[derive(Debug)]
struct Held {
    first: u64,
    bytes: u64,
    at: Timestamp,
    records: Box<[Bytes]>,
}

impl Held {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

/// The records in memory of their own: a slice would keep the whole buffer that it was cut from.
pub(super) fn own(records: &[Bytes]) -> Box<[Bytes]> {
    let mut all = Vec::with_capacity(records.iter().map(Bytes::len).sum());
    records.iter().for_each(|record| all.extend_from_slice(record));
    let mut rest = Bytes::from(all);
    records.iter().map(|record| rest.split_to(record.len())).collect()
}

impl Default for MemoryStreams {
    fn default() -> Self {
        Self::new(MemoryStreamsConfig::default())
    }
}

impl MemoryStreams {
    /// No streams yet.
    pub fn new(config: MemoryStreamsConfig) -> Self {
        Self { streams: RwLock::default(), held: AtomicU64::new(0), config }
    }

    /// What the records of all streams cost, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn with<T>(
        &self,
        stream: FileId,
        job: impl FnOnce(&mut Stream) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        let found = self.streams.read().get(&stream).cloned().ok_or(StreamError::NoStream { stream })?;
        let mut found = found.lock();
        if found.removed { Err(StreamError::NoStream { stream }) } else { job(&mut found) }
    }

    fn create_now(&self, stream: FileId, limits: StreamLimits) -> Result<StreamState, StreamError> {
        let mut streams = self.streams.write();
        if let Some(found) = streams.get(&stream) {
            let mut found = found.lock();
            found.state.limits = limits;
            return Ok(found.state);
        }
        let most = self.config.streams_max;
        if streams.len() >= most {
            return Err(StreamError::TooMany { most });
        }
        let state = StreamState::new(limits);
        let made = Stream { state, ops: Ops::default(), appends: VecDeque::new(), removed: false };
        streams.insert(stream, Arc::new(Mutex::new(made)));
        Ok(state)
    }

    fn append_now(&self, stream: FileId, append: &Append) -> Result<Appended, StreamError> {
        let wanted = append.check()?;
        self.with(stream, |stream| {
            if let Some(before) = append.op.and_then(|op| stream.ops.find(op)) {
                return Ok(before.again(stream.state.tail));
            }
            let after = rules::admit(&stream.state, append, wanted, |at| Ok(stream.kept(at)))?;
            // What goes makes room for what comes.
            let goes = (stream.state.bytes + wanted).saturating_sub(after.bytes);
            self.reserve(wanted, goes)?;
            let first = stream.state.tail;
            stream.become_state(after);
            stream.appends.push_back(Held {
                first,
                bytes: wanted,
                at: append.at,
                records: own(&append.records),
            });
            let count = append.records.len() as u64;
            if let Some(op) = append.op {
                stream.ops.push(Executed { op, first, count: u32::try_from(count).unwrap_or(u32::MAX) });
            }
            Ok(Appended::new(first, count, after.tail, false))
        })
    }

    fn reserve(&self, wanted: u64, goes: u64) -> Result<(), StreamError> {
        // Nothing is ordered by it: it is a sum.
        let reserved = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let after = held.saturating_sub(goes).saturating_add(wanted);
            (after <= self.config.bytes_max || wanted <= goes).then_some(after)
        });
        reserved.map(drop).map_err(|_| StoreError::Full.into())
    }

    fn change(
        &self,
        stream: FileId,
        change: impl FnOnce(&Stream) -> Result<StreamState, StreamError>,
    ) -> Result<StreamState, StreamError> {
        self.with(stream, |stream| {
            let after = change(stream)?;
            self.held.fetch_sub(stream.state.bytes - after.bytes, Ordering::Relaxed);
            stream.become_state(after);
            Ok(after)
        })
    }
}

impl Stream {
    /// The append that holds the record at `offset`.
    fn kept(&self, offset: u64) -> Option<Kept> {
        let index = self.appends.partition_point(|held| held.end() <= offset);
        let held = self.appends.get(index)?;
        Some(Kept { end: held.end(), bytes: held.bytes, at: held.at })
    }

    /// Takes the state, and lets go of what is before its head.
    fn become_state(&mut self, state: StreamState) {
        self.state = state;
        while self.appends.front().is_some_and(|held| held.end() <= state.head) {
            self.appends.pop_front();
        }
    }

    fn read(&self, from: u64, most: ReadBounds) -> Result<StreamRead, StreamError> {
        let StreamState { head, tail, closed, .. } = self.state;
        if from < head {
            return Err(StreamError::Trimmed { from, head });
        }
        if from > tail {
            return Err(StreamError::BeyondTail { from, tail });
        }
        let mut records: Vec<StreamRecord> = Vec::new();
        let mut bytes = 0;
        let begin = self.appends.partition_point(|held| held.end() <= from);
        'all: for held in self.appends.range(begin..) {
            for (offset, data) in (held.first..).zip(&held.records).filter(|(offset, _)| *offset >= from) {
                if !most.allow(records.len(), bytes, data.len()) {
                    break 'all;
                }
                bytes += cost_of([data.len()]);
                records.push(StreamRecord::new(offset, held.at, data.clone()));
            }
        }
        Ok(StreamRead::new(from, records, tail, closed))
    }
}

fn ready<'a, T: Send + 'a>(done: Result<T, StreamError>) -> StreamFuture<'a, T> {
    Box::pin(std::future::ready(done))
}

impl StreamStore for MemoryStreams {
    fn is_durable(&self) -> bool {
        false
    }

    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState> {
        ready(self.create_now(stream, limits))
    }

    fn append(&self, stream: FileId, append: Append) -> StreamFuture<'_, Appended> {
        ready(self.append_now(stream, &append))
    }

    fn append_at_once(&self, stream: FileId, append: &Append) -> Option<Result<Appended, StreamError>> {
        Some(self.append_now(stream, append))
    }

    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead> {
        ready(self.with(stream, |stream| stream.read(from, most)))
    }

    fn read_at_once(
        &self,
        stream: FileId,
        from: u64,
        most: ReadBounds,
    ) -> Option<Result<StreamRead, StreamError>> {
        Some(self.with(stream, |stream| stream.read(from, most)))
    }

    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        ready(self.with(stream, |stream| Ok(stream.state)))
    }

    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState> {
        ready(self.change(stream, |stream| rules::trim(&stream.state, before, |at| Ok(stream.kept(at)))))
    }

    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState> {
        ready(self.change(stream, |stream| rules::let_go(&stream.state, now, 0, |at| Ok(stream.kept(at)))))
    }

    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        ready(self.change(stream, |stream| Ok(stream.state.closed())))
    }

    fn remove(&self, stream: FileId) -> StreamFuture<'_, bool> {
        let Some(removed) = self.streams.write().remove(&stream) else { return ready(Ok(false)) };
        let mut removed = removed.lock();
        removed.removed = true;
        self.held.fetch_sub(removed.state.bytes, Ordering::Relaxed);
        removed.appends.clear();
        ready(Ok(true))
    }

    fn list(&self, after: Option<FileId>, limit: usize) -> StreamFuture<'_, Vec<FileId>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let streams = self.streams.read();
        ready(Ok(streams.range((from, Bound::Unbounded)).take(limit).map(|(stream, _)| *stream).collect()))
    }
}
