//! The steps that changes of services are made of.

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{CallError, ChildExit, ExitReason, Ref};
use nexus_messages::syscall::ServiceSpec;
use nexus_messages::{Caller, Durability, Error, ErrorKind, Op, Receipt, Result, Timestamp, VPath};
use nexus_supervisors::{Monitor, OrderError};
use serde::{Deserialize, Serialize};

use super::messages::{Exited, Left};
use super::start::on_demand;
use super::view::{Active, Clearing, Enlisted, Row, error, path_of};
use super::{Chosen, Registry};
use crate::dispatch::Cover;
use crate::hal::{Change, Entry, RowKey, StoreError, Table, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{decode, encode};
use crate::service::{Begin, Generation, Made, Making};
use crate::volume::{Stop, commit_error};

/// How long the dispatch may take to answer; it is restarted within.
const DISPATCH_MAX: Duration = Duration::from_secs(10);

/// How often a child is stopped whose supervisor dies meanwhile.
const STOP_ATTEMPTS: usize = 16;

/// How many rows of services are read at once.
const PAGE: usize = 1_024;

/// What the metastore remembers of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServiceRow {
    pub(super) factory: String,
    pub(super) config: String,
}

const PREFIX: &str = "service/";

fn key(name: &str) -> RowKey {
    RowKey::new(Table::Settings, format!("{PREFIX}{name}"))
}

