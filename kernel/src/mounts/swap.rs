//! Replacing the driver of a mount while calls go on.
//!
//! ```text
//! open and probe the new one beside the old → (gate) → row → spec → publish → drain → retire
//! ```
//!
//! Up to the row every step can fail and leaves the old driver serving. The row comes first, then the publish: a kernel that dies in between boots
//! with the new driver, which was opened and answered, and to which nothing was written yet; the other way round, what was written to the new one
//! would be looked for in the old one. From the row on the swap is finished by the kernel, whoever dies: an actor of the driver that is restarted
//! opens what the spec says.
//!
//! A driver that acknowledges changes early is not left for another store while something is here alone. So before the row the gate is closed, and the
//! driver flushed; changes that wait at the gate are led on to the new one.

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::CallError;
use nexus_messages::syscall::{DriverSwapped, MountSpec};
use nexus_messages::{Durability, Error, ErrorKind, EventKind, Executed, Lsn, Op, OpId, Receipt, Timestamp};
use tokio::sync::OwnedMutexGuard;

use super::attach::{ANSWER_GRACE, LOCK_WAIT_MAX, commit, mount_entry, not_opened, remembered, silent, told};
use super::detach::FLUSH_MAX;
use super::driver::{Adopt, DRAIN_MAX, Opened, Prepare};
use super::history;
use super::messages::{Attach, Attached};
use super::migration::{not_aimed_at, not_migrating};
use super::mount::Mount;
use super::options::{HistoryPolicy, MountOptions, check_honoured, stores_the_same};
use super::passage::Closed;
use crate::hal::{Change, ObjectStore, StoreError};
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, Scope};
use crate::namespace::{MountRow, encode, mount_key};
use crate::owned::Owned;
use crate::watcher::{Held, told as told_of, told_mount};

/// How long the new driver may take to be published, restarts of its actor included.
const ADOPT_MAX: Duration = Duration::from_secs(20);

/// How often an actor that dies over it is asked again.
const ADOPT_ATTEMPTS: usize = 8;

/// How long changes may take to end before the gate is closed, and what they left to come to the old store after that.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// The right to change a mount.
type Turn = OwnedMutexGuard<()>;

pub(super) async fn swap(kernel: Arc<Kernel>, m: Attach, mount: Arc<Mount>) -> Result<Attached, Error> {
    let fail = |kind| Error::new(Op::Mount, &m.point, kind);
    not_migrating(&kernel, Op::Mount, &mount)?;
    let waited = kernel.env().timeout(LOCK_WAIT_MAX, mount.changing().clone().lock_owned()).await;
    let turn = waited.map_err(|_| fail(ErrorKind::Busy).because("the mount is being changed"))?;
    if !kernel.mount_at(&m.zone, &m.point).is_some_and(|there| Arc::ptr_eq(&there, &mount)) {
        return Err(fail(ErrorKind::NotFound).because("it was detached meanwhile"));
    }
    let old = mount.spec();
    for spec in [&*old, &m.spec] {
        if kernel.catalogue().get(&spec.driver).is_some_and(|factory| factory.volatile()) {
            let why =
                format!("what {} stores is in the instance itself, and would be gone with it", spec.driver);
            return Err(fail(ErrorKind::NotSupported).because(why));
        }
    }
    not_aimed_at(&kernel, mount.tree, mount.root, &m.spec)
        .map_err(|taken| fail(taken.kind).because(taken.why))?;
    let leaves = leaves_early(&kernel, &m, &mount, &old).await;
    if leaves {
        takes_what_is_here(&kernel, &m, &mount).await?;
    }
    let Some(actor) = mount.actor() else { return Err(fail(ErrorKind::Down)) };
    let spec = Arc::new(m.spec.clone());
    let limit = MountOptions::of(&spec).unwrap_or_default().open + ANSWER_GRACE;
    let opened = match actor.call(Prepare(spec.clone()), limit).await {
        Ok(opened) => opened.map_err(|error| not_opened(&error)),
        // Nothing was published, however far it came.
        Err(error) => Err((silent(error), error.to_string())),
    };
    let opened = opened.and_then(|opened| match check_honoured(&m.spec, opened.nature()) {
        Ok(()) => Ok(opened),
        Err(error) => Err(not_opened(&error)),
    });
    let opened = opened.map_err(|(kind, why)| fail(kind).because(why))?;

    let env = kernel.env().clone();
    Owned::from_start(&env, "lifecycle.swap", finish(kernel, m, mount, spec, opened, leaves, turn)).await
}

/// Whether a store is to be left that may not have all that was acknowledged: nobody would find the rest any more.
async fn leaves_early(kernel: &Kernel, m: &Attach, mount: &Mount, old: &MountSpec) -> bool {
    !stores_the_same(&kernel.catalogue().remembered(old.clone()), &m.spec)
        && mount.has_driver()
        && mount.lease().await.acknowledges_early()
}

