//! Gates at which a test stops what it looks at: the start of a service, and the store before the row of one.

use std::time::Duration;

use nexus::actors::{Behaviour, LocalBoxFuture, Start};
use nexus::service::{Declaration, Service, Setup};
use nexus::{ExitReason, Lsn, Op, OpId};
use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::hal::{Applied, Batch, LogRecord, Metastore, Reader, StoreError, TreeId};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// A metastore that stops before the rows of services while it is shut.
#[derive(Debug)]
pub(crate) struct Gated {
    rows: MemoryMetastore,
    /// Shut, and then whether a row has come.
    gate: Mutex<(bool, bool)>,
    moved: Condvar,
}

impl Gated {
    pub(crate) fn new() -> Self {
        Self { rows: MemoryMetastore::new(), gate: Mutex::default(), moved: Condvar::new() }
    }

    pub(crate) fn shut(&self) {
        *self.gate.lock() = (true, false);
    }

    /// Whether a row waits before the gate.
    pub(crate) fn is_reached(&self) -> bool {
        self.gate.lock().1
    }

    pub(crate) fn open(&self) {
        self.gate.lock().0 = false;
        self.moved.notify_all();
    }
}

impl Metastore for Gated {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        if batch.entries.iter().any(|entry| entry.op == Op::Service) {
            let mut gate = self.gate.lock();
            gate.1 = true;
            self.moved.wait_while(&mut gate, |gate| gate.0);
        }
        self.rows.apply(batch)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.rows.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.rows.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.rows.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.rows.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.rows.next_file_id()
    }

    fn wants_upkeep(&self) -> bool {
        self.rows.wants_upkeep()
    }

    fn upkeep(&self) -> Result<(), StoreError> {
        self.rows.upkeep()
    }
}

/// How many starts have come to the gate.
pub(crate) static STARTING: Semaphore = Semaphore::const_new(0);

/// How many starts may pass.
pub(crate) static MAY_START: Semaphore = Semaphore::const_new(0);

/// How many ends have come to the gate.
pub(crate) static ENDING: Semaphore = Semaphore::const_new(0);

/// How many ends may pass.
pub(crate) static MAY_END: Semaphore = Semaphore::const_new(0);

/// How long a gate may hold it.
const HELD_MAX: Duration = Duration::from_secs(600);

/// A service that starts when it may, or ends when it may.
pub(crate) struct Held(Setup<Self>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Its start waits.
    Persistent,
    /// Its start, at its first call, waits.
    OnDemand,
    /// It starts, is not fit to serve, and its end waits.
    Unfit,
}

impl Behaviour for Held {
    type Args = Setup<Self>;
    const NAME: &'static str = "held";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            if *setup.config() != Kind::Unfit {
                STARTING.add_permits(1);
                MAY_START.acquire().await.map_err(ExitReason::error)?.forget();
            }
            setup.publish(start.generation(), setup.number()).map_err(ExitReason::error)?;
            Ok(Self(setup))
        })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        let waits = *self.0.config() == Kind::Unfit;
        Box::pin(async move {
            if waits {
                ENDING.add_permits(1);
                MAY_END.acquire().await.expect("it is never closed").forget();
            }
        })
    }
}

impl Service for Held {
    const VERSION: &'static str = "1.0.0";
    type Config = Kind;
    type View = u64;

    fn declare(kind: &Kind) -> Declaration<Self> {
        let declared = Declaration::new().start_within(HELD_MAX).stop_within(HELD_MAX);
        if *kind == Kind::OnDemand { declared.on_demand() } else { declared }
    }

    fn probe(&mut self) -> LocalBoxFuture<'static, Result<(), ExitReason>> {
        let is_fit = *self.0.config() != Kind::Unfit;
        let fit = if is_fit { Ok(()) } else { Err(ExitReason::error("it is not fit")) };
        Box::pin(std::future::ready(fit))
    }
}
