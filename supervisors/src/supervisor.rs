//! Starts children, hears of their ends, and restarts them.
//!
//! Owns:       the board of its children, `board.rs`; how often they were restarted, `intensity.rs`.
//! Asks:       nobody. It starts and stops, and is told of exits by signals.
//! On restart: stops what is left of its children, and starts all of them, those added by order included.
//! Bounds:     `ORDERS_MAX` orders; one exit and one waiting restart a child.
//!
//! Work on children is done one piece at a time, beside the mailbox, so that an order to stop is always heard.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use nexus_actors::{
    ActorState, Behaviour, Child, Cx, Env, ExitPort, ExitReason, Handle, LocalBoxFuture, MailboxBounds, Ref,
    Reply, Start, child,
};
use tokio::sync::oneshot;

use crate::board::{Board, Kid};
use crate::intensity::Intensity;
use crate::messages::{Begin, Exited, Order, OrderError};
use crate::plan::{self, Plan};
use crate::spec::{AutoShutdown, Restart, Strategy, SupSpec};

/// Orders that wait for a supervisor.
const ORDERS_MAX: usize = 64;

/// The watchdog looks this many times within the shortest limit.
const WATCHDOG_LOOKS: u32 = 4;
/// The watchdog looks no more and no less often than this.
const WATCHDOG_TICK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// A supervisor's place in the world, which its incarnations fill one after another.
pub(crate) struct Post {
    pub(crate) actor: Ref<Supervisor>,
    pub(crate) child: Arc<dyn Child>,
    pub(crate) board: Arc<Board>,
}

impl Post {
    pub(crate) fn new(env: &Env, spec: &SupSpec) -> Self {
        let actor = Ref::new(env, spec.name.clone(), MailboxBounds { messages: ORDERS_MAX });
        let board = spec.board(env);
        let rules = Rules {
            strategy: spec.strategy,
            restarts: spec.restarts,
            within: spec.within,
            auto_shutdown: spec.auto_shutdown,
            backoff: spec.backoff,
            board: board.clone(),
        };
        Post { child: child(&actor, rules), actor, board }
    }
}

/// What a supervisor goes by.
#[derive(Clone)]
pub struct Rules {
    strategy: Strategy,
    restarts: u32,
    within: Duration,
    auto_shutdown: AutoShutdown,
    backoff: Option<crate::Backoff>,
    board: Arc<Board>,
}

/// A supervisor: an actor whose state is its children.
pub struct Supervisor {
    me: Ref<Supervisor>,
    rules: Rules,
    /// Invariant: the same children as the board, in the same order.
    kids: Vec<Charge>,
    intensity: Intensity,
    /// Pieces of work that wait for the one under way.
    work: VecDeque<Work>,
    busy: bool,
    watching: bool,
}

/// A child in the supervisor's care.
struct Charge {
    kid: Arc<Kid>,
    up: bool,
    generation: u64,
    since: Instant,
    /// Restarts in a row, each within the period after the one before.
    failures: u32,
    /// Names the one restart that is still to come; an older one is void.
    retry: u64,
}

enum Work {
    Exit(Exited),
    Retry { id: Arc<str>, retry: u64 },
    Order(Order, oneshot::Sender<Result<u64, OrderError>>),
}

/// What a plan came to, child by child.
type Outcome = Vec<(Arc<str>, Result<u64, ExitReason>)>;

impl Behaviour for Supervisor {
    type Args = Rules;
    const NAME: &'static str = "supervisor";
    // Each child has its own limit; the sum of them is not known here.
    const TERMINATE_MAX: Duration = Duration::MAX;

