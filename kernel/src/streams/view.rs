//! What can be seen of the streams.

use nexus_messages::syscall::{GroupInfo, IoProfile};
use nexus_messages::{FileId, VPath, ZoneId};
use serde::{Deserialize, Serialize};

use crate::hal::StreamState;

/// A stream that was used since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamEntry {
    /// The identity of its entry.
    pub id: FileId,
    /// The zone of its entry.
    pub zone: ZoneId,
    /// Where it was when it was looked up last. A directory above it may have been renamed since.
    pub path: VPath,
    /// Where its records are.
    pub io_profile: IoProfile,
    /// Whether it was made for what a child process says.
    pub stdio: bool,
    /// What it keeps: its oldest record, its tail, its bytes, and its limits. None when its store does not say.
    pub state: Option<StreamState>,
    /// How many reads wait at its tail.
    pub readers_waiting: usize,
}

/// What was counted of all streams together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamStatistics {
    /// Streams that are open.
    pub open: usize,
    /// Bytes that their records cost.
    pub bytes: u64,
    /// Reads that wait at a tail.
    pub readers_waiting: usize,
    /// Streams whose entries are gone, and whose records are still there.
    pub dropped: usize,
    /// Appends since the start.
    pub appends: u64,
    /// Records appended since the start.
    pub appended: u64,
    /// Records read since the start.
    pub read: u64,
    /// Records that were let go of since the start because they were too old, beside those that went with an append.
    pub aged: u64,
    /// Consumer groups of open streams that were asked since the start.
    pub groups: usize,
    /// Records given to members of groups since the start.
    pub taken: u64,
    /// Those of them that were given before.
    pub taken_again: u64,
    /// Records that members were done with since the start.
    pub acknowledged: u64,
    /// Records that were given too often since the start.
    pub dead: u64,
}

/// A consumer group whose stream is open and was asked about its groups since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupEntry {
    /// The identity of the stream's entry.
    pub stream: FileId,
    /// The zone of the entry.
    pub zone: ZoneId,
    /// Where it was when it was looked up last.
    pub path: VPath,
    /// How far the group is.
    pub group: GroupInfo,
}
