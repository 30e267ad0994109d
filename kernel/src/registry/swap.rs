//! One version in the place of another, while both are called.
//!
//! ```text
//! start and probe the new one beside the old → trial in shadow, if asked for → show the hooks of both
//!   → (exclusive: shut the gate, drain) → copy the state over → probe again → publish → remember
//!   → keep the old one in reserve → probation → end the old one, or back to it
//! ```
//!
//! Everything before the publish can fail, panic, hang, or be given up by its caller, and leaves the old version serving. The publish is one
//! pointer: instance, hooks and exports change with it.

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::{ExitReason, Ref, SlotSwapError, Swapped};
use nexus_messages::syscall::{ServiceSwapped, SwapMode};
use nexus_messages::{Error, ErrorKind, Result};

use super::change::{Role, Undo, cover, make, not_fit, remember, remember_serving, start, stop};
use super::enlist::declare;
use super::messages::{Enlist, Enlistment, Exited, Gone};
use super::status::version_of;
use super::view::{Active, Enlisted, Reserve, error};
use super::{Chosen, Registry};
use crate::kernel::Kernel;
use crate::service::{Carry, Facts, Generation, Made, Startup, SwapPolicy, Trial};

/// How long a trial may take: calls that are too few must not hold a swap for ever.
const TRIAL_MAX: Duration = Duration::from_secs(600);

/// What a trial that went well came to.
struct Tried {
    /// How many answers agreed.
    agreed: u64,
    /// How many calls waited while the state was copied for it.
    waited: usize,
    /// How long nobody was let in for that.
    pause: Duration,
}

/// Puts a new version in the place of the one that serves.
pub(super) async fn swap(
    kernel: Arc<Kernel>,
    me: Ref<Registry>,
    enlisted: Arc<Enlisted>,
    m: Enlist,
    chosen: Chosen,
) -> Result<Enlistment> {
    let began = kernel.env().now();
    conclude(&kernel, &enlisted, None).await?;
    let old = enlisted.serving();
    let policy = policy(&chosen.1.facts, &old.facts, &m)?;

    let mut tried = None;
    if let Some(calls) = m.spec.swap.shadow.filter(|calls| *calls > 0) {
        tried = Some(trial(&kernel, &me, &enlisted, &old, &m, calls).await?);
    }
    let next = enlisted.new_number();
    let made = make(&kernel, &me, &m.name, &m.spec, chosen, Role::next(next, &old));
    let new = made.generation.clone();
    let undo = Undo::version(&kernel, &enlisted, &new);

    // On probation from its first call on.
    if !policy.probation.is_zero() {
        new.begin_probation();
    }
    enlisted.reserve(&old, new.number, kernel.env().now(), &policy);
    let swapped = match policy.mode {
        SwapMode::Overlap => {
            let prepare = or_gone(&m.gone, &m.name, async {
                prepare(&kernel, &enlisted, &made).await?;
                hand_over(&old, &new, policy.limit).await?;
                Ok(active(&new))
            });
            // The old one ends its calls below, when the slot is free for a swap back.
            enlisted.slot.swap_overlap(kernel.env(), Duration::ZERO, prepare).await
        }
        SwapMode::Exclusive => {
            let prepare = or_gone(&m.gone, &m.name, prepare(&kernel, &enlisted, &made));
            let (old, new, m) = (&old, &new, &m);
            let give = |_lease, ()| async move {
                or_gone(&m.gone, &m.name, hand_over(old, new, policy.limit)).await?;
                Ok(active(new))
            };
            enlisted.slot.swap_exclusive(kernel.env(), policy.limit, prepare, give).await
        }
    };
    let Swapped { report: swapped, mut retired } = match swapped {
        Ok(swapped) => swapped,
        Err(why) => {
            enlisted.forget_reserve(new.number);
            undo.now().await;
            return Err(refused(&m.name, why));
        }
    };

    // Published. What follows cannot undo it, and does not try to.
    undo.keep();
    if let Some(reason) = new.broke() {
        // It broke at once, while this swap had its hand on the slot.
        let _ = me.signal(Exited { name: m.name.clone(), number: new.number, reason });
    }
    let left = match kernel.env().timeout(policy.limit, retired.drained()).await {
        Ok(()) => 0,
        Err(_) => retired.in_flight(),
    };
    if left > 0 {
        tracing::warn!(service = %m.name, old = ?old, left, "calls are still inside the version before");
    }
    if !enlisted.keep_retired(new.number, retired) {
        let why = new.status().last_exit.unwrap_or(ExitReason::Killed);
        return Err(not_fit(&new, "its first moment", &why).outcome_unknown());
    }
    let mut report = ServiceSwapped::new(m.name.clone(), version_of(&old), version_of(&new), policy.mode);
    (report.drained, report.left) = (swapped.inside.saturating_sub(left), left);
    (report.waited, report.pause) = (swapped.waited, swapped.pause);
    if let Some(tried) = tried {
        // Callers waited for that as well.
        report.waited += tried.waited;
        report.pause = report.pause.max(tried.pause);
        report.agreed = Some(tried.agreed);
    }
    report.took = kernel.env().now().saturating_duration_since(began);
    enlisted.swapped(&report);
    end_probation_later(&kernel, enlisted.clone(), new.number);
    tracing::info!(service = %m.name, from = ?old, to = ?new, pause = ?report.pause, "swapped");
    let receipt = remember(&kernel, &enlisted, &m.spec, &m.caller).await.map_err(Error::outcome_unknown)?;
    Ok(Enlistment { created: false, swapped: Some(report), receipt })
}

