//! How much each agent holds and waits for, in all parts of a table together.
//!
//! What is waited for counts as what it is to become: so nothing that is given later, or handed over, goes beyond the bound. The count is exact. To keep it cheap a part keeps what an
//! agent gave back last, for the next that it takes there: that is counted as taken, and is looked for before anybody is refused.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use nexus_messages::hash_of;

use crate::locks::sync::{AtomicUsize, Mutex, Ordering};

/// How many agents a part knows without a look at all of them.
const KNOWN: usize = 8;

/// With how little left before the bound nothing is kept by a part.
const NEAR: usize = 64;

/// Below so many no agent is forgotten of whom nothing is counted.
const FORGOTTEN_FROM: usize = 64;

const SHARDS: usize = 16;

/// The accounts of all agents of a table.
pub(super) struct Accounts {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    most: usize,
}

struct Shard {
    /// Invariant: who is counted in it, or known to a part, is here.
    agents: HashMap<Arc<str>, Arc<CachePadded<Account>>>,
    /// With how many those are forgotten of whom nothing is counted.
    forget_at: usize,
}

/// The account of one agent.
struct Account {
    /// Invariant: what is held and waited for, and what parts keep. At most the bound, but for what was restored.
    taken: AtomicUsize,
    /// Whether some part may keep something. Set under the mutex of a part, and taken back under those of all.
    is_kept: AtomicUsize,
}

/// The accounts that one part used last, by where the agents' names are.
#[derive(Default)]
pub(super) struct Known([Option<Entry>; KNOWN]);

struct Entry {
    agent: Arc<str>,
    account: Arc<CachePadded<Account>>,
    /// Whether one is kept that is counted.
    keeps: bool,
}

impl Accounts {
    /// Lets each agent have so many.
    pub(super) fn new(most: usize) -> Self {
        let shard =
            || CachePadded::new(Mutex::new(Shard { agents: HashMap::new(), forget_at: FORGOTTEN_FROM }));
        // Who counts nothing has nobody to look up.
        let shards = if most == usize::MAX { 0 } else { SHARDS };
        Self { shards: std::iter::repeat_with(shard).take(shards).collect(), most }
    }

    /// Counts one more of `agent`; false, and nothing is done, when it has as many as it may.
    #[inline]
    pub(super) fn enter(&self, known: &mut Known, agent: &Arc<str>) -> bool {
        if self.most == usize::MAX {
            return true;
        }
        let entry = self.entry(known, agent);
        if std::mem::take(&mut entry.keeps) {
            return true;
        }
        // Relaxed, here and below: the number alone is asked for, and each change of it is one step.
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        entry.account.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one more of `agent`, whatever it has: it had that before the process began.
    pub(super) fn restore(&self, known: &mut Known, agent: &Arc<str>) {
        if self.most < usize::MAX {
            self.entry(known, agent).account.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one less of `agent`.
    #[inline]
    pub(super) fn leave(&self, known: &mut Known, agent: &Arc<str>) {
        if self.most == usize::MAX {
            return;
        }
        let entry = self.entry(known, agent);
        let account = &entry.account;
        if !entry.keeps && account.taken.load(Ordering::Relaxed).saturating_add(NEAR) < self.most {
            entry.keeps = true;
            if account.is_kept.load(Ordering::Relaxed) == 0 {
                account.is_kept.store(1, Ordering::Relaxed);
            }
        } else {
            account.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes back what the parts keep of `agent`, whose accounts `all` are; false when they keep nothing. To be called with all parts locked.
    pub(super) fn collect<'a>(&self, all: impl Iterator<Item = &'a mut Known>, agent: &Arc<str>) -> bool {
        let account = self.find(agent);
        // Nobody can set it meanwhile.
        if account.is_kept.load(Ordering::Relaxed) == 0 {
            return false;
        }
        for entry in all.flat_map(|known| known.0.iter_mut().flatten()) {
            if Arc::ptr_eq(&entry.account, &account) {
                entry.give_back();
            }
        }
        account.is_kept.store(0, Ordering::Relaxed);
        true
    }

    /// The account of `agent`, as this part knows it from now on.
    #[inline]
    fn entry<'k>(&self, known: &'k mut Known, agent: &Arc<str>) -> &'k mut Entry {
        // Where names are is a multiple of the size of a word.
        let at = (Arc::as_ptr(agent).addr() >> 4) % KNOWN;
        let slot = &mut known.0[at];
        match slot {
            Some(entry) if Arc::ptr_eq(&entry.agent, agent) => {}
            _ => *slot = None,
        }
        slot.get_or_insert_with(|| Entry { agent: agent.clone(), account: self.find(agent), keeps: false })
    }

    #[cold]
    fn find(&self, agent: &Arc<str>) -> Arc<CachePadded<Account>> {
        let shard = usize::try_from(hash_of(agent) % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards[shard].lock();
        if let Some(account) = shard.agents.get(agent) {
            return account.clone();
        }
        if shard.agents.len() >= shard.forget_at {
            // Who has an account in its hands has got it here.
            shard.agents.retain(|_, account| {
                Arc::strong_count(account) > 1 || account.taken.load(Ordering::Relaxed) > 0
            });
            shard.forget_at = (2 * shard.agents.len()).max(FORGOTTEN_FROM);
        }
        let account = Account { taken: AtomicUsize::new(0), is_kept: AtomicUsize::new(0) };
        let account = Arc::new(CachePadded::new(account));
        shard.agents.insert(agent.clone(), account.clone());
        account
    }
}

impl Entry {
    fn give_back(&mut self) {
        if std::mem::take(&mut self.keeps) {
            self.account.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(all(test, not(nexus_loom)))]
impl<K: super::Filed> super::Table<K> {
    /// Whether what is counted of each agent is what it holds and waits for. Parts keep nothing afterwards.
    pub(crate) fn counts_right(&self) -> bool {
        let mut there: HashMap<Arc<str>, usize> = HashMap::new();
        self.each(|_, place| {
            let waiting = place.waiting().map(|waiter| &waiter.request);
            for request in place.holders().iter().map(|holder| &holder.request).chain(waiting) {
                *there.entry(request.owner.agent.clone()).or_default() += 1;
            }
        });
        let accounts = &self.0.accounts;
        let agents: Vec<Arc<str>> = accounts
            .shards
            .iter()
            .flat_map(|shard| shard.lock().agents.keys().cloned().collect::<Vec<_>>())
            .collect();
        let mut is_right = |agent: &Arc<str>| {
            let mut parts = self.0.all();
            accounts.collect(parts.iter_mut().map(|part| &mut part.known), agent);
            accounts.find(agent).taken.load(Ordering::Relaxed) == there.remove(agent).unwrap_or(0)
        };
        agents.iter().all(&mut is_right) && there.is_empty()
    }

    /// How many agents are known.
    pub(crate) fn agents(&self) -> usize {
        self.0.accounts.shards.iter().map(|shard| shard.lock().agents.len()).sum()
    }

    /// In how many parts something is.
    pub(crate) fn parts_in_use(&self) -> usize {
        self.0.all().iter().filter(|part| !part.places.is_empty()).count()
    }
}
