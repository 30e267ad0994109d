//! A metastore that can be closed while others hold it.

use std::fmt;
use std::sync::Arc;

use nexus_kernel::hal::{Applied, Batch, Damage, LogRecord, Metastore, Reader, StoreError, TreeId};
use nexus_messages::{Lsn, OpId};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use crate::folder::DataFolder;

/// The metastore of a kernel, and the folder that it is in.
///
/// Handles of a stopped kernel may be kept for long. The store's file and the folder are let go of at the stop all the same, and what asks
/// afterwards is told so.
pub(crate) struct Closing(RwLock<Option<Opened>>);

/// Dropped in this order: the folder is given up when nothing writes to it any more.
struct Opened {
    metastore: Arc<dyn Metastore>,
    _folder: Option<DataFolder>,
}

impl Closing {
    pub(crate) fn new(metastore: Arc<dyn Metastore>, folder: Option<DataFolder>) -> Self {
        Self(RwLock::new(Some(Opened { metastore, _folder: folder })))
    }

    /// Closes the store, once what is being done in it is done, and what was acknowledged is on disk. Blocks on disk. May be repeated.
    pub(crate) fn close(&self) {
        let opened = self.0.write().take();
        if let Some(Err(error)) = opened.as_ref().map(|opened| opened.metastore.sync()) {
            tracing::error!(%error, "not all that was acknowledged is known to be on disk");
        }
        drop(opened);
    }

    /// The guard keeps the store from being closed under the call.
    fn open(&self) -> Result<MappedRwLockReadGuard<'_, Arc<dyn Metastore>>, StoreError> {
        let opened =
            RwLockReadGuard::try_map(self.0.read(), |opened| opened.as_ref().map(|open| &open.metastore));
        opened.map_err(|_| StoreError::Closed)
    }
}

impl Metastore for Closing {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        self.open()?.apply(batch)
    }

    fn append(&self, batch: &Batch) -> Result<Option<Applied>, StoreError> {
        self.open()?.append(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.open()?.sync()
    }

    fn unsynced_bytes(&self) -> u64 {
        self.open().map_or(0, |open| open.unsynced_bytes())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.open()?.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.open()?.last_lsn(tree)
    }

    fn durable_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.open()?.durable_lsn(tree)
    }

    fn record(&self, tree: TreeId, lsn: Lsn) -> Result<Option<LogRecord>, StoreError> {
        self.open()?.record(tree, lsn)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.open()?.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.open()?.outcome(op_id)
    }

    fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        self.open()?.verify()
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.open()?.next_file_id()
    }

    fn wants_upkeep(&self) -> bool {
        self.open().is_ok_and(|open| open.wants_upkeep())
    }

    fn upkeep(&self) -> Result<(), StoreError> {
        self.open()?.upkeep()
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Closing").field(&self.0.read().as_ref().map(|open| &open.metastore)).finish()
    }
}
