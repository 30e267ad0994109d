//! What rows were before: the layout of the history, and reading as of a place in the log.
//!
//! ```text
//! tree · 1 · parent · name · 0 · LSN   what the dentry was until that LSN
//! tree · 2 · identity · LSN            what the inode was until that LSN
//! tree · 0 · mount · LSN               from that LSN on the mount keeps all this; see `Horizon`
//! ```
//!
//! So what was at a key as of a place L is told by the first row of its history beyond L, and where there is none, by the row itself. A name holds
//! no zero byte, so no name swallows a longer one; the rows of one directory lie together, in the order of its names. The tree comes first: the
//! history of a tree is one run of keys, and a branch of it is a tree of its own whose missing rows are read from this one as of where it began.
//!
//! A row is written with the change that supersedes what it tells, by the same entry, and never changed afterwards but by `prune`, which leaves
//! a mark where it takes rows away, so that what is no longer kept is told as such, and nothing else is taken for it.
//!
//! **Every row here is a root**: the content that [`root_of`] names stays until the row goes.

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::{ContentId, FileId, Lsn, Op, Timestamp};
use serde::{Deserialize, Serialize};

use super::rows::{self, InodeRow, Placement};
use super::walk::Rows;
use crate::hal::{Reader, RowKey, StoreError, Table, TreeId};

/// What stands between tree and key of the rows that say from where on a mount keeps its history.
const HORIZON: u8 = 0;

/// What ends a name.
const NAME_END: u8 = 0;

/// The length of a tree's number.
const TREE_BYTES: usize = 4;

/// The length of a place.
const LSN_BYTES: usize = 8;

/// How many rows of history are looked at in one step.
const PAGE: usize = 256;

/// A row of the history, other than a horizon.
pub(crate) type Past = PastBy<Arc<str>>;

/// As [`Past`]; written without taking hold of who it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PastBy<By> {
    /// The mount whose policy keeps it, by its root.
    pub(crate) mount: FileId,
    /// When it was superseded.
    pub(crate) at: Timestamp,
    /// Who superseded it.
    pub(crate) by: By,
    /// The operation that superseded it.
    pub(crate) op: Op,
    /// What there was until then.
    pub(crate) was: Was,
}

/// What there was at a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Was {
    /// No row.
    Nothing,
    /// The row with this value.
    Row(Bytes),
    /// What is not kept any more: this, and all before it.
    Dropped,
}

/// The prefix, within the history, of all that begins with `key` in its own table: up to the place when `key` is a whole one, see [`past_of`].
fn within(key: &RowKey) -> Option<RowKey> {
    let kind = match key.table {
        Table::Dentries | Table::Inodes => key.table as u8,
        _ => return None,
    };
    let (tree, rest) = key.bytes.split_at_checked(TREE_BYTES)?;
    let mut key = RowKey::new(Table::History, tree);
    key.bytes.push(kind);
    key.bytes.extend_from_slice(rest);
    Some(key)
}

/// The prefix of the history of the row at `key`; none for a row of which no history is kept.
pub(crate) fn past_of(key: &RowKey) -> Option<RowKey> {
    let mut prefix = within(key)?;
    if key.table == Table::Dentries {
        prefix.bytes.push(NAME_END);
    }
    Some(prefix)
}

/// The prefix of all history of `tree`.
pub(crate) fn history_key(tree: TreeId) -> RowKey {
    RowKey::new(Table::History, tree.0.to_be_bytes())
}

/// The prefix of where the history of the mount with this root begins.
pub(crate) fn horizon_key(tree: TreeId, mount: FileId) -> RowKey {
    let mut key = history_key(tree);
    key.bytes.push(HORIZON);
    key.bytes.extend_from_slice(&mount.0.to_be_bytes());
    key
}

/// A key of the history, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Where the history of the mount with this root begins.
    Horizon(FileId, Lsn),
    /// The key of which it tells, and until where.
    Row(RowKey, Lsn),
}

