//! One struct for each syscall, with its builder and its reply.
//!
//! A syscall says what to do and where. Who asks is the handle that sends it, never a field. Durations are durations, not
//! points in time, so that every message can travel.

mod copy;
mod group;
mod lock;
mod outcome;
mod pipe;
mod read;
mod readdir;
mod rename;
mod service;
mod setattr;
mod stat;
mod stream;
mod sync;
mod tx;
mod unlink;
mod versions;
mod watch;
mod write;

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use copy::{Copied, SysCopy};
pub use group::{
    Chosen, Delivered, GROUP_NAME_MAX, GROUP_RECORDS_MAX, GroupAction, GroupDetail, GroupDone, GroupInfo,
    GroupSettings, HeldRecord, LooseRecord, SysGroup, SysTake, Taken,
};
pub use lock::{Fence, LockHolder, LockKind, LockState, LockWaiter, Locked, SysLock, SysUnlock, Unlocked};
pub use outcome::{CommittedOp, OPS_KEPT, OpOutcome, SysOutcome};
pub use pipe::{IoProfile, PIPE_CAPACITY_DEFAULT, PIPE_CAPACITY_MAX, PipeSpec, WhichPipe};
pub use read::{ByteRange, Extent, ReadData, SysRead};
pub use readdir::{Cursor, DirEntry, Hidden, Listing, SysReaddir};
pub use rename::{Renamed, SysRename};
pub use service::{ServiceSpec, SwapMode, SwapOptions};
pub use setattr::{
    Attribute, Create, DriverSwapped, MountSpec, Parents, ServiceSwapped, ServiceVersion, SetattrDone,
    SysSetattr,
};
pub use stat::SysStat;
pub use stream::{Record, RecordRange, Records, StreamSpec, StreamStart};
pub use sync::{Kept, Synced, SysReceipt, SysSync};
pub use tx::{Checked, SysTx, TX_BYTES_MAX, TX_OPS_MAX, Transacted, TxCheck, TxDone, TxOp};
pub use unlink::{Expect, SysUnlink, Unlinked};
pub use versions::{AsOf, SysVersions, Version, VersionCursor, Versions};
pub use watch::{SysWatch, Watched};
pub use write::{Place, SysWrite, Written};

use crate::content::ContentId;
use crate::error::{Op, Result};
use crate::ident::{FileId, OpId};
use crate::message::Message;
use crate::metadata::FileMetadata;
use crate::path::VPath;
use crate::receipt::Consistency;

/// What a caller expects to find before its change is made. Checked under the path's lock, and again at commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Precondition {
    /// Anything.
    #[default]
    None,
    /// No entry.
    Absent,
    /// An entry whose content has this version. Another entry that came to the path meanwhile may have the same: [`Unchanged`](Self::Unchanged)
    /// tells them apart, and so does [`Content`](Self::Content) as far as they differ.
    Version(u64),
    /// An entry whose content was changed this often. Of another entry that came to the path holds what is said at [`Version`](Self::Version).
    Generation(u64),
    /// An entry with this content.
    Content(ContentId),
    /// The very entry that was seen, with the version of its content that it had.
    Unchanged {
        /// The identity of the entry.
        file_id: FileId,
        /// The version of its content.
        version: u64,
    },
}

impl Precondition {
    /// The entry is the one that was `seen`, and its content, too.
    pub fn unchanged(seen: &FileMetadata) -> Self {
        Self::Unchanged { file_id: seen.file_id, version: seen.version }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("anything"),
            Self::Absent => f.write_str("nothing"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::Generation(generation) => write!(f, "generation {generation}"),
            Self::Content(id) => write!(f, "content {id}"),
            Self::Unchanged { file_id, version } => write!(f, "version {version} of entry {file_id}"),
        }
    }
}

/// Where a call is that is about no path.
static ROOT: LazyLock<VPath> = LazyLock::new(VPath::root);

/// Any syscall, for what handles them all alike: hooks, logs, the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is documented at its struct")]
pub enum Syscall {
    Stat(SysStat),
    Setattr(SysSetattr),
    Rename(SysRename),
    Unlink(SysUnlink),
    Readdir(SysReaddir),
    Read(SysRead),
    Write(SysWrite),
    Copy(SysCopy),
    Lock(SysLock),
    Unlock(SysUnlock),
    Watch(SysWatch),
    Tx(SysTx),
    Versions(SysVersions),
    Sync(SysSync),
    Receipt(SysReceipt),
    Outcome(SysOutcome),
    Take(SysTake),
    Group(SysGroup),
}

