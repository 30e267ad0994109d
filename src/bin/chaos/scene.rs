//! What all tasks of one kernel's life share: the handle, the homes as readers may see them, what was counted, and the gate that makes all pause.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use nexus::{Env, Error, Executed, Lsn, MountSpec, Nexus, OpId, TreeStatus};
use nexus_drivers::faults::Faults;
use parking_lot::Mutex;

use crate::locks::history::{self as locks, At};
use crate::model::{Became, Change, Home, Ledger, Mark};
use crate::pipes::history as pipes;
use crate::plan::Life;
use crate::record::{Counts, Record};
use crate::streams::Streams;

/// How much later than its deadline a call may end: the threads of the run have few processors.
pub(crate) const SLACK: Duration = Duration::from_secs(5);

/// A call that has not ended so long after its deadline and the slack never will.
const HANGS: Duration = Duration::from_secs(30);

/// How long a task waits before it looks again whether something has come about.
pub(crate) const MOMENT: Duration = Duration::from_micros(500);

/// Where records go.
pub(crate) type Tell = Arc<dyn Fn(Record) + Send + Sync>;

/// What a run is made of, beside its plan.
#[derive(Clone)]
pub(crate) struct Setting {
    /// The mounts of the run.
    pub(crate) plain: MountSpec,
    pub(crate) bad: MountSpec,
    /// Whether drivers can be replaced: those that keep all in memory cannot.
    pub(crate) swaps_drivers: bool,
    /// How long a client waits between two calls, on average.
    pub(crate) pace: Duration,
    /// How long a call waits that waits for others, on average.
    pub(crate) wait: Duration,
    /// How long clients work from one pause to the next.
    pub(crate) quiet_every: Duration,
}

/// One kernel's life.
pub(crate) struct Scene {
    pub(crate) nx: Nexus,
    /// Clock and threads of the clients.
    pub(crate) env: Env,
    pub(crate) life: Life,
    pub(crate) setting: Setting,
    pub(crate) faults: Faults,
    pub(crate) homes: Vec<Mutex<Shown>>,
    pub(crate) counter: Mutex<Counted>,
    /// What was known when this life began.
    pub(crate) ledger: Ledger,
    pub(crate) locks: Mutex<locks::History>,
    pub(crate) pipes: Mutex<pipes::History>,
    pub(crate) streams: Streams,
    /// Orders what is sent and answered.
    ticks: AtomicU64,
    /// The newest change of a home that was acknowledged.
    newest: AtomicU64,
    tell: Tell,
    counts: Mutex<Counts>,
    began: Instant,
    /// Tasks that run.
    tasks: AtomicUsize,
    paused: AtomicBool,
    idle: AtomicUsize,
    stopped: AtomicBool,
    /// Set before the root of the tree is killed: from then on calls may find nobody.
    dying: AtomicBool,
    broken: AtomicU64,
}

/// A home as others see it.
pub(crate) struct Shown {
    pub(crate) home: Home,
    /// The change that is under way.
    under_way: Option<Change>,
    /// Raised when a path comes or goes, before and after.
    moves: u64,
}

/// What is known of the counter.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Its sum at the last pause.
    pub(crate) base: u64,
    /// Calls since then that were answered, and those that may have been executed.
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
}

/// What a reader saw of another's file before it read.
pub(crate) struct Before {
    pub(crate) path: String,
    version: Option<u64>,
    moves: u64,
}

impl Scene {
    pub(crate) fn new(
        nx: Nexus,
        env: Env,
        life: Life,
        setting: Setting,
        faults: Faults,
        ledger: Ledger,
        tell: Tell,
    ) -> Arc<Self> {
        let shown = |home: &Home| Mutex::new(Shown { home: home.clone(), under_way: None, moves: 0 });
        Arc::new(Self {
            homes: ledger.homes().iter().map(shown).collect(),
            counter: Mutex::default(),
            locks: Mutex::new(locks::History { token_before: ledger.token, ..locks::History::default() }),
            pipes: Mutex::default(),
            streams: Streams::default(),
            ticks: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            ledger,
            counts: Mutex::default(),
            began: env.now(),
            tasks: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            idle: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            broken: AtomicU64::new(0),
            nx,
            env,
            life,
            setting,
            faults,
            tell,
        })
    }

