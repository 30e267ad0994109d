//! Lists a directory.

use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::AsOf;
use crate::ident::FileId;
use crate::metadata::{EntryType, FileMetadata};
use crate::path::VPath;

/// Lists the directory at `path`, ordered by the bytes of the names; with [`recursive`](Self::recursive), all below it, each
/// directory before what it holds. Changes nothing, may be repeated.
///
/// A page is no snapshot: an entry that is made or removed between two pages may or may not be seen, the others are seen once. As of a place in the log
/// all pages are of one and the same tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysReaddir {
    /// The directory.
    pub path: VPath,
    /// Whether what lies deeper is listed too. Links are listed, not followed.
    pub recursive: bool,
    /// How many entries at most; the kernel's own limit applies in any case.
    pub limit: Option<NonZeroU32>,
    /// Where to go on: from the previous page.
    pub cursor: Option<Cursor>,
    /// Whether each entry comes with its metadata.
    pub metadata: bool,
    /// As of when; none for what is there now. A directory has no versions: only a place in the log, or a time, makes sense.
    pub as_of: Option<AsOf>,
}

/// Where a listing goes on: after this path. Stays valid when that entry is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub VPath);

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DirEntry {
    /// The entry's full path.
    pub path: VPath,
    /// What it is.
    pub entry_type: EntryType,
    /// Its identity.
    pub file_id: FileId,
    /// Its metadata, when it was asked for. None of an entry whose metadata is damaged, as `SysStat` tells, and where a listing has none.
    pub metadata: Option<Arc<FileMetadata>>,
}

impl DirEntry {
    /// An entry without metadata.
    pub fn new(path: VPath, entry_type: EntryType, file_id: FileId) -> Self {
        Self { path, entry_type, file_id, metadata: None }
    }

    /// The last component of the path.
    pub fn name(&self) -> &str {
        self.path.name().unwrap_or("/")
    }
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listing {
    /// The entries, in order.
    pub entries: Vec<DirEntry>,
    /// Where to go on; none when this is the last page.
    pub next: Option<Cursor>,
    /// Directories of which this page leaves names out. One of which two pages tell may be here in both.
    pub hidden: Vec<Hidden>,
}

/// Names in a directory that no listing shows: no path can hold them, or what lies below them is hidden by a file of the same name, as other tools can make it in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hidden {
    /// The directory.
    pub path: VPath,
    /// How many names.
    pub count: u64,
}

impl Hidden {
    /// So many names in the directory at `path`.
    pub fn new(path: VPath, count: u64) -> Self {
        Self { path, count }
    }
}

impl Listing {
    /// A page that goes on at `next`.
    pub fn new(entries: Vec<DirEntry>, next: Option<Cursor>) -> Self {
        Self { entries, next, hidden: Vec::new() }
    }
}

impl SysReaddir {
    /// Lists the direct children of `path`.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self { path: path.into(), recursive: false, limit: None, cursor: None, metadata: false, as_of: None }
    }

    /// Lists what lies deeper too.
    #[must_use]
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    /// At most `limit` entries in one reply; 0 leaves it to the kernel.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = NonZeroU32::new(limit);
        self
    }

    /// Goes on where a page ended.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Gives each entry its metadata.
    #[must_use]
    pub fn with_metadata(mut self) -> Self {
        self.metadata = true;
        self
    }

    /// Looks at what was there before.
    #[must_use]
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = Some(as_of);
        self
    }
}
