//! Advisory locks.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ident::LockId;
use crate::path::VPath;

/// Acquires an advisory lock on `path`, or extends one: with an id it extends, without one it acquires.
///
/// A lock reaches all below its path: who holds `/a` keeps others from `/a/b`, and who holds `/a/b` keeps them from `/a`. It binds nobody who does not ask for
/// one: what is written under it can carry its [`Fence`]. It ends when it is released, when its time is over, and, when it is [tied](Self::tied), with the
/// life of who took it. A link at the end of the path is followed.
///
/// It is a lock in the zone whose mount serves the path: where a zone sees `/a` in another zone and has a mount of its own at `/a/b`, a lock on `/a` does not reach
/// `/a/b`.
///
/// Whoever has to wait is served in order: after all that is held, and all who asked before, as far as those stand in the way.
///
/// # Errors
/// `EAGAIN` when it would have to wait and does not, `ETIMEDOUT` when it waited in vain; `EDEADLK` when those who wait, this one among them, wait for each other, and
/// this one came last (who waits for one of several places waits for nobody while one who holds a place may go on); `EPERM` when what is to be extended is not held any more, or is a lock on another path; `ENOLCK` when there are too many, or the agent holds and
/// waits for as many as one may; `EINVAL` for a time out of bounds, and
/// for places for nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysLock {
    /// What is locked. It need not exist.
    pub path: VPath,
    /// The lock to extend.
    pub id: Option<LockId>,
    /// How it is shared.
    pub kind: LockKind,
    /// How long it lasts at least when nobody extends it; one of a second or more may last for some milliseconds longer.
    pub ttl: Duration,
    /// How long to wait for it; none to try once.
    pub wait: Option<Duration>,
    /// Whether it goes with the life of who takes it: with the handle, the service, or the connection.
    pub tied: bool,
    /// Whether it outlives the process, until its time is over.
    pub durable: bool,
    /// Which of its activities asks, for an agent that has several at once: who waits for each other is found by agent and activity.
    pub session: u64,
}

/// How a lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LockKind {
    /// One holder.
    Exclusive,
    /// Any number of holders, none of them exclusive.
    Shared,
    /// At most this many holders, who all say the same number; at least 1.
    Semaphore(u32),
}

/// What [`SysLock`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Locked {
    /// The lock, for extending and releasing it: whoever knows it can.
    pub id: LockId,
    /// What is locked, links followed.
    pub path: VPath,
    /// Above that of each lock that was given before, also by a process before this one.
    pub token: u64,
    /// How long it lasts from now on.
    pub ttl: Duration,
}

/// The lock under which something is written: it is written while that lock is held, or not at all. Whoever gets the lock next finds the file changed, the record appended,
/// the message in its pipe or read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fence {
    /// What is locked; it need not be what is written.
    pub path: VPath,
    /// The lock's token.
    pub token: u64,
}

/// A lock, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockState {
    /// Who holds it, in the order in which they got it.
    pub holders: Vec<LockHolder>,
    /// Who waits for it, in their order.
    pub waiting: Vec<LockWaiter>,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockHolder {
    /// The agent.
    pub agent: Arc<str>,
    /// How it is shared.
    pub kind: LockKind,
    /// Its token.
    pub token: u64,
    /// For how long it is held.
    pub age: Duration,
    /// How long it lasts when nobody extends it.
    pub left: Duration,
}

/// Who waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockWaiter {
    /// The agent.
    pub agent: Arc<str>,
    /// How it is to be shared.
    pub kind: LockKind,
    /// For how long it waits.
    pub age: Duration,
}

/// Releases the lock `id` on `path`, or all locks on it by force.
///
/// A lock is named by its identity together with what it is on. As long as the kernel runs on, the path that it was taken by does as well, also when a link there is gone
/// or leads elsewhere by then.
///
/// # Errors
/// `EPERM` when it is not held, or not any more, and when it is a lock on another path, which stays as it is; `EACCES` when force is used without the administrator's handle.
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
    /// The shortest time that a lock can last.
    pub const TTL_MIN: Duration = Duration::from_millis(1);
    /// The longest time that a lock can last when nobody extends it.
    pub const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// An exclusive lock on `path`, tried once.
    pub fn exclusive(path: impl Into<VPath>) -> Self {
        Self {
            path: path.into(),
            id: None,
            kind: LockKind::Exclusive,
            ttl: Self::TTL_DEFAULT,
            wait: None,
            tied: false,
            durable: false,
            session: 0,
        }
    }

    /// A shared lock on `path`, tried once.
    pub fn shared(path: impl Into<VPath>) -> Self {
        Self { kind: LockKind::Shared, ..Self::exclusive(path) }
    }

    /// One of `holders` places at `path`, tried once.
    pub fn semaphore(path: impl Into<VPath>, holders: u32) -> Self {
        Self { kind: LockKind::Semaphore(holders), ..Self::exclusive(path) }
    }

    /// Extends the lock `id` on `path`: it lasts for its [`ttl`](Self::ttl) from then on.
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

    /// Goes with the life of who takes it.
    #[must_use]
    pub fn tied(mut self) -> Self {
        self.tied = true;
        self
    }

    /// Outlives the process, until its time is over: it is on disk when it is given. Not together with [`tied`](Self::tied).
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Says which of the agent's activities asks.
    #[must_use]
    pub fn session(mut self, session: u64) -> Self {
        self.session = session;
        self
    }

    /// Whether a lock can last so long.
    pub fn is_ttl(ttl: Duration) -> bool {
        (Self::TTL_MIN..=Self::TTL_MAX).contains(&ttl)
    }
}

impl Locked {
    /// The reply for a lock that is held.
    pub fn new(id: LockId, path: VPath, token: u64, ttl: Duration) -> Self {
        Self { id, path, token, ttl }
    }

    /// For what is to be written under this lock.
    pub fn fence(&self) -> Fence {
        Fence::new(self.path.clone(), self.token)
    }
}

impl Fence {
    /// The lock on `path` with this token.
    pub fn new(path: VPath, token: u64) -> Self {
        Self { path, token }
    }
}

impl LockState {
    /// These hold it, and these wait for it.
    pub fn new(holders: Vec<LockHolder>, waiting: Vec<LockWaiter>) -> Self {
        Self { holders, waiting }
    }
}

impl LockHolder {
    /// Who holds it, and for how long.
    pub fn new(agent: Arc<str>, kind: LockKind, token: u64, age: Duration, left: Duration) -> Self {
        Self { agent, kind, token, age, left }
    }
}

impl LockWaiter {
    /// Who waits, and for how long.
    pub fn new(agent: Arc<str>, kind: LockKind, age: Duration) -> Self {
        Self { agent, kind, age }
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

impl Unlocked {
    /// So many holders were released.
    pub fn new(released: u32) -> Self {
        Self { released }
    }
}
