//! What a watch waits for. Pure.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use nexus_messages::{EntryType, EventKind, EventMask, PATH_MAX, VPath};

/// Which paths are watched.
pub(crate) enum Scope {
    /// The path alone.
    Entry,
    /// The path and all below it.
    Subtree,
    /// What matches below the path, by its path from there.
    Glob(GlobMatcher),
}

impl Scope {
    /// The paths that match `pattern`, in which `*` and `?` do not match `/`.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub(crate) fn glob(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() || pattern.len() > PATH_MAX {
            return Err(format!("a pattern has 1 to {PATH_MAX} bytes"));
        }
        let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
        glob.map(|glob| Self::Glob(glob.compile_matcher())).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => f.write_str("entry"),
            Self::Subtree => f.write_str("subtree"),
            Self::Glob(glob) => f.write_str(glob.glob().glob()),
        }
    }
}

/// What there is to know of an event to say whom it concerns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) kind: EventKind,
    pub(crate) path: &'a VPath,
    pub(crate) other: Option<&'a VPath>,
    pub(crate) entry_type: EntryType,
}

impl<'a> Facts<'a> {
    /// Where something happened: at both paths of a rename. The source of a copy is what it was.
    pub(crate) fn paths(self) -> impl Iterator<Item = &'a VPath> {
        let other = self.other.filter(|_| self.kind == EventKind::Renamed);
        std::iter::once(self.path).chain(other)
    }

    /// Whether it happened to all below its paths, too: then nothing else tells of what lies there.
    pub(crate) fn is_whole(self) -> bool {
        match self.kind {
            EventKind::DirDeleted | EventKind::Mounted | EventKind::Unmounted => true,
            EventKind::Renamed => self.entry_type == EntryType::Dir,
            _ => false,
        }
    }
}

/// Whether a watch of these concerns an event. All that the index of watches finds faster is what this says.
pub(crate) fn concerns(base: &VPath, scope: &Scope, mask: EventMask, facts: Facts<'_>) -> bool {
    let at = |path: &VPath| match scope {
        Scope::Entry => path == base,
        Scope::Subtree => path.is_within(base),
        Scope::Glob(glob) => {
            path.relative_to(base).is_some_and(|relative| !relative.is_empty() && glob.is_match(relative))
        }
    };
    let below = |path: &VPath| facts.is_whole() && base.is_within(path);
    mask.contains(facts.kind) && facts.paths().any(|path| at(path) || below(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> VPath {
        VPath::parse(text).unwrap()
    }

    fn check(pattern: &str, at: &str, matches: bool) {
        let scope = Scope::glob(pattern).unwrap();
        let at = path(at);
        let facts =
            Facts { kind: EventKind::FileWritten, path: &at, other: None, entry_type: EntryType::Reg };
        assert_eq!(concerns(&path("/w"), &scope, EventMask::ALL, facts), matches, "{pattern} {at}");
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_cross() {
        check("*", "/w/b", true);
        check("*", "/w/b/c", false);
        check("*", "/w", false);
        check("**", "/w/b/c", true);
        check("**/*.txt", "/w/a.txt", true);
        check("**/*.txt", "/w/x/y/a.txt", true);
        check("{a,z}", "/w/z", true);
        check("{a,z}", "/w/b", false);
        check("{a,z}/*", "/w/a/1", true);
        check("**", "/w", false);
        check("a?", "/w/a", false);
        check("*", "/wx/b", false);
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        for bad in ["", "[", "{a", "a\\", &"x".repeat(PATH_MAX + 1)] {
            assert!(Scope::glob(bad).is_err(), "{bad:?}");
        }
    }
}
