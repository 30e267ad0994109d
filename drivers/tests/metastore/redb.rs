//! What the store on redb promises beside the suite: one owner, known formats, and a known state when the disk fails.

use std::fs;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use nexus_drivers::redb::{Disk, FileDisk, RedbConfig, RedbMetastore};
use nexus_kernel::hal::{Batch, Change, Entry, Metastore, RowKey, StoreError, Table, TreeId};
use nexus_messages::{Lsn, Op, OpId, Timestamp, VPath};
use redb::backends::InMemoryBackend;
use redb::{BackendError, ReadableTable, StorageBackend, TableDefinition};

/// A disk that is gone with its value.
pub(crate) fn memory_disk() -> Disk {
    Disk {
        name: "memory".into(),
        backend: Box::new(InMemoryBackend::new()),
        free_bytes: Box::new(|| Ok(None)),
    }
}

fn batch(changes: Vec<Change>) -> Batch {
    let entry = Entry {
        tree: TreeId::ROOT,
        op_id: OpId(1),
        repeatable: false,
        caller: Arc::from("test"),
        op: Op::Write,
        path: VPath::root(),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(1),
        preconditions: vec![],
        changes,
    };
    Batch { entries: vec![entry], next_file_id: 0 }
}

fn key(name: &str) -> RowKey {
    RowKey::new(Table::Dentries, name.as_bytes())
}

fn put(name: &str, len: usize) -> Batch {
    batch(vec![Change::Put(key(name), Bytes::from(vec![7; len]))])
}

fn there(store: &RedbMetastore, name: &str) -> bool {
    store.reader().unwrap().get(&key(name)).unwrap().is_some()
}

fn open(path: &std::path::Path) -> Result<RedbMetastore, StoreError> {
    RedbMetastore::open(path, RedbConfig::default())
}

#[test]
fn a_store_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Locked { .. })));
    first.apply(&put("a", 1)).unwrap();
    drop(first);
    assert!(there(&open(&path).unwrap(), "a"));
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Corrupt { .. })));
    assert_eq!(fs::read(&path).unwrap(), vec![b'x'; 100_000]);
}

#[test]
fn somebody_elses_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let theirs = redb::Database::create(&path).unwrap();
    let write = theirs.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(theirs);
    let error = open(&path).unwrap_err();
    assert!(error.to_string().contains("something else"), "{error}");
}

const STATE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("state");
const LOG: TableDefinition<'static, (u32, u64), &'static [u8]> = TableDefinition::new("log");

/// Changes the file behind the store's back.
fn tamper(path: &std::path::Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    change(&write);
    write.commit().unwrap();
}

#[test]
fn another_format_is_refused_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    drop(open(&path).unwrap());
    for other in [1, 2, 4] {
        set_format(&path, other);
        let error = open(&path).unwrap_err();
        assert!(error.to_string().contains(&format!("format {other} is not 3")), "{error}");
    }
}

fn set_format(path: &std::path::Path, format: u64) {
    let format = [&[1u8][..], &format.to_be_bytes()].concat();
    tamper(path, |write| {
        write.open_table(STATE).unwrap().insert(&b"format"[..], format.as_slice()).unwrap();
    });
}

/// Flips a bit of the value at `key` in a table below the store, or gives it that of another key.
fn damage(path: &std::path::Path, table: &str, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    tamper(path, |write| {
        let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table);
        let mut table = write.open_table(table).unwrap();
        let mut value = table.get(key).unwrap().unwrap().value().to_vec();
        change(&mut value);
        table.insert(key, value.as_slice()).unwrap();
    });
}

#[test]
fn a_row_that_is_not_what_was_written_is_named_and_never_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let store = open(&path).unwrap();
    for name in ["a", "b", "c", "d"] {
        store.apply(&put(name, 40)).unwrap();
    }
    assert_eq!(store.verify().unwrap(), []);
    drop(store);
    // A byte of the value, one of its checksum, and one value at the key of another.
    let mut moved = Vec::new();
    damage(&path, "dentries", b"d", |value| moved = value.clone());
    damage(&path, "dentries", b"a", |value| value[7] ^= 4);
    damage(&path, "dentries", b"b", |value| *value.last_mut().unwrap() ^= 1);
    damage(&path, "dentries", b"c", |value| *value = moved);
    let store = open(&path).unwrap();
    let reader = store.reader().unwrap();
    for name in ["a", "b", "c"] {
        match reader.get(&key(name)) {
            Err(StoreError::Corrupt { what, .. }) => assert_eq!(what, format!("row Dentries:{name}")),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(there(&store, "d"));
    assert!(matches!(reader.scan(&key(""), None, 9), Err(StoreError::Corrupt { .. })));
    let found: Vec<_> = store.verify().unwrap().into_iter().map(|damage| damage.what).collect();
    assert_eq!(found, ["row Dentries:a", "row Dentries:b", "row Dentries:c"]);
    // What is written anew is whole again.
    store.apply(&put("a", 40)).unwrap();
    assert!(there(&store, "a"));
    assert_eq!(store.verify().unwrap().len(), 2);
}

#[test]
fn a_number_that_is_not_what_was_written_keeps_the_store_shut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    open(&path).unwrap().apply(&put("a", 1)).unwrap();
    damage(&path, "state", b"next_file_id", |value| value[8] ^= 1);
    let error = open(&path).unwrap_err();
    assert!(error.to_string().contains("the number next_file_id"), "{error}");
}

