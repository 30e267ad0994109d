//! The locks that this kernel keeps itself: what is asked for by paths that were followed, and what is said when it cannot be had.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{Locked, SysLock, SysUnlock, Unlocked};
use nexus_messages::{Caller, EntryType, Error, ErrorKind, LockId, Op, Result, VPath, ZoneId};

use super::key::LockKey;
use super::table::{Lined, Locking, Obstacle, request};
use super::{HELD_MAX, WAITING_MAX};
use crate::kernel::Kernel;
use crate::semaphore::places::{Grant, Owner, Request};
use crate::semaphore::ticket::Verdict;

/// Acquires or extends; what was acquired is given back if the caller goes away before it hears of it. What is there is of this type.
pub(crate) async fn lock(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    zone: &ZoneId,
    call: &SysLock,
    entry_type: EntryType,
) -> Result<Locked> {
    let path = &call.path;
    let key = LockKey::new(zone, path);
    if let Some(id) = call.id {
        return extend(kernel, caller, call, key, id).await;
    }
    kernel.reserve_lock_tokens(path).await?;
    let asked = request(caller, call, Locking::new(caller, zone, entry_type));
    let grant = match call.wait {
        None => kernel
            .advisory()
            .acquire(&key, asked)
            .map_err(|obstacle| in_the_way(kernel, caller, path, &obstacle))?,
        Some(wait) => line_up(kernel, caller, (&key, path), asked, wait).await?,
    };
    if call.durable {
        let granted = kernel.advisory().granted(key.clone(), grant.id);
        kernel.keep_lock(caller, &key, grant.id).await?;
        granted.keep();
    }
    Ok(Locked::new(grant.id, path.clone(), grant.token, call.ttl))
}

/// Holds a lock in memory alone, or waits for it in line. Dropping the future leaves the line, and gives back what was given.
pub(crate) async fn line_up(
    kernel: &Kernel,
    caller: &Caller,
    (key, path): (&LockKey, &VPath),
    asked: Request,
    wait: Duration,
) -> Result<Grant> {
    match kernel.advisory().line_up(key, asked) {
        Lined::Held(grant) => Ok(grant),
        Lined::Full => Err(too_many(path)),
        Lined::Enough => Err(too_many_of(kernel, caller, path)),
        Lined::Waiting(waiting) => match kernel.env().timeout(wait, waiting).await {
            Ok(Verdict::Held(grant)) => Ok(grant),
            Ok(Verdict::Deadlock(circle)) => Err(deadlock(path, &circle)),
            Err(_) => Err(late(kernel, key, path, wait)),
        },
    }
}

async fn extend(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &SysLock,
    key: LockKey,
    id: LockId,
) -> Result<Locked> {
    let key = held_at(kernel, (Op::Lock, &call.path), key, id)?;
    let extended = kernel.advisory().extend(&key, id, call.ttl);
    let holder = extended.ok_or_else(|| not_held(Op::Lock, &call.path, id))?;
    if holder.request.durable {
        // It lasts longer, at least here.
        kernel.keep_lock(caller, &key, id).await.map_err(Error::outcome_unknown)?;
    }
    Ok(Locked::new(holder.id, key.parts().1, holder.token, call.ttl))
}

/// Releases one lock, or all of them at a path.
pub(super) async fn unlock(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    zone: &ZoneId,
    call: &SysUnlock,
) -> Result<Unlocked> {
    let (locks, key) = (kernel.advisory(), LockKey::new(zone, &call.path));
    let Some(id) = call.id else {
        let gone = kernel.release_kept(caller, &key, None).await?;
        return Ok(Unlocked::new(u32::try_from(gone.len()).unwrap_or(u32::MAX)));
    };
    let key = held_at(kernel, (Op::Unlock, &call.path), key, id)?;
    if locks.release_plain(&key, id) {
        return Ok(Unlocked::new(1));
    }
    match kernel.release_kept(caller, &key, Some(id)).await?.len() {
        0 => Err(not_held(Op::Unlock, &call.path, id)),
        _ => Ok(Unlocked::new(1)),
    }
}

/// Where the lock `id` is that is asked for by `path`, which leads to `key`: there, or elsewhere when it was taken by this path and a link led there from it.
fn held_at(kernel: &Kernel, (op, path): (Op, &VPath), key: LockKey, id: LockId) -> Result<LockKey> {
    let locks = kernel.advisory();
    if locks.is_held(&key, id) {
        return Ok(key);
    }
    let (at, alias) = locks.find(id).ok_or_else(|| not_held(op, path, id))?;
    if alias.is_some_and(|alias| alias == *path) {
        return Ok(at);
    }
    let (zone, held) = at.parts();
    let zone = if zone == key.parts().0 { String::new() } else { format!(" in the zone {zone}") };
    let error = Error::new(op, path, ErrorKind::NotHeld);
    Err(error.because(format!("the lock {id} is one on {held}{zone}, and stays as it is")))
}

fn in_the_way(kernel: &Kernel, caller: &Caller, path: &VPath, obstacle: &Obstacle) -> Error {
    let error = Error::new(Op::Lock, path, ErrorKind::WouldBlock);
    let at = |key: &LockKey| {
        let at = key.parts().1;
        if at == *path { String::new() } else { format!(" {at}") }
    };
    match obstacle {
        Obstacle::Held { key, by, until } => {
            let left = until.saturating_sub(kernel.advisory().now());
            error.because(format!("{} holds{} for another {left:.1?}", by.agent, or_it(&at(key))))
        }
        Obstacle::Awaited { key, by } => error.because(format!("{} waits for{}", by.agent, or_it(&at(key)))),
        Obstacle::Leaving { .. } => error.because("a write under a lock that is lost is under way"),
        Obstacle::Full => too_many(path),
        Obstacle::Enough => too_many_of(kernel, caller, path),
    }
}

fn or_it(at: &str) -> &str {
    if at.is_empty() { " it" } else { at }
}

fn late(kernel: &Kernel, key: &LockKey, path: &VPath, wait: Duration) -> Error {
    let error = Error::new(Op::Lock, path, ErrorKind::TimedOut);
    match kernel.advisory().obstacle(key) {
        Some(Obstacle::Held { by, .. }) => {
            error.because(format!("it was not free within {wait:?}: {} holds it", by.agent))
        }
        _ => error.because(format!("it was not free within {wait:?}")),
    }
}

fn deadlock(path: &VPath, circle: &[Owner]) -> Error {
    let mut told = String::new();
    for owner in circle {
        let _ = write!(told, "{} waits for ", owner.agent);
    }
    let first = circle.first().map_or("itself", |owner| &*owner.agent);
    Error::new(Op::Lock, path, ErrorKind::Deadlock).because(format!("{told}{first}"))
}

fn not_held(op: Op, path: &VPath, id: LockId) -> Error {
    Error::new(op, path, ErrorKind::NotHeld).because(format!("the lock {id} is not held, or not any more"))
}

fn too_many(path: &VPath) -> Error {
    let error = Error::new(Op::Lock, path, ErrorKind::NoLocks);
    error.because(format!("{HELD_MAX} are held below its top-level directory, or {WAITING_MAX} waited for"))
}

fn too_many_of(kernel: &Kernel, caller: &Caller, path: &VPath) -> Error {
    let (agent, most) = (&caller.agent, kernel.advisory().each_max());
    Error::new(Op::Lock, path, ErrorKind::NoLocks).because(format!(
        "{agent} holds and waits for {most} locks, as many as one agent may (the setting `locks_per_agent`)"
    ))
}
