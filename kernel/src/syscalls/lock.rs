//! `SysLock` and `SysUnlock`: advisory locks.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{LockKind, Locked, SysLock, SysUnlock, Unlocked};
use nexus_messages::{Caller, EntryType, Error, ErrorKind, FileMetadata, LockId, Op, Result, VPath, ZoneId};

use super::Serve;
use super::admit::{Admissible, Which, admit, one_path};
use crate::advisory::{self, LockKey, LockTable, Locking, line_up, request};
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::semaphore::places::Grant;
use crate::sys;

impl Admissible for SysLock {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        match self.kind {
            // Who knows the lock's identity has been let pass when it was taken.
            _ if self.id.is_some() => Right::Read,
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
        let (key, locking) = warm_key(kernel, caller, self)?;
        let request = request(caller, self, locking);
        let Grant { id, token } = kernel.advisory().take(key, request)?;
        if self.tied && !kernel.lives().goes_on(caller.life) {
            // What the long way says then is the same for all.
            kernel.release_lock(caller, &self.path, id);
            return None;
        }
        Some(Locked::new(id, self.path.clone(), token, self.ttl))
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Locked> {
        // Whoever is woken has come here with cold caches: nothing is done then but what must be.
        if let Some(wait) = self.wait
            && let Some(found) = warm_key(kernel, caller, &self)
        {
            return in_line(kernel, caller, self, found, wait).await;
        }
        Box::pin(lock(kernel, caller, self)).await
    }
}

impl Serve for SysUnlock {
    #[inline]
    fn warm(&mut self, kernel: &Kernel, caller: &Caller) -> Option<Unlocked> {
        let id = self.id?;
        if kernel.is_asked() || kernel.other_locks().any() {
            return None;
        }
        // Where the path leads does not matter: nobody finds a lock there by an identity that is not its own.
        let key = kernel.routes().read(|routes| {
            routes.route(&caller.zone, &self.path).map(|routed| LockKey::new(&routed.mount.zone, &self.path))
        })?;
        let locks = kernel.advisory();
        let is_back = locks.give_back(key, id).map_or_else(|key| locks.release_plain(&key, id), |()| true);
        is_back.then(|| Unlocked::new(1))
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Unlocked> {
        Box::pin(unlock(kernel, caller, self)).await
    }
}

/// The key of what `call` locks, and what is there, when it is to be held in the memory of this kernel alone, nobody is to be asked about it, and no link leads elsewhere.
#[inline]
fn warm_key(kernel: &Kernel, caller: &Caller, call: &SysLock) -> Option<(LockKey, Locking)> {
    if call.durable || call.id.is_some() || !kernel.has_lock_tokens() || call.validate().is_err() {
        return None;
    }
    if kernel.other_locks().any() {
        return None;
    }
    kernel.warm(caller, &call.path, true, |node| {
        let FileMetadata { zone, entry_type, .. } = &*node.metadata;
        Some((LockKey::new(zone, &call.path), Locking::new(caller, zone, *entry_type)))
    })
}

/// Waits in line for a lock that [`warm_key`] has a key of.
async fn in_line(
    kernel: &Kernel,
    caller: &Caller,
    call: SysLock,
    (key, locking): (LockKey, Locking),
    wait: Duration,
) -> Result<Locked> {
    let asked = request(caller, &call, locking);
    let Grant { id, token } = line_up(kernel, caller, (&key, &call.path), asked, wait).await?;
    if call.tied && !kernel.lives().goes_on(caller.life) {
        kernel.advisory().release(&key, id);
        kernel.advisory().end(caller.life);
        return Err(ended(&call.path));
    }
    Ok(Locked::new(id, call.path, token, call.ttl))
}

/// Whoever ended the life of the lock's owner did not find the lock, or not all of it.
fn ended(path: &VPath) -> Error {
    let error = Error::new(Op::Lock, path, ErrorKind::NotHeld);
    error.because("its owner's life has ended, and the lock with it")
}

async fn lock(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysLock) -> Result<Locked> {
    call.validate()?;
    let mut admitted = admit(kernel, caller, call, None).await?;
    let site = &admitted.first.site;
    let (zone, path) = (site.mount.zone.clone(), site.path.clone());
    not_the_kernels(Op::Lock, &path)?;
    let keeper = kernel.keeper(&zone);
    let entry_type = admitted.first.node.as_ref().map_or(EntryType::Reg, |node| node.metadata.entry_type);
    let mut call = admitted.call.clone();
    let asked = mem::replace(&mut call.path, path);
    if call.wait.is_some() {
        // Whoever swaps a service that saw the call must not wait for as long as the call does.
        admitted.step_aside();
    }
    let mut done = match kernel.other_locks().of(&zone) {
        Some(other) => other.lock(caller, &zone, &call).await,
        None => advisory::lock(kernel, caller, &zone, &call, entry_type).await,
    };
    if call.id.is_some() && is_elsewhere(&done, &call.path, &asked) {
        call.path = asked;
        let zone = kernel.zone_of(caller, &call.path);
        done = kernel.keeper(&zone).lock(caller, &zone, &call).await;
    } else if let Ok(locked) = &done
        && call.id.is_none()
        && locked.path != asked
    {
        kernel.advisory().call(&LockKey::new(&zone, &locked.path), locked.id, asked);
    }
    let done = done.and_then(|locked| {
        if !call.tied || kernel.lives().goes_on(caller.life) {
            return Ok(locked);
        }
        keeper.give_back(&zone, &locked.path, locked.id);
        keeper.end(caller.life);
        Err(ended(&call.path))
    });
    if call.wait.is_some() {
        admitted.step_back();
    }
    let given = done.as_ref().ok().filter(|_| call.id.is_none());
    let given = given.map(|locked| {
        let (path, id) = (locked.path.clone(), locked.id);
        Given { keeper, zone, path, id, is_told: false }
    });
    admitted.after(&done).await;
    if let Some(mut given) = given {
        given.is_told = true;
    }
    done
}

/// A lock that was given, taken back when its taker goes away before it hears of it.
struct Given {
    keeper: Arc<dyn LockTable>,
    zone: ZoneId,
    path: VPath,
    id: LockId,
    is_told: bool,
}

impl Drop for Given {
    fn drop(&mut self) {
        if !self.is_told {
            self.keeper.give_back(&self.zone, &self.path, self.id);
        }
    }
}

async fn unlock(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysUnlock) -> Result<Unlocked> {
    call.validate()?;
    if call.id.is_none() && !caller.admin {
        let error = Error::new(Op::Unlock, &call.path, ErrorKind::PermissionDenied);
        return Err(error.because("taking locks back by force needs the administrator's handle"));
    }
    let admitted = admit(kernel, caller, call, None).await?;
    let site = &admitted.first.site;
    let mut call = admitted.call.clone();
    let asked = mem::replace(&mut call.path, site.path.clone());
    let mut done = kernel.keeper(&site.mount.zone).unlock(caller, &site.mount.zone, &call).await;
    if call.id.is_some() && is_elsewhere(&done, &call.path, &asked) {
        call.path = asked;
        let zone = kernel.zone_of(caller, &call.path);
        done = kernel.keeper(&zone).unlock(caller, &zone, &call).await;
    }
    admitted.after(&done).await;
    done
}

/// Whether a lock is not where `asked` leads now, and may be at `asked` itself, or have been taken by it: a link on the way may lead elsewhere than it did then.
fn is_elsewhere<T>(done: &Result<T>, path: &VPath, asked: &VPath) -> bool {
    path != asked && matches!(done, Err(error) if error.kind() == ErrorKind::NotHeld)
}

impl Kernel {
    /// The zone whose mount serves `path`, no link followed.
    fn zone_of(&self, caller: &Caller, path: &VPath) -> ZoneId {
        let routed = self
            .routes()
            .read(|routes| routes.route(&caller.zone, path).map(|routed| routed.mount.zone.clone()));
        routed.unwrap_or_else(|| caller.zone.clone())
    }

    /// Gives the lock `id` on `path` back without asking anybody whether that may be: for who was given it. Says whether it was held. Does not wait; may be repeated. Not for
    /// one that is to outlive the process.
    pub fn release_lock(&self, caller: &Caller, path: &VPath, id: LockId) -> bool {
        let zone = self.zone_of(caller, path);
        if let Some(other) = self.other_locks().of(&zone) {
            other.give_back(&zone, path, id);
            return true;
        }
        let (locks, key) = (self.advisory(), LockKey::new(&zone, path));
        let released = locks.release_plain(&key, id);
        // Who was given it names it by what it is on, whatever mount serves that by now.
        let same = |key: &LockKey| key.parts().1 == *path;
        released || locks.find(id).is_some_and(|(key, _)| same(&key) && locks.release_plain(&key, id))
    }
}
