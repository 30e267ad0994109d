//! What the store keeps of its own: log records, identities of operations, numbers. Each begins with the version of its format.
//!
//! Decoding never panics: what cannot be read is told as corrupt.

use std::sync::Arc;

use nexus_kernel::hal::{LogRecord, StoreError, Told, TreeId};
use nexus_messages::{Lsn, Op, OpId, Timestamp, VPath};
use serde::Deserialize;

/// The format of the whole store: which tables there are, and what is in them.
///
/// 2 had the history, 3 has a [checksum](super::seal) behind each value. The number itself has none: every version can read it.
pub(super) const STORE_FORMAT: u64 = 3;

/// The version that every record of this module begins with.
const RECORD_VERSION: u8 = 1;

/// The version of log records behind which stands what is told of them.
const TOLD_VERSION: u8 = 2;

/// The version of those behind which that stands, and for whom they were.
const USER_VERSION: u8 = 3;

/// Set in a log record whose operation may come again; its identity follows in front of the record.
const REPEATABLE: u8 = 1;

/// Set in the log record of a transaction: its operations follow behind the record. Without it they are left out, as before there were any.
const ITEMS: u8 = 2;

/// How the operations of what is no transaction are written.
const NO_ITEMS: [u8; 1] = [0];

/// The name of the store's format among the numbers.
pub(super) const FORMAT: &[u8] = b"format";
/// The name of the next identity among the numbers.
pub(super) const NEXT_FILE_ID: &[u8] = b"next_file_id";
/// The name of the last frame of a write-ahead log that is in the rows, among the numbers.
pub(super) const APPLIED: &[u8] = b"applied";
/// The name of what the checksums of a write-ahead log begin with, among the numbers.
pub(super) const SALT: &[u8] = b"salt";
/// What the names of the last places in the logs begin with, among the numbers; the tree's number follows.
pub(super) const LAST_LSN: &[u8] = b"last_lsn/";

/// The name of `tree`'s last place in its log.
pub(super) fn last_lsn_name(TreeId(tree): TreeId) -> Vec<u8> {
    [LAST_LSN, &tree.to_be_bytes()].concat()
}

/// The tree whose last place in its log is called `name`.
pub(super) fn tree_of_name(name: &[u8]) -> Option<TreeId> {
    let tree = name.strip_prefix(LAST_LSN)?.try_into().ok()?;
    Some(TreeId(u32::from_be_bytes(tree)))
}

/// A number of the store.
pub(super) fn encode_number(number: u64) -> [u8; 9] {
    let mut bytes = [RECORD_VERSION; 9];
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(super) fn decode_number(name: &[u8], bytes: &[u8]) -> Result<u64, StoreError> {
    let what = || format!("the number {}", name.escape_ascii());
    let body = body_of(bytes, &what)?;
    let number = body.try_into().map_err(|_| corrupt(what(), format!("{} bytes", bytes.len())))?;
    Ok(u64::from_be_bytes(number))
}

/// The key of an operation that may come again.
pub(super) fn op_key(OpId(op_id): OpId) -> [u8; 16] {
    op_id.to_be_bytes()
}

/// Where an operation was committed.
pub(super) fn encode_place(TreeId(tree): TreeId, Lsn(lsn): Lsn) -> [u8; 13] {
    let mut bytes = [RECORD_VERSION; 13];
    bytes[1..5].copy_from_slice(&tree.to_be_bytes());
    bytes[5..].copy_from_slice(&lsn.to_be_bytes());
    bytes
}

pub(super) fn decode_place(op_id: OpId, bytes: &[u8]) -> Result<(TreeId, Lsn), StoreError> {
    let what = || format!("the place of operation {op_id}");
    let body = body_of(bytes, &what)?;
    let (tree, lsn) = body
        .split_first_chunk::<4>()
        .and_then(|(tree, lsn)| Some((*tree, <[u8; 8]>::try_from(lsn).ok()?)))
        .ok_or_else(|| corrupt(what(), format!("{} bytes", bytes.len())))?;
    Ok((TreeId(u32::from_be_bytes(tree)), Lsn(u64::from_be_bytes(lsn))))
}

/// A record of the log. The identity stands at a fixed place, so that pruning need not read what follows.
pub(super) fn encode_record(record: &LogRecord, repeatable: bool) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![RECORD_VERSION, 0];
    if repeatable {
        bytes[1] = REPEATABLE;
        bytes.extend_from_slice(&op_key(record.op_id));
    }
    let unwritable = |e: postcard::Error| StoreError::Backend {
        what: "writing a log record".into(),
        cause: e.to_string(),
    };
    let user = record.told.as_deref().and_then(|told| told.user.as_deref());
    if record.told.is_some() {
        bytes[0] = if user.is_some() { USER_VERSION } else { TOLD_VERSION };
    }
    let mut bytes = postcard::to_extend(record, bytes).map_err(unwritable)?;
    if record.items.is_empty() {
        // The last field, of which nothing but its length is there.
        bytes.truncate(bytes.len() - NO_ITEMS.len());
    } else {
        bytes[1] |= ITEMS;
    }
    if let Some(told) = record.told.as_deref() {
        bytes = postcard::to_extend(told, bytes).map_err(unwritable)?;
    }
    match user {
        Some(user) => postcard::to_extend(user, bytes).map_err(unwritable),
        None => Ok(bytes),
    }
}

