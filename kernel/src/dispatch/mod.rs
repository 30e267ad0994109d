//! Decides which hooks a call passes.
//!
//! Owns:       the hook table, `table.rs`; publishes it ready to run, `view.rs`.
//! Asks:       nobody. Hooks run on the callers' tasks, and observers each in a child of its own, `observing.rs`, never here; a task sees
//!             to it that there is one for each.
//! On restart: takes the registrations that were published last, warm or cold: no store knows of them, and to drop them would let
//!             calls pass unseen. What is made of them (trie, order) is made anew.
//! Bounds:     `HOOKS_MAX` hooks, `PATTERN_DEPTH_MAX` components in a pattern, `MAILBOX_MAX` messages.

mod counts;
mod guarded;
mod hook;
mod messages;
mod observing;
mod passage;
mod pattern;
mod services;
mod serving;
mod table;
mod trial;
mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{Behaviour, Cx, Env, ExitReason, Handle, LocalBoxFuture, Reply, Start};
use nexus_supervisors::SupervisorRef;

use observing::align;

pub use crate::service::OnLate;
pub use counts::{ASIDE_MAX, HookCounts};
pub use hook::{
    DEADLINE, HookId, HookKind, Interceptor, Missed, MissedCalls, MountHook, Observer, OpSet, Registration,
    Resolution, Resolver,
};
pub(crate) use messages::Cover;
pub use messages::{ListHooks, Register, ReplaceHooks, Unregister};
pub use observing::{QUEUE, QUEUE_LIMIT};
pub(crate) use passage::{ALL_TOLD, Passage, Shown, Wants};
pub use pattern::{PATTERN_DEPTH_MAX, Pattern, PatternError};
pub use table::{HOOKS_MAX, HookError, HookInfo, HookStatus, HookTable};
pub use view::{DispatchView, HookRefusal, HookSummary, PublishedHooks};

/// How many messages may wait for the actor.
pub const MAILBOX_MAX: usize = 1_024;

/// The actor that alone changes which hooks there are.
pub struct Dispatch {
    table: HookTable,
    hooks: Arc<PublishedHooks>,
    observers: SupervisorRef,
    watchdog: Duration,
}

/// What is published; the supervisor of the observers that have a queue, and how long one event may hold such a one.
pub type DispatchArgs = (Arc<PublishedHooks>, SupervisorRef, Duration);

impl Behaviour for Dispatch {
    type Args = DispatchArgs;
    const NAME: &'static str = "dispatch";

    fn init(
        (hooks, observers, watchdog): DispatchArgs,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            let last = hooks.claim(start.generation()).map_err(ExitReason::error)?;
            let table = HookTable::thaw(&last);
            hooks.publish(start.generation(), table.freeze()).map_err(ExitReason::error)?;
            let dispatch = Self { table, hooks, observers, watchdog };
            // The one before may have died over that.
            dispatch.align(start.env());
            Ok(dispatch)
        })
    }
}

impl Dispatch {
    /// Shows everybody what has changed. An actor that is too late for that ends.
    fn publish<R>(&self, cx: &mut Cx<'_, Self>, done: Result<R, HookError>) -> Result<R, HookError> {
        let done = done?;
        self.hooks.publish(cx.generation(), self.table.freeze()).map_err(|late| {
            cx.exit(ExitReason::error(late));
            HookError::Superseded
        })?;
        self.align(cx.env());
        Ok(done)
    }

    /// Has the observers' children follow the table, aside: what they are to be told waits for them.
    fn align(&self, env: &Env) {
        let hooks = Arc::downgrade(&self.hooks);
        env.spawn("dispatch.observers", align(hooks, self.observers.clone(), self.watchdog));
    }
}

impl Handle<Register> for Dispatch {
    fn handle(&mut self, m: Register, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<HookId, HookError>> {
        let done = self.table.register(m.0.run_in(cx.env()));
        Reply::Now(self.publish(cx, done))
    }
}

impl Handle<Unregister> for Dispatch {
    fn handle(&mut self, m: Unregister, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<HookInfo, HookError>> {
        let done = self.table.unregister(m.0);
        Reply::Now(self.publish(cx, done))
    }
}

impl Handle<ReplaceHooks> for Dispatch {
    fn handle(
        &mut self,
        m: ReplaceHooks,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Vec<HookId>, HookError>> {
        let done = self.table.replace(&m.old, m.new.into_iter().map(|hook| hook.run_in(cx.env())).collect());
        Reply::Now(self.publish(cx, done))
    }
}

impl Handle<Cover> for Dispatch {
    fn handle(&mut self, m: Cover, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<(), HookError>> {
        let done = self.table.cover(m.enlisted);
        Reply::Now(self.publish(cx, done))
    }
}

impl Handle<ListHooks> for Dispatch {
    fn handle(&mut self, _: ListHooks, _: &mut Cx<'_, Self>) -> Reply<Self, Vec<HookInfo>> {
        Reply::Now(self.table.list())
    }
}
