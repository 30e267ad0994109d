//! The way of every mutation from the path lock on.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nexus_messages::syscall::Fence;
use nexus_messages::{
    Caller, Consistency, Durability, Error, ErrorKind, Event, Message, Op, OpId, Receipt, Result, Timestamp,
    VPath,
};

use super::admit::{Admissible, Admitted, Which, admit_straight, admit_streamed, allow, announce, pass};
use super::locate::{ATTEMPTS_MAX, Located, is_served};
use crate::advisory::Hold;
use crate::hal::StoreError;
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, PathGuards, Scope};
use crate::mounts::Naming;
use crate::owned::{Owned, Ownership};
use crate::registry::is_service_path;
use crate::store::Announced;
use crate::sys;
use crate::underway::Passing;
use crate::volume::{Intent, Site, Staged, Stop, Volume, commit_error, store_error};

/// How long a call waits for the locks of its paths.
pub(super) const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);

/// A syscall that changes something.
pub(crate) trait Mutation: Admissible + Sync {
    /// The client's operation id.
    fn op_id(&self) -> Option<OpId>;

    /// When it is to be acknowledged, if the caller says so.
    fn consistency(&self) -> Option<Consistency>;

    /// The lock under which it is made, if the caller says so.
    fn fence(&self) -> Option<&Fence>;

    /// Whether all below the paths is locked with them.
    fn scope(&self, admitted: &Admitted<Self>) -> Scope;

    /// How the first path is locked.
    fn first_mode(&self) -> Mode {
        Mode::Write
    }

    /// Whether it waits for nobody, if the paths are free and what it commits need not be durable, and never once that is committed: then it is done on the
    /// spot.
    fn may_be_at_once(&self) -> bool {
        false
    }

    /// Whether what is there takes it without locks and without a commit, as [`elsewhere`](Self::elsewhere) does it.
    fn leads_elsewhere(&self, intent: &Intent, first: &Located) -> bool {
        let _ = (intent, first);
        false
    }

    /// Does it without locks and without a commit. It ends with its caller.
    fn elsewhere(
        kernel: &Arc<Kernel>,
        intent: &Intent,
        admitted: &Admitted<Self>,
    ) -> impl Future<Output = Result<Self::Done>> + Send {
        let _ = (kernel, intent);
        let error = Error::new(Self::OP, admitted.call.path(), ErrorKind::NotSupported);
        std::future::ready(Err(error))
    }

    /// Does it, with the locks held.
    fn run(
        kernel: &Arc<Kernel>,
        intent: &Intent,
        admitted: &Admitted<Self>,
    ) -> impl Future<Output = Result<Self::Done, Stop>> + Send;

    /// The answer to a repeat of what was committed before, from what is there now; none when that is gone.
    fn repeated(&self, first: &Located, second: Option<&Located>, receipt: Receipt) -> Option<Self::Done>;

    /// The proof of its commit.
    fn receipt(done: &Self::Done) -> Receipt;

    /// What observers are told of it; nothing when nothing changed.
    fn event(intent: &Intent, admitted: &Admitted<Self>, done: &Self::Done) -> Option<Event>;
}

/// Executes a mutation.
pub(crate) async fn mutate<M: Mutation>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: M,
) -> Result<M::Done> {
    let (intent, passing, admitted) = match begin_straight(kernel, caller, call)? {
        Begun::Done(done) => return done,
        Begun::Untold(untold) => return tell_of(kernel, untold).await,
        Begun::Straight(intent, admitted) => {
            let passing = passing(kernel, &intent, &admitted.call);
            (intent, passing, admitted)
        }
        // In a box: the future of each mutation would have room for it.
        Begun::Not(call) => Box::pin(begin(kernel, caller, call)).await?,
    };
    carry_out(kernel, intent, passing, admitted).await
}

/// What is meant by `call`, before anything happens.
pub(super) fn intent<M: Mutation>(kernel: &Kernel, caller: &Arc<Caller>, call: &M) -> Intent {
    let client = call.op_id();
    Intent {
        caller: caller.clone(),
        op: M::OP,
        op_id: client.unwrap_or_else(|| kernel.new_op_id()),
        repeatable: client.is_some(),
        consistency: call.consistency(),
        at: Timestamp(kernel.env().wall()),
        scales: None,
        staged: None,
        within: None,
        at_once: false,
        held: None,
        is_untold: false,
    }
}

