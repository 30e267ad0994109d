//! One call on its way through the hooks, from beginning to end.
//!
//! The call keeps the view that it began with, and a lease of each service whose hooks it may meet. So it meets the hooks of one version of
//! each service, before and after; a swap that is published meanwhile is for the calls that begin later, and the old version is not ended
//! before this call has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nexus_actors::Lease;
use nexus_messages::{Caller, Effect, ErrorKind, Event, HookContext, Lsn, Op, Outcome, VPath, Verdict};
use parking_lot::Mutex;

use super::counts::Count;
use super::hook::{Interceptor, OpSet, Resolution};
use super::services::Covered;
use super::serving::{Broken, ran_inline};
use super::view::{DispatchView, HookRefusal, Of, Place, Placed, PublishedHooks, Ready};
use crate::caught::catch;
use crate::registry::Active;
use crate::service::{Generation, OnLate, Run, Weigh};

/// How long a call that a version on probation failed waits for the one before to come back.
const SWAP_BACK_MAX: Duration = Duration::from_secs(1);

/// How often a call begins anew because the hooks changed under its first step.
const ATTEMPTS_MAX: usize = 64;

/// So many hooks were told what came of a call that none is left.
pub(crate) const ALL_TOLD: usize = usize::MAX;

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
    pub(super) view: Arc<DispatchView>,
    /// For each service of the view, the version whose hooks the call meets.
    pins: Vec<Pin>,
    /// The numbers of the versions that the call has left for a while, in the places of their leases.
    aside: Vec<Option<u64>>,
    pub(super) weighed: Mutex<WeighedBy>,
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
    pub(super) fn was_passed_by(&self, number: usize) -> bool {
        number < self.passed && !self.without.contains(&number)
    }
}

/// What the interceptors let pass when they weighed the call.
#[derive(Default)]
pub(super) struct WeighedBy {
    /// By the interceptors' numbers.
    pub(super) effects: Vec<(usize, Arc<Effect>)>,
    pub(super) lsn: Option<Lsn>,
}

