//! Ordered rows describing files: the kernel's inode layer.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::{ContentId, EntryType, EventKind, Lsn, Op, OpId, Timestamp, VPath, ZoneId};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::error::StoreError;

/// Ordered rows in a few tables, changed by whole entries of a log.
///
/// The caller holds no kernel lock unless stated. A driver is done when `hal::conformance::metastore` passes.
pub trait Metastore: fmt::Debug + Send + Sync + 'static {
    /// Applies the entries in their order, as one durable unit: on return all that is told as committed is on disk, and after
    /// an error or a crash either the whole batch is there or nothing of it. An entry whose preconditions do not hold, as the
    /// entries before it left the rows, changes nothing and is told as refused; the others go on.
    ///
    /// Blocks: yes; called by the committer alone. Repeat: safe for entries that carry a client's operation id.
    /// After [`StoreError::Unknown`] the store refuses further batches until it is opened again.
    /// What was [appended](Self::append) before is on disk then, too.
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError>;

    /// As [`apply`](Self::apply), but what is told as committed is only sure to be visible: it is on disk after the next batch that is applied, or
    /// after [`sync`](Self::sync), whichever comes first. After a crash a prefix of all that was committed is there, in the order of the places. None:
    /// not now, and nothing was done; whoever may wait applies it. That is all that a store says which cannot put a flush off.
    ///
    /// Blocks: on no flush, and on nobody who waits for one. Called on any thread. Repeat: as `apply`.
    fn append(&self, batch: &Batch) -> Result<Option<Applied>, StoreError> {
        let _ = batch;
        Ok(None)
    }

    /// Makes all durable that was visible when it was called. Appends go on beside it.
    ///
    /// Blocks: on disk. Repeat: safe. After an error it is not known what of it is on disk, and the store refuses further batches until it is opened
    /// again.
    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// About how many bytes were appended that are not known to be on disk.
    fn unsynced_bytes(&self) -> u64 {
        0
    }

    /// A consistent view of all that was applied when it is made. Never sees half a batch.
    ///
    /// Blocks: briefly, on the page cache. To be dropped soon: an old view keeps the space of what it sees.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;

    /// The last committed place in the log of `tree`; 0 before the first.
    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError>;

    /// The place in the log of `tree` up to which all is known to be on disk. Never goes down while the store is open.
    fn durable_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.last_lsn(tree)
    }

    /// The log of `tree` after `since`, at most `limit` records. Records older than the driver's retention are gone, and those that are not known to be
    /// on disk are not told yet: what is told here stays.
    ///
    /// Blocks: on disk.
    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError>;

    /// The record at `lsn` in the log of `tree`, also when it is not on disk yet; none when there is none, or none any more.
    ///
    /// Blocks: on disk.
    fn record(&self, tree: TreeId, lsn: Lsn) -> Result<Option<LogRecord>, StoreError> {
        let Some(before) = lsn.0.checked_sub(1) else { return Ok(None) };
        let mut found = self.changes(tree, Lsn(before), 1)?;
        Ok(found.pop().filter(|record| record.lsn == lsn))
    }

    /// Where an operation with a client's id was committed; none when it was not, or when [`OPS_KEPT`](nexus_messages::syscall::OPS_KEPT) others were
    /// committed in its tree since. Exactly so long [`apply`](Self::apply) tells it as repeated, too.
    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError>;

    /// Reads all that the rows and the log stand on, past what is remembered of it, and checks it against its checksums. What commits must make room for
    /// waits meanwhile; reads go on. Gives what is not as it was written, each row by itself, at most [`DAMAGE_MAX`]. Blocks for as long as reading all of it
    /// takes. Repeat: safe.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        Ok(Vec::new())
    }

    /// The number that the next new entry may take as its identity: above all that were ever used.
    fn next_file_id(&self) -> Result<u64, StoreError>;

    /// Whether there is work to be done beside the batches; see [`upkeep`](Self::upkeep). Asked after each batch.
    fn wants_upkeep(&self) -> bool {
        false
    }

    /// Does the work that can be done beside the batches: what was left to be done later so that they are fast. Without it everything is right,
    /// and some batches are slow.
    ///
    /// Blocks: yes; called on a thread of its own. Repeat: safe, also after an error.
    fn upkeep(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// How much damage one look at a store tells.
pub const DAMAGE_MAX: usize = 1_000;

/// Something of a store that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The row with its table and key, or the part of the store.
    pub what: String,
    /// What was found instead.
    pub found: String,
}

/// A consistent view of the rows.
pub trait Reader: Send {
    /// The row at `key`. Blocks: on disk, when it is not in a cache.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] with table and key when the row is not what was written.
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError>;

    /// The rows of `prefix`'s table whose keys start with it and are greater than `after`, in the order of their keys, at most `limit`.
    /// `after` is a whole key; none for the first. Costs what it returns, not what lies around it.
    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError>;
}

