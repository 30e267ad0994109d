//! Content that stays just now, whatever the rows say.
//!
//! Content is stored before a row names it, and a stream reads on when no row names it any more. Whoever stores content, finds it stored already,
//! names what somebody else stored, or reads it piece by piece, holds it here first, and lets go when a row names it, or when it is done.
//! A collection takes nothing away that is held, or was held at any time since the collection began; and who wants to hold what is just being taken
//! away waits until it is gone, and stores it anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::content::Hash;

/// Content is divided among so many locks by its hash.
const SHARDS: usize = 64;

/// How many hashes that were let go during a collection are remembered for each lock. Beyond that nothing of theirs goes in this collection.
const PASSED_MAX: usize = 16_384;

/// What is held.
#[derive(Debug)]
pub(crate) struct Pins {
    shards: [Mutex<Shard>; SHARDS],
    /// Something that was being taken away is gone.
    gone: Notify,
}

#[derive(Debug, Default)]
struct Shard {
    /// It keeps its room: nearly always it is empty, and every write is in it for a moment.
    held: HashMap<Hash, Held, RandomState>,
    /// The collection that runs, if one does.
    round: Option<u64>,
    /// What was let go since it began, and whether it is a list.
    passed: BTreeMap<Hash, bool>,
    /// More was let go than is remembered.
    overflowed: bool,
    // Invariant: nothing is both held and leaving.
    leaving: BTreeSet<Hash>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    holders: u32,
    /// Whether all that it tells is held with it.
    list: bool,
}

impl Default for Pins {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), gone: Notify::new() }
    }
}

impl Pins {
    fn shard(&self, hash: &Hash) -> &Mutex<Shard> {
        &self.shards[usize::from(hash[31]) % SHARDS]
    }

    /// Holds nothing yet.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        Hold(Arc::new(Holding { pins: self.clone(), hashes: Mutex::default() }))
    }

    /// A collection begins: from now on what is let go is remembered. One that ran before can take nothing away any more.
    pub(super) fn begin(&self, round: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.passed.clear();
            (shard.round, shard.overflowed) = (Some(round), false);
        }
    }

    /// The collection is over.
    pub(super) fn end(&self, round: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.round == Some(round) {
                shard.passed.clear();
                shard.round = None;
            }
        }
    }

    /// The lists that are held, or were since the collection began.
    pub(super) fn lists(&self) -> Vec<Hash> {
        let mut lists = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            lists.extend(shard.held.iter().filter(|(_, held)| held.list).map(|(hash, _)| *hash));
            lists.extend(shard.passed.iter().filter(|(_, list)| **list).map(|(hash, _)| *hash));
        }
        lists
    }

    /// How many contents are held.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().held.len()).sum()
    }

    /// Whether the collection may take this away, as far as holders are concerned. What is to be done to it is to be done before the value is dropped:
    /// who wants to hold it waits.
    pub(super) fn take_away(self: &Arc<Self>, round: u64, hash: &Hash) -> Option<Leaving> {
        let mut shard = self.shard(hash).lock();
        let is_free = shard.round == Some(round)
            && !shard.overflowed
            && !shard.held.contains_key(hash)
            && !shard.passed.contains_key(hash)
            && shard.leaving.insert(*hash);
        is_free.then(|| Leaving { pins: self.clone(), hash: *hash })
    }

    fn release(&self, hash: &Hash) {
        let mut shard = self.shard(hash).lock();
        let Some(held) = shard.held.get_mut(hash) else { return };
        held.holders -= 1;
        if held.holders > 0 {
            return;
        }
        let list = held.list;
        shard.held.remove(hash);
        if shard.round.is_none() {
            return;
        }
        if shard.passed.len() < PASSED_MAX {
            *shard.passed.entry(*hash).or_default() |= list;
        } else {
            shard.overflowed = true;
        }
    }
}

/// What one call or stream holds. It lets go of all of it with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Hold(Arc<Holding>);

#[derive(Debug)]
struct Holding {
    pins: Arc<Pins>,
    hashes: Mutex<Hashes>,
}

/// A set. Mostly it is of one, which needs no memory of its own.
#[derive(Debug, Default)]
struct Hashes {
    first: Option<Hash>,
    // Invariant: without the first.
    more: BTreeSet<Hash>,
}

impl Hashes {
    /// Whether it was not there.
    fn insert(&mut self, hash: Hash) -> bool {
        match self.first {
            Some(first) => first != hash && self.more.insert(hash),
            None if self.more.contains(&hash) => false,
            None => {
                self.first = Some(hash);
                true
            }
        }
    }

    /// Whether it was there.
    fn remove(&mut self, hash: &Hash) -> bool {
        match self.first {
            Some(first) if first == *hash => {
                self.first = None;
                true
            }
            _ => self.more.remove(hash),
        }
    }
}

