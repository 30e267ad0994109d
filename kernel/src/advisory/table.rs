//! The table of advisory locks, and that of semaphores: taken and given back on the caller's task.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus_actors::{Env, Ref, Stopwatch};
use nexus_messages::syscall::{LockHolder, LockKind, LockState, LockWaiter, SysLock};
use nexus_messages::{Caller, EntryType, LifeId, LockId, Result, VPath, ZoneId};

use super::hearing::Hearing;
use super::key::LockKey;
use super::messages::Look;
use super::view::{AdvisoryLock, AdvisoryStatistics};
use super::{Advisory, HELD_MAX, WAITING_MAX};
use crate::semaphore::places::{self, Grant, Holder, Moment, Owner, Place, Request};
use crate::semaphore::table::{self, Bid, Bounds, Clock, Table, Tokens, Wait};
use crate::semaphore::{Name, Semaphore};

pub(crate) type Obstacle = places::Obstacle<LockKey>;
pub(crate) type Lined<'t> = table::Lined<'t, LockKey>;
pub(crate) type Pinned = table::Pinned<LockKey>;

/// Tokens of semaphores are good for one process alone.
const SEMAPHORE_TOKENS: std::ops::Range<u64> = 1..u64::MAX;

/// What a table holds at most, and each agent of it.
fn bounds(each: usize) -> Bounds {
    Bounds { held: HELD_MAX, waiting: WAITING_MAX, each }
}

/// The advisory locks of all zones, and the semaphores. Nothing here blocks longer than a few instructions under a mutex.
pub struct AdvisoryLocks {
    env: Env,
    locks: Table<LockKey>,
    each: usize,
    semaphores: Table<Name>,
    bell: Arc<Bell>,
    hearing: Arc<Hearing>,
    expired: AtomicU64,
    deadlocks: AtomicU64,
    /// Held by who reserves tokens, so that one does it for all.
    pub(super) reserving: tokio::sync::Mutex<()>,
    /// Held by who changes what of a lock is on disk, from before the row until the table agrees with it.
    pub(super) keeping: Arc<tokio::sync::Mutex<()>>,
}

/// Wakes the actor, once for all who ring before it comes.
struct Bell {
    actor: Ref<Advisory>,
    rung: AtomicBool,
    /// Whether the actor comes again by itself while something is held.
    comes: AtomicBool,
    /// When it comes by itself, in nanoseconds; `u64::MAX` while that is not known.
    next: AtomicU64,
    /// When the first of what is held ends, as far as that is before all of it is looked at again; else `u64::MAX`.
    ends: AtomicU64,
}

impl Bell {
    /// Has the actor look at `by`, or before.
    fn ring_by(&self, by: Moment) {
        // Relaxed: whoever finds a time here that is taken back before the actor looks has changed the table before, under a mutex which the actor takes after it.
        if self.next.load(Ordering::Relaxed) > nanos(by) {
            self.ring();
        }
    }

    fn ring(&self) {
        // SeqCst, here and where it is taken back: who finds it rung has changed the table before the look that will follow.
        if !self.rung.swap(true, Ordering::SeqCst) && self.actor.signal(Look).is_err() {
            // It has ended. Its successor looks before all else.
            self.rung.store(false, Ordering::SeqCst);
        }
    }
}

impl Clock for Arc<Stopwatch> {
    #[inline]
    fn now(&self) -> Moment {
        self.elapsed()
    }

    #[inline]
    fn around_now(&self) -> (Moment, Moment) {
        self.bounds()
    }
}

impl AdvisoryLocks {
    /// Nothing is locked, and one agent may hold and wait for `each` locks. `actor` is told when something is to be done in time.
    pub(crate) fn new(env: &Env, actor: Ref<Advisory>, hearing: Arc<Hearing>, each: usize) -> Self {
        let bell = Arc::new(Bell {
            actor,
            rung: AtomicBool::new(false),
            comes: AtomicBool::new(false),
            next: AtomicU64::new(u64::MAX),
            ends: AtomicU64::new(u64::MAX),
        });
        let tokens = |range: std::ops::Range<u64>| {
            let secret = env.secret();
            Tokens::new(range.start, range.end, move |token| secret.of(token))
        };
        let clock = Arc::new(env.stopwatch());
        let ring = || {
            let bell = bell.clone();
            move |bid| match bid {
                Bid::Look(by) => bell.ring_by(by),
                Bid::Ends(at) => {
                    // Before the actor is rung for, and behind the change of the table: a look at all of it that takes this back has seen what ends.
                    bell.ends.fetch_min(nanos(at), Ordering::Relaxed);
                    bell.ring_by(at);
                }
            }
        };
        let heard = hearing.clone();
        let hears = move |key: &LockKey, holder: &Holder, change| heard.hear(key, holder, change);
        Self {
            // Before any were reserved none may be given.
            locks: Table::new(tokens(0..0), bounds(each), clock.clone(), ring(), hears),
            each,
            semaphores: Table::new(
                tokens(SEMAPHORE_TOKENS),
                bounds(usize::MAX),
                clock.clone(),
                ring(),
                |_, _, _| Vec::new(),
            ),
            bell: bell.clone(),
            hearing,
            expired: AtomicU64::new(0),
            deadlocks: AtomicU64::new(0),
            reserving: tokio::sync::Mutex::new(()),
            keeping: Arc::default(),
            env: env.clone(),
        }
    }

