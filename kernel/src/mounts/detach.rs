//! Detaching: wait for the calls below, take the route away, stop the driver, remember.

use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::Create;
use nexus_messages::{Durability, Error, ErrorKind, EventKind, MountContext, Op, Receipt, Timestamp};

use tokio::sync::OwnedMutexGuard;

use super::attach::{LOCK_WAIT_MAX, commit, mount_entry, put_away, stop, told, unroute};
use super::messages::{Attach, Detach, Detached};
use super::migration::not_migrating;
use super::mount::Mount;
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, PathGuard, Scope};
use crate::owned::Owned;
use crate::watcher::{told as told_of, told_mount};

/// How long a driver has to bring to its backend what lies here alone, before its mount goes.
pub(super) const FLUSH_MAX: Duration = Duration::from_secs(10);

pub(super) async fn detach(kernel: Arc<Kernel>, m: Detach) -> Result<Detached, Error> {
    let fail = |kind| Error::new(Op::Unmount, &m.point, kind);
    if let Some(mount) = kernel.mount_at(&m.zone, &m.point) {
        not_migrating(&kernel, Op::Unmount, &mount)?;
    }
    // Mutations below the point hold locks below it, and end before this one is given.
    let owner = LockOwner { agent: m.caller.agent.clone(), since: Timestamp(kernel.env().wall()) };
    let lock = kernel.locks().lock(&m.point, Mode::Write, Scope::Subtree, owner);
    let Ok(guard) = kernel.env().timeout(LOCK_WAIT_MAX, lock).await else {
        return Err(fail(ErrorKind::Busy).because("calls below it have not ended"));
    };
    let Some(mount) = kernel.mount_at(&m.zone, &m.point) else {
        return Err(fail(ErrorKind::NotFound).because("nothing is mounted there"));
    };
    let waited = kernel.env().timeout(LOCK_WAIT_MAX, mount.changing().clone().lock_owned()).await;
    let turn = waited.map_err(|_| fail(ErrorKind::Busy).because("its driver is being replaced"))?;
    if let Some(below) = kernel.mounted_children(&m.zone, &m.point).first() {
        return Err(fail(ErrorKind::Busy).because(format!("another mount lies below it, under {below:?}")));
    }
    // Its store is told what it has not been told, as long as somebody looks after that.
    if let Err(why) = mount.flush(&kernel, FLUSH_MAX).await {
        let left = mount.left_here().unwrap_or_default();
        tracing::warn!(point = %m.point, %why, left, "what was written back is not at the store: it stays in the data folder, and goes there when the store is mounted again");
    }
    // Were it routed when the store has put it away, it would be taken for attached, and what is written there would be gone with the next boot. So it is
    // finished, whoever dies.
    let env = kernel.env().clone();
    Owned::from_start(&env, "mount.detach", finish(kernel, m, mount, guard, turn)).await
}

/// From the row on.
async fn finish(
    kernel: Arc<Kernel>,
    m: Detach,
    mount: Arc<Mount>,
    guard: PathGuard,
    turn: OwnedMutexGuard<()>,
) -> Result<Detached, Error> {
    // Dropped after the guard: watchers are told when the mount is gone, and its point is not locked any more.
    let holding = kernel.watches().hold();
    let guard = guard;
    let op_id = kernel.new_op_id();
    let at = Timestamp(kernel.env().wall());
    let who = Attach {
        zone: m.zone.clone(),
        point: m.point.clone(),
        spec: (*mount.spec()).clone(),
        create: Create::Never,
        replace: false,
        caller: m.caller.clone(),
    };
    let mut entry = mount_entry(&who, mount.tree, op_id, at);
    entry.op = Op::Unmount;
    entry.told = Some(told_of(&m.caller, told_mount(EventKind::Unmounted)));
    entry.changes.push(put_away(&kernel, &mount));
    let lsn = commit(&kernel, entry, holding.held()).await?;
    // Before the route goes, so that a router which starts from this list has it no more.
    kernel.mounts().unlist(&mount);
    let unrouted = unroute(&kernel, &mount).await;
    // Also with its route left: nobody is to write to what was put away.
    stop(&kernel, &mount).await;
    kernel.pipes().close_mount(kernel.env(), mount.root);
    kernel.close_streams(mount.root);
    unrouted.map_err(|(kind, why)| Error::new(Op::Unmount, &m.point, kind).because(why).outcome_unknown())?;
    drop(turn);
    let receipt = Receipt::new(op_id, lsn, Durability::Strong);
    let driver = mount.spec().driver.clone();
    let context = MountContext::new(m.point.clone(), driver, Some(m.caller.clone()));
    if let Some(hooks) = kernel.dispatch().get() {
        hooks.unmounted(&context).await;
    }
    told(&kernel, EventKind::Unmounted, &m.point, &m.caller, receipt).await;
    drop(guard);
    Ok(Detached { receipt })
}
