//! `SysOutcome`: what became of an operation.

use std::sync::Arc;

use nexus_messages::syscall::{CommittedOp, OPS_KEPT, OpOutcome, SysOutcome};
use nexus_messages::{Caller, Durability, Error, ErrorKind, Lsn, OpId, Receipt, Result, Timestamp, VPath};

use super::Serve;
use super::locate::route;
use crate::hal::{LogRecord, Metastore, StoreError, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{LogTimes, place_at};
use crate::underway::Known;
use crate::volume::store_error;

/// Records of the log that are looked at in one step, of operations that their clients gave no identity.
const PAGE: u64 = 1_024;

const _: () = assert!(OPS_KEPT.is_multiple_of(PAGE));

impl Serve for SysOutcome {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<OpOutcome> {
        // First who is under way, then the store: what ends in between is found there.
        let known = kernel.underway().look(self.op_id);
        let failed = |error: StoreError| store_error(Self::OP, &VPath::root(), &error);
        let trees = trees_of(kernel, caller).map_err(failed)?;
        let in_doubt = match find(kernel, self.op_id, &trees).await {
            Ok(Some((tree, record))) => {
                own(caller, trees.contains(&tree), &record.caller)?;
                return committed(kernel, caller, tree, record).map(OpOutcome::Committed).map_err(failed);
            }
            Ok(None) => false,
            // Its commit failed, and only opening the store again tells.
            Err(error) if error.is_unknown() => true,
            Err(error) => return Err(failed(error)),
        };
        let forgotten = match kernel.underway().elsewhere(self.op_id) {
            Ok((whose, executed)) => {
                own(caller, caller.zone == whose.zone, &whose.agent)?;
                return Ok(OpOutcome::Committed(executed));
            }
            Err(forgotten) => forgotten,
        };
        match known {
            Known::UnderWay(call) => {
                own(caller, caller.zone == call.caller.zone, &call.caller.agent)?;
                Ok(OpOutcome::UnderWay { op: call.op, path: call.path })
            }
            Known::InDoubt(whose) => {
                own(caller, caller.zone == whose.zone, &whose.agent).map(|()| OpOutcome::InDoubt)
            }
            _ if in_doubt => Ok(OpOutcome::InDoubt),
            Known::TooMany => {
                let error = Error::global(Self::OP, ErrorKind::Busy);
                Err(error.because("more calls are under way than are kept track of: ask again"))
            }
            Known::Nothing => absent(kernel, &trees, self.since, forgotten).map_err(failed),
        }
    }
}

/// Refuses to tell of somebody else's operation: `in_zone` says whether it may be of the caller's zone, and `agent` whose it is.
fn own(caller: &Caller, in_zone: bool, agent: &str) -> Result<()> {
    if caller.admin || (in_zone && *caller.agent == *agent) {
        return Ok(());
    }
    let error = Error::global(SysOutcome::OP, ErrorKind::PermissionDenied);
    Err(error.because("it is the operation of another agent"))
}

/// The trees that the caller's operations may be in: that of its zone, and the root's, whose mounts every zone sees.
fn trees_of(kernel: &Kernel, caller: &Caller) -> std::result::Result<Vec<TreeId>, StoreError> {
    let own = kernel.tree_of(&caller.zone)?.filter(|tree| *tree != TreeId::ROOT);
    Ok(own.into_iter().chain([TreeId::ROOT]).collect())
}

/// The record of the operation: by its identity when its client gave it one, else by a look through the logs of `trees`.
async fn find(
    kernel: &Arc<Kernel>,
    op_id: OpId,
    trees: &[TreeId],
) -> std::result::Result<Option<(TreeId, LogRecord)>, StoreError> {
    let metastore = kernel.store().metastore();
    if let Some((tree, lsn)) = metastore.outcome(op_id)? {
        let record = metastore.record(tree, lsn)?;
        // It may have been let go since.
        return Ok(record.filter(|record| record.op_id == op_id).map(|record| (tree, record)));
    }
    let (store, trees) = (kernel.store().clone(), trees.to_vec());
    let found = kernel.crunch(move || {
        trees.into_iter().find_map(|tree| {
            let found = look_through(store.metastore(), tree, op_id).transpose();
            found.map(|found| found.map(|record| (tree, record)))
        })
    });
    found.await?.transpose()
}

/// Looks through what is remembered of the log of `tree`, the newest first.
fn look_through(
    metastore: &dyn Metastore,
    tree: TreeId,
    op_id: OpId,
) -> std::result::Result<Option<LogRecord>, StoreError> {
    // The pages are of what is on disk; what is not yet is looked at one by one.
    let durable = metastore.durable_lsn(tree)?;
    let last = metastore.last_lsn(tree)?;
    for lsn in (durable.0 + 1..=last.0).rev() {
        if let Some(record) = metastore.record(tree, Lsn(lsn))?.filter(|record| record.op_id == op_id) {
            return Ok(Some(record));
        }
    }
    let oldest = last.0.saturating_sub(OPS_KEPT);
    let mut through = durable.0;
    while through > oldest {
        let since = through.saturating_sub(PAGE).max(oldest);
        let page = metastore.changes(tree, Lsn(since), usize::try_from(through - since).unwrap_or(0))?;
        if let Some(record) = page.into_iter().find(|record| record.op_id == op_id) {
            return Ok(Some(record));
        }
        through = since;
    }
    Ok(None)
}

fn committed(
    kernel: &Kernel,
    caller: &Caller,
    tree: TreeId,
    record: LogRecord,
) -> std::result::Result<CommittedOp, StoreError> {
    let LogRecord { lsn, op_id, op, path, other, at, .. } = record;
    let forgets = route(kernel, SysOutcome::OP, &caller.zone, &path).is_ok_and(|mount| mount.forgets());
    let durability = match forgets {
        true => Durability::Volatile,
        false if kernel.store().metastore().durable_lsn(tree)? >= lsn => Durability::Strong,
        false => Durability::Eventual,
    };
    Ok(CommittedOp::new(Receipt::new(op_id, lsn, durability), op, path, other, at))
}

/// What can be said of an operation that is nowhere: was it not executed, or may it be forgotten? `elsewhere` is when the last one was executed that is forgotten and in no log.
fn absent(
    kernel: &Kernel,
    trees: &[TreeId],
    since: Option<Lsn>,
    elsewhere: Option<Timestamp>,
) -> std::result::Result<OpOutcome, StoreError> {
    let mut forgotten = None;
    for (place, tree) in trees.iter().enumerate() {
        let through = kernel.store().metastore().last_lsn(*tree)?.0.saturating_sub(OPS_KEPT);
        // What the caller knows of the log of its own zone says nothing of another one.
        let since = since.filter(|_| place == 0).map_or(0, |since| since.0);
        if through > since && forgotten.is_none() {
            forgotten = Some(Lsn(through));
        }
    }
    if let (Some(time), Some(tree)) = (elsewhere, trees.first()) {
        // It was sent before that time, or its sender knew a later place.
        let through = by_then(kernel, *tree, time)?;
        if since.is_none_or(|since| through >= since) {
            forgotten = forgotten.max(Some(through));
        }
    }
    Ok(forgotten.map_or(OpOutcome::NotExecuted, |through| OpOutcome::Forgotten { through }))
}

/// The last place in the log of `tree` that was made by `time`, as far as the log tells.
fn by_then(kernel: &Kernel, tree: TreeId, time: Timestamp) -> std::result::Result<Lsn, StoreError> {
    let store = kernel.store().metastore();
    let last = store.last_lsn(tree)?;
    let kept = Lsn(last.0.saturating_sub(OPS_KEPT));
    let Some(first) = store.changes(tree, kept, 1)?.pop() else { return Ok(last) };
    let place = place_at(&LogTimes { store, tree }, first.lsn, last, time)?;
    Ok(place.unwrap_or(Lsn(first.lsn.0.saturating_sub(1))))
}
