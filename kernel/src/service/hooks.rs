//! The hooks of a service: functions over its view that run on the caller's task, or messages to it with a deadline.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus_actors::{CallError, Handle, Message, Ref};
use nexus_messages::syscall::Syscall;
use nexus_messages::{Caller, Effect, Event, EventMask, HookContext, Outcome, VPath, Verdict};

use super::{Published, Service};
use crate::dispatch::{MissedCalls, OpSet, Pattern, PatternError, Resolution};

/// A call that is about to be executed, mailed to a service that wants to see such calls.
#[derive(Debug, Clone)]
pub struct Intercept {
    /// Who calls, and what.
    pub context: HookContext,
}

/// The service's answer: its verdict, and the call as it is to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Intercepted {
    /// Whether the call goes on.
    pub verdict: Verdict,
    /// The call, changed or not.
    pub call: Syscall,
}

impl Message for Intercept {
    type Reply = Intercepted;
    const NAME: &'static str = "hook.intercept";
}

impl Intercept {
    /// Lets the call go on as it is.
    pub fn go_on(self) -> Intercepted {
        Intercepted { verdict: Verdict::Continue, call: self.context.call }
    }

    /// Refuses the call.
    pub fn refuse(self, reason: impl Into<String>) -> Intercepted {
        Intercepted { verdict: Verdict::refuse(reason), call: self.context.call }
    }
}

/// A call that was executed, mailed to a service that wants to hear of such calls.
#[derive(Debug, Clone)]
pub struct Completed {
    /// Who called, and what.
    pub context: HookContext,
    /// What came of it.
    pub outcome: Outcome,
}

impl Message for Completed {
    type Reply = ();
    const NAME: &'static str = "hook.completed";
}

/// A change that was committed, mailed to a service that observes.
#[derive(Debug, Clone)]
pub struct Observed(pub Event);

impl Message for Observed {
    type Reply = ();
    const NAME: &'static str = "hook.observed";
}

/// What becomes of a call whose hook is late or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLate {
    /// It goes on without the hook: the hook fails open.
    Pass,
    /// It is refused: the hook fails closed.
    Refuse,
}

/// One hook of a service.
pub struct ServiceHook<S: Service> {
    pub(super) name: &'static str,
    pub(super) shape: Result<Shape, PatternError>,
    pub(super) inline: bool,
    make: Arc<Make<S>>,
    fails: Option<OnLate>,
    pub(super) deadline: Option<Duration>,
    /// Whether it is mailed what it decides.
    asks: bool,
    aside: bool,
    overflowed: Option<Arc<Overflowed<S>>>,
}

type Overflowed<S> = dyn Fn(&<S as Service>::View, &MissedCalls) + Send + Sync;
type Make<S> = dyn Fn(&Ref<S>, &Arc<Published<<S as Service>::View>>) -> Run + Send + Sync;

/// Where a hook stands in the way of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookKey {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
}

impl HookKey {
    /// Whether a hook of another version stands in the same place: then it is the same hook, whichever version runs it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.shape == other.shape && (self.name == other.name || matches!(self.shape, Shape::Resolver { .. }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    Resolver { pattern: Pattern },
    Interceptor { ops: OpSet, order: i32, below: Option<VPath> },
    Observer { mask: EventMask },
}

/// A hook of one running version, ready to run.
pub(crate) enum Run {
    Resolve(Box<Resolve>),
    Intercept(Intercepting),
    Observe(Box<Observe>),
}

/// An interceptor, ready to run.
pub(crate) struct Intercepting {
    pub(crate) before: Option<Before>,
    pub(crate) weigh: Option<Box<Weigh>>,
    pub(crate) after: Option<After>,
    /// What becomes of a call before which it breaks.
    pub(crate) fails: OnLate,
    /// Whether nobody waits for what it does inline after the call.
    pub(crate) aside: bool,
    /// Is told what found no room aside.
    pub(crate) lost: Option<Arc<Lose>>,
}

impl Intercepting {
    fn new(before: Option<Before>, after: Option<After>) -> Self {
        let fails = match before {
            Some(Before::Mailed { on_late, .. }) => on_late,
            _ => OnLate::Refuse,
        };
        Self { before, weigh: None, after, fails, aside: false, lost: None }
    }
}

pub(crate) enum Before {
    Inline(Box<Decide>),
    Mailed { ask: Box<Ask>, deadline: Duration, on_late: OnLate },
}

pub(crate) enum After {
    Inline(Arc<Hear>),
    Mailed(Box<Tell>),
}

