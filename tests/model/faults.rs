//! The whole kernel, rows and blobs, on a disk that fails: the first operation, the second one, and so on, until none is left to fail.
//!
//! What must hold: nothing panics and nothing hangs; what was acknowledged is there, and what was told as not executed is not; once the disk is
//! well again the kernel reads, and it writes, or says that it is read-only until it is opened again; opened again it does both.
//!
//!     cargo test --test model faults -- --nocapture
//!
//! NEXUS_CRASHES=all strikes each operation, else some are left out.

use std::time::Duration;

use nexus::{EntryType, Error, ErrorKind, Executed};
use nexus_drivers::disk::sim::{Fault, SimDisk};

use crate::calls::{Call, Place};
use crate::crashes::{Step, beginning, copy, everything, large, link, middle, rename, set, unlink, write};
use crate::disk::{Blobs, Machine};
use crate::tree::Tree;

/// One in so many operations is struck unless all are asked for.
const SAMPLE: usize = 41;

/// Whatever is tried again after a pause is tried by then.
const PAUSE: Duration = Duration::from_secs(600);

fn workload() -> Vec<Step> {
    let transaction = vec![
        write("/tx/one", b"one".into(), Place::Whole),
        write("/tx/two", middle(5), Place::Whole),
        unlink("/d/small"),
    ];
    let read = |path: &str| Step::Call(Call::Read { path: path.into(), ranges: vec![(0, Some(20))] });
    let list = Step::Call(Call::List { path: "/".into(), recursive: true, limit: 100 });
    vec![
        Step::Call(write("/a", b"a".into(), Place::Whole)),
        Step::Call(write("/b", middle(2), Place::Whole)),
        read("/d/middle"),
        Step::Call(write("/c", large(b'c'), Place::Whole)),
        Step::Call(write("/d/large", b"here".into(), Place::At(600_000))),
        Step::Call(write("/d/small", b"more".into(), Place::End)),
        Step::Fold,
        Step::Call(rename("/d/small", "/g/small")),
        Step::Call(copy("/d/large", "/copy")),
        read("/d/large"),
        Step::Call(rename("/g/small", "/d/small")),
        Step::Call(Call::Tx(transaction)),
        list,
        Step::Call(link("/link", "d/middle")),
        Step::Reopen,
        read("/link"),
        Step::Call(set("/sub", Some(EntryType::Dir), None)),
        Step::Call(set("/d/middle", None, Some(0o600))),
        Step::Call(write("/b", middle(3), Place::Whole)),
        Step::Compact,
        Step::Call(unlink("/b")),
        Step::Call(rename("/d", "/f")),
        read("/f/middle"),
        Step::Fold,
        Step::Call(write("/a", b"again".into(), Place::Whole)),
        Step::Eventual(write("/e", b"soon".into(), Place::Whole)),
        Step::Eventual(rename("/f", "/h")),
        Step::Sync,
        Step::Eventual(write("/e", b"later".into(), Place::Whole)),
        Step::Eventual(unlink("/h/middle")),
        Step::Call(set("/strong", Some(EntryType::Dir), None)),
        Step::Eventual(write("/e", middle(4), Place::Whole)),
    ]
}

/// What may be there.
struct Possible {
    /// What was told decides it, but for what was told as unknown.
    now: Vec<Tree>,
    /// What may be there after a crash as well: what was there before changes that were put off.
    before: Vec<Tree>,
}

impl Possible {
    fn only(tree: Tree) -> Self {
        Self { now: vec![tree], before: Vec::new() }
    }

    /// Hears that all that is there is on disk.
    fn is_on_disk(&mut self) {
        self.before.clear();
    }

    /// Forgets what is there and what only may be after a crash: the kernel was opened again on a disk that failed.
    fn opened_again(&mut self) {
        self.now.append(&mut self.before);
    }

    /// Hears how a call ended that was to be on disk; says what is wrong with that.
    fn hear(&mut self, call: &Call, got: Result<String, Error>) -> Result<(), String> {
        let done = got.is_ok();
        let is_look = matches!(call, Call::Read { .. } | Call::List { .. });
        let heard = self.hear_put_off(call, got);
        if done && !is_look {
            self.is_on_disk();
        }
        heard
    }

    /// As [`hear`](Self::hear), of one that may be put off.
    fn hear_put_off(&mut self, call: &Call, got: Result<String, Error>) -> Result<(), String> {
        let made = |tree: &Tree| {
            let mut after = tree.clone();
            let due = after.call(call);
            (after, due)
        };
        let ends: Vec<_> = self.now.iter().map(made).collect();
        let error = match got {
            Ok(got) => {
                let is_look = matches!(call, Call::Read { .. } | Call::List { .. });
                let mut ends = ends;
                ends.retain(|(_, due)| due.as_ref() == Ok(&got));
                if ends.is_empty() {
                    return Err(format!("{got:?} was acknowledged, which cannot be"));
                }
                if is_look {
                    // Of what was told as unknown, only opening the store again tells, and not what it shows until then.
                    return Ok(());
                }
                let now = ends.into_iter().map(|(after, _)| after).collect();
                self.before.extend(std::mem::replace(&mut self.now, now));
                return Ok(());
            }
            Err(error) => error,
        };
        if error.executed() == Executed::Unknown {
            self.now.extend(ends.into_iter().filter(|(_, due)| due.is_ok()).map(|(after, _)| after));
            return Ok(());
        }
        let is_due = ends.iter().any(|(_, due)| due.as_ref().err() == Some(&error.kind()));
        let is_the_disks = matches!(
            error.kind(),
            ErrorKind::Io | ErrorKind::ReadOnly | ErrorKind::StoreFull | ErrorKind::Unavailable
        );
        if is_due || is_the_disks { Ok(()) } else { Err(format!("it is told {error}")) }
    }

