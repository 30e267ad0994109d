//! Metadata of one entry.

use serde::{Deserialize, Serialize};

use super::AsOf;
use crate::path::VPath;

/// Asks for the metadata of the entry at `path`. Changes nothing, may be repeated.
///
/// Links on the way are followed. A link at the end is followed too, unless [`no_follow`](Self::no_follow) is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysStat {
    /// The entry.
    pub path: VPath,
    /// Whether a link at the end is followed.
    pub follow: bool,
    /// As of when; none for what is there now.
    pub as_of: Option<AsOf>,
    /// Whether it tells who holds and who waits for the advisory lock on the entry: [`FileMetadata::lock`](crate::FileMetadata::lock).
    pub include_lock: bool,
}

impl SysStat {
    /// The entry at `path`, or what a link there points at.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self { path: path.into(), follow: true, as_of: None, include_lock: false }
    }

    /// A link at the end is described itself.
    #[must_use]
    pub fn no_follow(mut self) -> Self {
        self.follow = false;
        self
    }

    /// Tells who holds and who waits for the advisory lock on the entry, too, as things are now.
    #[must_use]
    pub fn include_lock(mut self) -> Self {
        self.include_lock = true;
        self
    }

    /// Looks at what was there before.
    #[must_use]
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = Some(as_of);
        self
    }
}