/// Keeps track of a mutation: it is under way from here on.
pub(super) fn passing<M: Mutation>(kernel: &Kernel, intent: &Intent, call: &M) -> Passing {
    kernel.underway().begin(intent.op_id, &intent.caller, intent.op, call.path())
}

/// How far a mutation came without waiting for anybody.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it was made")]
enum Begun<M: Mutation> {
    /// To its end.
    Done(Result<M::Done>),
    /// It is done, and observers are to be told who came meanwhile.
    Untold(Box<(Admitted<M>, M::Done, Announced)>),
    /// To the path lock.
    Straight(Intent, Admitted<M>),
    Not(M),
}

/// Takes a mutation as far as it waits for nobody.
fn begin_straight<M: Mutation>(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: M) -> Result<Begun<M>> {
    let mut admitted = match admit_straight(kernel, caller, call) {
        Ok(admitted) => admitted,
        Err(call) => return Ok(Begun::Not(call)),
    };
    admitted.call.validate()?;
    let mut intent = intent(kernel, caller, &admitted.call);
    let done = at_once(kernel, &mut intent, &mut admitted);
    Ok(match done {
        Some(Ok((done, Some(told)))) => Begun::Untold(Box::new((admitted, done, told))),
        Some(done) => Begun::Done(done.map(|(done, _)| done)),
        None => Begun::Straight(intent, admitted),
    })
}

/// Tells observers of a mutation that was done on the spot, whoever waits for it.
async fn tell_of<M: Mutation>(
    kernel: &Arc<Kernel>,
    untold: Box<(Admitted<M>, M::Done, Announced)>,
) -> Result<M::Done> {
    let (env, kernel) = (kernel.env().clone(), kernel.clone());
    let told = async move {
        let (admitted, done, told) = *untold;
        admitted.observe(&kernel, told).await;
        Ok(done)
    };
    Owned::from_start(&env, <M as Message>::NAME, told).await
}

/// Executes a mutation on the spot: without a future that somebody might have to finish. None when it would have to wait for somebody: then
/// nothing has changed.
fn at_once<M: Mutation>(
    kernel: &Arc<Kernel>,
    intent: &mut Intent,
    admitted: &mut Admitted<M>,
) -> Option<Result<Now<M::Done>>> {
    // Nobody knows the id of the operation before it has ended: it need not be found under way.
    let is_known = intent.repeatable;
    let site = &admitted.first.site;
    if is_known || !admitted.call.may_be_at_once() || intent.durability(&site.mount) == Durability::Strong {
        return None;
    }
    // What a driver has done would not be as if it had not begun.
    if !matches!(Volume::to_change(kernel, site, intent), Volume::Rows(_)) {
        return None;
    }
    intent.at_once = true;
    let attempted = {
        let attempt = pin!(attempt(kernel, intent, admitted, &Ownership::NONE));
        attempt.poll(&mut Context::from_waker(Waker::noop()))
    };
    intent.at_once = false;
    match attempted {
        Poll::Ready(Ok(Done::Now(done))) => Some(Ok(done)),
        Poll::Ready(Err(error)) => Some(passing(kernel, intent, &admitted.call).ends(Err(error))),
        Poll::Ready(Ok(Done::Before(_) | Done::NotYet | Done::Elsewhere)) | Poll::Pending => None,
    }
}

/// Takes a mutation up to the path lock.
pub(crate) async fn begin<M: Mutation>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: M,
) -> Result<(Intent, Passing, Admitted<M>)> {
    call.validate()?;
    let intent = intent(kernel, caller, &call);
    let passing = passing(kernel, &intent, &call);
    let (intent, admitted) = begin_as(kernel, intent, call).await?;
    Ok((intent, passing, admitted))
}

/// As [`begin`], for a call of which is known what is meant.
pub(super) async fn begin_as<M: Mutation>(
    kernel: &Arc<Kernel>,
    mut intent: Intent,
    call: M,
) -> Result<(Intent, Admitted<M>)> {
    let (caller, stream) = (intent.caller.clone(), intent.staged.as_ref().map(Staged::size));
    let admitted = admit_streamed(kernel, &caller, call, Some(intent.op_id), stream).await?;
    intent.scales = admitted.scales();
    Ok((intent, admitted))
}

