//! A group that survives: its records are those of a stream of its own.

use std::sync::Arc;

use nexus_messages::{FileId, Timestamp};

use super::record::{GroupRecord, GroupSettings};
use super::table::Group;
use crate::hal::{Append, ReadBounds, StoreError, StreamError, StreamLimits, StreamStore};

/// After how many records the group is written down as a whole, and what was before it is let go of.
pub const SNAPSHOT_EVERY: u64 = 1_024;

/// Why a group could not be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GroupLogError {
    /// The stream of the group failed. What was to be done may have been, when the error says so.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It is not known whether an earlier change was written: what was decided may be about a group that is none. Nothing was done.
    #[error("it is not known what the group is until it is read again")]
    InDoubt,
}

/// A group, and the stream that its records are in. It has one owner, who alone changes it.
#[derive(Debug)]
pub struct GroupLog {
    store: Arc<dyn StreamStore>,
    stream: FileId,
    group: Group,
    /// How many records stand behind the last snapshot.
    since: u64,
    /// Whether it is not known what the stream has: it is read again before anything else.
    in_doubt: bool,
}

impl GroupLog {
    /// The group whose records are in `stream`, which is made when it is missing: then records are given from `from` on, as `settings` say. Repeat: safe.
    ///
    /// # Errors
    ///
    /// What the store says, and [`StoreError::Corrupt`] when a record is not one of a group.
    pub async fn open(
        store: Arc<dyn StreamStore>,
        stream: FileId,
        settings: GroupSettings,
        from: u64,
        now: Timestamp,
    ) -> Result<Self, GroupLogError> {
        let there = match store.state(stream).await {
            Err(StreamError::NoStream { .. }) => store.create(stream, StreamLimits::NONE).await?,
            state => state?,
        };
        let group = Group::new(settings, from);
        let mut log = Self { store, stream, group, since: 0, in_doubt: there.tail > there.head };
        if there.tail == there.head {
            let first = GroupRecord::Snapshot(log.group.state());
            log.append(&[first], now).await?;
        }
        log.settle().await?;
        Ok(log)
    }

    /// The group as it is on disk.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Reads the group again, when it is not known whether its last change was written. Repeat: safe. To be called before anything is decided after an error.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn settle(&mut self) -> Result<(), GroupLogError> {
        if !self.in_doubt {
            return Ok(());
        }
        let mut group = Group::default();
        let mut next = self.store.state(self.stream).await?.head;
        let mut since = 0;
        loop {
            let read = self.store.read(self.stream, next, ReadBounds::ALL).await?;
            for record in &read.records {
                let decoded = GroupRecord::decode(&record.data).map_err(|found| {
                    let what = format!("record {} of the group in stream {}", record.offset, self.stream);
                    StreamError::Store(StoreError::Corrupt { what, found })
                })?;
                since = if matches!(decoded, GroupRecord::Snapshot(_)) { 0 } else { since + 1 };
                group.apply(&decoded);
            }
            next = read.next;
            if next == read.tail {
                break;
            }
        }
        (self.group, self.since, self.in_doubt) = (group, since, false);
        Ok(())
    }

    /// Makes durable what was decided, all of it or nothing, and takes it in. What was decided before the group was changed otherwise must not be given here.
    ///
    /// # Errors
    ///
    /// What the store says. When it is unknown whether it was done, and when this future was dropped before, nothing more is taken until
    /// [`settle`](Self::settle) has found out.
    pub async fn commit(&mut self, records: &[GroupRecord], now: Timestamp) -> Result<(), GroupLogError> {
        if records.is_empty() {
            return Ok(());
        }
        if self.in_doubt {
            return Err(GroupLogError::InDoubt);
        }
        self.append(records, now).await?;
        records.iter().for_each(|record| self.group.apply(record));
        self.since += records.len() as u64;
        if self.since >= SNAPSHOT_EVERY {
            self.shorten(now).await;
        }
        Ok(())
    }

    async fn append(&mut self, records: &[GroupRecord], now: Timestamp) -> Result<u64, GroupLogError> {
        // Also when this future is dropped.
        self.in_doubt = true;
        let append = Append::new(records.iter().map(GroupRecord::encode), now);
        let appended = match self.store.append(self.stream, append).await {
            Ok(appended) => appended,
            Err(error) => {
                self.in_doubt = error.is_unknown();
                return Err(error.into());
            }
        };
        self.in_doubt = false;
        Ok(appended.first)
    }

    /// Writes the group down as a whole. What does not succeed is tried again after the next change: nothing is lost without it.
    async fn shorten(&mut self, now: Timestamp) {
        let snapshot = GroupRecord::Snapshot(self.group.state());
        let shortened = match self.append(&[snapshot], now).await {
            Ok(first) => {
                self.since = 0;
                self.store.trim(self.stream, first).await.map(drop).map_err(GroupLogError::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = shortened {
            tracing::warn!(stream = %self.stream, %error, "the records of a consumer group were not shortened");
        }
    }
}