impl Syscall {
    /// The operation, as errors and logs name it.
    pub fn op(&self) -> Op {
        match self {
            Self::Stat(_) => SysStat::OP,
            Self::Setattr(_) => SysSetattr::OP,
            Self::Rename(_) => SysRename::OP,
            Self::Unlink(_) => SysUnlink::OP,
            Self::Readdir(_) => SysReaddir::OP,
            Self::Read(_) => SysRead::OP,
            Self::Write(_) => SysWrite::OP,
            Self::Copy(_) => SysCopy::OP,
            Self::Lock(_) => SysLock::OP,
            Self::Unlock(_) => SysUnlock::OP,
            Self::Watch(_) => SysWatch::OP,
            Self::Tx(_) => SysTx::OP,
            Self::Versions(_) => SysVersions::OP,
            Self::Sync(_) => SysSync::OP,
            Self::Receipt(_) => SysReceipt::OP,
            Self::Outcome(_) => SysOutcome::OP,
            Self::Take(_) => SysTake::OP,
            Self::Group(_) => SysGroup::OP,
        }
    }

    /// The path that the call is about; the source, where there are two; that of the first operation, of a transaction.
    pub fn path(&self) -> &VPath {
        match self {
            Self::Stat(call) => &call.path,
            Self::Setattr(call) => &call.path,
            Self::Rename(call) => &call.from,
            Self::Unlink(call) => &call.path,
            Self::Readdir(call) => &call.path,
            Self::Read(call) => &call.path,
            Self::Write(call) => &call.path,
            Self::Copy(call) => &call.from,
            Self::Lock(call) => &call.path,
            Self::Unlock(call) => &call.path,
            Self::Watch(call) => &call.path,
            Self::Tx(call) => call.ops.first().map_or(&ROOT, TxOp::path),
            Self::Versions(call) => &call.path,
            Self::Sync(call) => &call.path,
            Self::Take(call) => &call.path,
            Self::Group(call) => &call.path,
            Self::Receipt(_) | Self::Outcome(_) => &ROOT,
        }
    }

    /// The second path of rename and copy.
    pub fn other_path(&self) -> Option<&VPath> {
        match self {
            Self::Rename(call) => Some(&call.to),
            Self::Copy(call) => Some(&call.to),
            _ => None,
        }
    }
}

/// What any syscall gives: the counterpart of [`Syscall`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is documented at its struct")]
pub enum Answer {
    Stat(Arc<FileMetadata>),
    Setattr(SetattrDone),
    Rename(Renamed),
    Unlink(Unlinked),
    Readdir(Listing),
    Read(ReadData),
    Write(Written),
    Copy(Copied),
    Lock(Locked),
    Unlock(Unlocked),
    Watch(Watched),
    Tx(Transacted),
    Versions(Versions),
    Sync(Synced),
    Receipt(Kept),
    Outcome(OpOutcome),
    Take(Taken),
    Group(GroupDone),
}

/// A message that is a syscall.
pub trait SyscallMessage:
    Message<Reply = Result<<Self as SyscallMessage>::Done>> + Clone + Into<Syscall>
{
    /// What it gives when it succeeds.
    type Done: Into<Answer> + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The operation, as errors and logs name it.
    const OP: Op;

    /// The message in `call`, when it is of this kind.
    fn from_syscall(call: Syscall) -> Option<Self>;

    /// What it gave, when `answer` is that of this kind.
    fn from_answer(answer: Answer) -> Option<Self::Done>;
}

macro_rules! syscalls {
    ($($variant:ident($message:ident) -> $reply:ty, $op:ident, $name:literal;)*) => {$(
        impl Message for $message {
            type Reply = Result<$reply>;
            const NAME: &'static str = $name;
        }

        impl $message {
            /// The operation, as errors and logs name it.
            pub const OP: Op = Op::$op;
        }

        impl SyscallMessage for $message {
            type Done = $reply;

            const OP: Op = Op::$op;

            fn from_syscall(call: Syscall) -> Option<Self> {
                match call {
                    Syscall::$variant(message) => Some(message),
                    _ => None,
                }
            }

            fn from_answer(answer: Answer) -> Option<$reply> {
                match answer {
                    Answer::$variant(done) => Some(done),
                    _ => None,
                }
            }
        }

        impl From<$reply> for Answer {
            fn from(done: $reply) -> Self {
                Self::$variant(done)
            }
        }

        impl From<$message> for Syscall {
            fn from(message: $message) -> Self {
                Self::$variant(message)
            }
        }
    )*};
}

