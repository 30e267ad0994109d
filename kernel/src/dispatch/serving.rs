//! How interceptors of services are run: over the view of the version that the call meets, or by mail to it.

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{CallError, Panicked};
use nexus_messages::{ErrorKind, HookContext, Outcome, Verdict, Weighed};

use super::counts::Count;
use super::hook::Interceptor;
use super::passage::{Passage, Shown};
use super::trial::try_on;
use super::view::{HookRefusal, Place, Ready};
use crate::caught::catch;
use crate::registry::Enlisted;
use crate::service::{After, Before, Generation, Hear, Intercepting, Lose, OnLate, Run};

/// Why the hook of a service gave no verdict.
#[derive(thiserror::Error, Debug)]
pub(super) enum Broken {
    #[error(transparent)]
    Panicked(Panicked),
    /// It has published nothing to decide by.
    #[error("its service has published nothing to decide by")]
    Blank,
    #[error("its service gave no answer: {0}")]
    Late(CallError),
}

impl Passage {
    /// What the hook of a service decides before the call; none when it broke, and the call goes on as if it were not there.
    pub(super) async fn before_of_service<H: ?Sized>(
        &mut self,
        hook: &Ready<H>,
        place: &Place,
        cx: &mut HookContext,
    ) -> Result<Option<Verdict>, HookRefusal> {
        if let Some(Run::Intercept(Intercepting { before: Some(Before::Mailed { on_late, .. }), .. })) =
            self.shut_out(place)
        {
            return self.without(hook, place, Broken::Late(CallError::Timeout), *on_late).map(Some);
        }
        loop {
            let Some((version, Run::Intercept(Intercepting { before: Some(before), fails, .. }))) =
                self.run(place)
            else {
                return Ok(Some(Verdict::Continue));
            };
            let (fails, is_mailed) = (*fails, matches!(before, Before::Mailed { .. }));
            let undoes = fails == OnLate::Pass && !is_mailed;
            let trial = self.view.service(place.service).enlisted.trial();
            let shown = (undoes || trial.is_some() || version.is_on_probation()).then(|| cx.clone());
            let decided = match before {
                Before::Inline(run) => ran_inline(version, "hook.before", || run(cx)),
                Before::Mailed { ask, deadline, .. } => {
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
                        Err(error) => Err(Broken::Late(error)),
                    }
                }
            };
            match decided {
                Ok(verdict) => {
                    if let (Some(trial), Some(shown)) = (trial, shown) {
                        let key = &version.facts.hooks[place.within(version.number).unwrap_or_default()];
                        try_on(&trial, key, shown, (&verdict, cx));
                    }
                    return Ok(Some(verdict));
                }
                Err(broken) => {
                    let went_down = broken.means_down();
                    if went_down && self.comes_back(place).await {
                        if let Some(shown) = shown {
                            *cx = shown;
                        }
                        continue;
                    }
                    let verdict = self.without(hook, place, broken, fails)?;
                    if !undoes {
                        return Ok(Some(verdict));
                    }
                    if let Some(shown) = shown {
                        *cx = shown;
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// What becomes of the call without a verdict of the hook.
    pub(super) fn without<H: ?Sized>(
        &self,
        hook: &Ready<H>,
        place: &Place,
        broken: Broken,
        fails: OnLate,
    ) -> Result<Verdict, HookRefusal> {
        if fails == OnLate::Refuse {
            return broken.refuses(hook);
        }
        if matches!(broken, Broken::Late(_)) {
            self.count_missed(place);
        }
        hook.count(Count::PassedBy);
        hook.count(broken.counts_as());
        tracing::warn!(hook = &*hook.name, %broken, "a call went on without a hook");
        Ok(Verdict::Continue)
    }

    pub(super) fn after_of_service(
        &self,
        place: &Place,
        number: usize,
        all: &[Shown],
        call: usize,
        outcome: &Outcome,
        mail: bool,
    ) {
        let cx = &all[call].context;
        let inside = self.run(place).map(|(version, run)| (Some(version), run));
        let met = inside.or_else(|| Some((None, self.shut_out(place)?)));
        let Some((version, Run::Intercept(Intercepting { before, after: Some(after), aside, lost, .. }))) =
            met
        else {
            return;
        };
        if before.is_some() && !all[call].was_passed_by(number) {
            return;
        }
        let Some(version) = version else {
            if mail {
                self.count_missed(place);
            }
            return;
        };
        // What was weighed was all together, and is settled once: with the call with which it was weighed.
        let interceptor = &self.view.interceptors[number];
        let weighs = |shown: &Shown| interceptor.wants(&shown.context) && shown.was_passed_by(number);
        let weighed = if all[..call].iter().any(weighs) {
            None
        } else {
            let by = self.weighed.lock();
            let effect = by.effects.iter().find(|(other, _)| *other == number);
            effect.map(|(_, effect)| Weighed { effect: effect.clone(), lsn: by.lsn })
        };
        let with_weighed = weighed.map(|weighed| outcome.clone().with(weighed));
        let outcome = with_weighed.as_ref().unwrap_or(outcome);
        let hook = &interceptor.interceptor;
        match after {
            After::Inline(run) if *aside && mail => {
                self.hear_aside(place, hook, (run, lost.as_ref()), (cx, outcome));
            }
            After::Inline(run) => {
                let began = hook.begin();
                if let Err(panicked) = catch(|| run(cx, outcome)) {
                    hook.count(Count::Error);
                    version.report(&panicked, "hook.after");
                }
                hook.ended(began);
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

    /// Has an inline hook told what came of the call on a task of the kernel, in the version that the call met: it is not ended before.
    fn hear_aside(
        &self,
        place: &Place,
        hook: &Ready<dyn Interceptor>,
        (run, lost): (&Arc<Hear>, Option<&Arc<Lose>>),
        (cx, outcome): (&HookContext, &Outcome),
    ) {
        let (Some(lease), Some(running)) = (self.inside(place), &hook.running) else { return };
        let Some(mut room) = running.aside(outcome.committed.as_ref()) else { return };
        let (running, name) = (running.clone(), hook.name.clone());
        let (run, lost, cx, outcome) = (run.clone(), lost.cloned(), cx.clone(), outcome.clone());
        let env = running.env.clone();
        env.spawn("hook.after", async move {
            let began = running.begin();
            if let Err(panicked) = catch(|| run(&cx, &outcome)) {
                running.count(Count::Error);
                lease.generation.report(&panicked, "hook.after");
            }
            running.ended(began);
            while let Some(missed) = room.end() {
                let told = running.tell_missed(&name, &missed, || {
                    if let Some(lost) = &lost {
                        lost(&missed);
                    }
                });
                if let Err(panicked) = told {
                    lease.generation.report(&panicked, "hook.overflowed");
                }
            }
        });
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
pub(super) fn ran_inline<T>(
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
    pub(super) fn means_down(&self) -> bool {
        match self {
            Self::Panicked(_) | Self::Blank => true,
            Self::Late(error) => matches!(error, CallError::Crashed { .. } | CallError::Down),
        }
    }

    pub(super) fn counts_as(&self) -> Count {
        match self {
            Self::Late(CallError::Timeout | CallError::Busy) => Count::Timeout,
            _ => Count::Error,
        }
    }

    /// The refusal of the call.
    pub(super) fn refuses<T, H: ?Sized>(self, hook: &Ready<H>) -> Result<T, HookRefusal> {
        hook.count(self.counts_as());
        let kind = match &self {
            Self::Panicked(panicked) => return Err(hook.panicked(panicked)),
            Self::Late(CallError::Timeout | CallError::Busy) => ErrorKind::TimedOut,
            Self::Blank | Self::Late(_) => ErrorKind::Down,
        };
        Err(hook.refused(kind, self.to_string()))
    }
}
