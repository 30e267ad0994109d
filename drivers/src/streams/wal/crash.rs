//! The store on a disk that loses, tears and fails, at every point of its work: what is there afterwards is what was acknowledged, and perhaps some of what was asked for
//! last, in order; each once; and the store goes on.
//!
//! NEXUS_CRASHES=all looks at each workload and each fault, else some are left out.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use nexus_kernel::hal::{Append, StoreError, StreamError, StreamLimits, WhenFull};
use nexus_messages::{FileId, OpId, Timestamp};

use super::model::{answer_of, ask_of, open, seen_in, seen_of};
use super::store::Store;
use crate::disk::sim::{Fault, Omission, Outcome, SimDisk};
use crate::streams::model::{Asked, Model};

/// Above this many outcomes of a crash not all of them are looked at.
const OUTCOMES_MAX: usize = 27;

/// Outcomes that are looked at when there are more, by the seeds that choose them. 0 keeps nothing, 1 keeps all.
const SEEDS: std::ops::Range<u64> = 0..10;

pub(super) const A: FileId = FileId(1);
pub(super) const B: FileId = FileId(2);
const KEEPS_LITTLE: FileId = FileId(3);

/// What a client knows: what may be there, and what must be.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// The streams after each operation that was begun.
    pub(super) states: Vec<Model>,
    /// Up to here all was acknowledged.
    acknowledged: usize,
    /// How much was ever asked for.
    asked: u64,
}

impl Client {
    pub(super) fn new() -> Self {
        Self { states: vec![Model::default()], acknowledged: 0, asked: 0 }
    }

    pub(super) fn commit(&mut self, store: &Store, batch: Vec<(FileId, Asked)>) -> Result<(), StreamError> {
        let mut model = self.states.last().unwrap().clone();
        let asked = batch.iter().map(|(stream, asked)| (*stream, ask_of(asked.clone()))).collect();
        let (mut failed, mut is_known, mut is_done) = (Ok(()), true, false);
        for ((stream, asked), told) in batch.iter().zip(store.commit(asked)) {
            if let Err(error @ StreamError::Store(_)) = &told {
                failed = Err(error.clone());
                is_known &= !error.is_unknown();
                if !error.is_unknown() {
                    // Not executed, and it must not come back either.
                    continue;
                }
            }
            is_done |= told.is_ok();
            let want = model.ask(*stream, asked);
            self.states.push(model.clone());
            assert!(answer_of(told.clone()) == want || !is_known, "{told:?}, and it should be {want:?}");
        }
        if is_known && is_done {
            self.acknowledged = self.states.len() - 1;
        }
        failed
    }

    /// Finds out which of the states that can be there is; or what is wrong.
    pub(super) fn check(&self, store: &Store) -> Result<usize, String> {
        let seen = seen_in(store).map_err(|error| error.to_string())?;
        let possible = self.states.iter().enumerate().skip(self.acknowledged);
        let found = possible.rev().find(|(_, model)| seen_of(model) == seen);
        found.map(|(index, _)| index).ok_or_else(|| {
            let tails: Vec<_> = seen.0.iter().map(|(s, (state, _))| (*s, state.head, state.tail)).collect();
            let index = self.states.iter().position(|model| seen_of(model) == seen);
            format!(
                "{tails:?} is none of what can be there (it is state {index:?}, {} were acknowledged of {})",
                self.acknowledged,
                self.states.len() - 1
            )
        })
    }

    /// Opens the store again: from here on it is known what is there.
    pub(super) fn settle(&mut self, store: &Store) -> Result<(), String> {
        let found = self.check(store)?;
        self.states = vec![self.states[found].clone()];
        self.acknowledged = 0;
        Ok(())
    }

    /// An append of this many records, of other content each time.
    pub(super) fn append(&mut self, records: usize, length: usize) -> Asked {
        self.asked += 1;
        let byte = u8::try_from(self.asked % 250).unwrap() + 1;
        let records = (0..records).map(|n| Bytes::from(vec![byte; length + n]));
        Asked::Append(Append::new(records, Timestamp(self.asked)).op(OpId(self.asked.into())))
    }
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A record.
    One,
    /// Records that are longer than what is written with zeros ahead.
    Large,
    /// Appends to several streams in one batch.
    Many,
    /// Appends to one that keeps little, one after the other.
    Dropped,
    Trim,
    Close,
    Remove,
    /// Removes segments, and moves what is left in others.
    Tidy,
    /// Fills segments with what is dropped soon, and has what is left in them moved.
    Sparse,
    /// Closes the store and opens it again.
    Reopen,
    /// Opens it again without closing it.
    Again,
}

