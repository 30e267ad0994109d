//! The checksum behind each value in the database. It covers the table and the key, too: a value that stands at another key is damaged as one whose bytes changed.
//!
//! redb checks its pages when it is told to, and believes them when it reads. What is read here is checked each time.

use nexus_kernel::hal::{RowKey, StoreError, Table};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many bytes stand behind a value.
const CHECKSUM_BYTES: usize = 8;

/// The tables of redb, as checksums know them. The numbers are part of the stored format; those of the kernel's tables are their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'k> {
    /// A row of the kernel.
    Row(Table, &'k [u8]),
    /// A record of the log of a tree.
    Record(u32, u64),
    /// An operation that may come again.
    Op(&'k [u8]),
    /// A number of the store.
    Number(&'k [u8]),
}

const RECORDS: u64 = 0x1_00;
const OPS: u64 = 0x2_00;
const NUMBERS: u64 = 0x3_00;

impl Place<'_> {
    fn of_row(key: &RowKey) -> Place<'_> {
        Place::Row(key.table, &key.bytes)
    }

    fn checksum(self, value: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let seed = match self {
            Self::Row(table, key) => xxh3_64_with_seed(key, table as u64),
            Self::Record(tree, lsn) => {
                let mut key = [0; 12];
                key[..4].copy_from_slice(&tree.to_be_bytes());
                key[4..].copy_from_slice(&lsn.to_be_bytes());
                xxh3_64_with_seed(&key, RECORDS)
            }
            Self::Op(key) => xxh3_64_with_seed(key, OPS),
            Self::Number(key) => xxh3_64_with_seed(key, NUMBERS),
        };
        xxh3_64_with_seed(value, seed).to_le_bytes()
    }

    /// What errors call it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Row(table, key) => format!("row {:?}", RowKey::new(table, key)),
            Self::Record(tree, lsn) => format!("record {lsn} of the log of tree {tree}"),
            Self::Op(key) => format!("the place of operation {}", hex(key)),
            Self::Number(key) => format!("the number {}", key.escape_ascii()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `value` as it is stored at `place`.
pub(super) fn seal(place: Place<'_>, value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + CHECKSUM_BYTES);
    stored.extend_from_slice(value);
    stored.extend_from_slice(&place.checksum(value));
    stored
}

/// The value that is `stored` at `place`.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is not what was written there.
pub(super) fn open<'s>(place: Place<'_>, stored: &'s [u8]) -> Result<&'s [u8], StoreError> {
    match stored.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((value, checksum)) if place.checksum(value) == *checksum => Ok(value),
        _ => {
            Err(StoreError::Corrupt { what: place.name(), found: "it is not what was written there".into() })
        }
    }
}

/// As [`open`], of a row of the kernel.
pub(super) fn open_row<'s>(key: &RowKey, stored: &'s [u8]) -> Result<&'s [u8], StoreError> {
    open(Place::of_row(key), stored)
}

/// As [`seal`], of a row of the kernel.
pub(super) fn seal_row(key: &RowKey, value: &[u8]) -> Vec<u8> {
    seal(Place::of_row(key), value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_is_opened_where_it_was_sealed_and_only_as_it_was(
            key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..600),
            at in any::<prop::sample::Index>(), bit in 0u32..8, more in any::<u8>(),
        ) {
            let key = RowKey::new(Table::Inodes, key);
            let stored = seal_row(&key, &value);
            prop_assert_eq!(open_row(&key, &stored).unwrap(), &value[..]);
            let mut damaged = stored.clone();
            damaged[at.index(stored.len())] ^= 1 << bit;
            let longer = [&stored[..], &[more]].concat();
            for other in [&damaged[..], &longer, &stored[..at.index(stored.len())]] {
                let told = open_row(&key, other);
                prop_assert!(matches!(told, Err(StoreError::Corrupt { .. })), "{:?}", told);
            }
            let mut elsewhere = key.clone();
            elsewhere.bytes.push(0);
            prop_assert!(open_row(&elsewhere, &stored).is_err());
            prop_assert!(open_row(&RowKey::new(Table::Dentries, key.bytes.clone()), &stored).is_err());
        }
    }

    #[test]
    fn what_is_damaged_is_named_with_its_table_and_key() {
        let told = |place| open(place, b"nothing that was sealed").unwrap_err().to_string();
        assert_eq!(
            told(Place::Row(Table::Inodes, b"k\0")),
            "row Inodes:k\\x00 is corrupt: it is not what was written there"
        );
        assert!(told(Place::Record(3, 9)).starts_with("record 9 of the log of tree 3 is"));
        assert!(told(Place::Op(&[0xab, 1])).starts_with("the place of operation ab01 is"));
        assert!(told(Place::Number(b"applied")).starts_with("the number applied is"));
    }
}