/// None when nothing is published to decide by.
type Resolve = dyn Fn(&Caller, &VPath) -> Option<Resolution> + Send + Sync;
/// As [`Resolve`].
type Decide = dyn Fn(&mut HookContext) -> Option<Verdict> + Send + Sync;
/// Asks, and waits so long for the answer.
type Ask = dyn Fn(&HookContext, Duration) -> BoxFuture<'static, Result<Intercepted, CallError>> + Send + Sync;
/// As [`Resolve`].
pub(crate) type Weigh = dyn Fn(&HookContext, Option<&Effect>, &Effect) -> Option<Verdict> + Send + Sync;
pub(crate) type Hear = dyn Fn(&HookContext, &Outcome) + Send + Sync;
pub(crate) type Lose = dyn Fn(&MissedCalls) + Send + Sync;
/// True when it was told.
type Tell = dyn Fn(&HookContext, &Outcome) -> bool + Send + Sync;
/// As [`Tell`].
type Observe = dyn Fn(&Event) -> bool + Send + Sync;

impl<S: Service> ServiceHook<S> {
    fn new(
        name: &'static str,
        shape: Result<Shape, PatternError>,
        inline: bool,
        make: impl Fn(&Ref<S>, &Arc<Published<S::View>>) -> Run + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(make);
        Self {
            name,
            shape,
            inline,
            make,
            fails: None,
            deadline: None,
            asks: false,
            aside: false,
            overflowed: None,
        }
    }

    /// A hook that is mailed what it decides.
    fn mailed(
        name: &'static str,
        ops: OpSet,
        make: impl Fn(&Ref<S>, &Arc<Published<S::View>>) -> Run + Send + Sync + 'static,
    ) -> Self {
        Self { asks: true, ..Self::new(name, Ok(interceptor(ops)), false, make) }
    }

    /// Ready to run in one version.
    pub(super) fn run(&self, actor: &Ref<S>, view: &Arc<Published<S::View>>) -> Run {
        let mut run = (self.make)(actor, view);
        if let Run::Intercept(hook) = &mut run {
            hook.fails = self.fails.unwrap_or(hook.fails);
            hook.aside = self.aside;
            hook.lost = self.overflowed.clone().map(|overflowed| {
                let view = view.clone();
                let lost = move |missed: &MissedCalls| {
                    if let Some(view) = view.get() {
                        overflowed(&view, missed);
                    }
                };
                Arc::new(lost) as Arc<Lose>
            });
            if let Some(Before::Mailed { deadline, on_late, .. }) = &mut hook.before {
                *on_late = hook.fails;
                *deadline = self.deadline.unwrap_or(*deadline);
            }
        }
        run
    }

    /// Says where a path really is: a function over the view, for paths that match `pattern` (see
    /// [`Registration::resolver`](crate::dispatch::Registration::resolver)). Must neither block nor wait; a panic refuses the call.
    pub fn resolver(
        name: &'static str,
        pattern: &str,
        resolve: impl Fn(&S::View, &Caller, &VPath) -> Resolution + Send + Sync + 'static,
    ) -> Self {
        let shape = Pattern::parse(pattern).map(|pattern| Shape::Resolver { pattern });
        let resolve = Arc::new(resolve);
        Self::new(name, shape, true, move |_, view| {
            let (resolve, view) = (resolve.clone(), view.clone());
            Run::Resolve(Box::new(move |caller, path| Some(resolve(&*view.get()?, caller, path))))
        })
    }

    /// Sees calls of `ops` before they are executed, and may change or refuse them: a function over the view. Must neither block nor wait; a
    /// panic refuses the call, unless [`fails`](Self::fails) says otherwise, and is told to the service's supervisor as the service's own.
    pub fn before(
        name: &'static str,
        ops: OpSet,
        decide: impl Fn(&S::View, &mut HookContext) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let decide = Arc::new(decide);
        Self::new(name, Ok(interceptor(ops)), true, move |_, view| {
            let (decide, view) = (decide.clone(), view.clone());
            let inline = Before::Inline(Box::new(move |context| Some(decide(&*view.get()?, context))));
            Run::Intercept(Intercepting::new(Some(inline), None))
        })
    }