const STEPS: [Step; 11] = [
    Step::One,
    Step::Large,
    Step::Many,
    Step::Dropped,
    Step::Trim,
    Step::Close,
    Step::Remove,
    Step::Tidy,
    Step::Sparse,
    Step::Reopen,
    Step::Again,
];

/// Does a step; an error when the disk failed.
pub(super) fn step(
    client: &mut Client,
    store: &mut Store,
    disk: &SimDisk,
    step: Step,
) -> Result<(), StreamError> {
    let batch = match step {
        Step::One => vec![(A, client.append(1, 40))],
        Step::Large => vec![(B, client.append(3, 400))],
        Step::Many => {
            let streams = [A, B, KEEPS_LITTLE, A, FileId(99)];
            streams.into_iter().map(|stream| (stream, client.append(2, 30))).collect()
        }
        Step::Dropped => {
            for _ in 0..3 {
                let batch = vec![(KEEPS_LITTLE, client.append(1, 100)), (A, client.append(1, 1))];
                client.commit(store, batch)?;
            }
            vec![]
        }
        Step::Trim => vec![(A, Asked::Trim(3)), (B, client.append(1, 5)), (B, Asked::Trim(u64::MAX))],
        Step::Close => vec![(B, Asked::Close), (B, client.append(1, 5))],
        Step::Remove => vec![(B, Asked::Remove), (FileId(4), Asked::Create(StreamLimits::NONE))],
        Step::Tidy => {
            store.tidy();
            return Ok(());
        }
        Step::Sparse => {
            for round in 0..9 {
                let mut batch: Vec<_> = (0..3).map(|_| (KEEPS_LITTLE, client.append(1, 190))).collect();
                if round % 4 == 0 {
                    batch.push((A, client.append(2, 3)));
                }
                client.commit(store, batch)?;
                for _ in 0..2 {
                    store.tidy();
                }
            }
            return Ok(());
        }
        Step::Reopen | Step::Again => {
            if step == Step::Reopen {
                store.close();
            }
            let faults = disk.counts().faults;
            *store = open(disk.folder())?;
            return match client.settle(store) {
                Err(why) if disk.counts().faults > faults => {
                    Err(StoreError::Corrupt { what: "what was opened".into(), found: why }.into())
                }
                settled => {
                    settled.unwrap_or_else(|why| panic!("opened again: {why}"));
                    Ok(())
                }
            };
        }
    };
    if batch.is_empty() { Ok(()) } else { client.commit(store, batch) }
}

/// Opens the store, with some streams in it.
pub(super) fn begin(client: &mut Client, disk: &SimDisk) -> Result<Store, StreamError> {
    let store = open(disk.folder())?;
    client.settle(&store).unwrap_or_else(|why| panic!("opened: {why}"));
    let little = StreamLimits::NONE.bytes_max(250).when_full(WhenFull::DropOldest);
    let limits = [(A, StreamLimits::NONE), (B, StreamLimits::NONE), (KEEPS_LITTLE, little)];
    client.commit(&store, limits.map(|(stream, limits)| (stream, Asked::Create(limits))).to_vec())?;
    Ok(store)
}

/// Does the steps until one fails. What is done when the store is dropped, a process that is killed does not do.
fn run(disk: &SimDisk, client: &mut Client, steps: &[Step]) -> Result<(), StreamError> {
    let mut store = begin(client, disk)?;
    steps.iter().try_for_each(|next| step(client, &mut store, disk, *next))
}

/// What is wrong after a crash of `disk`, if something is.
pub(super) fn holds(client: &Client, disk: &SimDisk) -> Result<(), String> {
    let opened = |disk: &SimDisk| open(disk.folder()).map_err(|error| format!("it does not open: {error}"));
    let mut client = client.clone();
    let store = opened(disk)?;
    client.settle(&store)?;
    drop(store);
    // What was seen once stays.
    disk.crash_by(0);
    let store = opened(disk)?;
    client.settle(&store).map_err(|why| format!("after another crash: {why}"))?;
    // And the store goes on, from the same offsets.
    let batch = vec![(FileId(50), Asked::Create(StreamLimits::NONE)), (FileId(50), client.append(2, 9))];
    client.commit(&store, batch).map_err(|error| format!("it does not go on: {error}"))?;
    store.tidy();
    drop(store);
    disk.crash_by(0);
    client.settle(&opened(disk)?).map_err(|why| format!("after going on: {why}"))
}

#[derive(Debug, Default)]
struct Found {
    workloads: usize,
    states: usize,
    wrong: Vec<String>,
}

