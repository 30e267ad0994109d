//! The numbers of the zones' trees.

use std::collections::BTreeMap;

use nexus_messages::ZoneId;
use parking_lot::Mutex;

use crate::hal::{StoreError, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{decode, zone_key, zones};

/// The numbers that were given to zones and may not be in the metastore yet: mounts of new zones are attached at the same time, and no two zones may
/// have one tree.
#[derive(Debug, Default)]
pub(crate) struct Zones(Mutex<BTreeMap<ZoneId, TreeId>>);

impl Zones {
    /// The tree of `zone`; a new one for a zone that has none.
    pub(super) fn tree_of(&self, kernel: &Kernel, zone: &ZoneId) -> Result<TreeId, StoreError> {
        if zone.is_root() {
            return Ok(TreeId::ROOT);
        }
        let mut given = self.0.lock();
        let rows = kernel.store().rows(TreeId::ROOT)?;
        let key = zone_key(zone);
        if let Some(value) = rows.reader.get(&key)? {
            given.remove(zone);
            return decode(&key, &value);
        }
        if let Some(tree) = given.get(zone) {
            return Ok(*tree);
        }
        let known = zones(&*rows.reader)?.into_iter().map(|(_, tree)| tree);
        let highest = known.chain(given.values().copied()).max().unwrap_or(TreeId::ROOT);
        let tree = TreeId(highest.0.checked_add(1).ok_or(StoreError::Full)?);
        given.insert(zone.clone(), tree);
        Ok(tree)
    }
}
