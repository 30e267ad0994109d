//! The whole kernel, rows and blobs, on a disk that loses, tears and reorders what was not flushed: all workloads of up to three steps, at every
//! point at which a crash can come, with every outcome of what was not flushed (all of them when they are few, else some of each kind).
//!
//! What must hold: what is there is what was there after some step, no earlier one than the last that was acknowledged, and than the last of which
//! a reader saw anything; all content reads back, whole; no damage is told; and the kernel goes on.
//!
//!     cargo test --test model crashes -- --nocapture
//!
//! NEXUS_CRASHES=all looks at each workload, else some are left out.
//!
//! Workloads that begin alike crash alike until they part, so of each only the points in its last step are looked at. One run of it gives them
//! all: the disk shows itself before each change. Two crashes that leave the same bytes behind are looked at once, and counted as two.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use nexus::{Create, EntryType, Expect, Parents, VPath};
use nexus_drivers::disk::sim::{Omission, Outcome, SimDisk};
use parking_lot::Mutex;

use crate::calls::{Call, Expected, Given, Place};
use crate::client::path;
use crate::disk::{Blobs, Machine};
use crate::tree::{Answer, Seen, Tree};

/// Above this many outcomes not all of them are looked at.
const OUTCOMES_MAX: usize = 27;

/// Outcomes that are looked at when there are more, by the seeds that choose them. 0 keeps nothing, 1 keeps all.
const SEEDS: std::ops::Range<u64> = 0..10;

/// One in so many workloads of two steps is looked at unless all are asked for, and one in so many of three. Both have no divisor in
/// common with the number of steps: else some would never be the last.
const SAMPLES: [usize; 2] = [17, 701];

/// So it is with what is put off.
const PUT_OFF_SAMPLES: [usize; 2] = [5, 170];

/// And with a mount that writes back.
const BACK_SAMPLES: [usize; 2] = [80, 3_000];

/// How many states there are when each workload is looked at, at least.
const STATES_MIN: usize = 100_000;

/// One in so many states is crashed again after the kernel went on from it.
const CRASHED_AGAIN: usize = 16;

/// After so many workloads a long campaign says how far it is.
const TOLD_EVERY: usize = 500;

/// What is kept in the metastore, in a segment with others, and in chunks.
const SMALL: usize = 100;
const MIDDLE: usize = 100_000;
const HALF: usize = 512 << 10;

/// What a client does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Call(Call),
    /// As a call, but acknowledged before it is on disk.
    Eventual(Call),
    /// What was acknowledged before it was on disk is brought there.
    Sync,
    /// The log is folded into the database.
    Fold,
    /// Blobs that are left are copied together.
    Compact,
    /// The kernel ends, and another one begins on what it left.
    Reopen,
}

pub(crate) fn write(path: &str, data: Vec<u8>, place: Place) -> Call {
    let (path, expected) = (path.into(), Expected::Nothing);
    Call::Write { path, data, place, truncate: false, create: Create::IfMissing, expected }
}

pub(crate) fn middle(byte: u8) -> Vec<u8> {
    (0..MIDDLE).map(|at| (at / 512).to_le_bytes()[0] ^ byte).collect()
}

/// More than is kept as one blob. Two letters, so that its chunks are few and not all the same.
pub(crate) fn large(byte: u8) -> Vec<u8> {
    [vec![byte; HALF], vec![byte + 1; HALF], vec![byte; SMALL]].concat()
}

pub(crate) fn set(path: &str, entry_type: Option<EntryType>, mode: Option<u32>) -> Call {
    let create = if entry_type.is_some() { Create::IfMissing } else { Create::Never };
    let given = Given { mode, ..Given::default() };
    Call::Set { path: path.into(), entry_type, target: None, create, parents: Parents::Implied, given }
}

pub(crate) fn link(path: &str, target: &str) -> Call {
    Call::Set {
        path: path.into(),
        entry_type: Some(EntryType::Link),
        target: Some(target.into()),
        create: Create::IfMissing,
        parents: Parents::Implied,
        given: Given::default(),
    }
}

pub(crate) fn rename(from: &str, to: &str) -> Call {
    Call::Rename { from: from.into(), to: to.into(), replace: true, expected: Expected::Nothing }
}

pub(crate) fn unlink(path: &str) -> Call {
    let (path, expected) = (path.into(), Expected::Nothing);
    Call::Unlink { path, recursive: true, expect: Expect::Any, expected }
}

