//! What became of an operation, asked by its identity.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Op;
use crate::ident::{Lsn, OpId};
use crate::path::VPath;
use crate::receipt::Receipt;
use crate::time::Timestamp;

/// How many operations each zone remembers, the last ones of its log: so long an operation is found by its identity, and one that comes again is not
/// executed again. Exactly so many, also after a crash.
pub const OPS_KEPT: u64 = 65_536;

/// Asks what became of an operation: one of the caller's own, or any one for the administrator. Also after any crash. Changes nothing, may be repeated.
///
/// On mounts whose files are plain files the file is changed first, and the log hears of it then: where a process was killed in between, the log
/// does not know of a change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysOutcome {
    /// The operation.
    pub op_id: OpId,
    /// A place in the log of the caller's zone that the caller knew before it sent the operation: so it is clear how far back it may be.
    pub since: Option<Lsn>,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OpOutcome {
    /// It was committed; or it was written to a pipe or a stream, and is in no log: then the receipt is the one that its caller was given, and the place 0.
    Committed(CommittedOp),
    /// Its call has not ended.
    UnderWay {
        /// What was asked for.
        op: Op,
        /// Where.
        path: VPath,
    },
    /// It was not executed, and is not under way. Of what went to a pipe or a stream that is known for as long as its kernel runs: it is in no log. Sending it again with
    /// the same identity executes it once where the stream, or the pipe, has not forgotten it.
    NotExecuted,
    /// Its call ended without knowing whether it was executed, and there is nothing of it by now. A kernel that is booted anew knows.
    InDoubt,
    /// It is not under way, and not among the [`OPS_KEPT`] operations that are remembered, or as many that went to pipes and streams: it was not executed, or is one of those
    /// up to `through`.
    Forgotten {
        /// The last place in the log whose operation is forgotten.
        through: Lsn,
    },
}

/// An operation that was committed, as the log tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommittedOp {
    /// Where in the log it is; [strong](crate::Durability::Strong) when it is on disk by now.
    pub receipt: Receipt,
    /// What was asked for.
    pub op: Op,
    /// Where; the old path of a rename; the first path of a transaction.
    pub path: VPath,
    /// The second path of a rename or copy.
    pub other: Option<VPath>,
    /// When.
    pub at: Timestamp,
}

impl OpOutcome {
    /// The receipt, of an operation that was committed.
    pub fn receipt(&self) -> Option<Receipt> {
        match self {
            Self::Committed(committed) => Some(committed.receipt),
            _ => None,
        }
    }
}

impl fmt::Display for OpOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(CommittedOp { receipt, op, path, other, .. }) => {
                write!(f, "committed at {}, {}: {op} {path}", receipt.lsn, receipt.durability)?;
                other.as_ref().map_or(Ok(()), |other| write!(f, " {other}"))
            }
            Self::UnderWay { op, path } => write!(f, "under way: {op} {path}"),
            Self::NotExecuted => f.write_str("not executed"),
            Self::InDoubt => f.write_str("in doubt: nothing of it is there by now"),
            Self::Forgotten { through } => {
                write!(f, "not executed, or forgotten: up to {through} operations are not remembered")
            }
        }
    }
}

impl CommittedOp {
    /// What the log tells of the operation with this receipt.
    pub fn new(receipt: Receipt, op: Op, path: VPath, other: Option<VPath>, at: Timestamp) -> Self {
        Self { receipt, op, path, other, at }
    }
}

impl SysOutcome {
    /// Asks for the operation `op_id`.
    pub fn of(op_id: OpId) -> Self {
        Self { op_id, since: None }
    }

    /// Says that it was not sent before the zone's log had come to `lsn`: the place in any receipt of before.
    #[must_use]
    pub fn since(mut self, lsn: Lsn) -> Self {
        self.since = Some(lsn);
        self
    }
}
