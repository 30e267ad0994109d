//! Counting semaphores with names, and the core that they share with advisory locks.
//!
//! `places.rs` is the core: who holds what until when, and who is next. `table.rs` lets many tasks use it at once, `ticket.rs` is how it reaches who
//! waits. What is to be done in time, the `advisory` actor does for both.

mod asked;
pub(crate) mod places;
pub(crate) mod table;
pub(crate) mod ticket;

#[cfg(test)]
#[cfg(nexus_loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(nexus_loom))]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::Env;
use nexus_messages::syscall::{LockKind, SysLock};
use nexus_messages::{Caller, EntryType, Error, ErrorKind, LockId, NAME_MAX, Op, Result};
use serde::{Deserialize, Serialize};

use places::{Grant, Holder, Key, Obstacle, Owner, Request};
use table::{Filed, Lined, Table};
use ticket::Verdict;

/// The name of a semaphore, as a key: none reaches another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(Arc<str>);

impl Key for Name {
    fn related<'m, T>(&self, _: &'m BTreeMap<Self, T>) -> impl Iterator<Item = (&'m Self, &'m T)> {
        std::iter::empty()
    }
}

impl Filed for Name {
    fn part(&self) -> Option<u64> {
        Some(nexus_messages::hash_of(&self.0))
    }
}

/// A named counting semaphore: at most so many hold a place of it at once, each for a limited time that it can extend. All in the process who ask for the name share
/// it. Whoever waits is served in order. Cheap to clone.
///
/// It lives in memory alone: with the kernel all of its places are gone. What is to be locked with a path, to be listed with it, or to outlive the process, is
/// an advisory lock: [`SysLock`].
#[derive(Clone)]
pub struct Semaphore {
    env: Env,
    table: Table<Name>,
    /// Has somebody look in time for those whose time is over.
    attend: Arc<dyn Fn() + Send + Sync>,
    name: Name,
    holders_max: u32,
    caller: Arc<Caller>,
}

/// A place of a [`Semaphore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Permit {
    /// Whoever names it extends or releases the place.
    pub id: LockId,
    /// Above that of each place that was given before.
    pub token: u64,
    /// How long it lasts from then on.
    pub ttl: Duration,
}

/// How a [`Semaphore`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SemaphoreInfo {
    /// Its name.
    pub name: Arc<str>,
    /// How many may hold a place at once, as those say who hold one.
    pub holders_max: u32,
    /// Who holds one, in the order in which they got it.
    pub holders: Vec<PermitInfo>,
    /// How many wait.
    pub waiting: usize,
}

/// A place that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PermitInfo {
    /// The agent that holds it.
    pub agent: Arc<str>,
    /// Its token.
    pub token: u64,
    /// For how long it is held.
    pub age: Duration,
    /// How long it lasts when nobody extends it.
    pub left: Duration,
}

impl Semaphore {
    pub(crate) fn new(
        env: &Env,
        table: &Table<Name>,
        attend: Arc<dyn Fn() + Send + Sync>,
        caller: &Arc<Caller>,
        name: &str,
        holders_max: u32,
    ) -> Result<Self> {
        let invalid = |why: String| Err(Error::global(Op::Lock, ErrorKind::InvalidArgument).because(why));
        if name.is_empty() || name.len() > NAME_MAX {
            return invalid(format!(
                "a semaphore is named with 1 to {NAME_MAX} bytes, and not {}",
                name.len()
            ));
        }
        if holders_max == 0 {
            return invalid(format!("nobody could hold the semaphore {name:?}"));
        }
        let (env, table) = (env.clone(), table.clone());
        Ok(Self { env, table, attend, name: Name(name.into()), holders_max, caller: caller.clone() })
    }

    /// Holds a place for `ttl`, now.
    ///
    /// # Errors
    /// `EAGAIN` when all are held, when others wait for one, and when it is held with another number of places; `EINVAL` for a `ttl` that is none.
    pub fn try_acquire(&self, ttl: Duration) -> Result<Permit> {
        let request = self.request(ttl)?;
        let held = self.table.acquire(&self.name, request);
        if held.is_ok() {
            (self.attend)();
        }
        held.map(|grant| permit(grant, ttl)).map_err(|obstacle| {
            let (kind, why) = match obstacle {
                Obstacle::Held { by, .. } => (ErrorKind::WouldBlock, format!("{} holds it", by.agent)),
                Obstacle::Awaited { by, .. } => (ErrorKind::WouldBlock, format!("{} waits for it", by.agent)),
                Obstacle::Leaving { .. } => (ErrorKind::WouldBlock, "it is being left".into()),
                Obstacle::Full | Obstacle::Enough => {
                    (ErrorKind::NoLocks, "there are as many as may be".into())
                }
            };
            Error::global(Op::Lock, kind).because(format!("the semaphore {:?}: {why}", self.name.0))
        })
    }

