//! A table of places that is used by many tasks at once: each operation is a few instructions under the mutex of one part of it.
//!
//! Keys of which one can exclude the other are in one part, so each part is by itself. A key that reaches all others, as the root of a namespace does,
//! has all parts put together while something is held or waited for at it.

mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use nexus_messages::syscall::LockKind;
use nexus_messages::{LifeId, LockId};
use smallvec::SmallVec;

use super::places::{
    Grant, Holder, Issue, Key, Moment, Moved, Obstacle, Owner, Place, Places, Request, Waiter,
};
use super::ticket::{Ticket, Verdict};
pub(crate) use waiting::Waiting;

use crate::locks::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

#[cfg(not(nexus_loom))]
const PARTS: usize = 16;
#[cfg(nexus_loom)]
const PARTS: usize = 2;

const _: () = assert!(PARTS.is_power_of_two());

/// What lasts for so long or longer may last for some milliseconds more.
const EXACT_BELOW: Duration = Duration::from_secs(1);

/// How much one part of a table holds at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) held: usize,
    pub(crate) waiting: usize,
}

/// What came of asking for a place.
pub(crate) enum Lined<'t, K: Filed> {
    Held(Grant),
    Waiting(Waiting<'t, K>),
    /// There are as many as may be.
    Full,
}

/// Where a key is filed.
pub(crate) trait Filed: Key + Send + Sync + fmt::Debug + 'static {
    /// A number that keys share which can exclude each other; none for a key that reaches all others.
    fn part(&self) -> Option<u64>;
}

/// Tells how long a table has been there.
pub(crate) trait Clock: Send + Sync + 'static {
    fn now(&self) -> Moment;

    /// A moment that is not after now, and one that is not before it, some milliseconds apart at most: cheaper than `now`.
    fn around_now(&self) -> (Moment, Moment) {
        let now = self.now();
        (now, now)
    }
}

impl<F: Fn() -> Moment + Send + Sync + 'static> Clock for F {
    fn now(&self) -> Moment {
        self()
    }
}

/// Gives identities and tokens.
pub(crate) struct Tokens {
    /// By itself in its line of the cache: each grant of any part changes it.
    next: CachePadded<AtomicU64>,
    /// What may be given ends here: from there on nothing is known to be reserved.
    end: AtomicU64,
    salt: Box<dyn Fn(u64) -> u64 + Send + Sync>,
}

impl Tokens {
    /// Tokens from `next` on, below `end`. `salt` gives each token a number that nobody can guess.
    pub(crate) fn new(next: u64, end: u64, salt: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        let next = CachePadded::new(AtomicU64::new(next));
        Self { next, end: AtomicU64::new(end), salt: Box::new(salt) }
    }

    /// Whether at least so many can be given.
    pub(crate) fn has(&self, count: u64) -> bool {
        // Relaxed: who has reserved more hands it to those who ask for it through the future that waited for it.
        self.next.load(Ordering::Relaxed).saturating_add(count) <= self.end.load(Ordering::Relaxed)
    }

    /// Gives those from `from` to `end` next, unless it is beyond them already.
    pub(crate) fn reserve(&self, from: u64, end: u64) {
        self.next.fetch_max(from, Ordering::Relaxed);
        self.end.fetch_max(end, Ordering::Relaxed);
    }
}

impl Issue for Tokens {
    fn issue(&self) -> (LockId, u64) {
        // Relaxed: each addition gives another number, and of two grants at one key the mutex tells which is the later.
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        (LockId(u128::from((self.salt)(token)) << 64 | u128::from(token)), token)
    }
}

/// Places that are shared. Cloning gives another handle on the same table.
pub(crate) struct Table<K: Filed>(Arc<Inner<K>>);

struct Inner<K> {
    parts: Box<[CachePadded<Mutex<Part<K>>>]>,
    tokens: Tokens,
    bounds: Bounds,
    clock: Box<dyn Clock>,
    /// Rung when somebody lines up: what is to be seen to in time is somebody else's.
    bell: Box<dyn Fn() + Send + Sync>,
    /// Told under the mutex of the part what changed there.
    ear: Ear<K>,
    /// Apart from what is only read.
    numbers: CachePadded<AtomicU64>,
    woken: CachePadded<AtomicU64>,
    /// What goes with a life, by its token. Locked after a part, never before one.
    ties: CachePadded<Mutex<HashMap<LifeId, Tied<K>>>>,
}

