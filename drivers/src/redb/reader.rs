//! A consistent view of the rows.

use std::cell::OnceCell;
use std::ops::Bound;

use bytes::Bytes;
use nexus_kernel::hal::{Reader, RowKey, StoreError, Table};
use redb::{ReadOnlyTable, ReadTransaction};

use super::error;
use super::transaction::{Rows, rows_table};

/// One read transaction; the tables that were asked for stay open in it.
pub(super) struct RedbReader {
    transaction: ReadTransaction,
    tables: [OnceCell<ReadOnlyTable<&'static [u8], &'static [u8]>>; Table::ALL.len()],
}

impl RedbReader {
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
}

/// Where `table` stands among all tables.
pub(super) fn place_of(table: Table) -> Result<usize, StoreError> {
    Table::ALL.iter().position(|t| *t == table).ok_or(StoreError::NotSupported { what: "this table" })
}

impl Reader for RedbReader {
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        let row = self
            .table(key.table)?
            .get(key.bytes.as_slice())
            .map_err(|e| error::storage("reading a row", e))?;
        Ok(row.map(|row| Bytes::copy_from_slice(row.value())))
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let table = self.table(prefix.table)?;
        let failed = |e| error::storage("scanning rows", e);
        let mut rows = Vec::new();
        for row in table.range::<&[u8]>(start_of(prefix, after)).map_err(failed)?.take(limit) {
            let (key, value) = row.map_err(failed)?;
            if !key.value().starts_with(&prefix.bytes) {
                break;
            }
            rows.push((RowKey::new(prefix.table, key.value()), Bytes::copy_from_slice(value.value())));
        }
        Ok(rows)
    }
}

/// The range that begins with the first key of `prefix`, or right after `after` when that is later.
fn start_of<'a>(prefix: &'a RowKey, after: Option<&'a RowKey>) -> Rows<'a> {
    match after {
        Some(after) if after.bytes >= prefix.bytes => (Bound::Excluded(&after.bytes), Bound::Unbounded),
        _ => (Bound::Included(&prefix.bytes), Bound::Unbounded),
    }
}