pub(crate) fn copy(from: &str, to: &str) -> Call {
    Call::Copy { from: from.into(), to: to.into(), replace: true }
}

/// What there is before a workload begins.
pub(crate) fn beginning() -> Vec<Call> {
    vec![
        write("/d/small", vec![b's'; SMALL], Place::Whole),
        write("/d/middle", middle(1), Place::Whole),
        write("/d/large", large(b'l'), Place::Whole),
        set("/d/e", Some(EntryType::Dir), None),
    ]
}

fn steps() -> Vec<Step> {
    let transaction = vec![
        write("/a", vec![b't'; SMALL], Place::Whole),
        write("/t", middle(2), Place::Whole),
        rename("/d/small", "/d/e/small"),
        unlink("/d/middle"),
    ];
    let calls = [
        write("/a", vec![b'a'; SMALL], Place::Whole),
        write("/b", middle(3), Place::Whole),
        write("/c", large(b'c'), Place::Whole),
        write("/d/small", vec![b'z'; SMALL], Place::End),
        write("/d/large", vec![b'z'; SMALL], Place::At(HALF - 10)),
        write("/d/middle", middle(4), Place::Whole),
        rename("/d/small", "/g/small"),
        rename("/d", "/f"),
        unlink("/d/middle"),
        unlink("/d"),
        set("/d/sub", Some(EntryType::Dir), None),
        Call::Tx(transaction),
        copy("/d/large", "/copy"),
        set("/d/small", None, Some(0o600)),
        link("/link", "d/small"),
    ];
    calls.into_iter().map(Step::Call).chain([Step::Fold, Step::Compact, Step::Reopen]).collect()
}

/// The paths that readers look at.
const LOOKED_AT: [&str; 13] = [
    "/a",
    "/b",
    "/c",
    "/copy",
    "/d",
    "/d/large",
    "/d/middle",
    "/d/small",
    "/d/sub",
    "/f/middle",
    "/g/small",
    "/link",
    "/t",
];

/// What is there after a step.
#[derive(Debug, Clone)]
struct State {
    tree: Tree,
    seen: Seen,
    /// What a reader is told of each of [`LOOKED_AT`].
    told: Vec<Answer>,
    /// Whether readers may see it before it is on disk.
    put_off: bool,
}

impl State {
    fn of(tree: Tree) -> Self {
        Self::after(tree, false)
    }

    fn after(tree: Tree, put_off: bool) -> Self {
        let mut looked_at = tree.clone();
        let told =
            LOOKED_AT.map(|path| looked_at.call(&Call::Stat { path: path.into(), follow: false })).into();
        Self { seen: tree.seen(), told, tree, put_off }
    }
}

/// What clients know: states are numbered.
#[derive(Debug, Default)]
struct Known {
    states: Vec<State>,
    acknowledged: usize,
    /// A reader saw something that was not so before this one.
    seen: usize,
    /// Whether readers look. They keep away from folds, which hold the database's locks and change nothing that can be seen.
    looks: bool,
    /// Whether points are kept.
    keeps: bool,
    points: Vec<Point>,
    wrong: Vec<String>,
}

/// The disk at a point at which it can crash, and what must be there then.
#[derive(Debug)]
struct Point {
    disk: SimDisk,
    /// The earliest state that may be found.
    least: usize,
    /// The latest.
    most: usize,
}

impl Known {
    /// Lets a reader look at each path.
    fn look(&mut self, machine: &Looking) {
        for (at, path) in machine.paths.iter().enumerate() {
            let Some(told) = machine.client.glance(path) else { continue };
            match self.states.iter().position(|state| state.told[at] == told) {
                Some(first) if self.states[first].put_off => {}
                Some(first) => self.seen = self.seen.max(first),
                None => self.wrong.push(format!("a reader is told {told:?} of {path}")),
            }
        }
    }

    /// All that was done so far was promised to be on disk.
    fn acknowledge(&mut self) {
        self.acknowledged = self.states.len() - 1;
    }

    fn keep(&mut self, disk: &SimDisk, orders: Orders) {
        if self.keeps {
            let seen = if orders == Orders::ReplyFirst { 0 } else { self.seen };
            let (disk, least) = (disk.copy(), self.acknowledged.max(seen));
            self.points.push(Point { disk, least, most: self.states.len() - 1 });
        }
    }
}

