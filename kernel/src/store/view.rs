//! What everybody else sees of the committer: where to submit, and the rows as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_actors::{Env, Worker};
use nexus_messages::{FileId, Lsn};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::job::{Answer, Back, CommitError, Job, Publication};
use super::upkeep::UpkeepLine;
use crate::hal::{Entry, Metastore, StoreError, TreeId};
use crate::metrics::{DURATIONS, Histogram, Measured};
use crate::namespace::Rows;

/// How long an entry waits for a committer that is being restarted.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);

/// The ranges of a batch's entries that are counted apart.
const SIZES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// The metastore, and the way to change it.
pub(crate) struct Store {
    env: Env,
    metastore: Arc<dyn Metastore>,
    // Invariant: the generation never goes down. Its holder alone may apply.
    line: Mutex<Line>,
    opened: Notify,
    /// Told after each batch.
    committed: Notify,
    upkeep: UpkeepLine,
    next_file_id: AtomicU64,
    failed: AtomicU64,
    /// Batches by how many entries they had.
    sizes: Histogram<{ SIZES.len() }>,
    /// Batches by how long the metastore took to make them durable, in nanoseconds.
    applied: Histogram<{ DURATIONS.len() }>,
}

#[derive(Default)]
struct Line {
    generation: u64,
    worker: Option<Arc<Worker<Job>>>,
    /// No committer will come any more.
    closed: bool,
}

/// What the committer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    /// Batches committed.
    pub batches: u64,
    /// Entries committed or refused in them.
    pub entries: u64,
    /// Time spent in the metastore, in nanoseconds.
    pub busy_nanos: u64,
}

impl Store {
    pub(crate) fn new(env: Env, metastore: Arc<dyn Metastore>) -> Result<Self, StoreError> {
        let next_file_id = AtomicU64::new(metastore.next_file_id()?);
        Ok(Self {
            env,
            metastore,
            line: Mutex::default(),
            opened: Notify::new(),
            committed: Notify::new(),
            upkeep: UpkeepLine::default(),
            next_file_id,
            failed: AtomicU64::new(0),
            sizes: Histogram::new(&SIZES),
            applied: Histogram::new(&DURATIONS),
        })
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn metastore(&self) -> &dyn Metastore {
        &*self.metastore
    }

    pub(super) fn upkeep(&self) -> &UpkeepLine {
        &self.upkeep
    }

    /// A consistent view of the rows of `tree`.
    pub(crate) fn rows(&self, tree: TreeId) -> Result<Rows, StoreError> {
        Ok(Rows { reader: self.metastore.reader()?, tree })
    }

    /// An identity that was never used.
    pub(crate) fn new_file_id(&self) -> FileId {
        // Only uniqueness is asked of it: the number is durable before the row that uses it, because the batch that
        // holds the row is made later and carries a higher one.
        FileId(self.next_file_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn next_file_id(&self) -> u64 {
        self.next_file_id.load(Ordering::Relaxed)
    }

    pub(super) fn open_to(&self, generation: u64, worker: Arc<Worker<Job>>) {
        let mut line = self.line.lock();
        if generation >= line.generation && !line.closed {
            *line = Line { generation, worker: Some(worker), closed: false };
            drop(line);
            self.opened.notify_waiters();
        }
    }

    pub(super) fn close_to(&self, generation: u64) {
        let mut line = self.line.lock();
        if generation == line.generation {
            line.worker = None;
        }
    }

    /// Nobody commits any more. Who waits for the next committer is told at once.
    pub(crate) fn close(&self) {
        let mut line = self.line.lock();
        (line.worker, line.closed) = (None, true);
        drop(line);
        self.opened.notify_waiters();
    }

    /// Whether the committer of this generation is still the one.
    pub(super) fn is_open_to(&self, generation: u64) -> bool {
        self.line.lock().generation == generation
    }

    pub(super) fn measure(&self, entries: usize, took: Duration) {
        self.sizes.add(entries as u64);
        self.applied.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.committed.notify_waiters();
    }

    /// A batch was not committed, or it is not known.
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many batches failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The committed batches by how many entries they had, and by how many nanoseconds they took.
    pub(crate) fn measured(&self) -> (Measured, Measured) {
        (self.sizes.measured(), self.applied.measured())
    }

    /// Waits until more than `seen` batches were committed, at most for `limit`. Dropping the future is harmless.
    pub(crate) async fn committed(&self, seen: u64, limit: Duration) {
        let committed = async {
            loop {
                // Registered before the look, so that a batch in between is not missed.
                let mut told = std::pin::pin!(self.committed.notified());
                told.as_mut().enable();
                if self.stats().batches > seen {
                    return;
                }
                told.await;
            }
        };
        // Late is as good as told: the caller looks anyway.
        let _ = self.env.timeout(limit, committed).await;
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let (sizes, applied) = self.measured();
        StoreStats { batches: sizes.count, entries: sizes.sum, busy_nanos: applied.sum }
    }

    /// Makes `entry` durable, publishes it, and gives its place in the log. What a dying committer had not begun is submitted to its
    /// successor.
    pub(crate) async fn commit(&self, entry: Entry, publish: Publication) -> Answer {
        let mut work = Box::new((entry, publish));
        loop {
            let waited = self.env.timeout(RESTART_WAIT_MAX, self.worker()).await;
            let Ok(Some((generation, worker))) = waited else { return Err(CommitError::Down) };
            let (job, back) = Job::new(work);
            // A worker that is closed drops the job, which then comes back by itself.
            let _ = worker.submit(job).await;
            match back.await {
                Ok(Back::Answer(answer)) => return answer,
                Ok(Back::NotBegun(again)) => work = again,
                Err(_) => return Err(CommitError::Crashed),
            }
            // It sent work back, so it has ended: the next one is to be waited for.
            self.close_to(generation);
        }
    }

    /// The worker to submit to; waits while there is none, and gives none when there will be none.
    async fn worker(&self) -> Option<(u64, Arc<Worker<Job>>)> {
        loop {
            let opened = self.opened.notified();
            {
                let line = self.line.lock();
                if line.closed {
                    return None;
                }
                if let Some(worker) = &line.worker {
                    return Some((line.generation, worker.clone()));
                }
            }
            opened.await;
        }
    }

    /// The last committed place in the log of `tree`.
    pub(crate) fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.metastore.last_lsn(tree)
    }
}
