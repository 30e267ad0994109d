//! The mount table: who is mounted where. Pure; changed by the router alone.

use std::collections::BTreeMap;

use nexus_messages::{VPath, ZoneId};

use super::routes::RouteTable;

/// The most mounts that one kernel has, over all zones.
pub const MOUNTS_MAX: usize = 10_000;

/// A mount's identity: given once, never reused by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MountId(pub u64);

/// What the router needs to know of a mount. The rest is its owner's business.
pub trait AsMount: Clone + Send + Sync + 'static {
    /// The identity. A mount that is rebound keeps it or not, as its owner likes.
    fn id(&self) -> MountId;

    /// The zone whose namespace the mount is in. Constant.
    fn zone(&self) -> &ZoneId;

    /// Where it is attached. Constant.
    fn point(&self) -> &VPath;
}

/// Why the router said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Another mount is attached there.
    #[error("{point} of zone {zone} is already a mount point")]
    PointTaken {
        /// The zone.
        zone: ZoneId,
        /// The point.
        point: VPath,
        /// Who is there.
        by: MountId,
    },
    /// Nothing is attached there, or something else.
    #[error("{point} of zone {zone} is not a mount point")]
    NotMounted {
        /// The zone.
        zone: ZoneId,
        /// The point.
        point: VPath,
    },
    /// The table is full.
    #[error("there are {max} mounts already, and no more are possible")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// The router that was asked has been replaced by a newer incarnation, which knows nothing of this.
    #[error("the router was superseded while it served the call")]
    Superseded,
}

/// The mounts of all zones, as their owner changes them. [`freeze`](Self::freeze) makes of it what readers look at.
#[derive(Debug, Clone)]
pub struct MountTable<T> {
    /// Invariant: filed under the zone and the point that the mount itself names; at most `max`.
    mounts: BTreeMap<(ZoneId, VPath), T>,
    max: usize,
}

impl<T: AsMount> MountTable<T> {
    /// No mounts, and room for [`MOUNTS_MAX`].
    pub fn new() -> Self {
        Self::bounded(MOUNTS_MAX)
    }

    fn bounded(max: usize) -> Self {
        Self { mounts: BTreeMap::new(), max }
    }

    /// The table that `routes` was frozen from.
    pub fn thaw(routes: &RouteTable<T>) -> Self {
        let mut table = Self::new();
        table.mounts.extend(routes.iter().map(|mount| (key(mount), mount.clone())));
        table
    }

    /// Attaches `mount` at its point. Repeating it does nothing; another mount there is refused. Says whether anything changed.
    pub fn mount(&mut self, mount: T) -> Result<bool, RouteError> {
        let key = key(&mount);
        if let Some(there) = self.mounts.get(&key) {
            if there.id() == mount.id() {
                return Ok(false);
            }
            return Err(RouteError::PointTaken { zone: key.0, point: key.1, by: there.id() });
        }
        if self.mounts.len() >= self.max {
            return Err(RouteError::TooMany { max: self.max });
        }
        self.mounts.insert(key, mount);
        Ok(true)
    }

    /// Detaches `mount` from its point, and gives back what was there. Another mount there, by its id, stays.
    pub fn unmount(&mut self, mount: &T) -> Result<T, RouteError> {
        let key = key(mount);
        if self.mounts.get(&key).is_some_and(|there| there.id() == mount.id())
            && let Some(gone) = self.mounts.remove(&key)
        {
            return Ok(gone);
        }
        Err(RouteError::NotMounted { zone: key.0, point: key.1 })
    }

    /// Puts `mount` in the place of what is at its point, which it gives back.
    pub fn rebind(&mut self, mount: T) -> Result<T, RouteError> {
        let key = key(&mount);
        match self.mounts.get_mut(&key) {
            Some(there) => Ok(std::mem::replace(there, mount)),
            None => Err(RouteError::NotMounted { zone: key.0, point: key.1 }),
        }
    }

    /// What is attached at exactly this point.
    pub fn get(&self, zone: &ZoneId, point: &VPath) -> Option<&T> {
        self.mounts.get(&(zone.clone(), point.clone()))
    }

