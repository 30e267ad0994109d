//! Removes entries.

use serde::{Deserialize, Serialize};

use super::{Fence, Precondition};
use crate::ident::OpId;
use crate::metadata::EntryType;
use crate::path::VPath;
use crate::receipt::{Consistency, Receipt};

/// Removes the entry at `path`: a file, a link (not its target), an empty directory, a mount point (which detaches it). A pipe goes with all that is in it,
/// and who waits for it is told.
///
/// With [`recursive`](Self::recursive), a directory goes with all below it, in one commit. A mount below it, or a mount point itself, is then refused
/// with `EBUSY`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysUnlink {
    /// The entry.
    pub path: VPath,
    /// Whether a directory goes with all below it.
    pub recursive: bool,
    /// What the caller takes the entry for.
    pub expect: Expect,
    /// What the caller expects to find.
    pub precondition: Precondition,
    /// The operation's identity; made by the kernel when none is given.
    pub op_id: Option<OpId>,
    /// When it is acknowledged; none: as the mount does.
    pub consistency: Option<Consistency>,
    /// The lock under which it is made; none: no lock is asked for.
    pub fence: Option<Fence>,
}

/// What the caller takes an entry for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expect {
    /// Anything.
    #[default]
    Any,
    /// Anything but a directory, else `EISDIR`.
    File,
    /// A directory, else `ENOTDIR`.
    Directory,
    /// A mount point, else `EINVAL`. Nothing else detaches a mount but this and [`Any`](Self::Any).
    Mount,
}

/// What [`SysUnlink`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unlinked {
    /// What the entry was.
    pub entry_type: EntryType,
    /// How many entries are gone, the one at the path included; 0 for a repeat of a call that was executed before.
    pub removed: u64,
    /// Proof of the commit.
    pub receipt: Receipt,
}

impl Unlinked {
    /// The reply for an entry that was of `entry_type`.
    pub fn new(entry_type: EntryType, removed: u64, receipt: Receipt) -> Self {
        Self { entry_type, removed, receipt }
    }
}

impl SysUnlink {
    /// Removes the entry at `path`.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self {
            path: path.into(),
            recursive: false,
            expect: Expect::Any,
            precondition: Precondition::None,
            op_id: None,
            consistency: None,
            fence: None,
        }
    }

    /// A directory goes with all below it.
    #[must_use]
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    /// Says what the caller takes the entry for.
    #[must_use]
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }
}
