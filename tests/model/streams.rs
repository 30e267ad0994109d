//! The whole kernel with its streams, on a disk that loses, tears and reorders what was not flushed: workloads of up to three steps, at every point at which a crash can
//! come, with every outcome of what was not flushed (all of them when they are few, else some of each kind).
//!
//! What must hold: what is there is what was there after some step, no earlier one than the last that was acknowledged, and no later one than the last that was begun. So each record that was
//! acknowledged is there, in its order and once, and an append in doubt as a whole or not; what a member of a group is done with is not given again, and all else is; a watch that
//! goes on from a place in the log is told of each commit since, once. And the kernel goes on.
//!
//!     cargo test --test model streams -- --nocapture
//!
//! NEXUS_CRASHES=all looks at each workload, else some are left out.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use nexus::{
    ErrorKind, GroupAction, GroupDone, GroupSettings, Lsn, StreamStart, SysGroup, SysRead, SysRename,
    SysSetattr, SysTake, SysUnlink, SysWatch, SysWrite, VPath,
};
use nexus_drivers::disk::sim::{Omission, Outcome, SimDisk};
use parking_lot::Mutex;

use crate::client::{Client, path};
use crate::crashes::{everything, sequences};
use crate::disk::Machine;

/// Above this many outcomes not all of them are looked at.
const OUTCOMES_MAX: usize = 9;

/// Outcomes that are looked at when there are more, by the seeds that choose them. 0 keeps nothing, 1 keeps all.
const SEEDS: std::ops::Range<u64> = 0..6;

/// One in so many workloads of two steps is looked at unless all are asked for, and one in so many of three.
const SAMPLES: [usize; 2] = [2, 19];

/// One in so many states is crashed again after the kernel went on from it.
const CRASHED_AGAIN: usize = 8;

const GROUP: &str = "g";

/// A file whose writes are commits as any other.
const FILE: &str = "/file";

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Make,
    /// So many records, of so many bytes, together.
    Append(usize, usize),
    Rename,
    Unlink,
    Write,
    Join,
    Take(u32),
    /// Is done with the first record that it has.
    Acknowledge,
    GiveBack,
    RemoveGroup,
    Fold,
    Reopen,
}

const STEPS: [Step; 13] = [
    Step::Make,
    Step::Append(1, 10),
    Step::Append(3, 200),
    Step::Append(1, 2_000),
    Step::Rename,
    Step::Unlink,
    Step::Write,
    Step::Join,
    Step::Take(2),
    Step::Acknowledge,
    Step::GiveBack,
    Step::RemoveGroup,
    Step::Reopen,
];

/// Where the stream is, and where it is after a rename.
const PLACES: [&str; 2] = ["/s", "/t"];

/// What a group is: its first record that was never given, and those that nobody is done with, with how often each was given.
type Group = (u64, BTreeMap<u64, u32>);

/// What can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct View {
    /// The streams that are there, by their paths: the records, and the group.
    streams: BTreeMap<&'static str, (Vec<Bytes>, Option<Group>)>,
    /// What a watch is told since the beginning.
    events: Vec<String>,
}

/// What there is, in the plainest way.
#[derive(Debug, Clone, Default)]
struct Model {
    view: View,
    place: usize,
    /// Which records are with us.
    held: Vec<u64>,
    /// So that no two appends are alike.
    appended: usize,
}

impl Model {
    fn stream(&mut self) -> Option<&mut (Vec<Bytes>, Option<Group>)> {
        self.view.streams.get_mut(PLACES[self.place])
    }

    fn at(&self) -> VPath {
        path(PLACES[self.place])
    }

    /// The records of the next append.
    fn records(&self, count: usize, bytes: usize) -> Vec<Bytes> {
        let record = |n: usize| {
            let mut record = format!("{}.{n}.", self.appended).into_bytes();
            record.resize(bytes.max(record.len()), b'x');
            record.into()
        };
        (0..count).map(record).collect()
    }

