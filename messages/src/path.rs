//! Paths: validated once, normalised once, cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest path, in bytes.
pub const PATH_MAX: usize = 4_096;

/// The longest component of a path, in bytes.
pub const NAME_MAX: usize = 255;

const _: () = assert!(NAME_MAX < PATH_MAX);

/// An absolute path in the namespace.
///
/// Starts with `/`; has no empty component, no `.`, no `..` and no NUL; ends in `/` only when it is the root.
/// Cloning copies a pointer and a hash. Two paths are equal when their texts are; they are ordered by their bytes.
#[derive(Clone)]
pub struct VPath {
    text: Arc<str>,
    // Invariant: `hash_of(&text)`. Tables keyed by path take it as it is, so that a warm call never reads the text twice.
    hash: u64,
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The text is empty.
    #[error("a path cannot be empty")]
    Empty,
    /// The text does not start with `/`.
    #[error("a path starts with /")]
    Relative,
    /// The text contains a NUL byte.
    #[error("a path cannot contain NUL")]
    Nul,
    /// One component is `.` or `..`.
    #[error("a path cannot contain the component {component:?}")]
    Dots {
        /// `.` or `..`.
        component: &'static str,
    },
    /// One component is longer than [`NAME_MAX`].
    #[error("a component of {len} bytes is longer than {NAME_MAX}")]
    NameTooLong {
        /// The component's length in bytes.
        len: usize,
    },
    /// The path is longer than [`PATH_MAX`].
    #[error("a path of {len} bytes is longer than {PATH_MAX}")]
    PathTooLong {
        /// The path's length in bytes.
        len: usize,
    },
    /// A name that should be one component contains `/` or is empty.
    #[error("{name:?} is not a single component")]
    NotAName {
        /// The name as given.
        name: String,
    },
}

/// The hash under which a path's text is filed in every table keyed by path. The same in every process.
#[inline]
pub fn hash_of(text: &str) -> u64 {
    const STATE: FixedState = FixedState::with_seed(0x6e65_7875_7350_6174);
    STATE.hash_one(text)
}

impl VPath {
    /// The root, `/`.
    pub fn root() -> Self {
        Self::trusted(Arc::from("/"))
    }