/// One that weighs, and the call that it is shown.
struct Weighing<'a> {
    number: usize,
    hook: &'a Ready<dyn Interceptor>,
    version: &'a Generation,
    weigh: &'a Weigh,
    fails: OnLate,
    cx: &'a HookContext,
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

    /// Meets those again that it has left and that still serve. One that was replaced meanwhile is told no more.
    pub(crate) fn step_back(&mut self) {
        let left = std::mem::take(&mut self.aside);
        if left.is_empty() {
            return;
        }
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
                Of::Service(place) => self.before_of_service(hook, place, cx).await,
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

    /// Who weighs the calls, each with the first of them that it wants and let pass: it is shown all that they do together with that one. Calls that
    /// went on without it are not its to weigh, since it does not hear what came of them.
    fn weighing<'a>(&'a self, shown: &'a [Shown]) -> impl Iterator<Item = Weighing<'a>> {
        self.view.interceptors.iter().enumerate().filter_map(move |(number, placed)| {
            let Of::Service(place) = &placed.interceptor.hook else { return None };
            let (version, Run::Intercept(run)) = self.run(place)? else { return None };
            let weighs = |shown: &&Shown| placed.wants(&shown.context) && shown.was_passed_by(number);
            let cx = &shown.iter().find(weighs)?.context;
            let (weigh, fails) = (run.weigh.as_deref()?, run.fails);
            Some(Weighing { number, hook: &placed.interceptor, version, weigh, fails, cx })
        })
    }

    /// Lets the interceptors weigh what the calls are about to do together. May be called again, when that came to nothing.
    pub(crate) fn weigh(&self, shown: &[Shown], effect: Effect) -> Result<(), HookRefusal> {
        let effect = Arc::new(effect);
        for Weighing { number, hook, version, weigh, fails, cx } in self.weighing(shown) {
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
                Err(broken) if fails == OnLate::Pass => {
                    hook.count(Count::PassedBy);
                    hook.count(broken.counts_as());
                    tracing::warn!(hook = &*hook.name, %broken, "a change was not weighed by a hook");
                }
                Err(broken) => return broken.refuses(hook),
            }
        }
        Ok(())
    }

    /// Says where the call was committed.
    pub(crate) fn committed(&self, lsn: Lsn) {
        self.weighed.lock().lsn = Some(lsn);
    }

    /// Runs the interceptors after the calls, in the opposite order: those that let one pass, and those that only listen. None of them can change
    /// what came of it.
    ///
    /// `told` says how many of them were told, one that began to hear of it among them: whoever goes away meanwhile has the [others told](Self::rest).
    pub(crate) async fn after(&self, shown: &[Shown], outcome: &Outcome, told: &AtomicUsize) {
        for (at, (call, number, placed)) in self.listening(shown).enumerate() {
            // Orders nothing: read again by whoever drops it.
            told.store(at + 1, Ordering::Relaxed);
            let (hook, cx) = (&placed.interceptor, &shown[call].context);
            match &hook.hook {
                Of::Module(module) if shown[call].was_passed_by(number) => {
                    placed.after_of_module(module, cx, outcome).await;
                }
                Of::Module(_) => {}
                Of::Service(place) => self.after_of_service(place, number, shown, call, outcome, true),
            }
        }
        told.store(ALL_TOLD, Ordering::Relaxed);
    }

    /// Tells the inline hooks that let a call pass that its caller has gone. They cannot wait, and need not.
    pub(crate) fn gone(&mut self, shown: &[Shown], outcome: &Outcome) {
        // It may have gone while it waited, and had left them for as long.
        self.step_back();
        for (call, number, placed) in self.listening(shown) {
            if let Of::Service(place) = &placed.interceptor.hook {
                self.after_of_service(place, number, shown, call, outcome, false);
            }
        }
    }

    /// Tells the hooks of services, and those of modules that are told aside, what came of the calls, but for the first of those who listen: so many were told before their
    /// caller has gone.
    pub(crate) fn rest(&self, shown: &[Shown], outcome: &Outcome, told: usize) {
        for (call, number, placed) in self.listening(shown).skip(told) {
            match &placed.interceptor.hook {
                Of::Service(place) => self.after_of_service(place, number, shown, call, outcome, true),
                Of::Module(module) if shown[call].was_passed_by(number) => {
                    placed.told_aside(module, &shown[call].context, outcome);
                }
                Of::Module(_) => {}
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
    pub(super) fn wake(&self, place: &Place, version: &Generation) {
        if !version.is_started() {
            self.view.service(place.service).enlisted.wake();
        }
    }

    /// The hook of a service in the version that this call meets; none when that version has no such hook.
    pub(super) fn run(&self, place: &Place) -> Option<(&Generation, &Run)> {
        let Pin::Inside(lease, _) = self.pins.get(place.service)? else { return None };
        let version: &Generation = &lease.generation;
        Some((version, version.hook(place.within(version.number)?)?))
    }

    /// Another lease of the version of a service that this call meets.
    pub(super) fn inside(&self, place: &Place) -> Option<Lease<Active>> {
        let Pin::Inside(lease, _) = self.pins.get(place.service)? else { return None };
        Some(lease.nested())
    }

    /// The hook of a service behind whose gate the call did not come in time.
    pub(super) fn shut_out(&self, place: &Place) -> Option<&Run> {
        let Pin::ShutOut(version) = self.pins.get(place.service)? else { return None };
        version.hook(place.within(version.number)?)
    }

    /// How long the call was before the gate of the service: time that its hooks have no more.
    pub(super) fn waited(&self, place: &Place) -> Duration {
        match self.pins.get(place.service) {
            Some(Pin::Inside(_, waited)) => *waited,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn count_missed(&self, place: &Place) {
        self.view.service(place.service).enlisted.count_missed(1);
    }

    /// Waits for the version before, when the one that this call meets is on probation and broke: then the call meets that one. Another call may
    /// have brought it back already.
    pub(super) async fn comes_back(&mut self, place: &Place) -> bool {
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
                // Also one that came since, of whose hooks the call does not know, may make room for the one before. It is on probation no more once it has: then it
                // serves no more.
                if !now.generation.is_on_probation() && slot.generation() == now.generation() {
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