    fn init(rules: Rules, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        // Made first, so that a start that is broken off takes the children with it.
        let mut me = Supervisor {
            me: start.me().clone(),
            intensity: Intensity::new(rules.restarts, rules.within),
            kids: rules.board.kids().into_iter().map(|kid| Charge::new(kid, start.env().now())).collect(),
            rules,
            work: VecDeque::new(),
            busy: false,
            watching: false,
        };
        Box::pin(async move {
            for at in (0..me.kids.len()).rev() {
                // Left by an incarnation of this supervisor that was killed.
                let kid = me.kids[at].kid.clone();
                kid.child.stop(ExitReason::Killed, Some(Duration::ZERO)).await;
                if kid.dynamic && !kid.has_run.load(Ordering::Acquire) {
                    // It was being started. Whoever ordered that is told that nobody knows, and it may be one that never starts.
                    kid.close();
                    me.forget(at);
                }
            }
            me.start_all(start.warm()).await?;
            // Its own mailbox, ahead of everything.
            me.me.signal(Begin).map_err(ExitReason::error)?;
            Ok(me)
        })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.stop_all().boxed_local()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // After an ordered stop none of them lives. Else somebody has to see to it that they end: until one that is wedged is written off, it holds
        // its thread against all who are started there, and the next incarnation of this supervisor may come long after them, or never.
        let alive = |charge: &&Charge| {
            !matches!(charge.kid.child.status().state, ActorState::Waiting | ActorState::Stopped)
        };
        let alive = self.kids.iter().rev().filter(alive);
        let ends: Vec<_> =
            alive.map(|charge| charge.kid.child.stop(ExitReason::Killed, Some(Duration::ZERO))).collect();
        if !ends.is_empty() {
            self.me.env().spawn("supervisor.kills", async move { drop(join_all(ends).await) });
        }
    }
}

impl Handle<Begin> for Supervisor {
    fn handle(&mut self, _: Begin, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.watch(cx);
        self.proceed(cx);
        Reply::Now(())
    }
}

impl Handle<Exited> for Supervisor {
    fn handle(&mut self, exited: Exited, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.work.push_back(Work::Exit(exited));
        self.proceed(cx);
        Reply::Now(())
    }
}

impl Handle<Order> for Supervisor {
    fn handle(&mut self, order: Order, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<u64, OrderError>> {
        let (done, result) = oneshot::channel();
        self.work.push_back(Work::Order(order, done));
        self.proceed(cx);
        Reply::later(async move { result.await.unwrap_or(Err(OrderError::Start(ExitReason::Shutdown))) })
    }
}

impl Supervisor {
    /// Takes up the next piece of work, unless one is under way.
    fn proceed(&mut self, cx: &mut Cx<'_, Self>) {
        while !self.busy
            && let Some(work) = self.work.pop_front()
        {
            match work {
                Work::Exit(exited) => self.exited(&exited, cx),
                Work::Retry { id, retry } => {
                    if let Some(at) = self.at(&id)
                        && self.kids[at].retry == retry
                        && !self.kids[at].up
                    {
                        self.restart(at, cx);
                    }
                }
                Work::Order(order, done) => self.obey(order, done, cx),
            }
        }
    }

    fn at(&self, id: &str) -> Option<usize> {
        self.kids.iter().position(|charge| &*charge.kid.spec.id == id)
    }

    fn exited(&mut self, exited: &Exited, cx: &mut Cx<'_, Self>) {
        let Some(at) = self.at(&exited.id) else { return };
        let charge = &mut self.kids[at];
        // An incarnation that has been replaced, or was stopped on purpose, is not mourned.
        if !charge.up || exited.generation < charge.generation {
            return;
        }
        charge.up = false;
        // Only who has run for so long is forgiven: a child whose restarts fail has not run at all.
        if cx.env().now().saturating_duration_since(charge.since) > self.rules.within {
            charge.failures = 0;
        }
        tracing::warn!(supervisor = %self.me.name(), child = %exited.id, reason = %exited.reason, "a child ended");
        cx.env().note(self.me.name(), || format!("{} ended: {}", exited.id, exited.reason));
        let kid = charge.kid.clone();
        kid.report(exited.generation, &exited.reason);
        let again = match kid.spec.restart {
            Restart::Permanent => true,
            Restart::Transient => !exited.reason.is_normal(),
            Restart::Temporary => false,
        };
        if again {
            self.again(at, &exited.reason, cx);
        } else {
            self.leave_down(at, &kid, &exited.reason, cx);
        }
    }

    /// A child that stays down. Its end may be the supervisor's.
    fn leave_down(&mut self, at: usize, kid: &Kid, reason: &ExitReason, cx: &mut Cx<'_, Self>) {
        if kid.spec.restart == Restart::Temporary {
            self.forget(at);
        }
        kid.close();
        let counts = kid.spec.significant && reason.is_normal();
        let others_up = self.kids.iter().any(|charge| charge.kid.spec.significant && charge.up);
        let ends = match self.rules.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => counts,
            AutoShutdown::AllSignificant => counts && !others_up,
        };
        if ends {
            cx.exit(ExitReason::Shutdown);
        }
    }