syscalls! {
    Stat(SysStat) -> Arc<FileMetadata>, Stat, "sys.stat";
    Setattr(SysSetattr) -> SetattrDone, Setattr, "sys.setattr";
    Rename(SysRename) -> Renamed, Rename, "sys.rename";
    Unlink(SysUnlink) -> Unlinked, Unlink, "sys.unlink";
    Readdir(SysReaddir) -> Listing, Readdir, "sys.readdir";
    Read(SysRead) -> ReadData, Read, "sys.read";
    Write(SysWrite) -> Written, Write, "sys.write";
    Copy(SysCopy) -> Copied, Copy, "sys.copy";
    Lock(SysLock) -> Locked, Lock, "sys.lock";
    Unlock(SysUnlock) -> Unlocked, Unlock, "sys.unlock";
    Watch(SysWatch) -> Watched, Watch, "sys.watch";
    Tx(SysTx) -> Transacted, Tx, "sys.tx";
    Versions(SysVersions) -> Versions, Versions, "sys.versions";
    Sync(SysSync) -> Synced, Sync, "sys.sync";
    Receipt(SysReceipt) -> Kept, Receipt, "sys.receipt";
    Outcome(SysOutcome) -> OpOutcome, Outcome, "sys.outcome";
    Take(SysTake) -> Taken, Take, "sys.take";
    Group(SysGroup) -> GroupDone, Group, "sys.group";
}

/// The builder methods that everything has that is acknowledged.
macro_rules! acknowledged {
    ($message:ident) => {
        impl $message {
            /// Makes the call one with this identity: sent again, it is not executed again, as long as its zone remembers it: [`OPS_KEPT`].
            #[must_use]
            pub fn op_id(mut self, op_id: OpId) -> Self {
                self.op_id = Some(op_id);
                self
            }

            /// Makes the change while that lock is held, or not at all: `EFENCED` when it is not, or not any more. Whoever gets the lock next gets it when the change has been made.
            #[must_use]
            pub fn fence(mut self, fence: Fence) -> Self {
                self.fence = Some(fence);
                self
            }

            /// Acknowledges it as is said, whatever the mount would do.
            #[must_use]
            pub fn consistency(mut self, consistency: Consistency) -> Self {
                self.consistency = Some(consistency);
                self
            }

            /// Acknowledges it when all can see it, before it is on disk.
            #[must_use]
            pub fn eventual(self) -> Self {
                self.consistency(Consistency::Eventual)
            }

            /// Acknowledges it when it is on disk, whatever the mount would do. Refused with `EOPNOTSUPP` where nothing is kept.
            #[must_use]
            pub fn strong(self) -> Self {
                self.consistency(Consistency::Strong)
            }
        }
    };
}

/// The builder methods that every mutation has.
macro_rules! mutation {
    ($message:ident) => {
        acknowledged!($message);

        impl $message {
            /// Does nothing unless the entry is as `expected`.
            #[must_use]
            pub fn when(mut self, expected: Precondition) -> Self {
                self.precondition = expected;
                self
            }

            /// Does nothing unless there is no entry. [`when`](Self::when) has the other conditions.
            #[must_use]
            pub fn if_absent(self) -> Self {
                self.when(Precondition::Absent)
            }

            /// Does nothing unless the entry is the one that was `seen`, and its content, too: nobody wrote it, and nobody put another in its place.
            #[must_use]
            pub fn if_unchanged(self, seen: &FileMetadata) -> Self {
                self.when(Precondition::unchanged(seen))
            }

            /// Does nothing unless the entry's content has this version; see [`Precondition::Version`].
            #[must_use]
            pub fn if_version(self, version: u64) -> Self {
                self.when(Precondition::Version(version))
            }

            /// Does nothing unless the entry has this content.
            #[must_use]
            pub fn if_match(self, content: ContentId) -> Self {
                self.when(Precondition::Content(content))
            }
        }
    };
}

mutation!(SysSetattr);
mutation!(SysRename);
mutation!(SysUnlink);
mutation!(SysWrite);
mutation!(SysCopy);
acknowledged!(SysTx);
