//! One call on its way through the hooks, from beginning to end.
//!
//! The call keeps the view that it began with, and a lease of each service whose hooks it may meet. So it meets the hooks of one version of
//! each service, before and after; a swap that is published meanwhile is for the calls that begin later, and the old version is not ended
//! before this call has left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_actors::{CallError, Lease, Panicked};
use nexus_messages::{
    Caller, Effect, ErrorKind, Event, HookContext, Lsn, Op, Outcome, VPath, Verdict, Weighed,
};
use parking_lot::Mutex;

use super::counts::Count;
use super::hook::{Interceptor, OpSet, Resolution};
use super::services::Covered;
use super::trial::try_on;
use super::view::{DispatchView, HookRefusal, Of, Place, Placed, PublishedHooks, Ready};
use crate::caught::catch;
use crate::registry::{Active, Enlisted};
use crate::service::{After, Before, Generation, OnLate, Run, Weigh};

/// How long a call that a version on probation failed waits for the one before to come back.
const SWAP_BACK_MAX: Duration = Duration::from_secs(1);

/// How often a call begins anew because the hooks changed under its first step.
const ATTEMPTS_MAX: usize = 64;

/// Which hooks a call may meet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    /// Interceptors of these operations.
    pub(crate) ops: OpSet,
    /// Resolvers.
    pub(crate) resolvers: bool,
    /// Observers.
    pub(crate) observers: bool,
}

impl Wants {
    /// Whether there is any.
    pub(crate) fn any(self) -> bool {
        !self.ops.is_empty() || self.resolvers || self.observers
    }
}

/// A call's way through the hooks.
pub(crate) struct Passage {
    view: Arc<DispatchView>,
    /// For each service of the view, the version whose hooks the call meets.
    pins: Vec<Pin>,
    /// The numbers of the versions that the call has left for a while, in the places of their leases.
    aside: Vec<Option<u64>>,
    weighed: Mutex<WeighedBy>,
}

/// A version of a service, as a call meets its hooks.
enum Pin {
    /// Not at all.
    Apart,
    /// In it until the call has ended, and for so long before its gate.
    Inside(Lease<Active>, Duration),
    /// Before its gate, which was shut for longer than its hooks may take. To the call they are late.
    ShutOut(Arc<Generation>),
}

/// A call as the interceptors are shown it. A transaction has one for each of its operations.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) context: HookContext,
    /// How many interceptors let it pass.
    passed: usize,
    /// Those of them that broke and fail open, by their numbers.
    without: Vec<usize>,
}

impl Shown {
    /// A call that no interceptor has seen yet.
    pub(crate) fn new(context: HookContext) -> Self {
        Self { context, passed: 0, without: Vec::new() }
    }

    /// Whether the interceptor of this number let it pass.
    fn was_passed_by(&self, number: usize) -> bool {
        number < self.passed && !self.without.contains(&number)
    }
}

/// What the interceptors let pass when they weighed the call.
#[derive(Default)]
struct WeighedBy {
    /// By the interceptors' numbers.
    effects: Vec<(usize, Arc<Effect>)>,
    lsn: Option<Lsn>,
}

/// One that weighs, and the call that it is shown.
struct Weighing<'a> {
    number: usize,
    hook: &'a Ready<dyn Interceptor>,
    version: &'a Generation,
    weigh: &'a Weigh,
    cx: &'a HookContext,
}

/// Why the hook of a service gave no verdict.
enum Broken {
    Panicked(Panicked),
    /// It has published nothing to decide by.
    Blank,
    Late(CallError, OnLate),
}

