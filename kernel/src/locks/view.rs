//! What can be seen of the locks.

use std::sync::Arc;
use std::time::Duration;

use nexus_messages::{Timestamp, VPath};
use serde::{Deserialize, Serialize};

use super::claim::{Mode, Scope};

/// One lock that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    /// Where.
    pub path: VPath,
    /// Shared or alone.
    pub mode: Mode,
    /// How far it reaches.
    pub scope: Scope,
    /// The agent that holds it.
    pub agent: Arc<str>,
    /// Since when.
    pub since: Timestamp,
}

/// What the lock table counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStatistics {
    /// Locks taken since the start.
    pub taken: u64,
    /// Calls that had to wait and were served.
    pub waited: u64,
    /// Locks held now.
    pub held: usize,
    /// How many of them are subtree locks.
    pub subtrees: usize,
    /// Calls that wait now.
    pub waiting: usize,
    /// The longest that a call waited before it was served.
    pub longest_wait: Duration,
}
