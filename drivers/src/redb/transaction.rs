//! One batch, as one transaction of redb.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use nexus_kernel::hal::{Entry, LogRecord, RowKey, StoreError, Table, TreeId};
use nexus_messages::{Lsn, OpId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::seal::{self, Place};
use super::{codec, error, reader};
use crate::entries::Transaction;

/// A range of keys.
pub(super) type Rows<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// (tree, place) to the record. A pair of fixed width keeps the order of the log.
pub(super) const LOG: TableDefinition<'static, (u32, u64), &'static [u8]> = TableDefinition::new("log");
/// An operation that may come again, to its tree and place.
pub(super) const OPS: Definition = TableDefinition::new("ops");
/// The store's format, the next identity, and the last place of each log.
pub(super) const STATE: Definition = TableDefinition::new("state");

/// The table of redb that holds the kernel's `table`. The names are part of the stored format.
pub(super) fn rows_table(table: Table) -> Result<Definition, StoreError> {
    Ok(TableDefinition::new(match table {
        Table::Dentries => "dentries",
        Table::Inodes => "inodes",
        Table::Contents => "contents",
        Table::Mounts => "mounts",
        Table::Settings => "settings",
        Table::History => "history",
        _ => return Err(StoreError::NotSupported { what: "this table" }),
    }))
}

type RowTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// A batch in the making. Tables are opened when they are touched: each one costs the commit.
pub(super) struct RedbTransaction<'t> {
    transaction: &'t WriteTransaction,
    rows: [Option<RowTable<'t>>; Table::ALL.len()],
    log: Option<redb::Table<'t, (u32, u64), &'static [u8]>>,
    ops: Option<RowTable<'t>>,
    last_before: &'t dyn Fn(TreeId) -> Lsn,
    /// The last places that this batch moved.
    pub(super) last: BTreeMap<TreeId, Lsn>,
}

impl<'t> RedbTransaction<'t> {
    /// `last_before` tells the last place of a tree as of the last commit.
    pub(super) fn new(transaction: &'t WriteTransaction, last_before: &'t dyn Fn(TreeId) -> Lsn) -> Self {
        Self {
            transaction,
            rows: Default::default(),
            log: None,
            ops: None,
            last_before,
            last: BTreeMap::new(),
        }
    }

    fn rows(&mut self, table: Table) -> Result<&mut RowTable<'t>, StoreError> {
        let slot = &mut self.rows[reader::place_of(table)?];
        open(slot, || self.transaction.open_table(rows_table(table)?).map_err(opening))
    }

    fn ops(&mut self) -> Result<&mut RowTable<'t>, StoreError> {
        open(&mut self.ops, || self.transaction.open_table(OPS).map_err(opening))
    }

    fn log_table(&mut self) -> Result<&mut redb::Table<'t, (u32, u64), &'static [u8]>, StoreError> {
        open(&mut self.log, || self.transaction.open_table(LOG).map_err(opening))
    }

    /// Writes a record of the log of `tree`, the last one from here on.
    pub(super) fn record(
        &mut self,
        tree: TreeId,
        record: &LogRecord,
        repeatable: bool,
    ) -> Result<(), StoreError> {
        let bytes = codec::encode_record(record, repeatable)?;
        let stored = seal::seal(Place::Record(tree.0, record.lsn.0), &bytes);
        self.log_table()?.insert((tree.0, record.lsn.0), stored.as_slice()).map_err(writing)?;
        if repeatable {
            let key = codec::op_key(record.op_id);
            let place = seal::seal(Place::Op(&key), &codec::encode_place(tree, record.lsn));
            self.ops()?.insert(key.as_slice(), place.as_slice()).map_err(writing)?;
        }
        self.last.insert(tree, record.lsn);
        Ok(())
    }

    /// Writes the numbers that the batch moved, and closes the tables.
    pub(super) fn finish(self, next_file_id: Option<u64>, applied: Option<u64>) -> Result<(), StoreError> {
        let Self { transaction, last, .. } = self;
        if last.is_empty() && next_file_id.is_none() && applied.is_none() {
            return Ok(());
        }
        let mut state = transaction.open_table(STATE).map_err(opening)?;
        let numbers = last.into_iter().map(|(tree, Lsn(lsn))| (codec::last_lsn_name(tree), lsn));
        let next = next_file_id.map(|next| (codec::NEXT_FILE_ID.to_vec(), next));
        let applied = applied.map(|applied| (codec::APPLIED.to_vec(), applied));
        for (name, number) in numbers.chain(next).chain(applied) {
            let number = seal::seal(Place::Number(&name), &codec::encode_number(number));
            state.insert(name.as_slice(), number.as_slice()).map_err(writing)?;
        }
        Ok(())
    }
}