/// Takes a mutation from the path lock on to its end.
pub(crate) async fn carry_out<M: Mutation>(
    kernel: &Arc<Kernel>,
    mut intent: Intent,
    passing: Passing,
    mut admitted: Admitted<M>,
) -> Result<M::Done> {
    let kernel = kernel.clone();
    let env = kernel.env().clone();
    // What it takes along stays where it is: each hand it went through would have room for it.
    let executed = |ownership| async move {
        let done = execute(&kernel, &mut intent, &mut admitted, &ownership).await;
        passing.ends(done)
    };
    Owned::new(&env, <M as Message>::NAME, executed).await
}

/// What was done by this very call, and what observers are to be told of it.
type Now<T> = (T, Option<Announced>);

/// What became of a mutation.
enum Done<T> {
    /// It was done by this very call.
    Now(Now<T>),
    /// It was done before, by a call with the same operation id.
    Before(T),
    /// It was to be at once, and cannot be.
    NotYet,
    /// It is to be done without locks and without a commit.
    Elsewhere,
}

async fn execute<M: Mutation>(
    kernel: &Arc<Kernel>,
    intent: &mut Intent,
    admitted: &mut Admitted<M>,
    ownership: &Ownership,
) -> Result<M::Done> {
    let ends_hooks = is_service_path(&admitted.first.site.path);
    if ends_hooks {
        // Nothing of it is weighed: it commits no entries.
        intent.scales = None;
        admitted.step_aside();
    }
    let mut committed = None;
    let (done, told) = match attempt(kernel, intent, admitted, ownership).await {
        Ok(Done::Now((done, told))) => {
            committed = M::receipt(&done).place_in(&admitted.first.site.mount.zone);
            (Ok(done), told)
        }
        Ok(Done::Before(done)) => (Ok(done), None),
        Ok(Done::NotYet) => unreachable!("it was to wait"),
        Ok(Done::Elsewhere) => {
            ownership.give_back();
            // Nothing of it is weighed, and it may wait for others: whoever swaps a service that saw the call must not wait for as long.
            intent.scales = None;
            admitted.step_aside();
            let done = Box::pin(M::elsewhere(kernel, intent, admitted)).await;
            admitted.step_back();
            (done, None)
        }
        Err(error) => (Err(error), None),
    };
    if ends_hooks {
        admitted.step_back();
    }
    admitted.after_at(&done, committed).await;
    if let Some(told) = told {
        admitted.observe(kernel, told).await;
    }
    done
}

/// What observers are to be told of what was done, while its locks are held; none when nobody is to be told.
fn announced<M: Mutation>(
    kernel: &Kernel,
    intent: &Intent,
    admitted: &Admitted<M>,
    done: &M::Done,
) -> Option<Announced> {
    let changed = &admitted.second.as_ref().unwrap_or(&admitted.first).site;
    // What the kernel is told there is committed nowhere.
    if sys::serves(&changed.path) || !kernel.dispatch().summary().has_any_observers() {
        return None;
    }
    let event = M::event(intent, admitted, done)?;
    announce(kernel, &changed.mount, intent.durability(&changed.mount), vec![event])
}

