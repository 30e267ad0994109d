//! Several changes as one: drawn up step by step, then committed.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::{
    Expect, Parents, Precondition, SysRename, SysSetattr, SysTx, SysUnlink, SysWrite, Transacted, TxCheck,
    TxOp,
};
use nexus_messages::{ContentId, Error, ErrorKind, FileMetadata, IntoPath, Op, OpId, Result};

use crate::handle::{Nexus, path};

/// Changes that are made together or not at all: what [`Nexus::tx`] begins. See [`SysTx`].
///
/// Each method adds an operation, executed in this order, and a condition is one of the operation before it. Nothing happens before
/// [`commit`](Self::commit), which also tells of a path that is none.
///
/// ```
/// # smol::block_on(async {
/// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
/// use nexus::{ErrorKind, Found};
///
/// let a = nx.agent("coder-7")?;
/// let plan = a.write("/plan.md", "1. think").await?;
/// let draft = a.tx()
///     .write("/plan.md", "1. think\n2. act").if_version(plan.metadata.version)
///     .write("/log/1.txt", "planned").if_absent()
///     .commit().await?;
/// assert_eq!(draft.results.len(), 2);
///
/// // Who comes too late is told what is there, and nothing of it is done.
/// let late = a.tx()
///     .unlink("/log/1.txt")
///     .write("/plan.md", "1. act").if_version(plan.metadata.version)
///     .commit().await.unwrap_err();
/// assert_eq!((late.kind(), late.item()), (ErrorKind::PreconditionFailed, Some(1)));
/// assert!(matches!(late.conflict().unwrap().found, Found::Entry { version: 2, .. }));
/// assert!(a.exists("/log/1.txt").await?);
/// # Ok::<(), nexus::Error>(()) }).unwrap();
/// ```
#[must_use = "nothing is done before it is committed"]
#[derive(Clone)]
pub struct Tx {
    nx: Nexus,
    call: Result<SysTx>,
}

impl Nexus {
    /// Begins changes that are made together or not at all.
    pub fn tx(&self) -> Tx {
        Tx { nx: self.clone(), call: Ok(SysTx::new()) }
    }
}

impl Tx {
    /// Makes `data` the whole content of the file, and makes the file when it is missing.
    pub fn write(self, at: impl IntoPath, data: impl Into<Bytes>) -> Self {
        self.with(path(Op::Write, at).map(|at| SysWrite::at(at, data).create()))
    }

    /// Makes a file, where nothing must be: `EEXIST`.
    pub fn create(self, at: impl IntoPath, data: impl Into<Bytes>) -> Self {
        self.with(path(Op::Write, at).map(|at| SysWrite::at(at, data).create_exclusive()))
    }

    /// Adds `data` to the end of the file, and makes the file when it is missing.
    pub fn append(self, at: impl IntoPath, data: impl Into<Bytes>) -> Self {
        self.with(path(Op::Append, at).map(|at| SysWrite::at(at, data).append().create()))
    }

    /// Replaces the text `old`, which must be in the file just once, by `new`.
    pub fn edit(self, at: impl IntoPath, old: impl Into<Bytes>, new: impl Into<Bytes>) -> Self {
        self.with(path(Op::Edit, at).map(|at| SysWrite::edit(at, old, new)))
    }

    /// Makes a directory, and its parents. Nothing happens when it is there.
    pub fn mkdir(self, at: impl IntoPath) -> Self {
        self.with(path(Op::Mkdir, at).map(|at| SysSetattr::directory(at).parents(Parents::Made)))
    }

    /// Makes a symbolic link to `target`.
    pub fn link(self, at: impl IntoPath, target: impl Into<Arc<str>>) -> Self {
        self.with(path(Op::Link, at).map(|at| SysSetattr::link(at, target)))
    }

    /// Moves an entry, a directory with all below it; a file at `to` is replaced.
    pub fn rename(self, from: impl IntoPath, to: impl IntoPath) -> Self {
        let call = path(Op::Rename, from).and_then(|from| Ok(SysRename::new(from, path(Op::Rename, to)?)));
        self.with(call)
    }

    /// Removes a file, or a link and not its target.
    pub fn unlink(self, at: impl IntoPath) -> Self {
        self.with(path(Op::Unlink, at).map(|at| SysUnlink::at(at).expect(Expect::File)))
    }

    /// Removes an empty directory.
    pub fn rmdir(self, at: impl IntoPath) -> Self {
        self.with(path(Op::Rmdir, at).map(|at| SysUnlink::at(at).expect(Expect::Directory)))
    }

    /// Removes an entry, a directory with all below it.
    pub fn remove_all(self, at: impl IntoPath) -> Self {
        self.with(path(Op::Unlink, at).map(|at| SysUnlink::at(at).recursive()))
    }

    /// Changes nothing: for a condition on a path that the others do not change, which must follow. `check("/lock").if_absent()`.
    pub fn check(self, at: impl IntoPath) -> Self {
        self.with(path(Op::Stat, at).map(TxCheck::at))
    }

    /// Acknowledges all of it when it can be seen, before it is on disk.
    pub fn eventual(mut self) -> Self {
        self.call = self.call.map(SysTx::eventual);
        self
    }

    /// Adds an operation as the syscall that it is: attributes, offsets, whatever it can do.
    pub fn op(self, op: impl Into<TxOp>) -> Self {
        self.with(Ok(op))
    }

    /// The operation before it finds the entry that was `seen`, with the content that it had, or nothing is done.
    pub fn if_unchanged(self, seen: &FileMetadata) -> Self {
        self.when(Precondition::unchanged(seen))
    }

    /// The operation before it finds the entry with this version of its content, or nothing is done; see [`Precondition::Version`].
    pub fn if_version(self, version: u64) -> Self {
        self.when(Precondition::Version(version))
    }

    /// The operation before it finds nothing at its path, or nothing is done.
    pub fn if_absent(self) -> Self {
        self.when(Precondition::Absent)
    }

    /// The operation before it finds the entry with this content, or nothing is done.
    pub fn if_match(self, content: ContentId) -> Self {
        self.when(Precondition::Content(content))
    }

    /// The operation before it finds what is `expected`, or nothing is done. A condition without an operation is told by [`commit`](Self::commit).
    pub fn when(mut self, expected: Precondition) -> Self {
        self.call = self.call.and_then(|mut call| {
            let last = call.ops.pop().ok_or_else(|| {
                Error::global(Op::Tx, ErrorKind::InvalidArgument).because("a condition of no operation")
            })?;
            call.ops.push(last.when(expected));
            Ok(call)
        });
        self
    }

    /// Makes it one with this identity: sent again, it is not executed again.
    pub fn op_id(mut self, op_id: OpId) -> Self {
        self.call = self.call.map(|call| call.op_id(op_id));
        self
    }

    /// Makes the changes: all of them, on disk when it returns, or none.
    ///
    /// # Errors
    /// What the operations say, each with its [item](Error::item); `ECANCELED` with the [conflict](Error::conflict) when something is not as expected;
    /// `EXDEV` when the paths cannot be changed together, `EINVAL` for no operation at all.
    pub async fn commit(self) -> Result<Transacted> {
        self.nx.send(self.call?).await
    }

    pub(crate) fn nexus(&self) -> &Nexus {
        &self.nx
    }

    fn with(mut self, op: Result<impl Into<TxOp>>) -> Self {
        self.call = self.call.and_then(|call| {
            let index = call.ops.len();
            Ok(call.with(op.map_err(|error| error.at_item(index))?))
        });
        self
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("call", &self.call).finish_non_exhaustive()
    }
}