    /// Restarts a child now or after its back-off, or gives up.
    fn again(&mut self, at: usize, reason: &ExitReason, cx: &mut Cx<'_, Self>) {
        let now = cx.env().now();
        if matches!(reason, ExitReason::Displaced { .. }) {
            // Somebody else wedged its thread.
            return self.restart(at, cx);
        }
        if self.intensity.hit(now) {
            tracing::error!(supervisor = %self.me.name(), "restarted its children too often and gives up");
            return cx.exit(ExitReason::RestartIntensity);
        }
        let charge = &mut self.kids[at];
        charge.failures = charge.failures.saturating_add(1);
        let backoff = charge.kid.spec.backoff.or(self.rules.backoff);
        match backoff.map(|backoff| backoff.wait(charge.failures)) {
            None | Some(Duration::ZERO) => self.restart(at, cx),
            Some(wait) => {
                charge.retry += 1;
                let (id, retry) = (charge.kid.spec.id.clone(), charge.retry);
                cx.spawn(cx.env().sleep(wait), move |me: &mut Self, cx, ()| {
                    me.work.push_back(Work::Retry { id, retry });
                    me.proceed(cx);
                });
            }
        }
    }

    /// Restarts a child and whom the strategy restarts with it.
    fn restart(&mut self, at: usize, cx: &mut Cx<'_, Self>) {
        let range = plan::affected(self.rules.strategy, at, self.kids.len());
        let ended = self.kids[at].kid.spec.id.clone();
        let mut plan = Plan::default();
        for charge in &mut self.kids[range] {
            if charge.up {
                charge.up = false;
                plan.stop.push(charge.kid.clone());
            }
            // Any restart that was to come has come.
            charge.retry += 1;
            let temporary = charge.kid.spec.restart == Restart::Temporary && charge.kid.spec.id != ended;
            if temporary {
                plan.close.push(charge.kid.clone());
            } else {
                plan.start.push((charge.kid.clone(), charge.failures <= 1));
            }
        }
        for kid in &plan.close {
            if let Some(at) = self.at(&kid.spec.id) {
                self.forget(at);
            }
        }
        self.busy = true;
        cx.spawn(carry_out(self.me.clone(), plan), |me: &mut Self, cx, outcome| {
            me.busy = false;
            me.restarted(outcome, cx);
            me.proceed(cx);
        });
    }

    fn restarted(&mut self, outcome: Outcome, cx: &mut Cx<'_, Self>) {
        for (id, result) in outcome {
            let Some(at) = self.at(&id) else { continue };
            match result {
                Ok(generation) => {
                    self.kids[at].is_up(generation, cx.env().now());
                    cx.env().note(self.me.name(), || format!("{id} restarted"));
                }
                Err(reason) => {
                    // A restart that fails counts as another exit.
                    tracing::warn!(supervisor = %self.me.name(), child = %id, %reason, "a restart failed");
                    cx.env().note(self.me.name(), || format!("{id} did not start: {reason}"));
                    let kid = &self.kids[at].kid;
                    kid.report(kid.child.status().generation, &reason);
                    self.again(at, &reason, cx);
                }
            }
        }
    }

    fn obey(&mut self, order: Order, done: oneshot::Sender<Result<u64, OrderError>>, cx: &mut Cx<'_, Self>) {
        let refused = match order {
            Order::Start(spec) => match self.at(&spec.id) {
                Some(_) => OrderError::Exists(spec.id),
                None => return self.start_new(Arc::new(spec.build(cx.env(), true)), done, cx),
            },
            Order::Terminate(id) => match self.at(&id) {
                Some(at) => return self.terminate_kid(at, done, cx),
                None => OrderError::Unknown(id),
            },
            Order::Restart(id) => match self.at(&id) {
                Some(at) if self.kids[at].up => OrderError::Runs(id),
                Some(at) => {
                    self.kids[at].retry += 1;
                    let kid = self.kids[at].kid.clone();
                    return self.start_one(kid, done, cx);
                }
                None => OrderError::Unknown(id),
            },
            Order::Delete(id) => match self.at(&id) {
                Some(at) if self.kids[at].up => OrderError::Runs(id),
                Some(at) => {
                    let generation = self.kids[at].generation;
                    self.kids[at].kid.close();
                    self.forget(at);
                    let _ = done.send(Ok(generation));
                    return;
                }
                None => OrderError::Unknown(id),
            },
        };
        let _ = done.send(Err(refused));
    }

