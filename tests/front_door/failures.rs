//! What callers see when the store fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use nexus::hal::{Applied, Batch, LogRecord, Metastore, Reader, StoreError, TreeId};
use nexus::{Config, ErrorKind, Executed, Lsn, OpId, blocking};
use nexus_drivers::memory::MemoryMetastore;

/// How the next batches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    Good,
    Full,
    Failing,
    /// It is done, and yet told as unknown.
    Unsure,
}

/// A metastore whose batches fail as told.
#[derive(Debug)]
struct Moody {
    store: MemoryMetastore,
    mood: AtomicU8,
}

impl Moody {
    fn new() -> Arc<Self> {
        Arc::new(Self { store: MemoryMetastore::new(), mood: AtomicU8::new(Mood::Good as u8) })
    }

    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Relaxed);
    }
}

impl Metastore for Moody {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let cause = || "the disk is on fire".to_owned();
        match self.mood.load(Ordering::Relaxed) {
            mood if mood == Mood::Full as u8 => Err(StoreError::Full),
            mood if mood == Mood::Failing as u8 => {
                Err(StoreError::Backend { what: "the batch".into(), cause: cause() })
            }
            mood if mood == Mood::Unsure as u8 => {
                self.store.apply(batch)?;
                Err(StoreError::Unknown { what: "the batch".into(), cause: cause() })
            }
            _ => self.store.apply(batch),
        }
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.store.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.store.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.store.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.store.next_file_id()
    }

    fn wants_upkeep(&self) -> bool {
        self.store.wants_upkeep()
    }

    fn upkeep(&self) -> Result<(), StoreError> {
        self.store.upkeep()
    }
}

/// Each kind of change fails in this way, changes nothing, and leaves reads alone; afterwards all is well again.
#[track_caller]
fn check(mood: Mood, errno: &str, cause: &str) {
    let store = Moody::new();
    let nx = blocking::connect(Config::in_memory().metastore(store.clone())).expect("it boots");
    nx.write("/d/f", "old").expect("it writes");
    nx.write("/g", "other").expect("it writes");
    store.set(mood);
    let errors = [
        nx.write("/d/f", "new").expect_err("write"),
        nx.append("/d/f", "new").expect_err("append"),
        nx.edit("/d/f", "old", "new").expect_err("edit"),
        nx.write("/d/new", "new").expect_err("write"),
        nx.mkdir("/e").expect_err("mkdir"),
        nx.link("/l", "/g").expect_err("link"),
        nx.rename("/d", "/e").expect_err("rename"),
        nx.copy("/d/f", "/h").expect_err("copy"),
        nx.unlink("/g").expect_err("unlink"),
        nx.remove_all("/d").expect_err("unlink"),
    ];
    for error in &errors {
        assert_eq!((error.errno().name(), error.executed()), (errno, Executed::No), "{error}");
        assert!(error.to_string().contains(cause), "{error}");
    }
    let batch = nx.write_batch([("/d/f", "new"), ("/x", "new")]);
    assert!(batch.iter().all(|done| done.as_ref().is_err_and(|error| error.errno().name() == errno)));
    assert_eq!(nx.read("/d/f").expect("it reads"), "old");
    assert_eq!(nx.glob("/**").expect("it lists"), ["/d", "/d/f", "/g"]);
    store.set(Mood::Good);
    nx.write("/d/f", "new").expect("it writes again");
    assert_eq!(nx.read("/d/f").expect("it reads"), "new");
}

#[test]
fn a_full_store_refuses_changes_and_serves_reads() {
    check(Mood::Full, "ENOSPC", "store is full");
}

#[test]
fn a_failing_store_is_told_with_its_cause() {
    check(Mood::Failing, "EIO", "the disk is on fire");
}

#[test]
fn a_change_of_unknown_outcome_is_told_as_such() {
    let store = Moody::new();
    let nx = blocking::connect(Config::in_memory().metastore(store.clone())).unwrap();
    store.set(Mood::Unsure);
    let error = nx.write("/f", "new").unwrap_err();
    assert_eq!((error.kind(), error.executed()), (ErrorKind::Io, Executed::Unknown), "{error}");
    store.set(Mood::Good);
    // It was done; a reader may find it, and a repeat is no harm.
    nx.write("/f", "again").unwrap();
    assert_eq!(nx.read("/f").unwrap(), "again");
}
