//! A log that is damaged anywhere: what can be kept is told, and nothing else is given up; what is cut off is set aside, and a crash of the
//! cut at any point leaves nothing that it could not be repeated on.
//!
//!     cargo test -p nexus-drivers --features faults --test metastore damage -- --nocapture

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use nexus_drivers::disk::sim::{Omission, Outcome, SimDisk};
use nexus_drivers::redb::RedbConfig;
use nexus_drivers::wal::{DamagedLog, LogDamage, WalConfig, WalMetastore};
use nexus_kernel::hal::{Batch, Change, Entry, Metastore, RowKey, StoreError, Table, TreeId};
use nexus_messages::{Lsn, Op, OpId, Timestamp, VPath};
use parking_lot::Mutex;

/// Small, so that logs grow in the middle of a workload.
const AHEAD_BYTES: u64 = 4 << 10;

/// Above this many outcomes of a crash not all of them are looked at.
const OUTCOMES_MAX: usize = 9;

const SEEDS: std::ops::Range<u64> = 0..6;

/// The length of what stands before a frame's payload.
const HEADER_BYTES: u64 = 56;

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// The files of the log, by their names.
type Files = BTreeMap<String, Vec<u8>>;

fn key(name: &str) -> RowKey {
    RowKey::new(Table::Inodes, name.as_bytes())
}

fn put(number: u64) -> (String, Bytes) {
    let length = [10, 700, 3, 5_000][usize::try_from(number % 4).unwrap()];
    (format!("row {}", number % 5), Bytes::from(vec![u8::try_from(number % 250).unwrap() + 1; length]))
}

/// The batch of the commit with this number, which is its place, too.
fn batch(number: u64) -> Batch {
    let (name, value) = put(number);
    let entry = Entry {
        tree: TreeId::ROOT,
        op_id: OpId(number.into()),
        repeatable: true,
        caller: Arc::from("writer"),
        op: Op::Write,
        path: VPath::parse(&format!("/f{number}")).unwrap(),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(number),
        preconditions: vec![],
        changes: vec![Change::Put(key(&name), value)],
    };
    Batch { entries: vec![entry], next_file_id: 0 }
}

/// The rows after the commit at this place.
fn rows_at(lsn: u64) -> Rows {
    (1..=lsn).map(put).map(|(name, value)| (key(&name).bytes.into_vec(), value)).collect()
}

fn open(disk: &SimDisk) -> Result<WalMetastore, StoreError> {
    let database = RedbConfig::default().cache_bytes(1 << 20);
    WalMetastore::open_in(&disk.folder(), WalConfig::default().ahead_bytes(AHEAD_BYTES).database(database))
}

fn files(disk: &SimDisk) -> Files {
    let paths = disk.paths().into_iter();
    let names = paths.filter_map(|path| path.strip_prefix("wal/").map(str::to_owned));
    names.map(|name| (name.clone(), disk.content(&format!("wal/{name}")).unwrap())).collect()
}

fn is_segment(name: &str) -> bool {
    name.ends_with(".wal")
}