/// How the swap is done: as its caller says, else as the new version declares.
fn policy(new: &Facts, old: &Facts, m: &Enlist) -> Result<SwapPolicy> {
    let said = &m.spec.swap;
    let policy = SwapPolicy {
        mode: said.mode.unwrap_or(new.swap.mode),
        limit: said.limit.unwrap_or(new.swap.limit),
        probation: said.probation.unwrap_or(new.swap.probation),
    };
    if policy.mode == SwapMode::Exclusive && (new.inline || old.inline) {
        let error = error(&m.name, ErrorKind::InvalidArgument);
        return Err(error.because("a service with inline hooks swaps by overlap: its callers cannot wait"));
    }
    Ok(policy)
}

fn active(generation: &Arc<Generation>) -> Box<Active> {
    Box::new(Active { generation: generation.clone() })
}

/// What can be done beside the old version: the new one is started and probed, and calls learn of its hooks, which they do not run before it
/// serves.
async fn prepare(kernel: &Arc<Kernel>, enlisted: &Arc<Enlisted>, made: &Made) -> Result<()> {
    match made.generation.facts.startup {
        // It takes the place of one that may be called now.
        Startup::OnDemand | Startup::Persistent => start(kernel, made).await?,
    }
    cover(kernel, enlisted).await
}

/// Copies the state over and asks the new version again.
async fn hand_over(old: &Generation, new: &Generation, limit: Duration) -> Result<()> {
    let incarnation = new.status().generation;
    let carry = if old.is_started() {
        old.export(limit).await.map_err(|why| not_fit(old, "its export", &why))?
    } else {
        Carry::nothing()
    };
    if !carry.is_nothing() {
        new.import(carry, limit).await.map_err(|why| not_fit(new, "its import", &why))?;
        new.probe(limit).await.map_err(|why| not_fit(new, "its probe after the import", &why))?;
    }
    // One that crashed meanwhile has been restarted, and knows nothing of what was handed over.
    let status = new.status();
    if status.generation != incarnation {
        let why = status.last_exit.unwrap_or(ExitReason::Killed);
        return Err(not_fit(new, "the handing over", &why));
    }
    Ok(())
}

/// Gives a version copies of real calls until enough answers agree.
async fn trial(
    kernel: &Arc<Kernel>,
    me: &Ref<Registry>,
    enlisted: &Arc<Enlisted>,
    old: &Arc<Generation>,
    m: &Enlist,
    calls: u32,
) -> Result<Tried> {
    Trial::check_against(old)?;
    let chosen = declare(kernel, m)?;
    let made = make(kernel, me, &m.name, &m.spec, chosen, Role::trial(enlisted.new_number(), old));
    let tried = made.generation.clone();
    let undo = Undo::version(kernel, enlisted, &tried);
    let trial = Arc::new(Trial::new(tried.clone(), calls));
    let limit = tried.facts.swap.limit;
    let trying = async {
        start(kernel, &made).await?;
        let copied = async {
            hand_over(old, &tried, limit).await?;
            enlisted.set_trial(Some(trial.clone()));
            Ok(active(old))
        };
        let (waited, pause) = if old.facts.inline || tried.facts.inline {
            // Callers of inline hooks cannot wait. What such hooks decide by is published, and the same for both.
            copied.await?;
            (0, Duration::ZERO)
        } else {
            // Between the copy of the state and the first copy of a call no call is answered.
            let paused =
                enlisted.slot.swap_exclusive(kernel.env(), limit, ready(Ok(())), |_, ()| copied).await;
            let Swapped { report, .. } = paused.map_err(|why| refused(&enlisted.name, why))?;
            (report.waited, report.pause)
        };
        let failed = |why: &str| error(&enlisted.name, ErrorKind::PreconditionFailed).because(why);
        match kernel.env().timeout(TRIAL_MAX, trial.ended()).await {
            Ok(Ok(agreed)) => Ok(Tried { agreed, waited, pause }),
            Ok(Err(different)) => Err(failed(&format!("on trial in shadow: {different}"))),
            Err(_) => Err(failed(&format!("on trial in shadow: {} of {calls} calls came", trial.agreed()))),
        }
    };
    let tried = or_gone(&m.gone, &m.name, trying).await;
    enlisted.set_trial(None);
    // In either case: what serves later is made anew, from the state as it is then.
    undo.now().await;
    tried
}