impl PublishedHooks {
    /// Begins a call's way. Waits while an exclusive swap of a service holds its gate shut, but not for longer than the hooks of that service may
    /// take: another call may be inside for as long as its driver hangs.
    ///
    /// # Errors
    /// A refusal, when the hooks change faster than a call can begin.
    pub(crate) async fn enter(&self, caller: &Caller, wants: Wants) -> Result<Passage, HookRefusal> {
        // When the first gate was shut.
        let mut waiting: Option<Instant> = None;
        'anew: for _ in 0..ATTEMPTS_MAX {
            let view = self.view();
            let mut pins = Vec::with_capacity(view.covered().len());
            for service in view.covered() {
                let wanted = service.wants(wants.ops, wants.resolvers, wants.observers);
                // A service's own calls pass its hooks by, and must not wait before its own gate.
                if !wanted || *service.owner == *caller.agent {
                    pins.push(Pin::Apart);
                    continue;
                }
                let (slot, env) = (&service.enlisted.slot, &service.enlisted.env);
                let (lease, waited) = match slot.try_lease() {
                    Some(lease) => (lease, Duration::ZERO),
                    None => {
                        let began = *waiting.get_or_insert_with(|| env.now());
                        let waited = || env.now().saturating_duration_since(began);
                        let behind = service.enlisted.serving();
                        let patience = behind.patience(wants).saturating_sub(waited());
                        match env.timeout(patience, slot.lease()).await {
                            Ok(lease) => (lease, waited()),
                            Err(_) if service.versions.contains(&behind.number) => {
                                pins.push(Pin::ShutOut(behind));
                                continue;
                            }
                            Err(_) => continue 'anew,
                        }
                    }
                };
                if !service.versions.contains(&lease.generation.number) {
                    // Published after the view that knows it: look again.
                    continue 'anew;
                }
                pins.push(Pin::Inside(lease, waited));
            }
            return Ok(Passage { view, pins, aside: Vec::new(), weighed: Mutex::default() });
        }
        let reason = "the hooks changed under the call again and again".to_owned();
        Err(HookRefusal::Refused { hook: "dispatch".into(), kind: ErrorKind::Busy, reason })
    }

    /// Tells the observers of `event`, which is of no call's passage.
    pub(crate) async fn tell(&self, event: &Event) {
        if self.summary().has_observers(event.kind) {
            let wants = Wants { ops: OpSet::NONE, resolvers: false, observers: true };
            match self.enter(&event.caller, wants).await {
                Ok(passage) => passage.observe(event),
                Err(why) => tracing::error!(%why, path = %event.path, "an event was told to nobody"),
            }
        }
    }
}

impl Passage {
    /// A way through the hooks of modules alone.
    #[cfg(test)]
    pub(super) fn of(view: DispatchView) -> Self {
        Self { view: Arc::new(view), pins: Vec::new(), aside: Vec::new(), weighed: Mutex::default() }
    }

    /// Passes the hooks of this service by.
    pub(crate) fn leave_out(&mut self, service: &str) {
        for (covered, pin) in self.view.covered().zip(&mut self.pins) {
            if *covered.enlisted.name == *service {
                *pin = Pin::Apart;
            }
        }
    }

    /// Leaves the versions that the call met, for one that replaces or removes a service: it would wait for itself to leave.
    pub(crate) fn step_aside(&mut self) {
        let number = |pin| match pin {
            Pin::Inside(lease, _) => Some(lease.generation.number),
            Pin::Apart | Pin::ShutOut(_) => None,
        };
        self.aside = std::mem::take(&mut self.pins).into_iter().map(number).collect();
    }

    /// Meets those again that still serve. One that was replaced meanwhile is told no more.
    pub(crate) fn step_back(&mut self) {
        let left = std::mem::take(&mut self.aside);
        let again = |(service, number): (&Covered, Option<u64>)| match service.enlisted.slot.try_lease() {
            Some(lease) if Some(lease.generation.number) == number => Pin::Inside(lease, Duration::ZERO),
            _ => Pin::Apart,
        };
        self.pins = self.view.covered().zip(left).map(again).collect();
    }