    pub(super) fn tokens(&self) -> &Tokens {
        self.locks.tokens()
    }

    /// Holds a lock now, if nothing stands in the way.
    pub(crate) fn acquire(&self, key: &LockKey, request: Request) -> std::result::Result<Grant, Obstacle> {
        let held = self.locks.acquire(key, request);
        if held.is_ok() {
            self.attend();
        }
        held
    }

    /// As [`Table::take`].
    #[inline]
    pub(crate) fn take(&self, key: LockKey, request: Request) -> Option<Grant> {
        let taken = self.locks.take(key, request);
        if taken.is_some() {
            self.attend();
        }
        taken
    }

    /// As [`Table::give_back`].
    #[inline]
    pub(crate) fn give_back(&self, key: LockKey, id: LockId) -> std::result::Result<(), LockKey> {
        self.locks.give_back(key, id)
    }

    /// Holds a lock now, or lines up for it.
    pub(crate) fn line_up(&self, key: &LockKey, request: Request) -> Lined<'_> {
        let lined = self.locks.line_up(key, request);
        if matches!(lined, Lined::Held(_)) {
            self.attend();
        }
        lined
    }

    /// How many locks one agent may hold and wait for.
    pub(crate) fn each_max(&self) -> usize {
        self.each
    }

    /// What keeps an exclusive lock from being held now.
    pub(crate) fn obstacle(&self, key: &LockKey) -> Option<Obstacle> {
        self.locks.obstacle(key, LockKind::Exclusive)
    }

    /// How long the table has been there: what moments are counted from.
    pub(crate) fn now(&self) -> Moment {
        self.locks.now()
    }

    pub(crate) fn extend(&self, key: &LockKey, id: LockId, ttl: Duration) -> Option<Holder> {
        self.locks.extend(key, id, ttl)
    }

    pub(crate) fn release(&self, key: &LockKey, id: LockId) -> Option<Holder> {
        self.locks.release(key, id)
    }

    /// As [`release`](Self::release), of what is in memory alone; false, and nothing is done, when it is not.
    pub(crate) fn release_plain(&self, key: &LockKey, id: LockId) -> bool {
        self.locks.release_plain(key, id)
    }

    pub(crate) fn force(&self, key: &LockKey) -> Vec<Holder> {
        self.locks.force(key)
    }

    /// Holds a lock again that outlived the process, and is held for as long as `before`; false when another one stands in its way.
    pub(super) fn restore(&self, key: &LockKey, grant: Grant, request: Request, before: Duration) -> bool {
        let restored = self.locks.restore(key, grant, request, before);
        self.bell.ring();
        restored
    }

    /// Has the row of a durable lock removed that is not held.
    pub(super) fn forget(&self, key: &LockKey, id: LockId) {
        self.hearing.note_gone(key, id);
        self.bell.ring();
    }

    /// The row of a lock that is not held any more could not be removed: the next one who looks tries again.
    pub(super) fn still_gone(&self, key: &LockKey, id: LockId, is_doubted: bool) {
        if is_doubted {
            self.hearing.doubt(id);
        }
        self.hearing.note_gone(key, id);
    }

    /// As [`Hearing::take_gone`].
    pub(super) fn take_gone(&self) -> Vec<(LockKey, LockId)> {
        self.hearing.take_gone()
    }

    /// As [`Hearing::doubt`].
    pub(super) fn doubt(&self, id: LockId) {
        self.hearing.doubt(id);
    }

    /// As [`Hearing::take_doubt`].
    pub(super) fn take_doubt(&self, id: LockId) -> bool {
        self.hearing.take_doubt(id)
    }

    /// Who holds `id` at `key`, or did and nobody has looked since the time was over.
    pub(super) fn holder(&self, key: &LockKey, id: LockId) -> Option<Holder> {
        let found = |place: &Place<_>| place.holders().iter().find(|holder| holder.id == id).cloned();
        self.locks.look(key, found).flatten()
    }

    /// Whether `id` is held at `key`, or was and nobody has looked since its time was over.
    pub(crate) fn is_held(&self, key: &LockKey, id: LockId) -> bool {
        self.locks.look(key, |place| place.holders().iter().any(|holder| holder.id == id)).unwrap_or(false)
    }

    /// The durable locks at `key`.
    pub(super) fn durable_at(&self, key: &LockKey) -> Vec<LockId> {
        let ids = |place: &Place<_>| {
            place.holders().iter().filter(|holder| holder.request.durable).map(|holder| holder.id).collect()
        };
        self.locks.look(key, ids).unwrap_or_default()
    }

    /// Where the lock `id` is held, and what else it may be asked for by; none when it is not held. Looks at all locks.
    pub(crate) fn find(&self, id: LockId) -> Option<(LockKey, Option<VPath>)> {
        let mut found = None;
        self.locks.each(|key, place| {
            if let Some(holder) = place.holders().iter().find(|holder| holder.id == id) {
                found = Some((key.clone(), holder.alias.clone()));
            }
        });
        found
    }

    /// Lets the lock `id` at `key` be asked for by the path that it was taken by, too, where a link led from there: it may be gone, or lead elsewhere, when the lock is
    /// given back.
    pub(crate) fn call(&self, key: &LockKey, id: LockId, alias: VPath) {
        self.locks.call(key, id, alias);
    }

    /// Lets a write pass that is made under the lock with this token; none when that is not held any more.
    pub(crate) fn pin(&self, key: &LockKey, token: u64) -> Option<Pinned> {
        self.locks.pin(key, token)
    }

    /// Takes back what goes with `life`.
    pub(crate) fn end(&self, life: LifeId) -> Vec<(LockKey, Holder)> {
        self.locks.end(life)
    }

    /// The lock `id` at `key`, taken back when this is dropped before it is kept.
    pub(crate) fn granted(self: &Arc<Self>, key: LockKey, id: LockId) -> Granted {
        Granted { locks: self.clone(), held: Some((key, id)) }
    }

    /// Has the actor look, unless it comes by itself.
    fn attend(&self) {
        if !self.bell.comes.load(Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// The semaphore called `name`, of which `holders_max` can hold a place at once, for `caller`.
    ///
    /// # Errors
    /// `EINVAL` for a name that is empty or too long, and for places for nobody.
    pub fn semaphore(&self, caller: &Arc<Caller>, name: &str, holders_max: u32) -> Result<Semaphore> {
        let bell = self.bell.clone();
        let attend = move || {
            if !bell.comes.load(Ordering::SeqCst) {
                bell.ring();
            }
        };
        Semaphore::new(&self.env, &self.semaphores, Arc::new(attend), caller, name, holders_max)
    }

    /// Who holds and who waits for the lock on `path` of `zone`; none when nobody does. Sends no mail.
    pub fn state(&self, zone: &ZoneId, path: &VPath) -> Option<LockState> {
        let now = self.locks.now();
        self.locks.look(&LockKey::new(zone, path), |place| state(place, now)).filter(is_any)
    }

    /// What is locked or waited for, in the order of zones and paths, at most `limit`. Sends no mail.
    pub fn list(&self, limit: usize) -> Vec<AdvisoryLock> {
        let now = self.locks.now();
        let mut found: Vec<(LockKey, LockState)> = Vec::new();
        self.locks.each(|key, place| found.push((key.clone(), state(place, now))));
        found.retain(|(_, state)| is_any(state));
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.truncate(limit);
        found
            .into_iter()
            .map(|(key, state)| {
                let (zone, path) = key.parts();
                AdvisoryLock { zone, path, state }
            })
            .collect()
    }

    /// What was counted so far. Sends no mail.
    pub fn statistics(&self) -> AdvisoryStatistics {
        let (locks, semaphores) = (self.locks.counted(), self.semaphores.counted());
        AdvisoryStatistics {
            granted: locks.granted,
            held: locks.held,
            waiting: locks.waiting,
            woken: locks.woken,
            expired: self.expired.load(Ordering::Relaxed),
            deadlocks: self.deadlocks.load(Ordering::Relaxed),
            semaphore_places: semaphores.held,
        }
    }

    /// Whether anybody waits for a lock.
    pub(super) fn is_awaited(&self) -> bool {
        self.locks.counted().waiting > 0
    }

    /// The actor begins to look: whoever changes something from now on may come too late for that.
    pub(super) fn begin_look(&self) {
        self.bell.next.store(u64::MAX, Ordering::Relaxed);
    }

    /// The actor comes again by itself after this time.
    pub(super) fn end_look(&self, after: Duration) {
        self.bell.next.store(nanos(self.now().saturating_add(after)), Ordering::Relaxed);
    }

    /// Tells those who wait for each other; how many.
    pub(super) fn search(&self, circles: impl Fn(&[Wait<LockKey>]) -> Vec<(u64, Vec<Owner>)>) -> usize {
        let refused = self.locks.refuse(circles);
        self.deadlocks.fetch_add(refused as u64, Ordering::Relaxed);
        refused
    }

    /// Does what has come due, of what nobody waits for when it is to `sweep`; says after how long there is something to be done again.
    pub(super) fn see_to(&self, sweep: bool, sweep_every: Duration) -> Option<Duration> {
        self.bell.rung.store(false, Ordering::SeqCst);
        self.bell.comes.store(true, Ordering::SeqCst);
        if sweep {
            self.bell.ends.store(u64::MAX, Ordering::Relaxed);
        }
        let (next, ends, gone) = self.locks.expire(sweep);
        for (key, holder) in &gone {
            tracing::debug!(lock = ?key, agent = %holder.request.owner.agent, "the time of a lock is over");
        }
        let (next_place, place_ends, places) = self.semaphores.expire(sweep);
        self.expired.fetch_add((gone.len() + places.len()) as u64, Ordering::Relaxed);
        self.hearing.forget_gone();
        let held = || self.locks.counted().held + self.semaphores.counted().held > 0;
        if !held() {
            // Said before the last look: who comes after it rings.
            self.bell.comes.store(false, Ordering::SeqCst);
            if !held() {
                return None;
            }
            self.bell.comes.store(true, Ordering::SeqCst);
        }
        let now = self.locks.now();
        let soon = now.saturating_add(sweep_every);
        for end in [ends, place_ends].into_iter().flatten().filter(|end| *end < soon) {
            self.bell.ends.fetch_min(nanos(end), Ordering::Relaxed);
        }
        let next = [next, next_place].into_iter().flatten().min();
        Some(next.map_or(sweep_every, |next| next.saturating_sub(now).min(sweep_every)))
    }

    /// When the first of what is held ends, as far as that is before all of it is looked at again.
    pub(super) fn next_end(&self) -> Option<Moment> {
        let ends = self.bell.ends.load(Ordering::Relaxed);
        (ends < u64::MAX).then(|| Moment::from_nanos(ends))
    }
}

fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX)
}

