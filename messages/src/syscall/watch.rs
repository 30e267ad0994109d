//! Waits for changes.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventMask};
use crate::ident::Lsn;
use crate::path::{PathError, VPath};

/// Waits for changes at `path` and below it, and tells those that were.
///
/// Told is what was committed, when it is on disk and the locks that it was made under are gone: all of it in the order of the log of the zone whose mount
/// serves the path, each commit once. A rename is told to those who watch either of its paths, a copy to those who watch its destination; a directory that
/// is removed or renamed as a whole, a mount and its end to those who watch below it, too. Nothing is told of directories that come and go with what is in them,
/// and nothing of what others do behind a path-addressed mount. Only what the caller may read is told: of a rename the readable path alone, when it is one, and
/// of a copy no source that is not. Mounts of another zone are not watched from above: their changes stand in another log.
///
/// Of what is in no log, as locks are not, whoever waits is told at once, between the commits; whoever resumes is not.
///
/// # Errors
/// `EINVAL` for a pattern that is none, an empty mask, and a place that the log does not have yet; `ENODATA` for one that is older than what the log
/// [still](crate::syscall::OPS_KEPT) tells, with the [oldest](crate::Error::oldest) that can be asked for; `EOPNOTSUPP` below `/__sys__`, where nothing is committed; `ENODEV`
/// where no mount serves the path; `EACCES` without the right to read it. `EBUSY` when there are as many watches as may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysWatch {
    /// What is watched. It need not exist. Links are followed.
    pub path: VPath,
    /// Whether changes below it are told.
    pub recursive: bool,
    /// Tells only changes of paths below it that match this pattern from there on, as in a shell: `*` and `?` do not match `/`, `**` does.
    pub glob: Option<Arc<str>>,
    /// Which kinds of change are told.
    pub mask: EventMask,
    /// Tells changes after this commit, also past ones; none for those from now on.
    pub since: Option<Lsn>,
    /// How long to wait for the first one.
    pub wait: Duration,
    /// How many changes to tell at most, if one commit has not more; none for as many as a reply has.
    pub limit: Option<NonZeroU32>,
}

/// What [`SysWatch`] gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Watched {
    /// The changes, in the order of their commits; empty when none came in time.
    pub events: Vec<Event>,
    /// Where to go on: all up to there was told.
    pub next: Lsn,
    /// Changes came faster than they were taken, and those after this place in the log are not told from memory. The log tells them to whoever goes on there.
    pub overflow: Option<Lsn>,
}

impl Watched {
    /// These events, and where to go on.
    pub fn new(events: Vec<Event>, next: Lsn) -> Self {
        Self { events, next, overflow: None }
    }
}

impl SysWatch {
    /// Every kind of change at `path` and below it, without waiting.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self {
            path: path.into(),
            recursive: true,
            glob: None,
            mask: EventMask::ALL,
            since: None,
            wait: Duration::ZERO,
            limit: None,
        }
    }

    /// Every kind of change of paths that match the whole of `pattern`. What comes before its first wildcard is the path that is watched.
    ///
    /// # Errors
    /// What is wrong with that path. What is wrong with the pattern, the kernel says.
    pub fn glob(pattern: &str) -> Result<Self, PathError> {
        let wild = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
        let split = pattern[..wild].rfind('/').map_or(0, |slash| slash + 1);
        let (base, rest) = pattern.split_at(split);
        let call = Self::at(VPath::parse(if base.is_empty() { "/" } else { base })?);
        Ok(call.matching(rest))
    }

    /// Only changes of paths below that match this pattern from there on.
    #[must_use]
    pub fn matching(mut self, pattern: impl Into<Arc<str>>) -> Self {
        self.glob = Some(pattern.into());
        self
    }

    /// Only changes at the path itself.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.recursive = false;
        self
    }

    /// Only these kinds.
    #[must_use]
    pub fn mask(mut self, mask: impl Into<EventMask>) -> Self {
        self.mask = mask.into();
        self
    }

    /// Waits for up to `wait`.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Goes on after the commit `since`.
    #[must_use]
    pub fn since(mut self, since: Lsn) -> Self {
        self.since = Some(since);
        self
    }

    /// Tells at most this many at once, or one commit.
    #[must_use]
    pub fn limit(mut self, limit: NonZeroU32) -> Self {
        self.limit = Some(limit);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_first_wildcard_is_the_path() {
        let check = |pattern: &str, path: &str, rest: &str| {
            let call = SysWatch::glob(pattern).unwrap();
            assert_eq!((call.path.as_str(), call.glob.as_deref()), (path, Some(rest)), "{pattern}");
        };
        check("/w/*", "/w", "*");
        check("/w/a*/b", "/w", "a*/b");
        check("*.txt", "/", "*.txt");
        check("/**/x", "/", "**/x");
        check("/w/{a,z}", "/w", "{a,z}");
        check("/w/x", "/w", "x");
        assert!(SysWatch::glob("/../*").is_err());
    }
}
