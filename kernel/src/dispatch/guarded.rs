//! How interceptors of trusted modules are run: within their deadline, their panics caught, and what breaks is what their registration says.

use std::future::Future;
use std::sync::Arc;

use nexus_messages::{ErrorKind, HookContext, Outcome, Verdict};

use super::counts::{Count, Manner, Running};
use super::hook::Interceptor;
use super::view::{HookRefusal, Placed};
use crate::caught::catch_async;
use crate::service::OnLate;

/// The hook is late.
struct Late;

impl Placed {
    /// What `module` decides before the call; none when it broke, and fails open: then the call is as it was before.
    pub(super) async fn before_of_module(
        &self,
        module: &Arc<dyn Interceptor>,
        cx: &mut HookContext,
    ) -> Result<Option<Verdict>, HookRefusal> {
        let hook = &self.interceptor;
        let running = hook.running.as_deref();
        let opens = self.manner.is_some_and(|manner| manner.on_late == OnLate::Pass);
        let shown = opens.then(|| cx.clone());
        let ran = within(running, self.manner, catch_async(|| module.before(cx))).await;
        let broken = match ran {
            Ok(Ok(verdict)) => return Ok(Some(verdict)),
            Ok(Err(panicked)) => {
                hook.count(Count::Error);
                hook.panicked(&panicked)
            }
            Err(Late) => {
                hook.count(Count::Timeout);
                hook.refused(ErrorKind::TimedOut, "it did not decide within its deadline".into())
            }
        };
        let Some(shown) = shown else { return Err(broken) };
        hook.count(Count::PassedBy);
        tracing::warn!(hook = &*hook.name, %broken, "a call went on without a hook");
        *cx = shown;
        Ok(None)
    }

    /// Tells `module` what came of the call, or has it told aside.
    pub(super) async fn after_of_module(
        &self,
        module: &Arc<dyn Interceptor>,
        cx: &HookContext,
        outcome: &Outcome,
    ) {
        if !self.told_aside(module, cx, outcome) {
            let (hook, manner) = (&self.interceptor, self.manner);
            hear(&hook.name, hook.running.as_deref(), manner, module, cx, outcome).await;
        }
    }

    /// Has `module` told what came of the call if that is to be aside; whether it is. Does not wait.
    pub(super) fn told_aside(
        &self,
        module: &Arc<dyn Interceptor>,
        cx: &HookContext,
        outcome: &Outcome,
    ) -> bool {
        let hook = &self.interceptor;
        let (Some(Manner { aside: true, .. }), Some(running)) = (self.manner, &hook.running) else {
            return false;
        };
        // It hears later of what it has no room for.
        let Some(mut place) = running.aside(outcome.committed.as_ref()) else { return true };
        let (name, module, manner) = (hook.name.clone(), module.clone(), self.manner);
        let (running, cx, outcome) = (running.clone(), cx.clone(), outcome.clone());
        let env = running.env.clone();
        env.spawn("hook.after", async move {
            hear(&name, Some(&running), manner, &module, &cx, &outcome).await;
            while let Some(missed) = place.end() {
                if let Err(panicked) = running.tell_missed(&name, &missed, || module.overflowed(&missed)) {
                    tracing::error!(hook = &*name, %panicked, "a hook panicked after the call");
                }
            }
        });
        true
    }
}

async fn hear(
    name: &str,
    running: Option<&Running>,
    manner: Option<Manner>,
    module: &Arc<dyn Interceptor>,
    cx: &HookContext,
    outcome: &Outcome,
) {
    let began = running.map(Running::begin);
    let heard = within(running, manner, catch_async(|| module.after(cx, outcome))).await;
    let broke = match heard {
        Ok(Ok(())) => None,
        Ok(Err(panicked)) => {
            tracing::error!(hook = name, %panicked, "a hook panicked after the call");
            Some(Count::Error)
        }
        Err(Late) => {
            tracing::warn!(hook = name, "a hook missed its deadline after the call");
            Some(Count::Timeout)
        }
    };
    if let (Some(running), Some(began)) = (running, began) {
        running.ended(began);
        if let Some(broke) = broke {
            running.count(broke);
        }
    }
}

/// Drives `run` for as long as the hook may take, and then drops it. A table that nobody runs has no clock.
async fn within<T>(
    running: Option<&Running>,
    manner: Option<Manner>,
    run: impl Future<Output = T>,
) -> Result<T, Late> {
    match (running, manner) {
        (Some(running), Some(manner)) => running.env.timeout(manner.deadline, run).await.map_err(|_| Late),
        _ => Ok(run.await),
    }
}
