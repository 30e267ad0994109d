//! Lets many read a path, or one write it.

mod claim;
mod guard;
mod queue;
mod shard;
mod sync;
mod table;
mod view;

#[cfg(all(test, nexus_loom))]
mod loom_tests;
#[cfg(all(test, not(nexus_loom)))]
mod tests;

pub use claim::{Claim, LockOwner, Mode, Scope};
pub use guard::{PathGuard, PathGuards};
pub use table::PathLocks;
pub use view::{HeldLock, LockStatistics};
