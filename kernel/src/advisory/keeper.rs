//! Who keeps the advisory locks of a zone: this kernel, or a table that several kernels share.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus_messages::syscall::{Fence, LockState, Locked, SysLock, SysUnlock, Unlocked};
use nexus_messages::{Caller, EntryType, Error, ErrorKind, LifeId, LockId, Op, Result, VPath, ZoneId};
use parking_lot::{Mutex, RwLock};

use super::key::LockKey;
use super::local;
use super::table::Pinned;
use crate::kernel::Kernel;
use crate::lives::Life;

/// The most kernels' lives that one shared table knows at once.
const LIVES_MAX: usize = 1 << 20;

/// How long a shared table may take to say whether a lock is held under which something is to be written.
const HOLD_WAIT_MAX: Duration = Duration::from_secs(30);

/// Keeps the advisory locks of a zone. A kernel keeps those of all its zones itself, until it is told to use another table for one ([`Kernel::use_locks`]).
///
/// All is asked for by paths that were followed, by callers that were let pass. What a table promises is what [`SysLock`] and [`SysUnlock`] promise, to all kernels
/// that use it together. The identities of lives are those of the kernel that asks.
pub trait LockTable: Send + Sync + 'static {
    /// Takes the lock that `call` asks for, or extends it. Dropping the future leaves the line, and gives back what was given.
    ///
    /// # Errors
    /// As [`SysLock`].
    fn lock<'a>(
        &'a self,
        caller: &'a Arc<Caller>,
        zone: &'a ZoneId,
        call: &'a SysLock,
    ) -> BoxFuture<'a, Result<Locked>>;

    /// Takes a lock back that was given and whose taker never heard of it. Does not wait; may be repeated.
    fn give_back(&self, zone: &ZoneId, path: &VPath, id: LockId);

    /// Releases the lock that `call` names, or all of them at its path.
    ///
    /// # Errors
    /// As [`SysUnlock`].
    fn unlock<'a>(
        &'a self,
        caller: &'a Arc<Caller>,
        zone: &'a ZoneId,
        call: &'a SysUnlock,
    ) -> BoxFuture<'a, Result<Unlocked>>;

    /// Keeps everybody from being given the lock of `fence` until what comes back is dropped: something is written under it. None when it is not held, or not any
    /// more.
    ///
    /// # Errors
    /// When nobody can tell: then nothing is written.
    fn hold<'a>(&'a self, zone: &'a ZoneId, fence: &'a Fence) -> BoxFuture<'a, Result<Option<Hold>>>;

    /// Who holds and who waits for the lock on `path`; none when nobody does.
    ///
    /// # Errors
    /// When nobody can tell.
    fn state<'a>(&'a self, zone: &'a ZoneId, path: &'a VPath) -> BoxFuture<'a, Result<Option<LockState>>>;

    /// Takes back what goes with a life of the kernel that asks. Does not wait; may be repeated.
    fn end(&self, life: LifeId);
}

/// Keeps a lock from being given to others while it lives.
pub struct Hold(
    /// Dropped, and never looked at.
    Held,
);

enum Held {
    Own { _pinned: Pinned },
    Other { _until_dropped: Box<dyn Any + Send + Sync> },
}

impl Hold {
    /// One that ends when `until_dropped` is dropped.
    pub fn new(until_dropped: Box<dyn Any + Send + Sync>) -> Self {
        Self(Held::Other { _until_dropped: until_dropped })
    }

    pub(crate) fn own(pinned: Pinned) -> Self {
        Self(Held::Own { _pinned: pinned })
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Held::Own { .. } => "Hold(own)",
            Held::Other { .. } => "Hold(other)",
        })
    }
}

/// The zones whose locks somebody else keeps.
#[derive(Default)]
pub(crate) struct OtherTables {
    any: AtomicBool,
    tables: RwLock<HashMap<ZoneId, Arc<dyn LockTable>>>,
}

impl OtherTables {
    /// Whether there is one. One load.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // Acquire pairs with the release that follows the table.
        self.any.load(Ordering::Acquire)
    }

    pub(crate) fn of(&self, zone: &ZoneId) -> Option<Arc<dyn LockTable>> {
        if !self.any() {
            return None;
        }
        self.tables.read().get(zone).cloned()
    }

    pub(crate) fn end(&self, life: LifeId) {
        if !self.any() {
            return;
        }
        let tables: Vec<_> = self.tables.read().values().cloned().collect();
        tables.iter().for_each(|table| table.end(life));
    }
}

impl Kernel {
    /// Has `table` keep the advisory locks of `zone` from now on. To be called before anything is locked there; what a call that is under way takes meanwhile is this
    /// kernel's, and no other knows of it.
    ///
    /// # Errors
    /// `EBUSY` when something is locked or waited for in the zone.
    pub fn use_locks(&self, zone: &ZoneId, table: Arc<dyn LockTable>) -> Result<()> {
        let busy = self.advisory().list(usize::MAX).into_iter().find(|lock| lock.zone == *zone);
        if let Some(lock) = busy {
            let error = Error::new(Op::Lock, &lock.path, ErrorKind::Busy);
            return Err(error.because(format!("it is locked, or waited for, in the zone {zone}")));
        }
        self.other_locks().tables.write().insert(zone.clone(), table);
        self.other_locks().any.store(true, Ordering::Release);
        Ok(())
    }

