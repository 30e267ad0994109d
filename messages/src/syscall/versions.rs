//! What was there before: as of when a call looks, and the versions of a file that are kept.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::ContentId;
use crate::error::Op;
use crate::ident::{FileId, Lsn};
use crate::metadata::EntryType;
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

/// Asks what was found at `path` over time, as far as the history of its mount is kept: each entry that was there, in each version that it had there,
/// the latest first. So a file that was removed or renamed away is told of, whatever came to its path after it, and also when its directory has
/// gone. The path is taken as it resolved then, from the mount that serves it now; what was reached through links of then is found where they led.
/// Links of now are followed, unless [`follow`](Self::follow) says otherwise. Changes nothing, may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysVersions {
    /// The path.
    pub path: VPath,
    /// Whether the versions of one file are asked for instead, wherever it lay: of the one that is at the path, or was the last one there. These come
    /// the oldest first. A directory has none of these, and is refused.
    pub of_file: bool,
    /// Whether a link that is at the end of the path now is followed.
    pub follow: bool,
    /// How many versions at most; the kernel's own limit applies in any case.
    pub limit: Option<NonZeroU32>,
    /// Where to go on: from the previous page.
    pub cursor: Option<VersionCursor>,
}

/// Where a list of versions goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionCursor(pub Lsn);

/// What was found at a path from one commit to another: an entry, in one of its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Version {
    /// The entry. It has the same identity wherever it is moved.
    pub file_id: FileId,
    /// What it was.
    pub entry_type: EntryType,
    /// The number of its version. What changes attributes alone makes no new version. Another entry at the same path begins anew.
    pub version: u64,
    /// The first place in the log as of which it is found: that of the commit that put it there, or where the history begins. Reading the path as of this
    /// place, or a later one before `until`, gives this version. None only of the first version of one file, when it is not known.
    pub from: Option<Lsn>,
    /// When that commit was made; none when it is not known.
    pub from_at: Option<Timestamp>,
    /// The commit that put it there, as far as that is known: it wrote, moved or made it.
    pub lsn: Option<Lsn>,
    /// The commit that superseded, moved or removed it; none for what is there now.
    pub until: Option<Lsn>,
    /// When that commit was made.
    pub until_at: Option<Timestamp>,
    /// How many bytes it has.
    pub size: u64,
    /// The address of its content.
    pub content_id: Option<ContentId>,
    /// When the content was made.
    pub modified: Timestamp,
    /// Who put it there, as far as that is known.
    pub by: Option<Arc<str>>,
    /// By which operation, as far as that is known.
    pub op: Option<Op>,
}

/// What [`SysVersions`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Versions {
    /// The versions, in the order that was asked for.
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
    /// The version with this number of this entry, of which nothing else is known.
    pub fn new(file_id: FileId, entry_type: EntryType, version: u64) -> Self {
        Self {
            file_id,
            entry_type,
            version,
            from: None,
            from_at: None,
            lsn: None,
            until: None,
            until_at: None,
            size: 0,
            content_id: None,
            modified: Timestamp::default(),
            by: None,
            op: None,
        }
    }

    /// Whether it is there now.
    pub fn is_present(&self) -> bool {
        self.until.is_none()
    }
}

impl SysVersions {
    /// What was found at `path` over time.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self { path: path.into(), of_file: false, follow: true, limit: None, cursor: None }
    }

    /// The versions of the file that is at the path, or was the last one there, wherever it lay.
    #[must_use]
    pub fn of_file(mut self) -> Self {
        self.of_file = true;
        self
    }

    /// Takes a link that is at the end of the path now for what it is.
    #[must_use]
    pub fn no_follow(mut self) -> Self {
        self.follow = false;
        self
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
