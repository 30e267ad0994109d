//! What is on disk: waiting for it, and asking whether it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ident::Lsn;
use crate::path::VPath;
use crate::receipt::Receipt;

/// Makes all durable that was acknowledged before in the zone of the mount that serves `path`: on return it is on disk. The entry must be there;
/// links are followed. Changes nothing, may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysSync {
    /// The entry.
    pub path: VPath,
}

/// What [`SysSync`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Synced {
    /// The place in the zone's log up to which all is on disk.
    pub lsn: Lsn,
}

/// Asks what became of what `receipt` acknowledges: in the caller's zone, and also after any crash. Changes nothing, may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysReceipt {
    /// The receipt.
    pub receipt: Receipt,
}

/// What became of what a receipt acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kept {
    /// It is on disk. What was committed later may have replaced it since.
    OnDisk,
    /// It is seen by all, and not known to be on disk yet.
    InMemory,
    /// It is not there: it was acknowledged as [eventual](crate::Consistency::Eventual) or volatile, and a crash came first.
    Lost,
    /// It changed nothing, so there is nothing to keep.
    Nothing,
    /// It cannot be told any more: the log is not kept as far back as that.
    Forgotten,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnDisk => "on disk",
            Self::InMemory => "in memory",
            Self::Lost => "lost",
            Self::Nothing => "nothing to keep",
            Self::Forgotten => "forgotten",
        })
    }
}

impl Synced {
    /// The reply: all up to `lsn` is on disk.
    pub fn new(lsn: Lsn) -> Self {
        Self { lsn }
    }
}

impl SysSync {
    /// Makes durable what was acknowledged where `path` is.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self { path: path.into() }
    }
}

impl SysReceipt {
    /// Asks for what `receipt` acknowledges.
    pub fn of(receipt: Receipt) -> Self {
        Self { receipt }
    }
}
