//! A table of places that is used by many tasks at once: each operation is a few instructions under the mutex of one part of it.
//!
//! Keys of which one can exclude the other are in one part, so each part is by itself. A key that reaches others of all parts, as the root of a namespace does, has those gathered in
//! the first part while something is held or waited for at it. Whatever it does not reach, as other zones are, stays where it is.

mod accounts;
mod pinned;
mod ties;
mod tokens;
mod waiting;
mod waits;
mod woken;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use nexus_messages::syscall::LockKind;
use nexus_messages::{LifeId, LockId, VPath};

use super::places::{
    Grant, Holder, Issue, Key, Moment, Moved, Obstacle, Owner, Place, Places, Request, Waiter,
};
use super::ticket::{Ticket, Verdict};
use accounts::{Accounts, Known};
pub(crate) use pinned::Pinned;
use ties::Ties;
pub(crate) use tokens::Tokens;
pub(crate) use waiting::Waiting;
pub(crate) use waits::Wait;
use woken::Woken;
pub(crate) use woken::{BRIEF_BELOW, Bid};

use crate::locks::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

#[cfg(not(nexus_loom))]
const PARTS: usize = 16;
#[cfg(nexus_loom)]
const PARTS: usize = 2;

const _: () = assert!(PARTS.is_power_of_two());

/// Within what whoever lines up is looked after: it may be one of those who wait for each other.
pub(crate) const LOOKED_AFTER_WITHIN: Duration = Duration::from_millis(20);

/// What lasts for so long or longer may last for some milliseconds more.
const EXACT_BELOW: Duration = Duration::from_secs(1);

/// How often who has as many as it may is asked for what is counted and not in use: when others of its name give back meanwhile, there may be some again.
const COLLECTIONS_MAX: usize = 4;

/// How much one part of a table holds at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) held: usize,
    pub(crate) waiting: usize,
    /// How much one agent holds and waits for at most, in all parts together; `usize::MAX` when that is not counted.
    pub(crate) each: usize,
}

/// What came of asking for a place.
pub(crate) enum Lined<'t, K: Filed> {
    Held(Grant),
    Waiting(Waiting<'t, K>),
    /// There are as many as may be.
    Full,
    /// Who asks has as many as one agent may.
    Enough,
}

/// Where a key is filed.
pub(crate) trait Filed: Key + Send + Sync + fmt::Debug + 'static {
    /// A number that keys share which can exclude each other; none for a root: a key that reaches others whose numbers differ.
    fn part(&self) -> Option<u64>;

    /// Whether this key is below `root`, or is it.
    fn is_below(&self, root: &Self) -> bool {
        let _ = root;
        true
    }
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

/// Places that are shared. Cloning gives another handle on the same table.
pub(crate) struct Table<K: Filed>(Arc<Inner<K>>);

struct Inner<K> {
    parts: Box<[CachePadded<Mutex<Part<K>>>]>,
    tokens: Tokens,
    bounds: Bounds,
    clock: Box<dyn Clock>,
    /// Told by when something is to be seen to, which is somebody else's.
    bell: Box<dyn Fn(Bid) + Send + Sync>,
    /// Told under the mutex of the part what changed there.
    ear: Ear<K>,
    /// Apart from what is only read.
    numbers: CachePadded<AtomicU64>,
    woken: CachePadded<AtomicU64>,
    accounts: Accounts,
    ties: Ties<K>,
}

struct Part<K> {
    places: Places<K, Arc<Ticket>>,
    /// The roots of which all that is below them is in the first part. The same in all parts, and changed with all of them locked.
    ///
    /// Invariant: something is held, waited for or left at each of them, or who took that away is about to look here.
    gathered: Vec<K>,
    /// The accounts of the agents that were here last.
    known: Known,
    granted: u64,
}

impl<K: Filed> Part<K> {
    fn has_gathered(&self, key: &K) -> bool {
        self.gathered.iter().any(|root| key.is_below(root))
    }
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

/// Hears what becomes of places; gives those who are to be woken for that.
type Ear<K> = Box<dyn Fn(&K, &Holder, Change) -> Vec<Waker> + Send + Sync>;

/// What became of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Given,
    Gone,
}