/// The key of the row of whose history this is the prefix.
pub(crate) fn key_of(prefix: &RowKey) -> Option<RowKey> {
    match parts_of(&prefix.at(Lsn(0))) {
        Ok(Parts::Row(key, _)) => Some(key),
        _ => None,
    }
}

/// Takes a key of the history apart.
pub(crate) fn parts_of(key: &RowKey) -> Result<Parts, StoreError> {
    let corrupt =
        || StoreError::Corrupt { what: format!("row {key:?}"), found: "a key of no history".into() };
    let (rest, lsn) = key.bytes.split_last_chunk::<LSN_BYTES>().ok_or_else(corrupt)?;
    let lsn = Lsn(u64::from_be_bytes(*lsn));
    let (tree, rest) = rest.split_at_checked(TREE_BYTES).ok_or_else(corrupt)?;
    let (kind, rest) = rest.split_first().ok_or_else(corrupt)?;
    let (table, rest) = match *kind {
        HORIZON => {
            let mount = <[u8; 8]>::try_from(rest).map_err(|_| corrupt())?;
            return Ok(Parts::Horizon(FileId(u64::from_be_bytes(mount)), lsn));
        }
        kind if kind == Table::Dentries as u8 => {
            let (end, name) = rest.split_last().ok_or_else(corrupt)?;
            (Table::Dentries, Some(name).filter(|_| *end == NAME_END).ok_or_else(corrupt)?)
        }
        kind if kind == Table::Inodes as u8 => (Table::Inodes, rest),
        _ => return Err(corrupt()),
    };
    let mut of = RowKey::new(table, tree);
    of.bytes.extend_from_slice(rest);
    Ok(Parts::Row(of, lsn))
}

/// The content that the row of the history at `key` keeps, where it is, and the root of the mount whose history it is; none when it keeps none.
pub(crate) fn root_of(
    key: &RowKey,
    value: &[u8],
) -> Result<Option<(ContentId, Placement, FileId)>, StoreError> {
    let Parts::Row(of, _) = parts_of(key)? else { return Ok(None) };
    let past: Past = rows::decode(key, value)?;
    let (Table::Inodes, Was::Row(row)) = (of.table, past.was) else { return Ok(None) };
    let row: InodeRow = rows::decode(&of, &row)?;
    Ok(row.content_id.map(|id| (id, row.placement, past.mount)))
}

/// From where on the mount with this root keeps its history without a gap; none when it does not.
pub(crate) fn horizon(reader: &dyn Reader, tree: TreeId, mount: FileId) -> Result<Option<Lsn>, StoreError> {
    let prefix = horizon_key(tree, mount);
    let mut after = None;
    loop {
        let page = reader.scan(&prefix, after.as_ref(), PAGE)?;
        let full = page.len() == PAGE;
        let Some((last, _)) = page.into_iter().next_back() else { break };
        after = Some(last);
        if !full {
            break;
        }
    }
    let Some(key) = after else { return Ok(None) };
    match parts_of(&key)? {
        Parts::Horizon(_, lsn) => Ok(Some(lsn)),
        Parts::Row(..) => Ok(None),
    }
}

/// What was at `key` as of `lsn`, as far as the history tells; none where it tells nothing.
fn past_at(reader: &dyn Reader, key: &RowKey, lsn: Lsn) -> Result<Option<(Lsn, Past)>, StoreError> {
    let Some(prefix) = past_of(key) else { return Ok(None) };
    let Some((at, value)) = reader.scan(&prefix, Some(&prefix.at(lsn)), 1)?.pop() else { return Ok(None) };
    let Parts::Row(_, until) = parts_of(&at)? else { return Ok(None) };
    Ok(Some((until, rows::decode(&at, &value)?)))
}