#[test]
fn a_damaged_log_record_is_corrupt_and_the_rest_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let store = open(&path).unwrap();
    store.apply(&put("a", 1)).unwrap();
    store.apply(&put("b", 1)).unwrap();
    drop(store);
    tamper(&path, |write| {
        write.open_table(LOG).unwrap().insert((0, 1), &[1u8, 0, 9, 9][..]).unwrap();
    });
    let store = open(&path).unwrap();
    assert!(matches!(store.changes(TreeId::ROOT, Lsn(0), 9), Err(StoreError::Corrupt { .. })));
    assert_eq!(store.changes(TreeId::ROOT, Lsn(1), 9).unwrap().len(), 1);
    assert!(there(&store, "a"));
}

#[test]
fn a_log_keeps_its_retention_and_forgets_operations_with_their_records() {
    let store = RedbMetastore::open_on(memory_disk(), RedbConfig::default()).unwrap();
    let template = put("a", 1).entries.remove(0);
    let retention = 65_536u64;
    let mut next = 1u128;
    for _ in 0..(retention + 256) / 1_024 + 1 {
        let entries = (0..1_024).map(|n| Entry {
            op_id: OpId(next + n),
            repeatable: true,
            changes: vec![],
            ..template.clone()
        });
        store.apply(&Batch { entries: entries.collect(), next_file_id: 0 }).unwrap();
        next += 1_024;
    }
    let last = store.last_lsn(TreeId::ROOT).unwrap();
    let first = store.changes(TreeId::ROOT, Lsn(0), 1).unwrap()[0].lsn;
    assert_eq!(last.0 - first.0 + 1, retention);
    assert_eq!(store.outcome(OpId(first.0.into())).unwrap(), Some((TreeId::ROOT, first)));
    assert_eq!(store.outcome(OpId(u128::from(first.0) - 1)).unwrap(), None);
}

#[test]
fn exactly_so_many_operations_are_remembered_over_folds_and_openings() {
    use nexus_drivers::memory::MemoryMetastore;
    use nexus_drivers::wal::{WalConfig, WalMetastore};
    use nexus_kernel::hal::EntryOutcome;
    use nexus_messages::syscall::OPS_KEPT;

    let template = put("a", 1).entries.remove(0);
    let batch = |ops: std::ops::Range<u64>| {
        let entry =
            |n: u64| Entry { op_id: OpId(n.into()), repeatable: true, changes: vec![], ..template.clone() };
        Batch { entries: ops.map(entry).collect(), next_file_id: 0 }
    };
    // The operations from 1 on are at the places from 1 on.
    let fill = |store: &dyn Metastore, through: u64| {
        let mut next = store.last_lsn(TreeId::ROOT).unwrap().0 + 1;
        while next <= through {
            let end = (next + 4_096).min(through + 1);
            store.apply(&batch(next..end)).unwrap();
            next = end;
        }
    };
    let check = |store: &dyn Metastore, what: &str| {
        let last = store.last_lsn(TreeId::ROOT).unwrap().0;
        let oldest = last - OPS_KEPT + 1;
        let place = |op: u64| store.outcome(OpId(op.into())).unwrap().map(|(_, lsn)| lsn.0);
        assert_eq!(
            (place(last), place(oldest), place(oldest - 1)),
            (Some(last), Some(oldest), None),
            "{what}"
        );
    };
    let again = |store: &dyn Metastore, op: u64| store.apply(&batch(op..op + 1)).unwrap().outcomes.remove(0);

    let folder = tempfile::tempdir().unwrap();
    let open = || WalMetastore::open(folder.path(), WalConfig::default()).unwrap();
    let store = open();
    fill(&store, OPS_KEPT + 10);
    check(&store, "in memory alone");
    // One that is forgotten is executed again, and it is remembered then, whatever becomes of its first record.
    assert_eq!(again(&store, 10), EntryOutcome::Committed(Lsn(OPS_KEPT + 11)));
    assert_eq!(again(&store, 12), EntryOutcome::Repeated(Lsn(12)));
    fill(&store, OPS_KEPT + 13);
    store.upkeep().unwrap();
    check(&store, "in the database");
    assert_eq!(store.outcome(OpId(10)).unwrap(), Some((TreeId::ROOT, Lsn(OPS_KEPT + 11))));
    fill(&store, OPS_KEPT + 100);
    check(&store, "in both");
    drop(store);
    let store = open();
    check(&store, "after it was opened again");
    assert_eq!(again(&store, 10), EntryOutcome::Repeated(Lsn(OPS_KEPT + 11)));
    assert_eq!(again(&store, 100), EntryOutcome::Committed(Lsn(OPS_KEPT + 101)));

    let store = RedbMetastore::open_on(memory_disk(), RedbConfig::default()).unwrap();
    fill(&store, OPS_KEPT + 10);
    check(&store, "in redb");
    assert_eq!(again(&store, 10), EntryOutcome::Committed(Lsn(OPS_KEPT + 11)));
    fill(&store, OPS_KEPT + 100);
    check(&store, "in redb, over a step");
    assert_eq!(again(&store, 10), EntryOutcome::Repeated(Lsn(OPS_KEPT + 11)));
    let store = MemoryMetastore::new();
    fill(&store, OPS_KEPT + 10);
    assert_eq!(again(&store, 10), EntryOutcome::Committed(Lsn(OPS_KEPT + 11)));
    fill(&store, OPS_KEPT + 100);
    check(&store, "in memory");
    assert_eq!(again(&store, 10), EntryOutcome::Repeated(Lsn(OPS_KEPT + 11)));
}

