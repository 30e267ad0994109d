//! The lock table: one read-write lock for each path, taken on the caller's task.
//!
//! Entry locks live in shards by the hash of their path. Without contention, and while no subtree is locked or wanted anywhere,
//! that is all there is. A call that cannot be served at once lines up in one queue. To be seen from the shards it *marks* its
//! paths there, and raises the count of subtree locks for those; whoever finds a mark or a raised count asks the queue, too.
//!
//! A call takes all its locks in one step or none of them. So nobody who waits holds anything, and no order of paths can
//! deadlock. Taking one by one could, in any order: with `/a/b` in hand, the next claim below `/a` would wait behind
//! somebody who waits for all of `/a`, and so for us.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use nexus_messages::{Timestamp, VPath};
use smallvec::SmallVec;

use super::claim::{Claim, LockOwner, Mode, Scope, canonical};
use super::guard::{Asked, PathGuard, PathGuards, Ticket, Wait};
use super::queue::{Place, Queue, SubtreeHolder, Waiting};
use super::shard::{NotNow, Shard};
use super::sync::{AtomicUsize, Mutex, Ordering};
use super::view::{HeldLock, LockStatistics};

#[cfg(not(nexus_loom))]
const SHARDS: usize = 64;
#[cfg(nexus_loom)]
const SHARDS: usize = 2;

/// The bits of a path's hash from here on choose its shard; the hash table in the shard uses the lowest and the highest.
const SHARD_BITS_FROM: u32 = 40;

const _: () = assert!(SHARDS.is_power_of_two());

/// The locks of all paths. Cloning gives another handle on the same table.
///
/// Nothing here blocks longer than a few instructions under a mutex; what waits is a future, polled by any executor. A call
/// that holds a guard should not ask for another lock: take all that an operation needs in one [`lock_all`](Self::lock_all).
#[derive(Clone)]
pub struct PathLocks(Arc<Inner>);

pub(super) struct Inner {
    shards: Box<[Arc<CachePadded<Shard>>]>,
    /// How many subtree claims are held or wait. Changed under the queue's mutex; raised before the shards are visited.
    subtrees: Arc<AtomicUsize>,
    /// Locked before a shard, never while one is locked.
    slow: Mutex<Slow>,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

struct Slow {
    queue: Queue<Arc<Ticket>>,
    next_token: u64,
    subtrees_taken: u64,
    waited: u64,
    longest_wait: Duration,
}

impl PathLocks {
    /// No path is locked. `clock` tells since when a lock is held that was waited for; it is not asked on the fast path.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let subtrees = Arc::new(AtomicUsize::new(0));
        Self(Arc::new_cyclic(|table| {
            let shard = || Arc::new(CachePadded::new(Shard::new(subtrees.clone(), table.clone())));
            let slow = Slow {
                queue: Queue::new(),
                next_token: 0,
                subtrees_taken: 0,
                waited: 0,
                longest_wait: Duration::ZERO,
            };
            let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
            Inner { shards, subtrees: subtrees.clone(), slow: Mutex::new(slow), clock: Box::new(clock) }
        }))
    }

    /// Locks `path` if that needs no waiting: nobody holds, and nobody already waits for, what excludes it.
    #[inline]
    pub fn try_lock(&self, path: &VPath, mode: Mode, scope: Scope, owner: LockOwner) -> Option<PathGuard> {
        let owner = match self.0.try_now(path, mode, scope, owner) {
            Ok(guard) => return Some(guard),
            Err(NotNow::Held(_)) => return None,
            Err(NotNow::Ask(owner)) => owner,
        };
        match self.0.ask(vec![Claim::new(path.clone(), mode, scope)], owner, None) {
            Asked::Given(mut guards) => guards.pop(),
            _ => None,
        }
    }

    /// Locks `path`, after all who came earlier and claim what excludes it. Dropping the future leaves the queue.
    #[inline]
    pub async fn lock(&self, path: &VPath, mode: Mode, scope: Scope, owner: LockOwner) -> PathGuard {
        match self.0.try_now(path, mode, scope, owner) {
            Ok(guard) => guard,
            Err(NotNow::Held(owner) | NotNow::Ask(owner)) => {
                let claims = vec![Claim::new(path.clone(), mode, scope)];
                let mut guards = Wait::new(&self.0, claims, owner).await;
                match guards.pop() {
                    Some(guard) => guard,
                    None => unreachable!("one claim, one guard"),
                }
            }
        }
    }

