//! The changes of a transaction before it is committed, and the rows as they leave them.
//!
//! What is drawn up after them reads through the ledger, as if they had been committed. At the end there is one list of preconditions and one of
//! changes. The preconditions are about rows as they are before the transaction: what a later operation expects of a row that an
//! earlier one has changed was checked against the ledger, and is nothing that anybody else can change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::Effect;
use parking_lot::Mutex;

use super::draft::{Draft, Visible};
use super::history;
use super::rows::{self, DentryRow, InodeRow};
use super::walk::Rows;
use crate::hal::{Change, Precondition, Reader, RowKey, StoreError, Table, TreeId};

/// What operations of one tree have drawn up so far.
pub(crate) struct Ledger {
    tree: TreeId,
    drawn: Mutex<Drawn>,
}

#[derive(Default)]
struct Drawn {
    preconditions: Vec<Precondition>,
    /// The rows that are changed, as they are after it; none for one that is gone.
    rows: BTreeMap<RowKey, Option<Bytes>>,
    /// What there was before the transaction, by the prefix of its key in the history.
    kept: BTreeMap<RowKey, Bytes>,
    /// By the prefix of their children, and their dentries.
    emptied: BTreeMap<(RowKey, RowKey), Emptied>,
    effect: Effect,
}

/// A directory that is there by implication, from which something was taken away.
#[derive(Debug, Clone)]
struct Emptied {
    children: RowKey,
    dentry: RowKey,
    inode: RowKey,
    /// What its removal keeps of it.
    kept: Vec<(RowKey, Bytes)>,
}

/// What is to be committed.
pub(crate) struct Settled {
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) changes: Vec<Change>,
    pub(crate) effect: Effect,
}

impl Ledger {
    pub(crate) fn new(tree: TreeId, effect: Effect) -> Self {
        Self { tree, drawn: Mutex::new(Drawn { effect, ..Drawn::default() }) }
    }

    /// The rows as the changes so far leave them.
    pub(crate) fn over(self: &Arc<Self>, rows: Rows) -> Rows {
        Rows { reader: Box::new(Over { base: rows.reader, ledger: self.clone() }), tree: rows.tree }
    }

    /// Takes over what was drawn up over these rows; gives back what it makes visible.
    pub(crate) fn take(&self, draft: Draft) -> Vec<Visible> {
        let mut drawn = self.drawn.lock();
        let drawn = &mut *drawn;
        drawn.preconditions.extend(draft.preconditions.into_iter().filter(|expected| match expected {
            Precondition::Absent(key) | Precondition::Present(key) | Precondition::Equals(key, _) => {
                !drawn.rows.contains_key(key)
            }
            // What was in it and is not any more is known here alone; the lock of the directory, with all below it, keeps others out.
            Precondition::Vacant(prefix) => starting_with(&drawn.rows, prefix).next().is_none(),
        }));
        for change in &draft.changes {
            if let Change::PutAtLsn { prefix, value } = change
                && !drawn.has_changed(prefix)
            {
                drawn.kept.insert(prefix.clone(), value.clone());
            }
        }
        for change in draft.changes {
            match change {
                Change::PutAtLsn { .. } => {}
                Change::Put(key, value) => {
                    drawn.rows.insert(key, Some(value));
                }
                Change::PutIfAbsent(key, value) => {
                    drawn.rows.entry(key).or_insert(Some(value));
                }
                Change::Delete(key) => {
                    drawn.rows.insert(key, None);
                }
                // Decided at the end: something may come into it yet.
                Change::DeleteIfVacant { prefix, rows, kept } => {
                    if let [dentry, inode] = &rows[..] {
                        let (dentry, inode) = (dentry.clone(), inode.clone());
                        // The first one tells what there was before the transaction.
                        let place = (prefix.clone(), dentry.clone());
                        drawn.emptied.entry(place).or_insert(Emptied {
                            children: prefix,
                            dentry,
                            inode,
                            kept,
                        });
                    }
                }
            }
        }
        drawn.effect.add(draft.effect);
        draft.visible
    }