struct Looking {
    client: crate::client::Client,
    paths: Vec<VPath>,
}

/// In which order clients see things done: as the kernel does them, or wrongly, for tests of the test.
///
/// No code of the kernel is changed for the wrong ones: it runs as it is, on a disk that leaves flushes out, or on a store that is behind with its blobs,
/// and to a client that is as if the kernel had that order. So what is shown is that the test sees such an order, and not that it sees each change of the code
/// that leads to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orders {
    Right,
    /// Right, too; the blobs are brought to a store elsewhere when they were acknowledged.
    WrittenBack,
    /// The reply comes before the flush: the disk leaves flushes out, and what readers saw is not held against it.
    ReplyFirst,
    /// Readers see the change before the flush, after which the reply comes: the disk leaves out the same flushes, and makes up for them before the reply
    /// counts, so that only what readers saw is broken.
    PublishFirst,
    /// The row is committed before its blob is written, after which the reply comes: the store puts blobs off.
    RowFirst,
    /// Folders are never flushed: the disk leaves that out.
    NoFolderSyncs,
}

impl Orders {
    fn break_disk(self, disk: &SimDisk) {
        match self {
            Self::ReplyFirst | Self::PublishFirst => disk.leave_out(Omission::PromptFileSyncs),
            Self::NoFolderSyncs => disk.leave_out(Omission::FolderSyncs),
            Self::Right | Self::WrittenBack | Self::RowFirst => {}
        }
    }

    fn blobs(self) -> Blobs {
        match self {
            Self::RowFirst => Blobs::late(),
            Self::WrittenBack => Blobs::WrittenBack,
            _ => Blobs::Here,
        }
    }

    /// Where the kernel that comes after the crash has its blobs.
    fn blobs_after(self) -> Blobs {
        if self == Self::WrittenBack { Blobs::WrittenBack } else { Blobs::Here }
    }
}

/// Runs a workload; gives what clients know of it, and the points of its last step, or of all.
fn run(base: &Base, steps: &[Step], orders: Orders, all_points: bool) -> Known {
    let disk = base.disk.copy();
    orders.break_disk(&disk);
    let known = Arc::new(Mutex::new(Known { states: vec![base.state.clone()], ..Known::default() }));
    let mut life = 1;
    let mut machine = Some(boot(&disk, life, orders, &known));
    for (number, step) in steps.iter().enumerate() {
        known.lock().keeps = all_points || number + 1 == steps.len();
        let running = machine.as_ref().expect("it runs");
        match step {
            Step::Call(call) | Step::Eventual(call) => {
                let put_off = matches!(step, Step::Eventual(_));
                let mut tree = known.lock().states.last().expect("there is a first").tree.clone();
                let due = tree.call(call);
                if due.is_ok() {
                    known.lock().states.push(State::after(tree, put_off));
                }
                let client = if put_off { running.client.eventual() } else { running.client.clone() };
                let got = running.wait(client.call(call));
                let same = got == due || (matches!(call, Call::Tx(_)) && got.is_err() && due.is_err());
                assert!(same, "{got:?}, not {due:?}, of {call:?} in {steps:?}");
                running.write_late();
                if orders == Orders::PublishFirst {
                    disk.catch_up();
                }
                if !put_off {
                    known.lock().acknowledge();
                }
            }
            Step::Sync => {
                running.wait(running.client.sync()).expect("the disk is well");
                known.lock().acknowledge();
            }
            Step::Fold => {
                known.lock().looks = false;
                running.fold().expect("the disk is well");
                known.lock().looks = true;
            }
            Step::Compact => {
                running.compact().expect("the disk is well");
            }
            Step::Reopen => {
                // Who looks holds the kernel.
                keep_only(&disk, orders, &known);
                machine.take().expect("it runs").end();
                // An end in order leaves nothing in memory.
                known.lock().acknowledge();
                life += 1;
                machine = Some(boot(&disk, life, orders, &known));
            }
        }
        known.lock().keep(&disk, orders);
    }
    disk.unwatch();
    drop(machine);
    std::mem::take(&mut *known.lock())
}