/// What goes with one life, by its token.
type Tied<K> = BTreeMap<u64, (K, LockId)>;

struct Part<K> {
    places: Places<K, Arc<Ticket>>,
    /// Whether all is in the first part.
    merged: bool,
    granted: u64,
}

/// What a table counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) granted: u64,
    pub(crate) held: usize,
    pub(crate) waiting: usize,
    /// How many tasks were woken because they were served, or told that they never would be.
    pub(crate) woken: u64,
}

/// Somebody who waits, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Wait<K> {
    pub(crate) key: K,
    pub(crate) number: u64,
    pub(crate) owner: Owner,
    pub(crate) blockers: Vec<Owner>,
}

/// Hears what becomes of places; gives those who are to be woken for that.
type Ear<K> = Box<dyn Fn(&K, &Holder, Change) -> Vec<Waker> + Send + Sync>;

/// What became of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Given,
    Gone,
}

/// Who was served or told in one operation, woken when the part is let go of.
#[derive(Default)]
struct Woken {
    served: SmallVec<[Waker; 1]>,
    /// Who only hears of what happened.
    hearing: Vec<Waker>,
}

impl<K: Filed> Clone for Table<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Filed> Table<K> {
    /// Nothing is held. `clock` tells how long the table has been there; `bell` is rung when somebody lines up, and `ear` told
    /// of each place that is given and that goes; neither may block, or ask the table for anything.
    pub(crate) fn new(
        tokens: Tokens,
        bounds: Bounds,
        clock: impl Clock,
        bell: impl Fn() + Send + Sync + 'static,
        ear: impl Fn(&K, &Holder, Change) -> Vec<Waker> + Send + Sync + 'static,
    ) -> Self {
        let part = || CachePadded::new(Mutex::new(Part { places: Places::new(), merged: false, granted: 0 }));
        Self(Arc::new(Inner {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            tokens,
            bounds,
            clock: Box::new(clock),
            bell: Box::new(bell),
            ear: Box::new(ear),
            numbers: CachePadded::new(AtomicU64::new(0)),
            woken: CachePadded::new(AtomicU64::new(0)),
            ties: CachePadded::new(Mutex::new(HashMap::new())),
        }))
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn now(&self) -> Moment {
        self.0.clock.now()
    }

    /// Holds a place now, if nothing stands in the way.
    pub(crate) fn acquire(&self, key: &K, request: Request) -> Result<Grant, Obstacle<K>> {
        let (held, awaited) = self.0.with(key, |inner, part, woken| {
            if part.places.holders() >= inner.bounds.held {
                return (Err(Obstacle::Full), part.places.is_awaited());
            }
            let now = inner.clock.now();
            if let Some(obstacle) = part.places.obstacle(key, request.kind, u64::MAX, now) {
                return (Err(obstacle), part.places.is_awaited());
            }
            let grant = inner.hold(part, key, request, now, woken);
            (Ok(grant), part.places.is_awaited())
        });
        if awaited {
            // Its time may be over before those are of whom was known.
            (self.0.bell)();
        }
        held
    }

    /// Holds a place at `key` in the simplest case: nobody is at the key, and nobody waits in its part. None, and nothing is done, in any other; [`acquire`](Self::acquire)
    /// is for those.
    pub(crate) fn take(&self, key: K, request: Request) -> Option<Grant> {
        let part = key.part()?;
        self.0.at(index(part), |inner, part, woken| {
            if part.places.holders() >= inner.bounds.held || part.places.is_awaited() {
                return None;
            }
            // Whose time is not surely over is in the way, and the new one lasts for no less than it is to.
            let (earliest, latest) = if request.ttl < EXACT_BELOW {
                let now = inner.clock.now();
                (now, now)
            } else {
                inner.clock.around_now()
            };
            if !part.places.is_alone(&key, request.kind, earliest) {
                return None;
            }
            let (id, token) = inner.tokens.issue();
            let until = latest.saturating_add(request.ttl);
            let holder = Holder::new(id, token, request, latest, until);
            inner.granted(&mut part.granted, &key, &holder, woken);
            part.places.put(key, holder);
            Some(Grant { id, token })
        })
    }

    /// Takes the place at `key` back that `id` holds in memory alone, in the simplest cases: nobody else is at the key, and nobody waits in its part; or [it can be handed
    /// over](Places::hand_over). The key again, and nothing is done, in any other; [`release_plain`](Self::release_plain) is for those.
    pub(crate) fn give_back(&self, key: K, id: LockId) -> Result<(), K> {
        let Some(part) = key.part() else { return Err(key) };
        self.0.at(index(part), |inner, part, woken| {
            // Who is not surely in time goes the long way.
            let (_, latest) = inner.clock.around_now();
            if part.places.is_awaited() {
                return if inner.hand_over(part, &key, id, latest, woken) { Ok(()) } else { Err(key) };
            }
            part.places.take_alone(key, id, latest, |key, holder| inner.gone(key, holder, woken))
        })
    }

    /// Holds a place now, or lines up for it.
    pub(crate) fn line_up(&self, key: &K, request: Request) -> Lined<'_, K> {
        let ticket = Arc::new(Ticket::new());
        let lined = self.0.with(key, |inner, part, woken| {
            if part.places.holders() >= inner.bounds.held || part.places.waiters() >= inner.bounds.waiting {
                return Lined::Full;
            }
            let now = inner.clock.now();
            if part.places.obstacle(key, request.kind, u64::MAX, now).is_none() {
                return Lined::Held(inner.hold(part, key, request, now, woken));
            }
            // Relaxed: only that later ones are higher is asked of it, and the mutex of the part sees to that where it matters.
            let number = inner.numbers.fetch_add(1, Ordering::Relaxed);
            part.places.line_up(key, Waiter { number, request, since: now, who: ticket.clone() });
            Lined::Waiting(Waiting { table: &self.0, key: key.clone(), number, ticket, is_over: false })
        });
        if matches!(lined, Lined::Waiting(_)) {
            (self.0.bell)();
        }
        lined
    }

