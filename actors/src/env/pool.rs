//! A bounded pool of threads for calls that block.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Env, Kind, host};
use crate::panics::{self, Panicked};

/// A thread that has had nothing to do for this long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Runs blocking calls on a bounded number of threads. Clones share the threads, which end some seconds after the
/// last clone is gone or the last job done.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    env: Env,
    name: &'static str,
    threads_max: usize,
    jobs: flume::Sender<Job>,
    /// Handed to each new thread.
    queue: flume::Receiver<Job>,
    count: Arc<Mutex<Count>>,
}

#[derive(Default)]
struct Count {
    threads: usize,
    idle: usize,
}

/// A job gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The job panicked: it may have done a part of its work.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// No thread could be started, or the simulation ended: the job was not run.
    #[error("the pool is closed")]
    Closed,
}

impl Pool {
    pub(crate) fn new(env: Env, name: &'static str, threads_max: usize, queue_max: usize) -> Self {
        let (jobs, queue) = flume::bounded(queue_max.max(1));
        Pool(Arc::new(Inner {
            env,
            name,
            threads_max: threads_max.max(1),
            jobs,
            queue,
            count: Arc::default(),
        }))
    }

    /// Runs `job` on a thread of the pool and waits for its result; when the queue is full, waits for room first. Can
    /// be polled by any executor. Dropping the future before the job was queued takes it back; after that the job
    /// runs, and its result is dropped.
    pub async fn run<T, F>(&self, job: F) -> Result<T, PoolError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody may be waiting any more.
            let _ = done.send(panics::guard(job));
        });
        match &self.0.env.0.kind {
            Kind::Sim(sim) => sim.spawn(
                self.0.name.into(),
                Box::new(move || {
                    Box::pin(async move {
                        job();
                    })
                }),
            ),
            Kind::Host(_) => {
                self.0.jobs.send_async(job).await.map_err(|_| PoolError::Closed)?;
                self.0.grow()?;
            }
        }
        Ok(result.await.map_err(|_| PoolError::Closed)??)
    }
}

impl Pool {
    /// How many of its threads run a job now. Zero in a simulation, where jobs are tasks.
    pub fn busy(&self) -> usize {
        let count = self.0.count.lock();
        count.threads - count.idle
    }
}

impl Inner {
    /// Starts a thread when more jobs wait than threads are idle.
    fn grow(&self) -> Result<(), PoolError> {
        let mut count = self.count.lock();
        if count.idle >= self.queue.len() || count.threads >= self.threads_max {
            return Ok(());
        }
        let (queue, shared) = (self.queue.clone(), self.count.clone());
        let quiet = matches!(&self.env.0.kind, Kind::Host(host) if host.is_quiet());
        let run = move || {
            panics::set_quiet(quiet);
            serve(&queue, &shared);
        };
        match host::thread(format!("nexus-{}", self.name), run) {
            Ok(_) => {
                count.threads += 1;
                Ok(())
            }
            // The threads there are will come to the job.
            Err(_) if count.threads > 0 => Ok(()),
            Err(error) => {
                tracing::error!(pool = self.name, %error, "no thread for blocking work");
                Err(PoolError::Closed)
            }
        }
    }
}

fn serve(queue: &flume::Receiver<Job>, count: &Mutex<Count>) {
    loop {
        count.lock().idle += 1;
        let job = queue.recv_timeout(IDLE_MAX);
        let mut counted = count.lock();
        counted.idle -= 1;
        match job {
            Ok(job) => {
                drop(counted);
                job();
            }
            // A job may have come between the end of the wait and this lock; its sender counted on this thread.
            Err(flume::RecvTimeoutError::Timeout) if !queue.is_empty() => {}
            Err(_) => {
                counted.threads -= 1;
                return;
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.0.name)
            .field("queued", &self.0.queue.len())
            .finish_non_exhaustive()
    }
}
