//! The table that decides which mount serves a path: immutable, shared by all readers.
//!
//! Longest-prefix match by hash. A path's prefixes are tried from the longest on, and only those whose depth some mount
//! point has, so a table whose points are all one level deep costs one probe, however many there are.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use nexus_messages::{VPath, ZoneId, hash_of};

use super::table::AsMount;

/// Depths from this one on share a bit in the set of depths.
const DEPTHS_TOLD_APART: usize = 63;

/// Which mount serves a path, for all zones. Made by [`MountTable::freeze`](super::MountTable::freeze).
pub struct RouteTable<T> {
    /// The root zone's mounts, which every zone sees below its own.
    root: ZoneRoutes<T>,
    /// Invariant: no empty zone, and not the root zone.
    zones: HashMap<ZoneId, ZoneRoutes<T>, FixedState>,
}

/// What a path was routed to.
#[derive(Debug, PartialEq, Eq)]
pub struct Routed<'a, T> {
    /// The mount that serves the path.
    pub mount: &'a T,
    /// The path relative to the mount point, without a leading slash; empty for the mount point itself.
    pub rest: &'a str,
}

impl<T: AsMount> RouteTable<T> {
    pub(super) fn build(mounts: impl Iterator<Item = T>) -> Self {
        let mut table = Self::default();
        for mount in mounts {
            let zone = if mount.zone().is_root() {
                &mut table.root
            } else {
                table.zones.entry(mount.zone().clone()).or_default()
            };
            zone.insert(mount);
        }
        table
    }

    /// The mount that serves `path` as `zone` sees it: the zone's own mount with the longest point that is a prefix of the
    /// path, and when it has none, the root zone's. Neither blocks nor allocates.
    #[inline]
    pub fn route<'a>(&'a self, zone: &ZoneId, path: &'a VPath) -> Option<Routed<'a, T>> {
        if !self.zones.is_empty()
            && !zone.is_root()
            && let Some(own) = self.zones.get(zone)
            && let Some(routed) = own.route(path)
        {
            return Some(routed);
        }
        self.root.route(path)
    }

    /// The mount whose point is exactly `point`, in exactly this zone.
    pub fn at(&self, zone: &ZoneId, point: &VPath) -> Option<&T> {
        let own = if zone.is_root() { Some(&self.root) } else { self.zones.get(zone) };
        own.and_then(|zone| match point.is_root() {
            true => zone.at_root.as_ref(),
            false => zone.find(point.hash64(), point.as_str()),
        })
    }

    /// All mounts, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.root).chain(self.zones.values()).flat_map(ZoneRoutes::iter)
    }
}

impl<T> RouteTable<T> {
    /// How many mounts there are.
    pub fn len(&self) -> usize {
        self.root.len() + self.zones.values().map(ZoneRoutes::len).sum::<usize>()
    }

    /// Whether there is no mount.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { root: ZoneRoutes::default(), zones: HashMap::default() }
    }
}

impl<T: AsMount + fmt::Debug> fmt::Debug for RouteTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// One zone's mounts.
struct ZoneRoutes<T> {
    /// The mount at `/`, which is not in `mounts`: with no other, routing costs a comparison.
    at_root: Option<T>,
    /// Invariant: each filed once, under `hash_of` its point.
    mounts: HashTable<T>,
    /// Bit `d` says that some of `mounts` has a point of depth `d`; the last bit stands for all depths from it on.
    depths: u64,
    /// The depth of the deepest point.
    deepest: usize,
}

impl<T: AsMount> ZoneRoutes<T> {
    fn insert(&mut self, mount: T) {
        let depth = mount.point().depth();
        if depth == 0 {
            self.at_root = Some(mount);
            return;
        }
        self.depths |= depth_bit(depth);
        self.deepest = self.deepest.max(depth);
        self.mounts.insert_unique(mount.point().hash64(), mount, |filed| filed.point().hash64());
    }

    #[inline]
    fn find(&self, hash: u64, point: &str) -> Option<&T> {
        self.mounts.find(hash, |mount| mount.point().as_str() == point)
    }

    #[inline]
    fn route<'a>(&'a self, path: &'a VPath) -> Option<Routed<'a, T>> {
        let text = path.as_str();
        if self.deepest > 0 {
            let (mut end, mut depth) = prefix_of_depth(text, self.deepest);
            while depth > 0 {
                if self.depths & depth_bit(depth) != 0 {
                    let hash = if end == text.len() { path.hash64() } else { hash_of(&text[..end]) };
                    if let Some(mount) = self.find(hash, &text[..end]) {
                        return Some(Routed { mount, rest: text.get(end + 1..).unwrap_or("") });
                    }
                }
                if depth < DEPTHS_TOLD_APART && self.depths & (depth_bit(depth) - 1) == 0 {
                    break; // No point is nearer to the root.
                }
                // There is a separator at 0 at the latest.
                end = text[..end].rfind('/').unwrap_or(0);
                depth -= 1;
            }
        }
        self.at_root.as_ref().map(|mount| Routed { mount, rest: &text[1..] })
    }
}

impl<T> ZoneRoutes<T> {
    fn iter(&self) -> impl Iterator<Item = &T> {
        self.at_root.iter().chain(self.mounts.iter())
    }

    fn len(&self) -> usize {
        self.mounts.len() + usize::from(self.at_root.is_some())
    }
}

impl<T> Default for ZoneRoutes<T> {
    fn default() -> Self {
        Self { at_root: None, mounts: HashTable::new(), depths: 0, deepest: 0 }
    }
}

