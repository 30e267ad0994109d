//! `lock`, `unlock` and `locks`: advisory locks on paths.

use std::os::unix::process::ExitStatusExt;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, pending, select};
use nexus::advisory::AdvisoryLock;
use nexus::{
    Error, ErrorKind, EventKind, EventMask, LockGuard, LockId, LockKind, Locked, Op, SysLock, SysUnlock,
};
use serde_json::json;

use crate::args::{LockArgs, LocksArgs, UnlockArgs};
use crate::failure::{Failure, Outcome, Status};
use crate::output::one_line;
use crate::session::{Session, path};
use crate::signals::attended;
use crate::sys;

/// How long a lock is held for a command at most: what runs longer is not waited for by anybody.
const HOLD_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(crate) async fn lock(session: &Arc<Session>, args: LockArgs) -> Outcome {
    let at = path(Op::Lock, &args.path)?;
    if let Some(id) = &args.extend {
        let locked = session.nx.extend(at, lock_id(id)?, args.ttl).await?;
        return told(session, &locked);
    }
    let kind = match (args.shared, args.places) {
        (true, _) => LockKind::Shared,
        (_, Some(places)) => LockKind::Semaphore(places),
        _ => LockKind::Exclusive,
    };
    let mut call = SysLock::exclusive(at).ttl(args.ttl);
    call.kind = kind;
    if !args.nonblock {
        call = call.wait(args.wait.unwrap_or(SysLock::TTL_MAX));
    }
    let Some((program, arguments)) = args.command.split_first() else {
        // Nobody is left who could extend it, and who owns the folder may end with this command.
        let locked = session.nx.send(call.durable()).await?;
        let printed = told(session, &locked).and_then(|()| session.out.flush());
        if printed.is_err() {
            // Nobody has seen what it is released by.
            session.nx.unlock(&locked.path, locked.id).await?;
        }
        return printed;
    };
    let guard = session.nx.locked_with(call, HOLD_MAX).await?;
    let mut command = process::Command::new(program);
    command
        .args(arguments)
        .envs(session.told())
        .env("NEXUS_LOCK_PATH", guard.path().as_str())
        .env("NEXUS_LOCK_ID", guard.id().to_string())
        .env("NEXUS_LOCK_TOKEN", guard.fence().token.to_string());
    // What was printed before comes before what the command prints.
    session.out.flush()?;
    let status = run(session, &guard, command).await?;
    session.out.ends_with(Status::Command(code(status)));
    let lost =
        Error::new(Op::Lock, guard.path(), ErrorKind::NotHeld).because("it was lost while the command ran");
    if guard.is_lost() {
        return Err(lost.into());
    }
    match guard.release().await {
        Err(error) if error.kind() == ErrorKind::NotHeld => Err(lost.into()),
        released => released.map(drop).map_err(Failure::from),
    }
}

/// Runs the command to its end, and tells when the lock is lost before.
async fn run(
    session: &Session,
    guard: &LockGuard,
    command: process::Command,
) -> Outcome<process::ExitStatus> {
    let ended = Box::pin(attended(session.env(), "lock", command));
    let lost = select(Box::pin(guard.lost()), Box::pin(taken_back(session, guard)));
    match select(ended, lost).await {
        Either::Left((ended, _)) => ended,
        Either::Right((_, ended)) => {
            session.out.warn(format_args!("lock {}: the lock is lost, the command goes on", guard.path()));
            ended.await
        }
    }
}

/// Waits until somebody takes the lock back. It is told of each release at its path; where nobody can tell, the guard hears of it when it extends the lock.
async fn taken_back(session: &Session, guard: &LockGuard) {
    let watch = session.nx.watch(guard.path().clone()).alone().mask(EventMask::NONE | EventKind::Unlocked);
    if let Ok(mut releases) = watch.stream().await {
        loop {
            // Also of one that came before the watch.
            if guard.check().await.is_ok_and(|is_held| !is_held) {
                return;
            }
            let Some(Ok(_)) = releases.next().await else { break };
        }
    }
    pending::<()>().await;
}

/// The exit status as shells tell it.
fn code(status: process::ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn told(session: &Session, locked: &Locked) -> Outcome {
    let json = json!({
        "path": locked.path,
        "id": locked.id.to_string(),
        "token": locked.token,
        "ttl_ms": u64::try_from(locked.ttl.as_millis()).unwrap_or(u64::MAX),
    });
    session.out.either(&json, locked.id)
}

pub(crate) async fn unlock(session: &Session, args: UnlockArgs) -> Outcome {
    let at = path(Op::Unlock, &args.path)?;
    let call = match &args.id {
        Some(id) => SysUnlock::new(&at, lock_id(id)?),
        None => SysUnlock::force(&at),
    };
    let done = session.nx.send(call).await?;
    session.out.quiet(&json!({ "path": at, "released": done.released }))
}

pub(crate) async fn locks(session: &Session, args: LocksArgs) -> Outcome {
    let below = path(Op::Lock, &args.path)?;
    let mut locks = sys::advisory(session).await?;
    locks.retain(|lock| lock.path.is_within(&below));
    if session.out.is_json() {
        return locks.iter().try_for_each(|lock| session.out.json(lock));
    }
    locks.iter().try_for_each(|lock| shown(session, lock))
}

fn shown(session: &Session, lock: &AdvisoryLock) -> Outcome {
    let zone = if lock.zone.is_root() { String::new() } else { format!("{}:", lock.zone) };
    let kind = |kind: LockKind| match kind {
        LockKind::Shared => "shared".to_owned(),
        LockKind::Semaphore(places) => format!("one of {places}"),
        _ => "exclusive".to_owned(),
    };
    for holder in &lock.state.holders {
        session.out.line(format_args!(
            "{zone}{}\t{}\t{}\theld for {:.0?}\t{:.0?} left",
            one_line(lock.path.as_str()),
            kind(holder.kind),
            holder.agent,
            holder.age,
            holder.left,
        ))?;
    }
    for waiter in &lock.state.waiting {
        session.out.line(format_args!(
            "{zone}{}\t{}\t{}\twaits for {:.0?}",
            one_line(lock.path.as_str()),
            kind(waiter.kind),
            waiter.agent,
            waiter.age
        ))?;
    }
    Ok(())
}

fn lock_id(text: &str) -> Outcome<LockId> {
    let wrong = |_| Failure::Usage(format!("{text:?} is no lock's identity: 32 hexadecimal digits"));
    u128::from_str_radix(text, 16).map(LockId).map_err(wrong)
}
