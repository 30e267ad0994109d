//! The store against a map, on a disk that is well.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nexus_kernel::hal::StoreError;
use nexus_messages::syscall::ByteRange;
use proptest::prelude::*;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::store::{Limits, Store};
use crate::disk::sim::SimDisk;
use crate::disk::{DiskFile, Folder};

/// Segments, batches and runs so small that a short test has many of them.
pub(super) const SMALL: Limits = Limits {
    segment_bytes: 64 << 10,
    batch_bytes: 16 << 10,
    batch_count: 8,
    unwritten: 6,
    unwritten_max: 12,
    open_max: 3,
};

pub(super) fn open(folder: Arc<dyn Folder>) -> Result<Store, StoreError> {
    Store::open(folder, 7, SMALL)
}

pub(super) fn put(store: &Store, key: &str, content: &Bytes) -> Result<bool, StoreError> {
    let mut answer = store.ask_put(key, std::slice::from_ref(content));
    store.drive();
    store.tend();
    answer.try_recv().expect("nobody else drives")
}

/// Asks for some changes together: puts, and deletions where there is no content. Gives what will be answered.
pub(super) fn ask_all(
    store: &Store,
    changes: &[(String, Option<Bytes>)],
) -> Vec<Receiver<Result<bool, StoreError>>> {
    let ask = |(key, content): &(String, Option<Bytes>)| match content {
        Some(content) => store.ask_put(key, std::slice::from_ref(content)),
        None => store.ask_delete(key),
    };
    let answers = changes.iter().map(ask).collect();
    store.drive();
    store.tend();
    answers
}

pub(super) fn delete(store: &Store, key: &str) -> Result<bool, StoreError> {
    let mut answer = store.ask_delete(key);
    store.drive();
    answer.try_recv().expect("nobody else drives")
}

pub(super) fn content(seed: u32, len: usize) -> Bytes {
    (0..len).map(|at| (at / 7).wrapping_mul(31).wrapping_add(seed as usize).to_le_bytes()[0]).collect()
}

fn get(store: &Store, key: &str) -> Option<Bytes> {
    store.get(key, ByteRange::ALL).expect("the disk is well")
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u16),
    Delete(u8),
    Compact,
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..20_u8, 0..9_000_u16).prop_map(|(key, len)| Step::Put(key, len)),
        4 => (0..20_u8).prop_map(Step::Delete),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

fn name(key: u8) -> String {
    format!("cas/{:x}/{key:02}", key % 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_holds_what_a_map_holds(steps in prop::collection::vec(step(), 1..120)) {
        let disk = SimDisk::new(1);
        let mut store = open(disk.folder()).unwrap();
        let mut model = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(key, len) => {
                    let content = content(u32::try_from(number).unwrap(), len.into());
                    prop_assert!(put(&store, &name(key), &content).unwrap());
                    model.insert(name(key), content);
                }
                Step::Delete(key) => {
                    prop_assert_eq!(delete(&store, &name(key)).unwrap(), model.remove(&name(key)).is_some());
                }
                Step::Compact => {
                    store.compact().unwrap();
                }
                Step::Reopen => {
                    drop(store);
                    store = open(disk.folder()).unwrap();
                }
                Step::Crash => {
                    disk.crash_by(number as u64);
                    store = open(disk.folder()).unwrap();
                }
            }
            prop_assert_eq!(store.damage(), &[]);
            for key in 0..20 {
                let (key, range) = (name(key), ByteRange::new(number as u64 * 13 % 4_000, 1_000));
                let expected = model.get(&key);
                prop_assert_eq!(get(&store, &key), expected.cloned());
                let size = expected.map(|content| content.len() as u64);
                prop_assert_eq!(store.head(&key).unwrap().map(|info| info.size), size);
                let (from, to) = range.within(size.unwrap_or_default());
                let index = |at: u64| usize::try_from(at).unwrap();
                let part = expected.map(|content| content.slice(index(from)..index(to)));
                prop_assert_eq!(store.get(&key, range).unwrap(), part);
            }
            let keys: Vec<String> = (0..20).rev().chain(5..9).map(name).collect();
            let together: Vec<_> = store.get_many(&keys).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(together, keys.iter().map(|key| model.get(key).cloned()).collect::<Vec<_>>());
            for (prefix, after, limit) in [("", None, 99), ("cas/1/", None, 3), ("cas/", Some("cas/2/07"), 4)] {
                let keys: Vec<String> = model
                    .keys()
                    .filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after))
                    .take(limit)
                    .cloned()
                    .collect();
                prop_assert_eq!(store.list(prefix, after, limit).unwrap(), keys);
            }
        }
    }
}

