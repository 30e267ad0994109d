//! Attaching: check, start the driver, remember, route.

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{CallError, ExitReason, MailboxBounds, Ref};
use nexus_messages::syscall::{Create, MountSpec};
use nexus_messages::{
    Durability, EntryType, Error, ErrorKind, Event, EventKind, FileId, Lsn, MountContext, Op, OpId, Receipt,
    Timestamp, VPath,
};
use nexus_supervisors::{Backoff, ChildSpec, OrderError, Restart};

use super::driver::{Driver, DriverArgs, Open, actor_name, drain};
use super::messages::{Attach, Attached};
use super::migration::not_aimed_at;
use super::mount::Mount;
use super::options::{MountOptions, check_honoured, stores_the_same};
use super::{history, outside, swap};
use crate::hal::{Change, Entry, StoreError, Table, TreeId};
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, PathGuard, Scope};
use crate::namespace::{
    InodeRow, MountRow, Rows, addressing_key, decode, encode, inode_key, mount_key, mount_root, zone_key,
};
use crate::owned::Owned;
use crate::router::{self, RouteError};
use crate::store::Publication;
use crate::volume::{Stop, commit_error};
use crate::watcher::{Held, told as told_of, told_mount, told_nobody};

/// How long to wait for the calls below the mount point.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long the router may take to answer.
pub(super) const ROUTER_MAX: Duration = Duration::from_secs(10);

/// How often a driver's supervisor is told to stop it, when it ends under the order.
const STOPS_MAX: usize = 20;

/// How often a router is asked that crashes under what it is asked.
const ROUTER_CRASHES_MAX: usize = 20;

/// How many rows of mounts are read at once.
const PAGE: usize = 1_024;

/// Messages that may wait for a driver's actor.
const MAILBOX: usize = 64;

/// How much longer than the opening itself its answer may take.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(5);

