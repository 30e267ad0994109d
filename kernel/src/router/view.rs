//! What the router publishes: the routes, to be looked at without mail.

use std::sync::Arc;

use nexus_actors::{Snap, Superseded};
use nexus_messages::{VPath, ZoneId};

use super::routes::{RouteTable, Routed};
use super::table::AsMount;

/// The published routes. Outlives every incarnation of the router: when it is dead, routing goes on with the last table.
pub struct RouterView<T>(Arc<Snap<RouteTable<T>>>);

impl<T: AsMount> RouterView<T> {
    /// A view that shows no mount until a router publishes.
    pub fn new() -> Self {
        Self(Arc::new(Snap::new(RouteTable::default())))
    }

    /// Shows `look` where `path` is routed as `zone` sees it. Costs a pin and [`RouteTable::route`]; `look` must not block, and
    /// clones what it wants to keep.
    #[inline]
    pub fn route<R>(&self, zone: &ZoneId, path: &VPath, look: impl FnOnce(Option<Routed<'_, T>>) -> R) -> R {
        self.0.read(|table| look(table.route(zone, path)))
    }

    /// Shows `look` the whole table. The same rules apply.
    #[inline]
    pub fn read<R>(&self, look: impl FnOnce(&RouteTable<T>) -> R) -> R {
        self.0.read(look)
    }

    /// The newest table, to keep.
    pub fn get(&self) -> Arc<RouteTable<T>> {
        self.0.get()
    }

    /// All mounts, by zone and point.
    pub fn list(&self) -> Vec<T> {
        let mut mounts: Vec<T> = self.read(|table| table.iter().cloned().collect());
        mounts.sort_by(|a, b| (a.zone(), a.point()).cmp(&(b.zone(), b.point())));
        mounts
    }

    /// How often the table changed.
    #[inline]
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    pub(super) fn publish(&self, writer: u64, table: RouteTable<T>) -> Result<(), Superseded> {
        self.0.publish(writer, table)
    }

    pub(super) fn claim(&self, writer: u64) -> Result<Arc<RouteTable<T>>, Superseded> {
        self.0.claim(writer)
    }
}

impl<T: AsMount> Default for RouterView<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for RouterView<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
