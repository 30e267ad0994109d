//! Feeds the metastore: one thread commits what many tasks submit.
//!
//! What is to be acknowledged before it is on disk is appended on its caller's own task, when nobody flushes just then; the committer takes the rest, and
//! flushes within the time that is set.
//!
//! Owns:       the committer thread, which alone calls `Metastore::apply` and `sync`; a batch is what arrived during the previous one.
//! Asks:       nobody.
//! On restart: a new thread takes over. What the old one had not begun goes to the new one; what it had begun is told as unknown.
//! Bounds:     `QUEUE_MAX` entries wait, `BATCH_MAX` go into one batch, of `BATCH_BYTES_MAX` bytes; `unflushed_max_bytes` are put off.

mod job;
mod observers;
mod thread;
mod upkeep;
mod view;

use std::future::Future;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Message, Reply, Start, Worker, WorkerBounds};

use job::{Answer, Begun, Job, Work};
pub(crate) use job::{CommitError, Publication, Show};
pub(crate) use observers::Announced;
use thread::{ThreadEnded, employ};
pub(crate) use upkeep::Upkeep;
pub use view::StoreStats;
pub(crate) use view::{PutOff, Store};

use nexus_messages::Lsn;

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
            let ended = worker.ended();
            let flushes = flush_in_time(store.clone(), generation, Arc::downgrade(&worker), ended);
            store.env().spawn("store.flush", flushes);
            Ok(Self { store, worker, generation })
        }
        .boxed_local()
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.store.close_to(self.generation);
        let (store, worker) = (self.store.clone(), self.worker.clone());
        async move {
            if store.has_unflushed() {
                // Behind all that was taken.
                let (job, _, _) = Job::new(Box::new(Work::Sync));
                let _ = worker.submit(job).await;
            }
            worker.close().await;
        }
        .boxed_local()
    }
}

/// Has flushed, in time, what was acknowledged before it was on disk; until the committer's worker has `ended`, which it does once nobody else holds it.
async fn flush_in_time(
    store: Arc<Store>,
    generation: u64,
    worker: Weak<Worker<Job>>,
    ended: impl Future<Output = ExitReason>,
) {
    let ended = std::pin::pin!(ended.fuse());
    let flushing = std::pin::pin!(
        async {
            loop {
                store.wait_for_unflushed().await;
                let (job, _, flushed) = Job::new(Box::new(Work::Sync));
                let Some(worker) = worker.upgrade() else { return };
                // A worker that ends gives it back, and its successor begins with it.
                let _ = worker.submit(job).await;
                drop(worker);
                let _ = flushed.await;
                if !store.is_open_to(generation) {
                    return;
                }
            }
        }
        .fuse()
    );
    futures_util::future::select(ended, flushing).await;
    store.flush_again();
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

/// What is committed together, with who waits for what.
#[derive(Default)]
struct Round {
    jobs: Vec<Job>,
    entries: Vec<Entry>,
    /// Who waits for all to be durable, and has no entry.
    syncs: Vec<Job>,
    bytes: u64,
    /// Whether somebody waits for its entry to be durable.
    flushes: bool,
}

/// Commits `jobs` as one batch, or as several when they are large. Runs on the committer's thread.
fn commit(store: &Arc<Store>, generation: u64, jobs: Vec<Job>) {
    if !store.is_open_to(generation) {
        // A ghost: what it holds goes back to be submitted to its successor.
        return;
    }
    let mut waiting = jobs.into_iter().peekable();
    while waiting.peek().is_some() {
        let mut round = Round::default();
        while let Some(mut job) =
            waiting.next_if(|next| round.bytes == 0 || round.bytes + next.bytes() <= BATCH_BYTES_MAX)
        {
            round.bytes += job.bytes();
            match job.begin() {
                Begun::Entry(entry, put_off) => {
                    round.flushes |= !put_off;
                    round.entries.push(entry);
                    round.jobs.push(job);
                }
                Begun::Sync => round.syncs.push(job),
                Begun::Nothing => {}
            }
        }
        let Round { jobs, entries, syncs, flushes, .. } = round;
        if !jobs.is_empty() {
            let flushes = flushes || !syncs.is_empty() || !store.may_put_off();
            commit_batch(store, jobs, entries, flushes);
        }
        if !syncs.is_empty() {
            sync(store, syncs);
        }
    }
    if store.metastore().wants_upkeep() {
        store.upkeep().ask(store.env().now());
    }
}

/// Commits the entries of `jobs` as one batch and answers each of them; on disk when `flushes` says so.
fn commit_batch(store: &Arc<Store>, jobs: Vec<Job>, entries: Vec<Entry>, flushes: bool) {
    let batch = Batch { entries, next_file_id: store.next_file_id() };
    // Held until all of it is published: who appends meanwhile would be published before what it follows.
    let order = store.order().lock();
    let started = store.env().now();
    let metastore = store.metastore();
    let put_off = if flushes { Ok(None) } else { metastore.append(&batch) };
    let (applied, flushed) = match put_off {
        Ok(Some(applied)) => (Ok(applied), false),
        Ok(None) => {
            store.flush_begins();
            let applied = metastore.apply(&batch);
            store.batch_ends();
            (applied, true)
        }
        Err(error) => (Err(error), false),
    };
    match applied {
        Ok(applied) => {
            let count = batch.entries.len();
            if flushed {
                store.measure(count, store.env().now() - started);
            }
            debug_assert_eq!(applied.outcomes.len(), jobs.len());
            for ((job, outcome), entry) in jobs.into_iter().zip(applied.outcomes).zip(batch.entries) {
                job.finish(answer_of(&outcome), Some(entry), store.watches());
            }
            drop(order);
            if flushed {
                store.flushed();
            } else {
                store.appended(count as u64);
                store.watches().tell();
            }
        }
        Err(error) => {
            store.failed();
            tracing::error!(%error, entries = batch.entries.len(), "a batch was not committed");
            for job in jobs {
                job.finish(Err(commit_error(&error)), None, store.watches());
            }
        }
    }
}

/// Makes all durable that is visible, and answers those who wait for it.
fn sync(store: &Arc<Store>, syncs: Vec<Job>) {
    store.flush_begins();
    let synced = store.metastore().sync();
    match &synced {
        Ok(()) => store.flushed(),
        Err(error) => {
            store.failed();
            tracing::error!(%error, "what was acknowledged before it was on disk could not be flushed");
        }
    }
    for job in syncs {
        let answer = synced.as_ref().map(|()| (Lsn::default(), false));
        job.finish(answer.map_err(commit_error), None, store.watches());
    }
}

/// What an entry's outcome is for who submitted it.
fn answer_of(outcome: &EntryOutcome) -> Answer {
    match outcome {
        EntryOutcome::Committed(lsn) => Ok((*lsn, true)),
        EntryOutcome::Repeated(lsn) => Ok((*lsn, false)),
        EntryOutcome::Refused { .. } => Err(CommitError::Refused),
    }
}

fn commit_error(error: &StoreError) -> CommitError {
    match error {
        StoreError::Unknown { .. } => CommitError::Unknown(error.clone()),
        _ => CommitError::Failed(error.clone()),
    }
}