/// A tree of entries: a zone, or later a branch of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TreeId(pub u32);

impl TreeId {
    /// The tree of the root zone.
    pub const ROOT: Self = Self(0);
}

/// The tables. Their numbers are part of the stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
#[repr(u8)]
pub enum Table {
    /// (tree, parent, name) to identity and type.
    Dentries = 1,
    /// (tree, identity) to metadata.
    Inodes = 2,
    /// Content address to small content.
    Contents = 3,
    /// Mounts by identity: what is mounted, where, with which options.
    Mounts = 4,
    /// The kernel's own settings and numbers.
    Settings = 5,
    /// Rows of names and metadata as they were before, each up to the place in the log that superseded it.
    History = 6,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 6] =
        [Self::Dentries, Self::Inodes, Self::Contents, Self::Mounts, Self::Settings, Self::History];
}

/// How long a key is kept without memory of its own, in bytes: those of entries with usual names, and of their history, are not longer.
pub const KEY_INLINE: usize = 40;

/// The key of a row: a table, and bytes that are compared as bytes.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey {
    /// The table.
    pub table: Table,
    /// The key within it.
    pub bytes: SmallVec<[u8; KEY_INLINE]>,
}

impl RowKey {
    /// The key `bytes` in `table`.
    pub fn new(table: Table, bytes: impl AsRef<[u8]>) -> Self {
        Self { table, bytes: SmallVec::from_slice(bytes.as_ref()) }
    }

    /// This key with the place in the log behind it: its eight bytes, the highest first, so that keys are ordered as places are.
    #[must_use]
    pub fn at(&self, Lsn(lsn): Lsn) -> Self {
        let mut key = self.clone();
        key.bytes.extend_from_slice(&lsn.to_be_bytes());
        key
    }
}

impl Clone for RowKey {
    fn clone(&self) -> Self {
        // In one go. What is derived copies byte by byte, and a write has a dozen copies of keys made.
        Self::new(self.table, &self.bytes)
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.table, self.bytes.escape_ascii())
    }
}

/// What must hold for an entry to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Precondition {
    /// There is no row at this key.
    Absent(RowKey),
    /// There is a row at this key.
    Present(RowKey),
    /// The row at this key has exactly this value.
    Equals(RowKey, Bytes),
    /// No row has a key that starts with this one.
    Vacant(RowKey),
}

/// A change of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Change {
    /// Makes or replaces the row.
    Put(RowKey, Bytes),
    /// Makes the row, unless there is one: for content that is addressed by its hash.
    PutIfAbsent(RowKey, Bytes),
    /// Makes or replaces the row whose key is `prefix` and, behind it, the entry's place in the log: [`RowKey::at`]. Only the driver knows that place.
    PutAtLsn {
        /// What the key begins with.
        prefix: RowKey,
        /// The row.
        value: Bytes,
    },
    /// Removes the row; nothing happens when there is none.
    Delete(RowKey),
    /// Removes all of `rows`, if no row has a key that starts with `prefix` when this change is reached. What follows such a change in the
    /// entry is applied in any case.
    DeleteIfVacant {
        /// The prefix that must be vacant.
        prefix: RowKey,
        /// The rows to remove.
        rows: Vec<RowKey>,
        /// Rows to make when those are removed, as by [`PutAtLsn`](Self::PutAtLsn).
        kept: Vec<(RowKey, Bytes)>,
    },
}

/// One mutation: whole, or not at all. Deterministic: its time and identities were assigned before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The tree in whose log it stands.
    pub tree: TreeId,
    /// The operation's identity.
    pub op_id: OpId,
    /// Whether the identity came from the client, so that the operation may come again and must be found.
    pub repeatable: bool,
    /// The agent that asked for it.
    pub caller: Arc<str>,
    /// What was asked for.
    pub op: Op,
    /// Where; the old path of a rename.
    pub path: VPath,
    /// The second path of a rename or copy.
    pub other: Option<VPath>,
    /// The operations of a transaction; empty for anything else.
    pub items: Vec<LogItem>,
    /// When it was assigned its time.
    pub at: Timestamp,
    /// What is told of it; nothing for what nobody is told of.
    pub told: Option<Arc<Told>>,
    /// What must hold.
    pub preconditions: Vec<Precondition>,
    /// What changes.
    pub changes: Vec<Change>,
}

impl Entry {
    /// About how many bytes it takes in the rows and in the log.
    pub fn bytes(&self) -> u64 {
        let of = |change: &Change| match change {
            Change::Put(key, value)
            | Change::PutIfAbsent(key, value)
            | Change::PutAtLsn { prefix: key, value } => key.bytes.len() + value.len(),
            Change::Delete(key) => key.bytes.len(),
            Change::DeleteIfVacant { rows, kept, .. } => {
                let kept: usize = kept.iter().map(|(key, value)| key.bytes.len() + value.len()).sum();
                rows.iter().map(|row| row.bytes.len()).sum::<usize>() + kept
            }
        };
        let rows: usize = self.changes.iter().map(of).sum();
        rows as u64
            + paths_bytes(&self.path, self.other.as_ref(), &self.items)
            + told_bytes(self.told.as_deref())
    }
}