pub(super) fn decode_record(tree: TreeId, lsn: Lsn, bytes: &[u8]) -> Result<LogRecord, StoreError> {
    let what = || format!("record {lsn} of the log of tree {}", tree.0);
    let is_for = bytes.first() == Some(&USER_VERSION);
    let is_told = is_for || bytes.first() == Some(&TOLD_VERSION);
    let body = if is_told { &bytes[1..] } else { body_of(bytes, &what)? };
    let broken = || corrupt(what(), "a broken head".into());
    let (flags, rest) =
        body.split_first().filter(|(flags, _)| **flags <= REPEATABLE | ITEMS).ok_or_else(broken)?;
    let rest = if flags & REPEATABLE == 0 { rest } else { rest.get(16..).ok_or_else(broken)? };
    let taken = match flags & ITEMS {
        // What is left out is not put there to be read: with what stands behind the record it might be read as another number.
        0 => postcard::take_from_bytes(rest).map(|(head, left): (WithoutItems, _)| (head.into(), left)),
        _ => postcard::take_from_bytes(rest),
    };
    let unreadable = |e: postcard::Error| corrupt(what(), e.to_string());
    let (mut record, mut left): (LogRecord, _) = taken.map_err(unreadable)?;
    if is_told {
        let mut told: Told;
        (told, left) = postcard::take_from_bytes(left).map_err(unreadable)?;
        if is_for {
            let user: Arc<str>;
            (user, left) = postcard::take_from_bytes(left).map_err(unreadable)?;
            told.user = Some(user);
        }
        record.told = Some(Arc::new(told));
    }
    if !left.is_empty() {
        return Err(corrupt(what(), format!("{} bytes behind it", left.len())));
    }
    if record.lsn != lsn {
        return Err(corrupt(what(), format!("record {}", record.lsn)));
    }
    Ok(record)
}

/// A record as it is written when it has no operations: all its fields but the last.
#[derive(Deserialize)]
struct WithoutItems {
    lsn: Lsn,
    op_id: OpId,
    caller: Arc<str>,
    op: Op,
    path: VPath,
    other: Option<VPath>,
    at: Timestamp,
}

impl From<WithoutItems> for LogRecord {
    fn from(head: WithoutItems) -> Self {
        let WithoutItems { lsn, op_id, caller, op, path, other, at } = head;
        Self { lsn, op_id, caller, op, path, other, at, items: Vec::new(), told: None }
    }
}

/// The operation whose identity goes when this record does. What cannot be read has none.
pub(super) fn repeatable_op(bytes: &[u8]) -> Option<OpId> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let op_id = rest.first_chunk::<16>()?;
    let [version, flags] = *head;
    (matches!(version, RECORD_VERSION | TOLD_VERSION | USER_VERSION) && flags & REPEATABLE != 0)
        .then(|| OpId(u128::from_be_bytes(*op_id)))
}

fn body_of<'a>(bytes: &'a [u8], what: &dyn Fn() -> String) -> Result<&'a [u8], StoreError> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, body)) => Ok(body),
        Some((version, _)) => {
            Err(corrupt(what(), format!("format {version}, which this version does not know")))
        }
        None => Err(corrupt(what(), "nothing".into())),
    }
}

fn corrupt(what: String, found: String) -> StoreError {
    StoreError::Corrupt { what, found }
}

#[cfg(test)]
mod tests {
    use nexus_kernel::hal::{Entry, LogItem, ToldEvent};
    use nexus_messages::{ContentId, EntryType, EventKind, ZoneId};
    use proptest::prelude::*;

    use super::*;

