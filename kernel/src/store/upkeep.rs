//! Does beside the batches what the metastore put off so that they are fast: one thread, asked by the committer.
//!
//! Owns:       the upkeep thread, which alone calls `Metastore::upkeep`.
//! Asks:       nobody.
//! On restart: a new thread takes over. An upkeep that was cut short is begun again when the next batch asks for it.
//! Bounds:     one request waits; after a failure none is made for `PAUSE`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Message, Reply, Start, Worker, WorkerBounds};
use parking_lot::Mutex;

use super::Store;
use super::thread::{ThreadEnded, employ};
use crate::caught::catch;

/// How long no upkeep is tried after one failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Does the upkeep of the [`Store`].
pub(crate) struct Upkeep {
    store: Arc<Store>,
    worker: Arc<Worker<()>>,
    generation: u64,
}

/// Where upkeep is asked for.
#[derive(Default)]
pub(super) struct UpkeepLine {
    worker: Mutex<Option<Arc<Worker<()>>>>,
    not_before: Mutex<Option<Instant>>,
}

impl UpkeepLine {
    /// Asks for upkeep, unless it is asked for already, or failed just now.
    pub(super) fn ask(&self, now: Instant) {
        if self.not_before.lock().is_some_and(|not_before| now < not_before) {
            return;
        }
        if let Some(worker) = &*self.worker.lock() {
            // One that waits already will do.
            let _ = worker.try_submit(());
        }
    }
}

impl Behaviour for Upkeep {
    type Args = Arc<Store>;
    const NAME: &'static str = "upkeep";

    fn init(store: Arc<Store>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let generation = start.generation();
        // Weak: the store holds the worker.
        let tended = Arc::downgrade(&store);
        let worker = employ(&start, WorkerBounds { queue: 1, batch: 1 }, move |_| {
            if let Some(store) = tended.upgrade() {
                tend(&store);
            }
        });
        async move {
            let worker = worker?;
            *store.upkeep().worker.lock() = Some(worker.clone());
            Ok(Self { store, worker, generation })
        }
        .boxed_local()
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.store.upkeep().worker.lock().take_if(|worker| Arc::ptr_eq(worker, &self.worker));
        let worker = self.worker.clone();
        async move {
            worker.close().await;
        }
        .boxed_local()
    }
}

impl Handle<ThreadEnded> for Upkeep {
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

/// Runs on the upkeep thread.
fn tend(store: &Store) {
    let metastore = store.metastore();
    if !metastore.wants_upkeep() {
        return;
    }
    // A panic of it must not end the committer, which shares its supervisor: all goes on without upkeep for a while.
    let done = catch(|| metastore.upkeep());
    let why = match done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    tracing::error!(error = %why, "the metastore's upkeep failed, and will be tried again");
    *store.upkeep().not_before.lock() = Some(store.env().now() + PAUSE);
}