/// One in so many is looked at, unless the long campaign is asked for. Not one in two: what comes by turns would be left out for good.
pub(super) fn one_in(so_many: usize) -> usize {
    let all = std::env::var("NEXUS_CRASHES").is_ok_and(|which| which == "all");
    if all { 1 } else { so_many }
}

/// Crashes the workload at every change, or at one in so many, with every outcome.
fn crash_everywhere(steps: &[Step], omission: Option<Omission>, one_in: usize, found: &mut Found) {
    found.workloads += 1;
    for change in (1..).step_by(one_in) {
        let disk = SimDisk::new(change);
        omission.into_iter().for_each(|omission| disk.leave_out(omission));
        disk.power_off_at(change);
        let mut client = Client::new();
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| run(&disk, &mut client, steps)));
        if ran.is_err() {
            found.wrong.push(format!("{steps:?}, at change {change}: it panics"));
            return;
        }
        if !disk.is_off() {
            assert!(ran.is_ok_and(|ran| ran.is_ok()), "{steps:?} goes through");
            return;
        }
        for outcome in Outcome::of(disk.unsynced(), OUTCOMES_MAX, SEEDS) {
            let disk = disk.copy();
            outcome.crash(&disk);
            found.states += 1;
            let held = std::panic::catch_unwind(AssertUnwindSafe(|| holds(&client, &disk)));
            let case = || format!("{steps:?}, crash at change {change}, {outcome:?}");
            match held {
                Err(_) => found.wrong.push(format!("{}: it panics", case())),
                Ok(Err(why)) => found.wrong.push(format!("{}: {why}", case())),
                Ok(Ok(())) => {}
            }
        }
    }
}

/// A life that has everything in it, so many rounds of it.
pub(super) fn life(rounds: usize) -> Vec<Step> {
    (0..rounds)
        .map(|round| STEPS[(round * 7 + round / 10) % STEPS.len()])
        .filter(|step| *step != Step::Close)
        .collect()
}

#[test]
fn a_crash_anywhere_leaves_what_was_acknowledged_in_order_and_once() {
    let mut found = Found::default();
    let short = STEPS.into_iter().filter(|step| *step != Step::Sparse);
    let pairs = short.clone().flat_map(|a| short.clone().map(move |b| [a, b]));
    for pair in pairs.step_by(one_in(7)) {
        crash_everywhere(&pair, None, 1, &mut found);
    }
    // An append that is asked for with the closing, which is not done.
    crash_everywhere(&[Step::Large, Step::Close], None, 1, &mut found);
    crash_everywhere(&life(40), None, one_in(3), &mut found);
    crash_everywhere(&[Step::One, Step::Sparse, Step::Sparse], None, one_in(3), &mut found);
    println!("{} workloads, {} states, {} wrong", found.workloads, found.states, found.wrong.len());
    assert!(found.wrong.is_empty(), "{:#?}", &found.wrong[..found.wrong.len().min(10)]);
    assert!(found.states > 5_000 / one_in(7), "{} states", found.states);
}

/// The campaign is about moves, too.
#[test]
fn what_is_left_in_segments_that_are_mostly_dead_is_moved() {
    let disk = SimDisk::new(1);
    let mut client = Client::new();
    let mut store = begin(&mut client, &disk).unwrap();
    for next in [Step::One, Step::Sparse, Step::Sparse] {
        step(&mut client, &mut store, &disk, next).unwrap();
    }
    let moved = store.moved.load(std::sync::atomic::Ordering::Relaxed);
    println!("{moved} appends were moved");
    assert!(moved > 3, "{moved}");
    client.check(&store).unwrap();
}

/// The campaign is one: it sees when a flush is left out.
#[test]
fn a_store_that_flushes_too_little_or_too_late_is_caught() {
    for omission in [Omission::FileSyncs, Omission::FolderSyncs, Omission::PromptFileSyncs] {
        let mut found = Found::default();
        crash_everywhere(&life(12), Some(omission), one_in(3), &mut found);
        println!("{omission:?}: {} of {} states are wrong", found.wrong.len(), found.states);
        assert!(!found.wrong.is_empty(), "{omission:?}");
    }
}

