//! One incarnation at work: engine-neutral, polled by whoever hosts it.
//!
//! In each poll: control first, then a bounded number of messages, then the futures of messages that are answered
//! later. Whatever a behaviour throws ends the incarnation, never the host.

mod strike;

use std::cell::Cell as StdCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use self::strike::Rest;
use crate::behaviour::{Behaviour, Cx, Finish, Job, Start};
use crate::cell::{Cell, Mail, Mode, Next, Pulse};
use crate::env::Sleep;
use crate::envelope::{Answer, Step};
use crate::exit::ExitReason;
use crate::panics::{self, Panicked};
use crate::reference::Ref;
use crate::swap::{SwapError, SwapReport, SwapRequest};

/// Messages, and ends of futures, in one poll; then the other actors of the thread have their turn.
const BUDGET: u32 = 32;

pub(crate) struct Turn<B: Behaviour> {
    me: Ref<B>,
    generation: u64,
    pulse: Arc<Pulse>,
    bound: usize,
    stage: Stage<B>,
    /// Invariant: there while serving and terminating.
    behaviour: Option<B>,
    /// The message that holds the mailbox. Invariant: while it is there, nothing else of the actor runs.
    exclusive: Option<Flight<B>>,
    jobs: FuturesUnordered<Flight<B>>,
    spawned: Vec<Job<B>>,
    exit: Option<ExitReason>,
    /// The message whose code runs; a panic leaves it set.
    handling: Rc<StdCell<Option<&'static str>>>,
    swapping: Option<Swapping<B>>,
}

enum Stage<B: Behaviour> {
    Fresh(Start<B>, B::Args),
    Init(LocalBoxFuture<'static, Result<B, ExitReason>>),
    Serving,
    Terminating {
        work: LocalBoxFuture<'static, ()>,
        limit: Option<Sleep>,
        why: ExitReason,
    },
    /// A simulated wedge: it does nothing until then, and goes on with this.
    Stuck(Sleep, Option<Rest<B>>),
    Ended,
}

/// A swap under way.
struct Swapping<B: Behaviour> {
    /// Taken when everything in progress is done.
    request: Option<Box<SwapRequest<B>>>,
    importing: Option<Importing<B>>,
    limit: Sleep,
    began: Instant,
}

struct Importing<B: Behaviour> {
    work: LocalBoxFuture<'static, Result<B, ExitReason>>,
    args: B::Args,
    ack: tokio::sync::oneshot::Sender<Result<SwapReport, SwapError>>,
}

/// The future of a message that is answered later, or one that the actor spawned.
struct Flight<B: Behaviour> {
    job: Job<B>,
    name: Option<&'static str>,
    /// Its place among the messages in flight.
    number: Option<usize>,
    /// It is to be struck: here its reply is held back.
    held: Option<Answer>,
    handling: Rc<StdCell<Option<&'static str>>>,
}

struct Landed<B: Behaviour> {
    finish: Finish<B>,
    name: Option<&'static str>,
    number: Option<usize>,
    held: Option<Answer>,
}

impl<B: Behaviour> Future for Flight<B> {
    type Output = Landed<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed<B>> {
        self.handling.set(self.name);
        let finish = std::task::ready!(self.job.as_mut().poll(cx));
        Poll::Ready(Landed { finish, name: self.name, number: self.number, held: self.held.take() })
    }
}

/// What a step of serving came to.
enum Flow {
    /// Look again.
    Again,
    /// Nothing more to do now.
    Rest,
}

/// Futures are boxed and the behaviour is moved only between polls: nothing in a turn is pinned in place.
impl<B: Behaviour> Unpin for Turn<B> {}

impl<B: Behaviour> Turn<B> {
    pub(crate) fn new(start: Start<B>, args: B::Args, pulse: Arc<Pulse>) -> Self {
        Turn {
            me: start.me.clone(),
            generation: start.generation,
            pulse,
            bound: start.me.cell().bound(),
            stage: Stage::Fresh(start, args),
            behaviour: None,
            exclusive: None,
            jobs: FuturesUnordered::new(),
            spawned: Vec::new(),
            exit: None,
            handling: Rc::new(StdCell::new(None)),
            swapping: None,
        }
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.me.env().is_simulated()
    }

