//! What everybody else sees of the committer: where to submit, and the rows as they are.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::Either;
use nexus_actors::{Env, Worker};
use nexus_messages::{FileId, Lsn};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::job::{Answer, Back, CommitError, Job, Publication, Show, Work};
use super::observers::Untold;
use super::upkeep::UpkeepLine;
use super::{answer_of, commit_error};
use crate::caught::catch;
use crate::hal::{Batch, Entry, Metastore, StoreError, TreeId};
use crate::metrics::{DURATIONS, Histogram, Measured};
use crate::namespace::Rows;
use crate::watcher::Watches;

/// How long an entry waits for a committer that is being restarted.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long an entry waits for the metastore. A disk that takes longer is taken for one that does not answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// The ranges of a batch's entries that are counted apart.
const SIZES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// How far the disk may be behind what was acknowledged, where that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PutOff {
    /// How long after a change a flush is begun at the latest.
    pub(crate) within: Duration,
    /// With how many bytes in memory alone a change waits for a flush.
    pub(crate) bytes_max: u64,
}

/// The metastore, and the way to change it.
pub(crate) struct Store {
    pub(super) env: Env,
    pub(super) metastore: Arc<dyn Metastore>,
    watches: Arc<Watches>,
    /// The last places in the logs when the kernel booted.
    begun_at: Mutex<BTreeMap<TreeId, Lsn>>,
    put_off: PutOff,
    /// Held while entries are committed and made visible, so that they become visible in the order of the log. Never over a flush that others
    /// need not wait for, and never over an await.
    order: Mutex<()>,
    /// Something was appended since the last flush began.
    unflushed: AtomicBool,
    /// Told when that becomes so.
    put_off_first: Notify,
    pub(super) untold: Mutex<Untold>,
    /// Told when somebody is done with telling what was put off.
    pub(super) told: Notify,
    /// How often something became durable.
    progress: AtomicU64,
    /// Entries that were acknowledged before they were durable.
    put_off_entries: AtomicU64,
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
    pub(crate) fn new(env: Env, metastore: Arc<dyn Metastore>, put_off: PutOff) -> Result<Self, StoreError> {
        let next_file_id = AtomicU64::new(metastore.next_file_id()?);
        Ok(Self {
            env,
            watches: Arc::new(Watches::new(metastore.clone())),
            metastore,
            begun_at: Mutex::default(),
            put_off,
            order: Mutex::new(()),
            unflushed: AtomicBool::new(false),
            put_off_first: Notify::new(),
            untold: Mutex::default(),
            told: Notify::new(),
            progress: AtomicU64::new(0),
            put_off_entries: AtomicU64::new(0),
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

    /// Who is told of what is committed.
    pub(crate) fn watches(&self) -> &Arc<Watches> {
        &self.watches
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
    }

    /// A batch was not committed, or it is not known.
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many batches failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How many entries were acknowledged before they were durable, and about how many bytes of such are not durable yet.
    pub(crate) fn put_off(&self) -> (u64, u64) {
        (self.put_off_entries.load(Ordering::Relaxed), self.metastore.unsynced_bytes())
    }

    /// The durable batches by how many entries they had, and by how many nanoseconds they took.
    pub(crate) fn measured(&self) -> (Measured, Measured) {
        (self.sizes.measured(), self.applied.measured())
    }

    /// How often something became durable so far.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Acquire)
    }

    /// Waits until something became durable more than `seen` times, at most for `limit`. Dropping the future is harmless.
    pub(crate) async fn committed(&self, seen: u64, limit: Duration) {
        let committed = async {
            loop {
                // Registered before the look, so that a batch in between is not missed.
                let mut told = std::pin::pin!(self.committed.notified());
                told.as_mut().enable();
                if self.progress() > seen {
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
    pub(crate) fn commit(&self, entry: Entry, show: Show) -> impl Future<Output = Answer> + Send {
        self.commit_held(entry, Publication::new(show, None))
    }

    /// As [`commit`](Self::commit), under locks that watchers are not told before they are gone.
    pub(crate) fn commit_held(
        &self,
        entry: Entry,
        publish: Publication,
    ) -> impl Future<Output = Answer> + Send {
        // Made here, so that the future has no room for the entry.
        self.submit(Box::new(Work::Commit { entry, publish, put_off: false }))
    }

    /// As [`commit`](Self::commit), but it is only sure to be visible on return, and durable within the time that is set: [`PutOff`].
    ///
    /// What can be done at once is done before there is a future.
    pub(crate) fn commit_soon(
        self: &Arc<Self>,
        entry: Entry,
        publish: Publication,
    ) -> impl Future<Output = Answer> + Send {
        match self.append(entry, publish) {
            Ok(answer) => Either::Left(ready(answer)),
            Err((entry, publish)) => {
                Either::Right(self.submit(Box::new(Work::Commit { entry, publish, put_off: true })))
            }
        }
    }

    /// As [`commit_soon`](Self::commit_soon), here and now. Refused when that cannot be.
    pub(crate) fn commit_now(self: &Arc<Self>, entry: Entry, publish: Publication) -> Answer {
        self.append(entry, publish).unwrap_or(Err(CommitError::Refused))
    }

    /// Appends the entry here and now. Gives it back when it would have to wait for somebody.
    #[expect(clippy::result_large_err, reason = "what comes back is what was given")]
    fn append(self: &Arc<Self>, entry: Entry, publish: Publication) -> Result<Answer, (Entry, Publication)> {
        if !self.may_put_off() {
            return Err((entry, publish));
        }
        let Some(order) = self.order.try_lock() else { return Err((entry, publish)) };
        // Under the order's lock: who ends the line flushes after it.
        if self.line.lock().worker.is_none() {
            return Err((entry, publish));
        }
        let mut batch = Batch { entries: vec![entry], next_file_id: self.next_file_id() };
        let applied = match catch(|| self.metastore.append(&batch)) {
            Ok(Ok(Some(applied))) => applied,
            Ok(Ok(None)) => match batch.entries.pop() {
                Some(entry) => return Err((entry, publish)),
                None => unreachable!("it was put there"),
            },
            Ok(Err(error)) => {
                self.failed();
                return Ok(Err(commit_error(&error)));
            }
            Err(panicked) => {
                self.failed();
                tracing::error!(%panicked, "an entry was not appended");
                return Ok(Err(CommitError::Crashed));
            }
        };
        let answer = applied.outcomes.first().map_or(Err(CommitError::Crashed), answer_of);
        if let (Ok((lsn, true)), Some(entry)) = (&answer, batch.entries.first()) {
            publish.publish(&self.watches, entry, *lsn);
        }
        drop(order);
        self.appended(1);
        self.watches.tell();
        Ok(answer)
    }

    /// Makes all durable that is visible when it is called.
    pub(crate) async fn sync(&self) -> Result<(), CommitError> {
        self.submit(Box::new(Work::Sync)).await.map(drop)
    }

    /// Waits until all up to `lsn` in the log of `tree` is durable, if it is not.
    pub(crate) async fn make_durable(&self, tree: TreeId, lsn: Lsn) -> Result<(), CommitError> {
        if self.metastore.durable_lsn(tree).map_err(|error| commit_error(&error))? >= lsn {
            return Ok(());
        }
        Box::pin(self.sync()).await
    }

    async fn submit(&self, mut work: Box<Work>) -> Answer {
        loop {
            let waited = self.env.timeout(RESTART_WAIT_MAX, self.worker()).await;
            let Ok(Some((generation, worker))) = waited else { return Err(CommitError::Down) };
            let (job, waiting, back) = Job::new(work);
            let answered = self.env.timeout(ANSWER_WAIT_MAX, async {
                // A worker that is closed drops the job, which then comes back by itself.
                let _ = worker.submit(job).await;
                back.await
            });
            match answered.await {
                Ok(Ok(Back::Answer(answer, spent))) => {
                    drop(spent);
                    return answer;
                }
                Ok(Ok(Back::NotBegun(again))) => work = again,
                Ok(Err(_)) => return Err(CommitError::Crashed),
                Err(_) if waiting.take_back() => return Err(CommitError::NotBegun(ANSWER_WAIT_MAX)),
                Err(_) => return Err(CommitError::Hangs(ANSWER_WAIT_MAX)),
            }
            // It sent work back, so it has ended: the next one is to be waited for.
            self.close_to(generation);
        }
    }

    pub(super) fn order(&self) -> &Mutex<()> {
        &self.order
    }

    /// Whether more may be acknowledged before it is on disk.
    pub(super) fn may_put_off(&self) -> bool {
        self.metastore.unsynced_bytes() < self.put_off.bytes_max
    }

    /// So many entries were appended, and are to be flushed in time.
    pub(super) fn appended(&self, entries: u64) {
        self.put_off_entries.fetch_add(entries, Ordering::Relaxed);
        self.flush_in_time();
    }

    /// Something is in memory alone, and is to be flushed in time.
    fn flush_in_time(&self) {
        // Sequentially consistent, as the other side: of an append and a flush that begins, one sees the other.
        if !self.unflushed.swap(true, Ordering::SeqCst) {
            self.put_off_first.notify_one();
        }
    }

    /// Waits until something is to be flushed, and then as long as that may be put off.
    pub(super) async fn wait_for_unflushed(&self) {
        while !self.unflushed.load(Ordering::SeqCst) {
            self.put_off_first.notified().await;
        }
        self.env.sleep(self.put_off.within).await;
    }

    /// Who waited for it is gone: the next one is to look.
    pub(super) fn flush_again(&self) {
        self.put_off_first.notify_one();
    }

    /// Whether something may be in memory alone.
    pub(super) fn has_unflushed(&self) -> bool {
        // Who appends just now is waited for; who comes later finds the line closed.
        drop(self.order.lock());
        self.metastore.unsynced_bytes() > 0
    }

    /// A flush begins: what is appended from here on needs another.
    pub(super) fn flush_begins(&self) {
        self.unflushed.store(false, Ordering::SeqCst);
    }

    /// A batch ends that was to be flushed. One that failed, or in which nothing was left to commit, has flushed nothing of what was before it.
    pub(super) fn batch_ends(&self) {
        if self.metastore.unsynced_bytes() > 0 {
            self.flush_in_time();
        }
    }

    /// All that was visible when the flush began is durable.
    pub(super) fn flushed(self: &Arc<Self>) {
        self.progress.fetch_add(1, Ordering::AcqRel);
        self.committed.notify_waiters();
        self.watches.tell();
        self.tell_durable();
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

    /// The last place in the log of `tree` when the kernel booted; 0 for a tree that came later.
    pub(crate) fn begun_at(&self, tree: TreeId) -> Lsn {
        self.begun_at.lock().get(&tree).copied().unwrap_or_default()
    }

    /// The kernel boots: what was committed in `tree` so far is from before.
    pub(crate) fn begins(&self, tree: TreeId) -> Result<(), StoreError> {
        let last = self.metastore.last_lsn(tree)?;
        self.begun_at.lock().entry(tree).or_insert(last);
        Ok(())
    }

    /// The last committed place in the log of `tree`.
    pub(crate) fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.metastore.last_lsn(tree)
    }
}