/// When a disk fails, and with what.
#[derive(Debug, Default)]
struct Faults {
    full: AtomicBool,
    sync_fails: AtomicBool,
    reads_fail: AtomicBool,
    /// How many writes still pass before one fails.
    writes_left: AtomicUsize,
}

#[derive(Debug)]
struct FaultyDisk {
    disk: Box<dyn StorageBackend>,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    fn check_write(&self) -> io::Result<()> {
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if self.faults.writes_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.faults.writes_left.store(0, Ordering::SeqCst);
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.faults.reads_fail.load(Ordering::SeqCst) {
            true => Err(io::Error::other("injected")),
            false => self.disk.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_write()?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.faults.sync_fails.load(Ordering::SeqCst) {
            true => Err(io::Error::other("injected")),
            false => self.disk.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write()?;
        self.disk.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.disk.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.disk.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.disk.unlock_range(start, end)
    }
}

/// A store on a file whose disk fails on demand, with some rows in it, and almost no cache, so that reading needs the disk.
fn on_faulty_disk(path: &std::path::Path) -> (RedbMetastore, Arc<Faults>) {
    let faults = Arc::new(Faults { writes_left: AtomicUsize::new(usize::MAX / 2), ..Faults::default() });
    let Disk { name, backend, free_bytes } = FileDisk::open(path).unwrap();
    let backend = Box::new(FaultyDisk { disk: backend, faults: faults.clone() });
    let config = RedbConfig::default().cache_bytes(0);
    let store = RedbMetastore::open_on(Disk { name, backend, free_bytes }, config).unwrap();
    for n in 0..20 {
        store.apply(&put(&format!("kept-{n}"), 3_000)).unwrap();
    }
    (store, faults)
}

#[test]
fn a_full_disk_is_told_as_full_reading_goes_on_and_so_does_writing_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let (store, faults) = on_faulty_disk(&path);
    faults.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store.apply(&put("lost", 100_000)).unwrap_err();
        assert!(matches!(error, StoreError::Full), "{error}");
        assert!(there(&store, "kept-0") && there(&store, "kept-19") && !there(&store, "lost"));
        assert!(matches!(open(&path), Err(StoreError::Locked { .. })), "it is still ours");
    }
    let old_view = store.reader().unwrap();
    faults.full.store(false, Ordering::SeqCst);
    for n in 0..20 {
        store.apply(&put(&format!("kept-{n}"), 4_000)).unwrap();
    }
    store.apply(&put("later", 20)).unwrap();
    assert!(there(&store, "later") && there(&store, "kept-7") && !there(&store, "lost"));
    // What it saw is overwritten by now: it may fail, and never show anything else.
    assert!(old_view.get(&key("kept-3")).is_err());
    assert_eq!(store.last_lsn(TreeId::ROOT).unwrap(), Lsn(41));
    drop(old_view);
    drop(store);
    let store = open(&path).unwrap();
    assert!(there(&store, "later") && !there(&store, "lost"));
}

