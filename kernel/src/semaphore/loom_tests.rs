//! The table under each interleaving and each value that the memory model allows.
//!
//! `RUSTFLAGS="--cfg nexus_loom" cargo test -p nexus-kernel --lib --target-dir target/loom loom_`

use std::sync::Arc;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use nexus_messages::syscall::LockKind;
use nexus_messages::{EntryType, LifeId, VPath, ZoneId};

use super::places::{Grant, Owner, Request};
use super::table::{Bounds, Lined, Table, Tokens, Waiting};
use super::ticket::Verdict;
use crate::advisory::LockKey;

const TWO: LockKind = LockKind::Semaphore(2);

struct World {
    table: Table<LockKey>,
    /// Changed under locks alone, with accesses that order nothing.
    counter: AtomicUsize,
    /// How many hold a place.
    inside: AtomicUsize,
}

impl World {
    fn new() -> Arc<Self> {
        let bounds = Bounds { held: 8, waiting: 8, each: usize::MAX };
        let table = Table::new(
            Tokens::new(1, u64::MAX, |_| 0),
            bounds,
            || Duration::ZERO,
            |_| (),
            |_, _, _| Vec::new(),
        );
        Arc::new(Self { table, counter: AtomicUsize::new(0), inside: AtomicUsize::new(0) })
    }

    fn raise(&self) {
        let seen = self.counter.load(Ordering::Relaxed);
        self.counter.store(seen + 1, Ordering::Relaxed);
    }

    fn hold(&self, path: &str, kind: LockKind) -> Grant {
        match self.table.line_up(&key(path), request(kind)) {
            Lined::Held(grant) => grant,
            Lined::Waiting(waiting) => given(waiting),
            Lined::Full | Lined::Enough => panic!("there is room"),
        }
    }

    /// In line behind who holds what is in the way.
    fn behind(&self, path: &str, kind: LockKind) -> Waiting<'_, LockKey> {
        match self.table.line_up(&key(path), request(kind)) {
            Lined::Waiting(waiting) => waiting,
            _ => panic!("it is held"),
        }
    }

    fn release(&self, path: &str, grant: Grant) {
        assert!(self.table.release(&key(path), grant.id).is_some());
    }

    /// Holds one of two places.
    fn enter(&self) -> Grant {
        let grant = self.hold("/a", TWO);
        assert!(self.inside.fetch_add(1, Ordering::Relaxed) < 2, "there are two places");
        grant
    }

    fn leave(&self, grant: Grant) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
        self.release("/a", grant);
    }

    fn work(&self, path: &str) {
        let id = self.hold(path, LockKind::Exclusive).id;
        self.raise();
        // In the simplest way first, as calls do.
        let released =
            self.table.give_back(key(path), id).is_ok() || self.table.release(&key(path), id).is_some();
        assert!(released);
    }
}

fn key(path: &str) -> LockKey {
    LockKey::new(&ZoneId::root(), &VPath::parse(path).unwrap())
}

fn given(waiting: Waiting<'_, LockKey>) -> Grant {
    match block_on(waiting) {
        Verdict::Held(grant) => grant,
        Verdict::Deadlock(_) => panic!("nobody looks for circles"),
    }
}

fn request(kind: LockKind) -> Request {
    let owner = Owner::new(Arc::from("a"), LifeId::KERNEL, 0);
    let ttl = Duration::from_secs(1);
    Request { kind, ttl, owner, entry_type: EntryType::Reg, tied: false, durable: false }
}

/// Both raise the counter under their lock; if both held theirs at once, or one did not see what the other did, one rise is lost.
fn take_turns(one: &'static str, other: &'static str) {
    loom::model(move || {
        let world = World::new();
        let second = thread::spawn({
            let world = world.clone();
            move || world.work(other)
        });
        world.work(one);
        second.join().unwrap();
        assert_eq!(world.counter.load(Ordering::Relaxed), 2);
        assert!(world.table.is_idle());
    });
}

/// Mutation it catches: a lock that is handed over, and nobody told.
#[test]
fn loom_one_lock_is_handed_over() {
    take_turns("/a", "/a");
}

/// Mutations it catches: a release that serves nobody (nobody ever wakes); a ticket that forgets its waker.
#[test]
fn loom_two_holders_of_one_lock_take_turns() {
    take_turns("/a", "/a/b");
}

/// Mutation it catches: a look at the part of a key that does not heed that all parts were put together.
#[test]
fn loom_the_root_and_a_path_take_turns() {
    take_turns("/", "/a");
}

/// A wait that is given up while the lock is handed over: the next in line has it, whichever comes first.
///
/// Mutation it catches: a drop that does not give back what was given and not heard of.
#[test]
fn loom_a_wait_that_is_dropped_while_it_is_served_loses_no_lock() {
    loom::model(|| {
        let world = World::new();
        let holder = world.hold("/a", LockKind::Exclusive);
        let waiting = world.behind("/a", LockKind::Exclusive);
        let releasing = thread::spawn({
            let world = world.clone();
            move || world.release("/a", holder)
        });
        drop(waiting);
        releasing.join().unwrap();
        world.work("/a");
        assert!(world.table.is_idle());
    });
}

/// Two places are held, and of the two that wait for one the first gives up while a place becomes free: the other one has it, and no more than two ever hold one.
///
/// Mutations it catches: as above; a place that counts for nobody while it is handed over.
#[test]
fn loom_a_place_of_two_that_was_given_up_is_the_next_ones() {
    loom::model(|| {
        let world = World::new();
        let (first, second) = (world.enter(), world.enter());
        let waiting = world.behind("/a", TWO);
        let next = thread::spawn({
            let world = world.clone();
            move || {
                let grant = world.enter();
                world.leave(grant);
            }
        });
        let leaving = thread::spawn({
            let world = world.clone();
            move || world.leave(first)
        });
        drop(waiting);
        leaving.join().unwrap();
        next.join().unwrap();
        world.leave(second);
        assert!(world.table.is_idle());
    });
}

/// Two that share a lock wait for the one who has it alone: both hold it when that one is gone, although neither lets go of it before, and both see what was done under it.
///
/// Mutations it catches: a release that serves the first in line alone; one that wakes the first alone.
#[test]
fn loom_one_release_serves_all_who_share_the_lock() {
    loom::model(|| {
        let world = World::new();
        let alone = world.hold("/a", LockKind::Exclusive);
        let waiting = world.behind("/a", LockKind::Shared);
        let other = thread::spawn({
            let world = world.clone();
            move || {
                let grant = world.hold("/a", LockKind::Shared);
                assert_eq!(world.counter.load(Ordering::Relaxed), 1);
                grant
            }
        });
        let leaving = thread::spawn({
            let world = world.clone();
            move || {
                world.raise();
                world.release("/a", alone);
            }
        });
        let mine = given(waiting);
        assert_eq!(world.counter.load(Ordering::Relaxed), 1);
        let theirs = other.join().unwrap();
        leaving.join().unwrap();
        world.release("/a", mine);
        world.release("/a", theirs);
        assert!(world.table.is_idle());
    });
}