    /// Validates `text`. Repeated and trailing slashes are dropped; everything else that is not a path is refused.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if !text.starts_with('/') {
            return Err(PathError::Relative);
        }
        if text.as_bytes().contains(&0) {
            return Err(PathError::Nul);
        }
        let mut clean = true;
        for name in text[1..].split('/') {
            match check_component(name) {
                Ok(()) => {}
                Err(PathError::NotAName { .. }) => clean = false,
                Err(refused) => return Err(refused),
            }
        }
        if clean || text == "/" {
            return Self::within_limit(Arc::from(text));
        }
        let mut tidy = String::with_capacity(text.len());
        for name in text.split('/').filter(|name| !name.is_empty()) {
            tidy.push('/');
            tidy.push_str(name);
        }
        if tidy.is_empty() {
            return Ok(Self::root());
        }
        Self::within_limit(Arc::from(tidy))
    }

    /// The child called `name`, which is one component.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if name.contains('/') {
            return Err(PathError::NotAName { name: name.into() });
        }
        if name.as_bytes().contains(&0) {
            return Err(PathError::Nul);
        }
        check_component(name)?;
        Self::within_limit(self.concat(name))
    }

    /// The path `relative` below this one. Empty components are dropped; an empty `relative` gives the path itself.
    pub fn join_relative(&self, relative: &str) -> Result<Self, PathError> {
        if relative.is_empty() {
            return Ok(self.clone());
        }
        Self::parse(&self.concat(relative))
    }

    fn concat(&self, tail: &str) -> Arc<str> {
        let head = if self.is_root() { "" } else { &*self.text };
        let mut text = String::with_capacity(head.len() + 1 + tail.len());
        text.push_str(head);
        text.push('/');
        text.push_str(tail);
        Arc::from(text)
    }

    fn within_limit(text: Arc<str>) -> Result<Self, PathError> {
        match text.len() {
            len if len > PATH_MAX => Err(PathError::PathTooLong { len }),
            _ => Ok(Self::trusted(text)),
        }
    }

    fn trusted(text: Arc<str>) -> Self {
        let hash = hash_of(&text);
        Self { text, hash }
    }

    /// The text, which starts with `/`.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        self.text.clone()
    }

    /// [`hash_of`] the text, computed when the path was made.
    #[inline]
    pub fn hash64(&self) -> u64 {
        self.hash
    }

    /// Whether this is `/`.
    #[inline]
    pub fn is_root(&self) -> bool {
        self.text.len() == 1
    }

    /// The last component; none for the root.
    pub fn name(&self) -> Option<&str> {
        if self.is_root() { None } else { self.text.rsplit('/').next() }
    }

    /// The path without its last component; none for the root.
    pub fn parent(&self) -> Option<Self> {
        self.parent_str().map(|text| Self::trusted(Arc::from(text)))
    }

    /// The text of [`parent`](Self::parent), without making a path of it.
    pub fn parent_str(&self) -> Option<&str> {
        if self.is_root() {
            return None;
        }
        match self.text.rfind('/') {
            Some(0) | None => Some("/"),
            Some(at) => Some(&self.text[..at]),
        }
    }

    /// The components, from the root on. Empty for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.text.split('/').filter(|name| !name.is_empty())
    }

    /// How many components there are.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.text.bytes().filter(|&b| b == b'/').count() }
    }

    /// The texts of all proper ancestors, from the parent up to `/`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let mut rest: Option<&str> = Some(&self.text);
        std::iter::from_fn(move || {
            let text = rest?;
            rest = match text.len() {
                1 => None,
                _ => Some(match text.rfind('/') {
                    Some(0) | None => "/",
                    Some(at) => &text[..at],
                }),
            };
            rest
        })
    }

    /// Whether this path is `base` or lies below it. A prefix ends at a separator: `/a/bc` is not below `/a/b`.
    pub fn is_within(&self, base: &Self) -> bool {
        self.relative_to(base).is_some()
    }

    /// What follows `base`, without a leading slash; empty when the two are equal, none when this is not below it.
    pub fn relative_to(&self, base: &Self) -> Option<&str> {
        if base.is_root() {
            return Some(&self.text[1..]);
        }
        let rest = self.text.strip_prefix(base.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    /// The same place below `to` as this one has below `from`; none when this is not below `from`.
    pub fn rebase(&self, from: &Self, to: &Self) -> Option<Result<Self, PathError>> {
        self.relative_to(from).map(|rest| to.join_relative(rest))
    }
}

/// One component: not empty, not dots, not too long. An empty one is told as `NotAName`.
fn check_component(name: &str) -> Result<(), PathError> {
    match name {
        "" => Err(PathError::NotAName { name: String::new() }),
        "." => Err(PathError::Dots { component: "." }),
        ".." => Err(PathError::Dots { component: ".." }),
        _ if name.len() > NAME_MAX => Err(PathError::NameTooLong { len: name.len() }),
        _ => Ok(()),
    }
}

/// What can be taken as a path: a [`VPath`] as it is, a text after validation.
pub trait IntoPath {
    /// The path, or the text as it was given with what is wrong with it.
    fn into_path(self) -> Result<VPath, (String, PathError)>;
}

impl IntoPath for VPath {
    fn into_path(self) -> Result<VPath, (String, PathError)> {
        Ok(self)
    }
}

impl IntoPath for &VPath {
    fn into_path(self) -> Result<VPath, (String, PathError)> {
        Ok(self.clone())
    }
}

impl IntoPath for &str {
    fn into_path(self) -> Result<VPath, (String, PathError)> {
        VPath::parse(self).map_err(|why| (self.to_owned(), why))
    }
}

impl IntoPath for String {
    fn into_path(self) -> Result<VPath, (String, PathError)> {
        VPath::parse(&self).map_err(|why| (self, why))
    }
}

impl IntoPath for &String {
    fn into_path(self) -> Result<VPath, (String, PathError)> {
        self.as_str().into_path()
    }
}

impl From<&Self> for VPath {
    fn from(path: &Self) -> Self {
        path.clone()
    }
}

impl FromStr for VPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for VPath {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl AsRef<str> for VPath {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Borrow<str> for VPath {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for VPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for VPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl PartialEq for VPath {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for VPath {}

impl PartialEq<str> for VPath {
    fn eq(&self, other: &str) -> bool {
        &*self.text == other
    }
}

impl PartialEq<&str> for VPath {
    fn eq(&self, other: &&str) -> bool {
        &*self.text == *other
    }
}

impl PartialOrd for VPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for VPath {
    // As `str` does, because of `Borrow<str>`.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for VPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for VPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, PathError>) {
        let got = VPath::parse(text);
        assert_eq!(got.as_ref().map(VPath::as_str), expected.as_ref().copied(), "{text:?}");
    }

    #[test]
    fn a_path_is_absolute_and_without_dots() {
        check("", Err(PathError::Empty));
        check("a/b", Err(PathError::Relative));
        check("/a\0b", Err(PathError::Nul));
        check("/a/./b", Err(PathError::Dots { component: "." }));
        check("/a/..", Err(PathError::Dots { component: ".." }));
        check("/foo..bar", Ok("/foo..bar"));
        check("/...", Ok("/..."));
    }

    #[test]
    fn slashes_are_normalised_once() {
        check("/", Ok("/"));
        check("///", Ok("/"));
        check("//c.txt", Ok("/c.txt"));
        check("/a//b///c/", Ok("/a/b/c"));
    }

    #[test]
    fn lengths_are_bounded() {
        let name = "n".repeat(NAME_MAX);
        check(&format!("/{name}"), Ok(&format!("/{name}")));
        check(&format!("/{name}x"), Err(PathError::NameTooLong { len: NAME_MAX + 1 }));
        let long = format!("/{name}").repeat(PATH_MAX / (NAME_MAX + 1));
        assert_eq!(long.len(), PATH_MAX);
        check(&long, Ok(&long));
        check(&format!("{long}/x"), Err(PathError::PathTooLong { len: PATH_MAX + 2 }));
    }

    #[test]
    fn a_name_is_one_component() {
        let base = VPath::parse("/a").unwrap();
        assert_eq!(base.join("b").unwrap(), "/a/b");
        assert_eq!(VPath::root().join("b").unwrap(), "/b");
        for bad in ["", ".", "..", "b/c", "b\0"] {
            assert!(base.join(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_separator() {
        let path = VPath::parse("/a/bc").unwrap();
        assert_eq!(path.relative_to(&VPath::parse("/a/b").unwrap()), None);
        assert_eq!(path.relative_to(&VPath::parse("/a").unwrap()), Some("bc"));
        assert_eq!(path.relative_to(&path), Some(""));
        assert_eq!(path.relative_to(&VPath::root()), Some("a/bc"));
    }

    #[test]
    fn ancestors_go_up_to_the_root() {
        let path = VPath::parse("/a/b/c").unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(VPath::root().ancestors().count(), 0);
        assert_eq!(path.parent().unwrap(), "/a/b");
        assert_eq!(VPath::parse("/a").unwrap().parent().unwrap(), "/");
        assert_eq!(path.name(), Some("c"));
        assert_eq!((path.depth(), VPath::root().depth()), (3, 0));
    }

    #[test]
    fn rebasing_moves_a_subtree() {
        let path = |text| VPath::parse(text).unwrap();
        assert_eq!(path("/a/b/c").rebase(&path("/a"), &path("/x/y")).unwrap().unwrap(), "/x/y/b/c");
        assert_eq!(path("/a").rebase(&path("/a"), &path("/")).unwrap().unwrap(), "/");
        assert!(path("/b").rebase(&path("/a"), &path("/x")).is_none());
    }
}
