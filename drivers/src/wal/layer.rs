//! Rows that are in the log and not yet in the database below it.
//!
//! Every row is kept with the number of the frame that wrote it. So a reader sees the rows as of one frame while the next one is written, and
//! neither waits for the other.

use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use nexus_kernel::hal::{LogRecord, RowKey, Table, TreeId};
use nexus_messages::{Lsn, OpId};

/// What a row costs beside its bytes.
const ROW_OVERHEAD: u64 = 128;

/// What a frame costs beside its rows and records.
const FRAME_OVERHEAD: u64 = 64;

/// A row as of one frame. The newest of a key comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Versioned {
    table: Table,
    key: Vec<u8>,
    seq: Reverse<u64>,
}

/// A record of the log, and what is kept beside it.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) record: Arc<LogRecord>,
    pub(super) repeatable: bool,
    seq: u64,
}

/// Rows and records of a run of frames.
#[derive(Debug)]
pub(super) struct Layer {
    rows: SkipMap<Versioned, Option<Bytes>>,
    log: SkipMap<(TreeId, Lsn), Logged>,
    ops: SkipMap<OpId, (TreeId, Lsn, u64)>,
    bytes: AtomicU64,
    /// The last frame before it.
    after: u64,
    /// The last frame that readers see.
    published: AtomicU64,
}

impl Layer {
    /// An empty layer, for the frames after `seq`.
    pub(super) fn after(seq: u64) -> Self {
        Self {
            rows: SkipMap::new(),
            log: SkipMap::new(),
            ops: SkipMap::new(),
            bytes: AtomicU64::new(0),
            after: seq,
            published: AtomicU64::new(seq),
        }
    }

    /// The last frame that readers see.
    pub(super) fn published(&self) -> u64 {
        // Pairs with the store in `publish`: who sees the number sees the rows of its frame.
        self.published.load(Ordering::Acquire)
    }

    /// From here on readers see the frame `seq`.
    pub(super) fn publish(&self, seq: u64) {
        self.bytes.fetch_add(FRAME_OVERHEAD, Ordering::Relaxed);
        self.published.store(seq, Ordering::Release);
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        // A hint for when to fold; nothing is ordered by it.
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether readers see no frame of it.
    pub(super) fn is_empty(&self) -> bool {
        self.published() == self.after
    }

    /// Says that it takes as much memory as at an earlier look: what came since was taken back.
    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Writes a row, or removes it, in frame `seq`.
    pub(super) fn put(&self, key: &RowKey, value: Option<Bytes>, seq: u64) {
        let cost = (key.bytes.len() + value.as_ref().map_or(0, Bytes::len)) as u64 + ROW_OVERHEAD;
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        self.rows.insert(Versioned { table: key.table, key: key.bytes.clone(), seq: Reverse(seq) }, value);
    }

    /// Takes a row of frame `seq` out again: the frame was not written.
    pub(super) fn take_back(&self, key: &RowKey, seq: u64) {
        self.rows.remove(&Versioned { table: key.table, key: key.bytes.clone(), seq: Reverse(seq) });
    }

    /// Keeps the record of an entry of frame `seq`.
    pub(super) fn log(&self, tree: TreeId, record: Arc<LogRecord>, repeatable: bool, seq: u64) {
        let (lsn, op_id) = (record.lsn, record.op_id);
        let cost = record.bytes() + ROW_OVERHEAD;
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        if repeatable {
            self.ops.insert(op_id, (tree, lsn, seq));
        }
        self.log.insert((tree, lsn), Logged { record, repeatable, seq });
    }

    /// Takes a record out again: its frame was not written.
    pub(super) fn unlog(&self, tree: TreeId, record: &LogRecord, repeatable: bool) {
        self.log.remove(&(tree, record.lsn));
        if repeatable {
            self.ops.remove(&record.op_id);
        }
    }

    /// What the frames up to `seq` say of the row at `key`; none when they say nothing.
    #[expect(clippy::option_option, reason = "whether it is known here, and whether there is a row")]
    pub(super) fn get(&self, key: &RowKey, seq: u64) -> Option<Option<Bytes>> {
        let newest = Versioned { table: key.table, key: key.bytes.clone(), seq: Reverse(seq) };
        let found = self.rows.lower_bound(Bound::Included(&newest))?;
        let at = found.key();
        (at.table == key.table && at.key == key.bytes).then(|| found.value().clone())
    }

    /// What the frames up to `seq` say of the first row of `table` whose key is greater than `after`, or, without it, not less than `from`.
    pub(super) fn next(
        &self,
        table: Table,
        from: &[u8],
        after: Option<&[u8]>,
        seq: u64,
    ) -> Option<(Vec<u8>, Option<Bytes>)> {
        // The oldest version that can be: all others of the same key come before it.
        let start = match after {
            Some(after) => Versioned { table, key: after.to_vec(), seq: Reverse(0) },
            None => Versioned { table, key: from.to_vec(), seq: Reverse(u64::MAX) },
        };
        let mut entry = self.rows.lower_bound(Bound::Excluded(&start))?;
        loop {
            let at = entry.key();
            if at.table != table {
                return None;
            }
            if at.seq.0 <= seq {
                return Some((at.key.clone(), entry.value().clone()));
            }
            entry = entry.next()?;
        }
    }

    /// The newest of each row, in the order of tables and keys.
    pub(super) fn newest(&self) -> impl Iterator<Item = (Table, Vec<u8>, Option<Bytes>)> + '_ {
        let mut last: Option<(Table, Vec<u8>)> = None;
        self.rows.iter().filter_map(move |entry| {
            let at = entry.key();
            if last.as_ref().is_some_and(|(table, key)| *table == at.table && *key == at.key) {
                return None;
            }
            last = Some((at.table, at.key.clone()));
            Some((at.table, at.key.clone(), entry.value().clone()))
        })
    }