    /// All of it, to be committed as one. `rows` are those [over](Self::over) it.
    pub(crate) fn settle(&self, rows: &Rows) -> Result<Settled, StoreError> {
        let emptied = self.drawn.lock().emptied.clone();
        let mut left = BTreeMap::new();
        for directory in emptied.into_values() {
            if directory.is_still_implied(rows)? {
                left.insert(directory.children.bytes.to_vec(), directory);
            }
        }
        let depths = depths(&left);
        let mut ordered: Vec<_> =
            left.iter().map(|(children, directory)| (depths.get(children.as_slice()), directory)).collect();
        // The inner ones first: an outer one is empty when they are gone.
        ordered.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        let mut drawn = self.drawn.lock();
        let past = |(prefix, value): (&RowKey, &Bytes)| Change::PutAtLsn {
            prefix: prefix.clone(),
            value: value.clone(),
        };
        let mut changes: Vec<Change> = drawn.kept.iter().map(past).collect();
        changes.extend(drawn.rows.iter().map(|(key, value)| change(key, value.as_ref())));
        changes.extend(ordered.into_iter().map(|(_, directory)| directory.removal(&drawn)));
        let preconditions = std::mem::take(&mut drawn.preconditions);
        Ok(Settled { preconditions, changes, effect: std::mem::take(&mut drawn.effect) })
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl Drawn {
    /// Whether the row is changed of whose history this is the prefix. Then it is known what there was before the transaction, or it was nothing.
    fn has_changed(&self, prefix: &RowKey) -> bool {
        history::key_of(prefix).is_some_and(|key| self.rows.contains_key(&key))
    }
}

impl Emptied {
    fn is_still_implied(&self, rows: &Rows) -> Result<bool, StoreError> {
        let Some(dentry) = rows.reader.get(&self.dentry)? else { return Ok(false) };
        let dentry: DentryRow = rows::decode(&self.dentry, &dentry)?;
        if rows::inode_key(rows.tree, dentry.id) != self.inode {
            return Ok(false);
        }
        let Some(inode) = rows.reader.get(&self.inode)? else { return Ok(false) };
        Ok(rows::decode::<InodeRow>(&self.inode, &inode)?.implicit)
    }

    fn removal(&self, drawn: &Drawn) -> Change {
        let rows = vec![self.dentry.clone(), self.inode.clone()];
        let kept = self.kept.iter().filter(|(prefix, _)| !drawn.has_changed(prefix)).cloned().collect();
        Change::DeleteIfVacant { prefix: self.children.clone(), rows, kept }
    }
}

/// How many of the others each lies below, all by the prefix of their children. Each is come to once, however deep they lie.
fn depths(directories: &BTreeMap<Vec<u8>, Emptied>) -> BTreeMap<&[u8], usize> {
    let mut depths = BTreeMap::new();
    let mut way: Vec<&[u8]> = Vec::new();
    for start in directories.keys() {
        let mut here = start.as_slice();
        let mut depth = loop {
            if let Some(depth) = depths.get(here) {
                break *depth + 1;
            }
            let Some(directory) = directories.get(here) else { break 0 };
            way.push(here);
            here = rows::parent_of(&directory.dentry);
        };
        while let Some(below) = way.pop() {
            depths.insert(below, depth);
            depth += 1;
        }
    }
    depths
}

fn change(key: &RowKey, value: Option<&Bytes>) -> Change {
    match value {
        None => Change::Delete(key.clone()),
        Some(value) if key.table == Table::Contents => Change::PutIfAbsent(key.clone(), value.clone()),
        Some(value) => Change::Put(key.clone(), value.clone()),
    }
}

fn starting_with<'a>(
    rows: &'a BTreeMap<RowKey, Option<Bytes>>,
    prefix: &'a RowKey,
) -> impl Iterator<Item = (&'a RowKey, &'a Option<Bytes>)> {
    let within = |key: &RowKey| key.table == prefix.table && key.bytes.starts_with(&prefix.bytes);
    rows.range(prefix..).take_while(move |(key, _)| within(key))
}

/// The rows of a store with a ledger over them.
struct Over {
    base: Box<dyn Reader>,
    ledger: Arc<Ledger>,
}

impl Reader for Over {
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        let drawn = self.ledger.drawn.lock().rows.get(key).cloned();
        drawn.map_or_else(|| self.base.get(key), Ok)
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let drawn: BTreeMap<RowKey, Option<Bytes>> = {
            let drawn = self.ledger.drawn.lock();
            let rows =
                starting_with(&drawn.rows, prefix).filter(|(key, _)| after.is_none_or(|after| *key > after));
            rows.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        // So many that enough are left when each changed row stands in the place of one of them.
        let found = self.base.scan(prefix, after, limit.saturating_add(drawn.len()))?;
        let mut rows: BTreeMap<_, _> = found.into_iter().map(|(key, value)| (key, Some(value))).collect();
        rows.extend(drawn);
        Ok(rows.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::{EntryType, FileId, Timestamp, ZoneId};
    use proptest::prelude::*;

    use super::*;
    use crate::namespace::fixture::Base;

    const TREE: TreeId = TreeId(1);

    fn draft() -> Draft {
        Draft::new(TREE, ZoneId::root(), Timestamp(1))
    }

    fn over(ledger: &Arc<Ledger>, base: &BTreeMap<RowKey, Bytes>) -> Rows {
        ledger.over(Rows { reader: Box::new(Base(base.clone())), tree: TREE })
    }

    fn directory(implicit: bool) -> InodeRow {
        let mut row = InodeRow::new(EntryType::Dir, "me".into(), Timestamp(1));
        row.implicit = implicit;
        row
    }

    #[test]
    fn what_is_expected_of_a_row_that_the_transaction_changed_is_not_asked_of_the_store() {
        let ledger = Arc::new(Ledger::new(TREE, Effect::default()));
        let mut first = draft();
        first.insert(FileId(1), "d", FileId(2), &directory(false));
        ledger.take(first);
        let mut second = draft();
        second.unchanged(FileId(2), &directory(false));
        second.vacant(FileId(1));
        second.vacant(FileId(3));
        ledger.take(second);
        let settled = ledger.settle(&over(&ledger, &BTreeMap::new())).unwrap();
        let d = rows::dentry_key(TREE, FileId(1), "d");
        let elsewhere = Precondition::Vacant(rows::children_key(TREE, FileId(3)));
        assert_eq!(settled.preconditions, [Precondition::Absent(d), elsewhere]);
    }

    #[test]
    fn implied_directories_go_at_the_end_the_inner_ones_first() {
        let (a, b, file) = (FileId(2), FileId(3), FileId(4));
        let mut base = BTreeMap::new();
        let mut put = |parent, name: &str, id, row: &InodeRow| {
            let dentry = DentryRow { id, entry_type: row.entry_type };
            base.insert(rows::dentry_key(TREE, parent, name), rows::encode(&dentry));
            base.insert(rows::inode_key(TREE, id), rows::encode(row));
        };
        put(FileId(1), "a", a, &directory(true));
        put(a, "b", b, &directory(true));
        put(b, "f", file, &InodeRow::new(EntryType::Reg, "me".into(), Timestamp(1)));

        let ledger = Arc::new(Ledger::new(TREE, Effect::default()));
        let rows = over(&ledger, &base);
        let super::super::Walk::Found { mut steps } = rows.walk(FileId(1), "a/b/f").unwrap() else {
            panic!("it is there")
        };
        steps.pop();
        let mut removal = draft();
        removal.remove_name(b, "f", DentryRow { id: file, entry_type: EntryType::Reg });
        removal.remove_inode(file, None);
        removal.prune(&rows, &steps, None).unwrap();
        ledger.take(removal);
        assert!(rows.dentry(a, "b").unwrap().is_some(), "it stays until the end");
        assert!(!rows.has_children(b).unwrap());
        let changes = ledger.settle(&rows).unwrap().changes;
        let removed = |change: &Change| match change {
            Change::DeleteIfVacant { prefix, .. } => Some(prefix.clone()),
            _ => None,
        };
        let order: Vec<_> = changes.iter().filter_map(removed).collect();
        assert_eq!(order, [rows::children_key(TREE, b), rows::children_key(TREE, a)]);

        // What was made on purpose meanwhile stays.
        let mut made = draft();
        made.update(a, &directory(true), &directory(false));
        ledger.take(made);
        let changes = ledger.settle(&rows).unwrap().changes;
        let order: Vec<_> = changes.iter().filter_map(removed).collect();
        assert_eq!(order, [rows::children_key(TREE, b)]);
    }

    proptest! {
        /// Against the naive model: a map with the changes applied to it.
        #[test]
        fn reading_through_a_ledger_is_reading_what_was_changed(
            base in prop::collection::btree_map("[ab]{1,3}", 0u8..3, 0..12),
            changes in prop::collection::vec(("[ab]{1,3}", prop::option::of(0u8..3)), 0..12),
            prefix in "[ab]{0,1}", after in prop::option::of("[ab]{1,3}"), limit in 1usize..6,
        ) {
            let key = |text: &str| RowKey::new(Table::Dentries, text.as_bytes());
            let value = |number: u8| Bytes::from(vec![number]);
            let base: BTreeMap<_, _> = base.iter().map(|(k, v)| (key(k), value(*v))).collect();
            let ledger = Arc::new(Ledger::new(TREE, Effect::default()));
            let mut model = base.clone();
            for (at, to) in &changes {
                let mut drawn = draft();
                match to {
                    Some(to) => {
                        drawn.changes.push(Change::Put(key(at), value(*to)));
                        model.insert(key(at), value(*to));
                    }
                    None => {
                        drawn.changes.push(Change::Delete(key(at)));
                        model.remove(&key(at));
                    }
                }
                ledger.take(drawn);
            }
            let rows = over(&ledger, &base);
            let after = after.map(|text| key(&format!("{prefix}{text}")));
            let scan = |rows: &dyn Reader| rows.scan(&key(&prefix), after.as_ref(), limit).unwrap();
            prop_assert_eq!(scan(&*rows.reader), scan(&Base(model.clone())));
            for at in base.keys().chain(model.keys()) {
                prop_assert_eq!(rows.reader.get(at).unwrap(), model.get(at).cloned());
            }
        }
    }
}