    /// Lets `id` hold its place for `ttl` from now on; none when it does not hold it any more.
    pub(crate) fn extend(&self, key: &K, id: LockId, ttl: Duration) -> Option<Holder> {
        let (holder, awaited) = self.0.with(key, |inner, part, _| {
            (part.places.extend(key, id, ttl, inner.clock.now()), part.places.is_awaited())
        });
        if awaited {
            (self.0.bell)();
        }
        holder
    }

    /// Takes the place back that `id` holds; none when it does not hold it any more.
    pub(crate) fn release(&self, key: &K, id: LockId) -> Option<Holder> {
        self.0.release(key, id)
    }

    /// As [`release`](Self::release), of what is in memory alone; false, and nothing is done, when it is not.
    pub(crate) fn release_plain(&self, key: &K, id: LockId) -> bool {
        self.0.with(key, |inner, part, woken| {
            let plain = part.places.get(key).is_some_and(|place| {
                place.holders().iter().any(|holder| holder.id == id && !holder.request.durable)
            });
            plain && inner.release_in(part, key, id, woken).is_some()
        })
    }

    /// Takes all places at `key` back, whoever holds them.
    pub(crate) fn force(&self, key: &K) -> Vec<Holder> {
        self.0.with(key, |inner, part, woken| {
            let mut moved = Moved::default();
            let now = inner.clock.now();
            let mut gone = part.places.force(key, &inner.tokens, now, &mut moved);
            for holder in &gone {
                inner.gone(key, holder, woken);
            }
            gone.retain(|holder| holder.until > now);
            inner.settle(part, moved, woken);
            gone
        })
    }

