//! Batches, folds and listings beside each other: no row is lost, and each view is of one moment.
//!
//! Found by the chaos run: a fold that took the rows of a layer while somebody listed them left out those that were being put in order.
//!
//!     NEXUS_BATCHES=1000000 cargo test --release -p nexus-drivers --features faults --test metastore beside

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nexus_drivers::disk::sim::SimDisk;
use nexus_drivers::redb::RedbConfig;
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{Batch, Change, Entry, Metastore, Reader, RowKey, Table};

use crate::crash::entry;

/// Small, so that there is always something to fold, and writers fold, too.
const FOLD_FROM_BYTES: u64 = 4 << 10;
const PENDING_MAX_BYTES: u64 = 64 << 10;

/// How many batches there are unless something else is asked for.
const BATCHES: u64 = 12_000;

/// Pairs of rows that are written together.
const PAIRS: u64 = 300;

/// A page of a listing.
const PAGE: usize = 37;

type Rows = BTreeMap<RowKey, Bytes>;

fn open(disk: &SimDisk) -> WalMetastore {
    let database = RedbConfig::default().cache_bytes(1 << 20);
    let config = WalConfig::default().fold_from_bytes(FOLD_FROM_BYTES).pending_max_bytes(PENDING_MAX_BYTES);
    WalMetastore::open_in(&disk.folder(), config.ahead_bytes(FOLD_FROM_BYTES).database(database)).unwrap()
}

fn pair(number: u64) -> [RowKey; 2] {
    ["a", "b"].map(|side| RowKey::new(Table::Dentries, format!("{side}/{number:04}")))
}

/// What the batch with this number does: both rows of a pair are written, or removed; one comes that is never touched again; and one that may be there.
fn changes(number: u64) -> Vec<Change> {
    let [a, b] = pair(number.wrapping_mul(7_919) % PAIRS);
    let value = Bytes::from(format!("{number}"));
    let both = match number % 5 {
        0 => [Change::Delete(a), Change::Delete(b)],
        _ => [Change::Put(a, value.clone()), Change::Put(b, value.clone())],
    };
    let once = RowKey::new(Table::Contents, scattered(number));
    let maybe = RowKey::new(Table::Inodes, format!("{:03}", number % 500));
    both.into_iter().chain([Change::Put(once, value.clone()), Change::PutIfAbsent(maybe, value)]).collect()
}

/// Keys in an order that has nothing to do with that in which they come.
fn scattered(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn do_to(rows: &mut Rows, changes: &[Change]) {
    for change in changes.iter().cloned() {
        match change {
            Change::Put(key, value) => drop(rows.insert(key, value)),
            Change::PutIfAbsent(key, value) => drop(rows.entry(key).or_insert(value)),
            Change::Delete(key) => drop(rows.remove(&key)),
            _ => unreachable!("there is no other here"),
        }
    }
}

fn batch(number: u64, changes: Vec<Change>) -> Batch {
    let entry = Entry { repeatable: number.is_multiple_of(3), ..entry(number.into(), changes) };
    Batch { entries: vec![entry], next_file_id: number }
}

/// All rows of a table below `prefix`, page by page.
fn listed(reader: &dyn Reader, table: Table, prefix: &str) -> Vec<(RowKey, Bytes)> {
    let prefix = RowKey::new(table, prefix);
    let mut rows: Vec<(RowKey, Bytes)> = Vec::new();
    loop {
        let after = rows.last().map(|(key, _)| key.clone());
        let page = reader.scan(&prefix, after.as_ref(), PAGE).unwrap();
        let is_last = page.len() < PAGE;
        rows.extend(page);
        if is_last {
            assert!(rows.is_sorted_by(|(one, _), (next, _)| one < next));
            return rows;
        }
    }
}

/// A view of one moment has both rows of a pair, as one batch left them, or neither; and what it lists it finds.
fn look(store: &WalMetastore) {
    let reader = store.reader().unwrap();
    let side = |side: &str| -> Vec<_> {
        let rows = listed(&*reader, Table::Dentries, side).into_iter();
        rows.map(|(key, value)| (key.bytes[2..].to_vec(), value)).collect()
    };
    let (a, b) = (side("a/"), side("b/"));
    assert_eq!(a, b);
    for (number, value) in a {
        let key = [b"b/", &number[..]].concat();
        assert_eq!(reader.get(&RowKey::new(Table::Dentries, key)).unwrap(), Some(value));
    }
}

fn all(store: &WalMetastore) -> Rows {
    let reader = store.reader().unwrap();
    let tables = [Table::Dentries, Table::Inodes, Table::Contents];
    tables.into_iter().flat_map(|table| listed(&*reader, table, "")).collect()
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_row_is_lost_and_each_view_is_of_one_moment() {
    let asked = std::env::var("NEXUS_BATCHES").ok();
    let batches = asked.map_or(BATCHES, |asked| asked.parse().expect("NEXUS_BATCHES is a number"));
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let over = AtomicBool::new(false);
    let mut model = Rows::new();
    std::thread::scope(|scope| {
        let beside = |what: fn(&WalMetastore)| {
            let (store, over) = (&store, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    what(store);
                }
            })
        };
        beside(|store| store.upkeep().unwrap());
        beside(look);
        // What is of the contents is listed by itself: so it is put in order while it comes.
        beside(|store| drop(listed(&*store.reader().unwrap(), Table::Contents, "")));
        // Also when this fails, or nobody would end.
        let _over = Over(&over);
        for number in 1..=batches {
            let changes = changes(number);
            do_to(&mut model, &changes);
            let batch = batch(number, changes);
            let soon = if number % 4 == 0 { None } else { store.append(&batch).unwrap() };
            if soon.is_none() {
                store.apply(&batch).unwrap();
            }
        }
    });
    assert!(all(&store) == model, "while it is open");
    store.sync().unwrap();
    drop(store);
    assert!(all(&open(&disk)) == model, "when it was opened again");
}
