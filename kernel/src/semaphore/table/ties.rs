//! What goes with lives, by the tokens of what was given.

use std::collections::{BTreeMap, HashMap};

use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;
use nexus_messages::{LifeId, LockId};

use crate::locks::sync::Mutex;

#[cfg(not(nexus_loom))]
const SHARDS: u64 = 16;
#[cfg(nexus_loom)]
const SHARDS: u64 = 2;

/// What goes with one life, by its token.
type Tied<K> = BTreeMap<u64, (K, LockId)>;

/// One shard: the lives whose numbers fall into it. No life that nothing goes with is in it.
type Shard<K> = CachePadded<Mutex<HashMap<LifeId, Tied<K>, RandomState>>>;

/// What goes with all lives of a table. Its mutexes are locked after that of a part, never before one.
pub(super) struct Ties<K>(Box<[Shard<K>]>);

impl<K> Ties<K> {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| CachePadded::new(Mutex::new(HashMap::default()))).collect())
    }

    /// Has a place go with `life`.
    pub(super) fn tie(&self, life: LifeId, token: u64, place: (K, LockId)) {
        self.shard(life).lock().entry(life).or_default().insert(token, place);
    }

    /// It goes no more with `life`.
    pub(super) fn untie(&self, life: LifeId, token: u64) {
        let mut lives = self.shard(life).lock();
        if let Some(tied) = lives.get_mut(&life) {
            tied.remove(&token);
            if tied.is_empty() {
                lives.remove(&life);
            }
        }
    }

    /// All that goes with `life`, which goes with it no more, as it was given.
    pub(super) fn end(&self, life: LifeId) -> Tied<K> {
        self.shard(life).lock().remove(&life).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|lives| lives.lock().is_empty())
    }

    fn shard(&self, life: LifeId) -> &Shard<K> {
        // Lives are numbered one after the other.
        &self.0[usize::try_from(life.0 % SHARDS).unwrap_or_default()]
    }
}
