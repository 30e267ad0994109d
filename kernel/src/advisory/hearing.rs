//! Who hears of locks that are given and go: watchers, and observers.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;

use nexus_messages::{Caller, Event, EventKind, LockId, OpId, Timestamp};
use parking_lot::Mutex;

use super::key::LockKey;
use crate::dispatch::PublishedHooks;
use crate::kernel::Kernel;
use crate::semaphore::places::Holder;
use crate::semaphore::table::Change;
use crate::watcher::Watches;

/// The way from the table of locks to those who hear of them.
pub(crate) struct Hearing {
    watches: Arc<Watches>,
    hooks: Arc<PublishedHooks>,
    /// Set once there is a kernel.
    kernel: OnceLock<Weak<Kernel>>,
    /// The durable locks that are not held any more, and whose rows may be there still. As many as were held, at most.
    gone: Mutex<Vec<(LockKey, LockId)>>,
    /// Those of which nobody knows whether the row was, or is yet to be, written. As many as commits of them hung.
    doubted: Mutex<HashSet<LockId>>,
}

impl Hearing {
    pub(crate) fn new(watches: Arc<Watches>, hooks: Arc<PublishedHooks>) -> Self {
        Self { watches, hooks, kernel: OnceLock::new(), gone: Mutex::default(), doubted: Mutex::default() }
    }

    /// From now on changes are told.
    pub(crate) fn open(&self, kernel: &Arc<Kernel>) {
        // A second time it is the same one.
        let _ = self.kernel.set(Arc::downgrade(kernel));
    }

    /// Notes a durable lock whose row is to go.
    pub(super) fn note_gone(&self, key: &LockKey, id: LockId) {
        self.gone.lock().push((key.clone(), id));
    }

    /// Notes a durable lock whose row may come later than anybody waits.
    pub(super) fn doubt(&self, id: LockId) {
        self.doubted.lock().insert(id);
    }

    /// Whether that was noted; it is so no more.
    pub(super) fn take_doubt(&self, id: LockId) -> bool {
        self.doubted.lock().remove(&id)
    }

    /// Has the rows removed of durable locks that are not held any more. Does not wait.
    pub(super) fn forget_gone(&self) {
        if self.gone.lock().is_empty() {
            return;
        }
        if let Some(kernel) = self.kernel.get().and_then(Weak::upgrade) {
            let env = kernel.env().clone();
            env.spawn("locks.forget", async move { kernel.forget_gone_locks().await });
        }
    }

    /// Takes over the durable locks that are not held any more, and whose rows may be there still.
    pub(super) fn take_gone(&self) -> Vec<(LockKey, LockId)> {
        mem::take(&mut *self.gone.lock())
    }

    /// Tells of a change, in the order of the changes of one path: under the mutex of its part. Those who are to be woken are for the caller to wake when it has
    /// let go of that.
    #[inline]
    pub(super) fn hear(&self, key: &LockKey, holder: &Holder, change: Change) -> Vec<Waker> {
        let kind = match change {
            Change::Given => EventKind::Locked,
            Change::Gone => EventKind::Unlocked,
        };
        if change == Change::Gone && holder.request.durable {
            self.note_gone(key, holder.id);
        }
        if !self.watches.anyone() && !self.hooks.summary().has_observers(kind) {
            return Vec::new();
        }
        let Some(kernel) = self.kernel.get().and_then(Weak::upgrade) else { return Vec::new() };
        let (zone, path) = key.parts();
        let request = &holder.request;
        let asked_from = request.owner.zone.clone().unwrap_or_else(|| zone.clone());
        let mut caller = Caller::agent(request.owner.agent.clone(), asked_from);
        (caller.admin, caller.user) = (request.owner.admin, request.owner.user.clone());
        let mut event =
            Event::new(kind, path, request.entry_type, Arc::new(caller), OpId(holder.token.into()));
        event.lock = Some(request.kind);
        // The lock's identity is not told: who knows it can release the lock.
        event.version = holder.token;
        event.at = Timestamp(kernel.env().wall());
        kernel.announced(&zone, event).into_vec()
    }
}
