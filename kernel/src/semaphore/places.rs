//! Who holds a place, until when, and who waits for one: the core of semaphores and of advisory locks.
//!
//! Synchronous, handed the time, and without any I/O. Who asks is served at once, or lines up; a place that becomes free goes at once to
//! whoever is next, and to nobody else: nobody is woken who then finds it taken.
//!
//! The order is fair: whoever asks waits for all that is held, and for all who asked before, as far as those stand in the way. So no stream of
//! readers starves a writer, and who only tries does not overtake.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use nexus_messages::syscall::LockKind;
use nexus_messages::{LockId, VPath};
use smallvec::SmallVec;

pub(crate) use super::asked::{Owner, Request};

/// A moment, as the time since the table was made.
pub(crate) type Moment = Duration;

/// What is held under a key, and what else it reaches.
pub(crate) trait Key: Ord + Clone {
    /// The other keys of `map` at which may be held what excludes something at this one.
    fn related<'m, T>(&self, map: &'m BTreeMap<Self, T>) -> impl Iterator<Item = (&'m Self, &'m T)>;
}

/// Who holds a place.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) id: LockId,
    pub(crate) token: u64,
    pub(crate) request: Request,
    pub(crate) since: Moment,
    pub(crate) until: Moment,
    /// For how long it was held before the table was there.
    pub(crate) before: Duration,
    /// What else it may be asked for by: the path that it was taken by, where a link led elsewhere from there.
    pub(crate) alias: Option<VPath>,
    /// How many writes are under way that were let pass because this is held.
    pins: u32,
}

/// What whoever asked for a place is told: who names it extends or releases the place, and which it is in the order of all that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) id: LockId,
    pub(crate) token: u64,
}

/// Who waits for a place.
#[derive(Debug)]
pub(crate) struct Waiter<W> {
    /// Its number in the order in which those came who wait.
    pub(crate) number: u64,
    pub(crate) request: Request,
    pub(crate) since: Moment,
    pub(crate) who: W,
}

#[derive(Debug)]
pub(crate) struct Place<W> {
    holders: SmallVec<[Holder; 1]>,
    waiting: VecDeque<Waiter<W>>,
    /// Writes under way that were let pass because of what is not held any more. Until they have ended nobody else is let in.
    leaving: u32,
}

/// The places of one table, or of one part of it that excludes nothing in another part.
///
/// Invariant: a key is here while something is held or waited for at it, or is leaving it, and no longer. Nobody waits for whom nothing stands in
/// the way.
#[derive(Debug)]
pub(crate) struct Places<K, W> {
    /// In boxes: what moves about in the map is small then, and a place that is left is used again.
    places: BTreeMap<K, Box<Place<W>>>,
    #[expect(clippy::vec_box, reason = "it goes back into the map as it is")]
    spare: Vec<Box<Place<W>>>,
    /// The keys at which somebody waits. With them up to `STALE_MAX` at which nobody does any more: who hands a place over has more urgent things to do.
    awaited: BTreeSet<K>,
    holders: usize,
    waiters: usize,
}

/// How many places are kept that nobody is at.
const SPARE_MAX: usize = 64;

/// How many keys may be taken for such at which somebody waits, until somebody looks for those.
const STALE_MAX: usize = 64;

/// Gives what is granted its identity.
pub(crate) trait Issue {
    /// An identity that nobody can guess from others, and a token above all that were given before.
    fn issue(&self) -> (LockId, u64);
}

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle<K> {
    /// This is held.
    Held { key: K, by: Owner, until: Moment },
    /// Somebody who came before waits for this.
    Awaited { key: K, by: Owner },
    /// A write under a lock that is lost is still under way.
    Leaving { key: K },
    /// There are as many as may be.
    Full,
    /// Who asks has as many as one agent may.
    Enough,
}

/// What an operation did beside what it was asked for.
#[derive(Debug)]
pub(crate) struct Moved<K, W> {
    /// Those who were served, to be told.
    pub(crate) served: Vec<(K, Waiter<W>, Holder)>,
    /// Whose time was over, and who do not hold anything any more.
    pub(crate) lapsed: Vec<(K, Holder)>,
}

impl<K, W> Default for Moved<K, W> {
    fn default() -> Self {
        Self { served: Vec::new(), lapsed: Vec::new() }
    }
}

