//! The store on a disk that loses, tears and fails: what was acknowledged is there and whole, and nothing is ever returned that was not put.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_kernel::hal::StoreError;
use nexus_messages::syscall::ByteRange;

use super::index::Index;
use super::model::{ask_all, content, open};
use super::segment;
use super::store::Store;
use crate::disk::sim::{Fault, Omission, SimDisk};

/// What may be found under a key: the last acknowledged state, and all that was asked for since and may have been done.
#[derive(Debug, Clone, Default)]
struct Possible {
    acknowledged: Option<Bytes>,
    since: Vec<Option<Bytes>>,
}

impl Possible {
    fn allows(&self, found: &Option<Bytes>) -> bool {
        self.acknowledged == *found || self.since.contains(found)
    }
}

/// What a client knows: it was told, or it was not.
#[derive(Debug, Clone, Default)]
struct Client(BTreeMap<String, Possible>);

impl Client {
    /// Asks for a batch of changes together: puts, and deletions where there is no content.
    fn change(&mut self, store: &Store, changes: &[(String, Option<Bytes>)]) -> Result<(), StoreError> {
        let mut answers = ask_all(store, changes);
        let mut first = Ok(());
        for ((key, content), answer) in changes.iter().zip(&mut answers) {
            let known = self.0.entry(key.clone()).or_default();
            match answer.try_recv().expect("nobody else drives") {
                Ok(_) => *known = Possible { acknowledged: content.clone(), since: Vec::new() },
                Err(StoreError::Unknown { .. }) => {
                    known.since.push(content.clone());
                    first = Err(StoreError::Closed);
                }
                // All other errors say that nothing was changed.
                Err(_) => first = Err(StoreError::Closed),
            }
        }
        first
    }

    /// What is wrong with the store, if anything is.
    fn complaint(&self, store: &Store) -> Option<String> {
        if let Some(damage) = store.damage().first() {
            return Some(format!("told as damaged: {damage}"));
        }
        for (key, possible) in &self.0 {
            match store.get(key, ByteRange::ALL) {
                Ok(found) if possible.allows(&found) => {}
                Ok(found) => {
                    let len = |content: &Option<Bytes>| content.as_ref().map(Bytes::len);
                    return Some(format!(
                        "{key}: found {:?}, acknowledged {:?}",
                        len(&found),
                        len(&possible.acknowledged)
                    ));
                }
                Err(error) => return Some(format!("{key}: {error}")),
            }
        }
        let listed = store.list("", None, usize::MAX).unwrap_or_default();
        listed.into_iter().find(|key| !self.0.contains_key(key)).map(|key| format!("{key} was never put"))
    }
}

/// A life of a store that has everything in it: batches, segments, runs and merges, deletions, compaction, opening again.
fn live(disk: &SimDisk, client: &mut Client, rounds: u32) -> Result<(), StoreError> {
    let mut store = open(disk.folder())?;
    let mut wrong = Ok(());
    for round in 0..rounds {
        let changes: Vec<_> = (0..1 + round % 4)
            .map(|n| {
                let key = format!("k{:02}", (round * 5 + n * 3) % 17);
                let is_put = (round + n) % 4 != 3;
                (key, is_put.then(|| content(round * 10 + n, (round as usize * 1_777 + 500) % 9_000)))
            })
            .collect();
        wrong = client.change(&store, &changes).and(wrong);
        if round % 13 == 9 {
            wrong = store.compact().map(drop).and(wrong);
        }
        if round % 17 == 11 {
            drop(store);
            store = open(disk.folder())?;
        }
        if disk.is_off() {
            return Err(StoreError::Closed);
        }
    }
    wrong
}