#[test]
fn a_read_that_failed_is_not_the_end_of_reading_or_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let (store, faults) = on_faulty_disk(&path);
    for round in 0..3 {
        faults.reads_fail.store(true, Ordering::SeqCst);
        assert!((0..20).any(|n| store.reader().and_then(|r| r.get(&key(&format!("kept-{n}")))).is_err()));
        faults.reads_fail.store(false, Ordering::SeqCst);
        assert!((0..20).all(|n| there(&store, &format!("kept-{n}"))), "round {round}");
        if round > 0 {
            store.apply(&put(&format!("more-{round}"), 10)).unwrap();
            assert!(there(&store, &format!("more-{round}")));
        }
    }
    faults.reads_fail.store(true, Ordering::SeqCst);
    let _ = store.reader().and_then(|r| r.get(&key("kept-0")));
    faults.reads_fail.store(false, Ordering::SeqCst);
    store.apply(&put("last", 10)).unwrap();
    assert_eq!(store.last_lsn(TreeId::ROOT).unwrap(), Lsn(23));
}

#[test]
fn a_failed_flush_has_an_unknown_outcome_and_latches_the_store_until_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let (store, faults) = on_faulty_disk(&path);
    faults.sync_fails.store(true, Ordering::SeqCst);
    let error = store.apply(&put("unknown", 10)).unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    faults.sync_fails.store(false, Ordering::SeqCst);
    let error = store.apply(&put("later", 10)).unwrap_err();
    assert!(matches!(&error, StoreError::ReadOnly { cause } if cause.contains("injected")), "{error}");
    assert!(there(&store, "kept-0") && there(&store, "kept-19"), "reading goes on");
    assert!(!there(&store, "unknown"), "nobody sees what a crash could still lose");
    assert_eq!(store.changes(TreeId::ROOT, Lsn(0), 99).unwrap().len(), 20);
    drop(store);
    let store = open(&path).unwrap();
    assert!(there(&store, "kept-0") && !there(&store, "later"));
    let last = if there(&store, "unknown") { 21 } else { 20 };
    assert_eq!(store.last_lsn(TreeId::ROOT).unwrap(), Lsn(last), "the place tells whether it was done");
    store.apply(&put("later", 10)).unwrap();
}

#[test]
fn whichever_write_fails_a_batch_is_whole_or_not_there() {
    for nth in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.redb");
        let (store, faults) = on_faulty_disk(&path);
        faults.writes_left.store(nth, Ordering::SeqCst);
        let changes = ["x", "y"].map(|name| Change::Put(key(name), Bytes::from(vec![1; 9_000])));
        let result = store.apply(&batch(changes.to_vec()));
        faults.writes_left.store(usize::MAX / 2, Ordering::SeqCst);
        let seen = there(&store, "x");
        assert_eq!(seen, there(&store, "y"), "write {nth}: half a batch");
        assert!(there(&store, "kept-5"), "write {nth}: reading goes on");
        let known = match &result {
            Ok(_) => Some(true),
            Err(StoreError::Unknown { .. }) => None,
            Err(_) => Some(false),
        };
        assert!(known.is_none_or(|done| done == seen), "write {nth}: {result:?}");
        drop(store);
        let store = open(&path).unwrap();
        assert!(!seen || there(&store, "x"), "write {nth}: what was seen was lost");
        assert_eq!(there(&store, "x"), there(&store, "y"), "write {nth}: half a batch after opening again");
        assert!(known.is_none_or(|done| done == there(&store, "x")), "write {nth}: {result:?}");
        if result.is_ok() {
            assert!(nth > 3, "the disk was hardly written to");
            return;
        }
    }
}

#[test]
fn a_batch_that_would_take_the_reserve_is_full_before_anything_is_written() {
    let room = Arc::new(AtomicUsize::new(64 << 20));
    let shown = room.clone();
    let free_bytes = Box::new(move || Ok(Some(shown.load(Ordering::SeqCst) as u64)));
    let store = RedbMetastore::open_on(Disk { free_bytes, ..memory_disk() }, RedbConfig::default()).unwrap();
    store.apply(&put("a", 1)).unwrap();
    room.store(1 << 20, Ordering::SeqCst);
    assert!(matches!(store.apply(&put("b", 1)), Err(StoreError::Full)));
    assert!(there(&store, "a"));
    room.store(64 << 20, Ordering::SeqCst);
    store.apply(&put("b", 1)).unwrap();
}