/// All that is kept of the past of the row at `key`, the oldest first, each with the place up to which it was so.
pub(crate) fn pasts(
    reader: &dyn Reader,
    key: &RowKey,
    after: Lsn,
    limit: usize,
) -> Result<Vec<(Lsn, Past)>, StoreError> {
    let Some(prefix) = past_of(key) else { return Ok(Vec::new()) };
    let found = reader.scan(&prefix, Some(&prefix.at(after)), limit)?;
    let past = |(at, value): (RowKey, Bytes)| match parts_of(&at)? {
        Parts::Row(_, until) => Ok(Some((until, rows::decode(&at, &value)?))),
        Parts::Horizon(..) => Ok(None),
    };
    found.into_iter().filter_map(|row| past(row).transpose()).collect()
}

/// Rows as they were as of a place in the log: names and metadata. All else is as it is now.
pub(crate) struct AsOf {
    base: Box<dyn Reader>,
    lsn: Lsn,
}

impl AsOf {
    /// What `rows` were as of `lsn`. Whether that far back is kept is for the caller to ask, of the [`horizon`].
    pub(crate) fn over(rows: Rows, lsn: Lsn) -> Rows {
        Rows { reader: Box::new(Self { base: rows.reader, lsn }), tree: rows.tree }
    }

    fn told(&self, key: &RowKey, was: Was) -> Result<Option<Bytes>, StoreError> {
        match was {
            Was::Nothing => Ok(None),
            Was::Row(value) => Ok(Some(value)),
            Was::Dropped => Err(StoreError::NotKept { what: format!("row {key:?} as of {}", self.lsn) }),
        }
    }
}

impl Reader for AsOf {
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        match past_at(&*self.base, key, self.lsn)? {
            Some((_, past)) => self.told(key, past.was),
            None => self.base.get(key),
        }
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let Some(within) = within(prefix) else { return self.base.scan(prefix, after, limit) };
        let mut now = Paged::new(&*self.base, prefix.clone(), after.cloned());
        // Behind all history of the key that is gone on after.
        let skip = after.and_then(past_of).map(|past| past.at(Lsn(u64::MAX)));
        let mut then = Paged::new(&*self.base, within, skip);
        let mut found = Vec::new();
        while found.len() < limit {
            let past = self.next_past(&mut then)?;
            // What is there now, before the next key that the history tells of: it was there then.
            while let Some((key, _)) = now.peek()? {
                if found.len() == limit || past.as_ref().is_some_and(|(changed, _)| key >= changed) {
                    break;
                }
                found.extend(now.next()?);
            }
            let Some((key, was)) = past else { break };
            if found.len() == limit {
                break;
            }
            if now.peek()?.is_some_and(|(there, _)| *there == key) {
                now.next()?;
            }
            let value = self.told(&key, was)?;
            found.extend(value.map(|value| (key, value)));
        }
        Ok(found)
    }
}

impl AsOf {
    /// The next key that the history tells of as of the place, and what was there.
    fn next_past(&self, then: &mut Paged<'_>) -> Result<Option<(RowKey, Was)>, StoreError> {
        while let Some((at, value)) = then.next()? {
            let Parts::Row(key, until) = parts_of(&at)? else { continue };
            if until <= self.lsn {
                continue;
            }
            let past: Past = rows::decode(&at, &value)?;
            // The later ones of this key are of no matter.
            if let Some(past) = past_of(&key) {
                then.skip_to(past.at(Lsn(u64::MAX)))?;
            }
            return Ok(Some((key, past.was)));
        }
        Ok(None)
    }
}

/// Rows one after the other, read in pages.
struct Paged<'r> {
    reader: &'r dyn Reader,
    prefix: RowKey,
    after: Option<RowKey>,
    page: std::collections::VecDeque<(RowKey, Bytes)>,
    more: bool,
}

impl<'r> Paged<'r> {
    fn new(reader: &'r dyn Reader, prefix: RowKey, after: Option<RowKey>) -> Self {
        Self { reader, prefix, after, page: Default::default(), more: true }
    }

    fn peek(&mut self) -> Result<Option<&(RowKey, Bytes)>, StoreError> {
        if self.page.is_empty() && self.more {
            let page = self.reader.scan(&self.prefix, self.after.as_ref(), PAGE)?;
            self.more = page.len() == PAGE;
            self.after = page.last().map(|(key, _)| key.clone()).or_else(|| self.after.take());
            self.page = page.into();
        }
        Ok(self.page.front())
    }