    /// Takes several locks in one step, all or none; otherwise as [`lock`](Self::lock).
    ///
    /// Of several claims for one path the strongest mode and the farthest scope count. Claims of one call never exclude each other.
    pub async fn lock_all(&self, claims: Vec<(VPath, Mode, Scope)>, owner: LockOwner) -> PathGuards {
        let claims = claims.into_iter().map(|(path, mode, scope)| Claim { path, mode, scope }).collect();
        let claims = canonical(claims);
        match self.0.try_all_now(&claims, &owner) {
            Some(guards) => PathGuards(guards),
            None => PathGuards(Wait::new(&self.0, claims, owner).await.into()),
        }
    }

    /// As [`lock_all`](Self::lock_all), of one lock that nobody stands in the way of; none when somebody may.
    pub(crate) fn lock_now(
        &self,
        path: &VPath,
        mode: Mode,
        scope: Scope,
        owner: &LockOwner,
    ) -> Option<PathGuards> {
        let guard = self.0.try_now(path, mode, scope, owner.clone()).ok()?;
        Some(PathGuards(SmallVec::from_iter([guard])))
    }

    /// What was counted so far. Visits each shard.
    pub fn statistics(&self) -> LockStatistics {
        let mut statistics = {
            let slow = self.0.slow.lock();
            let subtrees = slow.queue.held_subtrees().count();
            LockStatistics {
                taken: slow.subtrees_taken,
                waited: slow.waited,
                held: subtrees,
                subtrees,
                waiting: slow.queue.len(),
                longest_wait: slow.longest_wait,
            }
        };
        for shard in &self.0.shards {
            let (taken, held) = shard.counts();
            statistics.taken += taken;
            statistics.held += held;
        }
        statistics
    }

    /// The locks held now that `pick` wants, at most `limit`, by path. Visits each shard for as long as that takes.
    pub fn held(&self, limit: usize, pick: impl Fn(&HeldLock) -> bool) -> Vec<HeldLock> {
        let mut found = Vec::new();
        let mut show = |path: &VPath, mode, scope, owner: &LockOwner| {
            let lock =
                HeldLock { path: path.clone(), mode, scope, agent: owner.agent.clone(), since: owner.since };
            if found.len() < limit && pick(&lock) {
                found.push(lock);
            }
            found.len() < limit
        };
        {
            let slow = self.0.slow.lock();
            for (path, holder) in slow.queue.held_subtrees() {
                if !show(path, holder.mode, Scope::Subtree, &holder.owner) {
                    break;
                }
            }
        }
        for shard in &self.0.shards {
            shard.each_held(|seen| show(seen.path, seen.mode, Scope::Entry, seen.owner));
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Whether the table keeps nothing of any path.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.0.shards.iter().all(|shard| shard.nodes() == 0)
            && self.0.slow.lock().queue.is_idle()
            && self.0.subtrees.load(Ordering::Relaxed) == 0
    }
}

impl Inner {
    #[inline]
    fn shard(&self, path: &VPath) -> &Arc<CachePadded<Shard>> {
        // Truncated on narrow machines, of which only the lowest bits are used anyway.
        let bits = (path.hash64() >> SHARD_BITS_FROM) as usize;
        &self.shards[bits & (SHARDS - 1)]
    }

    /// The fast path: an entry lock that one shard can give.
    #[inline]
    fn try_now(&self, path: &VPath, mode: Mode, scope: Scope, owner: LockOwner) -> Result<PathGuard, NotNow> {
        if scope == Scope::Subtree {
            return Err(NotNow::Ask(owner));
        }
        let shard = self.shard(path);
        let key = shard.try_take(path, mode, owner)?;
        Ok(PathGuard::entry(shard.clone(), key))
    }

    /// The fast path for several. Taking them one by one is harmless as long as nothing waits in between.
    fn try_all_now(&self, claims: &[Claim], owner: &LockOwner) -> Option<SmallVec<[PathGuard; 2]>> {
        if claims.iter().any(|claim| claim.scope == Scope::Subtree) {
            return None;
        }
        let take = |claim: &Claim| self.try_now(&claim.path, claim.mode, claim.scope, owner.clone()).ok();
        claims.iter().map(take).collect()
    }

    /// Takes all of `claims` if that is fair, else lines up with `waker`; without one it gives up.
    ///
    /// The order matters. Once a claim is announced, nobody comes or goes there without the queue, which is ours: a holder
    /// that we do not see below has gone for good, and one that goes after we looked finds us in line.
    pub(super) fn ask(self: &Arc<Self>, claims: Vec<Claim>, owner: LockOwner, waker: Option<Waker>) -> Asked {
        let now = (self.clock)();
        let mut slow = self.slow.lock();
        for claim in &claims {
            self.announce(claim);
        }
        let place = slow.queue.last_place();
        if !claims.iter().any(|claim| self.is_excluded(&slow, claim, place)) {
            return Asked::Given(self.give(&mut slow, &claims, &owner));
        }
        let Some(waker) = waker else {
            for claim in &claims {
                self.withdraw(claim);
            }
            return Asked::Refused;
        };
        let ticket = Arc::new(Ticket::new(waker));
        let waiting = Waiting { claims: claims.into(), owner, from: now, ticket: ticket.clone() };
        Asked::Queued(slow.queue.push(waiting), ticket)
    }