/// Whether two can be held together at different keys of which one reaches the other.
fn agree(one: LockKind, other: LockKind) -> bool {
    one == LockKind::Shared && other == LockKind::Shared
}

impl Holder {
    pub(crate) fn new(id: LockId, token: u64, request: Request, since: Moment, until: Moment) -> Self {
        Self { id, token, request, since, until, before: Duration::ZERO, alias: None, pins: 0 }
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant { id: self.id, token: self.token }
    }

    /// For how long it is held.
    pub(crate) fn age(&self, now: Moment) -> Duration {
        now.saturating_sub(self.since).saturating_add(self.before)
    }

    /// Whether it is `id`, its time is not over, it is in memory alone, and no write is under way that it let pass.
    fn is_plain(&self, id: LockId, now: Moment) -> bool {
        self.id == id && self.until > now && !self.request.durable && self.pins == 0
    }
}

impl<W> Place<W> {
    fn new() -> Self {
        Self { holders: SmallVec::new(), waiting: VecDeque::new(), leaving: 0 }
    }

    fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiting.is_empty() && self.leaving == 0
    }

    fn living(&self, now: Moment) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(move |holder| holder.until > now)
    }

    /// Whether writes are under way of who does not hold anything any more.
    fn is_being_left(&self, now: Moment) -> bool {
        self.leaving > 0 || self.holders.iter().any(|holder| holder.until <= now && holder.pins > 0)
    }

    /// Who keeps another one of this kind from being held here.
    fn excludes(&self, kind: LockKind, now: Moment) -> Option<&Holder> {
        let room = match kind {
            LockKind::Shared => usize::MAX,
            LockKind::Semaphore(holders) => holders as usize,
            _ => 1,
        };
        let first = self.living(now).next()?;
        (first.request.kind != kind || self.living(now).count() >= room).then_some(first)
    }

    fn take(&mut self, at: usize) -> Holder {
        let holder = self.holders.remove(at);
        self.leaving += holder.pins;
        holder
    }

    /// All of those at once: there may be very many.
    fn take_those(&mut self, are_they: impl FnMut(&Holder) -> bool) -> Vec<Holder> {
        let gone: SmallVec<[Holder; 1]>;
        (gone, self.holders) = mem::take(&mut self.holders).into_iter().partition(are_they);
        self.leaving += gone.iter().map(|holder| holder.pins).sum::<u32>();
        gone.into_vec()
    }

    pub(crate) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Waiter<W>> {
        self.waiting.iter()
    }
}

impl<K: Key, W> Places<K, W> {
    pub(crate) fn new() -> Self {
        Self { places: BTreeMap::new(), spare: Vec::new(), awaited: BTreeSet::new(), holders: 0, waiters: 0 }
    }

    /// How many are held, those whose time is over and who were not looked at since too.
    pub(crate) fn holders(&self) -> usize {
        self.holders
    }

