//! A consistent view of the rows, and of the log.

use std::fmt;
use std::ops::Bound;
use std::sync::OnceLock;

use bytes::Bytes;
use nexus_actors::guard;
use nexus_kernel::hal::{Damage, LogRecord, Reader, RowKey, StoreError, Table, TreeId};
use nexus_messages::{Lsn, OpId};
use redb::{ReadOnlyTable, ReadTransaction};

use super::seal::{self, Place};
use super::transaction::{LOG, OPS, Rows, STATE, rows_table};
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
                    let (number, lsn) = place.value();
                    let record = seal::open(Place::Record(number, lsn), record.value())?;
                    codec::decode_record(tree, Lsn(lsn), record)
                })
                .collect()
        })
    }

    /// Looks at each value once, and tells those that are not what was written, at most `limit`.
    pub(super) fn damage(&self, limit: usize) -> Result<Vec<Damage>, StoreError> {
        let failed = |e| error::storage("looking through the database", e);
        let opening = |e| error::table("opening a table for reading", e);
        let mut found = Vec::new();
        let mut look = |place: Place<'_>, stored: &[u8]| {
            if let Err(StoreError::Corrupt { what, found: cause }) = seal::open(place, stored) {
                found.push(Damage { what, found: cause });
            }
            found.len() < limit
        };
        for table in Table::ALL {
            for row in self.table(table)?.range::<&[u8]>(..).map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                if !look(Place::Row(table, key.value()), value.value()) {
                    return Ok(found);
                }
            }
        }
        for record in
            self.transaction.open_table(LOG).map_err(opening)?.range::<(u32, u64)>(..).map_err(failed)?
        {
            let (place, record) = record.map_err(failed)?;
            let (tree, lsn) = place.value();
            if !look(Place::Record(tree, lsn), record.value()) {
                return Ok(found);
            }
        }
        for op in self.transaction.open_table(OPS).map_err(opening)?.range::<&[u8]>(..).map_err(failed)? {
            let (key, place) = op.map_err(failed)?;
            if !look(Place::Op(key.value()), place.value()) {
                return Ok(found);
            }
        }
        for number in
            self.transaction.open_table(STATE).map_err(opening)?.range::<&[u8]>(..).map_err(failed)?
        {
            let (name, number) = number.map_err(failed)?;
            if name.value() != codec::FORMAT && !look(Place::Number(name.value()), number.value()) {
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Where an operation with a client's id was committed.
    pub(crate) fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        sound("the table of operations", || {
            let ops =
                self.transaction.open_table(OPS).map_err(|e| error::table("opening the operations", e))?;
            let key = codec::op_key(op_id);
            let place = ops.get(key.as_slice()).map_err(|e| error::storage("reading an operation", e))?;
            let decode = |place: &[u8]| codec::decode_place(op_id, seal::open(Place::Op(&key), place)?);
            place.map(|place| decode(place.value())).transpose()
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
            row.map(|row| Ok(Bytes::copy_from_slice(seal::open_row(key, row.value())?))).transpose()
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
                let key = RowKey::new(prefix.table, key.value());
                let value = Bytes::copy_from_slice(seal::open_row(&key, value.value())?);
                rows.push((key, value));
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