fn depth_bit(depth: usize) -> u64 {
    1 << depth.min(DEPTHS_TOLD_APART)
}

/// Where the longest prefix of `text` with at most `depth` components ends, and how many it has.
#[inline]
fn prefix_of_depth(text: &str, depth: usize) -> (usize, usize) {
    if text.len() == 1 {
        return (0, 0);
    }
    let mut components = 1;
    for (at, &byte) in text.as_bytes().iter().enumerate().skip(1) {
        if byte == b'/' {
            if components == depth {
                return (at, depth);
            }
            components += 1;
        }
    }
    (text.len(), components)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{TestMount, mount, path, zone};
    use super::super::table::MountTable;
    use super::*;

    fn table(mounts: &[(&str, &str)]) -> RouteTable<TestMount> {
        let mut table = MountTable::new();
        for (id, (zone, point)) in (1..).zip(mounts) {
            let _ = table.mount(mount(id, zone, point));
        }
        table.freeze()
    }

    fn check(points: &[&str], text: &str, expected: Option<(&str, &str)>) {
        let mounts: Vec<_> = points.iter().map(|point| ("root", *point)).collect();
        check_in(&mounts, "root", text, expected.map(|(point, rest)| ("root", point, rest)));
    }

    fn check_in(mounts: &[(&str, &str)], from: &str, text: &str, expected: Option<(&str, &str, &str)>) {
        let (table, path) = (table(mounts), path(text));
        let routed = table.route(&zone(from), &path);
        let got = routed.as_ref().map(|r| (r.mount.zone.as_str(), r.mount.point.as_str(), r.rest));
        assert_eq!(got, expected, "{text} among {mounts:?}, seen from {from}");
        for (name, point) in mounts {
            let at = table.at(&zone(name), &super::super::fixture::path(point)).map(|m| (&m.zone, &m.point));
            assert_eq!(at.map(|(zone, point)| (zone.as_str(), point.as_str())), Some((*name, *point)));
        }
    }

    #[test]
    fn longest_prefix_wins() {
        check(&["/", "/workspace"], "/workspace/file.txt", Some(("/workspace", "file.txt")));
        check(&["/", "/a", "/a/b"], "/a/b/c", Some(("/a/b", "c")));
        check(&["/", "/a", "/a/b"], "/a/b", Some(("/a/b", "")));
        check(&["/", "/a/b/c"], "/a/b/x/y/z", Some(("/", "a/b/x/y/z")));
    }

    #[test]
    fn a_prefix_ends_at_a_separator() {
        check(&["/", "/a", "/a/b"], "/a/bc", Some(("/a", "bc")));
        check(&["/a"], "/ab", None);
    }

    #[test]
    fn without_a_root_mount_some_paths_have_no_mount() {
        check(&["/a"], "/", None);
        check(&[], "/a", None);
        check(&["/"], "/", Some(("/", "")));
        check(&["/"], "/x/y", Some(("/", "x/y")));
    }

    #[test]
    fn a_zone_sees_its_own_mounts_first_then_the_root_zones() {
        let mounts = [("root", "/"), ("root", "/a/b"), ("team", "/a"), ("other", "/")];
        check_in(&mounts, "team", "/a/b/c", Some(("team", "/a", "b/c")));
        check_in(&mounts, "team", "/x", Some(("root", "/", "x")));
        check_in(&mounts, "root", "/a/b/c", Some(("root", "/a/b", "c")));
        check_in(&mounts, "other", "/a/b/c", Some(("other", "/", "a/b/c")));
        check_in(&mounts, "nobody", "/a/b/c", Some(("root", "/a/b", "c")));
    }

    #[test]
    fn points_deeper_than_the_set_of_depths_tells_apart_are_found() {
        let deep = "/d".repeat(DEPTHS_TOLD_APART + 10);
        let deeper = "/d".repeat(DEPTHS_TOLD_APART + 20);
        check(&["/", &deep], &deeper, Some((&deep, &"d/".repeat(10)[..19])));
        check(&["/", &deeper], &deep, Some(("/", &deep[1..])));
    }

    fn any_path() -> impl Strategy<Value = String> {
        let name = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("a-b")];
        prop::collection::vec(name, 0..5).prop_map(|names| format!("/{}", names.join("/")))
    }

    fn any_zone() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("root"), Just("team"), Just("other")]
    }

    proptest! {
        #[test]
        fn routing_agrees_with_a_naive_scan(
            mounts in prop::collection::vec((any_zone(), any_path()), 0..12),
            from in any_zone(),
            text in any_path(),
        ) {
            let refs: Vec<_> = mounts.iter().map(|(zone, point)| (*zone, point.as_str())).collect();
            let (table, path) = (table(&refs), path(&text));
            let naive = |of: &str| {
                let own = refs.iter().filter(|(zone, _)| *zone == of).map(|(_, point)| super::super::fixture::path(point));
                own.filter(|point| path.is_within(point)).max_by_key(VPath::depth).map(|point| (of.to_owned(), point))
            };
            let expected = naive(from).or_else(|| naive("root"));
            let got = table.route(&zone(from), &path);
            if let Some(routed) = &got {
                prop_assert_eq!(Some(routed.rest), path.relative_to(&routed.mount.point));
            }
            prop_assert_eq!(got.map(|r| (r.mount.zone.to_string(), r.mount.point.clone())), expected);
        }
    }
}
