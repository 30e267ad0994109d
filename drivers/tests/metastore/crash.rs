//! The store with a log on a disk that loses, tears and reorders what was not flushed: all workloads of up to three operations, at every point
//! at which a crash can come, with every outcome of what was not flushed (all of them when they are few, else some of each kind).
//!
//! What must hold: the rows are those of a prefix of the commits, which has every batch that was acknowledged as durable, with all before it, and nothing
//! that was not begun; the log of changes is that of the same prefix; and the store goes on. Batches that were only appended may be missing, from the
//! last one back.
//!
//!     cargo test -p nexus-drivers --features faults --test metastore crash -- --nocapture
//!
//! NEXUS_CRASHES=all looks at each workload and each fault, else some are left out.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use nexus_drivers::disk::sim::{Fault, Omission, Outcome, SimDisk};
use nexus_drivers::redb::RedbConfig;
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{Batch, Change, Entry, Metastore, RowKey, StoreError, Table, TreeId};
use nexus_messages::{Lsn, Op, OpId, Timestamp, VPath};

/// Above this many outcomes not all of them are looked at.
const OUTCOMES_MAX: usize = 27;

/// Outcomes that are looked at when there are more, by the seeds that choose them. 0 keeps nothing, 1 keeps all.
const SEEDS: std::ops::Range<u64> = 0..12;

/// One in so many workloads of two operations is looked at unless all are asked for, and one in so many of three. Both have no divisor in
/// common with the number of operations: else some would never be the last.
const SAMPLES: [usize; 2] = [3, 49];