/// Boots a kernel, and has each point from there on watched. What the disk does while it boots is watched, too, but by nobody who reads.
fn boot(disk: &SimDisk, life: u64, orders: Orders, known: &Arc<Mutex<Known>>) -> Machine {
    keep_only(disk, orders, known);
    let machine = Machine::boot(disk, life, orders.blobs()).expect("the disk is well");
    known.lock().looks = true;
    let looking = Looking { client: machine.client.clone(), paths: LOOKED_AT.map(path).into() };
    let keeping = known.clone();
    disk.watch(move |disk| {
        let known = &mut *keeping.lock();
        if known.looks {
            known.look(&looking);
        }
        known.keep(disk, orders);
    });
    machine
}

fn keep_only(disk: &SimDisk, orders: Orders, known: &Arc<Mutex<Known>>) {
    let keeping = known.clone();
    disk.watch(move |disk| keeping.lock().keep(disk, orders));
}

/// What a workload begins with.
struct Base {
    disk: SimDisk,
    state: State,
}

impl Base {
    /// A new disk, with nothing on it.
    fn nothing() -> Self {
        Self { disk: SimDisk::new(1), state: State::of(Tree::new(true)) }
    }

    /// A disk with some files.
    fn files() -> Self {
        Self::with(Blobs::Here)
    }

    /// The same, with blobs that are kept so.
    fn with(blobs: Blobs) -> Self {
        let Self { disk, state: State { mut tree, .. } } = Self::nothing();
        let machine = Machine::boot(&disk, 9, blobs).expect("the disk is well");
        for call in beginning() {
            let due = tree.call(&call);
            assert_eq!(machine.wait(machine.client.call(&call)), due, "{call:?}");
        }
        machine.end();
        disk.crash_by(1);
        Self { disk, state: State::of(tree) }
    }
}

/// What was found in a campaign.
#[derive(Default)]
struct Found {
    workloads: usize,
    points: usize,
    states: usize,
    /// What was there after a crash that left this behind, or what was wrong.
    images: HashMap<[u8; 32], Rc<Result<Seen, String>>>,
    wrong: Vec<String>,
}

impl Found {
    /// Crashes the workload at every point of its last step, or at every point at all.
    fn crash_everywhere(&mut self, base: &Base, steps: &[Step], orders: Orders, all_points: bool) {
        self.workloads += 1;
        let known = run(base, steps, orders, all_points);
        self.wrong.extend(known.wrong.iter().map(|why| format!("{steps:?}: {why}")));
        self.points += known.points.len();
        for (number, point) in known.points.iter().enumerate() {
            for outcome in Outcome::of(point.disk.unsynced(), OUTCOMES_MAX, SEEDS) {
                let disk = point.disk.copy();
                outcome.crash(&disk);
                self.states += 1;
                let there = self.there(disk, orders);
                if let Err(why) = known.allows(point, &there) {
                    let case = format!("{}, crash at point {number}, {outcome:?}", told(steps));
                    self.wrong.push(format!("{case}: {why}"));
                }
            }
        }
    }

    /// What is there on a disk that crashed.
    fn there(&mut self, disk: SimDisk, orders: Orders) -> Rc<Result<Seen, String>> {
        let image = disk.fingerprint();
        if let Some(there) = self.images.get(&image) {
            return there.clone();
        }
        let again = self.images.len().is_multiple_of(CRASHED_AGAIN);
        // The database below may panic at a file that lies, as it does when flushes are left out.
        let there =
            std::panic::catch_unwind(AssertUnwindSafe(|| recover(&disk, again, &orders.blobs_after())));
        let there = Rc::new(there.unwrap_or_else(|_| Err("it panics".into())));
        self.images.insert(image, there.clone());
        there
    }

    fn told(&self) -> String {
        let Self { workloads, points, states, images, wrong } = self;
        format!(
            "{workloads} workloads, {points} points, {states} states, {} images, {} wrong",
            images.len(),
            wrong.len()
        )
    }
}

impl Known {
    fn allows(&self, point: &Point, there: &Result<Seen, String>) -> Result<(), String> {
        let there = there.as_ref()?;
        let due = &self.states[point.least..=point.most];
        if due.iter().any(|state| state.seen == *there) {
            return Ok(());
        }
        let least = point.least;
        match self.states.iter().position(|state| state.seen == *there) {
            Some(early) if early < least => Err(format!("state {early} is there, {least} was promised")),
            Some(late) => Err(format!("state {late} is there, only {} were begun", point.most)),
            None => Err(format!("what is there was never so: {there:#?}, and not {:#?}", due[0].seen)),
        }
    }
}