#[test]
fn what_arrived_together_shares_one_flush() {
    let disk = SimDisk::new(1);
    let store = Store::open(disk.folder(), 7, Limits::default()).unwrap();
    put(&store, "first", &content(0, 100)).unwrap();
    let before = disk.counts();
    let mut answers: Vec<_> =
        (0..64).map(|n| store.ask_put(&format!("k{n}"), &[content(n, 32 << 10)])).collect();
    store.drive();
    assert!(answers.iter_mut().all(|answer| answer.try_recv().unwrap().unwrap()));
    let after = disk.counts();
    assert_eq!(after.file_syncs - before.file_syncs, 1);
    assert_eq!((after.writes - before.writes, after.folder_syncs - before.folder_syncs), (1, 0));
    // Alone each has its own, and nothing else.
    put(&store, "last", &content(0, 32 << 10)).unwrap();
    assert_eq!(disk.counts().file_syncs - after.file_syncs, 1);
    assert_eq!(disk.counts().changes - after.changes, 2);
}

#[test]
fn what_lies_side_by_side_is_read_at_once() {
    let disk = SimDisk::new(1);
    let store = Store::open(disk.folder(), 7, Limits::default()).unwrap();
    let names: Vec<_> = (0..40).map(|n| format!("k{n}")).collect();
    let answers: Vec<_> =
        (0..).zip(&names).map(|(n, name)| store.ask_put(name, &[content(n, 64 << 10)])).collect();
    store.drive();
    drop(answers);
    assert_eq!(get(&store, "k0"), Some(content(0, 64 << 10)), "its file is open from here on");
    let reads = |names: &[String]| {
        let before = disk.counts().operations;
        let blobs = store.get_many(names);
        for (name, blob) in names.iter().zip(blobs) {
            assert_eq!(blob.unwrap(), get(&store, name), "{name}");
        }
        // Each was read by itself once more.
        disk.counts().operations - before - names.len() as u64
    };
    assert_eq!(reads(&names[..8]), 1);
    assert_eq!(reads(&names), 3, "no more than a buffer holds");
    let reversed: Vec<_> = names[..8].iter().rev().cloned().collect();
    assert_eq!(reads(&reversed), 1);
    assert_eq!(reads(&[names[0].clone(), names[2].clone(), names[3].clone()]), 2);
}

#[test]
fn a_batch_is_bounded_in_bytes_and_in_count() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    put(&store, "first", &content(0, 1)).unwrap();
    let syncs = |count: u32, len| {
        let before = disk.counts().file_syncs;
        let answers: Vec<_> =
            (0..count).map(|n| store.ask_put(&format!("k{n}"), &[content(n, len)])).collect();
        store.drive();
        drop(answers);
        disk.counts().file_syncs - before
    };
    assert_eq!(syncs(8, 10), 1);
    assert_eq!(syncs(9, 10), 2);
    assert_eq!(syncs(4, 8 << 10), 2);
    assert_eq!(syncs(2, 17 << 10), 2, "a blob may be larger than that");
}

#[test]
fn a_write_that_was_given_up_before_its_batch_is_not_made() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    drop(store.ask_put("late", &[content(0, 10)]));
    store.drive();
    assert_eq!(get(&store, "late"), None);
    assert_eq!(disk.counts().writes, 0);
}

