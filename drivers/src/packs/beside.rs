//! Puts, deletions, compactions, reads and listings beside each other: what is there is found, whole, and each client finds what it was told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nexus_messages::syscall::ByteRange;

use super::model::{ask_all, content, open};
use super::store::Store;
use crate::disk::sim::SimDisk;

/// Blobs that nobody touches once they are there.
const LASTING: u32 = 200;

/// What each writer does, and how many keys it has.
const ROUNDS: u32 = 300;
const KEYS: u32 = 60;

fn lasting(number: u32) -> (String, Bytes) {
    (format!("lasting/{number:04}"), content(number, 100 + (number as usize * 97) % 3_000))
}

/// Some changes together, until they are answered, whoever makes them.
fn change(store: &Store, changes: &[(String, Option<Bytes>)]) {
    for answer in ask_all(store, changes) {
        answer.blocking_recv().expect("it is answered").expect("the disk is well");
    }
}

/// Changes keys of its own, and finds each as it left it.
fn write(store: &Store, name: &str) -> BTreeMap<String, Bytes> {
    let mut own = BTreeMap::new();
    for round in 0..ROUNDS {
        let changes: Vec<_> = (0..1 + round % 5)
            .map(|n| {
                let key = format!("{name}/{:02}", (round * 7 + n * 11) % KEYS);
                let is_put = (round + n) % 3 != 2;
                (key, is_put.then(|| content(round * 10 + n, (round as usize * 1_777 + 50) % 6_000)))
            })
            .collect();
        change(store, &changes);
        for (key, content) in changes {
            match content {
                Some(content) => drop(own.insert(key, content)),
                None => drop(own.remove(&key)),
            }
        }
        for key in (0..KEYS).map(|n| format!("{name}/{n:02}")) {
            assert_eq!(store.get(&key, ByteRange::ALL).unwrap(), own.get(&key).cloned(), "{key}");
        }
        let listed = store.list(&format!("{name}/"), None, usize::MAX).unwrap();
        assert!(listed.iter().eq(own.keys()), "{name}, round {round}");
    }
    own
}

/// All that lasts is found, one by one, together, at hand, and in a listing.
fn look(store: &Store, from: u32) {
    let some: Vec<_> = (from..from + 9).map(|number| lasting(number % LASTING)).collect();
    let keys: Vec<_> = some.iter().map(|(key, _)| key.clone()).collect();
    for ((key, content), found) in some.iter().zip(store.get_many(&keys)) {
        assert_eq!(found.unwrap().as_ref(), Some(content), "{key}, with others");
        assert_eq!(store.get(key, ByteRange::ALL).unwrap().as_ref(), Some(content), "{key}");
    }
    if let Some(found) = store.at_hand(&keys) {
        assert!(found.iter().zip(&some).all(|(found, (_, content))| found == content));
    }
    let after = lasting(from % LASTING).0;
    let rest = LASTING - from % LASTING - 1;
    let listed = store.list("lasting/", Some(&after), usize::MAX).unwrap();
    assert_eq!(listed.len(), rest as usize, "after {after}");
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_there_is_found_whatever_goes_on_beside_it() {
    let disk = SimDisk::new(3);
    let store = open(disk.folder()).unwrap();
    for number in 0..LASTING {
        let (key, content) = lasting(number);
        change(&store, &[(key, Some(content))]);
    }
    let over = AtomicBool::new(false);
    let mut expected: BTreeMap<_, _> = (0..LASTING).map(lasting).collect();
    std::thread::scope(|scope| {
        let (store, over) = (&store, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                store.compact().unwrap();
            }
        });
        scope.spawn(move || {
            let mut from = 0;
            while !over.load(Ordering::Relaxed) {
                look(store, from);
                from += 31;
            }
        });
        // Also when one of them fails, or nobody would end.
        let _over = Over(over);
        let writers = ["one", "two"].map(|name| scope.spawn(move || write(store, name)));
        for writer in writers {
            expected.extend(writer.join().expect("it found what it was told"));
        }
    });
    let check = |store: &Store| {
        let listed = store.list("", None, usize::MAX).unwrap();
        assert!(listed.iter().eq(expected.keys()));
        for (key, content) in &expected {
            assert_eq!(store.get(key, ByteRange::ALL).unwrap().as_ref(), Some(content), "{key}");
        }
    };
    check(&store);
    drop(store);
    let store = open(disk.folder()).unwrap();
    assert_eq!(store.damage(), []);
    check(&store);
}
