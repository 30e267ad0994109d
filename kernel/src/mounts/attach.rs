//! Attaching: check, start the driver, remember, route.

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{ExitReason, MailboxBounds, Ref};
use nexus_messages::{
    Durability, EntryType, Error, ErrorKind, Event, EventKind, FileId, Lsn, MountContext, Op, OpId, Receipt,
    Timestamp, VPath,
};
use nexus_supervisors::{Backoff, ChildSpec, OrderError, Restart, Shutdown};

use super::driver::{DRAIN_MAX, Driver, DriverArgs};
use super::messages::{Attach, Attached};
use super::mount::Mount;
use crate::hal::{Change, Entry, StoreError, Table, TreeId};
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, Scope};
use crate::namespace::{
    InodeRow, MountRow, Rows, decode, encode, inode_key, mount_key, mount_root, zone_key,
};
use crate::router;
use crate::volume::{Stop, commit_error};

/// How long to wait for the calls below the mount point.
pub(super) const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long the router may take to answer.
pub(super) const ROUTER_MAX: Duration = Duration::from_secs(10);

/// How many rows of mounts are read at once.
const PAGE: usize = 1_024;

/// Messages that may wait for a driver's actor.
const MAILBOX: usize = 64;

pub(super) async fn attach(kernel: Arc<Kernel>, m: Attach) -> Result<Attached, Error> {
    let fail = |kind| Error::new(Op::Mount, &m.point, kind);
    let stored = |error: StoreError| fail(error.kind()).because(error);
    kernel.catalogue().check(&m.spec).map_err(|error| fail(ErrorKind::InvalidArgument).because(error))?;

    let owner = LockOwner { agent: m.caller.agent.clone(), since: Timestamp(kernel.env().wall()) };
    let lock = kernel.locks().lock(&m.point, Mode::Write, Scope::Subtree, owner);
    let Ok(_guard) = kernel.env().timeout(LOCK_WAIT_MAX, lock).await else {
        return Err(fail(ErrorKind::Busy).because("calls below it have not ended"));
    };

    if let Some(there) = kernel.mount_at(&m.zone, &m.point) {
        if there.spec != m.spec {
            return Err(
                fail(ErrorKind::AlreadyExists).because(format!("a {} is mounted there", there.spec.driver))
            );
        }
        if there.failure.is_none() {
            let lsn = kernel.store().last_lsn(there.tree).map_err(stored)?;
            let receipt = Receipt::new(kernel.new_op_id(), lsn, Durability::Strong);
            return Ok(Attached { mount: there, created: false, receipt });
        }
        return Err(fail(ErrorKind::Busy).because("the mount that failed is still there: unmount it first"));
    }

    let tree = tree_of(&kernel, &m).map_err(stored)?;
    let rows = kernel.store().rows(tree).map_err(stored)?;
    let known = remembered(&rows).map_err(stored)?;
    let volatile = kernel.catalogue().get(&m.spec.driver).is_some_and(|factory| factory.volatile());
    let before =
        known.into_iter().find(|(_, row)| row.zone == m.zone && row.point == m.point && row.spec == m.spec);
    let root = match before {
        Some((root, _)) if !volatile => root,
        _ => kernel.store().new_file_id(),
    };
    drop(rows);

    let mount = Arc::new(Mount::new(root, m.zone.clone(), tree, m.point.clone(), m.spec.clone()));
    start(&kernel, &mount).await.map_err(|(kind, why)| fail(kind).because(why))?;
    let receipt = match remember_and_route(&kernel, &m, &mount).await {
        Ok(receipt) => receipt,
        Err(error) => {
            stop(&kernel, &mount).await;
            return Err(error);
        }
    };
    if let Some(hooks) = kernel.dispatch().get() {
        hooks
            .mounted(&MountContext::new(m.point.clone(), m.spec.driver.clone(), Some(m.caller.clone())))
            .await;
    }
    told(&kernel, EventKind::Mounted, &m.point, &m.caller, receipt);
    Ok(Attached { mount, created: true, receipt })
}

/// The tree of the zone; a new one for a zone that has none.
fn tree_of(kernel: &Kernel, m: &Attach) -> Result<TreeId, StoreError> {
    if m.zone.is_root() {
        return Ok(TreeId::ROOT);
    }
    let rows = kernel.store().rows(TreeId::ROOT)?;
    let key = zone_key(&m.zone);
    match rows.reader.get(&key)? {
        Some(value) => decode(&key, &value),
        None => {
            let prefix = crate::hal::RowKey::new(Table::Settings, *b"zone/");
            let zones = rows.reader.scan(&prefix, None, usize::MAX)?.len();
            let number = u32::try_from(zones + 1).map_err(|_| StoreError::Full)?;
            Ok(TreeId(number))
        }
    }
}