    /// Puts a holder back that outlived the process; false when another one stands in its way.
    pub(crate) fn restore(&self, key: &K, id: LockId, token: u64, request: Request) -> bool {
        self.0.with(key, |inner, part, _| {
            let now = inner.clock.now();
            inner.tokens.next.fetch_max(token.saturating_add(1), Ordering::Relaxed);
            if part.places.obstacle(key, request.kind, u64::MAX, now).is_some() {
                return false;
            }
            let until = now.saturating_add(request.ttl);
            part.places.restore(key, Holder::new(id, token, request, now, until));
            true
        })
    }

    /// What keeps one of this kind at `key` from being held now.
    pub(crate) fn obstacle(&self, key: &K, kind: LockKind) -> Option<Obstacle<K>> {
        self.0.with(key, |inner, part, _| part.places.obstacle(key, kind, u64::MAX, inner.clock.now()))
    }

    /// As [`Places::pin`].
    pub(crate) fn pin(&self, key: &K, token: u64) -> Option<Pinned<K>> {
        let pinned = self.0.with(key, |inner, part, _| part.places.pin(key, token, inner.clock.now()));
        pinned.then(|| Pinned { table: self.0.clone(), key: key.clone(), token })
    }

    /// Takes back all that goes with `life`, one after the other as it was given. Gives what that was.
    pub(crate) fn end(&self, life: LifeId) -> Vec<(K, Holder)> {
        let tied = self.0.ties.lock().remove(&life).unwrap_or_default();
        tied.into_values()
            .filter_map(|(key, id)| self.0.release(&key, id).map(|holder| (key, holder)))
            .collect()
    }

    /// Takes back what is held by those whose time is over: as far as somebody waits for it, or all of it. Gives when to look again, and what that was.
    pub(crate) fn expire(&self, all: bool) -> (Option<Moment>, Vec<(K, Holder)>) {
        let (mut next, mut gone) = (None, Vec::new());
        for at in 0..PARTS {
            let (until, mut over) = self.0.at(at, |inner, part, woken| {
                let mut moved = Moved::default();
                let until = part.places.expire(all, &inner.tokens, inner.clock.now(), &mut moved);
                let over = moved.lapsed.clone();
                inner.settle(part, moved, woken);
                (until, over)
            });
            next = [next, until].into_iter().flatten().min();
            gone.append(&mut over);
        }
        (next, gone)
    }

    /// Has those told that they would wait for ever whom `find` names, of all who wait: by the number of the waiter, with whom it waits for in a circle.
    /// Nothing changes while it looks.
    pub(crate) fn refuse(&self, find: impl FnOnce(&[Wait<K>]) -> Vec<(u64, Vec<Owner>)>) -> usize {
        let mut woken = Woken::default();
        let mut parts: Vec<_> = self.0.parts.iter().map(|part| part.lock()).collect();
        let now = self.0.clock.now();
        let waits: Vec<Wait<K>> = parts.iter().flat_map(|part| part.places.waits(now)).collect();
        let refused = if waits.len() > 1 { find(&waits) } else { Vec::new() };
        for (number, circle) in &refused {
            let Some(wait) = waits.iter().find(|wait| wait.number == *number) else { continue };
            for part in &mut parts {
                let mut moved = Moved::default();
                let left = part.places.leave(&wait.key, *number, &self.0.tokens, now, &mut moved);
                if let Some(waiter) = left {
                    woken.served.extend(waiter.who.say(Verdict::Deadlock(circle.clone())));
                }
                self.0.settle(part, moved, &mut woken);
            }
        }
        drop(parts);
        self.0.wake(woken);
        refused.len()
    }

    /// Shows each place to `look`, one part after the other.
    pub(crate) fn each(&self, mut look: impl FnMut(&K, &Place<Arc<Ticket>>)) {
        for part in &self.0.parts {
            for (key, place) in part.lock().places.iter() {
                look(key, place);
            }
        }
    }

    /// Shows the place at `key` to `look`, if something is held or waited for there.
    pub(crate) fn look<R>(&self, key: &K, look: impl FnOnce(&Place<Arc<Ticket>>) -> R) -> Option<R> {
        self.0.with(key, |_, part, _| part.places.get(key).map(look))
    }