    /// A call that waits has gone away.
    pub(super) fn leave(self: &Arc<Self>, place: Place) {
        self.change(|slow, free| {
            let gone = slow.queue.remove(place);
            for claim in gone.iter().flat_map(|call| call.claims.iter()) {
                self.withdraw(claim);
                slow.queue.candidates(&claim.path, claim.scope, free);
            }
            gone
        });
    }

    /// An entry lock was given back, and somebody may wait for it.
    #[cold]
    pub(super) fn entry_released(self: &Arc<Self>, path: &VPath) {
        self.change(|slow, free| slow.queue.candidates(path, Scope::Entry, free));
    }

    /// Gives a subtree lock back.
    pub(super) fn release_subtree(self: &Arc<Self>, path: &VPath, token: u64) {
        self.change(|slow, free| {
            let holder = slow.queue.release_subtree(path, token);
            // Pairs with the acquire of the fast path, which will look at nothing else of ours.
            self.subtrees.fetch_sub(1, Ordering::Release);
            slow.queue.candidates(path, Scope::Subtree, free);
            holder
        });
    }

    /// Changes the queue, then serves those whom the change set free, in the order in which they came. What `change` returns is
    /// dropped, and wakers are woken, without the mutex: both may run anything.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut Slow, &mut BTreeSet<Place>) -> R) {
        let mut woken = Vec::new();
        let mut slow = self.slow.lock();
        let mut free = BTreeSet::new();
        let rest = change(&mut slow, &mut free);
        for place in free {
            woken.extend(self.serve(&mut slow, place));
        }
        drop(slow);
        drop(rest);
        woken.into_iter().for_each(Waker::wake);
    }

    fn serve(self: &Arc<Self>, slow: &mut Slow, place: Place) -> Option<Waker> {
        let claims = slow.queue.claims(place)?;
        if claims.iter().any(|claim| self.is_excluded(slow, claim, place)) {
            return None;
        }
        let call = slow.queue.remove(place)?;
        let now = (self.clock)();
        slow.waited += 1;
        let waited = Duration::from_nanos(now.nanos().saturating_sub(call.from.nanos()));
        slow.longest_wait = slow.longest_wait.max(waited);
        let owner = LockOwner { since: now, ..call.owner };
        call.ticket.give(self.give(slow, &claims, &owner))
    }

    fn announce(&self, claim: &Claim) {
        match claim.scope {
            Scope::Entry => self.shard(&claim.path).mark(&claim.path),
            // Relaxed: each shard is visited under its mutex before anything is given; see `Shard::try_take`.
            Scope::Subtree => {
                self.subtrees.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn withdraw(&self, claim: &Claim) {
        match claim.scope {
            Scope::Entry => self.shard(&claim.path).unmark(&claim.path),
            // Relaxed: a claim that was never given has nothing to show to others.
            Scope::Subtree => {
                self.subtrees.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn is_excluded(&self, slow: &Slow, claim: &Claim, place: Place) -> bool {
        slow.queue.excludes(claim, place)
            || match claim.scope {
                Scope::Entry => self.shard(&claim.path).is_held_against(&claim.path, claim.mode),
                Scope::Subtree => {
                    self.shards.iter().any(|shard| shard.is_held_below_against(&claim.path, claim.mode))
                }
            }
    }

    /// Makes announced claims held.
    fn give(self: &Arc<Self>, slow: &mut Slow, claims: &[Claim], owner: &LockOwner) -> Vec<PathGuard> {
        let give = |claim: &Claim| match claim.scope {
            Scope::Entry => {
                let shard = self.shard(&claim.path);
                PathGuard::entry(shard.clone(), shard.promote(&claim.path, claim.mode, owner.clone()))
            }
            Scope::Subtree => {
                let token = slow.next_token;
                slow.next_token += 1;
                slow.subtrees_taken += 1;
                let holder = SubtreeHolder { token, mode: claim.mode, owner: owner.clone() };
                slow.queue.hold_subtree(&claim.path, holder);
                PathGuard::subtree(self.clone(), claim.path.clone(), token)
            }
        };
        claims.iter().map(give).collect()
    }
}
