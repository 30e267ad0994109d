//! What stays of an actor while its incarnations come and go: the mailbox, the status, the control lane.
//!
//! Three parties meet here: callers (this file), the incarnation that serves (`serving.rs`), and the supervisor
//! (`control.rs`). One short lock keeps them apart; no code of a user runs under it.

mod control;
#[cfg(all(test, nexus_loom))]
mod loom_tests;
mod serving;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use nexus_messages::Message;
use tokio::sync::oneshot;

pub use self::control::{ChildExit, ExitPort};
pub(crate) use self::serving::{Mode, Next, WEDGE_MAX};
use crate::behaviour::{Behaviour, Handle};
use crate::call::CallError;
use crate::env::{Env, Seat, TimerKey};
use crate::envelope::{Envelope, Parcel};
use crate::exit::ExitReason;
use crate::fault::{Armed, Inject};
use crate::mailbox::{Full, Mailbox, MailboxBounds};
use crate::spans;
use crate::status::{ActorState, ActorStatus, Busy};
use crate::swap::SwapRequest;
use crate::sync::Lock;

/// Deadlines are looked at no more often than this, so that many of them cost few looks.
const SWEEP_GRAIN: Duration = Duration::from_millis(1);

pub(crate) type Mail<B> = Arc<dyn Envelope<B>>;

/// The arguments of an actor; none once nobody controls it any more.
pub(crate) type Given<B> = Lock<Option<<B as Behaviour>::Args>>;

pub(crate) struct Cell<B: Behaviour> {
    pub(crate) env: Env,
    pub(crate) name: Arc<str>,
    /// What whoever controls the actor gives to `init`, which a swap changes. The cell does not hold it: it may have a `Ref` of this very actor in it.
    pub(crate) given: Lock<Weak<Given<B>>>,
    state: Lock<State<B>>,
}

struct State<B: Behaviour> {
    mailbox: Mailbox<Mail<B>>,
    /// The newest incarnation's number.
    generation: u64,
    /// The one incarnation that may take messages. Invariant: `Some(generation)` or None.
    live: Option<Live<B>>,
    /// The live incarnation's number, else 0. Invariant: agrees with `live`; here it is quick to compare.
    serving: u64,
    /// Whether there is an order to look at. Invariant: true if `orders` has any.
    urgent: bool,
    closed: bool,
    /// Whether this and later incarnations serve no messages.
    suspended: bool,
    running: Running<B>,
    /// Begun messages that are answered later; a free place is None.
    in_flight: Vec<Option<InFlight<B>>>,
    flying: usize,
    orders: Orders<B>,
    /// The serving task, while it waits.
    waker: Option<Waker>,
    restarts: u64,
    served: u64,
    /// Messages that nobody waits for, in the mailbox when it was closed.
    lost: u64,
    /// Messages and other work begun; names what is running.
    begun: u64,
    seen: Option<Seen>,
    last_exit: Option<ExitReason>,
    /// The message that was begun when the end began.
    interrupted: Option<&'static str>,
    struck: u64,
    last_struck: Option<&'static str>,
    /// When deadlines are looked at next.
    sweep: Option<(Instant, TimerKey)>,
}

/// An incarnation, as the cell knows it.
struct Live<B: Behaviour> {
    generation: u64,
    ready: bool,
    since: Instant,
    pulse: Arc<Pulse>,
    seat: Arc<Seat>,
    tenancy: u64,
    exits: ExitPort,
    started: Option<oneshot::Sender<Result<u64, ExitReason>>>,
    _behaviour: std::marker::PhantomData<fn(B)>,
}

/// Orders for the incarnation. Each kind has one place, so the lane is bounded.
struct Orders<B: Behaviour> {
    kill: Option<ExitReason>,
    stop: Option<ExitReason>,
    /// Who waits for the end; they hear of it instead of the exit port.
    stopped: Vec<oneshot::Sender<ExitReason>>,
    /// Its end has begun.
    ending: bool,
    suspended: bool,
    swap: Option<Box<SwapRequest<B>>>,
    inject: Option<Inject>,
    armed: Option<Armed>,
}

impl<B: Behaviour> Orders<B> {
    fn none() -> Self {
        Orders {
            kill: None,
            stop: None,
            stopped: Vec::new(),
            ending: false,
            suspended: false,
            swap: None,
            inject: None,
            armed: None,
        }
    }

    fn any(&self) -> bool {
        self.kill.is_some()
            || self.stop.is_some()
            || self.suspended
            || self.swap.is_some()
            || self.inject.is_some()
            || self.armed.as_ref().is_some_and(|armed| !armed.carried)
    }
}

/// What holds the mailbox: a message, or an injected fault. Its parts are set one by one, which is quicker than moving
/// them as one.
struct Running<B: Behaviour> {
    mail: Option<Mail<B>>,
    deadline: Option<Instant>,
    label: Option<&'static str>,
}