#[test]
fn a_flush_that_panics_leaves_nobody_waiting_and_the_next_one_is_made() {
    let disk = SimDisk::new(1);
    let folder = Arc::new(Panicking { folder: disk.folder(), armed: Arc::default() });
    let store = open(folder.clone()).unwrap();
    put(&store, "before", &content(0, 10)).unwrap();
    let mut answers: Vec<_> = (0..20).map(|n| store.ask_put(&format!("k{n}"), &[content(n, 10)])).collect();
    folder.armed.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| store.drive())).is_err());
    assert!(answers.iter_mut().all(|answer| matches!(answer.try_recv(), Err(TryRecvError::Closed))));
    put(&store, "after", &content(1, 10)).unwrap();
    disk.crash_by(0);
    let store = open(disk.folder()).unwrap();
    assert_eq!((get(&store, "before"), get(&store, "after")), (Some(content(0, 10)), Some(content(1, 10))));
}

/// A folder whose files panic at the next write.
#[derive(Debug)]
struct Panicking {
    folder: Arc<dyn Folder>,
    armed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct PanickingFile {
    file: Arc<dyn DiskFile>,
    armed: Arc<AtomicBool>,
}

impl Folder for Panicking {
    fn open(&self, name: &str, make: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(PanickingFile { file: self.folder.open(name, make)?, armed: self.armed.clone() }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.folder.sync()
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Folder>> {
        self.folder.folder(name)
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.folder.free_bytes()
    }
}

impl DiskFile for PanickingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "injected");
        self.file.write_at(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[test]
fn a_read_touches_its_range_and_nothing_else() {
    let disk = SimDisk::new(1);
    let store = Store::open(disk.folder(), 7, Limits::default()).unwrap();
    let whole = content(3, 1 << 20);
    put(&store, "large", &whole).unwrap();
    let before = disk.counts().bytes_read;
    let part = store.get("large", ByteRange::new(700_000, 4_096)).unwrap().unwrap();
    assert_eq!(part, whole.slice(700_000..704_096));
    assert_eq!(disk.counts().bytes_read - before, 4_096);
}

#[test]
fn few_segments_are_open_whatever_their_number() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    for n in 0..60 {
        put(&store, &format!("k{n:02}"), &content(n, 30_000)).unwrap();
    }
    let segments = disk.paths().iter().filter(|path| path.ends_with(".pack")).count();
    assert!(segments >= 20, "{segments} segments");
    for n in 0..60 {
        assert_eq!(get(&store, &format!("k{n:02}")), Some(content(n, 30_000)));
        assert!(store.open_files() <= SMALL.open_max);
    }
}

#[test]
fn opening_reads_what_the_index_does_not_know_and_no_more() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    for n in 0..400 {
        put(&store, &format!("k{n:03}"), &content(n, 5_000)).unwrap();
    }
    disk.crash_by(2);
    let before = disk.counts().bytes_read;
    let store = open(disk.folder()).unwrap();
    let read = disk.counts().bytes_read - before;
    assert!(read < 100_000, "{read} bytes of 2,000,000");
    assert_eq!(store.list("", None, 999).unwrap().len(), 400);
}

#[test]
fn a_clean_end_leaves_nothing_to_write_at_the_next_start() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    put(&store, "k", &content(0, 10)).unwrap();
    drop(store);
    let before = disk.counts();
    for _ in 0..3 {
        assert_eq!(get(&open(disk.folder()).unwrap(), "k"), Some(content(0, 10)));
    }
    let after = disk.counts();
    assert_eq!((after.writes, after.file_syncs), (before.writes, before.file_syncs));
}

