//! `SysLock` and `SysUnlock`: advisory locks.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{LockKind, Locked, SysLock, SysUnlock, Unlocked};
use nexus_messages::{Caller, Error, ErrorKind, LockId, Op, Result, VPath};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, admit, one_path};
use crate::advisory::{Granted, Lined, LockKey, Obstacle, request};
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::semaphore::places::{Holder, Owner};
use crate::semaphore::ticket::Verdict;
use crate::sys;

impl Admissible for SysLock {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        match self.kind {
            LockKind::Shared => Right::Read,
            _ => Right::Write,
        }
    }

    fn validate(&self) -> Result<()> {
        let invalid =
            |why: String| Err(Error::new(Self::OP, &self.path, ErrorKind::InvalidArgument).because(why));
        if !Self::is_ttl(self.ttl) {
            return invalid(format!(
                "a lock lasts for {:?} to {:?}, and not {:?}",
                Self::TTL_MIN,
                Self::TTL_MAX,
                self.ttl
            ));
        }
        if self.kind == LockKind::Semaphore(0) {
            return invalid("nobody could hold it".into());
        }
        if self.tied && self.durable {
            return invalid("what goes with a life cannot outlive the process".into());
        }
        if self.id.is_some() && self.wait.is_some() {
            return invalid("a lock that is held is extended at once, or not at all".into());
        }
        not_the_kernels(Self::OP, &self.path)
    }
}

impl Admissible for SysUnlock {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        // Who knows the lock's identity has been let pass when it was taken.
        if self.id.is_some() { Right::Read } else { Right::Admin }
    }

    fn validate(&self) -> Result<()> {
        not_the_kernels(Self::OP, &self.path)
    }
}

/// What the kernel shows of itself is not locked: nothing there waits for a lock.
fn not_the_kernels(op: Op, path: &VPath) -> Result<()> {
    if sys::serves(path) {
        return Err(Error::new(op, path, ErrorKind::NotSupported).because("it shows what the kernel does"));
    }
    Ok(())
}

