//! The simulation: every actor, task, timer and blocking job on one thread, in an order drawn from a seed.
//!
//! Tasks that can run stand in a list, and the seed says which one is next. When none can, the virtual clock jumps to
//! the next timer. Nothing else decides, so a run is a function of its seed.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use super::random::Random;
use super::timers::Timers;
use super::trace::{Event, Trace, TraceEntry};
use crate::panics;

/// The wall clock of a simulation begins here: 2026-01-01T00:00:00Z.
const EPOCH_NANOS: u64 = 1_767_225_600_000_000_000;

/// Steps without any passing of time after which a run counts as one that never ends.
const STEPS_AT_ONE_INSTANT_MAX: u64 = 50_000_000;

type Make = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// What `Env` sees of a simulation. Shared, but used on one thread only.
pub(crate) struct SimShared {
    timers: Arc<Timers>,
    began: Instant,
    thread: ThreadId,
    /// Draws the order; apart from what `Env::random` gives, so that drawing numbers does not change the order.
    order: Random,
    state: Mutex<State>,
}

struct State {
    ready: Vec<u64>,
    fresh: BTreeMap<u64, (Arc<str>, Make)>,
    next: u64,
    trace: Trace,
}

struct Task {
    name: Arc<str>,
    future: LocalBoxFuture<'static, ()>,
    flag: Arc<Flag>,
    waker: Waker,
}

struct Flag {
    id: u64,
    queued: AtomicBool,
    sim: Arc<SimShared>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Relaxed: one thread.
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.sim.state.lock().ready.push(self.id);
        }
    }
}

