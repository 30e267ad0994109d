//! What an advisory lock is filed under: a path of a zone.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use nexus_messages::{VPath, ZoneId, hash_of};

use crate::semaphore::places::Key;
use crate::semaphore::table::Filed;

/// A path of a zone, as one text: the path itself in the root zone, `ZONE:PATH` in others. What begins with it and a separator lies below it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LockKey(Arc<str>);

impl LockKey {
    pub(crate) fn new(zone: &ZoneId, path: &VPath) -> Self {
        // No zone's name begins with a slash.
        Self(if zone.is_root() { path.shared() } else { format!("{zone}:{path}").into() })
    }

    /// The zone and the path.
    pub(crate) fn parts(&self) -> (ZoneId, VPath) {
        let at = self.base();
        let zone = match at {
            0 => ZoneId::root(),
            _ => ZoneId::parse(&self.0[..at - 1]).unwrap_or_else(|_| ZoneId::root()),
        };
        (zone, VPath::parse(&self.0[at..]).unwrap_or_else(|_| VPath::root()))
    }

    /// Where the path begins.
    fn base(&self) -> usize {
        if self.0.starts_with('/') { 0 } else { self.0.find(":/").map_or(0, |at| at + 1) }
    }

    fn is_root(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The texts of what lies above it, from its parent up.
    fn ancestors(&self) -> impl Iterator<Item = &str> {
        let base = self.base();
        let mut rest: &str = &self.0;
        std::iter::from_fn(move || {
            if rest.len() <= base + 1 {
                return None;
            }
            let cut = rest.rfind('/')?;
            rest = if cut == base { &rest[..=base] } else { &rest[..cut] };
            Some(rest)
        })
    }
}

impl std::borrow::Borrow<str> for LockKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Key for LockKey {
    fn related<'m, T>(&self, map: &'m BTreeMap<Self, T>) -> impl Iterator<Item = (&'m Self, &'m T)> {
        let above: smallvec::SmallVec<[(&Self, &T); 2]> =
            self.ancestors().filter_map(|text| map.get_key_value(text)).collect();
        // The keys below are those that begin with it and a separator; they lie together.
        let mut first = String::with_capacity(self.0.len() + 1);
        first.push_str(&self.0);
        if !self.is_root() {
            first.push('/');
        }
        let from = if self.is_root() { Bound::Excluded(&*first) } else { Bound::Included(&*first) };
        let below = map.range::<str, _>((from, Bound::Unbounded));
        above.into_iter().chain(below.take_while(move |(key, _)| key.0.starts_with(&*first)))
    }
}

impl Filed for LockKey {
    fn part(&self) -> Option<u64> {
        let (base, text) = (self.base(), &*self.0);
        let name = &text[base + 1..];
        if name.is_empty() {
            return None;
        }
        // Byte by byte: names at the top are short.
        let end = name.bytes().position(|byte| byte == b'/').unwrap_or(name.len());
        Some(hash_of(&text[..=base + end]))
    }

    fn is_below(&self, root: &Self) -> bool {
        self.0.starts_with(&*root.0)
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(zone: &str, path: &str) -> LockKey {
        LockKey::new(&ZoneId::parse(zone).unwrap(), &VPath::parse(path).unwrap())
    }

    fn check(of: (&str, &str), related: &[(&str, &str)]) {
        let all = [
            ("root", "/"),
            ("root", "/a"),
            ("root", "/a-b"),
            ("root", "/a.txt"),
            ("root", "/a/b"),
            ("root", "/a/b/c"),
            ("root", "/a/bc"),
            ("root", "/a0"),
            ("root", "/d"),
            ("team", "/"),
            ("team", "/a"),
            ("team", "/a/b"),
            ("team-2", "/a"),
        ];
        let map: BTreeMap<LockKey, ()> = all.iter().map(|(zone, path)| (key(zone, path), ())).collect();
        let of = key(of.0, of.1);
        let mut found: Vec<LockKey> = of.related(&map).map(|(key, ())| key.clone()).collect();
        let mut expected: Vec<LockKey> = related.iter().map(|(zone, path)| key(zone, path)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "of {of:?}");
    }

    #[test]
    fn a_lock_reaches_what_is_above_and_below_it_in_its_zone() {
        check(("root", "/a/b"), &[("root", "/"), ("root", "/a"), ("root", "/a/b/c")]);
        check(("root", "/a"), &[("root", "/"), ("root", "/a/b"), ("root", "/a/b/c"), ("root", "/a/bc")]);
        check(("root", "/d/e/f"), &[("root", "/"), ("root", "/d")]);
        check(("team", "/a"), &[("team", "/"), ("team", "/a/b")]);
        check(("team", "/"), &[("team", "/a"), ("team", "/a/b")]);
        check(("team-2", "/a/b"), &[("team-2", "/a")]);
        let root: Vec<_> = ["/a", "/a-b", "/a.txt", "/a/b", "/a/b/c", "/a/bc", "/a0", "/d"]
            .iter()
            .map(|path| ("root", *path))
            .collect();
        check(("root", "/"), &root);
    }

    #[test]
    fn keys_that_exclude_each_other_are_filed_together_unless_one_reaches_all() {
        assert_eq!(key("root", "/a/b").part(), key("root", "/a").part());
        assert_eq!(key("team", "/a/b/c").part(), key("team", "/a").part());
        assert_ne!(key("team", "/a").part(), key("root", "/a").part());
        assert_ne!(key("root", "/a").part(), key("root", "/b").part());
        assert_eq!((key("root", "/").part(), key("team", "/").part()), (None, None));
    }

    #[test]
    fn a_key_tells_its_zone_and_its_path() {
        for (zone, path) in [("root", "/"), ("root", "/a:/b"), ("team.a_1", "/"), ("team", "/x:/y")] {
            let (found, at) = key(zone, path).parts();
            assert_eq!((found.as_str(), at.as_str()), (zone, path));
        }
    }
}