async fn attempt<M: Mutation>(
    kernel: &Arc<Kernel>,
    intent: &mut Intent,
    admitted: &mut Admitted<M>,
    ownership: &Ownership,
) -> Result<Done<M::Done>> {
    for _ in 0..ATTEMPTS_MAX {
        if admitted.call.leads_elsewhere(intent, &admitted.first) {
            return Ok(Done::Elsewhere);
        }
        // What is only read may be on a mount that refuses changes.
        let first = Some(&admitted.first.site).filter(|_| admitted.call.first_mode() == Mode::Write);
        for site in first.into_iter().chain(admitted.second.as_ref().map(|second| &second.site)) {
            writable(intent, site)?;
        }
        // Dropped after the guards: watchers are told when the locks are gone.
        let holding = kernel.watches().hold();
        intent.held = holding.held();
        let (scope, mode) = (admitted.call.scope(admitted), admitted.call.first_mode());
        let owner = LockOwner { agent: intent.caller.agent.clone(), since: intent.at };
        let now = match &admitted.second {
            None => kernel.locks().lock_now(&admitted.first.site.path, mode, scope, &owner),
            Some(_) => None,
        };
        let guards = match now {
            Some(guards) => guards,
            None if intent.at_once => return Ok(Done::NotYet),
            None => lock(kernel, intent, admitted, owner).await?,
        };

        ownership.take();
        // Under the lock, so that of two changes of one path the later one has the later time.
        intent.at = Timestamp(kernel.env().wall());
        if let Some(done) = repeat(kernel, intent, admitted).await {
            return done.map(Done::Before);
        }
        // Kept until it is committed: whoever gets that lock next finds it done.
        let _fence =
            fenced(kernel, &intent.caller, (M::OP, &admitted.first.site.path), admitted.call.fence()).await?;
        let stopped = if are_served(kernel, intent, admitted) {
            let run = async {
                if kernel.gate().is_guarded() {
                    look_again(kernel, intent, admitted).await?;
                }
                // Until it has ended, and no longer than the guards.
                let deep = scope == Scope::Subtree;
                let _naming = Naming::of(sites(admitted).map(|site| (&*site.mount, &site.path, deep)));
                M::run(kernel, intent, admitted).await
            };
            match run.await {
                Ok(done) => {
                    let told = announced(kernel, intent, admitted, &done);
                    return Ok(Done::Now((done, told)));
                }
                Err(stopped) => stopped,
            }
        } else {
            Stop::Again
        };
        drop(guards);
        match stopped {
            Stop::Failed(error) => return Err(error),
            Stop::Again if intent.at_once => return Ok(Done::NotYet),
            Stop::Again => {
                ownership.give_back();
                let (first, second) = pass(kernel, &intent.caller, &admitted.call).await?;
                let leads = |first: &Located, second: Option<&Located>| {
                    (first.site.path.clone(), second.map(|second| second.site.path.clone()))
                };
                let led = leads(&admitted.first, admitted.second.as_ref());
                if admitted.is_shown() && leads(&first, second.as_ref()) != led {
                    let error = Error::new(intent.op, &led.0, ErrorKind::Busy);
                    return Err(error.because("a link leads elsewhere since hooks were asked: not executed"));
                }
                (admitted.first, admitted.second) = (first, second);
            }
        }
    }
    let error = Error::new(intent.op, &admitted.first.site.path, ErrorKind::Busy);
    Err(error.because(format!("it changed under the call {ATTEMPTS_MAX} times in a row")))
}

/// Lets a change pass that is made under a lock, when that is held.
pub(super) async fn fenced(
    kernel: &Arc<Kernel>,
    caller: &Caller,
    (op, at): (Op, &VPath),
    fence: Option<&Fence>,
) -> Result<Option<Hold>> {
    let Some(fence) = fence else { return Ok(None) };
    let zone = &caller.zone;
    // A lock is filed in the zone of the mount at its path.
    let routed = kernel
        .routes()
        .read(|routes| routes.route(zone, &fence.path).map(|routed| routed.mount.zone.clone()));
    let held = kernel.hold_lock(routed.as_ref().unwrap_or(zone), fence).await?;
    held.map(Some).ok_or_else(|| {
        let Fence { path, token, .. } = fence;
        let error = Error::new(op, at, ErrorKind::Fenced);
        error.because(format!("the lock on {path} with the token {token} is not held, or not any more"))
    })
}

/// Waits for the locks of the paths.
async fn lock<M: Mutation>(
    kernel: &Arc<Kernel>,
    intent: &Intent,
    admitted: &Admitted<M>,
    owner: LockOwner,
) -> Result<PathGuards> {
    let scope = admitted.call.scope(admitted);
    let mut claims = vec![(admitted.first.site.path.clone(), admitted.call.first_mode(), scope)];
    claims.extend(admitted.second.as_ref().map(|second| (second.site.path.clone(), Mode::Write, scope)));
    let waited = kernel.env().timeout(LOCK_WAIT_MAX, kernel.locks().lock_all(claims, owner)).await;
    waited.map_err(|_| {
        let error = Error::new(intent.op, &admitted.first.site.path, ErrorKind::TimedOut);
        error.because(format!("others hold the path for over {LOCK_WAIT_MAX:?}"))
    })
}

/// The answer to a call that was executed before: by its client's operation id, while the log has a record of it.
async fn repeat<M: Mutation>(
    kernel: &Kernel,
    intent: &Intent,
    admitted: &Admitted<M>,
) -> Option<Result<M::Done>> {
    let changed = admitted.second.as_ref().unwrap_or(&admitted.first);
    let receipt = match before(kernel, intent, &changed.site).await {
        Ok(found) => found?,
        Err(error) => return Some(Err(error)),
    };
    let done = admitted.call.repeated(&admitted.first, admitted.second.as_ref(), receipt);
    Some(done.ok_or_else(|| {
        let error = Error::new(intent.op, &admitted.first.site.path, ErrorKind::NotFound);
        error.because(format!("it was executed before, at {}, and what it made is gone since", receipt.lsn))
    }))
}