/// A path at which a kernel writes that goes on.
const AFTER: &str = "/after";

/// What is there after a crash, or what is wrong. The kernel must go on, and `again` says whether it is crashed once more after that.
fn recover(disk: &SimDisk, again: bool, blobs: &Blobs) -> Result<Seen, String> {
    let wrong = |what: &'static str| move |error: nexus::Error| format!("{what}: {error}");
    let machine = Machine::boot(disk, 100, blobs.clone())?;
    let there = machine.wait(machine.client.seen()).map_err(wrong("reading"))?;
    let damage = machine.damage();
    if !damage.is_empty() {
        return Err(format!("damage is told: {damage:?}"));
    }
    let (small, large) =
        (write(AFTER, b"on".into(), Place::Whole), write("/after.middle", middle(9), Place::Whole));
    for call in [&small, &large] {
        machine.wait(machine.client.try_call(call)).map_err(wrong("going on"))?;
    }
    let after = machine.wait(machine.client.seen()).map_err(wrong("reading after going on"))?;
    disk.crash_by(0);
    drop(machine);
    let without =
        |seen: &Seen| -> Seen { seen.iter().filter(|(told, _)| !told.contains(AFTER)).cloned().collect() };
    if without(&after) != there || after.len() != there.len() + 2 {
        return Err(format!("after going on there is {after:#?}"));
    }
    if again {
        let machine = Machine::boot(disk, 101, blobs.clone())?;
        let then = machine.wait(machine.client.seen()).map_err(wrong("reading after another crash"))?;
        disk.crash_by(0);
        if then != after {
            return Err(format!("after another crash there is {then:#?}, and not {after:#?}"));
        }
    }
    Ok(there)
}

