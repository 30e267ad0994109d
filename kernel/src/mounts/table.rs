//! Which mounts there are. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::FileId;

use super::mount::Mount;

/// The mounts by the identity of their roots.
#[derive(Debug, Default)]
pub(super) struct Mounts(BTreeMap<FileId, Arc<Mount>>);

impl Mounts {
    pub(super) fn of(mounts: Vec<Arc<Mount>>) -> Self {
        Self(mounts.into_iter().map(|mount| (mount.root, mount)).collect())
    }

    /// One that was at its point is not there any more: it went while nobody was here to be told.
    pub(super) fn insert(&mut self, mount: Arc<Mount>) {
        self.0.retain(|_, other| (&other.zone, &other.point) != (&mount.zone, &mount.point));
        self.0.insert(mount.root, mount);
    }

    pub(super) fn remove(&mut self, mount: &Mount) {
        self.0.remove(&mount.root);
    }

    pub(super) fn all(&self) -> Vec<Arc<Mount>> {
        self.0.values().cloned().collect()
    }
}
