//! One mount, as the calls that it serves see it.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_actors::{Lease, Slot};
use nexus_messages::syscall::MountSpec;
use nexus_messages::{FileId, VPath, ZoneId};

use super::placeholder::Placeholder;
use crate::hal::{Addressing, ObjectStore, TreeId};
use crate::router::{AsMount, MountId};

/// A mount: where it is, what it serves, and the driver behind it.
pub struct Mount {
    /// The identity of its root, which is the mount's own.
    pub(crate) root: FileId,
    pub(crate) zone: ZoneId,
    pub(crate) tree: TreeId,
    pub(crate) point: VPath,
    pub(crate) spec: MountSpec,
    pub(crate) driver: Slot<Arc<dyn ObjectStore>>,
    /// Why there is no driver, when it could not be started.
    pub(crate) failure: Option<String>,
    // Invariant: set by the first driver, which is replaced by drivers of the same kind only.
    path_addressed: OnceLock<bool>,
    // Raised when paths below some directory begin to mean something else. Only compared, and always read before what it guards.
    generation: AtomicU64,
}

impl Mount {
    /// A mount whose driver is not started yet.
    pub(crate) fn new(root: FileId, zone: ZoneId, tree: TreeId, point: VPath, spec: MountSpec) -> Self {
        Self {
            root,
            zone,
            tree,
            point,
            spec,
            driver: Slot::new(Box::new(Arc::new(Placeholder))),
            failure: None,
            path_addressed: OnceLock::new(),
            generation: AtomicU64::new(0),
        }
    }

    /// The same mount, known to have no driver.
    pub(crate) fn failed(mut self, cause: String) -> Self {
        self.failure = Some(cause);
        self
    }

    /// Takes note of the kind of driver; says whether it fits.
    pub(super) fn fits(&self, driver: &dyn ObjectStore) -> bool {
        let path_addressed = matches!(driver.addressing(), Addressing::Path(_));
        *self.path_addressed.get_or_init(|| path_addressed) == path_addressed
    }

    /// Whether a driver was ever started.
    pub(super) fn has_driver(&self) -> bool {
        self.path_addressed.get().is_some()
    }

    /// The namespace generation under which metadata of this mount is filed.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Begins a new namespace generation and gives it.
    pub(crate) fn raise_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The driver, kept alive for as long as the lease is. Waits while the driver is being replaced.
    pub(crate) async fn lease(&self) -> Lease<Arc<dyn ObjectStore>> {
        self.driver.lease().await
    }

    /// Whether the backend, and not the metastore, says what exists.
    pub(crate) fn is_path_addressed(&self) -> bool {
        self.path_addressed.get().copied().unwrap_or(false)
    }

    /// Whether changes are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.spec.read_only || self.driver.with(|driver| driver.read_only()).unwrap_or(false)
    }
}

impl AsMount for Arc<Mount> {
    fn id(&self) -> MountId {
        MountId(self.root.0)
    }

    fn zone(&self) -> &ZoneId {
        &self.zone
    }

    fn point(&self) -> &VPath {
        &self.point
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("point", &self.point).field("zone", &self.zone).finish_non_exhaustive()
    }
}
