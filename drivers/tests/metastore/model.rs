//! Any sequence of batches does to a store what it does to a naive model of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::hal::{
    Batch, Change, Entry, EntryOutcome, LogRecord, Metastore, Precondition, RowKey, Table, TreeId,
};
use nexus_messages::{Lsn, Op, OpId, Timestamp, VPath};
use proptest::prelude::*;

/// What the store should be: the trait's words, as plainly as they can be written.
#[derive(Debug, Default, Clone)]
struct Model {
    rows: BTreeMap<RowKey, Bytes>,
    logs: BTreeMap<TreeId, Vec<LogRecord>>,
    ops: BTreeMap<OpId, (TreeId, Lsn)>,
}

impl Model {
    fn vacant(&self, prefix: &RowKey) -> bool {
        !self.rows.keys().any(|key| key.table == prefix.table && key.bytes.starts_with(&prefix.bytes))
    }

    fn apply(&mut self, entry: &Entry) -> EntryOutcome {
        if let (true, Some((_, lsn))) = (entry.repeatable, self.ops.get(&entry.op_id)) {
            return EntryOutcome::Repeated(*lsn);
        }
        let holds = |precondition: &Precondition| match precondition {
            Precondition::Absent(key) => !self.rows.contains_key(key),
            Precondition::Present(key) => self.rows.contains_key(key),
            Precondition::Equals(key, value) => self.rows.get(key) == Some(value),
            Precondition::Vacant(prefix) => self.vacant(prefix),
            _ => unreachable!("the test makes no other"),
        };
        if let Some(precondition) = entry.preconditions.iter().position(|p| !holds(p)) {
            return EntryOutcome::Refused { precondition };
        }
        let lsn = Lsn(self.logs.get(&entry.tree).map_or(0, Vec::len) as u64 + 1);
        for change in &entry.changes {
            match change.clone() {
                Change::Put(key, value) => drop(self.rows.insert(key, value)),
                Change::PutIfAbsent(key, value) => drop(self.rows.entry(key).or_insert(value)),
                Change::Delete(key) => drop(self.rows.remove(&key)),
                Change::PutAtLsn { prefix, value } => drop(self.rows.insert(at(&prefix, lsn), value)),
                Change::DeleteIfVacant { prefix, rows, kept } => {
                    if self.vacant(&prefix) {
                        self.rows.retain(|key, _| !rows.contains(key));
                        self.rows.extend(kept.into_iter().map(|(prefix, value)| (at(&prefix, lsn), value)));
                    }
                }
                _ => unreachable!("the test makes no other"),
            }
        }
        let log = self.logs.entry(entry.tree).or_default();
        log.push(LogRecord::of(entry, lsn));
        if entry.repeatable {
            self.ops.insert(entry.op_id, (entry.tree, lsn));
        }
        EntryOutcome::Committed(lsn)
    }

    fn scan(&self, prefix: &RowKey, after: Option<&RowKey>, limit: usize) -> Vec<(RowKey, Bytes)> {
        let below = |key: &RowKey| key.table == prefix.table && key.bytes.starts_with(&prefix.bytes);
        let rows = self.rows.iter().filter(|(key, _)| below(key) && after.is_none_or(|after| *key > after));
        rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Few keys over few bytes, so that prefixes, hits and misses are all common.
fn keys() -> impl Strategy<Value = RowKey> {
    let table = prop::sample::select(vec![Table::Dentries, Table::Inodes]);
    let bytes = prop::collection::vec(prop::sample::select(vec![0u8, b'a', 0xff]), 0..4);
    (table, bytes).prop_map(|(table, bytes)| RowKey::new(table, bytes))
}

fn values() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "1", "2"]).prop_map(Bytes::from_static_str)
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

fn preconditions() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        keys().prop_map(Precondition::Absent),
        keys().prop_map(Precondition::Present),
        (keys(), values()).prop_map(|(key, value)| Precondition::Equals(key, value)),
        keys().prop_map(Precondition::Vacant),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (keys(), values()).prop_map(|(key, value)| Change::Put(key, value)),
        1 => (keys(), values()).prop_map(|(key, value)| Change::PutIfAbsent(key, value)),
        2 => keys().prop_map(Change::Delete),
        1 => (keys(), values()).prop_map(|(prefix, value)| Change::PutAtLsn { prefix, value }),
        1 => (keys(), prop::collection::vec(keys(), 0..4), prop::collection::vec((keys(), values()), 0..2))
            .prop_map(|(prefix, rows, kept)| Change::DeleteIfVacant { prefix, rows, kept }),
    ]
}