    fn cell(&self) -> &Arc<Cell<B>> {
        self.me.cell()
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if matches!(self.stage, Stage::Serving) {
                if self.serve(cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            match std::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Serving | Stage::Ended => return Poll::Ready(()),
                Stage::Fresh(start, args) => match panics::guard(|| B::init(args, start)) {
                    Ok(init) => self.stage = Stage::Init(init),
                    Err(panicked) => self.finish(panicked.into_exit(None)),
                },
                Stage::Init(mut init) => {
                    match self.cell().next(self.generation, cx.waker(), Mode::Draining) {
                        Next::Superseded => self.vanish(init),
                        Next::Kill(why) | Next::Stop(why) => {
                            self.discard(init);
                            self.finish(why);
                        }
                        _ => match poll_guarded(init.as_mut(), cx) {
                            Ok(Poll::Pending) => {
                                self.stage = Stage::Init(init);
                                return Poll::Pending;
                            }
                            Ok(Poll::Ready(Ok(behaviour))) => {
                                self.behaviour = Some(behaviour);
                                self.stage = Stage::Serving;
                                self.cell().ready(self.generation);
                            }
                            Ok(Poll::Ready(Err(why))) => self.finish(why),
                            Err(panicked) => self.finish(panicked.into_exit(None)),
                        },
                    }
                }
                Stage::Terminating { mut work, mut limit, why } => {
                    match self.cell().next(self.generation, cx.waker(), Mode::Held) {
                        Next::Superseded => self.vanish(work),
                        Next::Kill(why) => {
                            self.discard(work);
                            self.finish(why);
                        }
                        _ => {
                            let late =
                                limit.as_mut().is_some_and(|limit| Pin::new(limit).poll(cx).is_ready());
                            match poll_guarded(work.as_mut(), cx) {
                                Ok(Poll::Pending) if !late => {
                                    self.stage = Stage::Terminating { work, limit, why };
                                    return Poll::Pending;
                                }
                                Ok(_) => self.finish(why),
                                Err(panicked) => self.finish(panicked.into_exit(None)),
                            }
                        }
                    }
                }
                Stage::Stuck(mut until, rest) => {
                    if self.cell().is_superseded(self.generation, cx.waker()) {
                        self.vanish(rest);
                    } else if Pin::new(&mut until).poll(cx).is_ready() {
                        self.stage = Stage::Serving;
                        if let Some(Err(why)) = rest.map(|rest| self.go_on(rest)) {
                            self.finish(why);
                        }
                    } else {
                        self.stage = Stage::Stuck(until, rest);
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Serves until there is nothing to do, the budget is used up, or the stage has changed (then it is ready).
    fn serve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut budget = BUDGET;
        loop {
            if let Some(why) = self.exit.take() {
                let limit = self.me.env().sleep(B::TERMINATE_MAX);
                self.terminate(why, Some(limit));
                return Poll::Ready(());
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.pulse.skip();
            let mode = self.mode();
            let mut idle = false;
            if mode == Mode::Open
                && let Some(mail) = self.cell().pop(self.generation, cx.waker(), &mut idle)
            {
                budget -= 1;
                if let Err(why) = self.run(mail) {
                    self.finish(why);
                    return Poll::Ready(());
                }
                if budget > 0 {
                    continue;
                }
                // The futures have their turn, then the other actors.
                idle = true;
            }
            let next = if idle { Next::Idle } else { self.cell().next(self.generation, cx.waker(), mode) };
            match next {
                Next::Idle => {}
                Next::Messages => continue,
                Next::Swap(request) => {
                    self.begin_swap(request);
                    continue;
                }
                Next::Superseded => {
                    self.vanish(());
                    return Poll::Ready(());
                }
                Next::Kill(why) => {
                    self.finish(why);
                    return Poll::Ready(());
                }
                Next::Stop(why) => {
                    self.terminate(why, None);
                    return Poll::Ready(());
                }
                Next::Inject(fault) => {
                    self.suffer(fault);
                    return Poll::Ready(());
                }
                Next::Strike(mail, moment) => {
                    if let Err(why) = self.strike(mail, moment) {
                        self.finish(why);
                    }
                    return Poll::Ready(());
                }
            }
            let flow = match self.poll_jobs(cx, &mut budget) {
                Ok(Flow::Rest) => Ok(self.poll_swap(cx)),
                other => other,
            };
            match flow {
                Ok(Flow::Again) if matches!(self.stage, Stage::Serving) => {}
                Ok(Flow::Again) => return Poll::Ready(()),
                Ok(Flow::Rest) if budget > 0 => return Poll::Pending,
                Ok(Flow::Rest) => {}
                Err(why) => {
                    self.finish(why);
                    return Poll::Ready(());
                }
            }
        }
    }

    fn mode(&self) -> Mode {
        if self.exclusive.is_some() {
            Mode::Held
        } else if self.swapping.is_some() {
            Mode::Draining
        } else if self.jobs.len() >= self.bound {
            Mode::Full
        } else {
            Mode::Open
        }
    }

    fn run(&mut self, mail: Mail<B>) -> Result<(), ExitReason> {
        let name = mail.name();
        self.me.env().note(self.me.name(), || name);
        let step = self.on_behaviour(Some(name), |behaviour, cx| mail.run(behaviour, cx))?;
        let (job, number) = match step {
            Step::Done => return Ok(()),
            Step::Exclusive(job) => (job, None),
            Step::Interleaved(job) => (job, self.cell().fly(self.generation)),
        };
        self.take_off(job, name, number, None);
        Ok(())
    }

    /// A message is answered later: beside others if it has a number, else before all others.
    fn take_off(&mut self, job: Job<B>, name: &'static str, number: Option<usize>, held: Option<Answer>) {
        let flight = Flight { job, name: Some(name), number, held, handling: self.handling.clone() };
        if number.is_some() {
            self.jobs.push(flight);
        } else {
            self.exclusive = Some(flight);
        }
    }

    /// Runs code of the behaviour; a panic becomes an exit reason.
    fn on_behaviour<T>(
        &mut self,
        handling: Option<&'static str>,
        work: impl FnOnce(&mut B, &mut Cx<'_, B>) -> T,
    ) -> Result<T, ExitReason> {
        let Turn { me, generation, behaviour, exit, spawned, .. } = self;
        let Some(behaviour) = behaviour else { return Err(ExitReason::Killed) };
        let mut cx = Cx { me, generation: *generation, exit, spawned };
        let out =
            panics::guard(|| work(behaviour, &mut cx)).map_err(|panicked| panicked.into_exit(handling))?;
        for job in self.spawned.drain(..) {
            let handling = self.handling.clone();
            self.jobs.push(Flight { job, name: None, number: None, held: None, handling });
        }
        Ok(out)
    }

    /// Polls what is answered later, and finishes what is done.
    fn poll_jobs(&mut self, cx: &mut Context<'_>, budget: &mut u32) -> Result<Flow, ExitReason> {
        let polled = if let Some(exclusive) = &mut self.exclusive {
            panics::guard(|| Pin::new(exclusive).poll(cx).map(Some))
        } else if self.jobs.is_empty() {
            return Ok(Flow::Rest);
        } else {
            panics::guard(|| self.jobs.poll_next_unpin(cx))
        };
        match polled {
            Err(panicked) => Err(panicked.into_exit(self.handling.take())),
            Ok(Poll::Pending | Poll::Ready(None)) => Ok(Flow::Rest),
            Ok(Poll::Ready(Some(landed))) => {
                *budget = budget.saturating_sub(1);
                self.exclusive = None;
                self.on_behaviour(landed.name, landed.finish)?;
                if let (Some(answer), Some(name)) = (landed.held, landed.name) {
                    self.landed_struck(name, landed.number, answer)?;
                } else if let Some(number) = landed.number {
                    self.cell().landed(self.generation, number);
                }
                Ok(Flow::Again)
            }
        }
    }

    fn begin_swap(&mut self, request: Box<SwapRequest<B>>) {
        if self.swapping.is_some() {
            let _ = request.ack.send(Err(SwapError::UnderWay));
            return;
        }
        let env = self.me.env();
        let (limit, began) = (env.sleep(request.limit), env.now());
        self.swapping = Some(Swapping { request: Some(request), importing: None, limit, began });
    }

    /// Takes a swap as far as it goes now. Every failure leaves the old value serving.
    fn poll_swap(&mut self, cx: &mut Context<'_>) -> Flow {
        let Some(mut swapping) = self.swapping.take() else { return Flow::Rest };
        let late = Pin::new(&mut swapping.limit).poll(cx).is_ready();
        if let Some(request) = swapping.request.take() {
            let in_flight = self.cell().flying() + usize::from(self.exclusive.is_some());
            if in_flight > 0 {
                if late {
                    let _ = request.ack.send(Err(SwapError::DrainTimeout { in_flight }));
                    return Flow::Again;
                }
                swapping.request = Some(request);
                self.swapping = Some(swapping);
                return Flow::Rest;
            }
            let SwapRequest { args, export, ack, .. } = *request;
            let exported = self.on_behaviour(None, |old, _| export(old)).and_then(|exported| exported);
            let start = Start { me: self.me.clone(), generation: self.generation + 1, warm: true };
            let work = match exported {
                Ok(import) => panics::guard(|| import(start)),
                Err(why) => {
                    let _ = ack.send(Err(SwapError::Export(why)));
                    return Flow::Again;
                }
            };
            match work {
                Ok(work) => swapping.importing = Some(Importing { work, args, ack }),
                Err(panicked) => {
                    let _ = ack.send(Err(SwapError::Import(panicked.into_exit(None))));
                    return Flow::Again;
                }
            }
        }
        let Some(mut importing) = swapping.importing.take() else { return Flow::Again };
        let failed = match poll_guarded(importing.work.as_mut(), cx) {
            Ok(Poll::Ready(Ok(new))) => {
                self.publish(new, importing, swapping.began);
                return Flow::Again;
            }
            Ok(Poll::Ready(Err(why))) => SwapError::Import(why),
            Err(panicked) => SwapError::Import(panicked.into_exit(None)),
            Ok(Poll::Pending) if late => SwapError::Import(ExitReason::TimedOut { doing: "import" }),
            Ok(Poll::Pending) if importing.ack.is_closed() => SwapError::Cancelled,
            Ok(Poll::Pending) => {
                swapping.importing = Some(importing);
                self.swapping = Some(swapping);
                return Flow::Rest;
            }
        };
        let Importing { work, ack, .. } = importing;
        self.discard(work);
        let _ = ack.send(Err(failed));
        Flow::Again
    }

    /// The point of no return of a swap.
    fn publish(&mut self, new: B, importing: Importing<B>, began: Instant) {
        let Importing { work, args, ack } = importing;
        self.discard(work);
        if ack.is_closed() {
            self.discard(new);
            return;
        }
        let from = self.generation;
        let Some(to) = self.cell().swapped(from) else {
            self.discard(new);
            return;
        };
        self.generation = to;
        let given = self.cell().given.lock().upgrade();
        if let Some(given) = given {
            let before = given.lock().replace(args);
            self.discard(before);
        }
        let old = self.behaviour.replace(new);
        if let Some(mut old) = old {
            // The old value cleans up beside the new one.
            if let Ok(work) = panics::guard(|| old.terminate(&ExitReason::Replaced)) {
                let name = self.me.name().clone();
                self.jobs.push(Flight {
                    job: Box::pin(async move {
                        let mut work = work;
                        let ended = std::future::poll_fn(|cx| match poll_guarded(work.as_mut(), cx) {
                            Ok(polled) => polled.map(Ok),
                            Err(panicked) => Poll::Ready(Err(panicked)),
                        });
                        if let Err(panicked) = ended.await {
                            tracing::warn!(actor = %name, %panicked, "the replaced value's end");
                        }
                        Box::new(|_: &mut B, _: &mut Cx<'_, B>| {}) as Finish<B>
                    }),
                    name: None,
                    number: None,
                    held: None,
                    handling: self.handling.clone(),
                });
            }
            self.discard(old);
        }
        let pause = self.me.env().now().saturating_duration_since(began);
        let _ = ack.send(Ok(SwapReport { from, to, pause }));
    }

    /// Ends in order: what is in progress is dropped, and the behaviour cleans up.
    fn terminate(&mut self, why: ExitReason, limit: Option<Sleep>) {
        self.cell().abandon(self.generation);
        self.swapping = None;
        self.drop_jobs();
        let begun = self.behaviour.as_mut().map(|behaviour| panics::guard(|| behaviour.terminate(&why)));
        match begun {
            Some(Ok(work)) => self.stage = Stage::Terminating { work, limit, why },
            Some(Err(panicked)) => self.finish(panicked.into_exit(None)),
            None => self.finish(why),
        }
    }

    /// The last word: everything is dropped on this thread, then the end is told.
    fn finish(&mut self, why: ExitReason) {
        self.cell().abandon(self.generation);
        self.clear();
        self.stage = Stage::Ended;
        self.cell().ended(self.generation, why);
    }

    /// Another incarnation has taken over: end without a word.
    fn vanish<T>(&mut self, rest: T) {
        self.discard(rest);
        self.clear();
        self.stage = Stage::Ended;
    }

    fn clear(&mut self) {
        self.swapping = None;
        self.drop_jobs();
        if let Some(behaviour) = self.behaviour.take() {
            self.discard(behaviour);
        }
    }

    fn drop_jobs(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        let rest = (self.exclusive.take(), std::mem::take(&mut self.spawned));
        self.discard(jobs);
        self.discard(rest);
    }

    /// Drops a value of the behaviour's; a panic in it is told and survived.
    fn discard<T>(&self, value: T) {
        if let Err(panicked) = panics::guarded_drop(value) {
            tracing::warn!(actor = %self.me.name(), %panicked, "a destructor panicked");
        }
    }
}

impl<B: Behaviour> Future for Turn<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.pulse.step();
        let polled = self.advance(cx);
        self.pulse.step();
        polled
    }
}

impl<B: Behaviour> Drop for Turn<B> {
    fn drop(&mut self) {
        // The thread is being stopped: this incarnation says its last word here.
        if !matches!(self.stage, Stage::Ended) || self.behaviour.is_some() {
            let stage = std::mem::replace(&mut self.stage, Stage::Ended);
            self.discard(stage);
            self.finish(ExitReason::Killed);
        }
    }
}

fn poll_guarded<F: Future + ?Sized>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Result<Poll<F::Output>, Panicked> {
    panics::guard(|| future.poll(cx))
}
