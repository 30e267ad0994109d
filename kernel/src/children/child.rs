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
use crate::hal::{Process, ProcessOutput};

/// What a child is told to its pumps, and they to who minds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stage {
    /// Who asked for it has heard of it, and it is to live; before that nothing is carried.
    pub(super) kept: bool,
    /// Who asked for it went away before, and it is killed.
    pub(super) given_up: bool,
    /// It has ended.
    pub(super) exited: bool,
    /// What was not written by now is not waited for.
    pub(super) over: bool,
    /// The kernel ends: nobody reads its pipes any more.
    pub(super) stopping: bool,
    /// Outputs that are waited for: somebody may still write to them.
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

    /// Lets it live.
    pub(super) fn keep(&self) {
        self.stage.send_modify(|stage| stage.kept = true);
    }

    /// Kills it, and has nothing carried from it or to it, if it is not kept.
    pub(super) fn give_up(&self) {
        self.kill();
        self.stage.send_modify(|stage| stage.given_up = true);
    }

    /// Kills it, and says so when that cannot be done.
    pub(super) fn kill(&self) {
        if let Err(error) = self.signal(ChildSignal::Kill) {
            self.trouble(format_args!("it could not be killed: {error}"));
        }
    }

    /// Kills it, and waits until the host has forgotten it: of one that nobody minds.
    pub(super) async fn end_unheard(&self) {
        self.kill();
        // What cannot be waited for is waited for below, for as long as the host takes.
        let _ = self.process.exited().await;
        self.process.finish();
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

    /// Counts a pump until the value is dropped.
    pub(super) fn pumping(self: &Arc<Self>) -> Pumping {
        self.stage.send_modify(|stage| stage.pumping += 1);
        Pumping { child: self.clone() }
    }

    /// Counts an output as one that is waited for until the value is dropped.
    pub(super) fn output(self: &Arc<Self>, env: &Env) -> OpenOutput {
        self.stage.send_modify(|stage| stage.open += 1);
        OpenOutput { child: self.clone(), env: env.clone() }
    }

    /// Sees to it that it is known when the child ends, that what it leaves behind ends, too, and that the host forgets it.
    pub(super) async fn mind(self: Arc<Self>, table: ChildTable) {
        let exit = match self.process.exited().await {
            Ok(exit) => exit,
            Err(error) => {
                // Nothing is known of it then: it is not to run on unseen.
                self.trouble(format_args!("its end cannot be waited for, and it is killed: {error}"));
                ChildExit::Signal(KILLED)
            }
        };
        // Before it is told: who hears of it may start another one.
        table.has_ended(&self);
        self.state.send_replace(ChildState::Ended(exit));
        self.stage.send_modify(|stage| stage.exited = true);
        // Who was handed its descriptors may write to them for a while.
        self.reached(|stage| stage.open == 0 || stage.stopping).await;
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
}

impl Pumping {
    pub(super) fn child(&self) -> &Arc<Child> {
        &self.child
    }

    /// Waits until it is known whether the child lives, and whether it does. Nothing is to be carried before: of a start that is given up nothing is in any path.
    pub(super) async fn is_kept(&self) -> bool {
        self.child.reached(|stage| stage.kept || stage.given_up || stage.stopping).await;
        self.child.stage.borrow().kept
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
        self.child.stage.send_modify(|stage| stage.pumping -= 1);
    }
}

/// An output that is waited for.
pub(super) struct OpenOutput {
    child: Arc<Child>,
    env: Env,
}

impl OpenOutput {
    /// Waits until nobody can write to it any more, or the child's end is longer ago than the grace; also while what was written is not taken by anybody.
    pub(super) async fn until_closed(self, output: &dyn ProcessOutput) {
        let (child, closed) = (&self.child, output.closed());
        let exited = std::pin::pin!(child.reached(|stage| stage.exited));
        let Either::Right(((), closed)) = select(closed, exited).await else { return };
        let stopping = std::pin::pin!(child.reached(|stage| stage.stopping));
        let is_late = self.env.timeout(child.grace, select(closed, stopping)).await.is_err();
        // Whoever was to hear of its end may have been late himself. What cannot be looked at is not said of anybody.
        if is_late && output.is_open().unwrap_or(false) {
            child.trouble(format_args!("others held its output open for {:?} after its end", child.grace));
        }
    }
}

impl Drop for OpenOutput {
    fn drop(&mut self) {
        self.child.stage.send_modify(|stage| stage.open -= 1);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id).field("state", &self.state()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;
    use nexus_messages::{ChildSpec, Timestamp, ZoneId};

    use super::super::table::tests::Endless;
    use super::*;
    use crate::hal::ProcessFuture;

    /// An output of whose end nobody is told; and whether somebody could write to it.
    #[derive(Debug)]
    struct Unheard(bool);

    impl ProcessOutput for Unheard {
        fn read(&self, _: usize) -> ProcessFuture<'_, io::Result<Bytes>> {
            Box::pin(std::future::pending())
        }

        fn closed(&self) -> ProcessFuture<'_, ()> {
            Box::pin(std::future::pending())
        }

        fn is_open(&self) -> io::Result<bool> {
            Ok(self.0)
        }

        fn ready(&self) -> io::Result<usize> {
            Ok(0)
        }
    }

    #[test]
    fn that_others_hold_an_output_is_said_when_it_is_so() {
        for is_held in [true, false] {
            let (env, _simulation) = Env::seeded(7);
            let spec = ChildSpec::new("endless", [""; 0]);
            let born = ChildEntry::new(ChildId(1), 1, &spec, "test".into(), ZoneId::root(), Timestamp(0));
            let child = Arc::new(Child::new(born, Box::new(Endless), None, spec.grace));
            let (open, output) = (child.output(&env), Unheard(is_held));
            child.stage.send_modify(|stage| stage.exited = true);
            let begun = env.now();
            env.blocking_wait(open.until_closed(&output));
            assert_eq!((env.now() - begun, child.stage.borrow().open), (spec.grace, 0));
            let told = child.entry().trouble;
            assert_eq!(told.is_some_and(|told| told.contains("held its output open")), is_held);
        }
    }
}
