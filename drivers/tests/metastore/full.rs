//! A disk without room: the store opens on it, and takes what it has room for in the log.

use bytes::Bytes;
use nexus_drivers::disk::sim::{Fault, Outcome, SimDisk};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{Batch, Change, Metastore, RowKey, StoreError, Table};

use super::crash::entry;

/// More than the database has room for without growing.
const ROWS: u64 = 400;

/// The length of each row.
const ROW_BYTES: usize = 1_000;

fn key(number: u64) -> RowKey {
    RowKey::new(Table::Inodes, number.to_be_bytes())
}

fn open(disk: &SimDisk) -> Result<WalMetastore, StoreError> {
    WalMetastore::open_in(&disk.folder(), WalConfig::default())
}

/// Does this as the operation with this number, and has it on disk.
fn apply(store: &WalMetastore, number: u64, change: Change) -> Result<(), StoreError> {
    store.apply(&Batch { entries: vec![entry(number.into(), vec![change])], next_file_id: number }).map(drop)
}

fn rows(store: &WalMetastore) -> Vec<u64> {
    let reader = store.reader().unwrap();
    (1..=ROWS).filter(|number| reader.get(&key(*number)).unwrap().is_some()).collect()
}

/// A disk with rows in the log, which is full from now on.
fn filled() -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    for number in 1..=ROWS {
        apply(&store, number, Change::Put(key(number), Bytes::from(vec![1; ROW_BYTES]))).unwrap();
    }
    disk.kill();
    disk.fail_from(0, Fault::Growth, u64::MAX);
    disk
}

#[test]
fn what_is_in_the_log_is_there_on_a_full_disk_and_goes_when_it_is_removed() {
    let disk = filled();
    let store = open(&disk).unwrap();
    assert_eq!(rows(&store).len() as u64, ROWS);
    assert!(matches!(store.upkeep(), Err(StoreError::Full)), "there is no room in the database");
    apply(&store, ROWS + 1, Change::Delete(key(1))).unwrap();
    drop(store);
    // Again and again.
    for number in 2..6 {
        disk.crash_by(0);
        disk.fail_from(0, Fault::Growth, u64::MAX);
        let store = open(&disk).unwrap();
        assert_eq!(rows(&store), (number..=ROWS).collect::<Vec<_>>());
        apply(&store, ROWS + number, Change::Delete(key(number))).unwrap();
    }
    disk.crash_by(0);
    let store = open(&disk).unwrap();
    store.upkeep().unwrap();
    assert_eq!(rows(&store), (6..=ROWS).collect::<Vec<_>>());
}

#[test]
fn what_a_flush_that_failed_left_in_memory_alone_is_written_again_where_it_stands() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let store = open(&disk).unwrap();
        for number in 1..ROWS {
            apply(&store, number, Change::Put(key(number), Bytes::from(vec![1; ROW_BYTES]))).unwrap();
        }
        disk.fail_from(0, Fault::Sync, 1);
        let last = Change::Put(key(ROWS), Bytes::from(vec![1; ROW_BYTES]));
        assert!(apply(&store, ROWS, last).unwrap_err().is_unknown());
        disk.kill();
        disk.fail_from(0, Fault::Growth, u64::MAX);
        let seen = rows(&open(&disk).unwrap());
        assert_eq!(seen.len() as u64, ROWS, "the system has it in memory");
        disk.crash_by(0);
        assert_eq!(rows(&open(&disk).unwrap()), seen, "what was seen stays, seed {seed}");
    }
}

#[test]
fn a_crash_while_it_is_opened_on_a_full_disk_loses_nothing() {
    let full = filled();
    let mut states = 0;
    for change in 1.. {
        let disk = full.copy();
        disk.power_off_at(disk.counts().changes + change);
        let opened = open(&disk);
        if !disk.is_off() {
            opened.unwrap();
            assert!(change > 5, "{change} changes");
            break;
        }
        drop(opened);
        for outcome in Outcome::of(disk.unsynced(), 9, 0..5) {
            let disk = disk.copy();
            outcome.crash(&disk);
            states += 1;
            assert_eq!(rows(&open(&disk).unwrap()).len() as u64, ROWS, "at change {change}, {outcome:?}");
        }
    }
    println!("{states} states");
    assert!(states > 10, "{states}");
}
