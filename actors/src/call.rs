//! How a call fails, and whether its message may have been executed.

use std::fmt;

/// Why a call gave no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The mailbox was at its bound, or the deadline passed while the message was still queued. It was withdrawn.
    #[error("busy: not executed")]
    Busy,
    /// The actor began on the message and died.
    #[error("the actor crashed (generation {generation}): outcome unknown")]
    Crashed {
        /// The incarnation that died.
        generation: u64,
    },
    /// The actor began on the message, and the deadline passed.
    #[error("timed out: outcome unknown")]
    Timeout,
    /// The actor is closed for good.
    #[error("down: not executed")]
    Down,
}

/// Whether a message may have had effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// It had none: safe to repeat.
    No,
    /// It may have had some, all, or none.
    Unknown,
}

impl CallError {
    /// Whether the message may have had effects.
    pub fn executed(&self) -> Executed {
        match self {
            CallError::Busy | CallError::Down => Executed::No,
            CallError::Crashed { .. } | CallError::Timeout => Executed::Unknown,
        }
    }
}

/// An offer that gave no reply, with the message if it was certainly not executed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Undone<M> {
    /// Why.
    pub error: CallError,
    /// The message, unless it was begun. There exactly when `error.executed()` is [`Executed::No`].
    pub message: Option<M>,
}

impl<M> fmt::Debug for Undone<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undone").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for Undone<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<M> std::error::Error for Undone<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
