//! Moves an entry, with all below it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Fence, Precondition};
use crate::ident::OpId;
use crate::metadata::FileMetadata;
use crate::path::VPath;
use crate::receipt::{Consistency, Receipt};

/// Moves the entry at `from`, with all below it, to `to`, in one commit.
///
/// A file at `to` is replaced, a directory there only when it is empty; see [`no_replace`](Self::no_replace). Both paths are
/// on one mount, else `EXDEV`. The same path twice: nothing happens. Links are moved, not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysRename {
    /// The entry.
    pub from: VPath,
    /// Its new path.
    pub to: VPath,
    /// Whether an entry at `to` may be replaced.
    pub replace: bool,
    /// What the caller expects to find at `from`.
    pub precondition: Precondition,
    /// The operation's identity; made by the kernel when none is given.
    pub op_id: Option<OpId>,
    /// When it is acknowledged; none: as the mount does.
    pub consistency: Option<Consistency>,
    /// The lock under which it is made; none: no lock is asked for.
    pub fence: Option<Fence>,
}

/// What [`SysRename`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Renamed {
    /// Whether an entry at the new path was replaced.
    pub replaced: bool,
    /// The entry at its new path.
    pub metadata: Arc<FileMetadata>,
    /// Proof of the commit.
    pub receipt: Receipt,
}

impl Renamed {
    /// The reply for an entry at its new path.
    pub fn new(replaced: bool, metadata: Arc<FileMetadata>, receipt: Receipt) -> Self {
        Self { replaced, metadata, receipt }
    }
}

impl SysRename {
    /// Moves `from` to `to`, replacing what POSIX would replace.
    pub fn new(from: impl Into<VPath>, to: impl Into<VPath>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            replace: true,
            precondition: Precondition::None,
            op_id: None,
            consistency: None,
            fence: None,
        }
    }

    /// Refuses with `EEXIST` when there is an entry at the new path.
    #[must_use]
    pub fn no_replace(mut self) -> Self {
        self.replace = false;
        self
    }
}