/// The receipt of what was executed before at `site`, by its client's operation id, while the log has a record of it: as durable as is asked for now.
pub(super) async fn before(kernel: &Kernel, intent: &Intent, site: &Site) -> Result<Option<Receipt>> {
    if !intent.repeatable {
        return Ok(None);
    }
    let failed = |error: StoreError| store_error(intent.op, &site.path, &error);
    let store = kernel.store();
    let Some((tree, lsn)) = store.metastore().outcome(intent.op_id).map_err(failed)? else { return Ok(None) };
    let receipt = intent.receipt(&site.mount, lsn);
    if receipt.durability == Durability::Strong
        && let Err(error) = store.make_durable(tree, lsn).await
    {
        let error = commit_error(intent.op, &site.path, &error).failed();
        let error = error.unwrap_or_else(|| Error::new(intent.op, &site.path, ErrorKind::Busy));
        // It was executed, and may stay so.
        return Err(error.outcome_unknown());
    }
    Ok(Some(receipt))
}

/// Refuses what `site` does not take: any change of what can only be read, and a promise that nothing there can keep.
pub(super) fn writable(intent: &Intent, site: &Site) -> Result<()> {
    if site.mount.is_read_only() {
        return Err(Error::new(intent.op, &site.path, ErrorKind::ReadOnly));
    }
    if intent.consistency == Some(Consistency::Strong) && site.mount.forgets() {
        let error = Error::new(intent.op, &site.path, ErrorKind::NotSupported);
        return Err(error.because(format!("nothing on the mount {} outlives the process", site.mount.point)));
    }
    Ok(())
}

/// Whether the mounts that the paths were resolved to still serve them.
fn are_served<M: Mutation>(kernel: &Kernel, intent: &Intent, admitted: &Admitted<M>) -> bool {
    sites(admitted).all(|site| is_served(kernel, &intent.caller.zone, site))
}

/// What the paths lead to.
fn sites<M: Mutation>(admitted: &Admitted<M>) -> impl Iterator<Item = &Site> {
    std::iter::once(&admitted.first.site).chain(admitted.second.as_ref().map(|second| &second.site))
}

/// Looks under the lock at what a call finds, and asks the gate about what it was not asked about when the call was admitted: somebody else's file, say, that came
/// into being since.
pub(super) async fn look_again<S: Admissible>(
    kernel: &Arc<Kernel>,
    intent: &Intent,
    admitted: &mut Admitted<S>,
) -> Result<(), Stop> {
    for which in [Which::First, Which::Second] {
        let located = match which {
            Which::First => Some(&admitted.first),
            Which::Second => admitted.second.as_ref(),
        };
        let Some(located) = located.cloned() else { continue };
        let site = &located.site;
        let found = match Volume::to_change(kernel, site, intent) {
            Volume::Rows(volume) => volume.find(site),
            Volume::Paths(volume) => volume.find(site).await,
            Volume::Sys(_) => continue,
        };
        let node = match found {
            Ok(node) => node,
            // Whoever does it says what is wrong.
            Err(StoreError::NotADirectory { .. }) => continue,
            Err(error) => return Err(store_error(intent.op, &site.path, &error).into()),
        };
        // A directory that is there because of a mount below it has no row.
        if node.is_none() && kernel.has_mounts_below(&intent.caller.zone, &site.path) {
            continue;
        }
        let now = Located { node, ..located.clone() };
        let owner = |located: &Located| located.node.as_ref().map(|node| node.metadata.owner.clone());
        if !now.is_same(&located) || owner(&now) != owner(&located) {
            let right = admitted.call.right(which, now.node.is_some());
            let asked = allow(kernel, &intent.caller, intent.op, right, &now);
            // The paths are locked meanwhile: a provider that does not answer must not hold them for good.
            let Ok(answer) = kernel.env().timeout(LOCK_WAIT_MAX, asked).await else {
                let error = Error::new(intent.op, &site.path, ErrorKind::PermissionDenied);
                return Err(error.because(format!("no answer within {LOCK_WAIT_MAX:?}")).into());
            };
            answer?;
        }
        match which {
            Which::First => admitted.first = now,
            Which::Second => admitted.second = Some(now),
        }
    }
    Ok(())
}
