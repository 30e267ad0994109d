//! The way of every mutation from the path lock on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::{
    Caller, Consistency, Durability, Error, ErrorKind, Event, Message, OpId, Receipt, Result, Timestamp,
};

use super::admit::{Admissible, Admitted, Which, admit_straight, admit_streamed, allow, pass};
use super::locate::{ATTEMPTS_MAX, Located, is_served};
use crate::hal::StoreError;
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, Scope};
use crate::owned::{Owned, Ownership};
use crate::registry::is_service_path;
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

    /// Whether all below the paths is locked with them.
    fn scope(&self, admitted: &Admitted<Self>) -> Scope;

    /// How the first path is locked.
    fn first_mode(&self) -> Mode {
        Mode::Write
    }

    /// Does it, with the locks held.
    fn run(
        kernel: &Arc<Kernel>,
        intent: &Intent,
        admitted: &Admitted<Self>,
    ) -> impl Future<Output = Result<Self::Done, Stop>> + Send;

    /// The answer to a repeat of what was committed before, from what is there now; none when that is gone.
    fn repeated(&self, first: &Located, second: Option<&Located>, receipt: Receipt) -> Option<Self::Done>;

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
        Ok(begun) => begun,
        // In a box: the future of each mutation would have room for it.
        Err(call) => Box::pin(begin(kernel, caller, call)).await?,
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
    }
}

/// Keeps track of a mutation: it is under way from here on.
pub(super) fn passing<M: Mutation>(kernel: &Kernel, intent: &Intent, call: &M) -> Passing {
    kernel.underway().begin(intent.op_id, &intent.caller, intent.op, call.path())
}

/// A mutation at the path lock.
type Begun<M> = (Intent, Passing, Admitted<M>);

/// As [`begin`], of a mutation that waits for nobody on its way there. Any other is given back.
fn begin_straight<M: Mutation>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: M,
) -> Result<Result<Begun<M>, M>> {
    let admitted = match admit_straight(kernel, caller, call) {
        Ok(admitted) => admitted,
        Err(call) => return Ok(Err(call)),
    };
    admitted.call.validate()?;
    let intent = intent(kernel, caller, &admitted.call);
    let passing = passing(kernel, &intent, &admitted.call);
    Ok(Ok((intent, passing, admitted)))
}

/// Takes a mutation up to the path lock.
pub(crate) async fn begin<M: Mutation>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: M,
) -> Result<Begun<M>> {
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

/// What became of a mutation.
enum Done<T> {
    /// It was done by this very call.
    Now(T),
    /// It was done before, by a call with the same operation id.
    Before(T),
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
    let (done, is_new) = match attempt(kernel, intent, admitted, ownership).await {
        Ok(Done::Now(done)) => (Ok(done), true),
        Ok(Done::Before(done)) => (Ok(done), false),
        Err(error) => (Err(error), false),
    };
    if ends_hooks {
        admitted.step_back();
    }
    admitted.after(&done).await;
    let changed = admitted.second.as_ref().unwrap_or(&admitted.first);
    // What the kernel is told there is committed nowhere.
    let is_new = is_new && !sys::serves(&changed.site.path);
    if let (true, Ok(done)) = (is_new, &done)
        && kernel.dispatch().summary().has_any_observers()
        && let Some(event) = M::event(intent, admitted, done)
    {
        let changed = changed.site.mount.clone();
        admitted.observe(kernel, &changed, intent.durability(&changed), vec![event]).await;
    }
    done
}

async fn attempt<M: Mutation>(
    kernel: &Arc<Kernel>,
    intent: &mut Intent,
    admitted: &mut Admitted<M>,
    ownership: &Ownership,
) -> Result<Done<M::Done>> {
    for _ in 0..ATTEMPTS_MAX {
        // What is only read may be on a mount that refuses changes.
        let first = Some(&admitted.first.site).filter(|_| admitted.call.first_mode() == Mode::Write);
        for site in first.into_iter().chain(admitted.second.as_ref().map(|second| &second.site)) {
            writable(intent, site)?;
        }
        let scope = admitted.call.scope(admitted);
        let mut claims = vec![(admitted.first.site.path.clone(), admitted.call.first_mode(), scope)];
        claims.extend(admitted.second.as_ref().map(|second| (second.site.path.clone(), Mode::Write, scope)));
        let owner = LockOwner { agent: intent.caller.agent.clone(), since: intent.at };
        let waited = kernel.env().timeout(LOCK_WAIT_MAX, kernel.locks().lock_all(claims, owner)).await;
        let Ok(guards) = waited else {
            let error = Error::new(intent.op, &admitted.first.site.path, ErrorKind::TimedOut);
            return Err(error.because(format!("others hold the path for over {LOCK_WAIT_MAX:?}")));
        };

        ownership.take();
        // Under the lock, so that of two changes of one path the later one has the later time.
        intent.at = Timestamp(kernel.env().wall());
        if let Some(done) = repeat(kernel, intent, admitted).await {
            return done.map(Done::Before);
        }
        let stopped = if are_served(kernel, intent, admitted) {
            let run = async {
                if kernel.gate().is_guarded() {
                    look_again(kernel, intent, admitted).await?;
                }
                M::run(kernel, intent, admitted).await
            };
            match run.await {
                Ok(done) => return Ok(Done::Now(done)),
                Err(stopped) => stopped,
            }
        } else {
            Stop::Again
        };
        drop(guards);
        match stopped {
            Stop::Failed(error) => return Err(error),
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
        return Err(error.unwrap_or_else(|| Error::new(intent.op, &site.path, ErrorKind::Busy)));
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
    let sites = [Some(&admitted.first.site), admitted.second.as_ref().map(|second| &second.site)];
    sites.into_iter().flatten().all(|site| is_served(kernel, &intent.caller.zone, site))
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
        if node.is_none() && kernel.has_mounts_below(&site.mount.zone, &site.path) {
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