pub(super) async fn attach(kernel: Arc<Kernel>, mut m: Attach) -> Result<Attached, Error> {
    m.spec = kernel.catalogue().settled(m.spec);
    let fail = |kind| Error::new(Op::Mount, &m.point, kind);
    let stored = |error: StoreError| fail(error.kind()).because(error);
    let checked = kernel.catalogue().check(&m.spec).and_then(|()| MountOptions::of(&m.spec).map(drop));
    checked.map_err(|error| fail(ErrorKind::InvalidArgument).because(error))?;
    warn_of_secrets(&kernel, &m.point, &m.spec);
    if let Some(there) = kernel.mount_at(&m.zone, &m.point).filter(|_| m.replace) {
        // Without the lock of the point: calls below it go on.
        return swap::swap(kernel, m, there).await;
    }

    let owner = LockOwner { agent: m.caller.agent.clone(), since: Timestamp(kernel.env().wall()) };
    let lock = kernel.locks().lock(&m.point, Mode::Write, Scope::Subtree, owner);
    let Ok(guard) = kernel.env().timeout(LOCK_WAIT_MAX, lock).await else {
        return Err(fail(ErrorKind::Busy).because("calls below it have not ended"));
    };

    if let Some(there) = kernel.mount_at(&m.zone, &m.point) {
        let spec = there.spec();
        if kernel.catalogue().remembered((*spec).clone()) != m.spec || m.replace {
            let why = format!("a {} is mounted there", spec.driver);
            return Err(fail(ErrorKind::AlreadyExists).because(why));
        }
        if !there.has_driver() {
            // Whoever mounts it again wants it now.
            open(&there, false).await.map_err(|(kind, why)| fail(kind).because(why))?;
        }
        let lsn = kernel.store().last_lsn(there.tree).map_err(stored)?;
        let receipt = Receipt::new(kernel.new_op_id(), lsn, Durability::Strong);
        return Ok(Attached { mount: there, created: false, swapped: None, receipt });
    }
    if m.create == Create::Never {
        return Err(fail(ErrorKind::NotFound).because("nothing is mounted there"));
    }

    let tree = kernel.zones().tree_of(&kernel, &m.zone).map_err(stored)?;
    let rows = kernel.store().rows(tree).map_err(stored)?;
    let known = remembered(&rows).map_err(stored)?;
    let volatile = kernel.catalogue().get(&m.spec.driver).is_some_and(|factory| factory.volatile());
    let here: Vec<_> =
        known.into_iter().filter(|(_, row)| row.zone == m.zone && row.point == m.point).collect();
    // What older kernels remember they did not settle.
    let remembered = |row: &MountRow| kernel.catalogue().remembered(row.spec.clone());
    let before = here.iter().find(|(_, row)| stores_the_same(&remembered(row), &m.spec));
    let root = match before {
        Some((root, _)) if !volatile => *root,
        _ => kernel.store().new_file_id(),
    };
    drop(rows);
    not_aimed_at(&kernel, tree, root, &m.spec).map_err(|taken| fail(taken.kind).because(taken.why))?;
    // Nothing is routed there, so these are of a mount of whose commit nobody knew what became.
    let leftovers = here.into_iter().filter(|(there, row)| row.attached && *there != root);
    let leftovers: Vec<_> = leftovers.map(|(root, row)| forget(&kernel, root, row)).collect();

    let generation = kernel.caches().metadata.new_mount();
    let mount = Mount::new(root, m.zone.clone(), tree, m.point.clone(), m.spec.clone(), generation);
    let mount = Arc::new(mount);
    let unfinished = Unfinished::new(&kernel, &mount, guard);
    start(&kernel, &mount).await.map_err(|(kind, why)| fail(kind).because(why))?;
    let honoured = |()| check_honoured(&m.spec, mount.nature()).map_err(|error| not_opened(&error));
    if let Err((kind, why)) = open(&mount, false).await.and_then(honoured) {
        stop(&kernel, &mount).await;
        unfinished.finish();
        return Err(fail(kind).because(why));
    }
    // Once the store has it, it is attached, whoever dies: the next boot goes by what the store says.
    let env = kernel.env().clone();
    Owned::from_start(&env, "mount.attach", finish(kernel, m, mount, leftovers, unfinished)).await
}

/// From the row on.
async fn finish(
    kernel: Arc<Kernel>,
    m: Attach,
    mount: Arc<Mount>,
    leftovers: Vec<Change>,
    unfinished: Unfinished,
) -> Result<Attached, Error> {
    // Dropped last: watchers are told when the mount serves, and its point is not locked any more.
    let holding = kernel.watches().hold();
    let receipt = match remember_and_route(&kernel, &m, &mount, leftovers, holding.held()).await {
        Ok(receipt) => receipt,
        Err(error) => {
            stop(&kernel, &mount).await;
            unfinished.finish();
            return Err(error);
        }
    };
    let guard = unfinished.finish();
    if let Some(hooks) = kernel.dispatch().get() {
        hooks
            .mounted(&MountContext::new(m.point.clone(), m.spec.driver.clone(), Some(m.caller.clone())))
            .await;
    }
    told(&kernel, EventKind::Mounted, &m.point, &m.caller, receipt).await;
    drop(guard);
    Ok(Attached { mount, created: true, swapped: None, receipt })
}

/// A mount that is being made. When that is cut short, because the lifecycle's actor ends, its driver's actor is not left behind, and nobody comes to the
/// mount point before.
struct Unfinished {
    kernel: Arc<Kernel>,
    made: Option<(Arc<Mount>, PathGuard)>,
}

impl Unfinished {
    fn new(kernel: &Arc<Kernel>, mount: &Arc<Mount>, guard: PathGuard) -> Self {
        Self { kernel: kernel.clone(), made: Some((mount.clone(), guard)) }
    }

