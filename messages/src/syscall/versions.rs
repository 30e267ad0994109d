//! What was there before: as of when a call looks, and the versions of a file that are kept.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::ContentId;
use crate::error::Op;
use crate::ident::Lsn;

use crate::path::VPath;
use crate::time::Timestamp;

/// As of when a call looks at a path.
///
/// Only what a mount's policy keeps can be looked at; anything else is `ENODATA`, and `EOPNOTSUPP` where files are found by their paths. Mounts are
/// where they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AsOf {
    /// The entry that is at the path now, or was the last one there, as it was when its content had this version.
    Version(u64),
    /// The path, and all that leads to it, as they were after the commit at this place in the log of the mount's zone. The same place shows the
    /// same tree in every call.
    Lsn(Lsn),
    /// As [`Lsn`](Self::Lsn), at the place before the first commit that was made after this time. A time that is yet to come is `EINVAL`.
    ///
    /// The log tells when commits were made, and keeps the latest 65,536 of a zone at least, so a history that goes back further is reached by places and
    /// versions alone; `ENODATA` tells the oldest time that can be looked at. A commit has the time at which it had its path to itself: what was under way at
    /// a time was not there yet. A time before the last few commits were on disk may come to another place when it is looked at again: to see one tree in
    /// several calls, look as of a place. After the clock was set back, a time that it passed twice is one of the two.
    Time(Timestamp),
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version}"),
            Self::Lsn(Lsn(lsn)) => write!(f, "LSN {lsn}"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

/// Asks which versions of the entry at `path` can be read, the oldest first and the one of now last. Links are followed. Where nothing is
/// any more, those of the entry that was the last one there. A directory has none, and is refused. Changes nothing, may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysVersions {
    /// The entry.
    pub path: VPath,
    /// How many versions at most; the kernel's own limit applies in any case.
    pub limit: Option<NonZeroU32>,
    /// Where to go on: from the previous page.
    pub cursor: Option<VersionCursor>,
}

/// Where a list of versions goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionCursor(pub Lsn);

/// One version of an entry that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Version {
    /// Its number. What changes attributes alone makes no new version.
    pub version: u64,
    /// The commit that made it, as far as that is known. Reading as of this place, or a later one before `until`, gives this version.
    pub lsn: Option<Lsn>,
    /// The commit that superseded or removed it; none for the version of now.
    pub until: Option<Lsn>,
    /// How many bytes it has.
    pub size: u64,
    /// The address of its content.
    pub content_id: Option<ContentId>,
    /// When the content was made.
    pub modified: Timestamp,
    /// Who made it, as far as that is known.
    pub by: Option<Arc<str>>,
    /// By which operation, as far as that is known.
    pub op: Option<Op>,
}

/// What [`SysVersions`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Versions {
    /// The versions, the oldest first.
    pub versions: Vec<Version>,
    /// Where to go on; none at the end.
    pub next: Option<VersionCursor>,
}

impl Versions {
    /// A page of versions.
    pub fn new(versions: Vec<Version>, next: Option<VersionCursor>) -> Self {
        Self { versions, next }
    }
}

impl Version {
    /// The version with this number and content, of which nothing else is known.
    pub fn new(version: u64, size: u64, content_id: Option<ContentId>, modified: Timestamp) -> Self {
        Self { version, lsn: None, until: None, size, content_id, modified, by: None, op: None }
    }
}

impl SysVersions {
    /// The versions of the entry at `path`.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self { path: path.into(), limit: None, cursor: None }
    }

    /// At most `limit` versions in one reply; 0 leaves it to the kernel.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = NonZeroU32::new(limit);
        self
    }

    /// Goes on where a page ended.
    #[must_use]
    pub fn after(mut self, cursor: VersionCursor) -> Self {
        self.cursor = Some(cursor);
        self
    }
}