/// Refuses at once what would be refused with the gate closed: the old store does not take what is here alone.
async fn takes_what_is_here(kernel: &Kernel, m: &Attach, mount: &Mount) -> Result<(), Error> {
    let now = || mount.cache().map(|cache| (cache.failed, cache.pending_files, cache.pending_bytes));
    let before = now();
    match mount.flush(kernel, FLUSH_MAX).await {
        // More came meanwhile, and it is taken.
        Err(StoreError::TimedOut { .. }) if moves(before, now()) => Ok(()),
        flushed => all_is_there(m, mount, flushed),
    }
}

/// Whether what was pending is another by now, with no more failures, by the counts of failures, files and bytes.
fn moves(before: Option<(u64, u64, u64)>, now: Option<(u64, u64, u64)>) -> bool {
    before.zip(now).is_some_and(|(before, now)| before.0 == now.0 && before != now)
}

/// Closes the gate, and has the old store take what was acknowledged until then.
async fn shut(kernel: &Kernel, m: &Attach, mount: &Mount) -> Result<Closed, Error> {
    let Some(closed) = mount.passage().close(kernel.env(), CLOSING_MAX).await else {
        let busy = Error::new(Op::Mount, &m.point, ErrorKind::Busy);
        return Err(busy.because("changes that are on their way to the old store have not ended"));
    };
    let flushed = mount.flush(kernel, CLOSING_MAX).await;
    all_is_there(m, mount, flushed).map(|()| closed)
}

/// Refuses another store if something that was acknowledged has not come to the old one, which was `flushed`.
fn all_is_there(m: &Attach, mount: &Mount, flushed: Result<(), StoreError>) -> Result<(), Error> {
    let Err(error) = flushed else { return Ok(()) };
    let Some(left) = mount.left_here() else { return Ok(()) };
    let why = format!(
        "what was written back is not at the old store yet: {left} ({error}). Wait for it, delete it, or unmount: then it stays in the data folder, and goes there when \
         that store is mounted again"
    );
    Err(Error::new(Op::Mount, &m.point, ErrorKind::Busy).because(why))
}

/// From the gate on, if it is to be closed.
async fn finish(
    kernel: Arc<Kernel>,
    m: Attach,
    mount: Arc<Mount>,
    spec: Arc<MountSpec>,
    opened: Opened,
    leaves: bool,
    turn: Turn,
) -> Result<Attached, Error> {
    // A migration may have begun while the driver was opened.
    not_aimed_at(&kernel, mount.tree, mount.root, &m.spec)
        .map_err(|taken| Error::new(Op::Mount, &m.point, taken.kind).because(taken.why))?;
    let closed = if leaves { Some(shut(&kernel, &m, &mount).await?) } else { None };
    let policy = history::policy(&mount, &spec);
    // Dropped at the end: watchers are told when the new driver serves.
    let holding = kernel.watches().hold();
    let (op_id, lsn) = committed(&kernel, &m, &mount, &spec, policy, None, holding.held()).await?;
    // An incarnation of the driver's actor that begins from here on opens the new one.
    match closed {
        Some(closed) => mount.hand_over(spec, closed),
        None => mount.set_spec(spec),
    }
    let swapped = published(&kernel, &m, &mount, opened, policy).await?;
    drop(turn);
    let receipt = Receipt::new(op_id, lsn, Durability::Strong);
    told(&kernel, EventKind::MetadataChanged, &m.point, &m.caller, receipt).await;
    Ok(Attached { mount, created: false, swapped: Some(swapped), receipt })
}

/// Puts a driver of another store, which has all that the old one has, in the place of the old one: the end of a migration, from the row on. `with` is committed with
/// the row. The gate is `closed`, and opens when the new driver is published, or when the old one stays.
pub(super) async fn hand_over(
    kernel: &Arc<Kernel>,
    m: Attach,
    mount: &Arc<Mount>,
    opened: Opened,
    with: Change,
    closed: Closed,
) -> Result<(), Error> {
    let spec = opened.spec.clone();
    let policy = history::policy(mount, &spec);
    let holding = kernel.watches().hold();
    let (op_id, lsn) = committed(kernel, &m, mount, &spec, policy, Some(with), holding.held()).await?;
    mount.hand_over(spec, closed);
    let swapped = published(kernel, &m, mount, opened, policy).await;
    let receipt = Receipt::new(op_id, lsn, Durability::Strong);
    told(kernel, EventKind::MetadataChanged, &m.point, &m.caller, receipt).await;
    swapped.map(drop)
}