    /// Gives back the lock.
    fn finish(mut self) -> Option<PathGuard> {
        self.made.take().map(|(_, guard)| guard)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some((mount, guard)) = self.made.take() else { return };
        let kernel = self.kernel.clone();
        self.kernel.env().spawn("mount.cut_short", async move {
            stop(&kernel, &mount).await;
            drop(guard);
        });
    }
}

/// Gives the mount its route; one that it has is no error. A router that crashes under it is asked again: the store has it already.
pub(super) async fn route(kernel: &Kernel, mount: &Arc<Mount>) -> Result<(), (ErrorKind, String)> {
    let mut asked = 0;
    loop {
        let answer = kernel.router().call(router::Mount(mount.clone()), ROUTER_MAX).await;
        asked += 1;
        if let Some(done) = settled(answer, asked) {
            return done;
        }
    }
}

/// Gives the mount the route of the one at its point. As [`route`].
pub(super) async fn rebind(kernel: &Kernel, mount: &Arc<Mount>) -> Result<(), (ErrorKind, String)> {
    let mut asked = 0;
    loop {
        let answer = kernel.router().call(router::Rebind(mount.clone()), ROUTER_MAX).await;
        asked += 1;
        if let Some(done) = settled(answer.map(|before| before.map(drop)), asked) {
            return done;
        }
    }
}

/// Takes the route away; one that is not there is no error. As [`route`].
pub(super) async fn unroute(kernel: &Kernel, mount: &Arc<Mount>) -> Result<(), (ErrorKind, String)> {
    let mut asked = 0;
    loop {
        let answer = match kernel.router().call(router::Unmount(mount.clone()), ROUTER_MAX).await {
            Ok(Err(RouteError::NotMounted { .. })) => Ok(Ok(())),
            answer => answer,
        };
        asked += 1;
        if let Some(done) = settled(answer, asked) {
            return done;
        }
    }
}

