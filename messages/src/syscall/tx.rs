//! Several changes as one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Fence, Precondition, Renamed, SetattrDone, SysRename, SysSetattr, SysStat, SysUnlink, SysWrite, Unlinked,
    Written,
};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::ident::OpId;
use crate::metadata::{EntryType, FileMetadata};
use crate::path::VPath;
use crate::receipt::{Consistency, Receipt};

/// The most operations of one transaction.
pub const TX_OPS_MAX: usize = 1_024;

/// The most bytes of content that one transaction carries.
pub const TX_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// Executes `ops` as one change: all of them or, when one cannot be executed or does not find what it expects, none. One commit, one fsync, one
/// place in the log; also after a crash all of it is there or nothing.
///
/// The operations are executed in their order, and each finds what those before it have left: a file that was written may be renamed by the next one, a
/// directory that was made may be filled. Preconditions are those of the operations, and look at what those before have left, too. What
/// nobody else sees before the end is the state in between.
///
/// - All paths are of one zone, on mounts that keep their files in the kernel's store; else `EXDEV`. Mounts and services are not made by it.
/// - A directory that exists by implication stays until the end, when nothing is left in it.
/// - A link that the transaction makes, moves or removes is not followed by it: `EOPNOTSUPP`. Nor is one whose way it changes: to `d/..` when it moves or
///   removes `d`, to `d/.` when it makes a file of `d`.
/// - Hooks see each operation as the syscall that it is; when one is refused, nothing is done.
///
/// Errors say at which operation ([`Error::item`]), and of a precondition what was found ([`Error::conflict`]). With an
/// `op_id` it may be repeated; the operations themselves have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysTx {
    /// The operations: at least one, at most [`TX_OPS_MAX`], with at most [`TX_BYTES_MAX`] of content.
    pub ops: Vec<TxOp>,
    /// The operation's identity; made by the kernel when none is given.
    pub op_id: Option<OpId>,
    /// When it is acknowledged; none: as the mount does.
    pub consistency: Option<Consistency>,
    /// The lock under which it is made; none: no lock is asked for. Those of its operations count, too.
    pub fence: Option<Fence>,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is documented at its struct")]
pub enum TxOp {
    Write(SysWrite),
    Setattr(SysSetattr),
    Rename(SysRename),
    Unlink(SysUnlink),
    Check(TxCheck),
}

/// An expectation of a path that the transaction does not change: nothing is done unless what is there is as `precondition` says. Links are followed.
///
/// Its caller needs the right to read the path, which may be on a mount that refuses changes; others may read it meanwhile, and check it. Hooks see it as the
/// [`SysStat`](super::SysStat) that it is, and the log does not tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TxCheck {
    /// The entry.
    pub path: VPath,
    /// What must be there; not [`Precondition::None`].
    pub precondition: Precondition,
}

/// What [`TxCheck`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checked {
    /// What is known of the entry; none when nothing is there.
    pub metadata: Option<Arc<FileMetadata>>,
}

impl TxCheck {
    /// A check of `path`; what is expected there is said by [`when`](Self::when).
    pub fn at(path: impl Into<VPath>) -> Self {
        Self { path: path.into(), precondition: Precondition::None }
    }

    /// What must be there.
    #[must_use]
    pub fn when(mut self, expected: Precondition) -> Self {
        self.precondition = expected;
        self
    }
}

impl Checked {
    /// The result for what was found.
    pub fn new(metadata: Option<Arc<FileMetadata>>) -> Self {
        Self { metadata }
    }
}

/// What one operation of a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is documented at its struct")]
pub enum TxDone {
    Write(Written),
    Setattr(SetattrDone),
    Rename(Renamed),
    Unlink(Unlinked),
    Check(Checked),
}