/// All mounts that the metastore knows of, attached or not.
pub(super) fn remembered(rows: &Rows) -> Result<Vec<(FileId, MountRow)>, StoreError> {
    let prefix = crate::hal::RowKey::new(Table::Mounts, Vec::new());
    let mut mounts = Vec::new();
    let mut after = None;
    loop {
        let page = rows.reader.scan(&prefix, after.as_ref(), PAGE)?;
        let last = page.len() < PAGE;
        for (key, value) in &page {
            mounts.push((mount_root(key)?, decode(key, value)?));
        }
        if last {
            return Ok(mounts);
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
}

async fn remember_and_route(kernel: &Arc<Kernel>, m: &Attach, mount: &Arc<Mount>) -> Result<Receipt, Error> {
    let fail = |kind| Error::new(Op::Mount, &m.point, kind);
    let op_id = kernel.new_op_id();
    let at = Timestamp(kernel.env().wall());
    let mut entry = mount_entry(m, mount.tree, op_id, at);
    let row = MountRow {
        zone: m.zone.clone(),
        tree: mount.tree,
        point: m.point.clone(),
        spec: m.spec.clone(),
        attached: true,
    };
    entry.changes.push(Change::Put(mount_key(mount.root), encode(&row)));
    let root = InodeRow::new(EntryType::Mount, m.caller.agent.clone(), at);
    entry.changes.push(Change::PutIfAbsent(inode_key(mount.tree, mount.root), encode(&root)));
    if !m.zone.is_root() {
        entry.changes.push(Change::PutIfAbsent(zone_key(&m.zone), encode(&mount.tree)));
    }
    let lsn = commit(kernel, entry).await?;
    let routed = kernel.router().call(router::Mount(mount.clone()), ROUTER_MAX).await;
    match routed {
        Ok(Ok(_)) => Ok(Receipt::new(op_id, lsn, Durability::Strong)),
        Ok(Err(error)) => {
            // What was refused is not to come back at the next boot.
            let mut entry = mount_entry(m, mount.tree, kernel.new_op_id(), at);
            entry.op = Op::Unmount;
            entry.changes.push(put_away(kernel, mount));
            commit(kernel, entry).await?;
            Err(fail(ErrorKind::Busy).because(error))
        }
        Err(error) => Err(fail(ErrorKind::Crashed).because(error).outcome_unknown()),
    }
}

/// What the metastore remembers of a mount that is not attached any more: what is needed to attach it again with what it held, if that
/// outlives it.
pub(super) fn put_away(kernel: &Kernel, mount: &Mount) -> Change {
    if kernel.catalogue().get(&mount.spec.driver).is_some_and(|factory| factory.volatile()) {
        return Change::Delete(mount_key(mount.root));
    }
    let row = MountRow {
        zone: mount.zone.clone(),
        tree: mount.tree,
        point: mount.point.clone(),
        spec: mount.spec.clone(),
        attached: false,
    };
    Change::Put(mount_key(mount.root), encode(&row))
}

pub(super) async fn commit(kernel: &Kernel, entry: Entry) -> Result<Lsn, Error> {
    let (op, point) = (entry.op, entry.path.clone());
    let committed = kernel.store().commit(entry, Box::new(|_| ())).await;
    committed.map(|(lsn, _)| lsn).map_err(|error| match commit_error(op, &point, &error) {
        Stop::Failed(error) => error,
        Stop::Again => Error::new(op, &point, ErrorKind::Busy),
    })
}

pub(super) fn mount_entry(m: &Attach, tree: TreeId, op_id: OpId, at: Timestamp) -> Entry {
    Entry {
        tree,
        op_id,
        repeatable: false,
        caller: m.caller.agent.clone(),
        op: Op::Mount,
        path: m.point.clone(),
        other: None,
        at,
        preconditions: Vec::new(),
        changes: Vec::new(),
    }
}

/// Starts the driver of `mount` as a child of the drivers' supervisor.
pub(super) async fn start(kernel: &Arc<Kernel>, mount: &Arc<Mount>) -> Result<(), (ErrorKind, String)> {
    let actor: Ref<Driver> = Ref::new(kernel.env(), "driver", MailboxBounds { messages: MAILBOX });
    let args = DriverArgs {
        mount: mount.clone(),
        catalogue: kernel.catalogue().clone(),
        data_folder: kernel.data_folder().map(Into::into),
    };
    let spec = ChildSpec::new(child_id(mount), actor, args)
        .restart(Restart::Permanent)
        .place(nexus_actors::Place::Users)
        .shutdown(Shutdown::Timeout(DRAIN_MAX + Duration::from_secs(2)))
        .backoff(Backoff::default());
    match kernel.drivers().start_child(spec).await {
        Ok(_) => Ok(()),
        Err(OrderError::Start(ExitReason::Error(why))) => Err((ErrorKind::InvalidArgument, why.to_string())),
        Err(OrderError::Start(why)) => Err((ErrorKind::Crashed, why.to_string())),
        Err(error) => Err((ErrorKind::Busy, error.to_string())),
    }
}

/// Stops the driver of `mount`, once the calls in it have ended, and forgets it.
pub(super) async fn stop(kernel: &Kernel, mount: &Mount) {
    let id = child_id(mount);
    for done in [kernel.drivers().terminate_child(&id).await, kernel.drivers().delete_child(&id).await] {
        if let Err(error) = done {
            tracing::debug!(point = %mount.point, %error, "stopping a driver");
        }
    }
}

fn child_id(mount: &Mount) -> String {
    format!("mount-{}", mount.root)
}

/// Tells observers of a mount or an unmount.
pub(super) fn told(
    kernel: &Kernel,
    kind: EventKind,
    point: &VPath,
    caller: &Arc<nexus_messages::Caller>,
    receipt: Receipt,
) {
    if let Some(hooks) = kernel.dispatch().get() {
        let mut event = Event::new(kind, point.clone(), EntryType::Mount, caller.clone(), receipt.op_id);
        event.lsn = receipt.lsn;
        event.at = Timestamp(kernel.env().wall());
        hooks.observe(&event);
    }
}