fn at(prefix: &RowKey, Lsn(lsn): Lsn) -> RowKey {
    let mut key = prefix.clone();
    key.bytes.extend(lsn.to_be_bytes());
    key
}

fn entries() -> impl Strategy<Value = Entry> {
    let preconditions = prop::collection::vec(preconditions(), 0..2);
    let changes = prop::collection::vec(changes(), 0..5);
    (0u32..2, 0u128..12, any::<bool>(), preconditions, changes).prop_map(
        |(tree, op_id, repeatable, preconditions, changes)| Entry {
            tree: TreeId(tree),
            op_id: OpId(op_id),
            repeatable,
            caller: Arc::from("model"),
            op: Op::Write,
            path: VPath::root(),
            other: None,
            items: Vec::new(),
            told: None,
            at: Timestamp(1),
            preconditions,
            changes,
        },
    )
}

fn agree(store: impl Metastore, batches: &[Vec<Entry>], scans: &[(RowKey, Option<RowKey>, usize)]) {
    agree_with_steps(Box::new(store), batches, scans, |store, _| store);
}

/// As [`agree`], and after each batch, of which the number is told, something is done with the store.
fn agree_with_steps(
    mut store: Box<dyn Metastore>,
    batches: &[Vec<Entry>],
    scans: &[(RowKey, Option<RowKey>, usize)],
    mut step: impl FnMut(Box<dyn Metastore>, usize) -> Box<dyn Metastore>,
) {
    let mut model = Model::default();
    for (number, batch) in batches.iter().enumerate() {
        if number > 0 {
            store = step(store, number);
        }
        let before = (store.reader().unwrap(), model.clone());
        let expected: Vec<_> = batch.iter().map(|entry| model.apply(entry)).collect();
        let batch = Batch { entries: batch.clone(), next_file_id: 0 };
        // Every other one need not be durable.
        let appended = if number % 2 == 1 { store.append(&batch).unwrap() } else { None };
        let applied = appended.unwrap_or_else(|| store.apply(&batch).unwrap());
        assert_eq!(applied.outcomes, expected);
        for (reader, model) in [before, (store.reader().unwrap(), model.clone())] {
            for (prefix, after, limit) in scans {
                let after = after.as_ref().map(|after| RowKey::new(prefix.table, after.bytes.clone()));
                let rows = reader.scan(prefix, after.as_ref(), *limit).unwrap();
                assert_eq!(rows, model.scan(prefix, after.as_ref(), *limit));
                assert_eq!(reader.get(prefix).unwrap(), model.rows.get(prefix).cloned());
            }
        }
    }
    store.sync().unwrap();
    for tree in [TreeId(0), TreeId(1)] {
        let log = model.logs.get(&tree).cloned().unwrap_or_default();
        assert_eq!(store.last_lsn(tree).unwrap(), Lsn(log.len() as u64));
        assert_eq!(store.changes(tree, Lsn(0), usize::MAX).unwrap(), log);
    }
    for op_id in (0..12).map(OpId) {
        assert_eq!(store.outcome(op_id).unwrap(), model.ops.get(&op_id).copied());
    }
}

fn scans() -> impl Strategy<Value = Vec<(RowKey, Option<RowKey>, usize)>> {
    prop::collection::vec((keys(), prop::option::of(keys()), 0usize..6), 4)
}

fn batches() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    prop::collection::vec(prop::collection::vec(entries(), 0..6), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_store_in_memory_does_what_the_model_does(batches in batches(), scans in scans()) {
        agree(MemoryMetastore::new(), &batches, &scans);
    }
}

#[cfg(feature = "redb")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_on_redb_does_what_the_model_does(batches in batches(), scans in scans()) {
        use nexus_drivers::redb::{RedbConfig, RedbMetastore};

        let store = RedbMetastore::open_on(crate::redb::memory_disk(), RedbConfig::default()).unwrap();
        agree(store, &batches, &scans);
    }
    #[test]
    fn the_store_with_a_log_does_what_the_model_does(
        batches in batches(),
        scans in scans(),
        steps in prop::collection::vec(0u8..3, 8),
    ) {
        use nexus_drivers::wal::{WalConfig, WalMetastore};

        let folder = tempfile::tempdir().unwrap();
        let open = || Box::new(WalMetastore::open(folder.path(), WalConfig::default()).unwrap());
        agree_with_steps(open(), &batches, &scans, |store, number| match steps[number] {
            0 => store,
            1 => {
                store.upkeep().unwrap();
                store
            }
            _ => {
                drop(store);
                open()
            }
        });
    }
}
