//! Advisory locks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ident::LockId;
use crate::path::VPath;

/// Acquires an advisory lock on `path`, or extends one: with an id it extends, without one it acquires.
///
/// A lock ends when it is released, when its time is over, or when the handle that took it is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysLock {
    /// What is locked. It need not exist.
    pub path: VPath,
    /// The lock to extend.
    pub id: Option<LockId>,
    /// How it is shared.
    pub kind: LockKind,
    /// How long it lasts when nobody extends it.
    pub ttl: Duration,
    /// How long to wait for it; none to try once.
    pub wait: Option<Duration>,
}

/// How a lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LockKind {
    /// One holder.
    Exclusive,
    /// Any number of holders, none of them exclusive.
    Shared,
    /// At most this many holders; at least 1.
    Semaphore(u32),
}

/// What [`SysLock`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Locked {
    /// The lock, for extending and releasing it.
    pub id: LockId,
    /// How long it lasts from now on.
    pub ttl: Duration,
}

/// Releases the lock `id` on `path`, or all locks on it by force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysUnlock {
    /// What is locked.
    pub path: VPath,
    /// The lock; none for all of them, which needs the administrator's handle.
    pub id: Option<LockId>,
}

/// What [`SysUnlock`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unlocked {
    /// How many holders were released.
    pub released: u32,
}

impl SysLock {
    /// How long a lock lasts when the caller does not say.
    pub const TTL_DEFAULT: Duration = Duration::from_secs(30);

    /// An exclusive lock on `path`, tried once.
    pub fn exclusive(path: impl Into<VPath>) -> Self {
        let path = path.into();
        Self { path, id: None, kind: LockKind::Exclusive, ttl: Self::TTL_DEFAULT, wait: None }
    }

    /// A shared lock on `path`, tried once.
    pub fn shared(path: impl Into<VPath>) -> Self {
        Self { kind: LockKind::Shared, ..Self::exclusive(path) }
    }

    /// One of `holders` places at `path`, tried once.
    pub fn semaphore(path: impl Into<VPath>, holders: u32) -> Self {
        Self { kind: LockKind::Semaphore(holders), ..Self::exclusive(path) }
    }

    /// Extends the lock `id` on `path`.
    pub fn extend(path: impl Into<VPath>, id: LockId) -> Self {
        Self { id: Some(id), ..Self::exclusive(path) }
    }

    /// Lasts for `ttl`.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Waits for up to `wait`.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }
}

impl SysUnlock {
    /// Releases the lock `id` on `path`.
    pub fn new(path: impl Into<VPath>, id: LockId) -> Self {
        Self { path: path.into(), id: Some(id) }
    }

    /// Releases all locks on `path`.
    pub fn force(path: impl Into<VPath>) -> Self {
        Self { path: path.into(), id: None }
    }
}
