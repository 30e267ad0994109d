//! A consistent view of the rows, and of the log.

use std::fmt;
use std::ops::Bound;
use std::sync::OnceLock;

use bytes::Bytes;
use nexus_actors::guard;
use nexus_kernel::hal::{LogRecord, Reader, RowKey, StoreError, Table, TreeId};
use nexus_messages::{Lsn, OpId};
use redb::{ReadOnlyTable, ReadTransaction};

use super::transaction::{LOG, OPS, Rows, rows_table};
use super::{codec, error};

/// What errors call the tables of the kernel.
const ROWS: &str = "the database of the rows";

/// One read transaction; the tables that were asked for stay open in it.
pub(crate) struct Snapshot {
    transaction: ReadTransaction,
    tables: [OnceLock<ReadOnlyTable<&'static [u8], &'static [u8]>>; Table::ALL.len()],
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction) -> Self {
        Self { transaction, tables: Default::default() }
    }

    fn table(&self, table: Table) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        let cell = &self.tables[place_of(table)?];
        if let Some(open) = cell.get() {
            return Ok(open);
        }
        let open = self
            .transaction
            .open_table(rows_table(table)?)
            .map_err(|e| error::table("opening a table for reading", e))?;
        Ok(cell.get_or_init(|| open))
    }

    /// The log of `tree` after `since`, at most `limit` records.
    pub(crate) fn changes(
        &self,
        tree: TreeId,
        since: Lsn,
        limit: usize,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let failed = |e| error::storage("reading the log", e);
        let Some(first) = since.0.checked_add(1) else { return Ok(Vec::new()) };
        sound("the log of changes", || {
            let log = self.transaction.open_table(LOG).map_err(|e| error::table("opening the log", e))?;
            let records = log.range((tree.0, first)..=(tree.0, u64::MAX)).map_err(failed)?;
            records
                .take(limit)
                .map(|record| {
                    let (place, record) = record.map_err(failed)?;
                    codec::decode_record(tree, Lsn(place.value().1), record.value())
                })
                .collect()
        })
    }

    /// Where an operation with a client's id was committed.
    pub(crate) fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        sound("the table of operations", || {
            let ops =
                self.transaction.open_table(OPS).map_err(|e| error::table("opening the operations", e))?;
            let place = ops
                .get(codec::op_key(op_id).as_slice())
                .map_err(|e| error::storage("reading an operation", e))?;
            place.map(|place| codec::decode_place(op_id, place.value())).transpose()
        })
    }
}

/// Reads. The database takes for granted that its pages are what was written, and where they are not, it may panic: that is told as damage of `what`.
pub(super) fn sound<T>(what: &str, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    guard(read).unwrap_or_else(|panicked| {
        Err(StoreError::Corrupt { what: what.into(), found: panicked.to_string() })
    })
}

/// Where `table` stands among all tables.
pub(super) fn place_of(table: Table) -> Result<usize, StoreError> {
    Table::ALL.iter().position(|t| *t == table).ok_or(StoreError::NotSupported { what: "this table" })
}

impl Reader for Snapshot {
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        sound(ROWS, || {
            let row = self
                .table(key.table)?
                .get(key.bytes.as_slice())
                .map_err(|e| error::storage("reading a row", e))?;
            Ok(row.map(|row| Bytes::copy_from_slice(row.value())))
        })
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let failed = |e| error::storage("scanning rows", e);
        sound(ROWS, || {
            let table = self.table(prefix.table)?;
            let mut rows: Vec<(RowKey, Bytes)> = Vec::new();
            for row in table.range::<&[u8]>(start_of(prefix, after)).map_err(failed)?.take(limit) {
                let (key, value) = row.map_err(failed)?;
                if !key.value().starts_with(&prefix.bytes) {
                    break;
                }
                let before = rows.last().map(|(before, _)| before).or(after);
                if before.is_some_and(|before| before.bytes.as_slice() >= key.value()) {
                    return Err(StoreError::Corrupt {
                        what: ROWS.into(),
                        found: "keys out of their order".into(),
                    });
                }
                rows.push((RowKey::new(prefix.table, key.value()), Bytes::copy_from_slice(value.value())));
            }
            Ok(rows)
        })
    }
}

/// The range that begins with the first key of `prefix`, or right after `after` when that is later.
fn start_of<'a>(prefix: &'a RowKey, after: Option<&'a RowKey>) -> Rows<'a> {
    match after {
        Some(after) if after.bytes >= prefix.bytes => (Bound::Excluded(&after.bytes), Bound::Unbounded),
        _ => (Bound::Included(&prefix.bytes), Bound::Unbounded),
    }
}
