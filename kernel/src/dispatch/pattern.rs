//! Path patterns, and the trie that finds the one that fits a path best.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::FixedState;
use nexus_messages::{PathError, VPath};

/// The most components that a pattern has.
pub const PATTERN_DEPTH_MAX: usize = 64;

/// A path with places left open: `{}` stands for any one component, `/**` at the end for any number of further ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// With `**` at the end, when there is one.
    text: VPath,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It is not even a path.
    #[error("{pattern:?} is no pattern: {why}")]
    NotAPath {
        /// The text as given.
        pattern: String,
        /// What is wrong with it.
        #[source]
        why: PathError,
    },
    /// `**` stands somewhere else than at the end.
    #[error("{pattern:?} has `**` before its end")]
    RestInside {
        /// The text as given.
        pattern: String,
    },
    /// It has too many components.
    #[error("{pattern:?} has more than {PATTERN_DEPTH_MAX} components")]
    TooDeep {
        /// The text as given.
        pattern: String,
    },
}

const ANY: &str = "{}";
const REST: &str = "**";

impl Pattern {
    /// Validates `text`. Repeated and trailing slashes are dropped, as in paths.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let pattern = || text.to_owned();
        let path = VPath::parse(text).map_err(|why| PatternError::NotAPath { pattern: pattern(), why })?;
        if path.depth() > PATTERN_DEPTH_MAX {
            return Err(PatternError::TooDeep { pattern: pattern() });
        }
        if path.components().rev().skip(1).any(|name| name == REST) {
            return Err(PatternError::RestInside { pattern: pattern() });
        }
        Ok(Self { text: path })
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Patterns with a number each, ordered for finding. A node stands for a prefix that patterns share.
#[derive(Default)]
pub(super) struct PatternTrie {
    here: Option<usize>,
    rest: Option<usize>,
    literals: HashMap<Box<str>, Self, FixedState>,
    any: Option<Box<Self>>,
}

impl PatternTrie {
    /// Files `number` under `pattern`. A number that was there before is replaced.
    pub(super) fn insert(&mut self, pattern: &Pattern, number: usize) {
        let mut node = self;
        for name in pattern.text.components() {
            node = match name {
                REST => {
                    node.rest = Some(number);
                    return;
                }
                ANY => node.any.get_or_insert_default(),
                name => node.literals.entry(name.into()).or_default(),
            };
        }
        node.here = Some(number);
    }

    /// The first number that `accept` wants, among those whose pattern matches `path`, the best first. Component by component a
    /// literal beats `{}`, which beats `**`; a path that ends beats one that could go on. `/a/**` matches `/a`, too.
    ///
    /// Visits each node at most once, to a depth of [`PATTERN_DEPTH_MAX`], and allocates nothing.
    pub(super) fn find(&self, path: &VPath, mut accept: impl FnMut(usize) -> bool) -> Option<usize> {
        let text = if path.is_root() { None } else { Some(&path.as_str()[1..]) };
        self.find_below(text, &mut accept)
    }