/// Without the zeros at the end.
fn trimmed(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

/// Every disk that there was in a run of commits and folds, each once, with all of it flushed.
fn disks() -> Vec<SimDisk> {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let seen: Arc<Mutex<Vec<SimDisk>>> = Arc::default();
    let watcher = seen.clone();
    disk.watch(move |disk| watcher.lock().push(disk.copy()));
    for number in 1..=13 {
        if number % 3 == 0 && store.append(&batch(number)).unwrap().is_some() {
            continue;
        }
        store.apply(&batch(number)).unwrap();
        match number {
            // A fold for which there is no room: the log goes on in another segment, and none is let go.
            4 | 10 => {
                disk.set_free_bytes(Some(0));
                assert!(matches!(store.upkeep(), Err(StoreError::Full)));
                disk.set_free_bytes(None);
            }
            7 => store.upkeep().unwrap(),
            _ => {}
        }
    }
    disk.unwatch();
    let mut logs = BTreeSet::new();
    let mut all = Vec::new();
    for disk in std::mem::take(&mut *seen.lock()) {
        disk.crash_by(1);
        disk.set_free_bytes(None);
        if logs.insert(files(&disk)) {
            all.push(disk);
        }
    }
    all
}

/// What can be wrong with a log.
#[derive(Debug, Clone)]
enum Wound {
    /// A byte of the file is another.
    Byte(String, u64),
    /// A sector is zeros.
    Zeros(String, u64),
    /// The file is gone.
    Gone(String),
    /// The file ends here.
    Cut(String, u64),
}

impl Wound {
    /// Each that a log of these files can have: in the head and in the payload of each frame.
    fn all(files: &Files) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, content) in files {
            let frames = content.chunks(8).zip(0u64..).filter(|(eight, _)| eight.starts_with(b"NXWL"));
            let mut has_frames = false;
            for (_, nth) in frames {
                let at = nth * 8;
                has_frames = true;
                all.push(Self::Byte(name.clone(), at + 17));
                all.push(Self::Byte(name.clone(), at + HEADER_BYTES + 4));
                all.push(Self::Zeros(name.clone(), at / 512 * 512));
                all.push(Self::Cut(name.clone(), at + 20));
            }
            if has_frames {
                all.push(Self::Gone(name.clone()));
            }
        }
        all
    }

    fn inflict(&self, disk: &SimDisk) {
        let log = disk.folder().folder("wal").unwrap();
        match self {
            Self::Byte(name, at) => assert!(disk.damage(&format!("wal/{name}"), *at, |byte| byte ^ 0x55, 1)),
            Self::Zeros(name, at) => {
                let length = disk.content(&format!("wal/{name}")).unwrap().len() as u64;
                assert!(disk.damage(&format!("wal/{name}"), *at, |_| 0, 512.min(length - at)));
            }
            Self::Gone(name) => log.remove(name).unwrap(),
            Self::Cut(name, at) => log.open(name, false).unwrap().set_len(*at).unwrap(),
        }
        disk.crash_by(1);
    }
}

/// The damage, if there is any.
fn look(disk: &SimDisk) -> Option<LogDamage> {
    DamagedLog::open_in(&disk.folder()).unwrap().damage().unwrap()
}

fn kept(damage: &LogDamage) -> u64 {
    damage.kept.get(&TreeId::ROOT).map_or(0, |lsn| lsn.0)
}

fn just(lsn: u64) -> BTreeMap<TreeId, Lsn> {
    if lsn == 0 { BTreeMap::new() } else { BTreeMap::from([(TreeId::ROOT, Lsn(lsn))]) }
}

/// The store opens, has all up to `lsn` and nothing else, and `goes_on`.
fn has(disk: &SimDisk, lsn: u64, goes_on: bool) {
    let check = |store: &WalMetastore, lsn: u64| {
        let rows = store.reader().unwrap().scan(&RowKey::new(Table::Inodes, []), None, 100).unwrap();
        let rows: Rows = rows.into_iter().map(|(key, value)| (key.bytes.into_vec(), value)).collect();
        assert_eq!(store.last_lsn(TreeId::ROOT).unwrap(), Lsn(lsn));
        assert!(rows == rows_at(lsn), "the rows are not those after {lsn} commits");
        let log = store.changes(TreeId::ROOT, Lsn(0), 100).unwrap();
        assert_eq!(log.iter().map(|record| record.lsn.0).collect::<Vec<_>>(), (1..=lsn).collect::<Vec<_>>());
    };
    let store = open(disk).unwrap();
    check(&store, lsn);
    if !goes_on {
        return;
    }
    store.apply(&batch(lsn + 1)).unwrap();
    disk.crash_by(0);
    drop(store);
    check(&open(disk).unwrap(), lsn + 1);
}

