//! Sessions that do nothing: meanwhile the lease of each lies at a seat that its store knows, and is taken back from there when that lasts too long.

use std::fmt;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nexus_actors::Env;
use nexus_kernel::hal::RecordError;
use parking_lot::Mutex;

/// How often in the time that a session may do nothing it is looked at: that is how exact this time is.
const LOOKS: u32 = 4;

/// The sessions of a store.
pub(super) struct Sessions<L> {
    env: Env,
    /// How long one may do nothing.
    hold: Duration,
    known: Arc<Mutex<Known<L>>>,
}

struct Known<L> {
    // Those that are gone are taken out before it would grow: it stays within a small multiple of what the store lends at once.
    slots: Vec<Weak<Slot<L>>>,
    /// Whether a task looks after them.
    watched: bool,
}

/// Where a session's lease lies while it does nothing.
pub(super) struct Seat<L> {
    slot: Arc<Slot<L>>,
    env: Env,
    hold: Duration,
}

type Slot<L> = Mutex<Held<L>>;

enum Held<L> {
    /// It runs a statement, or it is over: one failed, or was given up.
    Nothing,
    Idle(L, Instant),
    /// It did nothing for too long.
    TakenBack,
}

impl<L: Send + 'static> Sessions<L> {
    pub(super) fn new(env: Env, hold: Duration) -> Self {
        let known = Known { slots: Vec::new(), watched: false };
        Self { env, hold, known: Arc::new(Mutex::new(known)) }
    }

    /// A session begins, with this lease. What drops a lease takes back what was begun with it.
    pub(super) fn begin(&self, lease: L) -> Seat<L> {
        let slot = Arc::new(Mutex::new(Held::Idle(lease, self.env.now())));
        self.watch(&slot);
        Seat { slot, env: self.env.clone(), hold: self.hold }
    }

    /// Looks after `slot`, for as long as it is there.
    fn watch(&self, slot: &Arc<Slot<L>>) {
        let mut known = self.known.lock();
        if known.slots.len() == known.slots.capacity() {
            known.slots.retain(|slot| slot.strong_count() > 0);
        }
        known.slots.push(Arc::downgrade(slot));
        if mem::replace(&mut known.watched, true) {
            return;
        }
        drop(known);
        let (env, known, hold) = (self.env.clone(), Arc::downgrade(&self.known), self.hold);
        self.env.spawn("records-sessions", async move {
            loop {
                env.sleep(hold / LOOKS).await;
                let Some(known) = known.upgrade() else { return };
                if !look(&known, &env, hold) {
                    return;
                }
            }
        });
    }
}

/// Whether there is still something to look after.
fn look<L>(known: &Mutex<Known<L>>, env: &Env, hold: Duration) -> bool {
    let slots: Vec<Arc<Slot<L>>> = {
        let mut known = known.lock();
        known.slots.retain(|slot| slot.strong_count() > 0);
        let slots: Vec<_> = known.slots.iter().filter_map(Weak::upgrade).collect();
        // By what is there still, as is told below: a slot that went since would end the task, and leave it said that one looks.
        known.watched = !slots.is_empty();
        slots
    };
    if let Some(since) = env.now().checked_sub(hold) {
        slots.iter().for_each(|slot| take_back(slot, since));
    }
    !slots.is_empty()
}

/// Takes back what lies there since before `since`.
fn take_back<L>(slot: &Slot<L>, since: Instant) {
    let mut held = slot.lock();
    if matches!(&*held, Held::Idle(_, idle) if *idle <= since) {
        let idle = mem::replace(&mut *held, Held::TakenBack);
        drop(held);
        // Dropped here, and not under the lock.
        drop(idle);
    }
}

impl<L> Seat<L> {
    /// Takes the lease, for a statement.
    pub(super) fn take(&self) -> Result<L, RecordError> {
        match mem::replace(&mut *self.slot.lock(), Held::Nothing) {
            Held::Idle(lease, _) => Ok(lease),
            Held::Nothing => Err(RecordError::Aborted),
            Held::TakenBack => {
                let what = "the session, which did nothing,";
                Err(RecordError::TimedOut { what, limit: self.hold, unknown: false })
            }
        }
    }

    /// Lays it back.
    pub(super) fn put(&self, lease: L) {
        *self.slot.lock() = Held::Idle(lease, self.env.now());
    }
}

impl<L> fmt::Debug for Sessions<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("hold", &self.hold).finish_non_exhaustive()
    }
}

impl<L> fmt::Debug for Seat<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_idle = matches!(*self.slot.lock(), Held::Idle(..));
        f.debug_struct("Seat").field("is_idle", &is_idle).finish_non_exhaustive()
    }
}