    /// Where `path` really is, when a resolver says that it is elsewhere. The resolver with the best pattern decides alone, also whether the caller may
    /// name it in a call of `op`.
    pub(crate) async fn resolve(
        &mut self,
        caller: &Caller,
        op: Op,
        path: &VPath,
    ) -> Result<Option<VPath>, HookRefusal> {
        loop {
            let view = self.view.clone();
            let decides = |number: usize| {
                let resolver = &view.resolvers[number];
                !resolver.is_own(caller)
                    && match &resolver.hook {
                        Of::Module(_) => true,
                        Of::Service(place) => self.run(place).is_some(),
                    }
            };
            let Some(best) = view.patterns.find(path, decides) else { return Ok(None) };
            let resolver = &view.resolvers[best];
            let began = resolver.begin();
            let resolved = match &resolver.hook {
                Of::Module(module) => {
                    let decided = catch(|| match module.permits(caller, op, path) {
                        Ok(()) => Ok(module.resolve(caller, path)),
                        Err(reason) => Err(reason),
                    });
                    match decided {
                        Ok(Ok(resolution)) => Ok(resolution),
                        Ok(Err(reason)) => {
                            resolver.ended(began);
                            resolver.count(Count::Refusal);
                            return Err(resolver.refused(ErrorKind::PermissionDenied, reason));
                        }
                        Err(panicked) => Err(Broken::Panicked(panicked)),
                    }
                }
                Of::Service(place) => match self.run(place) {
                    Some((version, Run::Resolve(run))) => {
                        ran_inline(version, "hook.resolve", || run(caller, path))
                    }
                    _ => Ok(Resolution::Unchanged),
                },
            };
            resolver.ended(began);
            return match resolved {
                Ok(Resolution::Unchanged) => Ok(None),
                Ok(Resolution::Rewrite(to)) => Ok((to != *path).then_some(to)),
                Ok(Resolution::Refuse(reason)) => {
                    resolver.count(Count::Refusal);
                    Err(resolver.refused(ErrorKind::Refused, reason))
                }
                Err(broken) => match &resolver.hook {
                    Of::Service(place) if self.comes_back(place).await => continue,
                    _ => broken.refuses(resolver),
                },
            };
        }
    }

    /// Runs the interceptors before the call, in their order, until one refuses. Each sees the call as the one before it left it.
    pub(crate) async fn before(&mut self, shown: &mut Shown) -> Result<(), HookRefusal> {
        let view = self.view.clone();
        let Shown { context: cx, passed, without } = shown;
        // Who calls, and of what, is not for a hook to say: those behind it decide by that.
        let (caller, op_id, stream) = (cx.caller.clone(), cx.op_id, cx.stream);
        for (number, placed) in view.interceptors.iter().enumerate() {
            *passed = number;
            if !placed.wants(cx) {
                continue;
            }
            let hook = &placed.interceptor;
            let began = hook.begin();
            let decided = match &hook.hook {
                Of::Module(module) => placed.before_of_module(module, cx).await,
                Of::Service(place) => self.before_of_service(hook, place, cx).await.map(Some),
            };
            hook.ended(began);
            if !Arc::ptr_eq(&cx.caller, &caller) {
                cx.caller = caller.clone();
            }
            (cx.op_id, cx.stream) = (op_id, stream);
            let Some(verdict) = decided? else {
                without.push(number);
                continue;
            };
            if let Verdict::Refuse { kind, reason } = verdict {
                hook.count(Count::Refusal);
                return Err(hook.refused(kind, reason));
            }
        }
        *passed = view.interceptors.len();
        Ok(())
    }

    /// Whether an interceptor of the calls weighs them.
    pub(crate) fn weighs(&self, shown: &[Shown]) -> bool {
        self.weighing(shown).next().is_some()
    }

    /// Who weighs the calls, each with the first of them that it wants: it is shown all that they do together with that one.
    fn weighing<'a>(&'a self, shown: &'a [Shown]) -> impl Iterator<Item = Weighing<'a>> {
        self.view.interceptors.iter().enumerate().filter_map(move |(number, placed)| {
            let Of::Service(place) = &placed.interceptor.hook else { return None };
            let (version, Run::Intercept { weigh: Some(weigh), .. }) = self.run(place)? else { return None };
            let cx = &shown.iter().find(|shown| placed.wants(&shown.context))?.context;
            Some(Weighing { number, hook: &placed.interceptor, version, weigh: &**weigh, cx })
        })
    }