    fn start_new(
        &mut self,
        kid: Arc<Kid>,
        done: oneshot::Sender<Result<u64, OrderError>>,
        cx: &mut Cx<'_, Self>,
    ) {
        self.rules.board.add(kid.clone());
        self.kids.push(Charge::new(kid.clone(), cx.env().now()));
        self.watch(cx);
        self.start_one(kid, done, cx);
    }

    /// Starts a child by order. One that is new and does not start is forgotten.
    fn start_one(
        &mut self,
        kid: Arc<Kid>,
        done: oneshot::Sender<Result<u64, OrderError>>,
        cx: &mut Cx<'_, Self>,
    ) {
        self.busy = true;
        let me = self.me.clone();
        let work = async move {
            let started = start_kid(&me, &kid, true).await;
            (kid, started)
        };
        cx.spawn(work, move |me: &mut Self, cx, (kid, started)| {
            me.busy = false;
            if let Some(at) = me.at(&kid.spec.id) {
                match &started {
                    Ok(generation) => me.kids[at].is_up(*generation, cx.env().now()),
                    Err(_) if me.kids[at].generation == 0 && kid.dynamic => {
                        kid.close();
                        me.forget(at);
                    }
                    Err(_) => {}
                }
            }
            let _ = done.send(started.map_err(OrderError::Start));
            me.proceed(cx);
        });
    }

    fn terminate_kid(
        &mut self,
        at: usize,
        done: oneshot::Sender<Result<u64, OrderError>>,
        cx: &mut Cx<'_, Self>,
    ) {
        let charge = &mut self.kids[at];
        charge.up = false;
        charge.retry += 1;
        let (kid, generation) = (charge.kid.clone(), charge.generation);
        if kid.spec.restart == Restart::Temporary {
            self.forget(at);
        }
        self.busy = true;
        let stop = async move {
            kid.child.stop(ExitReason::Shutdown, kid.spec.shutdown.limit()).await;
            kid.close();
        };
        cx.spawn(stop, move |me: &mut Self, cx, ()| {
            me.busy = false;
            let _ = done.send(Ok(generation));
            me.proceed(cx);
        });
    }

    fn forget(&mut self, at: usize) {
        let charge = self.kids.remove(at);
        self.rules.board.remove(&charge.kid.spec.id);
    }

    /// Looks after the children from time to time, while any of them has a watchdog.
    fn watch(&mut self, cx: &mut Cx<'_, Self>) {
        if let Some(tick) = tick(self.kids.iter().map(|charge| &*charge.kid))
            && !self.watching
        {
            self.watching = true;
            cx.spawn(cx.env().sleep(tick), |me: &mut Self, cx, ()| {
                me.watching = false;
                me.kids.iter().for_each(|charge| look_after(&charge.kid));
                me.watch(cx);
            });
        }
    }

    /// Starts every child, first to last. The watchdog goes on meanwhile: one that is up already may wedge the thread on which another one is to start.
    ///
    /// # Errors
    /// Why one of the spec's own did not start; then the others are stopped.
    async fn start_all(&mut self, warm: bool) -> Result<(), ExitReason> {
        let env = self.me.env().clone();
        let kids: Vec<_> = self.kids.iter().map(|charge| charge.kid.clone()).collect();
        let started = beside_the_watchdog(&env, &kids, async {
            for at in 0..kids.len() {
                self.start_first(at, warm).await?;
            }
            Ok(())
        });
        let started = started.await;
        if started.is_err() {
            self.stop_all().await;
        }
        started
    }

    /// Starts a child for the first time in this incarnation of the supervisor.
    async fn start_first(&mut self, at: usize, warm: bool) -> Result<(), ExitReason> {
        let kid = self.kids[at].kid.clone();
        loop {
            match start_kid(&self.me, &kid, warm).await {
                Ok(generation) => {
                    self.kids[at].is_up(generation, self.me.env().now());
                    return Ok(());
                }
                // Somebody else wedged its thread, for longer than a watchdog allows.
                Err(ExitReason::Displaced { .. }) => {}
                Err(reason) if kid.dynamic => {
                    // One bad mount must not take the others with it: it is tried again.
                    let generation = kid.child.status().generation;
                    self.kids[at].up = true;
                    self.work.push_back(Work::Exit(Exited { id: kid.spec.id.clone(), generation, reason }));
                    return Ok(());
                }
                Err(reason) => return Err(reason),
            }
        }
    }