fn is_any(state: &LockState) -> bool {
    !state.holders.is_empty() || !state.waiting.is_empty()
}

fn state<W>(place: &Place<W>, now: Moment) -> LockState {
    let living = place.holders().iter().filter(|holder| holder.until > now);
    let holders = living.map(|holder| {
        LockHolder::new(
            holder.request.owner.agent.clone(),
            holder.request.kind,
            holder.token,
            holder.age(now),
            holder.until.saturating_sub(now),
        )
    });
    let waiting = place.waiting().map(|waiter| {
        let request = &waiter.request;
        LockWaiter::new(request.owner.agent.clone(), request.kind, now.saturating_sub(waiter.since))
    });
    LockState::new(holders.collect(), waiting.collect())
}

/// What is locked, for those who hear of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Locking {
    /// What is there; a regular file where nothing is.
    pub(crate) entry_type: EntryType,
    /// Whether it is in the caller's own zone.
    pub(crate) is_own: bool,
}

impl Locking {
    /// Of what is in `zone`.
    #[inline]
    pub(crate) fn new(caller: &Caller, zone: &ZoneId, entry_type: EntryType) -> Self {
        Self { entry_type, is_own: caller.zone == *zone }
    }
}

/// What was asked for, as the table knows it.
#[inline]
pub(crate) fn request(caller: &Caller, call: &SysLock, Locking { entry_type, is_own }: Locking) -> Request {
    let SysLock { kind, ttl, tied, durable, session, .. } = *call;
    let (agent, zone) = (caller.agent.clone(), (!is_own).then(|| caller.zone.clone()));
    let owner =
        Owner { agent, zone, admin: caller.admin, user: caller.user.clone(), life: caller.life, session };
    Request { kind, ttl, owner, entry_type, tied, durable }
}

/// A lock that was given and not handed over yet.
pub(crate) struct Granted {
    locks: Arc<AdvisoryLocks>,
    held: Option<(LockKey, LockId)>,
}

impl Granted {
    /// It is handed over: who has it releases it.
    pub(crate) fn keep(mut self) {
        self.held = None;
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some((key, id)) = self.held.take() {
            self.locks.release(&key, id);
        }
    }
}

impl fmt::Debug for AdvisoryLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdvisoryLocks").field("statistics", &self.statistics()).finish()
    }
}
