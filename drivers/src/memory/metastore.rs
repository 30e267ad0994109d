//! A metastore in memory. Nothing of it survives its process; "durable" means "visible".

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{
    Applied, Batch, Entry, LogRecord, Metastore, Reader, RowKey, StoreError, Table, TreeId,
};
use nexus_messages::{Lsn, OpId};
use parking_lot::RwLock;
use rpds::RedBlackTreeMapSync;

use crate::entries::{self, Transaction};

/// The identity that the first entry of an empty store may take.
const FIRST_FILE_ID: u64 = 1;

/// A metastore in memory.
///
/// The rows are in trees that share what did not change, so a reader's view and a batch's undo are clones in constant time.
#[derive(Debug, Default)]
pub struct MemoryMetastore {
    committed: RwLock<Committed>,
}

#[derive(Debug, Clone)]
struct Committed {
    rows: RowTrees,
    logs: BTreeMap<TreeId, RedBlackTreeMapSync<Lsn, Arc<Record>>>,
    last: BTreeMap<TreeId, Lsn>,
    ops: rpds::HashTrieMapSync<OpId, (TreeId, Lsn)>,
    next_file_id: u64,
}

/// A record of the log, and whether its operation may come again.
#[derive(Debug)]
struct Record {
    record: LogRecord,
    repeatable: bool,
}

#[derive(Debug, Clone, Default)]
struct RowTrees([RedBlackTreeMapSync<Vec<u8>, Bytes>; Table::ALL.len()]);

impl Default for Committed {
    fn default() -> Self {
        Self {
            rows: RowTrees::default(),
            logs: BTreeMap::new(),
            last: BTreeMap::new(),
            ops: rpds::HashTrieMapSync::new_sync(),
            next_file_id: FIRST_FILE_ID,
        }
    }
}

impl MemoryMetastore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl RowTrees {
    fn place(table: Table) -> Result<usize, StoreError> {
        Table::ALL.iter().position(|t| *t == table).ok_or(StoreError::NotSupported { what: "this table" })
    }

    fn of(&self, table: Table) -> Result<&RedBlackTreeMapSync<Vec<u8>, Bytes>, StoreError> {
        Ok(&self.0[Self::place(table)?])
    }

    fn of_mut(&mut self, table: Table) -> Result<&mut RedBlackTreeMapSync<Vec<u8>, Bytes>, StoreError> {
        Ok(&mut self.0[Self::place(table)?])
    }
}

impl Transaction for Committed {
    fn holds(&mut self, key: &RowKey, expected: Option<&[u8]>) -> Result<bool, StoreError> {
        let row = self.rows.of(key.table)?.get(&*key.bytes);
        Ok(row.is_some_and(|row| expected.is_none_or(|expected| row == expected)))
    }

    fn vacant(&mut self, prefix: &RowKey) -> Result<bool, StoreError> {
        Ok(self.rows.scan(prefix, None, 1)?.is_empty())
    }

    fn put(&mut self, key: &RowKey, value: &Bytes) -> Result<(), StoreError> {
        self.rows.of_mut(key.table)?.insert_mut(key.bytes.to_vec(), value.clone());
        Ok(())
    }

    fn delete(&mut self, key: &RowKey) -> Result<(), StoreError> {
        self.rows.of_mut(key.table)?.remove_mut(&*key.bytes);
        Ok(())
    }

    fn committed(&mut self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        Ok(self.ops.get(&op_id).copied())
    }

    fn last_lsn(&mut self, tree: TreeId) -> Result<Lsn, StoreError> {
        Ok(self.last.get(&tree).copied().unwrap_or_default())
    }

    fn log(&mut self, entry: &Entry, lsn: Lsn) -> Result<(), StoreError> {
        let record = Record { record: LogRecord::of(entry, lsn), repeatable: entry.repeatable };
        self.logs.entry(entry.tree).or_default().insert_mut(lsn, Arc::new(record));
        if entry.repeatable {
            self.ops.insert_mut(entry.op_id, (entry.tree, lsn));
        }
        self.last.insert(entry.tree, lsn);
        Ok(())
    }

    fn prune(&mut self, tree: TreeId, through: Lsn) -> Result<(), StoreError> {
        let Some(log) = self.logs.get_mut(&tree) else { return Ok(()) };
        let gone: Vec<_> = log.range(..=through).map(|(_, record)| record.clone()).collect();
        for record in gone {
            log.remove_mut(&record.record.lsn);
            let place = (tree, record.record.lsn);
            if record.repeatable && self.ops.get(&record.record.op_id) == Some(&place) {
                self.ops.remove_mut(&record.record.op_id);
            }
        }
        Ok(())
    }
}

impl Metastore for MemoryMetastore {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let mut committed = self.committed.write();
        let mut next = committed.clone();
        let outcomes = entries::apply(&mut next, batch)?;
        next.next_file_id = next.next_file_id.max(batch.next_file_id);
        *committed = next;
        Ok(Applied { outcomes })
    }

    fn append(&self, batch: &Batch) -> Result<Option<Applied>, StoreError> {
        // There is no flush to put off.
        self.apply(batch).map(Some)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.committed.read().rows.clone()))
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        Ok(self.committed.read().last.get(&tree).copied().unwrap_or_default())
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        let log = self.committed.read().logs.get(&tree).cloned().unwrap_or_default();
        let after = (Bound::Excluded(since), Bound::Unbounded);
        Ok(log.range(after).take(limit).map(|(_, record)| record.record.clone()).collect())
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        let committed = self.committed.read();
        let last = |tree| committed.last.get(&tree).copied().unwrap_or_default();
        let place = committed.ops.get(&op_id).copied();
        Ok(place.filter(|(tree, lsn)| entries::is_remembered(*lsn, last(*tree))))
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        Ok(self.committed.read().next_file_id)
    }
}

impl Reader for RowTrees {
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.of(key.table)?.get(&*key.bytes).cloned())
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let start = match after {
            Some(after) if after.bytes >= prefix.bytes => Bound::Excluded(&*after.bytes),
            _ => Bound::Included(&*prefix.bytes),
        };
        let rows = self.of(prefix.table)?.range::<[u8], _>((start, Bound::Unbounded));
        Ok(rows
            .take_while(|(key, _)| key.starts_with(&prefix.bytes))
            .take(limit)
            .map(|(key, value)| (RowKey::new(prefix.table, key.clone()), value.clone()))
            .collect())
    }
}