    /// Lets the interceptors weigh what the calls are about to do together. May be called again, when that came to nothing.
    pub(crate) fn weigh(&self, shown: &[Shown], effect: Effect) -> Result<(), HookRefusal> {
        let effect = Arc::new(effect);
        for Weighing { number, hook, version, weigh, cx } in self.weighing(shown) {
            // Out of the list while it is weighed: what is refused, or broke, has nothing reserved.
            let before = {
                let mut weighed = self.weighed.lock();
                let place = weighed.effects.iter().position(|(other, _)| *other == number);
                place.map(|place| weighed.effects.swap_remove(place).1)
            };
            let decided = ran_inline(version, "hook.weigh", || weigh(cx, before.as_deref(), &effect));
            match decided {
                Ok(Verdict::Refuse { kind, reason }) => {
                    hook.count(Count::Refusal);
                    return Err(hook.refused(kind, reason));
                }
                Ok(_) => self.weighed.lock().effects.push((number, effect.clone())),
                Err(broken) => return broken.refuses(hook),
            }
        }
        Ok(())
    }

    /// Says where the call was committed.
    pub(crate) fn committed(&self, lsn: Lsn) {
        self.weighed.lock().lsn = Some(lsn);
    }

    async fn before_of_service<H: ?Sized>(
        &mut self,
        hook: &Ready<H>,
        place: &Place,
        cx: &mut HookContext,
    ) -> Result<Verdict, HookRefusal> {
        if let Some(Run::Intercept { before: Some(Before::Mailed { on_late, .. }), .. }) =
            self.shut_out(place)
        {
            return self.without(hook, place, Broken::Late(CallError::Timeout, *on_late));
        }
        loop {
            let Some((version, Run::Intercept { before: Some(before), .. })) = self.run(place) else {
                return Ok(Verdict::Continue);
            };
            let trial = self.view.service(place.service).enlisted.trial();
            let shown = (trial.is_some() || version.is_on_probation()).then(|| cx.clone());
            let decided = match before {
                Before::Inline(run) => ran_inline(version, "hook.before", || run(cx)),
                Before::Mailed { ask, deadline, on_late } => {
                    let enlisted = &self.view.service(place.service).enlisted;
                    let left = deadline.saturating_sub(self.waited(place));
                    let asked = match begun(enlisted, version, left).await {
                        Ok(left) => ask(cx, left).await,
                        Err(error) => Err(error),
                    };
                    match asked {
                        Ok(answer) => {
                            cx.call = answer.call;
                            Ok(answer.verdict)
                        }
                        Err(error) => Err(Broken::Late(error, *on_late)),
                    }
                }
            };
            match decided {
                Ok(verdict) => {
                    if let (Some(trial), Some(shown)) = (trial, shown) {
                        let key = &version.facts.hooks[place.within(version.number).unwrap_or_default()];
                        try_on(&trial, key, shown, (&verdict, cx));
                    }
                    return Ok(verdict);
                }
                Err(broken) => {
                    let went_down = broken.means_down();
                    if went_down && self.comes_back(place).await {
                        if let Some(shown) = shown {
                            *cx = shown;
                        }
                        continue;
                    }
                    return self.without(hook, place, broken);
                }
            }
        }
    }

    /// What becomes of the call without a verdict of the hook.
    fn without<H: ?Sized>(
        &self,
        hook: &Ready<H>,
        place: &Place,
        broken: Broken,
    ) -> Result<Verdict, HookRefusal> {
        match broken {
            Broken::Late(error, OnLate::Pass) => {
                self.count_missed(place);
                hook.count(Count::PassedBy);
                hook.count(broken.counts_as());
                tracing::warn!(hook = &*hook.name, %error, "a call went on without a hook");
                Ok(Verdict::Continue)
            }
            broken => broken.refuses(hook),
        }
    }

    /// Runs the interceptors after the calls, in the opposite order: those that let one pass, and those that only listen. None of them can change
    /// what came of it.
    pub(crate) async fn after(&self, shown: &[Shown], outcome: &Outcome) {
        for (call, number, placed) in self.listening(shown) {
            let (hook, cx) = (&placed.interceptor, &shown[call].context);
            match &hook.hook {
                Of::Module(module) if shown[call].was_passed_by(number) => {
                    placed.after_of_module(module, cx, outcome).await;
                }
                Of::Module(_) => {}
                Of::Service(place) => self.after_of_service(place, number, shown, call, outcome, true),
            }
        }
    }

