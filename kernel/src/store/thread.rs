//! A thread that works for an actor. Its end is the actor's, too.

use std::sync::Arc;

use nexus_actors::{Behaviour, ExitReason, Handle, Message, Start, Worker, WorkerBounds};

/// The actor's thread ended.
#[derive(Debug, Clone)]
pub(crate) struct ThreadEnded {
    /// The incarnation whose thread it was.
    pub(crate) generation: u64,
    /// Why it ended.
    pub(crate) reason: ExitReason,
}

impl Message for ThreadEnded {
    type Reply = ();
    const NAME: &'static str = "store.thread_ended";
}

/// Starts a thread that is handed jobs, for the actor that starts, which is told when the thread ends.
pub(super) fn employ<B: Behaviour + Handle<ThreadEnded>, J: Send + 'static>(
    start: &Start<B>,
    bounds: WorkerBounds,
    work: impl FnMut(Vec<J>) + Send + 'static,
) -> Result<Arc<Worker<J>>, ExitReason> {
    let env = start.env();
    let worker = Arc::new(env.worker(B::NAME, bounds, work).map_err(ExitReason::error)?);
    // Not the worker itself: an actor that is killed closes nothing, and its thread ends with whoever held the worker.
    let (ended, me, generation) = (worker.ended(), start.me().clone(), start.generation());
    env.spawn("store.watch", async move {
        let reason = ended.await;
        // Nobody to tell: the actor is gone for good, and so is the kernel.
        let _ = me.tell(ThreadEnded { generation, reason });
    });
    Ok(worker)
}
