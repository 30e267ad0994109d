//! Batches that are only appended: in memory until they are written together.

use bytes::Bytes;
use nexus_drivers::disk::sim::{Fault, Kept, SimDisk};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{Batch, Change, Metastore, RowKey, Table, TreeId};
use nexus_messages::Lsn;

use super::crash::entry;

/// More than is kept from the system.
const MANY: u64 = 200;

/// The length of each row.
const ROW_BYTES: usize = 1_000;

fn key(number: u64) -> RowKey {
    RowKey::new(Table::Inodes, number.to_be_bytes())
}

fn open(disk: &SimDisk) -> WalMetastore {
    WalMetastore::open_in(&disk.folder(), WalConfig::default()).unwrap()
}

fn append(store: &WalMetastore, number: u64) {
    let change = Change::Put(key(number), Bytes::from(vec![1; ROW_BYTES]));
    let batch = Batch { entries: vec![entry(number.into(), vec![change])], next_file_id: number };
    assert!(store.append(&batch).unwrap().is_some(), "nobody is in the way");
}

/// How many rows there are, of those that were appended one after the other: the first ones.
fn rows(store: &WalMetastore) -> u64 {
    let reader = store.reader().unwrap();
    let there = (1..=MANY).take_while(|number| reader.get(&key(*number)).unwrap().is_some()).count() as u64;
    assert!((there + 1..=MANY).all(|number| reader.get(&key(number)).unwrap().is_none()));
    assert_eq!(store.last_lsn(TreeId::ROOT).unwrap(), Lsn(there));
    there
}

#[test]
fn the_system_has_all_but_the_last_of_them_and_all_when_the_store_is_closed() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    (1..=MANY).for_each(|number| append(&store, number));
    assert_eq!(rows(&store), MANY);
    // What a process leaves that is killed is what it has written.
    let killed = disk.copy();
    let left = rows(&open(&killed));
    assert!((MANY - 70..MANY).contains(&left), "{left} of {MANY}");
    drop(store);
    assert_eq!(rows(&open(&disk)), MANY);
}

#[test]
fn what_cannot_be_written_stays_in_memory_and_is_written_later() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    (1..=3).for_each(|number| append(&store, number));
    disk.fail_from(disk.counts().operations + 1, Fault::Full, 1);
    store.sync().unwrap_err();
    assert_eq!(rows(&store), 3);
    assert_eq!(store.durable_lsn(TreeId::ROOT).unwrap(), Lsn(0));
    append(&store, 4);
    store.sync().unwrap();
    assert_eq!(store.durable_lsn(TreeId::ROOT).unwrap(), Lsn(4));
    disk.crash(|_| Kept::Nothing);
    drop(store);
    assert_eq!(rows(&open(&disk)), 4);
}
