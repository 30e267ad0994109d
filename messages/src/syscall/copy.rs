//! Copies a file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AsOf, Fence, Precondition};
use crate::ident::OpId;
use crate::metadata::FileMetadata;
use crate::path::VPath;
use crate::receipt::{Consistency, Receipt};

/// Copies the content, mode and media type of the file at `from` to `to`, also across mounts. Links are followed.
///
/// A file at `to` is replaced and keeps its time of creation. A file copied onto itself is left alone, unless it is one of [before](Self::as_of): then
/// that is restored, as a new version. May be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysCopy {
    /// The file.
    pub from: VPath,
    /// Where the copy goes.
    pub to: VPath,
    /// As of when the file at `from` is copied; none for what is there now. Copied onto itself from then, it is restored.
    pub as_of: Option<AsOf>,
    /// Whether a file at `to` may be replaced.
    pub replace: bool,
    /// What the caller expects to find at `to`.
    pub precondition: Precondition,
    /// The operation's identity; made by the kernel when none is given.
    pub op_id: Option<OpId>,
    /// When it is acknowledged; none: as the mount does.
    pub consistency: Option<Consistency>,
    /// The lock under which it is made; none: no lock is asked for.
    pub fence: Option<Fence>,
}

/// What [`SysCopy`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Copied {
    /// How many bytes the content has.
    pub size: u64,
    /// Whether the file at the destination was made.
    pub created: bool,
    /// The copy.
    pub metadata: Arc<FileMetadata>,
    /// Proof of the commit.
    pub receipt: Receipt,
}

impl Copied {
    /// The reply for a copy.
    pub fn new(created: bool, metadata: Arc<FileMetadata>, receipt: Receipt) -> Self {
        Self { size: metadata.size, created, metadata, receipt }
    }
}

impl SysCopy {
    /// Copies `from` to `to`.
    pub fn new(from: impl Into<VPath>, to: impl Into<VPath>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            as_of: None,
            replace: true,
            precondition: Precondition::None,
            op_id: None,
            consistency: None,
            fence: None,
        }
    }

    /// Refuses with `EEXIST` when there is an entry at the destination.
    #[must_use]
    pub fn no_replace(mut self) -> Self {
        self.replace = false;
        self
    }

    /// Copies what was at `from` before.
    #[must_use]
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = Some(as_of);
        self
    }
}
