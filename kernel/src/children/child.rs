//! One child: its process, how far it is, and what minds it until its end.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::Env;
use nexus_messages::{ChildEntry, ChildExit, ChildId, ChildSignal, ChildState, LifeId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::table::ChildTable;
use crate::hal::Process;

/// What a child is told to its pumps, and they to who minds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stage {
    /// It has ended.
    pub(super) exited: bool,
    /// What was not written by now is not waited for.
    pub(super) over: bool,
    /// The kernel ends: nobody reads its pipes any more.
    pub(super) stopping: bool,
    /// Outputs that somebody may still write to.
    pub(super) open: usize,
    /// Pumps that have not ended.
    pub(super) pumping: usize,
}

/// A child that was started.
pub(crate) struct Child {
    pub(super) id: ChildId,
    process: Box<dyn Process>,
    /// With whose end it is killed.
    pub(super) life: Option<LifeId>,
    grace: Duration,
    /// What it was when it was started.
    born: ChildEntry,
    state: watch::Sender<ChildState>,
    stage: watch::Sender<Stage>,
    /// Bytes in, out and err; lines dropped; messages unread; records lost. Statistics: nothing is ordered by them.
    counts: [AtomicU64; 6],
    trouble: Mutex<Option<Arc<str>>>,
}

/// What is counted of a child.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    In,
    Out,
    Err,
    Dropped,
    Unread,
    Lost,
}

impl Child {
    pub(super) fn new(
        born: ChildEntry,
        process: Box<dyn Process>,
        life: Option<LifeId>,
        grace: Duration,
    ) -> Self {
        Self {
            id: born.id,
            process,
            life,
            grace,
            born,
            state: watch::Sender::new(ChildState::Running),
            stage: watch::Sender::new(Stage::default()),
            counts: Default::default(),
            trouble: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> ChildState {
        *self.state.borrow()
    }

    /// Waits until it has ended, or until all that it wrote is where it belongs. Dropping the future changes nothing.
    pub(super) async fn wait(&self, done: bool) -> ChildEntry {
        let mut state = self.state.subscribe();
        // Its other end is in this value.
        let _ = state.wait_for(|state| if done { state.is_done() } else { state.exit().is_some() }).await;
        self.entry()
    }

    /// Waits until its stage is one. Dropping the future changes nothing.
    pub(super) async fn reached(&self, is: impl FnMut(&Stage) -> bool) {
        let _ = self.stage.subscribe().wait_for(is).await;
    }

    pub(super) fn signal(&self, signal: ChildSignal) -> std::io::Result<bool> {
        self.process.signal(signal)
    }

    /// Ends it now, if it runs. Blocks for as long as the host takes.
    pub(super) fn finish(&self) {
        self.process.finish();
    }

    /// Nobody reads its pipes any more.
    pub(super) fn stop(&self) {
        self.stage.send_modify(|stage| stage.stopping = true);
    }

    pub(super) fn count(&self, what: Count, more: u64) {
        self.counts[what as usize].fetch_add(more, Ordering::Relaxed);
    }

    /// Notes what went wrong between it and its paths.
    pub(super) fn trouble(&self, what: impl fmt::Display) {
        tracing::warn!(child = %self.id, program = &*self.born.program, %what, "trouble with a child process");
        *self.trouble.lock() = Some(what.to_string().into());
    }

    pub(super) fn entry(&self) -> ChildEntry {
        let [bytes_in, bytes_out, bytes_err, lines_dropped, messages_unread, records_lost] =
            [0, 1, 2, 3, 4, 5].map(|at: usize| self.counts[at].load(Ordering::Relaxed));
        let mut entry = self.born.clone();
        entry.state = self.state();
        (entry.bytes_in, entry.bytes_out, entry.bytes_err) = (bytes_in, bytes_out, bytes_err);
        (entry.lines_dropped, entry.messages_unread) = (lines_dropped, messages_unread);
        entry.records_lost = records_lost;
        entry.trouble.clone_from(&self.trouble.lock());
        entry
    }

    /// Counts a pump until the value is dropped, of an output as one that may be written to until [`Pumping::at_end`].
    pub(super) fn pumping(self: &Arc<Self>, of_output: bool) -> Pumping {
        self.stage.send_modify(|stage| {
            stage.pumping += 1;
            stage.open += usize::from(of_output);
        });
        Pumping { child: self.clone(), is_open: of_output }
    }

    /// Sees to it that it is known when the child ends, that what it leaves behind ends, too, and that the host forgets it.
    pub(super) async fn mind(self: Arc<Self>, env: Env, table: ChildTable) {
        let exit = match self.process.exited().await {
            Ok(exit) => exit,
            Err(error) => {
                // Nothing is known of it then: it is not to run on unseen.
                self.trouble(format_args!("its end cannot be waited for, and it is killed: {error}"));
                ChildExit::Signal(KILLED)
            }
        };
        self.state.send_replace(ChildState::Ended(exit));
        self.stage.send_modify(|stage| stage.exited = true);
        // Who was handed its descriptors may write to them for a while.
        let at_end = self.reached(|stage| stage.open == 0 || stage.stopping);
        if env.timeout(self.grace, at_end).await.is_err() {
            self.trouble(format_args!("others held its output open for {:?} after its end", self.grace));
        }
        self.process.finish();
        self.stage.send_modify(|stage| stage.over = true);
        self.reached(|stage| stage.pumping == 0).await;
        self.state.send_replace(ChildState::Done(exit));
        table.is_done(&self);
    }
}

/// The number of SIGKILL.
const KILLED: i32 = 9;

/// A pump that runs.
pub(super) struct Pumping {
    child: Arc<Child>,
    is_open: bool,
}

impl Pumping {
    pub(super) fn child(&self) -> &Arc<Child> {
        &self.child
    }

    /// Nobody can write to the output any more.
    pub(super) fn at_end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.child.stage.send_modify(|stage| stage.open -= 1);
        }
    }

    /// What `work` gives, unless the child's stage is one before; `work` is dropped then.
    pub(super) async fn unless<T>(
        &self,
        is: impl FnMut(&Stage) -> bool,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let (work, before) = (std::pin::pin!(work), std::pin::pin!(self.child.reached(is)));
        // The stage first: there may be no end of the work.
        match select(before, work).await {
            Either::Left(((), _)) => None,
            Either::Right((done, _)) => Some(done),
        }
    }
}

impl Drop for Pumping {
    fn drop(&mut self) {
        self.at_end();
        self.child.stage.send_modify(|stage| stage.pumping -= 1);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id).field("state", &self.state()).finish_non_exhaustive()
    }
}
