//! What can be seen of the children, beside each [`ChildEntry`](nexus_messages::ChildEntry).

use serde::{Deserialize, Serialize};

/// What was counted of all children together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChildStatistics {
    /// Children that run.
    pub running: usize,
    /// Children that have ended, and whose output is on its way to who reads it.
    pub ended: usize,
    /// Children that were started.
    pub started: u64,
}