/// What [`SysTx`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Transacted {
    /// What each operation did, in their order. Empty for a repeat: what it did is what it did then.
    pub results: Vec<TxDone>,
    /// Whether it was executed before, by a call with the same `op_id`, and not again.
    pub repeated: bool,
    /// Proof of the commit. Each result has the same.
    pub receipt: Receipt,
}

impl Transacted {
    /// The reply for operations that were committed with this receipt.
    pub fn new(results: Vec<TxDone>, receipt: Receipt) -> Self {
        let results = results.into_iter().map(|done| done.with(receipt)).collect();
        Self { results, repeated: false, receipt }
    }

    /// The reply for what was executed before.
    pub fn before(receipt: Receipt) -> Self {
        Self { results: Vec::new(), repeated: true, receipt }
    }
}

impl TxDone {
    fn with(mut self, receipt: Receipt) -> Self {
        match &mut self {
            Self::Write(done) => done.receipt = receipt,
            Self::Setattr(done) => done.receipt = receipt,
            Self::Rename(done) => done.receipt = receipt,
            Self::Unlink(done) => done.receipt = receipt,
            // It did nothing.
            Self::Check(_) => {}
        }
        self
    }
}

impl SysTx {
    /// A transaction of no operation yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation.
    #[must_use]
    pub fn with(mut self, op: impl Into<TxOp>) -> Self {
        self.ops.push(op.into());
        self
    }

    /// Adds nothing but an expectation: nothing is done unless what is at `path` is as `expected`. See [`TxCheck`].
    #[must_use]
    pub fn check(self, path: impl Into<VPath>, expected: Precondition) -> Self {
        self.with(TxCheck::at(path).when(expected))
    }

    /// Refuses what can be no transaction, whatever is there.
    ///
    /// # Errors
    /// `EINVAL` for none or too many operations, one with an identity of its own, and a mount or a service; `EFBIG` for too much content.
    pub fn validate(&self) -> Result<()> {
        let global = |kind| Error::global(Op::Tx, kind);
        if self.ops.is_empty() || self.ops.len() > TX_OPS_MAX {
            let why = format!("{} operations, where 1 to {TX_OPS_MAX} may be", self.ops.len());
            return Err(global(ErrorKind::InvalidArgument).because(why));
        }
        let bytes: u64 = self.ops.iter().map(TxOp::bytes).sum();
        if bytes > TX_BYTES_MAX {
            let why = format!("{bytes} bytes of content are more than {TX_BYTES_MAX}");
            return Err(global(ErrorKind::TooLarge).because(why));
        }
        for (index, op) in self.ops.iter().enumerate() {
            if let Some(why) = op.misplaced() {
                let error = Error::new(op.op(), op.path(), ErrorKind::InvalidArgument);
                return Err(error.because(why).at_item(index));
            }
        }
        Ok(())
    }
}

impl TxOp {
    /// The operation, as errors and logs name it.
    pub fn op(&self) -> Op {
        match self {
            Self::Write(_) => SysWrite::OP,
            Self::Setattr(_) => SysSetattr::OP,
            Self::Rename(_) => SysRename::OP,
            Self::Unlink(_) => SysUnlink::OP,
            Self::Check(_) => SysStat::OP,
        }
    }

    /// The path that it is about; the source of a rename.
    pub fn path(&self) -> &VPath {
        match self {
            Self::Write(call) => &call.path,
            Self::Setattr(call) => &call.path,
            Self::Rename(call) => &call.from,
            Self::Unlink(call) => &call.path,
            Self::Check(call) => &call.path,
        }
    }

    /// The second path of a rename.
    pub fn other_path(&self) -> Option<&VPath> {
        match self {
            Self::Rename(call) => Some(&call.to),
            _ => None,
        }
    }

    /// What the caller expects to find.
    pub fn precondition(&self) -> &Precondition {
        match self {
            Self::Write(call) => &call.precondition,
            Self::Setattr(call) => &call.precondition,
            Self::Rename(call) => &call.precondition,
            Self::Unlink(call) => &call.precondition,
            Self::Check(call) => &call.precondition,
        }
    }