/// All that was in the log before, of what was cut off, is in files beside it.
fn is_set_aside(before: &Files, damage: &LogDamage, after: &Files) {
    let offset = usize::try_from(damage.offset).unwrap();
    for (name, content) in before.iter().filter(|(name, _)| is_segment(name)) {
        let from = match name.cmp(&damage.segment) {
            std::cmp::Ordering::Less => {
                assert_eq!(after.get(name), Some(content), "{name} is as it was");
                continue;
            }
            std::cmp::Ordering::Equal => offset.min(content.len()),
            std::cmp::Ordering::Greater => 0,
        };
        let tail = trimmed(&content[from..]);
        let aside = after.iter().find(|(aside, content)| !is_segment(aside) && content.as_slice() == tail);
        assert!(tail.is_empty() || aside.is_some(), "{} bytes of {name} are nowhere", tail.len());
    }
}

/// The damaged disks, each of another log and wound, on which the store does not open.
fn damaged() -> Vec<(SimDisk, Wound)> {
    let mut all = Vec::new();
    let (mut opened, mut logs) = (0, BTreeSet::new());
    for disk in disks() {
        for wound in Wound::all(&files(&disk)) {
            let disk = disk.copy();
            wound.inflict(&disk);
            if !logs.insert(files(&disk)) {
                continue;
            }
            match open(&disk.copy()) {
                Ok(_) => opened += 1,
                Err(StoreError::Corrupt { .. }) => all.push((disk, wound)),
                Err(error) => panic!("{wound:?}: {error}"),
            }
        }
    }
    println!("{} logs that are refused, {opened} that open all the same", all.len());
    all
}

#[test]
fn a_log_that_is_damaged_anywhere_is_cut_where_it_is_told_and_nothing_is_destroyed() {
    let all = damaged();
    assert!(all.len() > 100, "{} damaged logs", all.len());
    let (mut segments, mut unreadable) = (0, 0);
    for (disk, wound) in all {
        let before = files(&disk);
        let log = DamagedLog::open_in(&disk.folder()).unwrap();
        let damage = log.damage().unwrap().unwrap_or_else(|| panic!("{wound:?} is refused, and not told"));
        let lsn = kept(&damage);
        let ops: Vec<u64> = damage.lost.listed.iter().map(|(_, record)| record.lsn.0).collect();
        assert!(ops.is_sorted_by(|a, b| a < b) && ops.iter().all(|op| *op > lsn), "{wound:?}: {ops:?}");
        assert_eq!(ops.len() as u64, damage.lost.operations);
        assert!(damage.frame <= damage.lost.through && damage.proof <= damage.lost.through);
        // Each frame has an operation or none: it is a mark, or cannot be read.
        assert!(damage.lost.operations + damage.lost.unreadable <= damage.lost.through + 1 - damage.frame);
        for other in [lsn.wrapping_sub(1), lsn + 1, 0].into_iter().filter(|other| *other != lsn) {
            let refused = log.cut(&just(other)).unwrap_err();
            assert!(matches!(refused, StoreError::BadOption { .. }), "{refused}");
        }
        assert!(files(&disk) == before, "{wound:?}: what is refused changes nothing");
        let cut = log.cut(&just(lsn)).unwrap();
        assert_eq!(cut.damage, damage);
        drop(log);
        let after = files(&disk);
        is_set_aside(&before, &damage, &after);
        assert!(cut.aside.iter().all(|name| after.contains_key(name)));
        let told: usize = cut.aside.iter().map(|name| after[name].len()).sum();
        assert_eq!(told as u64, damage.lost.bytes);
        segments += usize::from(cut.aside.len() > 1);
        unreadable += usize::from(damage.lost.unreadable == 1);
        let again = DamagedLog::open_in(&disk.folder()).unwrap();
        assert_eq!(again.damage().unwrap(), None, "{wound:?}");
        assert!(
            matches!(again.cut(&just(lsn)), Err(StoreError::BadOption { .. })),
            "there is nothing to cut"
        );
        drop(again);
        // With the power going off at once.
        disk.crash_by(0);
        has(&disk, lsn, true);
        is_set_aside(
            &before,
            &damage,
            &files(&disk).into_iter().chain(unchanged(&before, &damage)).collect(),
        );
    }
    println!("{segments} cuts of several segments, {unreadable} with one frame that cannot be read");
    assert!(segments > 0 && unreadable > 0);
}