    /// Holds a place for `ttl`; waits for one at most for `wait`, behind those who came before. Dropping the future leaves the line, and gives back what was just given.
    ///
    /// # Errors
    /// `ETIMEDOUT` when none became free in time; `EINVAL` for a `ttl` that is none.
    pub async fn acquire(&self, ttl: Duration, wait: Duration) -> Result<Permit> {
        let request = self.request(ttl)?;
        let waiting = match self.table.line_up(&self.name, request) {
            Lined::Held(grant) => {
                (self.attend)();
                return Ok(permit(grant, ttl));
            }
            Lined::Waiting(waiting) => waiting,
            Lined::Full | Lined::Enough => return Err(self.error(ErrorKind::NoLocks)),
        };
        match self.env.timeout(wait, waiting).await {
            Ok(Verdict::Held(grant)) => Ok(permit(grant, ttl)),
            // A place may be given back by whoever knows its id: who waits for it can say for nobody that it never will be.
            Ok(Verdict::Deadlock(_)) => Err(self.error(ErrorKind::Deadlock)),
            Err(_) => Err(self.error(ErrorKind::TimedOut)),
        }
    }

    /// Holds the place `id` for `ttl` from now on.
    ///
    /// # Errors
    /// `EPERM` when it is not held, or not any more; `EINVAL` for a `ttl` that is none.
    pub fn extend(&self, id: LockId, ttl: Duration) -> Result<Permit> {
        self.request(ttl)?;
        let extended = self.table.extend(&self.name, id, ttl);
        extended.map(|holder| permit(holder.grant(), ttl)).ok_or_else(|| self.error(ErrorKind::NotHeld))
    }

    /// Gives the place `id` back. Not to be repeated: it is an error then.
    ///
    /// # Errors
    /// `EPERM` when it is not held, or not any more.
    pub fn release(&self, id: LockId) -> Result<()> {
        self.table.release(&self.name, id).map(drop).ok_or_else(|| self.error(ErrorKind::NotHeld))
    }

    /// Takes all places back, whoever holds them; says how many were held. May be repeated.
    ///
    /// # Errors
    /// `EACCES` unless it was asked for with an administrator's handle.
    pub fn force(&self) -> Result<usize> {
        if !self.caller.admin {
            let error = self.error(ErrorKind::PermissionDenied);
            return Err(error.because("taking places back by force needs the administrator's handle"));
        }
        Ok(self.table.force(&self.name).len())
    }

    /// Who holds places, and how many wait.
    pub fn info(&self) -> SemaphoreInfo {
        let now = self.table.now();
        let info = self.table.look(&self.name, |place| {
            let living: Vec<&Holder> = place.holders().iter().filter(|holder| holder.until > now).collect();
            let kind = living.first().map(|holder| holder.request.kind);
            let shown = |holder: &&Holder| PermitInfo {
                agent: holder.request.owner.agent.clone(),
                token: holder.token,
                age: holder.age(now),
                left: holder.until.saturating_sub(now),
            };
            SemaphoreInfo {
                name: self.name.0.clone(),
                holders_max: match kind {
                    Some(LockKind::Semaphore(holders)) => holders,
                    _ => self.holders_max,
                },
                holders: living.iter().map(shown).collect(),
                waiting: place.waiting().count(),
            }
        });
        info.unwrap_or_else(|| SemaphoreInfo {
            name: self.name.0.clone(),
            holders_max: self.holders_max,
            holders: Vec::new(),
            waiting: 0,
        })
    }

    fn request(&self, ttl: Duration) -> Result<Request> {
        if !SysLock::is_ttl(ttl) {
            let why = format!("a place is held for {:?} to {:?}", SysLock::TTL_MIN, SysLock::TTL_MAX);
            return Err(self.error(ErrorKind::InvalidArgument).because(why));
        }
        let owner = Owner::new(self.caller.agent.clone(), self.caller.life, 0);
        let (kind, entry_type) = (LockKind::Semaphore(self.holders_max), EntryType::Reg);
        Ok(Request { kind, ttl, owner, entry_type, tied: false, durable: false })
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::global(Op::Lock, kind).because(format!("the semaphore {:?}", self.name.0))
    }
}

fn permit(grant: Grant, ttl: Duration) -> Permit {
    Permit { id: grant.id, token: grant.token, ttl }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("name", &self.name.0)
            .field("holders_max", &self.holders_max)
            .finish()
    }
}