    /// All mounts, by zone and then by point, so that a mount comes before those below it.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.mounts.values()
    }

    /// The mounts of `zone` strictly below `path`: what an unmount of `path` would cut off. In the order of their points.
    pub fn below<'a>(&'a self, zone: &ZoneId, path: &'a VPath) -> impl Iterator<Item = &'a T> {
        let from = (zone.clone(), path.clone());
        let zone = zone.clone();
        self.mounts
            .range(from..)
            .take_while(move |((of, _), _)| *of == zone)
            .filter(move |((_, point), _)| point != path && point.is_within(path))
            .map(|(_, mount)| mount)
    }

    /// How many mounts there are.
    pub fn len(&self) -> usize {
        self.mounts.len()
    }

    /// Whether there is no mount.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// The table that readers look at. Costs one pass over the mounts.
    pub fn freeze(&self) -> RouteTable<T> {
        RouteTable::build(self.mounts.values().cloned())
    }
}

impl<T: AsMount> Default for MountTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn key<T: AsMount>(mount: &T) -> (ZoneId, VPath) {
    (mount.zone().clone(), mount.point().clone())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{TestMount, mount, path, zone};
    use super::*;

    #[test]
    fn mounting_twice_does_nothing_and_another_mount_is_refused() {
        let mut table = MountTable::new();
        assert_eq!(table.mount(mount(1, "root", "/a")), Ok(true));
        assert_eq!(table.mount(mount(1, "root", "/a")), Ok(false));
        let refused = table.mount(mount(2, "root", "/a"));
        let taken = RouteError::PointTaken { zone: zone("root"), point: path("/a"), by: MountId(1) };
        assert_eq!(refused, Err(taken));
        assert_eq!(table.mount(mount(2, "team", "/a")), Ok(true), "a zone has mount points of its own");
    }

    #[test]
    fn rebinding_replaces_in_place_and_unmounting_gives_back() {
        let mut table = MountTable::new();
        table.mount(mount(1, "root", "/a")).unwrap();
        assert_eq!(table.rebind(mount(2, "root", "/a")).unwrap().id(), MountId(1));
        let missing = RouteError::NotMounted { zone: zone("root"), point: path("/a") };
        assert_eq!(table.unmount(&mount(1, "root", "/a")), Err(missing.clone()), "another mount stays");
        assert_eq!(table.unmount(&mount(2, "root", "/a")).unwrap().id(), MountId(2));
        assert_eq!(table.unmount(&mount(2, "root", "/a")), Err(missing.clone()));
        assert_eq!(table.rebind(mount(3, "root", "/a")), Err(missing));
        assert!(table.is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = MountTable::bounded(2);
        table.mount(mount(1, "root", "/a")).unwrap();
        table.mount(mount(2, "root", "/b")).unwrap();
        assert_eq!(table.mount(mount(3, "root", "/c")), Err(RouteError::TooMany { max: 2 }));
        assert_eq!(table.mount(mount(2, "root", "/b")), Ok(false), "what is there stays idempotent");
    }

    #[test]
    fn what_lies_below_a_point_ends_at_a_separator_and_at_the_zone() {
        let mut table = MountTable::new();
        let points = ["/a", "/a/b", "/a/b/c", "/a-b", "/ab", "/b"];
        for (id, point) in (1..).zip(points) {
            table.mount(mount(id, "root", point)).unwrap();
        }
        table.mount(mount(90, "zz", "/a/x")).unwrap();
        let below = |point: &str| -> Vec<String> {
            table.below(&zone("root"), &path(point)).map(|m: &TestMount| m.point.to_string()).collect()
        };
        assert_eq!(below("/a"), ["/a/b", "/a/b/c"]);
        assert_eq!(below("/"), ["/a", "/a-b", "/a/b", "/a/b/c", "/ab", "/b"]);
        assert_eq!(below("/b"), [""; 0]);
    }

    #[test]
    fn a_frozen_table_thaws_to_the_same_mounts() {
        let mut table = MountTable::new();
        for (id, (zone, point)) in (1..).zip([("root", "/"), ("root", "/a"), ("team", "/a"), ("team", "/")]) {
            table.mount(mount(id, zone, point)).unwrap();
        }
        let thawed = MountTable::thaw(&table.freeze());
        assert_eq!(thawed.iter().collect::<Vec<_>>(), table.iter().collect::<Vec<_>>());
    }
}