    fn entry(repeatable: bool) -> Entry {
        Entry {
            tree: TreeId(3),
            op_id: OpId(7 << 90),
            repeatable,
            caller: Arc::from("coder-7"),
            op: Op::Rename,
            path: VPath::parse("/a").unwrap(),
            other: Some(VPath::parse("/b/c").unwrap()),
            items: Vec::new(),
            told: None,
            at: Timestamp(5),
            preconditions: vec![],
            changes: vec![],
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_names_its_operation() {
        for repeatable in [false, true] {
            let entry = entry(repeatable);
            let bytes = encode_record(&LogRecord::of(&entry, Lsn(9)), repeatable).unwrap();
            assert_eq!(decode_record(TreeId(3), Lsn(9), &bytes).unwrap(), LogRecord::of(&entry, Lsn(9)));
            assert_eq!(repeatable_op(&bytes), repeatable.then_some(entry.op_id));
            assert!(matches!(decode_record(TreeId(3), Lsn(8), &bytes), Err(StoreError::Corrupt { .. })));
        }
    }

    fn told(user: Option<&str>) -> Arc<Told> {
        let event = ToldEvent {
            kind: EventKind::Renamed,
            entry_type: EntryType::Reg,
            size: 5,
            content_id: Some(ContentId::Blake3([7; 32])),
            version: 2,
            generation: 3,
            is_new: true,
            owner: Arc::from("coder-7"),
        };
        let events = smallvec::smallvec![Some(event), None];
        let user = user.map(Arc::from);
        Arc::new(Told { zone: ZoneId::parse("team").unwrap(), admin: true, events, user })
    }

    #[test]
    fn what_is_told_of_a_record_comes_back_with_it() {
        let item = LogItem { op: Op::Write, path: VPath::parse("/x").unwrap(), other: None };
        let cases = [(false, vec![]), (true, vec![]), (true, vec![item.clone(), item])];
        for ((repeatable, items), user) in cases.into_iter().zip([None, Some("ada"), Some("")]) {
            let entry = Entry { told: Some(told(user)), items, ..entry(repeatable) };
            let record = LogRecord::of(&entry, Lsn(9));
            let bytes = encode_record(&record, repeatable).unwrap();
            assert_eq!(decode_record(TreeId(3), Lsn(9), &bytes).unwrap(), record);
            assert_eq!(repeatable_op(&bytes), repeatable.then_some(entry.op_id));
            for cut in 0..bytes.len() {
                assert!(decode_record(TreeId(3), Lsn(9), &bytes[..cut]).is_err());
            }
            assert!(decode_record(TreeId(3), Lsn(9), &[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_record_from_before_there_were_transactions_can_be_read_and_is_what_is_written() {
        let entry = entry(false);
        let old = (
            Lsn(9),
            entry.op_id,
            entry.caller.clone(),
            entry.op,
            entry.path.clone(),
            entry.other.clone(),
            entry.at,
        );
        let old = postcard::to_extend(&old, vec![RECORD_VERSION, 0]).unwrap();
        assert_eq!(decode_record(TreeId(3), Lsn(9), &old).unwrap(), LogRecord::of(&entry, Lsn(9)));
        assert_eq!(encode_record(&LogRecord::of(&entry, Lsn(9)), false).unwrap(), old);
    }

    #[test]
    fn a_record_with_any_byte_behind_it_is_corrupt() {
        let item = LogItem { op: Op::Write, path: VPath::parse("/x").unwrap(), other: None };
        for items in [vec![], vec![item]] {
            let entry = Entry { items, ..entry(true) };
            let bytes = encode_record(&LogRecord::of(&entry, Lsn(9)), true).unwrap();
            for byte in 0..=u8::MAX {
                let longer = [&bytes[..], &[byte]].concat();
                let told = decode_record(TreeId(3), Lsn(9), &longer);
                assert!(matches!(told, Err(StoreError::Corrupt { .. })), "{byte}: {told:?}");
            }
        }
        for byte in 0..=u8::MAX {
            let place = [&encode_place(TreeId(1), Lsn(2))[..], &[byte]].concat();
            assert!(decode_place(OpId(1), &place).is_err());
            assert!(decode_number(b"x", &[&encode_number(7)[..], &[byte]].concat()).is_err());
        }
    }

    #[test]
    fn the_record_of_a_transaction_has_its_operations() {
        let item = LogItem { op: Op::Write, path: VPath::parse("/x").unwrap(), other: None };
        for repeatable in [false, true] {
            let entry = Entry { op: Op::Tx, items: vec![item.clone(), item.clone()], ..entry(repeatable) };
            let bytes = encode_record(&LogRecord::of(&entry, Lsn(9)), repeatable).unwrap();
            assert_eq!(decode_record(TreeId(3), Lsn(9), &bytes).unwrap(), LogRecord::of(&entry, Lsn(9)));
            assert_eq!(repeatable_op(&bytes), repeatable.then_some(entry.op_id));
        }
    }

    proptest! {
        #[test]
        fn damaged_records_are_corrupt_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..80) {
            let _ = decode_record(TreeId(0), Lsn(1), &bytes);
            let _ = decode_number(b"x", &bytes);
            let _ = decode_place(OpId(0), &bytes);
            let _ = repeatable_op(&bytes);
            let whole = encode_record(&LogRecord::of(&entry(true), Lsn(1)), true).unwrap();
            let cut = cut.min(whole.len() - 1);
            prop_assert!(decode_record(TreeId(0), Lsn(1), &whole[..cut]).is_err());
        }
    }
}