impl Serve for SysLock {
    #[inline]
    fn warm(&mut self, kernel: &Kernel, caller: &Caller) -> Option<Locked> {
        if self.durable || self.id.is_some() || !kernel.has_lock_tokens() || self.validate().is_err() {
            return None;
        }
        let key = warm_key(kernel, caller, &self.path)?;
        let request = request(caller, self.kind, self.ttl, (self.tied, false), self.session);
        let (id, token) = kernel.advisory().take(key, request)?;
        Some(Locked::new(id, self.path.clone(), token, self.ttl))
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Locked> {
        Box::pin(lock(kernel, caller, self)).await
    }
}

impl Serve for SysUnlock {
    #[inline]
    fn warm(&mut self, kernel: &Kernel, caller: &Caller) -> Option<Unlocked> {
        let id = self.id?;
        if kernel.is_asked() {
            return None;
        }
        // Where the path leads does not matter: nobody finds a lock there by an identity that is not its own.
        let key = kernel.routes().read(|routes| {
            routes.route(&caller.zone, &self.path).map(|routed| LockKey::new(&routed.mount.zone, &self.path))
        })?;
        let locks = kernel.advisory();
        (locks.give_back(key.clone(), id) || locks.release_plain(&key, id)).then(|| Unlocked::new(1))
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Unlocked> {
        Box::pin(unlock(kernel, caller, self)).await
    }
}

/// The key of `path`, when nobody is to be asked about it and no link leads elsewhere.
#[inline]
fn warm_key(kernel: &Kernel, caller: &Caller, path: &VPath) -> Option<LockKey> {
    let node = kernel.warm(caller, path, true)?;
    Some(LockKey::new(&node.metadata.zone, path))
}

fn locked(path: VPath, holder: &Holder) -> Locked {
    Locked::new(holder.id, path, holder.token, holder.request.ttl)
}

async fn lock(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysLock) -> Result<Locked> {
    call.validate()?;
    let mut admitted = admit(kernel, caller, call, None).await?;
    let done = acquire_or_extend(kernel, caller, &mut admitted).await;
    let (done, granted) = match done {
        Ok((locked, granted)) => (Ok(locked), granted),
        Err(error) => (Err(error), None),
    };
    admitted.after(&done).await;
    if let Some(granted) = granted {
        granted.keep();
    }
    done
}

/// Acquires or extends; what was acquired is given back if the caller goes away before it hears of it.
async fn acquire_or_extend(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    admitted: &mut Admitted<SysLock>,
) -> Result<(Locked, Option<Granted>)> {
    let path = admitted.first.site.path.clone();
    not_the_kernels(Op::Lock, &path)?;
    let key = LockKey::new(&admitted.first.site.mount.zone, &path);
    if let Some(id) = admitted.call.id {
        let locked = extend(kernel, caller, &admitted.call, key, id).await?;
        return Ok((locked, None));
    }
    kernel.reserve_lock_tokens(&path).await?;
    let call = &admitted.call;
    let asked = request(caller, call.kind, call.ttl, (call.tied, call.durable), call.session);
    let holder = match call.wait {
        None => {
            kernel.advisory().acquire(&key, asked).map_err(|obstacle| in_the_way(kernel, &path, &obstacle))?
        }
        Some(wait) => match kernel.advisory().line_up(&key, asked) {
            Lined::Held(holder) => holder,
            Lined::Full => return Err(too_many(&path)),
            Lined::Waiting(waiting) => {
                // Whoever swaps a service that saw the call must not wait for as long as the call does.
                admitted.step_aside();
                let verdict = kernel.env().timeout(wait, waiting).await;
                admitted.step_back();
                match verdict {
                    Ok(Verdict::Held(holder)) => holder,
                    Ok(Verdict::Deadlock(circle)) => return Err(deadlock(&path, &circle)),
                    Err(_) => return Err(late(kernel, &key, &path, wait)),
                }
            }
        },
    };
    let granted = kernel.advisory().granted(key.clone(), holder);
    let Some(holder) = granted.holder().cloned() else { return Err(too_many(&path)) };
    if holder.request.durable {
        kernel.keep_lock(caller, &key, &holder).await?;
    }
    Ok((locked(path, &holder), Some(granted)))
}

async fn extend(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &SysLock,
    key: LockKey,
    id: LockId,
) -> Result<Locked> {
    let locks = kernel.advisory();
    // A link on the way may lead elsewhere than it did when the lock was taken.
    let extended = locks.extend(&key, id, call.ttl).map(|holder| (key, holder)).or_else(|| {
        let key = locks.find(id)?;
        locks.extend(&key, id, call.ttl).map(|holder| (key, holder))
    });
    let (key, holder) = extended.ok_or_else(|| not_held(Op::Lock, &call.path, id))?;
    if holder.request.durable {
        kernel.keep_lock(caller, &key, &holder).await?;
    }
    Ok(locked(key.parts().1, &holder))
}

async fn unlock(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysUnlock) -> Result<Unlocked> {
    call.validate()?;
    if call.id.is_none() && !caller.admin {
        let error = Error::new(Op::Unlock, &call.path, ErrorKind::PermissionDenied);
        return Err(error.because("taking locks back by force needs the administrator's handle"));
    }
    let admitted = admit(kernel, caller, call, None).await?;
    let done = release(kernel, caller, &admitted).await;
    admitted.after(&done).await;
    done
}

async fn release(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    admitted: &Admitted<SysUnlock>,
) -> Result<Unlocked> {
    let site = &admitted.first.site;
    let (locks, key) = (kernel.advisory(), LockKey::new(&site.mount.zone, &site.path));
    let Some(id) = admitted.call.id else {
        let gone = kernel.release_kept(caller, &key, None).await?;
        return Ok(Unlocked::new(u32::try_from(gone.len()).unwrap_or(u32::MAX)));
    };
    // A link on the way may lead elsewhere than it did when the lock was taken.
    let key = if locks.is_held(&key, id) { Some(key) } else { locks.find(id) };
    let key = key.ok_or_else(|| not_held(Op::Unlock, &site.path, id))?;
    if locks.release_plain(&key, id) {
        return Ok(Unlocked::new(1));
    }
    match kernel.release_kept(caller, &key, Some(id)).await?.len() {
        0 => Err(not_held(Op::Unlock, &site.path, id)),
        _ => Ok(Unlocked::new(1)),
    }
}

impl Kernel {
    /// Gives the lock `id` on `path` back without asking anybody whether that may be: for who was given it. Says whether it was held. Does not wait; may be repeated. Not for
    /// one that is to outlive the process.
    pub fn release_lock(&self, caller: &Caller, path: &VPath, id: LockId) -> bool {
        let routed = self
            .routes()
            .read(|routes| routes.route(&caller.zone, path).map(|routed| routed.mount.zone.clone()));
        let key = LockKey::new(routed.as_ref().unwrap_or(&caller.zone), path);
        let released = self.advisory().release_plain(&key, id);
        released || self.advisory().find(id).is_some_and(|key| self.advisory().release_plain(&key, id))
    }
}

fn in_the_way(kernel: &Kernel, path: &VPath, obstacle: &Obstacle) -> Error {
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
    Error::new(Op::Lock, path, ErrorKind::NoLocks)
}
