//! What a pipe is made with.

use serde::{Deserialize, Serialize};

use crate::ident::FileId;

/// How many bytes a pipe holds when nothing is said: as many as one of Linux.
pub const PIPE_CAPACITY_DEFAULT: u32 = 64 << 10;

/// The most bytes that a pipe can be made to hold.
pub const PIPE_CAPACITY_MAX: u32 = 64 << 20;

/// Where the messages of a pipe or a stream are on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IoProfile {
    /// In the memory of the process that owns the kernel. They are gone with it.
    #[default]
    Memory,
    /// On disk, in the kernel's data folder. What was acknowledged is there after a crash. For streams.
    Durable,
    /// In memory, or of a stream where its mount keeps records; a child process is, or was, on the other side. While none is, a pipe of this kind is at its end for who
    /// reads once it is empty, and broken for who writes.
    Stdio,
    /// In memory that processes share: those that are attached read and write with no message to the one that owns the kernel. What was acknowledged is there after the
    /// death of any of them, the owner, too, but not when the machine was started anew.
    Shared,
}

impl IoProfile {
    /// Its name, as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
            Self::Stdio => "stdio",
            Self::Shared => "shared",
        }
    }
}

/// What a pipe is made with, and what it is.
///
/// A pipe carries messages from many writers to many readers: each is read once, whole, and those of one writer in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PipeSpec {
    /// How many bytes the messages may have together that are written and not read: 1 to [`PIPE_CAPACITY_MAX`]. How many messages that may be is bounded, too,
    /// by [`messages_max`](Self::messages_max).
    pub capacity: u32,
    /// Where they are meanwhile.
    pub io_profile: IoProfile,
}

/// Which pipe a call is for. Whatever else is at its path by then is neither read nor written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WhichPipe {
    /// Any; [`NotSupported`](crate::ErrorKind::NotSupported) when there is something else.
    Any,
    /// The one of this identity; `ENOENT` when there is another one, or something else: that one was removed.
    One(FileId),
    /// As [`One`](Self::One), through an end of it that was opened there under this number; `EPERM` when that is closed, also while the call waits.
    End {
        /// The identity.
        pipe: FileId,
        /// The end.
        number: u64,
    },
}

impl WhichPipe {
    /// The identity that it has to have.
    pub fn identity(self) -> Option<FileId> {
        match self {
            Self::Any => None,
            Self::One(pipe) | Self::End { pipe, .. } => Some(pipe),
        }
    }
}

/// A pipe has room for one message for so many bytes of its capacity.
const BYTES_PER_MESSAGE: u32 = 64;

/// Of messages shorter than that, a pipe has room for so many all the same.
const MESSAGES_MIN: u32 = 64;

/// No pipe has room for more messages.
const MESSAGES_MAX: u32 = 1 << 14;

impl PipeSpec {
    /// A pipe in memory for `capacity` bytes.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, io_profile: IoProfile::Memory }
    }

    /// Says of which kind it is.
    #[must_use]
    pub fn io_profile(mut self, io_profile: IoProfile) -> Self {
        self.io_profile = io_profile;
        self
    }

    /// As [`new`](Self::new), in memory that processes share.
    pub fn shared(capacity: u32) -> Self {
        Self { io_profile: IoProfile::Shared, ..Self::new(capacity) }
    }

    /// How many messages may be written and not read, however short they are: one for each 64 bytes of the capacity, rounded up to a power of two,
    /// but 64 at least and 16,384 at most. A pipe of no more than 64 bytes is never full before its bytes are.
    pub fn messages_max(&self) -> u32 {
        (self.capacity / BYTES_PER_MESSAGE).clamp(MESSAGES_MIN, MESSAGES_MAX).next_power_of_two()
    }
}

impl Default for PipeSpec {
    /// In memory, of the default capacity.
    fn default() -> Self {
        Self::new(PIPE_CAPACITY_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_messages_there_is_room_for_is_bounded() {
        let check =
            |capacity, messages| assert_eq!(PipeSpec::new(capacity).messages_max(), messages, "{capacity}");
        check(1, 64);
        check(64, 64);
        check(5_000, 128);
        check(PIPE_CAPACITY_DEFAULT, 1_024);
        check(PIPE_CAPACITY_MAX, 16_384);
    }
}