/// The process is killed: what it wrote is seen by the next one, and is not on disk until somebody flushes it.
#[test]
fn what_a_killed_process_left_in_memory_alone_is_flushed_before_it_counts() {
    for change in 1.. {
        let disk = SimDisk::new(change);
        disk.power_off_at(change);
        let mut client = Client::new();
        let _ = run(&disk, &mut client, &life(40));
        if !disk.is_off() {
            assert!(change > 100, "there were {change} changes");
            return;
        }
        disk.kill();
        let store = open(disk.folder()).unwrap();
        client.settle(&store).unwrap_or_else(|why| panic!("killed at {change}: {why}"));
        disk.crash_by(0);
        let held = client.check(&open(disk.folder()).unwrap());
        assert_eq!(held, Ok(0), "killed at {change}");
    }
}

#[test]
fn a_crash_while_it_is_opened_after_a_crash_loses_nothing() {
    let mut states = 0;
    for first in (3..400).step_by(11 * one_in(3)) {
        let disk = SimDisk::new(first);
        disk.power_off_at(first);
        let mut client = Client::new();
        let _ = run(&disk, &mut client, &life(60));
        if first % 2 == 0 {
            disk.crash_by(first);
        } else {
            disk.kill();
        }
        for second in 1.. {
            let disk = disk.copy();
            disk.power_off_at(disk.counts().changes + second);
            let opened = open(disk.folder());
            if !disk.is_off() {
                client.check(&opened.unwrap()).unwrap();
                break;
            }
            drop(opened);
            for outcome in Outcome::of(disk.unsynced(), OUTCOMES_MAX, SEEDS) {
                let disk = disk.copy();
                outcome.crash(&disk);
                states += 1;
                let held = holds(&client, &disk);
                held.unwrap_or_else(|why| panic!("crashes at {first} and {second}, {outcome:?}: {why}"));
            }
        }
    }
    println!("{states} states");
    assert!(states > 500 / one_in(3), "{states}");
}

#[test]
fn each_operation_may_fail_once_or_for_good() {
    let mut struck = 0;
    for fault in [Fault::Error, Fault::Full, Fault::Sync] {
        for times in [1, u64::MAX] {
            for from in (1..).step_by(one_in(7)) {
                let disk = SimDisk::new(from);
                disk.fail_from(from, fault, times);
                let mut client = Client::new();
                if let Ok(mut store) = begin(&mut client, &disk) {
                    for next in life(14) {
                        // It goes on after an error, as clients do.
                        if step(&mut client, &mut store, &disk, next).is_err()
                            && matches!(next, Step::Reopen | Step::Again)
                        {
                            break;
                        }
                    }
                }
                if disk.counts().faults == 0 {
                    break;
                }
                struck += 1;
                disk.heal();
                for outcome in [0, 1, 5, 6] {
                    let disk = disk.copy();
                    if outcome == 6 {
                        disk.kill();
                    } else {
                        disk.crash_by(outcome);
                    }
                    let held = holds(&client, &disk);
                    held.unwrap_or_else(|why| {
                        panic!("{fault:?} from {from}, {times} times, outcome {outcome}: {why}")
                    });
                }
            }
        }
    }
    println!("{struck} faults");
    assert!(struck > 400 / one_in(7), "{struck}");
}

#[test]
fn a_flush_that_fails_is_never_repeated_and_the_streams_are_read_only() {
    let disk = SimDisk::new(3);
    let mut client = Client::new();
    let store = begin(&mut client, &disk).unwrap();
    let one = client.append(1, 10);
    client.commit(&store, vec![(A, one)]).unwrap();
    let before = seen_in(&store).unwrap();
    disk.fail_from(0, Fault::Sync, 1);
    let two = client.append(1, 10);
    let error = client.commit(&store, vec![(A, two)]).unwrap_err();
    assert!(error.is_unknown(), "{error}");
    let syncs = disk.counts().file_syncs;
    let three = client.append(1, 10);
    let error = client.commit(&store, vec![(A, three)]).unwrap_err();
    assert!(matches!(error, StreamError::Store(StoreError::ReadOnly { .. })), "{error}");
    store.close();
    assert_eq!(disk.counts().file_syncs, syncs);
    assert_eq!(seen_in(&store).unwrap(), before, "what was acknowledged can be read");
}

#[test]
fn a_full_disk_refuses_before_anything_is_acknowledged_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(3);
    let mut client = Client::new();
    let store = begin(&mut client, &disk).unwrap();
    disk.fail_from(0, Fault::Full, u64::MAX);
    let large = client.append(2, 4_000);
    let error = client.commit(&store, vec![(A, large)]).unwrap_err();
    assert!(matches!(error, StreamError::Store(StoreError::Full)), "{error}");
    disk.heal();
    let small = client.append(1, 10);
    client.commit(&store, vec![(A, small)]).unwrap();
    assert_eq!(store.state(A).unwrap().tail, 1);
    client.check(&store).unwrap();
}