/// The services that the metastore remembers.
pub(super) fn remembered(kernel: &Kernel) -> Result<Vec<(Arc<str>, ServiceSpec)>> {
    let failed = |why: StoreError| Error::global(Op::Service, why.kind()).because(why);
    let rows = kernel.store().rows(TreeId::ROOT).map_err(failed)?;
    let prefix = RowKey::new(Table::Settings, PREFIX);
    let mut services = Vec::new();
    let mut after = None;
    loop {
        let page = rows.reader.scan(&prefix, after.as_ref(), PAGE).map_err(failed)?;
        let last = page.len() < PAGE;
        for (key, value) in &page {
            let row: ServiceRow = decode(key, value).map_err(failed)?;
            let name = String::from_utf8_lossy(&key.bytes).trim_start_matches(PREFIX).into();
            services.push((name, ServiceSpec::new(row.factory, row.config)));
        }
        if last {
            return Ok(services);
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
}

/// Remembers a service, as it is to be started at the next boot.
pub(super) async fn remember(
    kernel: &Kernel,
    enlisted: &Enlisted,
    spec: &ServiceSpec,
    caller: &Caller,
) -> Result<Receipt> {
    let row = ServiceRow { factory: spec.factory.clone(), config: spec.config.clone() };
    change_row(kernel, enlisted, caller, Change::Put(key(&enlisted.name), encode(&row))).await
}

/// Remembers the version that serves, if another one is remembered. Whoever does it at the same time, the one that serves in the end is remembered
/// in the end.
pub(super) async fn remember_serving(kernel: &Kernel, enlisted: &Enlisted) -> Result<()> {
    loop {
        let serving = enlisted.serving();
        // What the committer still has of a change that nobody waits for any more comes before this one.
        if enlisted.row() != Row::Uncertain && is_remembered(kernel, &enlisted.name, &serving.spec)? {
            return Ok(());
        }
        remember(kernel, enlisted, &serving.spec, &Caller::administrator()).await?;
    }
}

fn is_remembered(kernel: &Kernel, name: &str, spec: &ServiceSpec) -> Result<bool> {
    let failed = |why: StoreError| error(name, why.kind()).because(why);
    let rows = kernel.store().rows(TreeId::ROOT).map_err(failed)?;
    let key = key(name);
    let Some(value) = rows.reader.get(&key).map_err(failed)? else { return Ok(false) };
    let row: ServiceRow = decode(&key, &value).map_err(failed)?;
    Ok(row == ServiceRow { factory: spec.factory.clone(), config: spec.config.clone() })
}

/// Forgets a service.
pub(super) async fn forget(kernel: &Kernel, enlisted: &Enlisted, caller: &Caller) -> Result<Receipt> {
    change_row(kernel, enlisted, caller, Change::Delete(key(&enlisted.name))).await
}

/// Forgets a service that could not be started.
pub(super) async fn forget_absent(kernel: &Kernel, name: &str, caller: &Caller) -> Result<Receipt> {
    commit(kernel, name, caller, Change::Delete(key(name))).await
}

/// Changes the row of a service. Whoever gives this up, or hears of no outcome, leaves a note that the row is uncertain.
async fn change_row(
    kernel: &Kernel,
    enlisted: &Enlisted,
    caller: &Caller,
    change: Change,
) -> Result<Receipt> {
    enlisted.set_row(Row::Uncertain);
    let done = commit(kernel, &enlisted.name, caller, change).await;
    if done.is_ok() {
        enlisted.set_row(Row::Changed);
    }
    done
}

async fn commit(kernel: &Kernel, name: &str, caller: &Caller, change: Change) -> Result<Receipt> {
    let path = path_of(name).unwrap_or_else(VPath::root);
    let entry = Entry {
        tree: TreeId::ROOT,
        op_id: kernel.new_op_id(),
        repeatable: false,
        caller: caller.agent.clone(),
        op: Op::Service,
        path: path.clone(),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(kernel.env().wall()),
        preconditions: Vec::new(),
        changes: vec![change],
    };
    let op_id = entry.op_id;
    let committed = kernel.store().commit(entry, Box::new(|_| ())).await;
    let lsn = committed.map(|(lsn, _)| lsn).map_err(|why| match commit_error(Op::Service, &path, &why) {
        Stop::Failed(error) => error,
        Stop::Again => error(name, ErrorKind::Busy),
    })?;
    Ok(Receipt::new(op_id, lsn, Durability::Strong))
}

/// What a version is made for.
#[derive(Clone, Copy)]
pub(super) struct Role<'a> {
    number: u64,
    before: Option<&'a Generation>,
    read_only: bool,
}

impl<'a> Role<'a> {
    /// The first version of its service.
    pub(super) const FIRST: Role<'static> = Role { number: 1, before: None, read_only: false };

    /// The version number `number`, to take the place of `before`.
    pub(super) fn next(number: u64, before: &'a Generation) -> Self {
        Self { number, before: Some(before), read_only: false }
    }

    /// The version number `number`, which is tried and may take the place of `before` later.
    pub(super) fn trial(number: u64, before: &'a Generation) -> Self {
        Self { number, before: Some(before), read_only: true }
    }
}

/// Makes a version, not yet started.
pub(super) fn make(
    kernel: &Arc<Kernel>,
    me: &Ref<Registry>,
    name: &Arc<str>,
    spec: &ServiceSpec,
    chosen: Chosen,
    role: Role<'_>,
) -> Made {
    let Role { number, before, read_only } = role;
    let (factory, declared) = chosen;
    let (told, of, services) = (me.clone(), name.clone(), Arc::downgrade(kernel.services()));
    let (life, owner) = (kernel.lives().begin(), Arc::downgrade(kernel));
    let monitor: Monitor = Arc::new(move |exit: &ChildExit| {
        // Its next incarnation knows nothing of what this one has taken.
        if let Some(kernel) = owner.upgrade() {
            kernel.end_life(life);
        }
        if is_failure(&exit.reason)
            && let Some(enlisted) = services.upgrade().and_then(|services| services.find(&of))
            && let Some(version) = enlisted.version(number)
        {
            // Before it is restarted, so that what waits in its mailbox is not begun by it, but by the version that comes back.
            version.breaks(&exit.reason);
        }
        // A registry that is closed for good has nobody to swap back.
        let _ = told.signal(Exited { name: of.clone(), number, reason: exit.reason.clone() });
    });
    let making = Making {
        life,
        name: name.clone(),
        number,
        spec: spec.clone(),
        factory: factory.name().into(),
        version: factory.version(),
        env: kernel.env().clone(),
        kernel: Arc::downgrade(kernel),
        read_only,
        before: before.map(|before| before.view.clone()),
        monitor,
    };
    (declared.make)(making)
}

/// Whether an incarnation that ended so failed by its own fault.
pub(super) fn is_failure(reason: &ExitReason) -> bool {
    !reason.is_normal() && !matches!(reason, ExitReason::Displaced { .. })
}

/// Starts a version as a child of the services' supervisor and waits until it is fit to serve. What it needs is started before, also what would
/// wait for its first call: the supervisor starts one at a time, and the first call may come from the start of this one.
pub(super) async fn start(kernel: &Arc<Kernel>, made: &Made) -> Result<()> {
    let generation = &made.generation;
    for need in &generation.facts.needs {
        on_demand(kernel.clone(), need.service.clone()).await?;
    }
    let started = kernel.service_children().start_child(made.child.clone()).await;
    started.map_err(|why| match why {
        OrderError::Start(why) => not_fit(generation, "its start", &why),
        why => error(&generation.service, ErrorKind::Busy).because(why),
    })?;
    Begin::of(generation).await.map_err(|why| not_fit(generation, "its probe", &why))?;
    generation.set_started(true);
    Ok(())
}

/// Why a version does not come to serve.
pub(super) fn not_fit(generation: &Generation, step: &str, why: &ExitReason) -> Error {
    let kind = match why {
        ExitReason::TimedOut { .. } => ErrorKind::TimedOut,
        ExitReason::Error(_) => ErrorKind::InvalidArgument,
        _ => ErrorKind::Crashed,
    };
    error(&generation.service, kind)
        .because(format!("{} {}: {step}: {why}", generation.factory, generation.version))
}

/// Stops a version and forgets its child. What waits in its mailbox goes back to the callers.
pub(super) async fn stop(kernel: &Kernel, generation: &Generation) {
    generation.set_started(false);
    stop_child(kernel, &generation.child_id).await;
    // What it is made of may be looked at for a while yet, so its life does not wait for that.
    kernel.finish_life(generation.life);
}

async fn stop_child(kernel: &Kernel, id: &str) {
    let supervisor = kernel.service_children();
    for _ in 0..STOP_ATTEMPTS {
        let stopped = match supervisor.terminate_child(id).await {
            Ok(()) => supervisor.delete_child(id).await,
            failed => failed,
        };
        match stopped {
            Ok(()) | Err(OrderError::Unknown(_)) => return,
            // It died of the order, or of something else: its next incarnation has the child again.
            Err(OrderError::Runs(_) | OrderError::Call(CallError::Crashed { .. } | CallError::Timeout)) => {}
            Err(why) => return tracing::debug!(child = id, %why, "a version is stopped with its supervisor"),
        }
    }
    tracing::error!(child = id, "a version that is not needed cannot be stopped");
}

/// Lets calls see the hooks of the versions of the service that may serve: of whichever does when they begin. None when it is removed.
pub(super) async fn cover(kernel: &Kernel, enlisted: &Arc<Enlisted>) -> Result<()> {
    let cover = Cover { enlisted: enlisted.clone() };
    let covered = kernel.dispatch_actor().call(cover, DISPATCH_MAX).await;
    match covered {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(error(&enlisted.name, ErrorKind::InvalidArgument).because(why)),
        Err(why) => Err(super::lost(&enlisted.name, why)),
    }
}

/// Undoes the beginning of a change when it is dropped: in its own task, since whoever drops it may be gone. Every step is harmless when it
/// is repeated.
pub(super) struct Undo {
    kernel: Arc<Kernel>,
    enlisted: Arc<Enlisted>,
    /// None when there is nothing to undo any more. The name is kept from others for as long as there is.
    begun: Option<(Begun, Clearing)>,
}

/// What a change began with.
#[derive(Clone)]
enum Begun {
    /// The service itself.
    Service,
    /// A version of it.
    Version(Arc<Generation>),
}

impl Undo {
    /// A service that was not there is about to be started.
    pub(super) fn service(kernel: &Arc<Kernel>, enlisted: &Arc<Enlisted>) -> Self {
        Self::of(kernel, enlisted, Begun::Service)
    }

    /// `version` is about to be started.
    pub(super) fn version(kernel: &Arc<Kernel>, enlisted: &Arc<Enlisted>, version: &Arc<Generation>) -> Self {
        enlisted.comes(version);
        Self::of(kernel, enlisted, Begun::Version(version.clone()))
    }

    fn of(kernel: &Arc<Kernel>, enlisted: &Arc<Enlisted>, begun: Begun) -> Self {
        let begun = Some((begun, kernel.services().clear(&enlisted.name)));
        Self { kernel: kernel.clone(), enlisted: enlisted.clone(), begun }
    }

    /// Undoes it now. Dropping the future leaves it to be undone as if it had not been begun.
    pub(super) async fn now(mut self) {
        if let Some((begun, _)) = &self.begun {
            undo(self.kernel.clone(), self.enlisted.clone(), begun.clone()).await;
            self.begun = None;
        }
    }

    /// What was begun stays.
    pub(super) fn keep(mut self) {
        if let Some((Begun::Version(version), _)) = self.begun.take() {
            self.enlisted.has_come(version.number);
        }
    }
}

async fn undo(kernel: Arc<Kernel>, enlisted: Arc<Enlisted>, begun: Begun) {
    // First the hooks, which nobody has met: calls meet those of the version that serves.
    let version = match begun {
        Begun::Service => {
            enlisted.leave();
            enlisted.serving()
        }
        Begun::Version(version) => {
            enlisted.end_trial(version.number);
            enlisted.has_come(version.number);
            if enlisted.is_needed(&version.child_id) {
                // Dropped after it was published.
                return;
            }
            version
        }
    };
    if let Err(why) = cover(&kernel, &enlisted).await {
        tracing::warn!(service = %version.service, %why, "hooks of a version that never served are still listed");
    }
    stop(&kernel, &version).await;
    // What was remembered of a service that never was is not to come at the next boot, unless another one has its name.
    if enlisted.is_leaving()
        && enlisted.row() != Row::Untouched
        && kernel.services().find(&enlisted.name).is_none()
        && let Err(why) = put_back(&kernel, &enlisted).await
    {
        tracing::warn!(service = %enlisted.name, %why, "a service that was refused is still remembered");
    }
}

/// Remembers what was remembered under the name before: one that could not be started, or none.
async fn put_back(kernel: &Kernel, enlisted: &Enlisted) -> Result<Receipt> {
    let caller = Caller::administrator();
    match kernel.services().listed().absent.get(&enlisted.name) {
        Some((before, _)) => remember(kernel, enlisted, before, &caller).await,
        None => forget(kernel, enlisted, &caller).await,
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some((begun, clearing)) = self.begun.take() {
            let undoing = undo(self.kernel.clone(), self.enlisted.clone(), begun);
            self.kernel.env().spawn("registry.undo", async move {
                undoing.await;
                drop(clearing);
            });
        }
    }
}

/// After a crash of the registry: what a change left behind is brought in order. What was published serves, what was not is undone by its
/// [`Undo`], and what was about to be removed is, as `me` is told then. Not in the registry's own time: it asks others, which may be starting as
/// well.
pub(super) fn settle(kernel: &Arc<Kernel>, me: &Ref<Registry>, enlisted: &Arc<Enlisted>) {
    enlisted.set_trial(None);
    let change = enlisted.only_change();
    enlisted.forget_unused_reserve();
    enlisted.note_published();
    let clearing = kernel.services().clear(&enlisted.name);
    let (kernel, me, enlisted) = (kernel.clone(), me.clone(), enlisted.clone());
    kernel.env().clone().spawn("registry.settle", async move {
        let turn = enlisted.settling.lock().await;
        // Not what is being removed: it is forgotten.
        if !enlisted.is_leaving()
            && let Err(why) = remember_serving(&kernel, &enlisted).await
        {
            tracing::error!(service = %enlisted.name, %why, "the next boot starts another version");
        }
        if let Err(why) = cover(&kernel, &enlisted).await {
            tracing::warn!(service = %enlisted.name, %why, "hooks of another version may still be listed");
        }
        if enlisted.is_leaving() {
            // It is forgotten already. Its calls end, and it.
            end(&kernel, &enlisted).await;
        }
        let own = format!("{}@", enlisted.name);
        for child in kernel.service_children().which_children() {
            // Asked now: of what was needed when it was listed, some may not be, and the other way round.
            if child.id.starts_with(&own) && !enlisted.is_needed(&child.id) {
                stop_child(&kernel, &child.id).await;
            }
        }
        if enlisted.is_leaving() {
            // Then it is not listed any more. A registry that is closed for good lists nothing.
            let _ = me.signal(Left { enlisted: enlisted.clone() });
        }
        drop((turn, change, clearing));
    });
}

/// Ends a service that nobody enters any more, once its last caller has left. Repeating it waits for the same callers: those who are inside are known
/// to the slot, whoever asked them to leave.
pub(super) async fn end(kernel: &Kernel, enlisted: &Enlisted) {
    let serving = enlisted.serving();
    // Replaced by itself: a way to hear when those who entered before have left.
    let itself = Box::new(Active { generation: serving.clone() });
    let same = std::future::ready(Ok::<_, std::convert::Infallible>(itself));
    if let Err(why) = enlisted.slot.swap_overlap(kernel.env(), Duration::ZERO, same).await {
        // Whoever is replacing it is ending it, in a registry that does not know yet that it is not the one any more.
        tracing::debug!(service = %enlisted.name, %why, "it is being ended already");
    }
    if kernel.env().timeout(serving.facts.swap.limit, enlisted.slot.left()).await.is_err() {
        tracing::warn!(service = %enlisted.name, "it is ended with calls inside");
    }
    for version in enlisted.versions().iter().rev() {
        stop(kernel, version).await;
    }
    let _turn = enlisted.retiring.lock().await;
    for version in enlisted.going() {
        stop(kernel, &version).await;
        enlisted.has_gone(version.number);
    }
}