    pub(crate) fn counted(&self) -> Counted {
        let mut counted = Counted { woken: self.0.woken.load(Ordering::Relaxed), ..Counted::default() };
        for part in &self.0.parts {
            let part = part.lock();
            counted.granted += part.granted;
            counted.held += part.places.holders();
            counted.waiting += part.places.waiters();
        }
        counted
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.ties.lock().is_empty() && self.0.parts.iter().all(|part| part.lock().places.is_empty())
    }
}

impl<K: Filed> Inner<K> {
    /// Runs `f` on the part in which `key` is filed.
    fn with<R>(&self, key: &K, f: impl FnOnce(&Self, &mut Part<K>, &mut Woken) -> R) -> R {
        match key.part() {
            Some(part) => self.at(index(part), f),
            None => self.together(f),
        }
    }

    /// Runs `f` on the part at `at`, or on the first when all is there.
    fn at<R>(&self, at: usize, f: impl FnOnce(&Self, &mut Part<K>, &mut Woken) -> R) -> R {
        let mut woken = Woken::default();
        let (done, apart) = {
            let mut part = self.part(at);
            let done = f(self, &mut part, &mut woken);
            (done, part.merged && !part.places.has_all_reaching())
        };
        if apart {
            self.take_apart();
        }
        self.wake(woken);
        done
    }

    fn part(&self, at: usize) -> MutexGuard<'_, Part<K>> {
        loop {
            let own = self.parts[at].lock();
            if !own.merged || at == 0 {
                return own;
            }
            drop(own);
            let first = self.parts[0].lock();
            if first.merged {
                return first;
            }
            // It was taken apart between the two.
        }
    }

    /// Runs `f` with all parts put together.
    fn together<R>(&self, f: impl FnOnce(&Self, &mut Part<K>, &mut Woken) -> R) -> R {
        let mut woken = Woken::default();
        let done = {
            let mut parts = self.all();
            let (first, others) = parts.split_at_mut(1);
            if !first[0].merged {
                first[0].merged = true;
                for other in others {
                    other.merged = true;
                    first[0].places.absorb(&mut other.places);
                }
            }
            f(self, &mut first[0], &mut woken)
        };
        self.take_apart();
        self.wake(woken);
        done
    }

    /// Files each key in its own part again, when none is left that reaches all.
    fn take_apart(&self) {
        let mut parts = self.all();
        if !parts[0].merged || parts[0].places.has_all_reaching() {
            return;
        }
        for part in &mut parts {
            part.merged = false;
        }
        let all: Vec<_> = parts[0].places.drain().collect();
        for mut places in all {
            let at = places.first_key().and_then(Filed::part).map_or(0, index);
            parts[at].places.absorb(&mut places);
        }
    }

    /// All parts, locked in their order.
    fn all(&self) -> Vec<MutexGuard<'_, Part<K>>> {
        self.parts.iter().map(|part| part.lock()).collect()
    }

    fn release(&self, key: &K, id: LockId) -> Option<Holder> {
        self.with(key, |inner, part, woken| inner.release_in(part, key, id, woken))
    }

    fn release_in(&self, part: &mut Part<K>, key: &K, id: LockId, woken: &mut Woken) -> Option<Holder> {
        let mut moved = Moved::default();
        let now = self.clock.now();
        let holder = part.places.release(key, id, &self.tokens, now, &mut moved)?;
        self.gone(key, &holder, woken);
        self.settle(part, moved, woken);
        (holder.until > now).then_some(holder)
    }

    /// As [`Places::hand_over`], and says so to whom it is of interest.
    fn hand_over(&self, part: &mut Part<K>, key: &K, id: LockId, now: Moment, woken: &mut Woken) -> bool {
        let from = |ttl| if ttl < EXACT_BELOW { self.clock.now() } else { now };
        let Some((gone, first, holder)) = part.places.hand_over(key, id, now, from, &self.tokens) else {
            return false;
        };
        self.gone(key, &gone, woken);
        self.granted(&mut part.granted, key, holder, woken);
        woken.served.extend(first.say(Verdict::Held(holder.grant())));
        true
    }

    /// Holds a place for which nothing stands in the way.
    fn hold(&self, part: &mut Part<K>, key: &K, request: Request, now: Moment, woken: &mut Woken) -> Grant {
        let mut moved = Moved::default();
        let holder = part.places.hold(key, request, &self.tokens, now, &mut moved);
        self.settle(part, moved, woken);
        self.granted(&mut part.granted, key, &holder, woken);
        holder.grant()
    }

    /// Notes what was granted.
    fn granted(&self, count: &mut u64, key: &K, holder: &Holder, woken: &mut Woken) {
        *count += 1;
        woken.hearing.append(&mut (self.ear)(key, holder, Change::Given));
        if holder.request.tied {
            let mut ties = self.ties.lock();
            let tied = ties.entry(holder.request.owner.life).or_default();
            tied.insert(holder.token, (key.clone(), holder.id));
        }
    }

    /// Notes that a place is not held any more.
    fn gone(&self, key: &K, holder: &Holder, woken: &mut Woken) {
        woken.hearing.append(&mut (self.ear)(key, holder, Change::Gone));
        if !holder.request.tied {
            return;
        }
        let (life, mut ties) = (holder.request.owner.life, self.ties.lock());
        if let Some(tied) = ties.get_mut(&life) {
            tied.remove(&holder.token);
            if tied.is_empty() {
                ties.remove(&life);
            }
        }
    }

    /// Says to whom it was what an operation did beside what it was asked for.
    fn settle(&self, part: &mut Part<K>, moved: Moved<K, Arc<Ticket>>, woken: &mut Woken) {
        for (key, holder) in &moved.lapsed {
            self.gone(key, holder, woken);
        }
        for (key, waiter, holder) in moved.served {
            self.granted(&mut part.granted, &key, &holder, woken);
            // Under the mutex, so that a wait that is given up finds itself in the line or served, and nothing between.
            woken.served.extend(waiter.who.say(Verdict::Held(holder.grant())));
        }
    }

    #[inline]
    fn wake(&self, woken: Woken) {
        if woken.served.is_empty() && woken.hearing.is_empty() {
            return;
        }
        if !woken.served.is_empty() {
            self.woken.fetch_add(woken.served.len() as u64, Ordering::Relaxed);
        }
        woken.served.into_iter().chain(woken.hearing).for_each(Waker::wake);
    }
}