    fn find_below(&self, rest: Option<&str>, accept: &mut impl FnMut(usize) -> bool) -> Option<usize> {
        let deeper = match rest {
            None => self.here.filter(|number| accept(*number)),
            Some(text) => {
                let (name, tail) = match text.split_once('/') {
                    Some((name, tail)) => (name, Some(tail)),
                    None => (text, None),
                };
                let literal = self.literals.get(name).and_then(|node| node.find_below(tail, accept));
                literal.or_else(|| self.any.as_ref().and_then(|node| node.find_below(tail, accept)))
            }
        };
        deeper.or_else(|| self.rest.filter(|number| accept(*number)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trie(patterns: &[&str]) -> PatternTrie {
        let mut trie = PatternTrie::default();
        for (number, pattern) in patterns.iter().enumerate() {
            trie.insert(&Pattern::parse(pattern).unwrap(), number);
        }
        trie
    }

    fn check(patterns: &[&str], path: &str, expected: Option<&str>) {
        let found = trie(patterns).find(&VPath::parse(path).unwrap(), |_| true);
        assert_eq!(found.map(|number| patterns[number]), expected, "{path} among {patterns:?}");
    }

    #[test]
    fn a_literal_beats_a_hole_and_a_hole_beats_the_rest() {
        check(&["/a/{}", "/a/b"], "/a/b", Some("/a/b"));
        check(&["/a/{}", "/a/b"], "/a/c", Some("/a/{}"));
        check(&["/a/**", "/a/{}"], "/a/c", Some("/a/{}"));
        check(&["/a/**", "/{}/c"], "/a/c", Some("/a/**"));
    }

    #[test]
    fn components_must_be_as_many_unless_the_rest_is_open() {
        check(&["/a/{}"], "/a", None);
        check(&["/a/{}"], "/a/b/c", None);
        check(&["/a/**"], "/a/b/c", Some("/a/**"));
        check(&["/a/**"], "/a", Some("/a/**"));
        check(&["/a/**"], "/ab", None);
        check(&["/**"], "/", Some("/**"));
        check(&["/"], "/", Some("/"));
        check(&["/"], "/a", None);
    }

    #[test]
    fn a_better_start_that_leads_nowhere_is_given_up() {
        check(&["/a/b/x", "/a/{}/y"], "/a/b/y", Some("/a/{}/y"));
        check(&["/a/b/x", "/a/**"], "/a/b/y", Some("/a/**"));
    }

    #[test]
    fn what_is_not_accepted_leaves_its_place_to_the_next_best() {
        let patterns = ["/a/b", "/a/{}", "/a/**"];
        let path = VPath::parse("/a/b").unwrap();
        assert_eq!(trie(&patterns).find(&path, |number| number != 0), Some(1));
        assert_eq!(trie(&patterns).find(&path, |number| number == 2), Some(2));
        assert_eq!(trie(&patterns).find(&path, |_| false), None);
    }

    #[test]
    fn a_pattern_is_a_path_with_the_rest_at_its_end() {
        assert!(matches!(Pattern::parse("a/b"), Err(PatternError::NotAPath { .. })));
        assert!(matches!(Pattern::parse("/a/**/b"), Err(PatternError::RestInside { .. })));
        let deep = "/d".repeat(PATTERN_DEPTH_MAX + 1);
        assert!(matches!(Pattern::parse(&deep), Err(PatternError::TooDeep { .. })));
        assert_eq!(Pattern::parse("//a//{}/").unwrap().as_str(), "/a/{}");
    }

    /// How well a pattern fits, component by component: smaller is better. None when it does not match.
    fn fit(pattern: &str, path: &VPath) -> Option<Vec<u8>> {
        let pattern = Pattern::parse(pattern).unwrap();
        let mut names = path.components();
        let mut fit = Vec::new();
        for part in pattern.text.components() {
            match part {
                REST => {
                    fit.push(2);
                    return Some(fit);
                }
                ANY => {
                    names.next()?;
                    fit.push(1);
                }
                part => {
                    names.next().filter(|name| *name == part)?;
                    fit.push(0);
                }
            }
        }
        names.next().is_none().then_some(fit)
    }

    proptest! {
        #[test]
        fn finding_agrees_with_a_naive_scan(
            patterns in prop::collection::btree_set("(/(a|b|\\{\\})){0,3}(/\\*\\*)?", 0..10),
            path in "(/(a|b|c)){1,4}",
            refused in any::<prop::sample::Index>(),
        ) {
            let patterns: Vec<String> = patterns.into_iter().filter(|pattern| !pattern.is_empty()).collect();
            let refused = if patterns.is_empty() { 0 } else { refused.index(patterns.len()) };
            let path = VPath::parse(&path).unwrap();
            let refs: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let found = trie(&refs).find(&path, |number| number != refused);
            let others = (0..refs.len()).filter(|number| *number != refused);
            let best = others.filter_map(|number| Some((fit(refs[number], &path)?, number))).min();
            prop_assert_eq!(found, best.map(|(_, number)| number));
        }
    }
}
