//! A metastore that stops at the row of a mount, for looking at what is true just then.

use std::sync::Arc;

use nexus::{Lsn, Op, OpId};
use nexus_kernel::hal::{Applied, Batch, LogRecord, Metastore, Reader, StoreError, TreeId};
use parking_lot::{Condvar, Mutex};

/// Where it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The row is not on disk.
    BeforeTheRow,
    /// It is.
    AfterTheRow,
    /// It does not stop, but has no room for the row.
    Full,
}

#[derive(Debug, Default)]
struct Gate {
    armed: Option<Stop>,
    reached: bool,
}

/// The metastore `inner`, which stops once at the next row of a mount.
#[derive(Debug)]
pub(crate) struct Gated {
    inner: Arc<dyn Metastore>,
    gate: Mutex<Gate>,
    moved: Condvar,
}

impl Gated {
    pub(crate) fn new(inner: impl Metastore) -> Arc<Self> {
        Arc::new(Self { inner: Arc::new(inner), gate: Mutex::default(), moved: Condvar::new() })
    }

    pub(crate) fn arm(&self, stop: Stop) {
        *self.gate.lock() = Gate { armed: Some(stop), reached: false };
    }

    /// Waits until it has stopped.
    pub(crate) fn reached(&self) {
        self.moved.wait_while(&mut self.gate.lock(), |gate| !gate.reached);
    }

    pub(crate) fn open(&self) {
        self.gate.lock().armed = None;
        self.moved.notify_all();
    }

    fn stop(&self, at: Stop, batch: &Batch) {
        let mut gate = self.gate.lock();
        let is_row = batch.entries.iter().any(|entry| entry.op == Op::Mount);
        if is_row && gate.armed == Some(at) {
            gate.reached = true;
            self.moved.notify_all();
            self.moved.wait_while(&mut gate, |gate| gate.armed.is_some());
        }
    }
}

impl Metastore for Gated {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        if self.gate.lock().armed == Some(Stop::Full) {
            return Err(StoreError::Full);
        }
        self.stop(Stop::BeforeTheRow, batch);
        let applied = self.inner.apply(batch);
        self.stop(Stop::AfterTheRow, batch);
        applied
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.inner.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.inner.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.inner.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.inner.next_file_id()
    }

    fn wants_upkeep(&self) -> bool {
        self.inner.wants_upkeep()
    }

    fn upkeep(&self) -> Result<(), StoreError> {
        self.inner.upkeep()
    }
}