    /// How many wait.
    pub(crate) fn waiters(&self) -> usize {
        self.waiters
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.waiters > 0
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many keys are taken for such at which somebody waits.
    #[cfg(all(test, not(nexus_loom)))]
    pub(crate) fn awaited(&self) -> usize {
        self.awaited.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &Place<W>)> {
        self.places.iter().map(|(key, place)| (key, &**place))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&Place<W>> {
        self.places.get(key).map(|place| &**place)
    }

    /// Takes out all that `root` reaches, for it to be filed elsewhere.
    pub(crate) fn split(&mut self, root: &K) -> Self {
        let mut split = Self::new();
        let keys: Vec<K> = root.related(&self.places).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(place) = self.places.remove(&key) else { continue };
            self.awaited.remove(&key);
            self.holders -= place.holders.len();
            self.waiters -= place.waiting.len();
            split.file(key, place);
        }
        split
    }

    /// Files all of `other` here.
    pub(crate) fn absorb(&mut self, other: Self) {
        // One by one: to append to a map goes through all of it.
        other.into_places().for_each(|(key, place)| self.file(key, place));
    }

    pub(crate) fn into_places(self) -> impl Iterator<Item = (K, Box<Place<W>>)> {
        self.places.into_iter()
    }

    /// Files a place that was elsewhere.
    pub(crate) fn file(&mut self, key: K, place: Box<Place<W>>) {
        self.holders += place.holders.len();
        self.waiters += place.waiting.len();
        if !place.waiting.is_empty() {
            self.awaited.insert(key.clone());
        }
        self.places.insert(key, place);
    }

    /// What keeps one of this kind at `key` from being held, when those with a lower number than `before` came earlier.
    pub(crate) fn obstacle(&self, key: &K, kind: LockKind, before: u64, now: Moment) -> Option<Obstacle<K>> {
        let held = |key: &K, holder: &Holder| Obstacle::Held {
            key: key.clone(),
            by: holder.request.owner.clone(),
            until: holder.until,
        };
        let awaited = |key: &K, waiter: &Waiter<W>| Obstacle::Awaited {
            key: key.clone(),
            by: waiter.request.owner.clone(),
        };
        let own = self.places.get(key);
        if let Some(place) = own {
            if place.is_being_left(now) {
                return Some(Obstacle::Leaving { key: key.clone() });
            }
            if let Some(holder) = place.excludes(kind, now) {
                return Some(held(key, holder));
            }
            // Whatever they want: what stands in their way stands in the way of all behind them, or they do themselves.
            if let Some(first) = place.waiting.front().filter(|first| first.number < before) {
                return Some(awaited(key, first));
            }
        }
        if self.places.len() == usize::from(own.is_some()) {
            return None;
        }
        key.related(&self.places).find_map(|(key, place)| {
            if place.is_being_left(now) {
                return Some(Obstacle::Leaving { key: key.clone() });
            }
            let mut holders = place.living(now).filter(|holder| !agree(holder.request.kind, kind));
            if let Some(holder) = holders.next() {
                return Some(held(key, holder));
            }
            let mut earlier = place.waiting.iter().take_while(|waiter| waiter.number < before);
            earlier.find(|waiter| !agree(waiter.request.kind, kind)).map(|waiter| awaited(key, waiter))
        })
    }

    /// Each line, waiter by waiter: its key, the waiter, and who is before it in the same line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&K, &Waiter<W>, Option<&Waiter<W>>)> {
        self.awaited.iter().filter_map(|key| self.places.get_key_value(key)).flat_map(|(key, place)| {
            let before = std::iter::once(None).chain(place.waiting.iter().map(Some));
            place.waiting.iter().zip(before).map(move |(waiter, before)| (key, waiter, before))
        })
    }

    /// Whom `waiter` waits for at `key`, but for who is `before` it in its own line. What that one waits for is not told again. Apart, when the places of a
    /// semaphore are all held, those who hold one: it is served by the first of them that gives its own back.
    pub(crate) fn blockers(
        &self,
        key: &K,
        waiter: &Waiter<W>,
        before: Option<&Waiter<W>>,
        now: Moment,
    ) -> (Vec<Owner>, Vec<Owner>) {
        let kind = waiter.request.kind;
        let (mut blockers, mut one_of) = (Vec::new(), Vec::new());
        let is_first = before.is_none();
        if let Some(place) = self.places.get(key).filter(|_| is_first)
            && let Some(first) = place.excludes(kind, now)
        {
            let is_full = first.request.kind == kind && matches!(kind, LockKind::Semaphore(_));
            let held = if is_full { &mut one_of } else { &mut blockers };
            held.extend(place.living(now).map(|holder| holder.request.owner.clone()));
        }
        let told = before.map_or(0, |before| before.number + 1);
        for (_, place) in key.related(&self.places) {
            let held = place.living(now).filter(|_| is_first).map(|holder| &holder.request);
            let held = held.filter(|other| !agree(other.kind, kind));
            // The last of those who came before: it waits for the others of its line itself.
            let before = place.waiting.partition_point(|other| other.number < waiter.number);
            let earlier = place.waiting.range(..before).rev();
            let earlier = earlier.take_while(|other| other.number >= told);
            let last = earlier.map(|other| &other.request).find(|other| !agree(other.kind, kind));
            blockers.extend(held.chain(last).map(|other| other.owner.clone()));
        }
        (blockers, one_of)
    }

    /// Whether nothing is held, waited for or left at `key`, and nothing that it reaches keeps one of this kind from being held there.
    #[inline]
    pub(crate) fn is_alone(&self, key: &K, kind: LockKind, now: Moment) -> bool {
        self.places.is_empty()
            || !self.places.contains_key(key) && self.obstacle(key, kind, u64::MAX, now).is_none()
    }