/// The steps without their content.
fn told(steps: &[Step]) -> String {
    let of = |step: &Step| match step {
        Step::Call(Call::Write { path, data, place, .. }) => {
            format!("write {} bytes to {path} {place:?}", data.len())
        }
        Step::Call(Call::Tx(calls)) => format!("transaction of {}", calls.len()),
        Step::Eventual(call) => format!("eventually {}", told(&[Step::Call(call.clone())])),
        other => format!("{other:?}"),
    };
    steps.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// Whether the long campaign is asked for.
pub(crate) fn everything() -> bool {
    std::env::var("NEXUS_CRASHES").is_ok_and(|which| which == "all")
}

/// All sequences of up to three of the `steps`; of those of two and of three one in so many, unless all are asked for.
pub(crate) fn sequences<S: Clone>(
    steps: &[S],
    all: bool,
    [of_two, of_three]: [usize; 2],
) -> impl Iterator<Item = Vec<S>> {
    // By their numbers: with what they write, all of them are some gigabytes.
    let longer = |shorter: &[Vec<usize>]| -> Vec<Vec<usize>> {
        let after =
            |before: &Vec<usize>| (0..steps.len()).map(|step| [&before[..], &[step]].concat()).collect();
        shorter.iter().flat_map::<Vec<_>, _>(after).collect()
    };
    let sampled = |all_of_them: &[Vec<usize>], one_in: usize| -> Vec<Vec<usize>> {
        let chosen = all_of_them.iter().enumerate().filter(|(n, _)| all || n % one_in == 3 % one_in);
        chosen.map(|(_, steps)| steps.clone()).collect()
    };
    let one = longer(&[vec![]]);
    let two = longer(&one);
    let three = longer(&two);
    let chosen = [one, sampled(&two, of_two), sampled(&three, of_three)].concat();
    let of = chosen.len();
    chosen.into_iter().enumerate().map(move |(number, sequence)| {
        if all && number.is_multiple_of(TOLD_EVERY) {
            println!("{number} of {of} workloads");
        }
        sequence.into_iter().map(|step| steps[step].clone()).collect()
    })
}

#[test]
fn a_crash_anywhere_leaves_a_prefix_whose_content_reads_back() {
    let all = everything();
    let mut found = Found::default();
    // Also while the store is made.
    found.crash_everywhere(&Base::nothing(), &[Step::Reopen], Orders::Right, true);
    let files = Base::files();
    for steps in sequences(&steps(), all, SAMPLES) {
        found.crash_everywhere(&files, &steps, Orders::Right, false);
    }
    println!("{}", found.told());
    assert!(found.wrong.is_empty(), "{:#?}", &found.wrong[..found.wrong.len().min(10)]);
    assert!(found.states > if all { STATES_MIN } else { 1_000 }, "{}", found.told());
}

#[test]
fn a_crash_anywhere_of_a_mount_that_writes_back_leaves_a_prefix_whose_content_reads_back() {
    let all = everything();
    let mut found = Found::default();
    found.crash_everywhere(&Base::nothing(), &[Step::Reopen], Orders::WrittenBack, true);
    let files = Base::with(Blobs::WrittenBack);
    for steps in sequences(&steps(), all, BACK_SAMPLES) {
        found.crash_everywhere(&files, &steps, Orders::WrittenBack, false);
    }
    println!("{}", found.told());
    assert!(found.wrong.is_empty(), "{:#?}", &found.wrong[..found.wrong.len().min(10)]);
    assert!(found.states > 500, "{}", found.told());
}

/// What is acknowledged before it is on disk, among what is not.
fn steps_put_off() -> Vec<Step> {
    let put_off = [
        write("/a", vec![b'e'; SMALL], Place::Whole),
        write("/b", middle(5), Place::Whole),
        write("/d/small", vec![b'y'; SMALL], Place::End),
        rename("/d", "/f"),
        unlink("/d"),
        Call::Tx(vec![write("/t", vec![b'u'; SMALL], Place::Whole), unlink("/d/middle")]),
    ];
    let strong = write("/c", vec![b'c'; SMALL], Place::Whole);
    // What is there already, so that nothing is committed.
    let same = set("/f", Some(EntryType::Dir), None);
    let strong = [strong, same].map(Step::Call);
    let others = [Step::Sync, Step::Fold, Step::Reopen];
    put_off.into_iter().map(Step::Eventual).chain(strong).chain(others).collect()
}

#[test]
fn a_crash_leaves_a_prefix_of_what_was_put_off_and_all_that_was_promised() {
    let all = everything();
    let (mut found, files) = (Found::default(), Base::files());
    for steps in sequences(&steps_put_off(), all, PUT_OFF_SAMPLES) {
        found.crash_everywhere(&files, &steps, Orders::Right, false);
    }
    println!("{}", found.told());
    assert!(found.wrong.is_empty(), "{:#?}", &found.wrong[..found.wrong.len().min(10)]);
    assert!(found.states > 500, "{}", found.told());
}

/// The test is one: it sees what goes wrong when things are done in another order, or some are left out, as far as a client can tell. See [`Orders`].
fn is_caught(orders: Orders, calls: Vec<Call>) -> Found {
    let steps: Vec<Step> = calls.into_iter().map(Step::Call).collect();
    let files = Base::files();
    let mut found = Found::default();
    found.crash_everywhere(&files, &steps, Orders::Right, true);
    assert!(found.wrong.is_empty(), "nothing is wrong with the kernel: {:#?}", found.wrong);
    let mut found = Found::default();
    found.crash_everywhere(&files, &steps, orders, true);
    println!("{orders:?}: {}", found.told());
    assert!(!found.wrong.is_empty(), "{orders:?} was not seen in {} states", found.states);
    found
}

fn has(found: &Found, why: &str) -> bool {
    found.wrong.iter().any(|wrong| wrong.contains(why))
}

#[test]
fn a_reply_before_the_flush_is_caught() {
    let found =
        is_caught(Orders::ReplyFirst, vec![write("/a", vec![b'a'; SMALL], Place::Whole), unlink("/d")]);
    assert!(has(&found, "was promised"), "{:#?}", found.wrong);
}

#[test]
fn a_change_that_readers_see_before_the_flush_is_caught() {
    let found = is_caught(Orders::PublishFirst, vec![write("/a", vec![b'a'; SMALL], Place::Whole)]);
    assert!(has(&found, "was promised"), "{:#?}", found.wrong);
}

#[test]
fn a_row_before_its_blob_is_caught() {
    let found = is_caught(Orders::RowFirst, vec![write("/b", middle(3), Place::Whole)]);
    assert!(has(&found, "reading"), "{:#?}", found.wrong);
}

#[test]
fn a_folder_that_is_not_flushed_is_caught() {
    is_caught(Orders::NoFolderSyncs, vec![write("/b", middle(3), Place::Whole)]);
}