    pub(crate) fn tell(&self, record: Record) {
        (self.tell)(record);
    }

    /// A claim does not hold.
    pub(crate) fn broken(&self, claim: impl Display) {
        // One defect may break very many calls.
        if self.broken.fetch_add(1, Ordering::Relaxed) < 50 {
            let at = self.age().as_secs_f64();
            self.tell(Record::Broken { claim: format!("{at:.3} s: {claim}") });
        }
    }

    /// A call failed: that is no defect when it may have been executed, for somebody was killed then, or when the kernel dies.
    pub(crate) fn failed(&self, what: &str, error: &Error) {
        if error.executed() != Executed::Unknown && !self.is_dying() {
            self.broken(format_args!("{what}: {error}"));
        }
    }

    /// The next number of a count that orders what is sent and answered: whoever was answered before another one was sent has the lower one.
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Such a number, and the time after it was drawn.
    pub(crate) fn at(&self) -> At {
        let number = self.tick();
        At { number, time: self.age() }
    }

    /// A change at this place in the log was acknowledged.
    pub(crate) fn acknowledged(&self, lsn: Lsn) {
        self.newest.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// The newest place in the log that was acknowledged.
    pub(crate) fn newest(&self) -> Lsn {
        Lsn(self.newest.load(Ordering::Acquire))
    }

    pub(crate) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.counts.lock());
    }

    /// What was counted since the last time.
    pub(crate) fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.counts.lock())
    }

    /// The supervision tree as it is now; none when there is none any more.
    pub(crate) fn tree(&self) -> Option<TreeStatus> {
        Some(self.nx.kernel().ok()?.supervised()?.snapshot())
    }

    /// For how long the kernel has served.
    pub(crate) fn age(&self) -> Duration {
        self.env.now().saturating_duration_since(self.began)
    }

    /// Starts a task of the run.
    pub(crate) fn task<F>(self: &Arc<Self>, name: &'static str, run: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let leaving = Leaving { scene: self.clone(), name, ended: false };
        self.tasks.fetch_add(1, Ordering::Relaxed);
        let running = run(self.clone());
        self.env.spawn(name, async move {
            running.await;
            leaving.end();
        });
    }

    /// Waits while all are to pause. False when the task is to end.
    pub(crate) async fn goes_on(&self) -> bool {
        if self.paused.load(Ordering::Acquire) {
            self.idle.fetch_add(1, Ordering::AcqRel);
            while self.paused.load(Ordering::Acquire) {
                self.env.sleep(MOMENT).await;
            }
            self.idle.fetch_sub(1, Ordering::AcqRel);
        }
        !self.is_stopped()
    }

    /// Waits until the kernel is so old. False when the task is to end.
    pub(crate) async fn until(&self, at: Duration) -> bool {
        while self.goes_on().await {
            let left = at.saturating_sub(self.age());
            if left.is_zero() {
                return true;
            }
            self.env.sleep(left.min(Duration::from_millis(20))).await;
        }
        false
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Acquire)
    }

    pub(crate) fn die(&self) {
        self.dying.store(true, Ordering::Release);
    }

    /// Makes all tasks pause; false when one of them does not come to it.
    pub(crate) async fn pause(&self) -> bool {
        self.paused.store(true, Ordering::Release);
        let all_idle = || {
            // A driver's call that blocks its caller's thread goes on: who would end it pauses as well.
            self.faults.clear();
            self.idle.load(Ordering::Acquire) >= self.tasks.load(Ordering::Acquire)
        };
        self.comes_about(HANGS * 3, all_idle).await
    }

    pub(crate) fn go_on(&self) {
        self.paused.store(false, Ordering::Release);
    }

    /// Ends all tasks; false when one of them does not end.
    pub(crate) async fn stop(&self) -> bool {
        self.stopped.store(true, Ordering::Release);
        self.go_on();
        let all_ended = || {
            self.faults.clear();
            self.tasks.load(Ordering::Acquire) == 0
        };
        self.comes_about(HANGS * 3, all_ended).await
    }

    /// Waits until something is so, at most for `limit`.
    pub(crate) async fn comes_about(&self, limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
        let began = self.env.now();
        while !is_so() {
            if self.env.now().saturating_duration_since(began) > limit {
                return false;
            }
            self.env.sleep(MOMENT).await;
        }
        true
    }

    /// Makes a call that is to end within `deadline`; none when it does not end at all.
    pub(crate) async fn call<T>(
        &self,
        what: &str,
        on: &str,
        deadline: Duration,
        call: impl Future<Output = T>,
    ) -> Option<T> {
        let began = self.env.now();
        let done = self.env.timeout(deadline + SLACK + HANGS, call).await;
        let late = self.env.now().saturating_duration_since(began).saturating_sub(deadline);
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.count(|counts| {
            counts.calls += 1;
            counts.late_max_us = counts.late_max_us.max(late_us);
        });
        if late > SLACK {
            let ended = if done.is_ok() { "ended" } else { "had not ended" };
            self.broken(format_args!("{what} {on} {ended} {late:?} after its deadline of {deadline:?}"));
        }
        done.ok()
    }

    /// Makes a call, and gives it up after a while: also when it is served already and does not know, for it is not looked at again. None when it was given up.
    pub(crate) async fn give_up<T>(&self, after: Duration, call: impl Future<Output = T>) -> Option<T> {
        match select(pin!(self.env.sleep(after)), pin!(call)).await {
            Either::Left(_) => {
                self.count(|counts| counts.given_up += 1);
                None
            }
            Either::Right((done, _)) => Some(done),
        }
    }

    /// What may be read of a file now, before the read begins.
    pub(crate) fn look(&self, client: usize, file: usize) -> Before {
        let shown = self.homes[client].lock();
        Before { path: shown.home.path(client, file), version: shown.home.version(file), moves: shown.moves }
    }

    /// What was read, held against what may have been there from `before` until now.
    pub(crate) fn check_read(&self, client: usize, file: usize, before: &Before, read: Option<Option<Mark>>) {
        let shown = self.homes[client].lock();
        // An odd number: a path was coming or going already.
        let stood_still = shown.moves == before.moves && before.moves.is_multiple_of(2);
        let under_way = matches!(shown.under_way, Some(Change::Write(at)) if at == file);
        let newest = shown.home.next_version(file) - u64::from(!under_way);
        let path = &before.path;
        match (read, before.version) {
            (Some(None), _) => self.broken(format_args!("{path} is torn, or another's")),
            (Some(Some(mark)), acknowledged) => {
                let at_least = acknowledged.unwrap_or(0);
                let is_its = (mark.client, mark.file) == (client, file);
                if !is_its || mark.version < at_least || mark.version > newest {
                    self.broken(format_args!(
                        "{path} gave {mark:?}, but {at_least} was acknowledged and {newest} is the newest"
                    ));
                } else if stood_still && acknowledged.is_none() {
                    self.broken(format_args!("{path} gave {mark:?}, but it was removed"));
                }
            }
            (None, Some(version)) if stood_still => {
                self.broken(format_args!("{path} was not found, but version {version} was acknowledged"));
            }
            (None, _) => {}
        }
    }

    /// `change` begins: readers may see it from now on.
    pub(crate) fn begin(&self, client: usize, change: Change, op_id: OpId) -> Home {
        self.tell(Record::Begun { client, change, op_id });
        let mut shown = self.homes[client].lock();
        shown.moves += u64::from(shown.home.is_moved_by(change));
        shown.under_way = Some(change);
        shown.home.clone()
    }

    /// It has ended: readers that begin now must see it, or must not.
    pub(crate) fn end(
        &self,
        client: usize,
        change: Change,
        op_id: OpId,
        (became, lsn): (Became, Option<Lsn>),
    ) {
        self.tell(Record::Ended { client, op_id, became, lsn: lsn.map(|lsn| lsn.0) });
        let mut shown = self.homes[client].lock();
        shown.moves += u64::from(shown.home.is_moved_by(change));
        if became != Became::NotMade {
            shown.home = shown.home.after(change);
        }
        shown.under_way = None;
    }
}

/// A task that is counted for as long as this is.
struct Leaving {
    scene: Arc<Scene>,
    name: &'static str,
    ended: bool,
}

impl Leaving {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if !self.ended {
            self.scene.broken(format_args!("a task of the run panicked, or was dropped: {}", self.name));
        }
        self.scene.tasks.fetch_sub(1, Ordering::AcqRel);
    }
}