    /// Whether what the kernel shows may be there; `crashed` says that a crash came before.
    fn check(&self, machine: &Machine, crashed: bool) -> Result<(), String> {
        let seen = machine.wait(machine.client.seen()).map_err(|error| format!("reading: {error}"))?;
        let before = self.before.iter().filter(|_| crashed);
        match self.now.iter().chain(before).any(|tree| tree.seen() == seen) {
            true => Ok(()),
            false => Err(format!("there is {seen:#?}, and not {:#?}", self.now[0].seen())),
        }
    }
}

struct Files {
    disk: SimDisk,
    tree: Tree,
}

fn files() -> Files {
    let (disk, mut tree) = (SimDisk::new(3), Tree::new(true));
    let machine = Machine::boot(&disk, 9, Blobs::Here).expect("the disk is well");
    for call in beginning() {
        assert_eq!(machine.wait(machine.client.call(&call)), tree.call(&call));
    }
    machine.end();
    disk.crash_by(1);
    Files { disk, tree }
}

/// Makes the calls on a disk that fails as it was told to, and says what is wrong.
fn strike(files: &Files, disk: &SimDisk, steps: &[Step]) -> Result<(), String> {
    let mut possible = Possible::only(files.tree.clone());
    let mut life = 1;
    let mut machine = Machine::boot(disk, life, Blobs::Here).ok();
    for (number, step) in steps.iter().enumerate() {
        let Some(running) = &machine else { break };
        match step {
            Step::Call(call) => {
                let got = running.wait(running.client.try_call(call));
                possible.hear(call, got).map_err(|why| format!("step {number}: {why}"))?;
            }
            Step::Eventual(call) => {
                let got = running.wait(running.client.eventual().try_call(call));
                possible.hear_put_off(call, got).map_err(|why| format!("step {number}: {why}"))?;
            }
            Step::Sync => {
                if running.wait(running.client.sync()).is_ok() {
                    possible.is_on_disk();
                }
            }
            Step::Fold => drop(running.fold()),
            Step::Compact => drop(running.compact()),
            Step::Reopen => {
                machine.take().expect("it runs").end();
                possible.opened_again();
                life += 1;
                machine = Machine::boot(disk, life, Blobs::Here).ok();
            }
        }
    }
    disk.heal();
    if let Some(machine) = &machine {
        machine.wait(machine.env().sleep(PAUSE));
        let here = |why: String| format!("the disk is well again: {why}");
        if possible.now.len() == 1 {
            possible.check(machine, false).map_err(here)?;
        }
        for call in [write("/late", b"late".into(), Place::Whole), write("/late", middle(7), Place::Whole)] {
            match machine.wait(machine.client.try_call(&call)) {
                Err(error) if error.kind() == ErrorKind::ReadOnly && error.executed() == Executed::No => {
                    let says_why = error.cause().is_some();
                    possible.hear(&call, Err(error)).map_err(here)?;
                    if !says_why {
                        return Err(here("it is read-only, and does not say why".into()));
                    }
                }
                Err(error) => return Err(here(format!("writing: {error}"))),
                got => possible.hear(&call, got).map_err(here)?,
            }
        }
    }
    for seed in [0, 1, 2] {
        let disk = disk.copy();
        disk.crash_by(seed);
        let opened = |why: String| format!("opened again after a crash ({seed}): {why}");
        let machine = Machine::boot(&disk, 50, Blobs::Here).map_err(opened)?;
        possible.check(&machine, true).map_err(opened)?;
        let call = write("/later", middle(8), Place::Whole);
        let got = machine.wait(machine.client.try_call(&call));
        got.map_err(|error| opened(format!("writing: {error}")))?;
        disk.crash_by(0);
    }
    Ok(())
}

#[test]
fn a_fault_anywhere_is_told_truthfully_and_the_kernel_goes_on_or_is_read_only() {
    let files = files();
    let steps = workload();
    let one_in = if everything() { 1 } else { SAMPLE };
    let (mut struck, mut wrong) = (0, Vec::new());
    for fault in [Fault::Error, Fault::Full, Fault::Sync] {
        for times in [1, u64::MAX] {
            for from in (1..).step_by(one_in) {
                let disk = files.disk.copy();
                disk.fail_from(disk.counts().operations + from, fault, times);
                let told = strike(&files, &disk, &steps);
                if let Err(why) = told {
                    wrong.push(format!("{fault:?} at operation {from}, {times} times: {why}"));
                }
                if disk.counts().faults == 0 {
                    break;
                }
                struck += 1;
            }
        }
    }
    println!("{struck} runs were struck, {} are wrong", wrong.len());
    assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(10)]);
    assert!(struck > 20, "{struck} were struck");
}