impl SimShared {
    pub(crate) fn new(seed: u64, timers: Arc<Timers>) -> Arc<Self> {
        let state = State { ready: Vec::new(), fresh: BTreeMap::new(), next: 0, trace: Trace::new() };
        Arc::new(SimShared {
            began: timers.now(),
            timers,
            thread: thread::current().id(),
            order: Random::seeded(!seed),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn wall(&self) -> u64 {
        EPOCH_NANOS.saturating_add(u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn spawn(&self, name: Arc<str>, make: Make) {
        assert_eq!(
            self.thread,
            thread::current().id(),
            "a simulation runs on one thread: {name} came from another"
        );
        let at = self.elapsed();
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.trace.push(TraceEntry { at, who: name.clone(), event: Event::Spawned });
        state.fresh.insert(id, (name, make));
        state.ready.push(id);
    }

    pub(crate) fn note(&self, who: &Arc<str>, text: Cow<'static, str>) {
        self.push(who, Event::Note(text));
    }

    fn push(&self, who: &Arc<str>, event: Event) {
        let entry = TraceEntry { at: self.elapsed(), who: who.clone(), event };
        self.state.lock().trace.push(entry);
    }

    fn elapsed(&self) -> Duration {
        self.timers.now().saturating_duration_since(self.began)
    }

    /// Draws the next task.
    fn draw(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let len = state.ready.len();
        if len == 0 {
            return None;
        }
        let at = if len == 1 { 0 } else { self.order.below(len) };
        Some(state.ready.swap_remove(at))
    }
}

thread_local! {
    /// The simulations of this thread, for `Env::blocking_wait`.
    static RUNNERS: RefCell<Vec<Weak<Runner>>> = const { RefCell::new(Vec::new()) };
}

/// Drives everything that was started with the [`Env`](super::Env) it came with.
pub struct Simulation(Rc<Runner>);

struct Runner {
    sim: Arc<SimShared>,
    quiet: Cell<bool>,
    tasks: RefCell<BTreeMap<u64, Task>>,
}

/// Nothing can run, no timer is set, and what was waited for has not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("deadlock after {at:?}: nothing can run, and these tasks wait: {waiting:?}")]
pub struct Deadlock {
    /// Virtual time since the simulation began.
    pub at: Duration,
    /// The names of the tasks that wait.
    pub waiting: Vec<Arc<str>>,
}

impl Simulation {
    pub(crate) fn new(sim: Arc<SimShared>) -> Self {
        let runner = Rc::new(Runner { sim, quiet: Cell::new(false), tasks: RefCell::default() });
        RUNNERS.with(|r| {
            let mut runners = r.borrow_mut();
            runners.retain(|w| w.strong_count() > 0);
            runners.push(Rc::downgrade(&runner));
        });
        Simulation(runner)
    }

    /// Keeps panics of tasks and actors from the process's panic hook: they are told by exit reasons and logs alone.
    /// Those of the future that `block_on` drives are still shown.
    pub fn quiet(&self) {
        self.0.quiet.set(true);
    }

    /// Runs until `future` has ended.
    ///
    /// # Panics
    /// On a deadlock, with the names of the tasks that wait.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.try_block_on(future).unwrap_or_else(|deadlock| panic!("{deadlock}"))
    }

    /// Runs until `future` has ended, or nothing can run any more.
    pub fn try_block_on<F: Future>(&self, future: F) -> Result<F::Output, Deadlock> {
        self.0.block_on(future)
    }

    /// Runs what can run now, without moving the clock.
    pub fn run_until_idle(&self) {
        while self.0.step(None) {}
    }

    /// Runs for this much virtual time.
    pub fn run_for(&self, duration: Duration) {
        let sleep =
            super::Sleep::new(self.0.sim.timers.clone(), self.0.sim.timers.now().checked_add(duration));
        self.block_on(sleep);
    }

    /// The steps so far.
    pub fn trace(&self) -> Trace {
        self.0.sim.state.lock().trace.clone()
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation({:?})", self.0.sim.elapsed())
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks hold the environment and the environment holds the list of fresh tasks: break the circle.
        loop {
            let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
            let fresh = std::mem::take(&mut self.0.sim.state.lock().fresh);
            if tasks.is_empty() && fresh.is_empty() {
                break;
            }
            let _ = panics::guarded_drop((tasks, fresh));
        }
        self.0.sim.state.lock().ready.clear();
    }
}

/// The caller of `Env::blocking_wait`: drives the simulation that belongs to `sim`.
pub(crate) fn drive<F: Future>(sim: &Arc<SimShared>, future: F) -> F::Output {
    let runner =
        RUNNERS.with(|r| r.borrow().iter().filter_map(Weak::upgrade).find(|r| Arc::ptr_eq(&r.sim, sim)));
    let Some(runner) = runner else {
        panic!("a simulation is driven by the thread that made it, while it lives")
    };
    runner.block_on(future).unwrap_or_else(|deadlock| panic!("{deadlock}"))
}

/// The future that `block_on` waits for: a task like the others, but one that may borrow.
struct Main<'a> {
    id: u64,
    flag: &'a Flag,
    poll: &'a mut dyn FnMut(),
}

impl Runner {
    fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Deadlock> {
        let mut future = pin!(future);
        let id = {
            let mut state = self.sim.state.lock();
            state.next += 1;
            let id = state.next;
            state.ready.push(id);
            id
        };
        let flag = Arc::new(Flag { id, queued: AtomicBool::new(true), sim: self.sim.clone() });
        let waker = Waker::from(flag.clone());
        let mut out = None;
        let mut steps = 0_u64;
        loop {
            let mut poll = || {
                let mut cx = Context::from_waker(&waker);
                if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                    out = Some(value);
                }
            };
            let ran = self.step(Some(Main { id, flag: &flag, poll: &mut poll }));
            if let Some(value) = out {
                return Ok(value);
            }
            steps += 1;
            assert!(steps < STEPS_AT_ONE_INSTANT_MAX, "a task wakes itself for ever: time stands still");
            if !ran {
                steps = 0;
                if !self.sim.timers.advance() {
                    let waiting = self.tasks.borrow().values().map(|task| task.name.clone()).collect();
                    return Err(Deadlock { at: self.sim.elapsed(), waiting });
                }
            }
        }
    }

    /// Runs one task until it waits. False when none can run.
    fn step(&self, main: Option<Main<'_>>) -> bool {
        let Some(id) = self.sim.draw() else { return false };
        if let Some(main) = main
            && main.id == id
        {
            main.flag.queued.store(false, Ordering::Relaxed);
            (main.poll)();
            return true;
        }
        let loud = panics::set_quiet(self.quiet.get());
        self.run(id);
        panics::set_quiet(loud);
        true
    }

    fn run(&self, id: u64) {
        let known = self.tasks.borrow_mut().remove(&id);
        let Some(mut task) = known.or_else(|| self.first_run(id)) else { return };
        self.sim.push(&task.name, Event::Ran);
        task.flag.queued.store(false, Ordering::Relaxed);
        let mut cx = Context::from_waker(&task.waker);
        let future: Pin<&mut _> = task.future.as_mut();
        match panics::guard(|| future.poll(&mut cx)) {
            Ok(Poll::Pending) => {
                self.tasks.borrow_mut().insert(id, task);
            }
            Ok(Poll::Ready(())) => self.sim.push(&task.name, Event::Ended),
            Err(panicked) => {
                tracing::error!(task = %task.name, %panicked, "a task panicked");
                self.sim.push(&task.name, Event::Note(panicked.to_string().into()));
                let _ = panics::guarded_drop(task);
            }
        }
    }

    fn first_run(&self, id: u64) -> Option<Task> {
        let (name, make) = self.sim.state.lock().fresh.remove(&id)?;
        let flag = Arc::new(Flag { id, queued: AtomicBool::new(true), sim: self.sim.clone() });
        let waker = Waker::from(flag.clone());
        match panics::guard(make) {
            Ok(future) => Some(Task { name, future, flag, waker }),
            Err(panicked) => {
                tracing::error!(task = %name, %panicked, "a task panicked before it began");
                None
            }
        }
    }
}