impl Hold {
    /// Holds one content. Waits while it is being taken away; then it is gone. To be called before it is looked for.
    pub(crate) async fn content(&self, hash: &Hash) {
        self.take(hash, false).await;
    }

    /// Holds a list and all that it tells, which must be there and held already, or named by a row until after this returned.
    pub(crate) async fn list(&self, hash: &Hash) {
        self.take(hash, true).await;
    }

    /// Lets go of one content.
    pub(crate) fn release(&self, hash: &Hash) {
        if self.0.hashes.lock().remove(hash) {
            self.0.pins.release(hash);
        }
    }

    async fn take(&self, hash: &Hash, list: bool) {
        while !self.try_take(hash, list) {
            let mut gone = std::pin::pin!(self.0.pins.gone.notified());
            // Registered before the look, so that what goes in between is not missed.
            gone.as_mut().enable();
            if self.try_take(hash, list) {
                return;
            }
            gone.await;
        }
    }

    fn try_take(&self, hash: &Hash, list: bool) -> bool {
        let mut own = self.0.hashes.lock();
        let mut shard = self.0.pins.shard(hash).lock();
        if shard.leaving.contains(hash) {
            return false;
        }
        let held = shard.held.entry(*hash).or_default();
        held.list |= list;
        if own.insert(*hash) {
            held.holders += 1;
        }
        true
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let Hashes { first, more } = std::mem::take(self.hashes.get_mut());
        first.iter().chain(&more).for_each(|hash| self.pins.release(hash));
    }
}

/// Something that is being taken away.
#[derive(Debug)]
pub(super) struct Leaving {
    pins: Arc<Pins>,
    hash: Hash,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.pins.shard(&self.hash).lock().leaving.remove(&self.hash);
        self.pins.gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use nexus_actors::block_on;

    use super::*;

    const A: Hash = [1; 32];

    #[test]
    fn what_is_held_or_was_since_the_collection_began_stays() {
        let pins = Arc::new(Pins::default());
        assert!(pins.take_away(1, &A).is_none(), "no collection runs");
        let hold = pins.hold();
        block_on(hold.content(&A));
        pins.begin(1);
        assert!(pins.take_away(1, &A).is_none());
        drop(hold);
        assert!(pins.take_away(1, &A).is_none());
        pins.end(1);
        pins.begin(2);
        assert!(pins.take_away(1, &A).is_none(), "the collection is over");
        assert!(pins.take_away(2, &A).is_some());
        assert_eq!(pins.len(), 0);
    }

    #[test]
    fn two_holders_are_two() {
        let pins = Arc::new(Pins::default());
        let (one, other) = (pins.hold(), pins.hold());
        block_on(one.content(&A));
        block_on(one.content(&A));
        block_on(other.list(&A));
        drop(one);
        pins.begin(1);
        assert_eq!((pins.take_away(1, &A).is_none(), pins.lists()), (true, vec![A]));
        other.release(&A);
        assert_eq!((pins.len(), pins.lists()), (0, vec![A]), "a list is remembered as one");
    }

    #[test]
    fn a_hold_is_a_set() {
        let mut hashes = Hashes::default();
        let b = [2; 32];
        let steps = [
            hashes.insert(A),
            hashes.insert(A),
            hashes.insert(b),
            hashes.insert(b),
            hashes.remove(&A),
            hashes.remove(&A),
            hashes.insert(b),
            hashes.insert(A),
            hashes.remove(&b),
            hashes.remove(&b),
            hashes.remove(&A),
        ];
        assert_eq!(steps, [true, false, true, false, true, false, false, true, true, false, true]);
        assert!(hashes.first.is_none() && hashes.more.is_empty());
    }

    #[test]
    fn who_wants_what_is_leaving_waits_until_it_is_gone() {
        let pins = Arc::new(Pins::default());
        pins.begin(1);
        let leaving = pins.take_away(1, &A).unwrap();
        assert!(pins.take_away(1, &A).is_none(), "it leaves once");
        let hold = pins.hold();
        let mut taking = Box::pin(hold.content(&A));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(taking.as_mut().poll(&mut cx).is_pending());
        drop(leaving);
        assert_eq!(taking.as_mut().poll(&mut cx), Poll::Ready(()));
        assert!(pins.take_away(1, &A).is_none());
    }

    #[test]
    fn when_more_is_let_go_than_is_remembered_nothing_of_the_shard_goes() {
        let pins = Arc::new(Pins::default());
        pins.begin(1);
        for n in 0..=PASSED_MAX as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            block_on(pins.hold().content(&hash));
        }
        let mut never_held = [9; 32];
        never_held[31] = 0;
        assert!(pins.take_away(1, &never_held).is_none());
        assert!(pins.take_away(1, &A).is_some(), "another shard");
    }
}