    /// What is there after the step; none when nothing can be done.
    fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Make => {
                if next.stream().is_some() {
                    return None;
                }
                next.view.streams.insert(PLACES[next.place], (Vec::new(), None));
                next.view.events.push(PLACES[next.place].into());
            }
            Step::Append(count, bytes) => {
                let records = next.records(count, bytes);
                next.stream()?.0.extend(records);
                next.appended += 1;
            }
            Step::Rename => {
                let stream = next.view.streams.remove(PLACES[next.place])?;
                next.view.events.push(PLACES[next.place].into());
                next.place = 1 - next.place;
                next.view.streams.insert(PLACES[next.place], stream);
            }
            Step::Unlink => {
                next.view.streams.remove(PLACES[next.place])?;
                next.view.events.push(PLACES[next.place].into());
                next.held.clear();
            }
            Step::Write => next.view.events.push(FILE.into()),
            Step::Join => {
                let group = &mut next.stream()?.1;
                if group.is_some() {
                    return None;
                }
                *group = Some((0, BTreeMap::new()));
            }
            Step::Take(most) => {
                let held = next.held.clone();
                let (records, group) = next.stream()?;
                let (next_one, open) = group.as_mut()?;
                let again = open.keys().copied().filter(|offset| !held.contains(offset));
                let given: Vec<u64> =
                    again.chain(*next_one..records.len() as u64).take(most as usize).collect();
                for offset in &given {
                    *open.entry(*offset).or_default() += 1;
                    *next_one = (*next_one).max(offset + 1);
                }
                if given.is_empty() {
                    return None;
                }
                next.held.extend(given);
            }
            Step::Acknowledge => {
                let first = next.first_held()?;
                next.stream()?.1.as_mut()?.1.remove(&first);
                next.held.retain(|offset| *offset != first);
            }
            Step::GiveBack => {
                let first = next.first_held()?;
                next.held.retain(|offset| *offset != first);
            }
            Step::RemoveGroup => {
                next.stream()?.1.take()?;
                next.held.clear();
            }
            Step::Fold => {}
            // Its lives ended with the process.
            Step::Reopen => next.held.clear(),
        }
        Some(next)
    }

    fn first_held(&self) -> Option<u64> {
        self.held.iter().min().copied()
    }
}

/// Does a step with the kernel.
async fn act(client: &Client, model: &Model, step: Step) -> nexus::Result<()> {
    let (kernel, admin, at) = (&client.kernel, &client.admin, model.at());
    let group = async |action| kernel.send(admin, SysGroup::new(&at, GROUP, action)).await.map(drop);
    let first = model.first_held().unwrap_or_default();
    match step {
        Step::Make => kernel.send(admin, SysSetattr::stream(&at)).await.map(drop),
        Step::Append(count, bytes) => {
            let records = model.records(count, bytes);
            kernel.send(admin, SysWrite::vectored(&at, records).append()).await.map(drop)
        }
        Step::Rename => {
            kernel.send(admin, SysRename::new(&at, path(PLACES[1 - model.place]))).await.map(drop)
        }
        Step::Unlink => kernel.send(admin, SysUnlink::at(&at)).await.map(drop),
        Step::Write => {
            let data = format!("{}", model.view.events.len());
            kernel.send(admin, SysWrite::at(path(FILE), data).create()).await.map(drop)
        }
        Step::Join => {
            let (start, settings) = (StreamStart::Oldest, GroupSettings::default().deliveries_max(99));
            group(GroupAction::Join { start, settings }).await
        }
        Step::Take(most) => kernel.send(admin, SysTake::new(&at, GROUP).records_max(most)).await.map(drop),
        Step::Acknowledge => group(GroupAction::Acknowledge(first.into())).await,
        Step::GiveBack => {
            group(GroupAction::GiveBack { which: first.into(), delay: std::time::Duration::ZERO }).await
        }
        Step::RemoveGroup => group(GroupAction::Remove).await,
        Step::Fold | Step::Reopen => Ok(()),
    }
}