    /// All records, in the order of trees and places.
    pub(super) fn records(&self) -> impl Iterator<Item = (TreeId, Logged)> + '_ {
        self.log.iter().map(|entry| (entry.key().0, entry.value().clone()))
    }

    /// The records of `tree` after `since` that the frames up to `seq` hold, at most `limit`.
    pub(super) fn changes(&self, tree: TreeId, since: Lsn, seq: u64, limit: usize) -> Vec<LogRecord> {
        self.log
            .range((Bound::Excluded((tree, since)), Bound::Included((tree, Lsn(u64::MAX)))))
            .take_while(|entry| entry.value().seq <= seq)
            .take(limit)
            .map(|entry| (*entry.value().record).clone())
            .collect()
    }

    /// Where the frames up to `seq` committed the operation.
    pub(super) fn outcome(&self, op_id: OpId, seq: u64) -> Option<(TreeId, Lsn)> {
        let found = self.ops.get(&op_id)?;
        let (tree, lsn, at) = *found.value();
        (at <= seq).then_some((tree, lsn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RowKey {
        RowKey::new(Table::Inodes, name.as_bytes())
    }

    fn value(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_reader_sees_the_rows_as_of_its_frame() {
        let layer = Layer::after(0);
        layer.put(&key("a"), value("1"), 1);
        layer.put(&key("a"), value("2"), 2);
        layer.put(&key("a"), value("2, again"), 2);
        layer.put(&key("a"), None, 3);
        let seen: Vec<_> = (0..5).map(|seq| layer.get(&key("a"), seq)).collect();
        assert_eq!(seen, [None, Some(value("1")), Some(value("2, again")), Some(None), Some(None)]);
        layer.take_back(&key("a"), 3);
        assert_eq!(layer.get(&key("a"), 9), Some(value("2, again")));
        assert_eq!(layer.get(&key("ab"), 9), None);
    }

    #[test]
    fn rows_come_in_order_each_once_as_of_the_frame() {
        let layer = Layer::after(0);
        for (name, seq) in [("b", 1), ("a", 2), ("b", 3), ("c", 4), ("ab", 2)] {
            layer.put(&key(name), value("x"), seq);
        }
        let walk = |seq| {
            let mut names = Vec::new();
            let mut after: Option<Vec<u8>> = None;
            while let Some((found, _)) = layer.next(Table::Inodes, b"", after.as_deref(), seq) {
                names.push(String::from_utf8(found.clone()).unwrap());
                after = Some(found);
            }
            names
        };
        assert_eq!(walk(1), ["b"]);
        assert_eq!(walk(3), ["a", "ab", "b"]);
        assert_eq!(walk(9), ["a", "ab", "b", "c"]);
        assert_eq!(layer.next(Table::Contents, b"", None, 9), None);
        assert_eq!(layer.newest().count(), 4);
    }
}