/// What became of it; none when the router is to be asked again.
fn settled(
    answer: Result<Result<(), RouteError>, CallError>,
    asked: usize,
) -> Option<Result<(), (ErrorKind, String)>> {
    match answer {
        Ok(Ok(())) => Some(Ok(())),
        // What it has published counts, and what it has not is asked for anew.
        Err(CallError::Crashed { .. }) | Ok(Err(RouteError::Superseded)) if asked < ROUTER_CRASHES_MAX => {
            None
        }
        Ok(Err(error)) => Some(Err((ErrorKind::Busy, error.to_string()))),
        Err(error) => Some(Err((ErrorKind::Crashed, error.to_string()))),
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

async fn remember_and_route(
    kernel: &Arc<Kernel>,
    m: &Attach,
    mount: &Arc<Mount>,
    leftovers: Vec<Change>,
    held: Option<Held>,
) -> Result<Receipt, Error> {
    let fail = |kind| Error::new(Op::Mount, &m.point, kind);
    let op_id = kernel.new_op_id();
    let at = Timestamp(kernel.env().wall());
    let mut entry = mount_entry(m, mount.tree, op_id, at);
    entry.told = Some(told_of(&m.caller, told_mount(EventKind::Mounted)));
    let row = MountRow {
        zone: m.zone.clone(),
        tree: mount.tree,
        point: m.point.clone(),
        spec: m.spec.clone(),
        attached: true,
    };
    entry.changes.extend(leftovers);
    entry.changes.push(Change::Put(mount_key(mount.root), encode(&row)));
    let mut root = InodeRow::new(EntryType::Mount, m.caller.agent.clone(), at);
    root.mode = mount.first_mode(EntryType::Mount);
    entry.changes.push(Change::PutIfAbsent(inode_key(mount.tree, mount.root), encode(&root)));
    if !m.zone.is_root() {
        entry.changes.push(Change::PutIfAbsent(zone_key(&m.zone), encode(&mount.tree)));
    }
    if !mount.outlives_its_actor() {
        // So that a boot at which its driver cannot be opened knows what can be served without.
        let by_path = encode(&mount.is_path_addressed());
        entry.changes.push(Change::Put(addressing_key(mount.root), by_path));
    }
    let stored = |error: StoreError| fail(error.kind()).because(error);
    // One may have begun while the driver was opened.
    let aimed_at = not_aimed_at(kernel, mount.tree, mount.root, &m.spec);
    aimed_at.map_err(|taken| fail(taken.kind).because(taken.why))?;
    {
        // Nothing was routed here since the mount was detached, if it ever was there.
        let rows = kernel.store().rows(mount.tree).map_err(stored)?;
        let policy = history::policy(mount, &m.spec);
        entry.changes.extend(history::begin(&rows, mount, policy).map_err(stored)?);
        entry.changes.extend(history::end(&rows, mount, policy).map_err(stored)?);
    }
    let lsn = commit(kernel, entry, held.clone()).await?;
    // Before it is routed, so that a router which starts from this list has it.
    kernel.mounts().list(mount);
    let Err((kind, why)) = route(kernel, mount).await else {
        return Ok(Receipt::new(op_id, lsn, Durability::Strong));
    };
    // What was refused is not to come back: not with the next router, and not at the next boot.
    kernel.mounts().unlist(mount);
    let mut entry = mount_entry(m, mount.tree, kernel.new_op_id(), at);
    entry.op = Op::Unmount;
    entry.told = Some(told_of(&m.caller, told_mount(EventKind::Unmounted)));
    entry.changes.push(put_away(kernel, mount));
    commit(kernel, entry, held).await?;
    if let Err((_, why)) = unroute(kernel, mount).await {
        tracing::error!(point = %mount.point, why, "a mount that was put away may keep its route");
    }
    Err(fail(kind).because(why))
}

/// What the metastore remembers of a mount that is not attached any more: what is needed to attach it again with what it held, if that
/// outlives it.
pub(super) fn put_away(kernel: &Kernel, mount: &Mount) -> Change {
    let row = MountRow {
        zone: mount.zone.clone(),
        tree: mount.tree,
        point: mount.point.clone(),
        spec: (*mount.spec()).clone(),
        attached: false,
    };
    forget(kernel, mount.root, row)
}

/// As [`put_away`], for a mount of which there is only the row.
fn forget(kernel: &Kernel, root: FileId, row: MountRow) -> Change {
    if kernel.catalogue().get(&row.spec.driver).is_some_and(|factory| factory.volatile()) {
        return Change::Delete(mount_key(root));
    }
    Change::Put(mount_key(root), encode(&MountRow { attached: false, ..row }))
}

/// Commits an entry about a mount. Watchers are told of it what it says, and when nothing is held any more.
pub(super) async fn commit(kernel: &Kernel, mut entry: Entry, held: Option<Held>) -> Result<Lsn, Error> {
    let (op, point) = (entry.op, entry.path.clone());
    entry.told.get_or_insert_with(told_nobody);
    let committed = kernel.store().commit_held(entry, Publication::new(Box::new(|_| ()), held)).await;
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
        items: Vec::new(),
        told: None,
        at,
        preconditions: Vec::new(),
        changes: Vec::new(),
    }
}

/// Starts the actor of `mount`'s driver as a child of the drivers' supervisor. The driver is not opened yet.
pub(super) async fn start(kernel: &Arc<Kernel>, mount: &Arc<Mount>) -> Result<(), (ErrorKind, String)> {
    let actor: Ref<Driver> = Ref::new(kernel.env(), "driver", MailboxBounds { messages: MAILBOX });
    mount.set_actor(actor.clone());
    let args = DriverArgs {
        mount: Arc::downgrade(mount),
        catalogue: kernel.catalogue().clone(),
        data_folder: kernel.data_folder().map(Into::into),
        announce: outside::announce(kernel),
    };
    let spec = ChildSpec::new(actor_name(mount), actor, args)
        .restart(Restart::Permanent)
        .place(nexus_actors::Place::Users)
        // No code of a driver runs there.
        .watchdog(kernel.watchdog())
        .backoff(Backoff::default());
    match kernel.drivers().start_child(spec).await {
        Ok(_) => Ok(()),
        Err(OrderError::Start(why @ ExitReason::Killed)) => Err((ErrorKind::Down, why.to_string())),
        Err(OrderError::Start(why)) => Err((ErrorKind::Crashed, why.to_string())),
        Err(error) => Err((ErrorKind::Busy, error.to_string())),
    }
}

/// Has the driver of `mount` opened. When that fails, its actor goes on trying until it is stopped. `is_again`: it was mounted before, and nobody asks for it just now.
pub(super) async fn open(mount: &Mount, is_again: bool) -> Result<(), (ErrorKind, String)> {
    let Some(actor) = mount.actor() else { return Err((ErrorKind::Down, "it has no driver".into())) };
    match actor.call(Open { is_again }, mount.options().open + ANSWER_GRACE).await {
        Ok(opened) => opened.map_err(|error| not_opened(&error)),
        Err(error) => Err((silent(error), error.to_string())),
    }
}

/// What a caller is told of a driver that could not be opened.
pub(super) fn not_opened(error: &StoreError) -> (ErrorKind, String) {
    let kind = match error {
        // What the options name is not there, or is not what they say: nothing is wrong with the backend.
        StoreError::NotFound { .. }
        | StoreError::Exists { .. }
        | StoreError::NotADirectory { .. }
        | StoreError::IsADirectory { .. }
        | StoreError::NotSupported { .. } => ErrorKind::InvalidArgument,
        error => error.kind(),
    };
    (kind, error.to_string())
}

/// Tells the log of secrets that will be in the metastore, which options of what is to be mounted they are.
pub(super) fn warn_of_secrets(kernel: &Kernel, point: &VPath, spec: &MountSpec) {
    for option in kernel.catalogue().in_the_clear(spec) {
        tracing::warn!(%point, option, "the metastore keeps this secret as it is: env:NAME or file:PATH in its place keeps it out");
    }
}

/// What a caller is told of a driver's actor that did not answer.
pub(super) fn silent(error: CallError) -> ErrorKind {
    match error {
        CallError::Busy => ErrorKind::Busy,
        CallError::Timeout => ErrorKind::TimedOut,
        CallError::Crashed { .. } => ErrorKind::Crashed,
        _ => ErrorKind::Down,
    }
}

/// Stops the actor of `mount`'s driver, and takes the driver out once the calls in it have ended. No other one takes its place.
pub(super) async fn stop(kernel: &Kernel, mount: &Mount) {
    let id = actor_name(mount);
    for _ in 0..STOPS_MAX {
        // One that is down already is deleted all the same.
        let _ = kernel.drivers().terminate_child(&id).await;
        match kernel.drivers().delete_child(&id).await {
            // Closed, it is not started again.
            Ok(()) | Err(OrderError::Unknown(_) | OrderError::Call(CallError::Down)) => break,
            // The supervisor ended under the order. It keeps the child over its restart, which the next order waits for and nobody else would end.
            Err(error) => tracing::debug!(point = %mount.point, %error, "stopping a driver"),
        }
    }
    let retired = mount.vacate(kernel.env());
    let left = drain(kernel.env(), mount.threads(), retired).await;
    if left > 0 {
        tracing::warn!(point = %mount.point, left, "calls are still inside a driver that was detached: it ends with them");
    }
}

/// Tells observers of a mount or an unmount.
pub(super) async fn told(
    kernel: &Kernel,
    kind: EventKind,
    point: &VPath,
    caller: &Arc<nexus_messages::Caller>,
    receipt: Receipt,
) {
    if kernel.dispatch().summary().has_observers(kind) {
        let mut event = Event::new(kind, point.clone(), EntryType::Mount, caller.clone(), receipt.op_id);
        event.lsn = receipt.lsn;
        event.at = Timestamp(kernel.env().wall());
        kernel.dispatch().tell(&event).await;
    }
}
