//! The table under each interleaving and each value that the memory model allows.
//!
//! `RUSTFLAGS="--cfg nexus_loom" cargo test -p nexus-kernel --lib --target-dir target/loom loom_`

use std::sync::Arc;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use nexus_messages::syscall::LockKind;
use nexus_messages::{LifeId, VPath, ZoneId};

use super::places::{Grant, Owner, Request};
use super::table::{Bounds, Lined, Table, Tokens};
use super::ticket::Verdict;
use crate::advisory::LockKey;

struct World {
    table: Table<LockKey>,
    /// Changed under locks alone, with accesses that order nothing.
    counter: AtomicUsize,
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
        Arc::new(Self { table, counter: AtomicUsize::new(0) })
    }

    fn raise(&self) {
        let seen = self.counter.load(Ordering::Relaxed);
        self.counter.store(seen + 1, Ordering::Relaxed);
    }

    fn hold(&self, path: &str) -> Grant {
        match self.table.line_up(&key(path), request()) {
            Lined::Held(grant) => grant,
            Lined::Waiting(waiting) => match block_on(waiting) {
                Verdict::Held(grant) => grant,
                Verdict::Deadlock(_) => panic!("nobody looks for circles"),
            },
            Lined::Full | Lined::Enough => panic!("there is room"),
        }
    }

    fn work(&self, path: &str) {
        let id = self.hold(path).id;
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

fn request() -> Request {
    let owner = Owner { agent: Arc::from("a"), life: LifeId::KERNEL, session: 0 };
    let ttl = Duration::from_secs(1);
    Request { kind: LockKind::Exclusive, ttl, owner, tied: false, durable: false }
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
        let holder = world.hold("/a");
        let Lined::Waiting(waiting) = world.table.line_up(&key("/a"), request()) else {
            panic!("it is held")
        };
        let releasing = thread::spawn({
            let world = world.clone();
            move || assert!(world.table.release(&key("/a"), holder.id).is_some())
        });
        drop(waiting);
        releasing.join().unwrap();
        world.work("/a");
        assert!(world.table.is_idle());
    });
}