impl<K: Filed> Clone for Table<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Filed> Table<K> {
    /// Nothing is held. `clock` tells how long the table has been there; `bell` is told by when somebody is to look, and `ear`
    /// of each place that is given and that goes; neither may block, or ask the table for anything.
    pub(crate) fn new(
        tokens: Tokens,
        bounds: Bounds,
        clock: impl Clock,
        bell: impl Fn(Bid) + Send + Sync + 'static,
        ear: impl Fn(&K, &Holder, Change) -> Vec<Waker> + Send + Sync + 'static,
    ) -> Self {
        let part = || {
            CachePadded::new(Mutex::new(Part {
                places: Places::new(),
                gathered: Vec::new(),
                known: Known::default(),
                granted: 0,
            }))
        };
        Self(Arc::new(Inner {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            tokens,
            bounds,
            clock: Box::new(clock),
            bell: Box::new(bell),
            ear: Box::new(ear),
            numbers: CachePadded::new(AtomicU64::new(0)),
            woken: CachePadded::new(AtomicU64::new(0)),
            accounts: Accounts::new(bounds.each),
            ties: Ties::new(),
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
        let kind = request.kind;
        let held = self.0.counted(request, |request| {
            let in_the_way = |inner: &Inner<K>, part: &Part<K>| {
                part.places
                    .obstacle(key, kind, u64::MAX, inner.clock.now())
                    .map(|obstacle| Some(Err(obstacle)))
            };
            self.0.gathered(key, in_the_way, |inner, part, woken| {
                if part.places.holders() >= inner.bounds.held {
                    return Some(Err(Obstacle::Full));
                }
                let now = inner.clock.now();
                if let Some(obstacle) = part.places.obstacle(key, kind, u64::MAX, now) {
                    return Some(Err(obstacle));
                }
                let request = inner.enter(part, request)?;
                let until = now.saturating_add(request.ttl);
                let grant = inner.hold(part, key, request, now, woken);
                if part.places.is_awaited() {
                    // Its time may be over before those are of whom was known.
                    woken.look_by(until);
                }
                Some(Ok(grant))
            })
        });
        held.unwrap_or(Err(Obstacle::Enough))
    }

    /// Holds a place at `key` in the simplest case: nobody is at the key, and nobody waits in its part. None, and nothing is done, in any other; [`acquire`](Self::acquire)
    /// is for those.
    pub(crate) fn take(&self, key: K, request: Request) -> Option<Grant> {
        let at = index(key.part()?);
        self.0.on(self.0.part_at(at, &key), |inner, part, woken| {
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
            if !part.places.is_alone(&key, request.kind, earliest)
                || !inner.accounts.enter(&mut part.known, &request.owner.agent)
            {
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
        let Some(at) = key.part().map(index) else { return Err(key) };
        self.0.on(self.0.part_at(at, &key), |inner, part, woken| {
            // Who is not surely in time goes the long way.
            let (_, latest) = inner.clock.around_now();
            if part.places.is_awaited() {
                return if inner.hand_over(part, &key, id, latest, woken) { Ok(()) } else { Err(key) };
            }
            let Part { places, known, .. } = part;
            places.take_alone(key, id, latest, |key, holder| inner.gone(known, key, holder, woken))
        })
    }

    /// Holds a place now, or lines up for it.
    pub(crate) fn line_up(&self, key: &K, request: Request) -> Lined<'_, K> {
        let ticket = Arc::new(Ticket::new());
        let lined = self.0.counted(request, |request| {
            self.0.gathered(
                key,
                |_, _| None,
                |inner, part, woken| {
                    if part.places.holders() >= inner.bounds.held
                        || part.places.waiters() >= inner.bounds.waiting
                    {
                        return Some(Lined::Full);
                    }
                    let request = inner.enter(part, request)?;
                    let now = inner.clock.now();
                    let Some(obstacle) = part.places.obstacle(key, request.kind, u64::MAX, now) else {
                        return Some(Lined::Held(inner.hold(part, key, request, now, woken)));
                    };
                    woken.look_by(now.saturating_add(LOOKED_AFTER_WITHIN));
                    if let Obstacle::Held { until, .. } = obstacle {
                        woken.look_by(until);
                    }
                    // Relaxed: only that later ones are higher is asked of it, and the mutex of the part sees to that where it matters.
                    let number = inner.numbers.fetch_add(1, Ordering::Relaxed);
                    part.places.line_up(key, Waiter { number, request, since: now, who: ticket.clone() });
                    let (key, ticket) = (key.clone(), ticket.clone());
                    Some(Lined::Waiting(Waiting { table: &self.0, key, number, ticket, is_over: false }))
                },
            )
        });
        lined.unwrap_or(Lined::Enough)
    }

    /// Lets `id` hold its place for `ttl` from now on; none when it does not hold it any more.
    pub(crate) fn extend(&self, key: &K, id: LockId, ttl: Duration) -> Option<Holder> {
        self.0.with(key, |inner, part, woken| {
            let holder = part.places.extend(key, id, ttl, inner.clock.now())?;
            woken.ends(ttl, holder.until);
            if part.places.is_awaited() {
                woken.look_by(holder.until);
            }
            Some(holder)
        })
    }

    /// As [`Places::call`].
    pub(crate) fn call(&self, key: &K, id: LockId, alias: VPath) {
        self.0.with(key, |_, part, _| part.places.call(key, id, alias));
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
                inner.gone(&mut part.known, key, holder, woken);
            }
            gone.retain(|holder| holder.until > now);
            inner.settle(part, moved, woken);
            gone
        })
    }

    /// Puts a holder back that outlived the process, and has been one for as long as `before`; false when another one stands in its way.
    pub(crate) fn restore(&self, key: &K, grant: Grant, request: Request, before: Duration) -> bool {
        let kind = request.kind;
        let in_the_way = |inner: &Inner<K>, part: &Part<K>| {
            part.places.obstacle(key, kind, u64::MAX, inner.clock.now()).map(|_| false)
        };
        self.0.tokens.pass(grant.token);
        self.0.gathered(key, in_the_way, |inner, part, _| {
            let now = inner.clock.now();
            if part.places.obstacle(key, request.kind, u64::MAX, now).is_some() {
                return false;
            }
            inner.accounts.restore(&mut part.known, &request.owner.agent);
            let until = now.saturating_add(request.ttl);
            let mut holder = Holder::new(grant.id, grant.token, request, now, until);
            holder.before = before;
            part.places.restore(key, holder);
            true
        })
    }

    /// What keeps one of this kind at `key` from being held now.
    pub(crate) fn obstacle(&self, key: &K, kind: LockKind) -> Option<Obstacle<K>> {
        let in_the_way = |part: &Part<K>| part.places.obstacle(key, kind, u64::MAX, self.0.clock.now());
        if key.part().is_none() {
            return self.0.all().iter().find_map(|part| in_the_way(part));
        }
        self.0.with(key, |_, part, _| in_the_way(part))
    }

    /// As [`Places::pin`].
    pub(crate) fn pin(&self, key: &K, token: u64) -> Option<Pinned<K>> {
        let pinned = self.0.with(key, |inner, part, _| part.places.pin(key, token, inner.clock.now()));
        pinned.then(|| Pinned { table: self.0.clone(), key: key.clone(), token })
    }

    /// Takes back all that goes with `life`, one after the other as it was given. Gives what that was.
    pub(crate) fn end(&self, life: LifeId) -> Vec<(K, Holder)> {
        let tied = self.0.ties.end(life);
        tied.into_values()
            .filter_map(|(key, id)| self.0.release(&key, id).map(|holder| (key, holder)))
            .collect()
    }

    /// Takes back what is held by those whose time is over: as far as somebody waits for it, or all of it. Gives when the next of the former is over, and of the latter, and what that was.
    pub(crate) fn expire(&self, all: bool) -> (Option<Moment>, Option<Moment>, Vec<(K, Holder)>) {
        let (mut next, mut ends, mut gone) = (None, None, Vec::new());
        for at in 0..PARTS {
            let (until, end, mut over) = self.0.on((self.0.parts[at].lock(), at), |inner, part, woken| {
                let mut moved = Moved::default();
                let until = part.places.expire(all, &inner.tokens, inner.clock.now(), &mut moved);
                let over = moved.lapsed.clone();
                inner.settle(part, moved, woken);
                (until, all.then(|| part.places.next_end()).flatten(), over)
            });
            next = [next, until].into_iter().flatten().min();
            ends = [ends, end].into_iter().flatten().min();
            gone.append(&mut over);
        }
        (next, ends, gone)
    }

    /// Has those told that they would wait for ever whom `find` names, of all who wait: by the number of the waiter, with whom it waits for in a circle.
    /// What it finds while others go on may be over by then, so it looks once more while nothing changes, if it has found something.
    pub(crate) fn refuse(&self, find: impl Fn(&[Wait<K>]) -> Vec<(u64, Vec<Owner>)>) -> usize {
        let mut parts: Vec<_> = self.0.parts.iter().map(|part| part.lock()).collect();
        if parts.iter().map(|part| part.places.waiters()).sum::<usize>() < 2 {
            return 0;
        }
        let waits_in = |parts: &[MutexGuard<'_, Part<K>>]| {
            let now = self.0.clock.now();
            let waits: Vec<Wait<K>> = parts.iter().flat_map(|part| part.places.waits(now)).collect();
            (waits, now)
        };
        let (waits, _) = waits_in(&parts);
        drop(parts);
        if find(&waits).is_empty() {
            return 0;
        }
        let mut woken = Woken::default();
        parts = self.0.parts.iter().map(|part| part.lock()).collect();
        let (waits, now) = waits_in(&parts);
        let refused = find(&waits);
        let keys: HashMap<u64, &K> = waits.iter().map(|wait| (wait.number, &wait.key)).collect();
        for (number, circle) in &refused {
            let Some(key) = keys.get(number) else { continue };
            for part in &mut parts {
                let mut moved = Moved::default();
                let left = part.places.leave(key, *number, &self.0.tokens, now, &mut moved);
                if let Some(waiter) = left {
                    self.0.accounts.leave(&mut part.known, &waiter.request.owner.agent);
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
        self.0.ties.is_empty() && self.0.parts.iter().all(|part| part.lock().places.is_empty())
    }
}

impl<K: Filed> Inner<K> {
    /// Runs `f` on the part in which `key` is. One that is a root is in the first, if anything is held or waited for at it.
    fn with<R>(&self, key: &K, f: impl FnOnce(&Self, &mut Part<K>, &mut Woken) -> R) -> R {
        self.on(self.part_at(key.part().map_or(0, index), key), f)
    }

    /// Runs `f` on this part, which has this index.
    fn on<R>(
        &self,
        (mut part, at): (MutexGuard<'_, Part<K>>, usize),
        f: impl FnOnce(&Self, &mut Part<K>, &mut Woken) -> R,
    ) -> R {
        let mut woken = Woken::default();
        let done = f(self, &mut part, &mut woken);
        let is_over = at == 0 && part.gathered.iter().any(|root| part.places.get(root).is_none());
        drop(part);
        if is_over {
            self.scatter();
        }
        self.wake(woken);
        done
    }

    /// The part in which `key` is, and its index: the one at `at`, unless it is gathered.
    #[inline]
    fn part_at(&self, at: usize, key: &K) -> (MutexGuard<'_, Part<K>>, usize) {
        loop {
            let own = self.parts[at].lock();
            if at == 0 || !own.has_gathered(key) {
                return (own, at);
            }
            drop(own);
            let first = self.parts[0].lock();
            if first.has_gathered(key) {
                return (first, 0);
            }
            // It was scattered between the two.
        }
    }

    /// Runs `f` on the part in which `key` is with all that it reaches. When that is not in one part yet, and `look` has an answer from one of them, that is it, and nothing moves.
    fn gathered<R>(
        &self,
        key: &K,
        look: impl Fn(&Self, &Part<K>) -> Option<R>,
        f: impl FnOnce(&Self, &mut Part<K>, &mut Woken) -> R,
    ) -> R {
        if key.part().is_some() {
            return self.with(key, f);
        }
        let mut woken = Woken::default();
        let done = {
            let mut parts = self.all();
            if !parts[0].has_gathered(key) {
                if let Some(done) = parts.iter().find_map(|part| look(self, part)) {
                    return done;
                }
                if let [first, others @ ..] = &mut *parts {
                    for other in others {
                        first.places.absorb(other.places.split(key));
                    }
                }
                for part in &mut parts {
                    part.gathered.push(key.clone());
                }
            }
            f(self, &mut parts[0], &mut woken)
        };
        self.scatter();
        self.wake(woken);
        done
    }

    /// Files what is below roots at which there is nothing any more in its own part again.
    fn scatter(&self) {
        let mut parts = self.all();
        let Part { places, gathered, .. } = &mut *parts[0];
        let (kept, over): (Vec<K>, Vec<K>) = gathered.drain(..).partition(|root| places.get(root).is_some());
        let all: Vec<_> = over.iter().map(|root| places.split(root)).collect();
        for part in &mut parts {
            part.gathered.clone_from(&kept);
        }
        for (key, place) in all.into_iter().flat_map(Places::into_places) {
            parts[key.part().map_or(0, index)].places.file(key, place);
        }
    }

    /// Counts one more of who asks, and gives back what it asks for; none when it has as many as it may.
    fn enter(&self, part: &mut Part<K>, request: &mut Option<Request>) -> Option<Request> {
        let agent = &request.as_ref()?.owner.agent;
        if self.accounts.enter(&mut part.known, agent) { request.take() } else { None }
    }

    /// Asks for what is counted, and once more when who asks has as many as it may, and some of them are not in use.
    fn counted<R>(&self, request: Request, ask: impl Fn(&mut Option<Request>) -> Option<R>) -> Option<R> {
        let mut request = Some(request);
        for _ in 0..COLLECTIONS_MAX {
            let done = ask(&mut request);
            if done.is_some() {
                return done;
            }
            let agent = request.as_ref()?.owner.agent.clone();
            let mut parts = self.all();
            if !self.accounts.collect(parts.iter_mut().map(|part| &mut part.known), &agent) {
                return None;
            }
        }
        None
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
        self.gone(&mut part.known, key, &holder, woken);
        self.settle(part, moved, woken);
        (holder.until > now).then_some(holder)
    }

    /// As [`Places::hand_over`], and says so to whom it is of interest.
    fn hand_over(&self, part: &mut Part<K>, key: &K, id: LockId, now: Moment, woken: &mut Woken) -> bool {
        let from = |ttl| if ttl < EXACT_BELOW { self.clock.now() } else { now };
        let is_awaited = part.places.waiters() > 1;
        let Some((gone, first, holder)) = part.places.hand_over(key, id, now, from, &self.tokens) else {
            return false;
        };
        self.gone(&mut part.known, key, &gone, woken);
        self.granted(&mut part.granted, key, holder, woken);
        if is_awaited {
            woken.look_by(holder.until);
        }
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
        woken.ends(holder.request.ttl, holder.until);
        woken.hearing.append(&mut (self.ear)(key, holder, Change::Given));
        if holder.request.tied {
            self.ties.tie(holder.request.owner.life, holder.token, (key.clone(), holder.id));
        }
    }

    /// Notes that a place is not held any more.
    fn gone(&self, known: &mut Known, key: &K, holder: &Holder, woken: &mut Woken) {
        self.accounts.leave(known, &holder.request.owner.agent);
        woken.hearing.append(&mut (self.ear)(key, holder, Change::Gone));
        if holder.request.tied {
            self.ties.untie(holder.request.owner.life, holder.token);
        }
    }

    /// Says to whom it was what an operation did beside what it was asked for.
    fn settle(&self, part: &mut Part<K>, moved: Moved<K, Arc<Ticket>>, woken: &mut Woken) {
        for (key, holder) in &moved.lapsed {
            self.gone(&mut part.known, key, holder, woken);
        }
        for (key, waiter, holder) in moved.served {
            self.granted(&mut part.granted, &key, &holder, woken);
            if part.places.is_awaited() {
                woken.look_by(holder.until);
            }
            // Under the mutex, so that a wait that is given up finds itself in the line or served, and nothing between.
            woken.served.extend(waiter.who.say(Verdict::Held(holder.grant())));
        }
    }

    #[inline]
    fn wake(&self, woken: Woken) {
        if woken.is_none() {
            return;
        }
        if !woken.served.is_empty() {
            self.woken.fetch_add(woken.served.len() as u64, Ordering::Relaxed);
        }
        woken.wake(&*self.bell);
    }
}

/// The index of the part of keys that share `part`.
fn index(part: u64) -> usize {
    // The highest bits: a hash has its best ones there, and hash tables do not use them for the choice of a bucket.
    usize::try_from(part >> (u64::BITS - PARTS.trailing_zeros())).unwrap_or_default()
}

impl<K: Filed> fmt::Debug for Table<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("counted", &self.counted()).finish()
    }
}