/// The index of the part of keys that share `part`.
fn index(part: u64) -> usize {
    // The highest bits: a hash has its best ones there, and hash tables do not use them for the choice of a bucket.
    usize::try_from(part >> (u64::BITS - PARTS.trailing_zeros())).unwrap_or_default()
}

impl<K: Filed> Places<K, Arc<Ticket>> {
    /// Whether something is held or waited for at a key that reaches all others.
    fn has_all_reaching(&self) -> bool {
        // Such a key is before all that it reaches.
        self.iter().any(|(key, _)| key.part().is_none())
    }

    /// Who waits, and for whom.
    fn waits(&self, now: Moment) -> Vec<Wait<K>> {
        let mut waits = Vec::new();
        for (key, waiter, before) in self.lines() {
            let mut blockers = self.blockers(key, waiter, before, now);
            blockers.extend(before.map(|before| before.request.owner.clone()));
            waits.push(Wait {
                key: key.clone(),
                number: waiter.number,
                owner: waiter.request.owner.clone(),
                blockers,
            });
        }
        waits
    }
}

/// A write that was let pass because of the lock under which it is made. Until this is dropped nobody else is given that lock.
pub(crate) struct Pinned<K: Filed> {
    table: Arc<Inner<K>>,
    key: K,
    token: u64,
}

impl<K: Filed> Drop for Pinned<K> {
    fn drop(&mut self) {
        self.table.with(&self.key, |inner, part, woken| {
            let mut moved = Moved::default();
            part.places.unpin(&self.key, self.token, &inner.tokens, inner.clock.now(), &mut moved);
            inner.settle(part, moved, woken);
        });
    }
}

impl<K: Filed> fmt::Debug for Table<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("counted", &self.counted()).finish()
    }
}