/// What can be seen of the kernel.
async fn look(client: &Client, since: Lsn) -> nexus::Result<View> {
    let (kernel, admin) = (&client.kernel, &client.admin);
    let mut view = View::default();
    for place in PLACES {
        let at = path(place);
        let mut records = Vec::new();
        loop {
            let read = SysRead::at(&at).records_from(records.len() as u64);
            let read = match kernel.send(admin, read).await {
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                read => read?.records.expect("it is a stream"),
            };
            records.extend(read.records.into_iter().map(|record| record.data));
            if records.len() as u64 != read.tail {
                continue;
            }
            let group = match kernel.send(admin, SysGroup::new(&at, GROUP, GroupAction::Inspect)).await {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                done => match done? {
                    GroupDone::Inspected(group) => {
                        let held = group.held.iter().map(|held| (held.offset, held.deliveries));
                        let waiting =
                            group.waiting.iter().map(|waiting| (waiting.offset, waiting.deliveries));
                        Some((group.info.next, held.chain(waiting).collect()))
                    }
                    other => panic!("{other:?}"),
                },
            };
            view.streams.insert(place, (records, group));
            break;
        }
    }
    // One commit at a time: each goes on where the one before ended.
    let mut next = since;
    loop {
        let watch = SysWatch::at(VPath::root()).since(next).limit(NonZeroU32::MIN);
        let told = kernel.send(admin, watch).await?;
        if told.events.is_empty() {
            return Ok(view);
        }
        next = told.next;
        view.events.extend(told.events.iter().map(|event| event.path.to_string()));
    }
}

/// The disk at a point at which it can crash, and which models may be found then.
struct Point {
    disk: SimDisk,
    least: usize,
    most: usize,
}

#[derive(Default)]
struct Known {
    models: Vec<Model>,
    acknowledged: usize,
    keeps: bool,
    points: Vec<Point>,
}

impl Known {
    fn keep(&mut self, disk: &SimDisk) {
        if self.keeps {
            let (least, most) = (self.acknowledged, self.models.len() - 1);
            self.points.push(Point { disk: disk.copy(), least, most });
        }
    }
}

struct Base {
    disk: SimDisk,
    model: Model,
    /// Where watches go on from.
    since: Lsn,
}

impl Base {
    /// A disk with a stream, and a group that has begun.
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let machine = Machine::with_streams(&disk, 9).expect("the disk is well");
        let since = {
            let watch = SysWatch::at(VPath::root());
            machine.wait(machine.client.kernel.send(&machine.client.admin, watch)).expect("it is told").next
        };
        let mut model = Model::default();
        let before = [Step::Make, Step::Append(2, 10), Step::Append(1, 500), Step::Join, Step::Take(2)];
        for step in before.into_iter().chain([Step::Acknowledge]) {
            machine.wait(act(&machine.client, &model, step)).expect("the disk is well");
            model = model.after(step).expect("it can be done");
        }
        machine.end();
        disk.crash_by(1);
        Self { disk, model: model.after(Step::Reopen).expect("it can be"), since }
    }
}

/// Runs a workload; gives what clients know of it, and the points of its last step. None when a step cannot be done.
fn run(base: &Base, steps: &[Step], omission: Option<Omission>) -> Option<Known> {
    let mut model = base.model.clone();
    for step in steps {
        model = model.after(*step)?;
    }
    let disk = base.disk.copy();
    if let Some(omission) = omission {
        disk.leave_out(omission);
    }
    let known = Arc::new(Mutex::new(Known { models: vec![base.model.clone()], ..Known::default() }));
    let keeping = known.clone();
    disk.watch(move |disk| keeping.lock().keep(disk));
    let mut life = 1;
    let mut machine = Machine::with_streams(&disk, life).expect("the disk is well");
    for (number, step) in steps.iter().enumerate() {
        let now = known.lock().models.last().expect("there is a first").clone();
        let after = now.after(*step).expect("it can be done");
        {
            let mut known = known.lock();
            known.keeps = number + 1 == steps.len();
            known.models.push(after);
        }
        match step {
            Step::Fold => machine.fold().expect("the disk is well"),
            Step::Reopen => {
                machine.end();
                life += 1;
                machine = Machine::with_streams(&disk, life).expect("the disk is well");
            }
            step => machine.wait(act(&machine.client, &now, *step)).expect("the disk is well"),
        }
        let mut known = known.lock();
        known.acknowledged = known.models.len() - 1;
        known.keep(&disk);
    }
    disk.unwatch();
    drop(machine);
    let known = std::mem::take(&mut *known.lock());
    Some(known)
}

#[derive(Default)]
struct Found {
    workloads: usize,
    points: usize,
    states: usize,
    images: HashMap<[u8; 32], Rc<Result<View, String>>>,
    wrong: Vec<String>,
}