fn told_bytes(told: Option<&Told>) -> u64 {
    // An event has a hash of 32 bytes and a few numbers.
    told.map_or(0, |told| {
        let user = told.user.as_deref().map_or(0, str::len);
        (told.zone.as_str().len() + user + 64 * told.events.len()) as u64
    })
}

fn paths_bytes(path: &VPath, other: Option<&VPath>, items: &[LogItem]) -> u64 {
    let of =
        |path: &VPath, other: Option<&VPath>| path.as_str().len() + other.map_or(0, |p| p.as_str().len());
    let items: usize = items.iter().map(|item| of(&item.path, item.other.as_ref())).sum();
    (of(path, other) + items) as u64
}

/// Entries that become durable together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The entries, in the order in which they are applied.
    pub entries: Vec<Entry>,
    /// A number above every identity that the entries use; see [`Metastore::next_file_id`]. Lower than before: ignored.
    pub next_file_id: u64,
}

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryOutcome {
    /// It is committed, at this place of its tree's log. Places are given in order, without gaps, and never twice to what was on disk.
    Committed(Lsn),
    /// Its operation id was committed before, at this place; nothing was changed.
    Repeated(Lsn),
    /// The precondition with this index did not hold; nothing was changed.
    Refused {
        /// The index in [`Entry::preconditions`].
        precondition: usize,
    },
}

/// What became of a batch: one outcome for each entry, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// One outcome for each entry.
    pub outcomes: Vec<EntryOutcome>,
}

/// One committed mutation, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Its place.
    pub lsn: Lsn,
    /// The operation's identity.
    pub op_id: OpId,
    /// The agent that asked for it.
    pub caller: Arc<str>,
    /// What was asked for.
    pub op: Op,
    /// Where.
    pub path: VPath,
    /// The second path of a rename or copy.
    pub other: Option<VPath>,
    /// When.
    pub at: Timestamp,
    /// The operations of a transaction; empty for anything else. Last, so that what was stored before there were any can be read.
    pub items: Vec<LogItem>,
    /// What is told of it. None of what nobody is told of, and of what was stored before it was kept. Drivers store it beside the rest.
    #[serde(skip)]
    pub told: Option<Arc<Told>>,
}

/// What watchers are told of an entry beside what its record says, so that the log can tell them later what they would have been told then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The zone of who asked for it.
    pub zone: ZoneId,
    /// Whether that was with the administrator's capability.
    pub admin: bool,
    /// For each operation, in their order, what became of its entry; nothing where nothing changed.
    pub events: SmallVec<[Option<ToldEvent>; 1]>,
    /// For whom it was, if that was said. Drivers store it behind the rest, which many have without it.
    #[serde(skip)]
    pub user: Option<Arc<str>>,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldEvent {
    /// What happened.
    pub kind: EventKind,
    /// What the entry is, or was.
    pub entry_type: EntryType,
    /// The content's length in bytes, after the change; as it was, when the entry is gone.
    pub size: u64,
    /// The content, likewise.
    pub content_id: Option<ContentId>,
    /// The content's version, likewise.
    pub version: u64,
    /// The content's generation, likewise.
    pub generation: u64,
    /// Whether the entry was made by it.
    pub is_new: bool,
    /// Who owns the entry, or did.
    pub owner: Arc<str>,
}

/// One operation of a transaction, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogItem {
    /// What was asked for.
    pub op: Op,
    /// Where; the old path of a rename.
    pub path: VPath,
    /// The second path of a rename.
    pub other: Option<VPath>,
}

impl LogRecord {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> u64 {
        let paths = paths_bytes(&self.path, self.other.as_ref(), &self.items);
        self.caller.len() as u64 + paths + told_bytes(self.told.as_deref())
    }

    /// The record of `entry`, committed at `lsn`.
    pub fn of(entry: &Entry, lsn: Lsn) -> Self {
        Self {
            lsn,
            op_id: entry.op_id,
            caller: entry.caller.clone(),
            op: entry.op,
            path: entry.path.clone(),
            other: entry.other.clone(),
            at: entry.at,
            items: entry.items.clone(),
            told: entry.told.clone(),
        }
    }

    /// Every operation with its paths: those of a transaction, or the one that it is.
    pub fn operations(&self) -> impl Iterator<Item = (Op, &VPath, Option<&VPath>)> {
        let alone = self.items.is_empty().then_some((self.op, &self.path, self.other.as_ref()));
        alone.into_iter().chain(self.items.iter().map(|item| (item.op, &item.path, item.other.as_ref())))
    }
}
