//! One thread that is handed all that waits, in batches: what arrived while the previous batch was worked on.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::{Env, Kind, host};
use crate::exit::ExitReason;
use crate::latch::Latch;
use crate::panics;

/// How much a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerBounds {
    /// Jobs waiting; `submit` waits for room beyond it.
    pub queue: usize,
    /// Most jobs handed over in one call.
    pub batch: usize,
}

/// The worker has ended or is ending: the job, which is dropped, was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker is closed")]
pub struct Closed;

enum Item<J> {
    Job(J),
    Close,
}

/// Gives jobs to one thread. Clones share the thread, which ends when the last one is gone, or by
/// [`close`](Worker::close).
pub struct Worker<J> {
    items: flume::Sender<Item<J>>,
    /// The other end, to drop what slips in while the worker ends.
    queue: flume::Receiver<Item<J>>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Takes no more jobs.
    closed: AtomicBool,
    /// Works on no more jobs.
    /// Invariant: set before the queue is drained for the last time, so whoever queues a job after that sees it.
    dead: AtomicBool,
    ended: Latch<ExitReason>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<J> Clone for Worker<J> {
    fn clone(&self) -> Self {
        Worker { items: self.items.clone(), queue: self.queue.clone(), shared: self.shared.clone() }
    }
}

impl<J: Send + 'static> Worker<J> {
    pub(crate) fn start(
        env: &Env,
        name: &'static str,
        bounds: WorkerBounds,
        mut work: impl FnMut(Vec<J>) + Send + 'static,
    ) -> io::Result<Self> {
        let (items, queue) = flume::bounded(bounds.queue.max(1));
        let shared = Arc::new(Shared {
            closed: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            ended: Latch::new(),
            thread: Mutex::new(None),
        });
        let handed_out = queue.clone();
        let batch_max = bounds.batch.max(1);
        let ending = shared.clone();
        match &env.0.kind {
            Kind::Host(_) => {
                let run = move || {
                    let ending = Ending { shared: ending, queue: queue.clone() };
                    while let Ok(first) = queue.recv() {
                        if let Some(why) = serve(first, &queue, batch_max, &mut work) {
                            return ending.because(why);
                        }
                    }
                    ending.because(ExitReason::Normal);
                };
                *shared.thread.lock() = Some(host::thread(format!("nexus-{name}"), run)?);
            }
            Kind::Sim(sim) => {
                let run = async move {
                    let ending = Ending { shared: ending, queue: queue.clone() };
                    while let Ok(first) = queue.recv_async().await {
                        if let Some(why) = serve(first, &queue, batch_max, &mut work) {
                            return ending.because(why);
                        }
                    }
                    ending.because(ExitReason::Normal);
                };
                sim.spawn(name.into(), Box::new(move || Box::pin(run)));
            }
        }
        Ok(Worker { items, queue: handed_out, shared })
    }

    /// Queues a job, in order; waits for room when the queue is full. Dropping the future before it is done takes the
    /// job back.
    pub async fn submit(&self, job: J) -> Result<(), Closed> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Closed);
        }
        self.items.send_async(Item::Job(job)).await.map_err(|_| Closed)?;
        if self.shared.dead.load(Ordering::SeqCst) {
            drop(self.queue.drain());
            return Err(Closed);
        }
        Ok(())
    }

    /// Queues a job if there is room, else gives it back.
    pub fn try_submit(&self, job: J) -> Result<(), J> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(job);
        }
        self.items.try_send(Item::Job(job)).map_err(|e| match e.into_inner() {
            Item::Job(job) => job,
            Item::Close => unreachable!("only a job was sent"),
        })?;
        if self.shared.dead.load(Ordering::SeqCst) {
            // It slipped in at the end, and is dropped as those before it were.
            drop(self.queue.drain());
        }
        Ok(())
    }

    /// Takes no more jobs, waits until those that were queued are done, and joins the thread. May be repeated.
    pub async fn close(&self) -> ExitReason {
        if !self.shared.closed.swap(true, Ordering::AcqRel) {
            // The thread may have ended already.
            let _ = self.items.send_async(Item::Close).await;
        }
        let why = self.shared.ended.wait().await;
        let thread = self.shared.thread.lock().take();
        if let Some(thread) = thread {
            // It has said its last word, so this waits for no more than the thread's own end.
            let _ = thread.join();
        }
        why
    }

    /// Waits until the worker has ended, and says why. Can be polled by any executor. Whoever waits does not hold the worker: it ends with its last clone
    /// all the same.
    pub fn ended(&self) -> impl Future<Output = ExitReason> + Send + use<J> {
        let shared = self.shared.clone();
        async move { shared.ended.wait().await }
    }

    /// Jobs that wait.
    pub fn queued(&self) -> usize {
        self.items.len()
    }
}

/// Works on `first` and what else waits. The reason to end, if this was the last call.
fn serve<J>(
    first: Item<J>,
    queue: &flume::Receiver<Item<J>>,
    batch_max: usize,
    work: &mut impl FnMut(Vec<J>),
) -> Option<ExitReason> {
    let mut batch = Vec::new();
    let mut last = false;
    let mut next = Some(first);
    while let Some(item) = next {
        match item {
            Item::Job(job) => batch.push(job),
            Item::Close => {
                last = true;
                break;
            }
        }
        next = if batch.len() < batch_max { queue.try_recv().ok() } else { None };
    }
    if !batch.is_empty()
        && let Err(panicked) = panics::guard(|| work(batch))
    {
        return Some(panicked.into_exit(None));
    }
    last.then_some(ExitReason::Normal)
}

/// Drops what is left and says the last word, also when the thread or the simulation goes away in the middle.
struct Ending<J> {
    shared: Arc<Shared>,
    queue: flume::Receiver<Item<J>>,
}

impl<J> Ending<J> {
    fn because(&self, why: ExitReason) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.dead.store(true, Ordering::SeqCst);
        let _ = panics::guarded_drop(self.queue.drain());
        self.shared.ended.set(why);
    }
}

impl<J> Drop for Ending<J> {
    fn drop(&mut self) {
        // The first word stays.
        self.because(ExitReason::Killed);
    }
}

impl<J> std::fmt::Debug for Worker<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("queued", &self.items.len()).finish_non_exhaustive()
    }
}