/// Small, so that logs grow in the middle of a workload.
const AHEAD_BYTES: u64 = 16 << 10;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Writes a row.
    Put(&'static str),
    /// Writes a row that is larger than what is written with zeros ahead.
    PutLarge,
    /// Removes a row.
    Delete(&'static str),
    /// Two entries in one batch.
    Two,
    /// Writes a row, and does not wait until it is on disk.
    Later(&'static str),
    /// Makes durable what is not.
    Sync,
    /// Folds the log into the database.
    Fold,
    /// Closes the store and opens it again.
    Reopen,
}

const STEPS: [Step; 8] = [
    Step::Put("a"),
    Step::PutLarge,
    Step::Delete("a"),
    Step::Two,
    Step::Fold,
    Step::Reopen,
    Step::Later("a"),
    Step::Sync,
];

type Rows = BTreeMap<Vec<u8>, Bytes>;

fn key(name: &str) -> RowKey {
    RowKey::new(Table::Inodes, name.as_bytes())
}

pub(crate) fn entry(op: u128, changes: Vec<Change>) -> Entry {
    Entry {
        tree: TreeId::ROOT,
        op_id: OpId(op),
        repeatable: true,
        caller: Arc::from("crash"),
        op: Op::Write,
        path: VPath::root(),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(1),
        preconditions: vec![],
        changes,
    }
}

impl Step {
    /// The changes of each entry of the batch that the step with this number makes; none when it makes none.
    fn entries(self, number: usize) -> Vec<Vec<Change>> {
        let put = |name: &str, len: usize| {
            let byte = u8::try_from(number % 200).unwrap() + 1;
            Change::Put(key(name), Bytes::from(vec![byte; len]))
        };
        match self {
            Self::Put(name) => vec![vec![put(name, 100)]],
            Self::Later(name) => vec![vec![put(name, 40)], vec![put("later", 1)]],
            Self::PutLarge => vec![vec![put("large", 20_000)]],
            Self::Delete(name) => vec![vec![Change::Delete(key(name))]],
            Self::Two => {
                let kept = Change::PutAtLsn { prefix: key("k/"), value: Bytes::from_static(b"kept") };
                vec![vec![put("b", 10)], vec![put("a", 20), put("c", 30), kept]]
            }
            Self::Fold | Self::Reopen | Self::Sync => vec![],
        }
    }
}

fn open(disk: &SimDisk) -> Result<WalMetastore, StoreError> {
    let database = RedbConfig::default().cache_bytes(1 << 20);
    WalMetastore::open_in(&disk.folder(), WalConfig::default().ahead_bytes(AHEAD_BYTES).database(database))
}

/// What was done so far: the rows after each entry that was begun, how many entries there were after each batch, how many were acknowledged at all, and
/// how many as durable.
struct History {
    states: Vec<Rows>,
    batches: Vec<usize>,
    visible: usize,
    acknowledged: usize,
}

impl History {
    fn new() -> Self {
        Self { states: vec![Rows::new()], batches: vec![0], visible: 0, acknowledged: 0 }
    }

    /// Does the step; an error when the store told one.
    fn step(
        &mut self,
        store: &mut Option<WalMetastore>,
        disk: &SimDisk,
        step: Step,
        number: usize,
    ) -> Result<(), StoreError> {
        let entries = step.entries(number);
        match step {
            Step::Reopen => {
                drop(store.take());
                let opened = open(disk)?;
                // What was not known is known now, unless the disk fails just then.
                let faults = disk.counts().faults;
                let last = match self.check(&opened) {
                    Ok(last) => last,
                    Err(why) if disk.counts().faults > faults => {
                        return Err(StoreError::Corrupt { what: "what was opened".into(), found: why });
                    }
                    Err(why) => panic!("opened again: {why}"),
                };
                self.states.truncate(last + 1);
                self.batches.retain(|end| *end <= last);
                (self.visible, self.acknowledged) = (last, last);
                *store = Some(opened);
                return Ok(());
            }
            Step::Fold => return store.as_ref().unwrap().upkeep(),
            Step::Sync => {
                store.as_ref().unwrap().sync()?;
                self.acknowledged = self.visible;
                return Ok(());
            }
            _ => {}
        }
        let before = self.states.len();
        let mut rows = self.states.last().unwrap().clone();
        let mut batch = Batch::default();
        for changes in entries {
            for change in &changes {
                match change {
                    Change::Put(key, value) => drop(rows.insert(key.bytes.to_vec(), value.clone())),
                    Change::Delete(key) => drop(rows.remove(&*key.bytes)),
                    Change::PutAtLsn { prefix, value } => {
                        let lsn = Lsn(self.states.len() as u64);
                        drop(rows.insert(prefix.at(lsn).bytes.to_vec(), value.clone()));
                    }
                    _ => unreachable!("no step makes another"),
                }
            }
            self.states.push(rows.clone());
            batch.entries.push(entry((self.states.len() - 1) as u128, changes));
        }
        self.batches.push(self.states.len() - 1);
        let store = store.as_ref().unwrap();
        let appended = if matches!(step, Step::Later(_)) { store.append(&batch) } else { Ok(None) };
        match appended {
            Ok(Some(_)) => {
                self.visible = self.states.len() - 1;
                return Ok(());
            }
            Ok(None) => {}
            Err(error) => return self.failed(before, error),
        }
        match store.apply(&batch) {
            Ok(_) => {
                self.visible = self.states.len() - 1;
                self.acknowledged = self.visible;
                Ok(())
            }
            Err(error) => self.failed(before, error),
        }
    }

    /// The batch after the states before failed.
    fn failed(&mut self, before: usize, error: StoreError) -> Result<(), StoreError> {
        if !error.is_unknown() {
            // Not executed, and it must not come back either.
            self.states.truncate(before);
            self.batches.pop();
        }
        Err(error)
    }

    /// How many entries are there after a crash; or what is wrong.
    fn check(&self, store: &WalMetastore) -> Result<usize, String> {
        let told = |error: StoreError| error.to_string();
        let reader = store.reader().map_err(told)?;
        let rows: Rows = reader
            .scan(&RowKey::new(Table::Inodes, []), None, 100)
            .map_err(told)?
            .into_iter()
            .map(|(key, value)| (key.bytes.into_vec(), value))
            .collect();
        let Lsn(last) = store.last_lsn(TreeId::ROOT).map_err(told)?;
        let last = usize::try_from(last).unwrap();
        if last < self.acknowledged {
            return Err(format!("{} entries were acknowledged, {last} are there", self.acknowledged));
        }
        let Some(state) = self.states.get(last) else {
            return Err(format!("{last} entries are there, {} were begun", self.states.len() - 1));
        };
        if !self.batches.contains(&last) {
            return Err(format!("{last} entries are there, which is a part of a batch"));
        }
        if *state != rows {
            return Err(format!("the rows are not those after {last} entries"));
        }
        let log = store.changes(TreeId::ROOT, Lsn(0), 100).map_err(told)?;
        let ops: Vec<u128> = log.iter().map(|record| record.op_id.0).collect();
        let Lsn(durable) = store.durable_lsn(TreeId::ROOT).map_err(told)?;
        if ops != (1..=u128::from(durable)).collect::<Vec<_>>() {
            return Err(format!("the log has the operations {ops:?} when {durable} are durable"));
        }
        let durable = usize::try_from(durable).unwrap();
        // What was opened again without room to write it anew is not known to be on disk before there is.
        let unsure = || match store.apply(&Batch::default()) {
            Err(StoreError::Full) => true,
            _ => store.durable_lsn(TreeId::ROOT).is_ok_and(|now| now == Lsn(last as u64)),
        };
        if durable > last || durable < self.acknowledged && !unsure() {
            return Err(format!(
                "{durable} entries are told as durable, of {last}, when {} are for sure",
                self.acknowledged
            ));
        }
        for op in 1..self.states.len() as u128 {
            let outcome = store.outcome(OpId(op)).map_err(told)?;
            let due = (op <= last as u128).then_some((TreeId::ROOT, Lsn(u64::try_from(op).unwrap())));
            if outcome != due {
                return Err(format!("operation {op} is told as {outcome:?} after {last} entries"));
            }
        }
        Ok(last)
    }
}

impl History {
    /// What is wrong after a crash of `disk`, if something is.
    fn holds(&self, disk: &SimDisk, goes_on: bool) -> Result<(), String> {
        let opened = |disk| open(disk).map_err(|error| format!("it does not open: {error}"));
        let store = opened(disk)?;
        let last = self.check(&store)?;
        if goes_on {
            // What it acknowledges from here on is there after another crash.
            let put = entry(last as u128 + 1, vec![Change::Put(key("after"), Bytes::new())]);
            let applied = store.apply(&Batch { entries: vec![put], next_file_id: 0 });
            applied.map_err(|error| format!("it does not go on: {error}"))?;
            disk.crash_by(0);
            drop(store);
            let Lsn(there) = opened(disk)?.last_lsn(TreeId::ROOT).map_err(|error| error.to_string())?;
            if there != last as u64 + 1 {
                return Err(format!("{there} entries are there after going on from {last}"));
            }
        }
        Ok(())
    }
}

/// What was found in a campaign.
#[derive(Debug, Default)]
struct Found {
    workloads: usize,
    states: usize,
    wrong: Vec<String>,
}

/// Runs the workload on `disk` until it fails; gives what was done.
fn run(disk: &SimDisk, steps: &[Step]) -> History {
    let mut history = History::new();
    let Ok(opened) = open(disk) else { return history };
    let mut store = Some(opened);
    for (number, step) in steps.iter().enumerate() {
        if history.step(&mut store, disk, *step, number).is_err() || store.is_none() {
            break;
        }
    }
    // A process that is killed closes nothing; what closing would write goes to a disk that is off.
    history
}

/// Crashes the workload at every point, with every outcome.
fn crash_everywhere(base: &SimDisk, steps: &[Step], omission: Option<Omission>, found: &mut Found) {
    found.workloads += 1;
    let count = {
        let disk = base.copy();
        let before = disk.counts().changes;
        run(&disk, steps);
        disk.counts().changes - before
    };
    for point in 1..=count {
        let disk = base.copy();
        if let Some(omission) = omission {
            disk.leave_out(omission);
        }
        disk.power_off_at(disk.counts().changes + point);
        let history = run(&disk, steps);
        for (number, outcome) in Outcome::of(disk.unsynced(), OUTCOMES_MAX, SEEDS).into_iter().enumerate() {
            let disk = disk.copy();
            outcome.crash(&disk);
            found.states += 1;
            let case = || format!("{steps:?}, crash at change {point} of {count}, {outcome:?}");
            // The database below may panic at a file that lies, as it does when flushes are left out.
            let held = std::panic::catch_unwind(AssertUnwindSafe(|| history.holds(&disk, number == 0)));
            match held {
                Err(_) => found.wrong.push(format!("{}: it panics", case())),
                Ok(Err(why)) => found.wrong.push(format!("{}: {why}", case())),
                Ok(Ok(())) => {}
            }
        }
    }
}

/// A disk with an empty store. Of flushes that fail, `seed` chooses what is done.
fn fresh(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    drop(open(&disk).unwrap());
    disk.crash_by(1);
    disk
}

/// Whether the long campaign is asked for.
fn everything() -> bool {
    std::env::var("NEXUS_CRASHES").is_ok_and(|which| which == "all")
}

fn workloads(all: bool) -> Vec<Vec<Step>> {
    let [of_two, of_three] = if all { [1, 1] } else { SAMPLES };
    let one = STEPS.iter().map(|a| vec![*a]);
    let two = STEPS.iter().flat_map(|a| STEPS.map(|b| vec![*a, b]));
    let three = STEPS.iter().flat_map(|a| STEPS.iter().flat_map(move |b| STEPS.map(|c| vec![*a, *b, c])));
    one.chain(two.step_by(of_two)).chain(three.step_by(of_three)).collect()
}

#[test]
fn a_crash_anywhere_leaves_a_prefix_with_all_that_was_acknowledged() {
    let all = everything();
    let mut found = Found::default();
    // Also while the store is made.
    crash_everywhere(&SimDisk::new(1), &[Step::Put("a")], None, &mut found);
    let base = fresh(1);
    for steps in workloads(all) {
        crash_everywhere(&base, &steps, None, &mut found);
    }
    println!("{} workloads, {} states, {} wrong", found.workloads, found.states, found.wrong.len());
    assert!(found.wrong.is_empty(), "{:#?}", &found.wrong[..found.wrong.len().min(10)]);
    assert!(found.states > if all { 30_000 } else { 5_000 }, "{} states", found.states);
}

/// The test is one: it sees what goes wrong when a flush is left out, or comes too late.
#[test]
fn a_store_that_leaves_a_flush_out_is_caught() {
    for (omission, steps) in [
        (Omission::FileSyncs, vec![Step::Put("a"), Step::Put("b")]),
        (Omission::PromptFileSyncs, vec![Step::Put("a"), Step::Put("b")]),
        (Omission::FileSyncs, vec![Step::Later("a"), Step::Sync]),
        (Omission::PromptFileSyncs, vec![Step::Later("a"), Step::Sync]),
        (Omission::PromptFileSyncs, vec![Step::Later("a"), Step::Put("b")]),
        (Omission::FolderSyncs, vec![Step::Put("a"), Step::Fold, Step::Put("b"), Step::Fold, Step::Put("c")]),
    ] {
        let mut found = Found::default();
        crash_everywhere(&fresh(1), &steps, Some(omission), &mut found);
        assert!(!found.wrong.is_empty(), "{omission:?} was not seen in {} states", found.states);
    }
}

/// Operations of the disk fail, the first one, the second one, and so on, until none is left to fail: whatever was told holds.
#[test]
fn a_fault_anywhere_is_told_truthfully() {
    use Step::{Delete, Fold, Later, Put, PutLarge, Reopen, Sync, Two};
    let long = vec![
        Put("a"),
        Two,
        Fold,
        PutLarge,
        Put("a"),
        Fold,
        Reopen,
        Two,
        Delete("a"),
        Fold,
        Put("d"),
        Fold,
        Put("a"),
    ];
    // Nothing is folded after what was opened again: the log alone has to hold it.
    let short = vec![Put("a"), Put("b"), Reopen, Put("c"), Put("d")];
    let later = vec![
        Later("a"),
        Later("b"),
        Sync,
        Later("a"),
        Put("c"),
        Later("d"),
        Fold,
        Later("a"),
        Sync,
        Later("e"),
    ];
    let states = fail_everywhere(&fresh(1), &long);
    let states = states + (1..=6).map(|seed| fail_everywhere(&fresh(seed), &short)).sum::<usize>();
    let states = states + (1..=3).map(|seed| fail_everywhere(&fresh(seed), &later)).sum::<usize>();
    println!("{states} states");
}

fn fail_everywhere(base: &SimDisk, steps: &[Step]) -> usize {
    let step = if everything() { 1 } else { 7 };
    let mut states = 0;
    for fault in [Fault::Error, Fault::Full, Fault::Sync] {
        for times in [1, u64::MAX] {
            for from in (1..).step_by(step) {
                let disk = base.copy();
                let operations = disk.counts().operations;
                disk.fail_from(operations + from, fault, times);
                let mut history = History::new();
                let mut store = open(&disk).ok();
                for (number, step) in steps.iter().enumerate() {
                    if store.is_none() {
                        break;
                    }
                    // An error is no reason to stop asking.
                    let _ = history.step(&mut store, &disk, *step, number);
                }
                let struck = disk.counts().faults > 0;
                // A disk that is well again is written to again, unless a flush failed; and it is read in any case.
                disk.heal();
                if let Some(store) = &store {
                    let closed = matches!(store.apply(&Batch::default()), Err(StoreError::ReadOnly { .. }));
                    let folded = store.upkeep();
                    let doubtful = history.states.len() - 1 > history.visible;
                    let case = || format!("{fault:?} at operation {from}, {times} times, and no reopening");
                    // A flush or a header that failed is nothing that a database goes on from.
                    let ended = matches!(folded, Err(StoreError::ReadOnly { .. }));
                    assert!(closed || doubtful || ended || folded.is_ok(), "{}: {folded:?}", case());
                    if !doubtful {
                        let seen = history.check(store).unwrap_or_else(|why| panic!("{}: {why}", case()));
                        assert_eq!(seen, history.visible, "{}", case());
                    }
                }
                for seed in [0, 2] {
                    let disk = disk.copy();
                    disk.crash_by(seed);
                    states += 1;
                    let case = format!("{fault:?} at operation {from}, {times} times, then a crash ({seed})");
                    let store = open(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
                    history.check(&store).unwrap_or_else(|why| panic!("{case}: {why}"));
                }
                drop(store);
                if !struck {
                    break;
                }
            }
        }
    }
    states
}

/// Opens the log on `disk` once for each byte of it, with that byte damaged. Gives how many of them are told.
fn damage_each_byte(disk: &SimDisk, history: &History) -> u64 {
    let log = disk.paths().into_iter().find(|path| path.ends_with(".wal")).unwrap();
    let content = disk.content(&log).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let mut told = 0;
    for offset in 0..=end {
        let disk = disk.copy();
        assert!(disk.damage(&log, offset, |byte| byte ^ 0x41, 1));
        match open(&disk) {
            Err(_) => told += 1,
            Ok(store) => {
                history.check(&store).unwrap_or_else(|why| panic!("byte {offset}: {why}"));
            }
        }
    }
    println!("{told} of {} bytes are missed", end + 1);
    assert!(told > end / 2, "most of the bytes are those of frames");
    told
}

#[test]
fn a_damaged_byte_of_the_log_is_told_and_never_served() {
    let disk = fresh(1);
    let mut history = History::new();
    let mut store = Some(open(&disk).unwrap());
    for (number, step) in [Step::Put("a"), Step::Two, Step::Put("b"), Step::Put("c")].into_iter().enumerate()
    {
        history.step(&mut store, &disk, step, number).unwrap();
    }
    let killed = disk.copy();
    drop(store);
    assert_eq!((history.visible, history.acknowledged), (5, 5));
    // On an orderly end the log says up to where it is on disk. Of what says so, and of what fills frames up, nothing depends.
    let told = damage_each_byte(&disk, &history);
    // Of a process that was killed the last frame cannot be told from one that was never acknowledged.
    history.acknowledged = 4;
    assert!(damage_each_byte(&killed, &history) < told);
}

/// The database believes its pages: what a damaged one says may be wrong, or missing. It is never a panic, and a check tells it.
#[test]
fn a_damaged_byte_of_the_database_is_told_by_a_check() {
    const ROWS: usize = 400;
    const LOOKS: usize = 400;
    let name = |row: usize| format!("row-{row:04}");
    let value = |row: usize| Bytes::from(format!("value of {row}"));
    let disk = fresh(1);
    let store = open(&disk).unwrap();
    let changes = (0..ROWS).map(|row| Change::Put(key(&name(row)), value(row))).collect();
    let batch = Batch { entries: vec![entry(1, changes)], next_file_id: 0 };
    store.apply(&batch).unwrap();
    assert_eq!(store.verify().unwrap(), []);
    store.upkeep().unwrap();
    assert_eq!(store.verify().unwrap(), []);
    drop(store);
    assert_eq!(open(&disk).unwrap().verify().unwrap(), []);

    let file = disk.paths().into_iter().find(|path| path.ends_with(".redb")).unwrap();
    let content = disk.content(&file).unwrap();
    let used: Vec<u64> = (0..content.len()).filter(|at| content[*at] != 0).map(|at| at as u64).collect();
    let (mut told, mut believed) = (0, 0);
    let looks = if everything() { used.len() } else { LOOKS };
    for offset in used.iter().step_by(used.len().div_ceil(looks)) {
        let disk = disk.copy();
        assert!(disk.damage(&file, *offset, |byte| byte ^ 0x10, 1));
        let Ok(store) = open(&disk) else {
            told += 1;
            continue;
        };
        let found = store.verify().unwrap();
        let reader = store.reader().unwrap();
        let got = (0..ROWS).all(|row| reader.get(&key(&name(row))).is_ok_and(|got| got == Some(value(row))));
        let rows = reader.scan(&key(""), None, usize::MAX);
        let listed =
            rows.is_ok_and(|rows| rows.into_iter().eq((0..ROWS).map(|row| (key(&name(row)), value(row)))));
        assert!(got && listed || !found.is_empty(), "byte {offset} is damaged, and nobody tells");
        told += usize::from(!found.is_empty());
        believed += usize::from(!(got && listed));
    }
    println!("{told} are told, {believed} of them were believed");
    assert!(believed > 0, "what was damaged was never read");
}

/// After a flush that failed, what is read may be in memory alone, and a second flush writes nothing.
#[test]
fn what_is_read_after_a_failed_flush_is_written_anew() {
    let mut kept = 0;
    for seed in 1..=8 {
        let disk = fresh(seed);
        let mut history = History::new();
        let mut store = Some(open(&disk).unwrap());
        history.step(&mut store, &disk, Step::Put("a"), 0).unwrap();
        disk.fail_from(disk.counts().operations + 1, Fault::Sync, 1);
        assert!(history.step(&mut store, &disk, Step::Put("b"), 1).unwrap_err().is_unknown());
        history.step(&mut store, &disk, Step::Reopen, 2).unwrap();
        kept += usize::from(history.acknowledged == 2);
        history.step(&mut store, &disk, Step::Put("c"), 3).unwrap();
        let crashed = disk.copy();
        crashed.crash_by(0);
        history.check(&open(&crashed).unwrap()).unwrap();
    }
    assert!(kept > 0, "no batch in doubt was there again");
}