    /// Stops every child, last to first. The watchdog goes on meanwhile: who shares a thread with a wedged one must not
    /// use up its own limit for that.
    fn stop_all(&mut self) -> impl Future<Output = ()> + 'static {
        self.work.clear();
        let env = self.me.env().clone();
        let kids: Vec<_> = self.kids.iter().rev().map(|charge| charge.kid.clone()).collect();
        async move {
            let stopping = async {
                for kid in &kids {
                    kid.child.stop(ExitReason::Shutdown, kid.spec.shutdown.limit()).await;
                }
            };
            beside_the_watchdog(&env, &kids, stopping).await;
        }
    }
}

impl Charge {
    fn new(kid: Arc<Kid>, now: Instant) -> Self {
        Charge { kid, up: false, generation: 0, since: now, failures: 0, retry: 0 }
    }

    fn is_up(&mut self, generation: u64, now: Instant) {
        self.kid.has_run.store(true, Ordering::Release);
        (self.up, self.generation, self.since) = (true, generation, now);
    }
}

/// How often to look after these children. None when none of them has a watchdog.
fn tick<'a>(kids: impl Iterator<Item = &'a Kid>) -> Option<Duration> {
    let shortest = kids.filter_map(|kid| kid.spec.watchdog).min()?;
    Some((shortest / WATCHDOG_LOOKS).clamp(WATCHDOG_TICK.0, WATCHDOG_TICK.1))
}

/// Does something with children, and looks after them from time to time until it is done.
async fn beside_the_watchdog<T>(env: &Env, kids: &[Arc<Kid>], doing: impl Future<Output = T>) -> T {
    let watching = pin!(async {
        while let Some(tick) = tick(kids.iter().map(|kid| &**kid)) {
            env.sleep(tick).await;
            kids.iter().for_each(|kid| look_after(kid));
        }
    });
    match select(pin!(doing), watching).await {
        Either::Left((done, _)) => done,
        // None has a watchdog.
        Either::Right(((), doing)) => doing.await,
    }
}

/// Writes a child off that one message has held for too long.
fn look_after(kid: &Kid) {
    let status = kid.child.status();
    // One that starts has a limit of its own for that.
    if let Some(limit) = kid.spec.watchdog
        && status.state != ActorState::Starting
        && let Some(busy) = status.running
        && busy.held > limit
    {
        let (message, held) = (busy.message, busy.held);
        // The port tells its supervisor, as of any exit.
        kid.child.write_off(busy.generation, ExitReason::Wedged { message, held });
    }
}

/// Stops last to first, then starts first to last until one fails.
async fn carry_out(me: Ref<Supervisor>, plan: Plan) -> Outcome {
    for kid in plan.stop.iter().rev() {
        kid.child.stop(ExitReason::Shutdown, kid.spec.shutdown.limit()).await;
    }
    plan.close.iter().for_each(|kid| kid.close());
    let mut outcome = Vec::new();
    for (kid, warm) in plan.start {
        let result = start_kid(&me, &kid, warm).await;
        let failed = result.is_err();
        outcome.push((kid.spec.id.clone(), result));
        if failed {
            break;
        }
    }
    outcome
}

/// Starts a child; one whose `init` takes too long is killed.
async fn start_kid(me: &Ref<Supervisor>, kid: &Kid, warm: bool) -> Result<u64, ExitReason> {
    let start = kid.child.start(kid.spec.place, warm, port(me, &kid.spec.id));
    match me.env().timeout(kid.spec.start_max, start).await {
        Ok(started) => started,
        Err(_) => {
            kid.child.stop(ExitReason::Killed, Some(Duration::ZERO)).await;
            Err(ExitReason::TimedOut { doing: "init" })
        }
    }
}

/// Tells the supervisor of a child's exits. There is at most one on its way for each child.
fn port(me: &Ref<Supervisor>, id: &Arc<str>) -> ExitPort {
    let (me, id) = (me.clone(), id.clone());
    Arc::new(move |exit| {
        // A supervisor that is closed for good has nobody to restart.
        let _ = me.signal(Exited { id: id.clone(), generation: exit.generation, reason: exit.reason });
    })
}