    /// Tells the inline hooks that let a call pass that its caller has gone. They cannot wait, and need not.
    pub(crate) fn gone(&self, shown: &[Shown], outcome: &Outcome) {
        for (call, number, placed) in self.listening(shown) {
            if let Of::Service(place) = &placed.interceptor.hook {
                self.after_of_service(place, number, shown, call, outcome, false);
            }
        }
    }

    /// The interceptors that want the calls, with the places of both: the last call first, and of each the last interceptor.
    fn listening<'a>(&'a self, shown: &'a [Shown]) -> impl Iterator<Item = (usize, usize, &'a Placed)> {
        shown.iter().enumerate().rev().flat_map(move |(call, shown)| {
            let interceptors = self.view.interceptors.iter().enumerate().rev();
            interceptors
                .filter(|(_, placed)| placed.wants(&shown.context))
                .map(move |(number, placed)| (call, number, placed))
        })
    }

    fn after_of_service(
        &self,
        place: &Place,
        number: usize,
        all: &[Shown],
        call: usize,
        outcome: &Outcome,
        mail: bool,
    ) {
        let Shown { context: cx, passed, .. } = &all[call];
        let inside = self.run(place).map(|(version, run)| (Some(version), run));
        let met = inside.or_else(|| Some((None, self.shut_out(place)?)));
        let Some((version, Run::Intercept { before, after: Some(after), .. })) = met else { return };
        if before.is_some() && number >= *passed {
            return;
        }
        let Some(version) = version else {
            if mail {
                self.count_missed(place);
            }
            return;
        };
        // What was weighed was all together, and is settled once: with the call with which it was weighed.
        let wants = |shown: &Shown| self.view.interceptors[number].wants(&shown.context);
        let weighed = if all[..call].iter().any(wants) {
            None
        } else {
            let by = self.weighed.lock();
            let effect = by.effects.iter().find(|(other, _)| *other == number);
            effect.map(|(_, effect)| Weighed { effect: effect.clone(), lsn: by.lsn })
        };
        let with_weighed = weighed.map(|weighed| outcome.clone().with(weighed));
        let outcome = with_weighed.as_ref().unwrap_or(outcome);
        match after {
            After::Inline(run) => {
                if let Err(panicked) = catch(|| run(cx, outcome)) {
                    self.view.interceptors[number].interceptor.count(Count::Error);
                    version.report(&panicked, "hook.after");
                }
            }
            After::Mailed(run) if mail => {
                self.wake(place, version);
                if !run(cx, outcome) {
                    self.count_missed(place);
                }
            }
            After::Mailed(_) => {}
        }
    }

    /// Tells the observers of `event`.
    pub(crate) fn observe(&self, event: &Event) {
        for (mask, observer) in &self.view.observers {
            if !mask.contains(event.kind) || observer.is_own(&event.caller) {
                continue;
            }
            if let Some(line) = observer.running.as_ref().and_then(|running| running.line.as_ref()) {
                if !line.offer(event) {
                    observer.count(Count::Overflow);
                }
                continue;
            }
            let began = observer.begin();
            match &observer.hook {
                Of::Module(module) => observer.log(catch(|| module.observe(event))),
                Of::Service(place) if self.shut_out(place).is_some() => {
                    self.count_missed(place);
                    observer.count(Count::Overflow);
                }
                Of::Service(place) => {
                    let Some((version, Run::Observe(run))) = self.run(place) else { continue };
                    self.wake(place, version);
                    match catch(|| run(event)) {
                        Ok(true) => {}
                        Ok(false) => {
                            self.count_missed(place);
                            observer.count(Count::Overflow);
                        }
                        Err(panicked) => {
                            observer.count(Count::Error);
                            version.report(&panicked, "hook.observe");
                        }
                    }
                }
            }
            observer.ended(began);
        }
    }

    /// Has a version started that is about to be told something, when it waits for its first use.
    fn wake(&self, place: &Place, version: &Generation) {
        if !version.is_started() {
            self.view.service(place.service).enlisted.wake();
        }
    }

    /// The hook of a service in the version that this call meets; none when that version has no such hook.
    fn run(&self, place: &Place) -> Option<(&Generation, &Run)> {
        let Pin::Inside(lease, _) = self.pins.get(place.service)? else { return None };
        let version: &Generation = &lease.generation;
        Some((version, version.hook(place.within(version.number)?)?))
    }

    /// The hook of a service behind whose gate the call did not come in time.
    fn shut_out(&self, place: &Place) -> Option<&Run> {
        let Pin::ShutOut(version) = self.pins.get(place.service)? else { return None };
        version.hook(place.within(version.number)?)
    }

    /// How long the call was before the gate of the service: time that its hooks have no more.
    fn waited(&self, place: &Place) -> Duration {
        match self.pins.get(place.service) {
            Some(Pin::Inside(_, waited)) => *waited,
            _ => Duration::ZERO,
        }
    }

    fn count_missed(&self, place: &Place) {
        self.view.service(place.service).enlisted.count_missed(1);
    }

    /// Waits for the version before, when the one that this call meets is on probation and broke: then the call meets that one. Another call may
    /// have brought it back already.
    async fn comes_back(&mut self, place: &Place) -> bool {
        let service = self.view.service(place.service);
        let Some(Pin::Inside(lease, _)) = self.pins.get(place.service) else { return false };
        let (slot, broken) = (&service.enlisted.slot, &lease.generation);
        let back = async {
            loop {
                let seen = slot.generation();
                let now = slot.lease().await;
                let number = now.generation.number;
                if number != broken.number && service.versions.contains(&number) {
                    return Some(now);
                }
                // Also one that came since, of whose hooks the call does not know, may make room for the one before.
                if !now.generation.is_on_probation() {
                    return None;
                }
                drop(now);
                slot.replaced(seen).await;
            }
        };
        let Ok(Some(now)) = service.enlisted.env.timeout(SWAP_BACK_MAX, back).await else { return false };
        let waited = self.waited(place);
        self.pins[place.service] = Pin::Inside(now, waited);
        true
    }
}

