//! What can be seen of the pipes.

use std::sync::Arc;

use nexus_messages::syscall::IoProfile;
use nexus_messages::{FileId, VPath, ZoneId};
use serde::{Deserialize, Serialize};

/// A pipe that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PipeEntry {
    /// The identity of its entry.
    pub id: FileId,
    /// The zone of its entry.
    pub zone: ZoneId,
    /// Where it was when it was looked up last. A directory above it may have been renamed since.
    pub path: VPath,
    /// How many bytes it holds.
    pub capacity: u64,
    /// Where they are.
    pub io_profile: IoProfile,
    /// How many messages are written and not read.
    pub messages: usize,
    /// How many bytes they have together.
    pub bytes: u64,
    /// How many reads wait for a message.
    pub readers_waiting: usize,
    /// How many writes wait for room.
    pub writers_waiting: usize,
    /// Who has opened it.
    pub ends: Vec<PipeEnd>,
}

/// An end of a pipe that somebody has opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PipeEnd {
    /// `reader` or `writer`.
    pub side: String,
    /// The agent that has opened it.
    pub agent: Arc<str>,
}

/// What was counted of all pipes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PipeStatistics {
    /// Pipes that are open.
    pub open: usize,
    /// Bytes that they have room for.
    pub capacity: u64,
    /// Messages that are written and not read.
    pub messages: usize,
    /// Bytes that these have.
    pub bytes: u64,
    /// Reads that wait for a message.
    pub readers_waiting: usize,
    /// Writes that wait for room.
    pub writers_waiting: usize,
    /// Messages written since the start.
    pub written: u64,
    /// Messages read since the start.
    pub read: u64,
}
