//! Looks at what is stored: all of it when that is asked for, and the content again and again, slowly, by itself.
//!
//! Owns:       the checks and the scrubs, `run.rs`. Publishes what they found, and where the scrub is, `view.rs`.
//! Asks:       the collector, the committer, and the stores of the mounts.
//! On restart: a check that was begun is given up. A scrub goes on behind what it had looked at.
//! Bounds:     one check and one scrub at a time; identities are matched in bits, directories remembered in 16 bytes each (`survey.rs`); a scrub reads no
//!             more than is set in a second.
//!
//! All goes on meanwhile. The rows are read page by page, each page in one view; what looks wrong is looked at again, behind whatever may have changed it,
//! and is told only when the rows that say so are still the same and what they name is still not there. Content is read past the cache.

mod content;
mod finding;
mod log;
mod messages;
mod pace;
mod pages;
mod paths;
mod repair;
mod run;
mod survey;
mod view;

use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Message, Reply, Start};
use nexus_messages::Timestamp;
use tokio::sync::oneshot;

pub use finding::{Fault, Finding, Remedy};
use messages::Begin;
pub(crate) use messages::{BeginCheck, BeginScrub};
use pace::Pace;
use run::{Course, Run, Task};
use view::Position;
pub(crate) use view::Scrubbing;
pub use view::{Check, CheckState, ScrubConfig};

use crate::kernel::Kernel;

/// Runs checks and scrubs.
pub(crate) struct Scrubber {
    kernel: Arc<Kernel>,
    generation: u64,
    checking: bool,
    scrubbing: bool,
}

impl Behaviour for Scrubber {
    // Weak: the kernel holds a reference to this actor, which holds what it is started with.
    type Args = Weak<Kernel>;
    const NAME: &'static str = "scrub";

    fn init(kernel: Weak<Kernel>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let generation = start.generation();
        async move {
            let kernel = kernel.upgrade().ok_or_else(|| ExitReason::error("the kernel is gone"))?;
            kernel.scrubbing().claim(generation);
            start.me().signal(Begin).map_err(ExitReason::error)?;
            Ok(Self { kernel, generation, checking: false, scrubbing: false })
        }
        .boxed_local()
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.kernel.scrubbing().leave(self.generation);
        std::future::ready(()).boxed_local()
    }
}

impl Scrubber {
    /// Runs beside the mailbox, and not on the thread of the kernel's actors: rows are many. Then does `then`, with whether it came to its end.
    fn run(
        &self,
        number: u64,
        task: Task,
        cx: &mut Cx<'_, Self>,
        then: fn(&mut Self, &mut Cx<'_, Self>, bool),
    ) {
        let course = Course { kernel: self.kernel.clone(), generation: self.generation };
        let run = Run::new(course, number, task);
        let (done, over) = oneshot::channel();
        cx.env().spawn("scrub.run", async move {
            Box::pin(run.run()).await;
            // A scrubber that is gone has left its place to another.
            let _ = done.send(());
        });
        cx.spawn(over, move |me: &mut Self, cx, over| then(me, cx, over.is_ok()));
    }

    /// Begins a check beside the mailbox; none when one runs.
    fn check(&mut self, m: BeginCheck, cx: &mut Cx<'_, Self>) -> Option<u64> {
        if self.checking {
            return None;
        }
        self.checking = true;
        let number = self.kernel.scrubbing().checks.begin(m.repair, Timestamp(cx.env().wall()));
        self.run(number, Task::Check { repair: m.repair }, cx, |me, cx, over| {
            me.checking = false;
            if !over {
                me.kernel.scrubbing().checks.cut_short("it panicked", Timestamp(cx.env().wall()));
            }
        });
        Some(number)
    }

    /// Begins a scrub beside the mailbox; none when one runs.
    fn scrub(&mut self, cx: &mut Cx<'_, Self>) -> Option<u64> {
        if self.scrubbing {
            return None;
        }
        let number = self.kernel.scrubbing().scrubs.begin(false, Timestamp(cx.env().wall()));
        self.kernel.scrubbing().come_to(self.generation, None);
        self.go_on(number, Position::Names(None), cx);
        Some(number)
    }

    fn go_on(&mut self, number: u64, from: Position, cx: &mut Cx<'_, Self>) {
        self.scrubbing = true;
        let rate = self.kernel.config().scrub.bytes_per_s;
        let pace = (rate > 0).then(|| Pace::new(rate));
        self.run(number, Task::Scrub { from, pace }, cx, |me, cx, over| {
            me.scrubbing = false;
            if !over {
                me.kernel.scrubbing().scrubs.cut_short("it panicked", Timestamp(cx.env().wall()));
            }
        });
    }

    /// Waits for the next scrub that nobody asks for.
    fn wait(&self, cx: &mut Cx<'_, Self>) {
        let (env, interval) = (cx.env().clone(), self.kernel.config().scrub.interval);
        let sleep = async move { env.sleep(interval).await };
        cx.spawn(sleep, move |me: &mut Self, cx, ()| {
            me.scrub(cx);
            me.wait(cx);
        });
    }
}

impl Handle<BeginCheck> for Scrubber {
    fn handle(
        &mut self,
        m: BeginCheck,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <BeginCheck as Message>::Reply> {
        Reply::Now(self.check(m, cx))
    }
}

impl Handle<BeginScrub> for Scrubber {
    fn handle(
        &mut self,
        _: BeginScrub,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <BeginScrub as Message>::Reply> {
        Reply::Now(self.scrub(cx))
    }
}

impl Handle<Begin> for Scrubber {
    fn handle(&mut self, _: Begin, cx: &mut Cx<'_, Self>) -> Reply<Self, <Begin as Message>::Reply> {
        if let Some((number, from)) = self.kernel.scrubbing().unfinished() {
            self.kernel.scrubbing().scrubs.tell(number, |latest| latest.resumed += 1);
            self.go_on(number, from, cx);
        }
        if self.kernel.config().scrub.bytes_per_s > 0 {
            self.wait(cx);
        }
        Reply::Now(())
    }
}