    /// Sees calls of `ops` before they are executed, and is told what came of those that were: two functions over the view. The second runs
    /// after every lock is gone, changes nothing, and hears only of calls that passed the first.
    pub fn around(
        name: &'static str,
        ops: OpSet,
        decide: impl Fn(&S::View, &mut HookContext) -> Verdict + Send + Sync + 'static,
        hear: impl Fn(&S::View, &HookContext, &Outcome) + Send + Sync + 'static,
    ) -> Self {
        let (decide, hear) = (Arc::new(decide), Arc::new(hear));
        Self::new(name, Ok(interceptor(ops)), true, move |_, view| {
            let (decide, decided_on) = (decide.clone(), view.clone());
            let (hear, heard_by) = (hear.clone(), view.clone());
            let before = Before::Inline(Box::new(move |context| Some(decide(&*decided_on.get()?, context))));
            let after = After::Inline(Arc::new(move |context, outcome| {
                if let Some(view) = heard_by.get() {
                    hear(&view, context, outcome);
                }
            }));
            Run::Intercept(Intercepting::new(Some(before), Some(after)))
        })
    }

    /// As [`around`](Self::around), and asked once more when it is known exactly what the call does: under the locks of its paths, before anything is
    /// done. `weigh` is given what it does, and what this same call was to do when it was weighed before and then came to nothing, since the rows had
    /// changed under it. `hear` finds in the outcome what `weigh` let pass, and where it was committed. Only changes on content-addressed mounts are
    /// weighed, and not those that go on without the hook, since it broke.
    pub fn weighing(
        name: &'static str,
        ops: OpSet,
        decide: impl Fn(&S::View, &mut HookContext) -> Verdict + Send + Sync + 'static,
        weigh: impl Fn(&S::View, &HookContext, Option<&Effect>, &Effect) -> Verdict + Send + Sync + 'static,
        hear: impl Fn(&S::View, &HookContext, &Outcome) + Send + Sync + 'static,
    ) -> Self {
        let around = Self::around(name, ops, decide, hear);
        let (make, weigh) = (around.make.clone(), Arc::new(weigh));
        Self::new(name, Ok(interceptor(ops)), true, move |actor, view| {
            let (weigh, weighed_by) = (weigh.clone(), view.clone());
            let weigh: Box<Weigh> = Box::new(move |context, before, effect| {
                Some(weigh(&*weighed_by.get()?, context, before, effect))
            });
            match make(actor, view) {
                Run::Intercept(around) => Run::Intercept(Intercepting { weigh: Some(weigh), ..around }),
                other => other,
            }
        })
    }