/// Sees to it that the version runs: a service that is started at its first use is started by its hook, too. Says how much is left of `deadline`.
async fn begun(enlisted: &Enlisted, version: &Generation, deadline: Duration) -> Result<Duration, CallError> {
    if version.is_started() {
        return Ok(deadline);
    }
    let env = &enlisted.env;
    let began = env.now();
    match env.timeout(deadline, enlisted.start()).await {
        Ok(Ok(())) => Ok(deadline.saturating_sub(env.now().saturating_duration_since(began))),
        Ok(Err(why)) => {
            tracing::warn!(service = %enlisted.name, %why, "a service whose hook is to decide does not start");
            Err(CallError::Down)
        }
        Err(_) => Err(CallError::Timeout),
    }
}

/// Runs a function of a service on the caller's task. What it throws is its service's: the supervisor hears of it.
fn ran_inline<T>(
    version: &Generation,
    doing: &'static str,
    run: impl FnOnce() -> Option<T>,
) -> Result<T, Broken> {
    match catch(run) {
        Ok(Some(done)) => Ok(done),
        Ok(None) => Err(Broken::Blank),
        Err(panicked) => {
            version.report(&panicked, doing);
            Err(Broken::Panicked(panicked))
        }
    }
}

impl Broken {
    /// Whether the version broke, rather than being slow.
    fn means_down(&self) -> bool {
        match self {
            Self::Panicked(_) | Self::Blank => true,
            Self::Late(error, _) => matches!(error, CallError::Crashed { .. } | CallError::Down),
        }
    }

    fn counts_as(&self) -> Count {
        match self {
            Self::Late(CallError::Timeout | CallError::Busy, _) => Count::Timeout,
            _ => Count::Error,
        }
    }

    /// The refusal of the call.
    fn refuses<T, H: ?Sized>(self, hook: &Ready<H>) -> Result<T, HookRefusal> {
        hook.count(self.counts_as());
        Err(match self {
            Self::Panicked(panicked) => hook.panicked(&panicked),
            Self::Blank => {
                hook.refused(ErrorKind::Down, "its service has published nothing to decide by".into())
            }
            Self::Late(error, _) => {
                let kind = match error {
                    CallError::Timeout | CallError::Busy => ErrorKind::TimedOut,
                    _ => ErrorKind::Down,
                };
                hook.refused(kind, format!("its service gave no answer: {error}"))
            }
        })
    }
}
