//! What a mutation is answered with, beside its result.

use serde::{Deserialize, Serialize};

use crate::ident::{Lsn, OpId};

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Durability {
    /// On disk before the reply.
    Strong,
    /// Kept in memory only, and gone with the process.
    Volatile,
}

/// Proof of a commit. Can be kept, and checked after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The operation that was committed.
    pub op_id: OpId,
    /// The commit's place in its zone's log. A call that changed nothing has the place up to which it looked.
    pub lsn: Lsn,
    /// What the acknowledgement promises.
    pub durability: Durability,
}

impl Receipt {
    /// The receipt of `op_id`, committed at `lsn`.
    pub fn new(op_id: OpId, lsn: Lsn, durability: Durability) -> Self {
        Self { op_id, lsn, durability }
    }
}