/// Commits the row of the mount with its new spec.
async fn committed(
    kernel: &Arc<Kernel>,
    m: &Attach,
    mount: &Arc<Mount>,
    spec: &MountSpec,
    policy: Option<HistoryPolicy>,
    with: Option<Change>,
    held: Option<Held>,
) -> Result<(OpId, Lsn), Error> {
    let op_id = kernel.new_op_id();
    let mut entry = mount_entry(m, mount.tree, op_id, Timestamp(kernel.env().wall()));
    entry.told = Some(told_of(&m.caller, told_mount(EventKind::MetadataChanged)));
    let row = MountRow {
        zone: mount.zone.clone(),
        tree: mount.tree,
        point: mount.point.clone(),
        spec: spec.clone(),
        attached: true,
    };
    entry.changes.push(Change::Put(mount_key(mount.root), encode(&row)));
    entry.changes.extend(with);
    let stored = |error: StoreError| Error::new(Op::Mount, &m.point, error.kind()).because(error);
    {
        let rows = kernel.store().rows(mount.tree).map_err(stored)?;
        entry.changes.extend(history::end(&rows, mount, policy).map_err(stored)?);
    }
    match commit(kernel, entry, held).await {
        Ok(lsn) => Ok((op_id, lsn)),
        Err(error) if error.executed() == Executed::Unknown => {
            // What the row says is what the next boot goes by.
            let lsn = kept(kernel, mount, &row).map_err(|_| error.clone())?.ok_or(error)?;
            Ok((op_id, lsn))
        }
        Err(error) => Err(error),
    }
}

/// Has the new driver published, of which the mount's row and spec speak already.
async fn published(
    kernel: &Arc<Kernel>,
    m: &Attach,
    mount: &Arc<Mount>,
    opened: Opened,
    policy: Option<HistoryPolicy>,
) -> Result<DriverSwapped, Error> {
    let swapped = adopt(mount, opened).await.map_err(|error| {
        let why = format!("{error}; the new driver takes over as soon as its actor serves");
        Error::new(Op::Mount, &m.point, silent(error)).because(why).outcome_unknown()
    })?;
    if let Err(error) = begin_history(kernel, m, mount, policy).await {
        tracing::warn!(point = %m.point, %error, "the mount keeps no history before it is attached again");
    }
    Ok(swapped)
}

/// Lets the history begin that the new spec asks for and the old one did not: once the calls have ended that do not know of it.
async fn begin_history(
    kernel: &Arc<Kernel>,
    m: &Attach,
    mount: &Arc<Mount>,
    policy: Option<HistoryPolicy>,
) -> Result<(), Error> {
    let fail = |kind| Error::new(Op::Mount, &m.point, kind);
    let stored = |error: StoreError| fail(error.kind()).because(error);
    let begun = |kernel: &Kernel| {
        let rows = kernel.store().rows(mount.tree)?;
        history::begin(&rows, mount, policy)
    };
    let Some(begun) = begun(kernel).map_err(stored)? else { return Ok(()) };
    let owner = LockOwner { agent: m.caller.agent.clone(), since: Timestamp(kernel.env().wall()) };
    let lock = kernel.locks().lock(&m.point, Mode::Write, Scope::Subtree, owner);
    let Ok(_guard) = kernel.env().timeout(LOCK_WAIT_MAX, lock).await else {
        return Err(fail(ErrorKind::Busy).because("calls below it have not ended"));
    };
    let mut entry = mount_entry(m, mount.tree, kernel.new_op_id(), Timestamp(kernel.env().wall()));
    entry.changes.push(begun);
    commit(kernel, entry, None).await.map(drop)
}

/// Whether the row of the mount is `row`: then somewhere up to the last place in the log.
fn kept(kernel: &Kernel, mount: &Mount, row: &MountRow) -> Result<Option<Lsn>, StoreError> {
    let rows = kernel.store().rows(mount.tree)?;
    let known = remembered(&rows)?;
    if known.into_iter().any(|(root, there)| root == mount.root && there == *row) {
        return kernel.store().last_lsn(mount.tree).map(Some);
    }
    Ok(None)
}

/// Has the new driver published. An actor that dies over it is asked again: what it was given is still good.
pub(super) async fn adopt(mount: &Mount, opened: Opened) -> Result<DriverSwapped, CallError> {
    let actor = mount.actor().ok_or(CallError::Down)?;
    let mut failed = CallError::Down;
    for _ in 0..ADOPT_ATTEMPTS {
        match actor.call(Adopt(opened.clone()), ADOPT_MAX + DRAIN_MAX).await {
            Ok(Ok(swapped)) => return Ok(swapped),
            Ok(Err(error)) => tracing::warn!(mount = %mount.point, %error, "a driver is published again"),
            Err(CallError::Down) => return Err(CallError::Down),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
