//! The groups of a stream, as they survive: their records are those of a stream beside it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::{FileId, Timestamp};

use super::record::GroupRecord;
use super::table::Group;
use crate::hal::{
    APPEND_BYTES_MAX, APPEND_RECORDS_MAX, Append, RECORD_COST, ReadBounds, StoreError, StreamError,
    StreamLimits, StreamStore, WhenFull,
};

/// After how many records all groups are written down as a whole, and what was before is let go of: when those are as many bytes as the whole was.
pub const SNAPSHOT_EVERY: u64 = 1_024;

/// What is kept: all of it, until it stands in what stands for it. When there is no room for more, nothing more is decided, and nothing goes.
const LIMITS: StreamLimits = StreamLimits::NONE.when_full(WhenFull::Refuse);

/// Sets what keeps groups apart from what keeps records. No entry has an identity with it.
const GROUPS: u64 = 1 << 63;

/// The stream in which the groups of `stream` are kept: in the same store. As long as the identity of a stream is never used again, neither is that.
pub fn log_of(stream: FileId) -> FileId {
    FileId(stream.0 | GROUPS)
}

/// The stream whose groups are kept in `log`, and any other stream itself.
pub fn stream_of(log: FileId) -> FileId {
    FileId(log.0 & !GROUPS)
}

/// The groups of a stream, by their names.
pub type Groups = BTreeMap<Arc<str>, Group>;

/// A change of the group of this name.
pub type GroupChange = (Arc<str>, GroupRecord);

/// Takes in what was decided.
pub fn apply(groups: &mut Groups, (name, record): &GroupChange) {
    match record {
        GroupRecord::Snapshot(_) => groups.entry(name.clone()).or_default().apply(record),
        GroupRecord::Removed => drop(groups.remove(name)),
        record => {
            if let Some(group) = groups.get_mut(name) {
                group.apply(record);
            }
        }
    }
}

/// Why groups could not be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GroupLogError {
    /// The stream of the groups failed. What was to be done may have been, when the error says so.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A part of it was written before the rest failed.
    #[error("a part was written: {0}")]
    Partly(StreamError),
    /// What the groups are is not known until they are read again: what was decided is about groups that are none. Nothing was done.
    #[error("it is not known what the groups are until they are read again")]
    InDoubt,
}

impl GroupLogError {
    /// Whether what was to be done may have been done all the same.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Stream(error) => error.is_unknown(),
            Self::Partly(_) => true,
            Self::InDoubt => false,
        }
    }
}

/// Where the groups of a stream are kept. It has one owner, who alone writes to it.
#[derive(Debug)]
pub struct GroupLog {
    store: Arc<dyn StreamStore>,
    id: FileId,
    /// Where the next record will be; none when that is not known, and the log has to be read first.
    tail: Option<u64>,
    is_made: bool,
    /// How many records, and bytes, stand behind the last snapshots.
    since: (u64, u64),
    /// How many bytes those have.
    snapshot_bytes: u64,
}

impl GroupLog {
    /// The log of the groups of `stream`. It is made when the first of them is.
    pub fn new(store: Arc<dyn StreamStore>, stream: FileId) -> Self {
        Self { store, id: log_of(stream), tail: None, is_made: false, since: (0, 0), snapshot_bytes: 0 }
    }

    /// Reads the groups: to be done first, and again before anything is decided after an error. Repeat: safe.
    ///
    /// # Errors
    ///
    /// What the store says, and [`StoreError::Corrupt`] when a record is not one of a group.
    pub async fn read(&mut self) -> Result<Groups, GroupLogError> {
        let mut groups = Groups::new();
        (self.since, self.snapshot_bytes) = ((0, 0), 0);
        let mut next = match self.store.state(self.id).await {
            Err(StreamError::NoStream { .. }) => {
                (self.tail, self.is_made) = (Some(0), false);
                return Ok(groups);
            }
            state => state?.head,
        };
        loop {
            let read = self.store.read(self.id, next, ReadBounds::ALL).await?;
            for record in &read.records {
                let change = GroupRecord::decode(&record.data).map_err(|found| {
                    let what =
                        format!("record {} of the groups of stream {}", record.offset, stream_of(self.id));
                    StreamError::Store(StoreError::Corrupt { what, found })
                })?;
                self.count(&change.1, record.data.len());
                apply(&mut groups, &change);
            }
            next = read.next;
            if next == read.tail {
                break;
            }
        }
        (self.tail, self.is_made) = (Some(next), true);
        Ok(groups)
    }

    /// Makes durable what was decided, in this order. When it succeeded, all of it is.
    ///
    /// # Errors
    ///
    /// What the store says. After an error, and when this future was dropped before, nothing is taken until the log was [read](Self::read) again.
    pub async fn append(&mut self, changes: &[GroupChange], now: Timestamp) -> Result<(), GroupLogError> {
        // Also when this future is dropped.
        let mut tail = self.tail.take().ok_or(GroupLogError::InDoubt)?;
        if !self.is_made && !changes.is_empty() {
            self.store.create(self.id, LIMITS).await?;
            self.is_made = true;
        }
        let (mut records, mut bytes, mut written) = (Vec::new(), 0, false);
        let mut encoded: VecDeque<Bytes> = changes.iter().map(|(name, change)| change.encode(name)).collect();
        for (_, change) in changes {
            let Some(record) = encoded.pop_front() else { break };
            self.count(change, record.len());
            bytes += record.len() as u64 + RECORD_COST;
            records.push(record);
            let next = encoded.front().map(|record| record.len() as u64 + RECORD_COST);
            let fits = next.is_some_and(|next| bytes + next <= APPEND_BYTES_MAX);
            if fits && records.len() < APPEND_RECORDS_MAX {
                continue;
            }
            let append = Append::new(std::mem::take(&mut records), now);
            bytes = 0;
            let appended = match self.store.append(self.id, append).await {
                Err(error) if written => return Err(GroupLogError::Partly(error)),
                appended => appended?,
            };
            written = true;
            // Somebody else wrote here, who knew other groups than we do.
            if appended.first != tail {
                return Err(GroupLogError::Partly(StreamError::BeyondTail {
                    from: tail,
                    tail: appended.tail,
                }));
            }
            tail = appended.first + appended.count;
        }
        self.tail = Some(tail);
        Ok(())
    }

    fn count(&mut self, change: &GroupRecord, length: usize) {
        let bytes = length as u64 + RECORD_COST;
        if matches!(change, GroupRecord::Snapshot(_)) {
            self.snapshot_bytes += bytes;
        } else {
            self.since = (self.since.0 + 1, self.since.1 + bytes);
        }
    }

    /// Whether the groups should be written down as a whole.
    pub fn is_long(&self) -> bool {
        self.since.0 >= SNAPSHOT_EVERY && self.since.1 >= self.snapshot_bytes
    }

    /// Writes the groups down as a whole, as the log makes them, and lets go of what was before.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append). When it was only not let go of, nothing has to be read again.
    pub async fn shorten(&mut self, groups: &Groups, now: Timestamp) -> Result<(), GroupLogError> {
        let snapshots: Vec<GroupChange> =
            groups.iter().map(|(name, group)| (name.clone(), GroupRecord::Snapshot(group.state()))).collect();
        let before = self.tail.ok_or(GroupLogError::InDoubt)?;
        (self.since, self.snapshot_bytes) = ((0, 0), 0);
        self.append(&snapshots, now).await?;
        self.store.trim(self.id, before).await?;
        Ok(())
    }
}
