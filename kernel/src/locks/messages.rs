//! What the lock actor is asked. Locking itself is not among it: that happens on the caller's task.

use std::time::Duration;

use nexus_messages::{Message, VPath};

use super::view::{HeldLock, LockStatistics};

/// What the lock table counted.
#[derive(Debug, Clone, Copy)]
pub struct CountLocks;

impl Message for CountLocks {
    type Reply = LockStatistics;
    const NAME: &'static str = "locks.count";
}

/// The locks held at `base` and below it, by path, at most `limit` and at most [`LIST_MAX`](super::LIST_MAX).
#[derive(Debug, Clone)]
pub struct ListLocks {
    /// Where to look.
    pub base: VPath,
    /// How many to list.
    pub limit: usize,
}

impl Message for ListLocks {
    type Reply = Vec<HeldLock>;
    const NAME: &'static str = "locks.list";
}

/// The locks that are held for longer than that, by path, at most [`LIST_MAX`](super::LIST_MAX). Each is logged, too: its owner is
/// probably stuck. A lock cannot be taken away from who holds it, whose work it protects.
#[derive(Debug, Clone, Copy)]
pub struct FindStuck {
    /// How long a lock may be held.
    pub longer_than: Duration,
}

impl Message for FindStuck {
    type Reply = Vec<HeldLock>;
    const NAME: &'static str = "locks.find_stuck";
}
