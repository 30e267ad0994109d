//! The lock table under each interleaving and each value that the memory model allows.
//!
//! `RUSTFLAGS="--cfg nexus_loom" cargo test -p nexus-kernel --lib --target-dir target/loom loom_`

use std::sync::Arc;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use nexus_messages::{Timestamp, VPath};

use super::Mode::Write;
use super::Scope::{Entry, Subtree};
use super::{LockOwner, PathLocks, Scope};

struct World {
    locks: PathLocks,
    /// Changed under locks alone, with accesses that order nothing.
    counter: AtomicUsize,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { locks: PathLocks::new(|| Timestamp(0)), counter: AtomicUsize::new(0) })
    }

    fn raise(&self) {
        let seen = self.counter.load(Ordering::Relaxed);
        self.counter.store(seen + 1, Ordering::Relaxed);
    }
}

fn owner() -> LockOwner {
    LockOwner { agent: Arc::from("a"), since: Timestamp(0) }
}

/// Both raise the counter under their lock; if both held theirs at once, or one did not see what the other did, one rise is lost.
fn both_wait(a: (&'static str, Scope), b: (&'static str, Scope)) {
    loom::model(move || {
        let world = World::new();
        let work = |world: Arc<World>, (text, scope): (&'static str, Scope)| {
            block_on(async {
                let path = VPath::parse(text).unwrap();
                let guard = world.locks.lock(&path, Write, scope, owner()).await;
                world.raise();
                drop(guard);
            });
        };
        let other = thread::spawn({
            let world = world.clone();
            move || work(world, b)
        });
        work(world.clone(), a);
        other.join().unwrap();
        assert_eq!(world.counter.load(Ordering::Relaxed), 2);
        assert!(world.locks.is_idle());
    });
}

/// Mutations it catches: raising the count after the shards were visited; a relaxed load in `Shard::try_take`; a release that does
/// not look at the count.
#[test]
fn loom_a_subtree_and_an_entry_below_it_take_turns() {
    both_wait(("/a", Subtree), ("/a/b", Entry));
}

/// Mutation it catches: a release that does not look for marks.
#[test]
fn loom_two_writers_of_a_path_take_turns() {
    both_wait(("/a", Entry), ("/a", Entry));
}

/// Mutations it catches: a claim that is announced only after the queue and the shards were looked through; a count that is read before the
/// shard is locked.
#[test]
fn loom_trying_never_gives_a_subtree_and_an_entry_below_it() {
    loom::model(|| {
        let world = World::new();
        let other = thread::spawn({
            let world = world.clone();
            move || world.locks.try_lock(&VPath::parse("/a/b").unwrap(), Write, Entry, owner())
        });
        let tree = world.locks.try_lock(&VPath::parse("/a").unwrap(), Write, Subtree, owner());
        let entry = other.join().unwrap();
        assert!(tree.is_none() || entry.is_none());
        assert!(tree.is_some() || entry.is_some(), "one of the two has come first");
    });
}
