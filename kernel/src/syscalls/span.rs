//! One span for each syscall, for whoever listens: what was asked, by whom, and what came of it.
//!
//! A listener asks for the target [`TARGET`] at the level of debugging. While none does, a call pays one load for it.

use std::future::Future;
use std::sync::Arc;

use nexus_messages::syscall::Syscall;
use nexus_messages::{Caller, Result};
use tracing::field::Empty;
use tracing::{Instrument, Level, Span};

use super::Serve;
use crate::kernel::Kernel;

/// What listeners know the spans by.
const TARGET: &str = "nexus_kernel::syscall";

/// Whether somebody listens.
#[inline]
pub(crate) fn is_wanted() -> bool {
    tracing::span_enabled!(target: TARGET, Level::DEBUG)
}

/// Executes the call in a span of its own, which is the parent of whatever happens for it.
pub(crate) async fn around<S: Serve>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    mut call: S,
) -> Result<S::Done> {
    let wanted = of(caller, &call.clone().into());
    let executed = async move {
        match kernel.warm_answer(caller, &mut call) {
            Some(done) => Ok(done),
            None => kernel.execute(caller, call).await,
        }
    };
    within(wanted, executed).await
}

/// Does `work` in the span of its call.
pub(super) async fn within<T>(span: Span, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = work.instrument(span.clone()).await;
    span.record("outcome", done.as_ref().map_or_else(|error| error.errno().name(), |_| "ok"));
    done
}

/// The span of a call.
pub(super) fn of(caller: &Caller, call: &Syscall) -> Span {
    // As texts, which listeners quote: a name can hold whatever its maker likes.
    let span = tracing::debug_span!(
        target: TARGET,
        "syscall",
        op = call.op().name(),
        path = call.path().as_str(),
        to = Empty,
        agent = &*caller.agent,
        zone = caller.zone.as_str(),
        outcome = Empty,
    );
    if let Some(to) = call.other_path() {
        span.record("to", to.as_str());
    }
    span
}