/// Crashes a life of so many rounds at each change, with each of so many outcomes. Gives how many states there were, and the first complaint.
fn crash_everywhere(rounds: u32, outcomes: u64, omission: Option<Omission>) -> (u64, Option<String>) {
    let mut states = 0;
    for change in 1.. {
        let disk = SimDisk::new(change);
        omission.into_iter().for_each(|omission| disk.leave_out(omission));
        disk.power_off_at(change);
        let mut client = Client::default();
        // How it ends does not matter: what was acknowledged does.
        let _ = live(&disk, &mut client, rounds);
        if !disk.is_off() {
            return (states, None);
        }
        for seed in 0..outcomes {
            let disk = disk.copy();
            disk.crash_by(seed);
            states += 1;
            let at = |what: String| Some(format!("change {change}, outcome {seed}: {what}"));
            let store = match open(disk.folder()) {
                Ok(store) => store,
                Err(error) => return (states, at(format!("it does not open: {error}"))),
            };
            if let Some(complaint) = client.complaint(&store) {
                return (states, at(complaint));
            }
            // And what was seen once stays: it is durable by now.
            let seen = store.list("", None, usize::MAX).unwrap();
            drop(store);
            disk.crash_by(0);
            match open(disk.folder()).and_then(|store| store.list("", None, usize::MAX)) {
                Ok(again) if again == seen => {}
                again => return (states, at(format!("{seen:?}, and after another crash {again:?}"))),
            }
        }
    }
    unreachable!()
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_every_change() {
    let (states, complaint) = crash_everywhere(48, 5, None);
    assert_eq!(complaint, None);
    println!("{states} states");
    assert!(states > 1_000, "{states}");
}

#[test]
fn a_store_that_flushes_too_little_or_too_late_is_caught() {
    for omission in [Omission::FileSyncs, Omission::FolderSyncs, Omission::PromptFileSyncs] {
        let (states, complaint) = crash_everywhere(48, 5, Some(omission));
        println!("{omission:?}: {complaint:?} after {states} states");
        assert!(complaint.is_some(), "{omission:?}");
    }
}

#[test]
fn a_crash_while_it_is_opened_after_a_crash_loses_nothing() {
    for first in (5..200).step_by(7) {
        let disk = SimDisk::new(first);
        disk.power_off_at(first);
        let mut client = Client::default();
        let _ = live(&disk, &mut client, 60);
        disk.crash_by(first);
        for second in 1.. {
            let disk = disk.copy();
            disk.power_off_at(disk.counts().changes + second);
            let opened = open(disk.folder());
            if !disk.is_off() {
                assert_eq!(client.complaint(&opened.unwrap()), None);
                break;
            }
            for seed in 0..5 {
                let disk = disk.copy();
                disk.crash_by(seed);
                let complaint = client.complaint(&open(disk.folder()).unwrap());
                assert_eq!(complaint, None, "crashes at {first} and at {second}, outcome {seed}");
            }
        }
    }
}

/// The process is killed: what it wrote is seen by the next one, and is not on disk until somebody flushes it.
#[test]
fn what_a_killed_process_left_in_memory_alone_is_flushed_before_it_counts() {
    for change in 1.. {
        let disk = SimDisk::new(change);
        disk.power_off_at(change);
        let mut client = Client::default();
        let _ = live(&disk, &mut client, 26);
        if !disk.is_off() {
            break;
        }
        disk.kill();
        let store = open(disk.folder()).unwrap();
        assert_eq!(client.complaint(&store), None, "killed at {change}");
        let seen = store.list("", None, usize::MAX).unwrap();
        disk.crash_by(0);
        let store = open(disk.folder()).unwrap();
        assert_eq!(store.list("", None, usize::MAX).unwrap(), seen, "killed at {change}");
        assert_eq!(client.complaint(&store), None, "killed at {change}");
    }
}

/// Then opening the store needs no segment that is gone, and no read is led to one.
#[test]
fn the_index_on_disk_never_leads_to_a_segment_that_was_removed() {
    for change in 1.. {
        let disk = SimDisk::new(change);
        let store = open(disk.folder()).unwrap();
        let mut client = Client::default();
        for round in 0..40 {
            let changes = [(format!("k{:02}", round % 7), Some(content(round, 9_000)))];
            client.change(&store, &changes).unwrap();
        }
        disk.power_off_at(disk.counts().changes + change);
        let compacted = store.compact();
        if !disk.is_off() {
            assert!(compacted.unwrap() > 0, "segments were removed");
            assert!(change > 3, "at {change} changes nothing was to be seen");
            return;
        }
        drop(store);
        for seed in 0..8 {
            let disk = disk.copy();
            disk.crash_by(seed);
            let names = disk.folder().list().unwrap();
            let index = Index::open(disk.folder(), &names).unwrap();
            for entry in index.from("") {
                let (key, place) = entry.unwrap();
                let segment = segment::name(place.segment);
                assert!(names.contains(&segment), "change {change}, outcome {seed}: {key} in {segment}");
            }
        }
    }
}

/// One in so many is looked at, unless the long campaign is asked for: NEXUS_CRASHES=all.
fn one_in(so_many: usize) -> usize {
    let all = std::env::var("NEXUS_CRASHES").is_ok_and(|which| which == "all");
    if all { 1 } else { so_many }
}

#[test]
fn each_operation_may_fail_once_or_for_good() {
    for fault in [Fault::Error, Fault::Full, Fault::Sync] {
        for times in [1, u64::MAX] {
            for from in (1..).step_by(one_in(3)) {
                let disk = SimDisk::new(from);
                disk.fail_from(from, fault, times);
                let mut client = Client::default();
                let _ = live(&disk, &mut client, 13);
                if disk.counts().faults == 0 {
                    break;
                }
                let at = format!("{fault:?} from {from}, {times} times");
                disk.heal();
                // The process goes on or is started again, and then the power fails.
                for seed in [0, 5] {
                    let disk = disk.copy();
                    let store = open(disk.folder()).unwrap();
                    assert_eq!(client.complaint(&store), None, "{at}, opened again");
                    drop(store);
                    disk.crash_by(seed);
                    let store = open(disk.folder()).unwrap();
                    assert_eq!(client.complaint(&store), None, "{at}, outcome {seed}");
                    let mut client = client.clone();
                    client.change(&store, &[("k00".into(), Some(content(1, 10)))]).unwrap();
                    assert_eq!(client.complaint(&store), None, "{at}, outcome {seed}");
                }
            }
        }
    }
}

/// The index was written in the middle of a batch, when the store was opened, and what said that the batch had been flushed is lost.
#[test]
fn a_batch_of_which_the_index_knows_a_half_is_kept_as_a_whole() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    let mut client = Client::default();
    let changes: Vec<_> = (0..8).map(|n| (format!("k{n}"), Some(content(n, 700)))).collect();
    client.change(&store, &changes[..1]).unwrap();
    let index = disk.paths().len();
    let mut answers: Vec<_> = changes.iter().map(|(key, data)| store.ask_put(key, data.as_slice())).collect();
    store.drive();
    assert!(answers.iter_mut().all(|answer| answer.try_recv().unwrap().is_ok()));
    changes.into_iter().for_each(|(key, data)| {
        client.0.insert(key, Possible { acknowledged: data, since: Vec::new() });
    });
    drop(store);
    drop(open(disk.folder()).unwrap());
    assert!(disk.paths().len() > index, "a part of it was written");
    disk.crash_by(0);
    assert_eq!(client.complaint(&open(disk.folder()).unwrap()), None);
}

#[test]
fn after_a_failed_flush_service_goes_on_in_another_segment() {
    let disk = SimDisk::new(3);
    let store = open(disk.folder()).unwrap();
    let mut client = Client::default();
    client.change(&store, &[("a".into(), Some(content(1, 100)))]).unwrap();
    disk.fail_from(0, Fault::Sync, 1);
    client.change(&store, &[("b".into(), Some(content(2, 100)))]).unwrap();
    assert_eq!(disk.counts().faults, 1);
    assert_eq!(disk.paths().len(), 2);
    disk.fail_from(0, Fault::Sync, 2);
    assert!(client.change(&store, &[("c".into(), Some(content(3, 100)))]).is_err(), "twice: nobody knows");
    client.change(&store, &[("d".into(), Some(content(4, 100)))]).unwrap();
    for seed in 0..20 {
        let disk = disk.copy();
        disk.crash_by(seed);
        assert_eq!(client.complaint(&open(disk.folder()).unwrap()), None, "outcome {seed}");
    }
}