    /// Does nothing unless the entry is as `expected`.
    #[must_use]
    pub fn when(self, expected: Precondition) -> Self {
        match self {
            Self::Write(call) => call.when(expected).into(),
            Self::Setattr(call) => call.when(expected).into(),
            Self::Rename(call) => call.when(expected).into(),
            Self::Unlink(call) => call.when(expected).into(),
            Self::Check(call) => call.when(expected).into(),
        }
    }

    /// How much content it carries.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Write(call) => call.data.iter().map(|part| part.len() as u64).sum(),
            _ => 0,
        }
    }

    fn misplaced(&self) -> Option<&'static str> {
        let (op_id, consistency) = match self {
            Self::Write(call) => (call.op_id, call.consistency),
            Self::Setattr(call) => (call.op_id, call.consistency),
            Self::Rename(call) => (call.op_id, call.consistency),
            Self::Unlink(call) => (call.op_id, call.consistency),
            Self::Check(_) => (None, None),
        };
        match self {
            _ if op_id.is_some() => Some("in a transaction only the whole has an identity"),
            _ if consistency.is_some() => Some("a transaction is acknowledged as a whole"),
            Self::Setattr(call) if call.entry_type == Some(EntryType::Mount) || call.mount.is_some() => {
                Some("a transaction makes no mount")
            }
            Self::Check(TxCheck { precondition: Precondition::None, .. }) => {
                Some("a check needs a condition")
            }
            Self::Setattr(call) if call.service.is_some() => Some("a transaction makes no service"),
            _ => None,
        }
    }
}

macro_rules! tx_ops {
    ($($variant:ident($message:ident) -> $done:ident;)*) => {$(
        impl From<$message> for TxOp {
            fn from(call: $message) -> Self {
                Self::$variant(call)
            }
        }

        impl From<$done> for TxDone {
            fn from(done: $done) -> Self {
                Self::$variant(done)
            }
        }
    )*};
}

tx_ops! {
    Write(SysWrite) -> Written;
    Setattr(SysSetattr) -> SetattrDone;
    Rename(SysRename) -> Renamed;
    Unlink(SysUnlink) -> Unlinked;
    Check(TxCheck) -> Checked;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> VPath {
        VPath::parse(text).unwrap()
    }

    fn refused(tx: &SysTx, kind: ErrorKind, item: Option<usize>) {
        let error = tx.validate().unwrap_err();
        assert_eq!((error.kind(), error.item()), (kind, item), "{error}");
    }

    #[test]
    fn what_can_be_no_transaction_is_refused_and_the_item_is_named() {
        let write = || SysWrite::at(path("/a"), "x");
        SysTx::new().with(write()).validate().unwrap();
        refused(&SysTx::new(), ErrorKind::InvalidArgument, None);
        let many = (0..=TX_OPS_MAX).fold(SysTx::new(), |tx, _| tx.with(write()));
        refused(&many, ErrorKind::InvalidArgument, None);
        refused(
            &SysTx::new().with(write()).with(write().op_id(OpId(1))),
            ErrorKind::InvalidArgument,
            Some(1),
        );
        let unsaid = SysTx::new().with(write()).with(TxCheck::at(path("/b")));
        refused(&unsaid, ErrorKind::InvalidArgument, Some(1));
        let mount = SysSetattr::mount(path("/m"), crate::syscall::MountSpec::new("memory"));
        refused(&SysTx::new().with(write()).with(mount), ErrorKind::InvalidArgument, Some(1));
        let half = bytes::Bytes::from(vec![0; usize::try_from(TX_BYTES_MAX / 2).unwrap() + 1]);
        let large = SysTx::new().with(SysWrite::at(path("/a"), half.clone()));
        large.validate().unwrap();
        refused(&large.with(SysWrite::at(path("/b"), half)), ErrorKind::TooLarge, None);
    }
}