fn open<T>(
    slot: &mut Option<T>,
    opener: impl FnOnce() -> Result<T, StoreError>,
) -> Result<&mut T, StoreError> {
    match slot {
        Some(open) => Ok(open),
        None => Ok(slot.insert(opener()?)),
    }
}

fn opening(error: redb::TableError) -> StoreError {
    error::table("opening a table", error)
}

fn writing(error: redb::StorageError) -> StoreError {
    error::storage("writing a batch", error)
}

impl Transaction for RedbTransaction<'_> {
    fn holds(&mut self, key: &RowKey, expected: Option<&[u8]>) -> Result<bool, StoreError> {
        let row = self.rows(key.table)?.get(key.bytes.as_slice()).map_err(writing)?;
        let (Some(row), Some(expected)) = (&row, expected) else { return Ok(row.is_some()) };
        Ok(seal::open_row(key, row.value())? == expected)
    }

    fn vacant(&mut self, prefix: &RowKey) -> Result<bool, StoreError> {
        let from: Rows<'_> = (Bound::Included(&prefix.bytes), Bound::Unbounded);
        let mut rows = self.rows(prefix.table)?.range::<&[u8]>(from).map_err(writing)?;
        match rows.next() {
            None => Ok(true),
            Some(row) => Ok(!row.map_err(writing)?.0.value().starts_with(&prefix.bytes)),
        }
    }

    fn put(&mut self, key: &RowKey, value: &Bytes) -> Result<(), StoreError> {
        let stored = seal::seal_row(key, value);
        self.rows(key.table)?.insert(key.bytes.as_slice(), stored.as_slice()).map_err(writing)?;
        Ok(())
    }

    fn delete(&mut self, key: &RowKey) -> Result<(), StoreError> {
        self.rows(key.table)?.remove(key.bytes.as_slice()).map_err(writing)?;
        Ok(())
    }

    fn committed(&mut self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        let key = codec::op_key(op_id);
        let place = self.ops()?.get(key.as_slice()).map_err(writing)?;
        let decode = |place: &[u8]| codec::decode_place(op_id, seal::open(Place::Op(&key), place)?);
        place.map(|place| decode(place.value())).transpose()
    }

    fn last_lsn(&mut self, tree: TreeId) -> Result<Lsn, StoreError> {
        Ok(self.last.get(&tree).copied().unwrap_or_else(|| (self.last_before)(tree)))
    }

    fn log(&mut self, entry: &Entry, lsn: Lsn) -> Result<(), StoreError> {
        self.record(entry.tree, &LogRecord::of(entry, lsn), entry.repeatable)
    }

    fn prune(&mut self, tree: TreeId, through: Lsn) -> Result<(), StoreError> {
        let mut forgotten = Vec::new();
        self.log_table()?
            .retain_in((tree.0, 0)..=(tree.0, through.0), |(tree, lsn), record| {
                // Of one that is damaged nothing is known: its operation stays, and is not remembered all the same.
                let record = seal::open(Place::Record(tree, lsn), record);
                forgotten.extend(record.ok().and_then(codec::repeatable_op));
                false
            })
            .map_err(writing)?;
        for op_id in forgotten {
            // Of one that was committed again since, the later commit is remembered.
            match self.committed(op_id) {
                Ok(Some((at, lsn))) if at != tree || lsn > through => continue,
                // One that is damaged goes, too.
                Ok(_) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
            self.ops()?.remove(codec::op_key(op_id).as_slice()).map_err(writing)?;
        }
        Ok(())
    }
}