    /// Puts `holder` at `key`, which [is alone](Self::is_alone).
    #[inline]
    pub(crate) fn put(&mut self, key: K, holder: Holder) {
        let mut place = self.spare.pop().unwrap_or_else(|| Box::new(Place::new()));
        place.holders.push(holder);
        self.holders += 1;
        let before = self.places.insert(key, place);
        debug_assert!(before.is_none(), "nothing was there");
    }

    /// Takes the place back that `id` holds at `key`, when it alone is there, its time is not over, it is in memory alone, and no write is under way that
    /// it let pass; `gone` is shown it. The key again, and nothing is done, otherwise.
    #[inline]
    pub(crate) fn take_alone(
        &mut self,
        key: K,
        id: LockId,
        now: Moment,
        gone: impl FnOnce(&K, &Holder),
    ) -> Result<(), K> {
        let entry = match self.places.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => return Err(entry.into_key()),
        };
        let place = entry.get();
        let holder = match &*place.holders {
            [holder] if holder.is_plain(id, now) && place.leaving == 0 && place.waiting.is_empty() => holder,
            _ => return Err(entry.key().clone()),
        };
        gone(entry.key(), holder);
        let mut place = entry.remove();
        place.holders.clear();
        self.holders -= 1;
        if self.spare.len() < SPARE_MAX {
            self.spare.push(place);
        }
        Ok(())
    }

    /// Gives the place that `id` holds at `key` to who is first in line there, in the simplest case: it alone is held, its time is not over, it is in memory alone, no write is under way
    /// that it let pass, nothing is held or waited for that the key reaches, and nobody behind the first can be served with it. `from` is told how long that one is to
    /// hold it, and tells from when on. Gives who held it, the first, and what that holds now; none, and nothing is done, otherwise.
    #[inline]
    pub(crate) fn hand_over(
        &mut self,
        key: &K,
        id: LockId,
        now: Moment,
        from: impl FnOnce(Duration) -> Moment,
        issue: &impl Issue,
    ) -> Option<(Holder, W, &Holder)> {
        if self.places.len() > 1 && key.related(&self.places).next().is_some() {
            return None;
        }
        let place = self.places.get_mut(key)?;
        let [holder] = &*place.holders else { return None };
        let first = place.waiting.front()?;
        let first_alone = first.request.kind == LockKind::Exclusive || place.waiting.len() == 1;
        if !holder.is_plain(id, now) || place.leaving > 0 || !first_alone {
            return None;
        }
        let since = from(first.request.ttl);
        let first = place.waiting.pop_front()?;
        let until = since.saturating_add(first.request.ttl);
        let (id, token) = issue.issue();
        let holder = Holder::new(id, token, first.request, since, until);
        let gone = mem::replace(&mut place.holders[0], holder);
        self.waiters -= 1;
        Some((gone, first.who, &place.holders[0]))
    }

    /// Holds a place at `key`. That nothing stands in the way is to be looked at first.
    pub(crate) fn hold(
        &mut self,
        key: &K,
        request: Request,
        issue: &impl Issue,
        now: Moment,
        moved: &mut Moved<K, W>,
    ) -> Holder {
        let evicted = self.evict(key, now, moved);
        let holder = self.admit(key, request, issue, now);
        if evicted && self.is_awaited() {
            // Who waited for those may agree with the new one.
            self.serve(key, issue, now, moved);
        }
        holder
    }

    fn place(&mut self, key: &K) -> &mut Place<W> {
        // Looked for twice when it is new: a key is cloned then only.
        if !self.places.contains_key(key) {
            let place = self.spare.pop().unwrap_or_else(|| Box::new(Place::new()));
            return self.places.entry(key.clone()).or_insert(place);
        }
        match self.places.get_mut(key) {
            Some(place) => place,
            None => unreachable!("it was just there"),
        }
    }

    /// Lines up for a place at `key`. What stands in the way is to be looked at first.
    pub(crate) fn line_up(&mut self, key: &K, waiter: Waiter<W>) {
        if self.awaited.len() > self.waiters + STALE_MAX {
            self.forget_stale();
        }
        self.waiters += 1;
        self.awaited.insert(key.clone());
        self.place(key).waiting.push_back(waiter);
    }

    /// Puts a holder back that outlived the process.
    pub(crate) fn restore(&mut self, key: &K, holder: Holder) {
        self.holders += 1;
        self.place(key).holders.push(holder);
    }

    /// Lets `id` hold its place for `ttl` from now on. None when it does not hold it any more.
    pub(crate) fn extend(&mut self, key: &K, id: LockId, ttl: Duration, now: Moment) -> Option<Holder> {
        let place = self.places.get_mut(key)?;
        let holder = place.holders.iter_mut().find(|holder| holder.id == id && holder.until > now)?;
        holder.until = now.saturating_add(ttl);
        holder.request.ttl = ttl;
        Some(holder.clone())
    }

    /// Lets the place that `id` holds be asked for by `alias`, too.
    pub(crate) fn call(&mut self, key: &K, id: LockId, alias: VPath) {
        let place = self.places.get_mut(key);
        if let Some(holder) = place.and_then(|place| place.holders.iter_mut().find(|holder| holder.id == id))
        {
            holder.alias = Some(alias);
        }
    }

    /// Takes the place back that `id` holds, also when its time is over and nobody has taken it back for that; none when it does not hold it any more.
    pub(crate) fn release(
        &mut self,
        key: &K,
        id: LockId,
        issue: &impl Issue,
        now: Moment,
        moved: &mut Moved<K, W>,
    ) -> Option<Holder> {
        let place = self.places.get_mut(key)?;
        let at = place.holders.iter().position(|holder| holder.id == id)?;
        let holder = place.take(at);
        self.holders -= 1;
        self.settle(key, issue, now, moved);
        Some(holder)
    }

    /// Takes all places at `key` back, whoever holds them, also those whose time is over.
    pub(crate) fn force(
        &mut self,
        key: &K,
        issue: &impl Issue,
        now: Moment,
        moved: &mut Moved<K, W>,
    ) -> Vec<Holder> {
        let Some(place) = self.places.get_mut(key) else { return Vec::new() };
        let gone = place.take_those(|_| true);
        self.holders -= gone.len();
        self.settle(key, issue, now, moved);
        gone
    }

    /// Takes the waiter of this number out of the line; none when it is not in it any more.
    pub(crate) fn leave(
        &mut self,
        key: &K,
        number: u64,
        issue: &impl Issue,
        now: Moment,
        moved: &mut Moved<K, W>,
    ) -> Option<Waiter<W>> {
        let place = self.places.get_mut(key)?;
        let at = place.waiting.binary_search_by_key(&number, |waiter| waiter.number).ok()?;
        let waiter = place.waiting.remove(at)?;
        self.waiters -= 1;
        if place.waiting.is_empty() {
            self.awaited.remove(key);
        }
        self.settle(key, issue, now, moved);
        Some(waiter)
    }

    /// Lets a write pass that is made under the lock with this token, and keeps others out of `key` until it has [ended](Self::unpin). False when the lock is
    /// not held any more.
    pub(crate) fn pin(&mut self, key: &K, token: u64, now: Moment) -> bool {
        let place = self.places.get_mut(key);
        let mut holders = place.into_iter().flat_map(|place| &mut place.holders);
        let holder = holders.find(|holder| holder.token == token && holder.until > now);
        holder.map(|holder| holder.pins += 1).is_some()
    }

    /// A write that was let pass has ended.
    pub(crate) fn unpin(
        &mut self,
        key: &K,
        token: u64,
        issue: &impl Issue,
        now: Moment,
        moved: &mut Moved<K, W>,
    ) {
        let Some(place) = self.places.get_mut(key) else { return };
        match place.holders.iter_mut().find(|holder| holder.token == token) {
            Some(holder) => {
                holder.pins -= 1;
                if holder.until > now {
                    return;
                }
            }
            None => place.leaving -= 1,
        }
        self.settle(key, issue, now, moved);
    }

    /// Takes back what is held by those whose time is over, as far as somebody waits for it, or all of it, and serves who waits. Gives the moment at which the
    /// next one's time is over for whom somebody waits.
    pub(crate) fn expire(
        &mut self,
        all: bool,
        issue: &impl Issue,
        now: Moment,
        moved: &mut Moved<K, W>,
    ) -> Option<Moment> {
        self.forget_stale();
        let mut keys: BTreeSet<K> = BTreeSet::new();
        let over = |place: &Place<W>| place.holders.iter().any(|holder| holder.until <= now);
        if all {
            keys.extend(self.places.iter().filter(|(_, place)| over(place)).map(|(key, _)| key.clone()));
        } else {
            for key in &self.awaited {
                let own = self.places.get_key_value(key).into_iter();
                let held = own.chain(key.related(&self.places)).filter(|(_, place)| over(place));
                keys.extend(held.map(|(key, _)| key.clone()));
            }
        }
        for key in keys {
            self.evict(&key, now, moved);
            self.settle(&key, issue, now, moved);
        }
        let next = self.awaited.iter().flat_map(|key| {
            let own = self.places.get_key_value(key).into_iter();
            own.chain(key.related(&self.places))
                .flat_map(|(_, place)| &place.holders)
                .map(|holder| holder.until)
        });
        next.min()
    }

    /// When the first one's time is over. Looks at all that is held.
    pub(crate) fn next_end(&self) -> Option<Moment> {
        self.places.values().flat_map(|place| &place.holders).map(|holder| holder.until).min()
    }

    /// Forgets the keys at which nobody waits any more.
    fn forget_stale(&mut self) {
        let Self { places, awaited, .. } = self;
        awaited.retain(|key| places.get(key).is_some_and(|place| !place.waiting.is_empty()));
    }

    /// Takes out who holds something at `key` although its time is over, and says whether anybody does.
    fn evict(&mut self, key: &K, now: Moment, moved: &mut Moved<K, W>) -> bool {
        let Some(place) = self.places.get_mut(key) else { return false };
        let is_over = |holder: &Holder| holder.until <= now;
        if !place.holders.iter().any(is_over) {
            return false;
        }
        let gone = place.take_those(is_over);
        self.holders -= gone.len();
        moved.lapsed.extend(gone.into_iter().map(|holder| (key.clone(), holder)));
        true
    }

    fn admit(&mut self, key: &K, request: Request, issue: &impl Issue, now: Moment) -> Holder {
        let (id, token) = issue.issue();
        let until = now.saturating_add(request.ttl);
        let holder = Holder::new(id, token, request, now, until);
        self.restore(key, holder.clone());
        holder
    }

    /// Serves whoever can be served after something changed at `key`, and forgets the key when nothing is left there.
    fn settle(&mut self, key: &K, issue: &impl Issue, now: Moment, moved: &mut Moved<K, W>) {
        if self.is_awaited() {
            self.serve(key, issue, now, moved);
        }
        if self.places.get(key).is_some_and(|place| place.is_empty())
            && let Some(place) = self.places.remove(key)
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(place);
        }
    }

    fn serve(&mut self, changed: &K, issue: &impl Issue, now: Moment, moved: &mut Moved<K, W>) {
        // Only who reaches `changed` can have waited for what changed there. Who is served then stands in the way of as much as when it waited.
        let own = self.places.get_key_value(changed).into_iter();
        let lines = own.chain(changed.related(&self.places));
        let mut lines: SmallVec<[(u64, K); 1]> = lines
            .filter_map(|(key, place)| place.waiting.front().map(|first| (first.number, key.clone())))
            .collect();
        lines.sort_unstable_by_key(|(number, _)| *number);
        for (_, key) in lines {
            while let Some(first) = self.places.get(&key).and_then(|place| place.waiting.front()) {
                let (number, kind) = (first.number, first.request.kind);
                if self.obstacle(&key, kind, number, now).is_some() {
                    break;
                }
                self.serve_first(&key, issue, now, moved);
            }
        }
    }

    fn serve_first(&mut self, key: &K, issue: &impl Issue, now: Moment, moved: &mut Moved<K, W>) {
        let evicted = self.evict(key, now, moved);
        let Some(place) = self.places.get_mut(key) else { return };
        let Some(waiter) = place.waiting.pop_front() else { return };
        self.waiters -= 1;
        if place.waiting.is_empty() {
            self.awaited.remove(key);
        }
        let holder = self.admit(key, waiter.request.clone(), issue, now);
        moved.served.push((key.clone(), waiter, holder));
        if evicted {
            // As above. It ends: each time somebody is gone.
            self.serve(key, issue, now, moved);
        }
    }
}
