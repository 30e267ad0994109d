//! What can be seen of advisory locks.

use nexus_messages::syscall::LockState;
use nexus_messages::{VPath, ZoneId};
use serde::{Deserialize, Serialize};

/// A path that is locked or waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryLock {
    /// The zone of the path.
    pub zone: ZoneId,
    /// What is locked.
    pub path: VPath,
    /// Who holds it, and who waits.
    #[serde(flatten)]
    pub state: LockState,
}

/// What was counted of advisory locks and semaphores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryStatistics {
    /// Locks given since the start.
    pub granted: u64,
    /// Locks held now, those whose time is over and who were not looked at since too.
    pub held: usize,
    /// Calls that wait for locks now.
    pub waiting: usize,
    /// Tasks that were woken because their lock was given, or never would be.
    pub woken: u64,
    /// Locks that were taken back because their time was over.
    pub expired: u64,
    /// Calls that were told that they wait for each other.
    pub deadlocks: u64,
    /// Places of semaphores held now.
    pub semaphore_places: usize,
}