/// The segments that are kept. When the store is open, it lets go of them.
fn unchanged<'f>(before: &'f Files, damage: &'f LogDamage) -> impl Iterator<Item = (String, Vec<u8>)> + 'f {
    let kept = before.iter().filter(|(name, _)| is_segment(name) && **name < damage.segment);
    kept.map(|(name, content)| (name.clone(), content.clone()))
}

/// Crashes the cut at every point. Says how many states it looked at.
fn crash_everywhere(disk: &SimDisk, omission: Option<Omission>) -> usize {
    let (before, damage) = (files(disk), look(disk).unwrap());
    let lsn = kept(&damage);
    let cut = |disk: &SimDisk, off_at: Option<u64>| {
        let log = DamagedLog::open_in(&disk.folder()).unwrap();
        let begun = disk.counts().changes;
        if let Some(omission) = omission {
            disk.leave_out(omission);
        }
        off_at.into_iter().for_each(|point| disk.power_off_at(begun + point));
        let done = log.cut(&just(lsn));
        // What closing the database writes is no part of it.
        let changes = disk.counts().changes - begun;
        std::mem::forget(log);
        (done.is_ok(), changes)
    };
    let (_, count) = cut(&disk.copy(), None);
    let mut states = 0;
    for point in 1..=count {
        let disk = disk.copy();
        cut(&disk, Some(point));
        for outcome in Outcome::of(disk.unsynced(), OUTCOMES_MAX, SEEDS) {
            let disk = disk.copy();
            outcome.crash(&disk);
            states += 1;
            if let Some(left) = look(&disk) {
                assert_eq!(left.kept, damage.kept, "point {point} of {count}: the same can be kept");
                let log = DamagedLog::open_in(&disk.folder()).unwrap();
                log.cut(&just(lsn)).unwrap();
            }
            let kept: Files = files(&disk).into_iter().chain(unchanged(&before, &damage)).collect();
            is_set_aside(&before, &damage, &kept);
            // A disk that leaves flushes out goes on leaving them out.
            has(&disk, lsn, omission.is_none());
        }
    }
    states
}

/// Some of them, and those in which the most is cut off.
fn some() -> Vec<SimDisk> {
    let mut all = damaged();
    all.sort_by_key(|(disk, _)| files(disk).keys().filter(|name| is_segment(name)).count());
    let step = (all.len() / 4).max(1);
    let mut some: Vec<SimDisk> = all.iter().step_by(step).map(|(disk, _)| disk.copy()).collect();
    let segments = |disk: &SimDisk| {
        let damage = look(disk).unwrap();
        files(disk).range(damage.segment..).filter(|(_, content)| !trimmed(content).is_empty()).count()
    };
    some.extend(all.iter().map(|(disk, _)| disk.copy()).max_by_key(|disk| segments(&disk.copy())));
    some
}

#[test]
fn a_cut_that_crashes_anywhere_can_be_repeated_and_destroys_nothing() {
    let states: usize = some().iter().map(|disk| crash_everywhere(disk, None)).sum();
    println!("{states} states");
    assert!(states > 100, "{states} states");
}

/// The test is one: it sees when a flush is left out.
#[test]
fn a_cut_that_leaves_a_flush_out_is_caught() {
    for omission in [Omission::FileSyncs, Omission::FolderSyncs] {
        let caught = some().into_iter().any(|disk| {
            let run = std::panic::AssertUnwindSafe(|| crash_everywhere(&disk, Some(omission)));
            std::panic::catch_unwind(run).is_err()
        });
        assert!(caught, "{omission:?} was not seen");
    }
}