    /// The locks that this kernel keeps, for others to [use](Self::use_locks). Each of them is to be given one of its own: the lives of its agents are told apart by
    /// it.
    pub fn share_locks(self: &Arc<Self>) -> Arc<dyn LockTable> {
        Arc::new(Kept { kernel: Arc::downgrade(self), lives: Some(Mutex::default()) })
    }

    /// Who keeps the locks of `zone`.
    pub(crate) fn keeper(self: &Arc<Self>, zone: &ZoneId) -> Arc<dyn LockTable> {
        let own = || Arc::new(Kept { kernel: Arc::downgrade(self), lives: None });
        self.other_locks().of(zone).unwrap_or_else(|| own())
    }

    /// As [`LockTable::hold`], of the locks that this kernel keeps.
    fn pin_lock(&self, zone: &ZoneId, fence: &Fence) -> Option<Hold> {
        self.advisory().pin(&LockKey::new(zone, &fence.path), fence.token).map(Hold::own)
    }

    /// As [`LockTable::hold`], by who keeps the locks of `zone`.
    pub(crate) async fn hold_lock(self: &Arc<Self>, zone: &ZoneId, fence: &Fence) -> Result<Option<Hold>> {
        match self.other_locks().of(zone) {
            None => Ok(self.pin_lock(zone, fence)),
            Some(other) => {
                let held = self.env().timeout(HOLD_WAIT_MAX, other.hold(zone, fence)).await;
                held.unwrap_or_else(|_| {
                    let error = Error::new(Op::Lock, &fence.path, ErrorKind::TimedOut);
                    Err(error
                        .because(format!("nobody said within {HOLD_WAIT_MAX:?} whether the lock is held")))
                })
            }
        }
    }
}

fn gone(op: Op, path: &VPath) -> Error {
    Error::new(op, path, ErrorKind::Down).because("the kernel that keeps its locks has ended")
}

/// A kernel's own locks, for itself or for another one.
struct Kept {
    kernel: Weak<Kernel>,
    /// The lives of the other kernel, each with one of ours; none when it is the same kernel. Invariant: at most `LIVES_MAX`.
    lives: Option<Mutex<HashMap<LifeId, Life>>>,
}

impl Kept {
    fn kernel(&self, op: Op, path: &VPath) -> Result<Arc<Kernel>> {
        self.kernel.upgrade().ok_or_else(|| gone(op, path))
    }

    /// The kernel, and the caller as it knows him.
    fn ours(&self, op: Op, path: &VPath, caller: &Arc<Caller>) -> Result<(Arc<Kernel>, Arc<Caller>)> {
        let kernel = self.kernel(op, path)?;
        let Some(lives) = &self.lives else { return Ok((kernel, caller.clone())) };
        let mut lives = lives.lock();
        if lives.len() >= LIVES_MAX && !lives.contains_key(&caller.life) {
            let error = Error::new(op, path, ErrorKind::NoLocks);
            return Err(error.because(format!("{LIVES_MAX} agents of the other kernel have locks")));
        }
        let life = lives.entry(caller.life).or_insert_with(|| kernel.begin_life()).id();
        drop(lives);
        Ok((kernel, Arc::new((**caller).clone().living(life))))
    }
}

impl LockTable for Kept {
    fn lock<'a>(
        &'a self,
        caller: &'a Arc<Caller>,
        zone: &'a ZoneId,
        call: &'a SysLock,
    ) -> BoxFuture<'a, Result<Locked>> {
        Box::pin(async move {
            let (kernel, caller) = self.ours(Op::Lock, &call.path, caller)?;
            // What is there another kernel knows.
            local::lock(&kernel, &caller, zone, call, EntryType::Reg).await
        })
    }

    fn give_back(&self, zone: &ZoneId, path: &VPath, id: LockId) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.advisory().release(&LockKey::new(zone, path), id);
        }
    }

    fn unlock<'a>(
        &'a self,
        caller: &'a Arc<Caller>,
        zone: &'a ZoneId,
        call: &'a SysUnlock,
    ) -> BoxFuture<'a, Result<Unlocked>> {
        Box::pin(async move {
            let (kernel, caller) = self.ours(Op::Unlock, &call.path, caller)?;
            local::unlock(&kernel, &caller, zone, call).await
        })
    }

    fn hold<'a>(&'a self, zone: &'a ZoneId, fence: &'a Fence) -> BoxFuture<'a, Result<Option<Hold>>> {
        Box::pin(async move { Ok(self.kernel(Op::Lock, &fence.path)?.pin_lock(zone, fence)) })
    }

    fn state<'a>(&'a self, zone: &'a ZoneId, path: &'a VPath) -> BoxFuture<'a, Result<Option<LockState>>> {
        Box::pin(async move { Ok(self.kernel(Op::Stat, path)?.advisory().state(zone, path)) })
    }

    fn end(&self, life: LifeId) {
        match &self.lives {
            None => drop(self.kernel.upgrade().map(|kernel| kernel.advisory().end(life))),
            Some(lives) => {
                // Dropped without the mutex: it ends what is tied to it.
                let ended = lives.lock().remove(&life);
                drop(ended);
            }
        }
    }
}
