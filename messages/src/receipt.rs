//! What a mutation is answered with, beside its result.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ident::{Lsn, OpId, ZoneId};

/// What a caller waits for before its change is acknowledged. Where nothing is said, the mount decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Consistency {
    /// Until the change is on disk.
    Strong,
    /// Until all can see the change. It is on disk within the time that the kernel is set to, in order: what a crash leaves, of the machine or of the process, is
    /// what was there after one of the changes, and never a later change without an earlier one.
    Eventual,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Durability {
    /// On disk before the reply.
    Strong,
    /// Kept in memory only, and gone with the process.
    Volatile,
    /// Seen by all before the reply, and on disk soon after it: see [`Consistency::Eventual`].
    Eventual,
}

impl Durability {
    /// Its name, as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Volatile => "volatile",
            Self::Eventual => "eventual",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Proof of a commit. Can be kept, and checked after a crash: see [`SysReceipt`](crate::syscall::SysReceipt).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The operation that was committed.
    pub op_id: OpId,
    /// The commit's place in its zone's log. A call that changed nothing has the place up to which it looked.
    pub lsn: Lsn,
    /// What the acknowledgement promises.
    pub durability: Durability,
    /// Whether the call changed something: else there is no commit of its own at `lsn`.
    pub changed: bool,
}

impl Receipt {
    /// The receipt of `op_id`, committed at `lsn`.
    pub fn new(op_id: OpId, lsn: Lsn, durability: Durability) -> Self {
        Self { op_id, lsn, durability, changed: true }
    }

    /// Where the call was committed that changed something in `zone`; none when it changed nothing.
    pub fn place_in(&self, zone: &ZoneId) -> Option<(ZoneId, Lsn)> {
        self.changed.then(|| (zone.clone(), self.lsn))
    }

    /// The receipt of `op_id`, which changed nothing and looked at all up to `lsn`.
    pub fn unchanged(op_id: OpId, lsn: Lsn, durability: Durability) -> Self {
        Self { op_id, lsn, durability, changed: false }
    }
}