    fn next(&mut self) -> Result<Option<(RowKey, Bytes)>, StoreError> {
        self.peek()?;
        Ok(self.page.pop_front())
    }

    /// Goes on after `key`.
    fn skip_to(&mut self, key: RowKey) -> Result<(), StoreError> {
        while self.page.front().is_some_and(|(there, _)| *there <= key) {
            self.page.pop_front();
        }
        if self.page.is_empty() && self.after.as_ref().is_none_or(|after| *after < key) {
            self.after = Some(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nexus_messages::EntryType;
    use proptest::prelude::*;

    use super::*;
    use crate::namespace::fixture::Base;
    use crate::namespace::rows::{dentry_key, inode_key};

    const TREE: TreeId = TreeId(3);

    impl Base {
        fn past(&mut self, key: &RowKey, lsn: u64, was: Was) {
            let past = Past { mount: FileId(1), at: Timestamp(lsn), by: "me".into(), op: Op::Write, was };
            self.0.insert(past_of(key).unwrap().at(Lsn(lsn)), rows::encode(&past));
        }

        fn as_of(&self, lsn: u64) -> AsOf {
            AsOf { base: Box::new(self.clone()), lsn: Lsn(lsn) }
        }
    }

    fn value(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn the_history_of_a_directory_lies_together_in_the_order_of_its_names() {
        let key =
            |parent, name: &str, lsn| past_of(&dentry_key(TREE, FileId(parent), name)).unwrap().at(Lsn(lsn));
        let inode = |id, lsn| past_of(&inode_key(TREE, FileId(id))).unwrap().at(Lsn(lsn));
        let horizon = horizon_key(TREE, FileId(1)).at(Lsn(9));
        let ordered = [
            horizon,
            key(1, "a", 2),
            key(1, "a", 256),
            key(1, "a\u{1}", 1),
            key(1, "ab", 1),
            key(1, "b", 1),
            key(2, "a", 1),
            inode(1, 7),
            inode(2, 1),
        ];
        assert!(ordered.is_sorted());
        assert!(ordered.iter().all(|key| key.bytes.starts_with(&history_key(TREE).bytes)));
        let of_a = past_of(&dentry_key(TREE, FileId(1), "a")).unwrap();
        let swallowed = ordered.iter().filter(|key| key.bytes.starts_with(&of_a.bytes)).count();
        assert_eq!(swallowed, 2, "the prefix of a name is that of no longer one");
    }

    #[test]
    fn a_key_of_the_history_is_taken_apart_and_any_other_is_damage() {
        for key in [dentry_key(TREE, FileId(7), "näme"), inode_key(TREE, FileId(u64::MAX))] {
            let past = past_of(&key).unwrap();
            assert_eq!(parts_of(&past.at(Lsn(5))).unwrap(), Parts::Row(key.clone(), Lsn(5)));
            assert_eq!(key_of(&past), Some(key));
        }
        let horizon = horizon_key(TREE, FileId(4)).at(Lsn(5));
        assert_eq!(parts_of(&horizon).unwrap(), Parts::Horizon(FileId(4), Lsn(5)));
        assert_eq!(past_of(&RowKey::new(Table::Contents, [0; 32])), None, "content never changes");
        for bytes in [&b""[..], &[0; 11], &[0, 0, 0, 3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let error = parts_of(&RowKey::new(Table::History, bytes)).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        }
    }

    #[test]
    fn a_row_of_the_history_names_the_content_that_it_keeps() {
        let id = ContentId::Blake3([7; 32]);
        let mut row = InodeRow::new(EntryType::Reg, "me".into(), Timestamp(1));
        (row.content_id, row.placement) = (Some(id.clone()), Placement::Store);
        let inode = inode_key(TREE, FileId(5));
        let mut base = Base::default();
        base.past(&inode, 3, Was::Row(rows::encode(&row)));
        base.past(&inode, 4, Was::Dropped);
        base.past(&dentry_key(TREE, FileId(1), "f"), 2, Was::Nothing);
        base.0.insert(horizon_key(TREE, FileId(1)).at(Lsn(1)), rows::encode(&()));
        let roots: Vec<_> = base.0.iter().filter_map(|(key, value)| root_of(key, value).unwrap()).collect();
        assert_eq!(roots, [(id, Placement::Store, FileId(1))]);
        assert!(root_of(&past_of(&inode).unwrap().at(Lsn(3)), b"\x09").is_err());
    }

    #[test]
    fn the_latest_horizon_is_the_one_that_holds() {
        let mut base = Base::default();
        assert_eq!(horizon(&base, TREE, FileId(1)).unwrap(), None);
        for (mount, lsn) in [(1, 5), (1, 300), (2, 7)] {
            base.0.insert(horizon_key(TREE, FileId(mount)).at(Lsn(lsn)), rows::encode(&()));
        }
        assert_eq!(horizon(&base, TREE, FileId(1)).unwrap(), Some(Lsn(300)));
        assert_eq!(horizon(&base, TREE, FileId(2)).unwrap(), Some(Lsn(7)));
    }

    #[test]
    fn what_is_no_longer_kept_is_told_as_such_and_nothing_is_taken_for_it() {
        let mut base = Base::default();
        let key = inode_key(TREE, FileId(5));
        base.past(&key, 4, Was::Dropped);
        base.past(&key, 9, Was::Row(value("4 to 8")));
        base.0.insert(key.clone(), value("now"));
        for lsn in 0..4 {
            let read = base.as_of(lsn).get(&key).unwrap_err();
            let listed = base.as_of(lsn).scan(&inode_key(TREE, FileId(5)), None, 9).unwrap_err();
            for error in [read, listed] {
                assert!(matches!(error, StoreError::NotKept { .. }), "{error}");
            }
        }
        assert_eq!(base.as_of(4).get(&key).unwrap(), Some(value("4 to 8")));
        assert_eq!(base.as_of(9).get(&key).unwrap(), Some(value("now")));
    }

    proptest! {
        /// Against the naive model: every state that the rows ever were in, by the place of the commit that made it.
        #[test]
        fn rows_are_read_as_they_were_after_any_commit(
            commits in prop::collection::vec(
                prop::collection::btree_map("[ab\u{1}]{1,2}", prop::option::of(0u8..3), 1..4), 0..12),
            prefix in "[ab]{0,1}", after in prop::option::of("[ab]{1,2}"), limit in 0usize..6,
        ) {
            let key = |text: &str| dentry_key(TREE, FileId(8), text);
            let mut base = Base::default();
            let mut states = vec![BTreeMap::<RowKey, Bytes>::new()];
            for (commit, lsn) in commits.iter().zip(1..) {
                let mut state = states.last().unwrap().clone();
                for (name, to) in commit {
                    let (key, to) = (key(name), to.map(|to| Bytes::from(vec![to])));
                    let was = state.get(&key).cloned().map_or(Was::Nothing, Was::Row);
                    base.past(&key, lsn, was);
                    match to {
                        Some(to) => drop((state.insert(key.clone(), to.clone()), base.0.insert(key, to))),
                        None => drop((state.remove(&key), base.0.remove(&key))),
                    }
                }
                states.push(state);
            }
            for (state, lsn) in states.iter().zip(0..) {
                let (past, model) = (base.as_of(lsn), Base(state.clone()));
                let after = after.as_ref().map(|text| key(&format!("{prefix}{text}")));
                let scan = |rows: &dyn Reader| rows.scan(&key(&prefix), after.as_ref(), limit).unwrap();
                prop_assert_eq!(scan(&past), scan(&model), "as of {}", lsn);
                for at in state.keys().chain(base.0.keys().filter(|key| key.table == Table::Dentries)) {
                    prop_assert_eq!(past.get(at).unwrap(), state.get(at).cloned(), "as of {}", lsn);
                }
            }
        }
    }
}