#[test]
fn compaction_frees_what_is_dead_and_keeps_what_is_alive() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    let bytes = || disk.paths().iter().map(|path| disk.content(path).unwrap().len() as u64).sum::<u64>();
    for n in 0..100 {
        put(&store, &format!("k{n:02}"), &content(n, 10_000)).unwrap();
    }
    for n in (0..100).filter(|n| n % 5 != 0) {
        assert!(delete(&store, &format!("k{n:02}")).unwrap());
    }
    let full = bytes();
    let freed = store.compact().unwrap();
    assert!(freed > 600_000, "{freed} of {full}");
    assert!(full - bytes() > 600_000, "{} of {full}", bytes());
    disk.crash_by(0);
    let store = open(disk.folder()).unwrap();
    for n in 0..100 {
        let expected = (n % 5 == 0).then(|| content(n, 10_000));
        assert_eq!(get(&store, &format!("k{n:02}")), expected, "{n}");
    }
    // Also from the segments alone.
    for run in disk.paths().iter().filter(|path| path.ends_with(".index")) {
        disk.folder().remove(run).unwrap();
    }
    let store = open(disk.folder()).unwrap();
    for n in 0..100 {
        let expected = (n % 5 == 0).then(|| content(n, 10_000));
        assert_eq!(get(&store, &format!("k{n:02}")), expected, "{n}");
    }
    for _ in 0..4 {
        store.compact().unwrap();
    }
    assert_eq!(store.compact().unwrap(), 0, "there is an end to it");
}

#[test]
fn damage_is_told_and_a_torn_end_is_not_damage() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    for n in 0..3 {
        put(&store, &format!("k{n}"), &content(n, 5_000)).unwrap();
    }
    drop(store);
    let segment = disk.paths().remove(0);
    // The index knows none of them yet. The second record's header, and then the last one's content.
    let second = disk.copy();
    assert!(second.damage(&segment, 3 * 4_096, |byte| byte ^ 1, 1));
    let store = open(second.folder()).unwrap();
    assert_eq!(store.damage().len(), 1, "{:?}", store.damage());
    assert_eq!((get(&store, "k0"), get(&store, "k1")), (Some(content(0, 5_000)), None));
    assert_eq!(get(&store, "k2"), Some(content(2, 5_000)));
    // A batch that was torn: no later one says that it was flushed.
    let store = open(disk.folder()).unwrap();
    let mut answer = store.ask_put("torn", &[content(9, 5_000)]);
    disk.power_off_at(disk.counts().changes + 3);
    store.drive();
    assert!(answer.try_recv().unwrap().is_err());
    disk.crash_by(3);
    let store = open(disk.folder()).unwrap();
    assert_eq!(store.damage(), &[]);
    assert_eq!(store.list("k", None, 9).unwrap(), ["k0", "k1", "k2"]);
}

/// What a content means is the business of who addresses it by its hash; everything else is checked here.
#[test]
fn a_changed_byte_anywhere_is_never_a_panic_and_never_another_blob() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    for n in 0..30 {
        put(&store, &format!("k{n:02}"), &content(n, 300)).unwrap();
    }
    drop(store);
    disk.crash_by(1);
    let without_index = disk.copy();
    for run in disk.paths().iter().filter(|path| path.ends_with(".index")) {
        without_index.folder().remove(run).unwrap();
    }
    without_index.crash_by(1);
    assert!(change_each_byte(&disk) < change_each_byte(&without_index));
}

/// Gives how often the damage was told when the store was opened.
fn change_each_byte(disk: &SimDisk) -> usize {
    let mut told = 0;
    for path in disk.paths() {
        let len = disk.content(&path).unwrap().len() as u64;
        for at in (0..len).step_by(149).chain(len.saturating_sub(100)..len) {
            let disk = disk.copy();
            assert!(disk.damage(&path, at, |byte| byte ^ 0x41, 1));
            let store = open(disk.folder()).unwrap();
            let is_told = !store.damage().is_empty();
            for n in 0..30 {
                match store.get(&format!("k{n:02}"), ByteRange::ALL) {
                    Ok(Some(found)) => {
                        let expected = content(n, 300);
                        let wrong = found.iter().zip(&expected).filter(|(found, expected)| found != expected);
                        assert!(found.len() == 300 && wrong.count() <= 1, "{path} at {at}: k{n:02}");
                    }
                    Ok(None) => assert!(is_told, "{path} at {at}: k{n:02} is gone"),
                    Err(error) => {
                        assert!(matches!(error, StoreError::Corrupt { .. }), "{path} at {at}: {error}");
                    }
                }
            }
            told += usize::from(is_told);
        }
    }
    told
}
