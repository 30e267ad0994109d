//! Lets many read a path, or one write it.
//!
//! Owns:       nothing that callers need: they lock on their own tasks, in the shared table, `table.rs`.
//! Asks:       nobody.
//! On restart: the table goes on, and so do those who hold locks in it.
//! Bounds:     `LIST_MAX` locks in a listing, `MAILBOX_MAX` messages. The table is as large as what callers hold and wait for.

mod claim;
mod guard;
mod messages;
mod queue;
mod shard;
pub(crate) mod sync;
mod table;
mod view;

#[cfg(test)]
#[cfg(nexus_loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(nexus_loom))]
mod tests;

use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Reply, Start};
use nexus_messages::Timestamp;

pub use claim::{Claim, LockOwner, Mode, Scope};
pub use guard::{PathGuard, PathGuards};
pub use messages::{CountLocks, FindStuck, ListLocks};
pub use table::PathLocks;
pub use view::{HeldLock, LockStatistics};

/// The most locks that one listing shows.
pub const LIST_MAX: usize = 10_000;

/// How many messages may wait for the actor.
pub const MAILBOX_MAX: usize = 256;

/// The actor that answers for the lock table.
pub struct Locks {
    table: PathLocks,
}

impl Behaviour for Locks {
    type Args = PathLocks;
    const NAME: &'static str = "locks";

    fn init(table: PathLocks, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(std::future::ready(Ok(Self { table })))
    }
}

impl Handle<CountLocks> for Locks {
    fn handle(&mut self, _: CountLocks, _: &mut Cx<'_, Self>) -> Reply<Self, LockStatistics> {
        Reply::Now(self.table.statistics())
    }
}

impl Handle<ListLocks> for Locks {
    fn handle(&mut self, m: ListLocks, _: &mut Cx<'_, Self>) -> Reply<Self, Vec<HeldLock>> {
        Reply::Now(self.table.held(m.limit.min(LIST_MAX), |lock| lock.path.is_within(&m.base)))
    }
}

impl Handle<FindStuck> for Locks {
    fn handle(&mut self, m: FindStuck, cx: &mut Cx<'_, Self>) -> Reply<Self, Vec<HeldLock>> {
        let now = Timestamp(cx.env().wall());
        let stuck = self.table.held(LIST_MAX, |lock| lock.since.after(m.longer_than) < now);
        for HeldLock { path, mode, scope, agent, since } in &stuck {
            tracing::warn!(%path, ?mode, ?scope, %agent, ?since, "a path is locked for too long");
        }
        Reply::Now(stuck)
    }
}