impl Found {
    fn crash_everywhere(&mut self, base: &Base, steps: &[Step], omission: Option<Omission>) {
        let Some(known) = run(base, steps, omission) else { return };
        self.workloads += 1;
        self.points += known.points.len();
        for (number, point) in known.points.iter().enumerate() {
            for outcome in Outcome::of(point.disk.unsynced(), OUTCOMES_MAX, SEEDS) {
                let disk = point.disk.copy();
                outcome.crash(&disk);
                self.states += 1;
                let there = self.there(base, disk);
                let due = &known.models[point.least..=point.most];
                let wrong = match &*there {
                    Ok(there) if due.iter().any(|model| model.view == *there) => continue,
                    Ok(there) => format!("there is {there:?}, and not {:?}", due[0].view),
                    Err(why) => why.clone(),
                };
                self.wrong.push(format!("{steps:?}, crash at point {number}, {outcome:?}: {wrong}"));
            }
        }
    }

    fn there(&mut self, base: &Base, disk: SimDisk) -> Rc<Result<View, String>> {
        let image = disk.fingerprint();
        if let Some(there) = self.images.get(&image) {
            return there.clone();
        }
        let again = self.images.len().is_multiple_of(CRASHED_AGAIN);
        let there = Rc::new(recover(base, &disk, again));
        self.images.insert(image, there.clone());
        there
    }

    fn told(&self) -> String {
        let Self { workloads, points, states, images, wrong } = self;
        let (images, wrong) = (images.len(), wrong.len());
        format!("{workloads} workloads, {points} points, {states} states, {images} images, {wrong} wrong")
    }
}

/// What is there after a crash, or what is wrong. The kernel must go on, and `again` says whether it is crashed once more after that.
fn recover(base: &Base, disk: &SimDisk, again: bool) -> Result<View, String> {
    let wrong = |what: &'static str| move |error: nexus::Error| format!("{what}: {error}");
    let machine = Machine::with_streams(disk, 100)?;
    let there = machine.wait(look(&machine.client, base.since)).map_err(wrong("looking"))?;
    let mut model = Model { view: there.clone(), appended: 1_000, ..Model::default() };
    model.place = usize::from(there.streams.contains_key(PLACES[1]));
    for step in [Step::Make, Step::Join, Step::Append(2, 300), Step::Take(2), Step::Acknowledge] {
        let Some(after) = model.after(step) else { continue };
        machine.wait(act(&machine.client, &model, step)).map_err(wrong("going on"))?;
        model = after;
    }
    let after = machine.wait(look(&machine.client, base.since)).map_err(wrong("looking after going on"))?;
    disk.crash_by(0);
    drop(machine);
    if after != model.view {
        return Err(format!("after going on there is {after:?}, and not {:?}", model.view));
    }
    if again {
        let machine = Machine::with_streams(disk, 101)?;
        let then =
            machine.wait(look(&machine.client, base.since)).map_err(wrong("looking after another crash"))?;
        disk.crash_by(0);
        if then != after {
            return Err(format!("after another crash there is {then:?}, and not {after:?}"));
        }
    }
    Ok(there)
}

#[test]
fn a_crash_anywhere_leaves_what_was_acknowledged_of_streams_and_their_groups() {
    let (base, all) = (Base::new(), everything());
    let mut found = Found::default();
    let steps: Vec<Step> = STEPS.into_iter().chain([Step::Fold]).collect();
    for steps in sequences(&steps, all, SAMPLES) {
        found.crash_everywhere(&base, &steps, None);
    }
    println!("{}", found.told());
    assert!(found.wrong.is_empty(), "{:#?}", &found.wrong[..found.wrong.len().min(5)]);
    assert!(found.states > 1_000, "{}", found.told());
}

/// The test is one: it sees what goes wrong when flushes are left out.
#[test]
fn an_append_that_is_answered_before_the_flush_is_caught() {
    let base = Base::new();
    for step in [Step::Append(3, 200), Step::Acknowledge] {
        let steps = [Step::Take(2), step];
        let mut found = Found::default();
        found.crash_everywhere(&base, &steps, None);
        assert!(found.wrong.is_empty(), "nothing is wrong with the kernel: {:#?}", found.wrong);
        let mut found = Found::default();
        found.crash_everywhere(&base, &steps, Some(Omission::PromptFileSyncs));
        println!("{step:?}: {}", found.told());
        assert!(!found.wrong.is_empty(), "{step:?}: it was not seen in {} states", found.states);
    }
}
