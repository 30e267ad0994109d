//! Takes away what nothing names any more: content without a row, and rows of mounts that are gone.
//!
//! Owns:       the collections, `run.rs`; which content stays although no row names it is everybody's, `pins.rs`. Publishes how they went, `view.rs`. Which rows are of mounts that are gone is found in `dead.rs`, and they go in `burial.rs`.
//! Asks:       the committer, and the stores of the mounts.
//! On restart: what was begun is given up. At whatever step that was, nothing is lost, and the next collection does the rest.
//! Bounds:     one collection at a time; `MARKS_MAX` marks of 16 bytes, `CONDEMNED_MAX` contents of 24 bytes that wait for the end of their grace.
//!
//! Content is reachable that an inode of any tree names, with all that its lists tell. The rows are read page by page while calls go on. That is
//! enough: whoever lets a row name content holds that content until it is committed, so what was named after its page was read was held since the
//! collection began, and what is held is not taken away. Before anything goes, an entry of the collection's own is committed: with it all is on disk,
//! and published, that the marks were made of, so neither a crash nor a cache leads back to what they do not have.

mod burial;
mod dead;
mod messages;
mod pins;
mod run;
mod table;
mod view;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Message, Reply, Start};
use tokio::sync::oneshot;

use messages::Begin;
pub(crate) use messages::Collect;
pub(crate) use pins::Hold;
use run::Run;
pub(crate) use view::Garbage;
pub use view::{Collection, CollectionState, Freed, GarbageConfig};

use crate::kernel::Kernel;

/// Collects what is unreachable.
pub(crate) struct Collector {
    kernel: Arc<Kernel>,
    generation: u64,
    running: bool,
}

impl Behaviour for Collector {
    // Weak: the kernel holds a reference to this actor, which holds what it is started with.
    type Args = Weak<Kernel>;
    const NAME: &'static str = "garbage";

    fn init(kernel: Weak<Kernel>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let generation = start.generation();
        async move {
            let kernel = kernel.upgrade().ok_or_else(|| ExitReason::error("the kernel is gone"))?;
            kernel.garbage().claim(generation);
            start.me().signal(Begin).map_err(ExitReason::error)?;
            Ok(Self { kernel, generation, running: false })
        }
        .boxed_local()
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.kernel.garbage().leave(self.generation);
        std::future::ready(()).boxed_local()
    }
}

impl Collector {
    /// Begins a collection beside the mailbox; none when one runs.
    fn collect(&mut self, m: Collect, cx: &mut Cx<'_, Self>) -> Option<u64> {
        if self.running {
            return None;
        }
        self.running = true;
        let grace = m.grace.unwrap_or(self.kernel.config().garbage.grace);
        let number = self.kernel.garbage().begin(m.dry_run, grace);
        let run = Run::new(self.kernel.clone(), self.generation, number, m.dry_run, grace);
        // Not on the thread of the kernel's actors: marks are many.
        let (done, over) = oneshot::channel();
        cx.env().spawn("garbage.run", async move {
            run.collect().await;
            // A collector that is gone has left its place to another.
            let _ = done.send(());
        });
        cx.spawn(over, |me: &mut Self, _, over| {
            me.running = false;
            if over.is_err() {
                me.kernel.garbage().cut_short("it panicked");
            }
        });
        Some(number)
    }

    /// Waits for the next collection that nobody asks for.
    fn wait(&self, interval: Duration, cx: &mut Cx<'_, Self>) {
        let env = cx.env().clone();
        let sleep = async move { env.sleep(interval).await };
        cx.spawn(sleep, move |me: &mut Self, cx, ()| {
            me.collect(Collect { dry_run: false, grace: None }, cx);
            me.wait(interval, cx);
        });
    }
}

impl Handle<Collect> for Collector {
    fn handle(&mut self, m: Collect, cx: &mut Cx<'_, Self>) -> Reply<Self, <Collect as Message>::Reply> {
        Reply::Now(self.collect(m, cx))
    }
}

impl Handle<Begin> for Collector {
    fn handle(&mut self, _: Begin, cx: &mut Cx<'_, Self>) -> Reply<Self, <Begin as Message>::Reply> {
        if let Some(interval) = self.kernel.config().garbage.interval {
            self.wait(interval, cx);
        }
        Reply::Now(())
    }
}
