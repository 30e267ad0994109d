//! Where quotas stand in the way of calls: functions over the accounts, on the caller's task.

use std::sync::Arc;

use nexus_kernel::dispatch::OpSet;
use nexus_kernel::service::ServiceHook;
use nexus_messages::{Effect, ErrorKind, Executed, HookContext, Op, Outcome, Verdict, ZoneId};

use super::service::{Quota, QuotaView};
use super::state::Refusal;

/// Changes: their number before anything, what they do before it is done, and what came of it.
pub(super) fn changes() -> ServiceHook<Quota> {
    ServiceHook::weighing("quota.changes", OpSet::MUTATIONS, spend, weigh, settle)
}

/// Reads and listings: only their number.
pub(super) fn reads() -> ServiceHook<Quota> {
    let ops = OpSet::NONE.and(Op::Read).and(Op::Readdir);
    ServiceHook::before("quota.reads", ops, |view: &QuotaView, context| spend(view, context))
}

fn spend(view: &QuotaView, context: &mut HookContext) -> Verdict {
    let paths: Vec<_> = match &context.resolved {
        Some(led) => [(Some(&led.path), Some(&led.zone)), (led.other.as_ref(), led.other_zone.as_ref())],
        None => {
            let zone = Some(&context.caller.zone);
            [(Some(context.call.path()), zone), (context.call.other_path(), zone)]
        }
    }
    .into_iter()
    .filter(|(_, zone)| zone.is_some_and(ZoneId::is_root))
    .filter_map(|(path, _)| path)
    .collect();
    match view.spend(&context.caller.agent, &paths) {
        Ok(()) => Verdict::Continue,
        Err(why) => Verdict::refuse_as(ErrorKind::QuotaExceeded, why),
    }
}

fn weigh(view: &QuotaView, _: &HookContext, before: Option<&Effect>, effect: &Effect) -> Verdict {
    if !effect.zone.is_root() {
        return Verdict::Continue;
    }
    match view.reserve(before, effect) {
        Ok(()) => Verdict::Continue,
        Err(Refusal::Exceeds(why)) => Verdict::refuse_as(ErrorKind::QuotaExceeded, why),
        Err(Refusal::Crosses(base)) => {
            let why = format!("a directory does not cross the border of {base}, where usage is counted");
            Verdict::refuse_as(ErrorKind::CrossMount, why)
        }
        Err(Refusal::Carries(base)) => {
            let why = format!("{base}, where usage is counted, lies below it");
            Verdict::refuse_as(ErrorKind::Busy, why)
        }
    }
}

fn settle(view: &QuotaView, _: &HookContext, outcome: &Outcome) {
    let Some(weighed) = &outcome.weighed else { return };
    if !weighed.effect.zone.is_root() {
        return;
    }
    let effect: &Arc<Effect> = &weighed.effect;
    match &outcome.error {
        Some(error) if weighed.lsn.is_none() && error.executed() == Executed::Unknown => view.doubt(effect),
        _ => view.settle(effect, weighed.lsn),
    }
}
