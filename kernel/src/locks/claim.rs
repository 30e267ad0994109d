//! What can be locked, and what excludes what.

use std::sync::Arc;

use nexus_messages::{Timestamp, VPath};
use serde::{Deserialize, Serialize};

/// Whether others may hold the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// Readers share.
    Read,
    /// A writer is alone.
    Write,
}

/// How far a lock reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// The path alone: a file's content, a directory's own attributes.
    Entry,
    /// The path and all below it: a recursive removal, the rename of a directory.
    Subtree,
}

/// One lock that somebody wants or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub path: VPath,
    /// Shared or alone.
    pub mode: Mode,
    /// How far.
    pub scope: Scope,
}

/// Who locks, for listings and for finding who is stuck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockOwner {
    /// The agent's name.
    pub agent: Arc<str>,
    /// When it asked. A lock that was waited for is listed with the time at which it was given.
    pub since: Timestamp,
}

impl Mode {
    /// Whether the two cannot be held together by different owners.
    #[inline]
    pub fn excludes(self, other: Self) -> bool {
        self == Self::Write || other == Self::Write
    }
}

impl Claim {
    /// A lock of `path`.
    pub fn new(path: VPath, mode: Mode, scope: Scope) -> Self {
        Self { path, mode, scope }
    }

    /// Whether the two cannot be held together by different owners: one of them writes, and they are for the same path or one
    /// reaches down to the other's.
    pub fn excludes(&self, other: &Self) -> bool {
        self.mode.excludes(other.mode) && (self.reaches(&other.path) || other.reaches(&self.path))
    }

    fn reaches(&self, path: &VPath) -> bool {
        match self.scope {
            Scope::Entry => self.path == *path,
            Scope::Subtree => path.is_within(&self.path),
        }
    }
}

/// The claims of one call in the canonical order, ancestors first, with one claim for each path: the strongest of its mode and the
/// farthest of its scope.
pub(super) fn canonical(mut claims: Vec<Claim>) -> Vec<Claim> {
    claims.sort_by(|a, b| a.path.cmp(&b.path));
    claims.dedup_by(|later, kept| {
        let same = later.path == kept.path;
        if same {
            kept.mode = kept.mode.max(later.mode);
            kept.scope = kept.scope.max(later.scope);
        }
        same
    });
    claims
}

#[cfg(test)]
mod tests {
    use super::Mode::{Read, Write};
    use super::Scope::{Entry, Subtree};
    use super::*;

    fn claim(path: &str, mode: Mode, scope: Scope) -> Claim {
        Claim::new(VPath::parse(path).unwrap(), mode, scope)
    }

    fn check(a: (&str, Mode, Scope), b: (&str, Mode, Scope), excluded: bool) {
        let (left, right) = (claim(a.0, a.1, a.2), claim(b.0, b.1, b.2));
        assert_eq!(left.excludes(&right), excluded, "{a:?} {b:?}");
        assert_eq!(right.excludes(&left), excluded, "{b:?} {a:?}");
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        for scope in [Entry, Subtree] {
            check(("/a", Read, scope), ("/a", Read, scope), false);
            check(("/a", Read, scope), ("/a", Write, scope), true);
            check(("/a", Write, scope), ("/a", Write, scope), true);
        }
        check(("/a", Write, Entry), ("/a", Write, Subtree), true);
    }

    #[test]
    fn a_subtree_reaches_down_and_an_entry_does_not() {
        for scope in [Entry, Subtree] {
            check(("/a", Write, Subtree), ("/a/b/c", Read, scope), true);
            check(("/a", Read, Subtree), ("/a/b/c", Read, scope), false);
            check(("/a", Read, Subtree), ("/a/b/c", Write, scope), true);
            check(("/", Write, Subtree), ("/a", Read, scope), true);
        }
        check(("/a", Write, Entry), ("/a/b", Write, Entry), false);
        check(("/a", Write, Entry), ("/a/b", Write, Subtree), false);
    }

    #[test]
    fn siblings_that_share_a_name_prefix_do_not_conflict() {
        for other in ["/a/bc", "/a/b-x", "/a/b.txt"] {
            check(("/a/b", Write, Subtree), (other, Write, Subtree), false);
        }
    }

    #[test]
    fn claims_are_ordered_and_duplicates_take_the_stronger() {
        let claims = vec![
            claim("/b", Read, Subtree),
            claim("/a/x", Write, Entry),
            claim("/b", Write, Entry),
            claim("/a", Read, Entry),
        ];
        let expected = [claim("/a", Read, Entry), claim("/a/x", Write, Entry), claim("/b", Write, Subtree)];
        assert_eq!(canonical(claims), expected);
    }
}