struct InFlight<B: Behaviour> {
    deadline: Option<Instant>,
    mail: Mail<B>,
}

/// Counts the steps of an incarnation: odd while it holds its thread. No clock: whoever watches keeps the time.
#[derive(Default)]
pub(crate) struct Pulse(AtomicU64);

impl Pulse {
    /// The incarnation begins a poll, or ends it. Relaxed: a watchdog looks from time to time, and a late look is no
    /// harm; one thread writes, so no step is lost.
    pub(crate) fn step(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Another message in the same poll.
    pub(crate) fn skip(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 2, Ordering::Relaxed);
    }

    fn on_thread(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|steps| steps % 2 == 1)
    }
}

/// What an actor was doing when somebody looked, and since when it has been seen doing it.
struct Seen {
    what: Doing,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// The message with this number.
    Message(u64),
    /// This step of its thread.
    Step(u64),
}

impl<B: Behaviour> Cell<B> {
    pub(crate) fn new(env: &Env, name: Arc<str>, bounds: MailboxBounds) -> Arc<Self> {
        let state = State {
            mailbox: Mailbox::new(bounds),
            generation: 0,
            live: None,
            serving: 0,
            urgent: false,
            closed: false,
            suspended: false,
            running: Running { mail: None, deadline: None, label: None },
            in_flight: Vec::new(),
            flying: 0,
            orders: Orders::none(),
            waker: None,
            restarts: 0,
            served: 0,
            lost: 0,
            begun: 0,
            seen: None,
            last_exit: None,
            interrupted: None,
            struck: 0,
            last_struck: None,
            sweep: None,
        };
        Arc::new(Cell { env: env.clone(), name, given: Lock::new(Weak::new()), state: Lock::new(state) })
    }

    /// Queues a message. Its number is for `withdraw`.
    fn push(
        self: &Arc<Self>,
        mail: Mail<B>,
        deadline: Option<Instant>,
        patient: bool,
    ) -> Result<u64, CallError> {
        let mail = spans::traced(&self.name, mail, patient);
        let mut state = self.state.lock();
        if state.closed {
            return Err(CallError::Down);
        }
        let pushed = state.mailbox.push(mail, deadline, patient);
        if let Some(deadline) = deadline
            && state.sweep.is_none_or(|(at, _)| deadline < at)
        {
            self.sweep_at(&mut state, deadline);
        }
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        pushed.map_err(|Full(_)| CallError::Busy)
    }

    /// Takes back a message that was not begun.
    fn withdraw(&self, seq: u64) {
        let taken = self.state.lock().mailbox.withdraw(seq);
        drop(taken);
    }

    pub(crate) fn tell<M: Message>(self: &Arc<Self>, message: M) -> Result<(), CallError>
    where
        B: Handle<M>,
    {
        self.push(Parcel::<B, M>::new(message, None), None, false).map(|_| ())
    }