    /// As [`before`](Self::before), decided by the service itself: it is mailed an [`Intercept`] and has `deadline` to answer. `on_late` says
    /// what becomes of the call when it does not, or is down. The time that a call waits before the shut gate of an exclusive swap counts.
    pub fn mailed_before(name: &'static str, ops: OpSet, deadline: Duration, on_late: OnLate) -> Self
    where
        S: Handle<Intercept>,
    {
        Self::mailed(name, ops, move |actor, _| {
            let before = Before::Mailed { ask: ask(actor.clone()), deadline, on_late };
            Run::Intercept(Intercepting::new(Some(before), None))
        })
    }

    /// As [`mailed_before`](Self::mailed_before); afterwards the service is mailed a [`Completed`], best effort: one that finds the mailbox full
    /// is counted, not waited for. So is one whose call could not wait for the end of an exclusive swap.
    pub fn mailed_around(name: &'static str, ops: OpSet, deadline: Duration, on_late: OnLate) -> Self
    where
        S: Handle<Intercept> + Handle<Completed>,
    {
        Self::mailed(name, ops, move |actor, _| {
            let before = Before::Mailed { ask: ask(actor.clone()), deadline, on_late };
            Run::Intercept(Intercepting::new(Some(before), Some(hear(actor.clone()))))
        })
    }

    /// The service is mailed a [`Completed`] of each call of `ops` that was executed or failed on the way, best effort.
    pub fn mailed_after(name: &'static str, ops: OpSet) -> Self
    where
        S: Handle<Completed>,
    {
        Self::new(name, Ok(interceptor(ops)), false, move |actor, _| {
            Run::Intercept(Intercepting::new(None, Some(hear(actor.clone()))))
        })
    }

    /// Is told of committed changes: a function over the view. Must neither block nor wait.
    pub fn observer(
        name: &'static str,
        mask: impl Into<EventMask>,
        observe: impl Fn(&S::View, &Event) + Send + Sync + 'static,
    ) -> Self {
        let observe = Arc::new(observe);
        Self::new(name, Ok(Shape::Observer { mask: mask.into() }), true, move |_, view| {
            let (observe, view) = (observe.clone(), view.clone());
            Run::Observe(Box::new(move |event| view.get().map(|view| observe(&view, event)).is_some()))
        })
    }

    /// The service is mailed an [`Observed`] of each committed change, best effort: one that finds the mailbox full is counted, not waited for.
    /// Who must not miss any reads the commits from its own cursor instead: see [`Syscalls::commits`](super::Syscalls::commits).
    pub fn mailed_observer(name: &'static str, mask: impl Into<EventMask>) -> Self
    where
        S: Handle<Observed>,
    {
        Self::new(name, Ok(Shape::Observer { mask: mask.into() }), false, move |actor, _| {
            let actor = actor.clone();
            Run::Observe(Box::new(move |event| actor.tell(Observed(event.clone())).is_ok()))
        })
    }

    /// An interceptor's place among the others: smaller ones run earlier before a call, and later after it.
    #[must_use]
    pub fn order(mut self, place: i32) -> Self {
        if let Ok(Shape::Interceptor { order, .. }) = &mut self.shape {
            *order = place;
        }
        self
    }

    /// What becomes of a call before which an interceptor breaks: it panics, has nothing published to decide by, or is mailed and does not answer in time. Refused, unless
    /// something else is said here or where it is mailed. When the call goes on, what an inline one changed of it is undone, and that one is not told what came of it; a
    /// mailed one is, since it may have decided all the same. Other hooks are not asked whether a call goes on, but resolvers, which fail closed.
    #[must_use]
    pub fn fails(mut self, how: OnLate) -> Self {
        self.fails = Some(how);
        self
    }

    /// How long an interceptor that is mailed what it decides may take to answer. An inline one runs on its caller's task, where nothing can end it: with a deadline it is refused when its service is
    /// registered, as every other hook is.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Has an inline interceptor told what came of a call on a task of the kernel: the caller does not wait for it, and the order of what it is told is nobody's promise. At
    /// most [`ASIDE_MAX`](crate::dispatch::ASIDE_MAX) such runs are under way for one hook; it is not told of a call that finds no room, which is counted as overflow, and told by
    /// [`overflowed`](Self::overflowed). For a mailed one nobody waits anyway.
    #[must_use]
    pub fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    /// Has an interceptor that hears [aside](Self::aside) told that calls found no room, and from where on they can be read: a function over the view. Told aside, when the next of the
    /// runs is over that are under way, whether another call comes or not. Must neither block nor wait; a panic is the service's. One that hears nothing aside is refused
    /// with it when its service is registered.
    #[must_use]
    pub fn overflowed(mut self, told: impl Fn(&S::View, &MissedCalls) + Send + Sync + 'static) -> Self {
        self.overflowed = Some(Arc::new(told));
        self
    }

    /// Why it cannot be as it was declared.
    pub(super) fn check(&self) -> Result<Shape, String> {
        let shape = self.shape.clone().map_err(|why| format!("the hook {:?}: {why}", self.name))?;
        if self.deadline.is_some() && !self.asks {
            return Err(format!(
                "the hook {:?} has a deadline, and is not mailed what it decides",
                self.name
            ));
        }
        let misses = self.aside && self.inline && matches!(shape, Shape::Interceptor { .. });
        if self.overflowed.is_some() && !misses {
            return Err(format!(
                "the hook {:?} is to be told what it missed, and is told nothing aside",
                self.name
            ));
        }
        Ok(shape)
    }

    /// Limits an interceptor to calls with a path at `base` or below it.
    #[must_use]
    pub fn below(mut self, base: VPath) -> Self {
        if let Ok(Shape::Interceptor { below, .. }) = &mut self.shape {
            *below = Some(base);
        }
        self
    }
}

fn interceptor(ops: OpSet) -> Shape {
    Shape::Interceptor { ops, order: 0, below: None }
}

fn ask<S: Handle<Intercept>>(actor: Ref<S>) -> Box<Ask> {
    Box::new(move |context, deadline| {
        let (actor, message) = (actor.clone(), Intercept { context: context.clone() });
        Box::pin(async move { actor.call(message, deadline).await })
    })
}

fn hear<S: Handle<Completed>>(actor: Ref<S>) -> After {
    After::Mailed(Box::new(move |context, outcome| {
        actor.tell(Completed { context: context.clone(), outcome: outcome.clone() }).is_ok()
    }))
}

impl<S: Service> fmt::Debug for ServiceHook<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceHook<{}>({}, {:?})", type_name::<S>(), self.name, self.shape)
    }
}
