//! Which mounts there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::FileId;
use parking_lot::RwLock;

use super::mount::Mount;

/// The mounts by the identity of their roots: each from the commit that attaches it on, until the commit that puts it away.
///
/// Who holds the lock of the mount point changes it, right after the commit. It belongs to no incarnation of the lifecycle's actor, for what is committed is
/// finished without it, too.
#[derive(Debug, Default)]
pub(crate) struct Mounts(RwLock<BTreeMap<FileId, Arc<Mount>>>);

impl Mounts {
    pub(super) fn list(&self, mount: &Arc<Mount>) {
        self.0.write().insert(mount.root, mount.clone());
    }

    pub(super) fn unlist(&self, mount: &Mount) {
        self.0.write().remove(&mount.root);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Mount>> {
        self.0.read().values().cloned().collect()
    }
}
