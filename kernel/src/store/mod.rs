//! Feeds the metastore: one thread commits what many tasks submit.
//!
//! Owns:       the committer thread, which alone calls `Metastore::apply`; a batch is what arrived during the previous one.
//! Asks:       nobody.
//! On restart: a new thread takes over. What the old one had not begun goes to the new one; what it had begun is told as unknown.
//! Bounds:     `QUEUE_MAX` entries wait, `BATCH_MAX` go into one batch, of `BATCH_BYTES_MAX` bytes.

mod job;
mod thread;
mod upkeep;
mod view;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Message, Reply, Start, Worker, WorkerBounds};

pub(crate) use job::CommitError;
use job::Job;
use thread::{ThreadEnded, employ};
pub(crate) use upkeep::Upkeep;
pub(crate) use view::Store;
pub use view::StoreStats;

use crate::hal::{Batch, Entry, EntryOutcome, StoreError};

/// How many entries may wait for the committer; who comes later waits for room.
pub(crate) const QUEUE_MAX: usize = 4_096;

/// How many entries become durable together at most.
pub(crate) const BATCH_MAX: usize = 256;

/// How many bytes become durable together at most, unless one entry alone is larger.
pub(crate) const BATCH_BYTES_MAX: u64 = 8 << 20;

const _: () = assert!(BATCH_MAX <= QUEUE_MAX);

/// Commits what is submitted to the [`Store`].
pub(crate) struct Committer {
    store: Arc<Store>,
    worker: Arc<Worker<Job>>,
    generation: u64,
}

impl Behaviour for Committer {
    type Args = Arc<Store>;
    const NAME: &'static str = "committer";

    fn init(store: Arc<Store>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let generation = start.generation();
        // Weak: the store holds the worker.
        let committing = Arc::downgrade(&store);
        let bounds = WorkerBounds { queue: QUEUE_MAX, batch: BATCH_MAX };
        let worker = employ(&start, bounds, move |jobs| {
            if let Some(store) = committing.upgrade() {
                commit(&store, generation, jobs);
            }
        });
        async move {
            let worker = worker?;
            store.open_to(generation, worker.clone());
            Ok(Self { store, worker, generation })
        }
        .boxed_local()
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.store.close_to(self.generation);
        let worker = self.worker.clone();
        async move {
            worker.close().await;
        }
        .boxed_local()
    }
}

impl Handle<ThreadEnded> for Committer {
    fn handle(
        &mut self,
        m: ThreadEnded,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <ThreadEnded as Message>::Reply> {
        if m.generation == self.generation {
            cx.exit(m.reason);
        }
        Reply::Now(())
    }
}

/// Commits `jobs` as one batch, or as several when they are large. Runs on the committer's thread.
fn commit(store: &Store, generation: u64, jobs: Vec<Job>) {
    if !store.is_open_to(generation) {
        // A ghost: what it holds goes back to be submitted to its successor.
        return;
    }
    let mut waiting = jobs.into_iter().peekable();
    while waiting.peek().is_some() {
        let (mut jobs, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(mut job) =
            waiting.next_if(|next| jobs.is_empty() || bytes + next.bytes() <= BATCH_BYTES_MAX)
        {
            bytes += job.bytes();
            entries.extend(job.begin());
            jobs.push(job);
        }
        commit_batch(store, jobs, entries);
    }
    if store.metastore().wants_upkeep() {
        store.upkeep().ask(store.env().now());
    }
}

/// Commits the entries of `jobs` as one batch and answers each of them.
fn commit_batch(store: &Store, jobs: Vec<Job>, entries: Vec<Entry>) {
    let batch = Batch { entries, next_file_id: store.next_file_id() };
    let started = store.env().now();
    match store.metastore().apply(&batch) {
        Ok(applied) => {
            store.measure(batch.entries.len(), store.env().now() - started);
            debug_assert_eq!(applied.outcomes.len(), jobs.len());
            for (job, outcome) in jobs.into_iter().zip(applied.outcomes) {
                job.finish(match outcome {
                    EntryOutcome::Committed(lsn) => Ok((lsn, true)),
                    EntryOutcome::Repeated(lsn) => Ok((lsn, false)),
                    EntryOutcome::Refused { .. } => Err(CommitError::Refused),
                });
            }
        }
        Err(error) => {
            store.failed();
            tracing::error!(%error, entries = batch.entries.len(), "a batch was not committed");
            for job in jobs {
                job.finish(Err(match &error {
                    StoreError::Unknown { .. } => CommitError::Unknown(error.clone()),
                    _ => CommitError::Failed(error.clone()),
                }));
            }
        }
    }
}