    pub(crate) fn signal<M: Message>(&self, message: M) -> Result<(), CallError>
    where
        B: Handle<M>,
    {
        let mail = spans::traced(&self.name, Parcel::<B, M>::new(message, None), false);
        let mut state = self.state.lock();
        if state.closed {
            return Err(CallError::Down);
        }
        state.mailbox.signal(mail);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    pub(crate) fn status(&self) -> ActorStatus {
        let now = self.env.now();
        let mut state = self.state.lock();
        let running = state.busy(now);
        let lifecycle = match &state.live {
            _ if state.closed => ActorState::Stopped,
            None => ActorState::Waiting,
            Some(live) if !live.ready => ActorState::Starting,
            Some(_) if state.orders.suspended => ActorState::Suspended,
            Some(_) => ActorState::Running,
        };
        ActorStatus {
            name: self.name.clone(),
            kind: B::NAME,
            state: lifecycle,
            generation: state.generation,
            restarts: state.restarts,
            queued: state.mailbox.queued(),
            bound: state.mailbox.bound(),
            callers_waiting: state.mailbox.callers_waiting(),
            in_flight: state.flying + usize::from(state.running.mail.is_some()),
            served: state.served,
            lost: state.lost,
            running,
            last_exit: state.last_exit.clone(),
            struck: state.struck,
            last_struck: state.last_struck,
            armed: state.orders.armed.as_ref().map(|armed| armed.strike),
            up_for: state.live.as_ref().map(|live| now.saturating_duration_since(live.since)),
        }
    }

    /// Messages queued at once, and messages in progress at once.
    pub(crate) fn bound(&self) -> usize {
        self.state.lock().mailbox.bound()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Looks at all deadlines: what has not begun is withdrawn, and whoever waits for what has is told.
    fn sweep(self: &Arc<Self>) {
        let now = self.env.now();
        let (expired, late) = {
            let mut state = self.state.lock();
            state.sweep = None;
            let (expired, mut earliest) = state.mailbox.expire(now);
            let mut late = Vec::new();
            let mut look = |deadline: &mut Option<Instant>, mail: &Mail<B>| match *deadline {
                Some(at) if at <= now => {
                    *deadline = None;
                    late.push(mail.clone());
                }
                Some(at) => earliest = Some(earliest.map_or(at, |e| e.min(at))),
                None => {}
            };
            let State { running, in_flight, .. } = &mut *state;
            if let Some(mail) = &running.mail {
                look(&mut running.deadline, mail);
            }
            for flying in in_flight.iter_mut().flatten() {
                look(&mut flying.deadline, &flying.mail);
            }
            if let Some(at) = earliest {
                self.sweep_at(&mut state, at.max(now + SWEEP_GRAIN));
            }
            (expired, late)
        };
        for mail in expired.into_iter().chain(late) {
            mail.fail(CallError::Busy, CallError::Timeout);
        }
    }

    fn sweep_at(self: &Arc<Self>, state: &mut State<B>, at: Instant) {
        if let Some((_, key)) = state.sweep.take() {
            self.env.cancel_wake(key);
        }
        let sweeper = Arc::new(Sweeper(Arc::downgrade(self)));
        state.sweep = self.env.wake_at(at, sweeper.into()).map(|key| (at, key));
    }
}

impl<B: Behaviour> State<B> {
    /// What it does, and for how long it has been seen doing it.
    fn busy(&mut self, now: Instant) -> Option<Busy> {
        let live = self.live.as_ref()?;
        let (generation, ready) = (live.generation, live.ready);
        let step = live.pulse.on_thread();
        let running = self.running.mail.as_ref().map(|mail| mail.name()).or(self.running.label);
        let (message, what) = match (running, step) {
            (Some(message), _) => (message, Doing::Message(self.begun)),
            (None, Some(step)) => (if ready { "a future" } else { "init" }, Doing::Step(step)),
            (None, None) => return None,
        };
        let since = match &self.seen {
            Some(seen) if seen.what == what => seen.since,
            _ => now,
        };
        self.seen = Some(Seen { what, since });
        let held = now.saturating_duration_since(since);
        Some(Busy { generation, message, held, on_thread: step.is_some() })
    }

    fn is_live(&self, generation: u64) -> bool {
        self.serving == generation
    }
}

/// Looks at a cell's deadlines when its timer fires.
struct Sweeper<B: Behaviour>(Weak<Cell<B>>);

impl<B: Behaviour> Wake for Sweeper<B> {
    fn wake(self: Arc<Self>) {
        if let Some(cell) = self.0.upgrade() {
            cell.sweep();
        }
    }
}

/// The number of a message that was never queued.
const NO_SEQ: u64 = 0;

/// A call under way. Dropping it withdraws the message if it was not begun.
pub(crate) struct Call<'a, B: Handle<M>, M: Message> {
    cell: &'a Arc<Cell<B>>,
    stage: Stage<B, M>,
}

enum Stage<B, M: Message> {
    Fresh(M, Duration),
    /// After an error too: the message may still be in there.
    Sent(Arc<Parcel<B, M>>, u64),
    Done,
}

impl<'a, B: Handle<M>, M: Message> Call<'a, B, M> {
    pub(crate) fn new(cell: &'a Arc<Cell<B>>, message: M, deadline: Duration) -> Self {
        Call { cell, stage: Stage::Fresh(message, deadline) }
    }

    /// After an error: the message, if it was not executed.
    pub(crate) fn message(&mut self) -> Option<M> {
        let Stage::Sent(parcel, _) = &self.stage else { return None };
        parcel.message()
    }
}

/// Nothing in it is pinned: the message is moved out before it is first sent.
impl<B: Handle<M>, M: Message> Unpin for Call<'_, B, M> {}

impl<B: Handle<M>, M: Message> Future for Call<'_, B, M> {
    type Output = Result<M::Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Sent(parcel, _) = &self.stage {
            let polled = parcel.poll(cx);
            if matches!(polled, Poll::Ready(Ok(_))) {
                self.stage = Stage::Done;
            }
            return polled;
        }
        let Stage::Fresh(message, deadline) = std::mem::replace(&mut self.stage, Stage::Done) else {
            panic!("a call was polled after its end");
        };
        let parcel = Parcel::new(message, Some(cx.waker().clone()));
        let deadline = self.cell.env.now().checked_add(deadline);
        match self.cell.push(parcel.clone(), deadline, true) {
            Ok(seq) => {
                self.stage = Stage::Sent(parcel, seq);
                Poll::Pending
            }
            Err(error) => {
                parcel.refuse(error);
                self.stage = Stage::Sent(parcel, NO_SEQ);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<B: Handle<M>, M: Message> Drop for Call<'_, B, M> {
    fn drop(&mut self) {
        if let Stage::Sent(parcel, seq) = &self.stage
            && parcel.withdraw()
        {
            self.cell.withdraw(*seq);
        }
    }
}
