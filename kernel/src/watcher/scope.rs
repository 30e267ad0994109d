//! What a watch waits for. Pure.

use std::fmt;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use nexus_messages::{EntryType, EventKind, EventMask, PATH_MAX, VPath};

/// Which paths are watched.
pub(crate) enum Scope {
    /// The path alone.
    Entry,
    /// The path and all below it.
    Subtree,
    /// What matches below the path, by its path from there.
    Glob(Box<Pattern>),
}

/// A pattern, in which `*` and `?` do not match `/`.
pub(crate) struct Pattern {
    text: Box<str>,
    matches: GlobSet,
    /// The directories that something that matches may be in.
    above: GlobSet,
}

/// Of how many directories one above the other is told by a pattern each.
const ABOVE_MAX: usize = 32;

impl Pattern {
    fn new(pattern: &str) -> Result<Self, globset::Error> {
        let glob = |pattern: &str| -> Result<Glob, globset::Error> {
            GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()
        };
        // A set of one: a glob by itself panics when it is too deep to be compiled.
        let matches = GlobSet::builder().add(glob(pattern)?).build()?;
        let mut above = GlobSetBuilder::new();
        for pattern in Self::directories(pattern) {
            above.add(glob(&pattern)?);
        }
        Ok(Self { text: pattern.into(), matches, above: above.build()? })
    }

    /// The patterns of the directories that what matches `pattern` may be in: its beginnings. From a choice with a slash in it on, all that are below.
    fn directories(pattern: &str) -> Vec<String> {
        let mut directories: Vec<String> = Vec::new();
        let (mut letters, mut choices) = (pattern.char_indices().peekable(), 0_usize);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => drop(letters.next()),
                '[' => {
                    // The first of a class may be the bracket that else ends it.
                    letters.next_if(|(_, letter)| matches!(letter, '!' | '^'));
                    letters.next();
                    letters.by_ref().find(|(_, letter)| *letter == ']');
                }
                '{' => choices += 1,
                '}' => choices = choices.saturating_sub(1),
                '/' if choices > 0 || directories.len() == ABOVE_MAX => {
                    let known = directories.last().map_or_else(String::new, |last| format!("{last}/"));
                    directories.push(format!("{known}**"));
                    return directories;
                }
                '/' => directories.push(pattern[..at].to_owned()),
                _ => {}
            }
        }
        directories
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
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
        Pattern::new(pattern).map(|pattern| Self::Glob(Box::new(pattern))).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => f.write_str("entry"),
            Self::Subtree => f.write_str("subtree"),
            Self::Glob(pattern) => f.write_str(pattern.text()),
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
        Scope::Glob(pattern) => {
            path.relative_to(base).filter(|relative| !relative.is_empty()).is_some_and(|relative| {
                pattern.matches.is_match(relative) || facts.is_whole() && pattern.above.is_match(relative)
            })
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
        check_kind(EventKind::FileWritten, pattern, at, matches);
    }

    fn check_kind(kind: EventKind, pattern: &str, at: &str, matches: bool) {
        let scope = Scope::glob(pattern).unwrap();
        let at = path(at);
        let facts = Facts { kind, path: &at, other: None, entry_type: EntryType::Reg };
        assert_eq!(concerns(&path("/w"), &scope, EventMask::ALL, facts), matches, "{kind} {pattern} {at}");
    }

    #[test]
    fn a_directory_that_goes_concerns_who_waits_for_what_may_have_been_in_it() {
        let gone = |pattern, at, told| check_kind(EventKind::DirDeleted, pattern, at, told);
        gone("**/*.md", "/w/a/b", true);
        gone("*/x.md", "/w/a", true);
        gone("*/x.md", "/w/a/b", false);
        gone("a/b?/**", "/w/a", true);
        gone("a/b?/**", "/w/a/bc", true);
        gone("a/b?/**", "/w/b", false);
        gone("a/b?/**", "/w/a/c", false);
        gone("a/{b,c/d}/e", "/w/a/c", true);
        gone("a/{b,c/d}/e", "/w/b", false);
        gone("[ab]/c", "/w/b", true);
        gone("[ab]/c", "/w/c", false);
        gone("[]/a]/c/d", "/w/b", false);
        gone("c[1-3]/**", "/w/c2", true);
        gone("c[1-3]/**", "/w/c5/d", false);
        gone("\\{a/b", "/w/{a", true);
        gone("{a,b}/c", "/w/a", true);
        gone("{a,b}/c", "/w/c", false);
        gone("*.md", "/w/a", false);
        gone("*.md", "/", true);
        // What is told of each by itself concerns only who waits for that.
        check("*/x.md", "/w/a", false);
        let deep = ["d"; ABOVE_MAX + 2].join("/");
        gone(&format!("{deep}/x"), &format!("/w/{deep}"), true);
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
