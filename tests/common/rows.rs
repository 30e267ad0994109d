//! The rows below a kernel, changed and read by its test.

use nexus::hal::{Batch, Change, Entry, Metastore, RowKey, Table, TreeId};
use nexus::{Bytes, Op, OpId, Timestamp, VPath};

/// What a test does to rows that are no business of a kernel's. All of them are of the first zone.
pub(crate) trait Rows: Metastore {
    /// Changes rows under the kernel.
    fn change(&self, changes: Vec<Change>) {
        let entry = Entry {
            tree: TreeId::ROOT,
            op_id: OpId(u128::from(self.last_lsn(TreeId::ROOT).expect("it is open").0) + 1),
            repeatable: false,
            caller: "damage".into(),
            op: Op::Write,
            path: VPath::root(),
            other: None,
            items: Vec::new(),
            told: None,
            at: Timestamp(1),
            preconditions: Vec::new(),
            changes,
        };
        self.apply(&Batch { entries: vec![entry], next_file_id: 0 }).expect("it is applied");
    }

    fn scan(&self, table: Table) -> Vec<(RowKey, Bytes)> {
        let reader = self.reader().expect("it is open");
        reader.scan(&RowKey::new(table, Vec::new()), None, usize::MAX).expect("it scans")
    }

    /// The row of the name, which only one entry has.
    fn dentry(&self, name: &str) -> (RowKey, Bytes) {
        let mut found = self.scan(Table::Dentries);
        found.retain(|(key, _)| key.bytes[12..] == *name.as_bytes());
        assert_eq!(found.len(), 1, "{name}");
        found.remove(0)
    }
}

impl<M: Metastore> Rows for M {}

/// The key of the metadata of an entry.
pub(crate) fn inode_key(id: u64) -> RowKey {
    RowKey::new(Table::Inodes, [&0u32.to_be_bytes()[..], &id.to_be_bytes()].concat())
}

/// A row as it is stored, with one byte changed.
pub(crate) fn with_byte(row: &Bytes, at: usize, byte: u8) -> Bytes {
    let mut row = row.to_vec();
    row[at] = byte;
    row.into()
}