/// What `work` gives, unless whoever asked for the swap goes away first: then it is dropped.
async fn or_gone<T>(gone: &Gone, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match select(pin!(work), gone.clone()).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => Err(error(name, ErrorKind::Busy).because("nobody waits for the swap any more")),
    }
}

fn refused(name: &str, why: SlotSwapError<Error>) -> Error {
    match why {
        SlotSwapError::Prepare(error) | SlotSwapError::HandOver(error) => error,
        SlotSwapError::InProgress => error(name, ErrorKind::Busy).because(why),
        why => error(name, ErrorKind::TimedOut).because(why),
    }
}

/// Ends the probation of version `number` when its time has come.
pub(super) fn end_probation_later(kernel: &Arc<Kernel>, enlisted: Arc<Enlisted>, number: u64) {
    let kernel = kernel.clone();
    kernel.env().clone().spawn("registry.probation", async move {
        let lasts = {
            let standing = enlisted.standing.lock();
            let reserve = standing.reserve.as_ref().filter(|reserve| reserve.of == number);
            reserve.map(|reserve| (reserve.since, reserve.probation))
        };
        let Some((since, probation)) = lasts else { return };
        let passed = kernel.env().now().saturating_duration_since(since);
        kernel.env().sleep(probation.saturating_sub(passed)).await;
        if let Err(why) = conclude(&kernel, &enlisted, Some(number)).await {
            tracing::warn!(service = %enlisted.name, %why, "the version before is kept for longer");
        }
    });
}

/// Ends a probation well: the version that serves is the one, and the one before ends after its last caller. With `of`, that of this version alone:
/// another may have taken its place since.
async fn conclude(kernel: &Arc<Kernel>, enlisted: &Arc<Enlisted>, of: Option<u64>) -> Result<()> {
    let returns = |_| error(&enlisted.name, ErrorKind::Busy).because("the version before is on its way back");
    let Some(reserve) = enlisted.take_reserve(of).map_err(returns)? else { return Ok(()) };
    enlisted.serving().pass_probation();
    let Reserve { generation, retired, limit, .. } = reserve;
    let (ending, of) = (kernel.clone(), enlisted.clone());
    // Not waited for: a caller may be inside for as long as its call takes.
    kernel.env().spawn("registry.retire", async move {
        match retired {
            Some(mut retired) => retired.drained().await,
            // The registry died when it had published the version after it. The slot knows who is inside.
            None => of.slot.left().await,
        }
        // Nobody tells it anything any more. What it was told, it is to do: nobody would hear that it did not.
        if generation.is_started()
            && let Err(why) = generation.settle(limit).await
        {
            tracing::warn!(version = ?generation, %why, "a version ends before it has done what it was told");
        }
        // Should the service have been removed meanwhile, this has ended with it, and another service may have its name.
        let _turn = of.retiring.lock().await;
        if of.is_going(generation.number) {
            stop(&ending, &generation).await;
            of.count_missed(generation.close());
            of.has_gone(generation.number);
        }
    });
    cover(kernel, enlisted).await
}

/// Brings the version before back, because the one on probation ended so. What the one before declares comes back, if it did.
pub(super) async fn swap_back(
    kernel: Arc<Kernel>,
    enlisted: Arc<Enlisted>,
    why: ExitReason,
) -> Option<Facts> {
    let (old, broken) = enlisted.call_back()?;
    let back = async {
        enlisted.swapped_back(format!("{broken:?} was on probation: {why}"));
        Ok::<_, std::convert::Infallible>(active(&old))
    };
    let swapped = enlisted.slot.swap_overlap(kernel.env(), Duration::ZERO, back).await;
    let reserve = enlisted.called_back(swapped.is_ok());
    let swapped = match swapped {
        Ok(swapped) => swapped,
        Err(why) => {
            // Whoever has a hand on the slot is publishing the version that broke, and asks once more.
            tracing::debug!(service = %enlisted.name, %why, "the version before cannot come back yet");
            return None;
        }
    };
    broken.fail_probation();
    tracing::error!(service = %enlisted.name, broken = ?broken, back = ?old, %why, "swapped back");

    // Not what is being removed: it is forgotten.
    if !enlisted.is_leaving()
        && let Err(why) = remember_serving(&kernel, &enlisted).await
    {
        tracing::error!(service = %enlisted.name, %why, "the next boot starts the version that broke");
    }
    // What waits in the broken version's mailbox goes back to its callers, who send it to the old one. What has none is lost, and counted.
    stop(&kernel, &broken).await;
    enlisted.count_missed(broken.close());
    drop((swapped, reserve));
    if let Err(why) = cover(&kernel, &enlisted).await {
        tracing::warn!(service = %enlisted.name, %why, "hooks of the broken version are still listed");
    }
    Some(old.facts.clone())
}
