//! Who watches what, by path. Pure: the actor changes it, and publishes copies of it.
//!
//! A change asks about each directory above its path, and about the path itself; so it costs the depth of the path, and not how many watches there are on
//! others. The copies share all but what changed between them: a table is an array of small ones, by the hash of the path.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use nexus_messages::{VPath, hash_of};
use smallvec::SmallVec;

use super::scope::{Facts, Scope};
use super::subscription::Subscription;
use crate::hal::TreeId;

/// How many small tables there are. More make a copy dearer, fewer a change of what was copied.
const PARTS: usize = 256;

/// The bits of a path's hash from here on choose its part; the hash table in it uses others.
const PART_BITS_FROM: u32 = 40;

const _: () = assert!(PARTS.is_power_of_two());

/// Those whom something concerns.
pub(crate) type Takers = SmallVec<[Arc<Subscription>; 2]>;

/// The subscriptions by their paths. Cloning shares what is in it.
#[derive(Debug, Clone)]
pub(crate) struct WatchTable {
    parts: Vec<Arc<Part>>,
    len: usize,
}

type Part = HashMap<VPath, Spot, FixedState>;

/// What is watched at one path, or below it.
#[derive(Debug, Clone, Default)]
struct Spot {
    /// Those that watch the path alone.
    entry: Vec<Arc<Subscription>>,
    /// Those that watch below it, too.
    below: Vec<Arc<Subscription>>,
    /// How many have their path strictly below this one.
    beneath: usize,
}

impl Spot {
    fn is_empty(&self) -> bool {
        self.entry.is_empty() && self.below.is_empty() && self.beneath == 0
    }

    fn of(&mut self, scope: &Scope) -> &mut Vec<Arc<Subscription>> {
        match scope {
            Scope::Entry => &mut self.entry,
            Scope::Subtree | Scope::Glob(_) => &mut self.below,
        }
    }
}

impl Default for WatchTable {
    fn default() -> Self {
        // All of them the same one, until something is put into it.
        Self { parts: vec![Arc::default(); PARTS], len: 0 }
    }
}

impl WatchTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All subscriptions, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        let spots = self.parts.iter().flat_map(|part| part.values());
        spots.flat_map(|spot| spot.entry.iter().chain(&spot.below))
    }

    /// Adds a subscription, unless it is there.
    pub(crate) fn insert(&mut self, new: Arc<Subscription>) {
        let there = self.spot_mut(&new.base).of(&new.scope);
        if there.iter().any(|known| known.id == new.id) {
            return;
        }
        there.push(new.clone());
        self.len += 1;
        let mut above = new.base.parent();
        while let Some(path) = above {
            self.spot_mut(&path).beneath += 1;
            above = path.parent();
        }
    }

    /// Takes a subscription out; whether it was there.
    pub(crate) fn remove(&mut self, old: &Subscription) -> bool {
        let there = self.spot_mut(&old.base).of(&old.scope);
        let place = there.iter().position(|known| known.id == old.id);
        if let Some(place) = place {
            there.swap_remove(place);
            self.len -= 1;
        }
        self.tidy(&old.base);
        let mut above = old.base.parent().filter(|_| place.is_some());
        while let Some(path) = above {
            self.spot_mut(&path).beneath -= 1;
            self.tidy(&path);
            above = path.parent();
        }
        place.is_some()
    }

    /// Those of `tree` whom this concerns, each once.
    pub(crate) fn takers(&self, tree: TreeId, facts: Facts<'_>) -> Takers {
        let mut takers = Takers::new();
        let mut add = |found: &[Arc<Subscription>]| {
            for subscription in found {
                let fits =
                    subscription.tree == tree && !subscription.is_gone() && subscription.concerns(facts);
                // Both paths of a rename may lead to it.
                if fits && !takers.iter().any(|known| Arc::ptr_eq(known, subscription)) {
                    takers.push(subscription.clone());
                }
            }
        };
        for path in facts.paths() {
            if let Some(spot) = self.spot(path.as_str()) {
                add(&spot.entry);
                add(&spot.below);
                if facts.is_whole() && spot.beneath > 0 {
                    // A whole directory: seldom enough to look at each.
                    self.iter()
                        .filter(|one| one.base.is_within(path))
                        .for_each(|one| add(std::slice::from_ref(one)));
                }
            }
            for above in path.ancestors() {
                if let Some(spot) = self.spot(above) {
                    add(&spot.below);
                }
            }
        }
        takers
    }

    fn spot(&self, path: &str) -> Option<&Spot> {
        self.parts[part_of(path)].get(path)
    }

    fn spot_mut(&mut self, path: &VPath) -> &mut Spot {
        let part = Arc::make_mut(&mut self.parts[part_of(path.as_str())]);
        part.entry(path.clone()).or_default()
    }

    /// Forgets the path when nothing is watched there.
    fn tidy(&mut self, path: &VPath) {
        let part = Arc::make_mut(&mut self.parts[part_of(path.as_str())]);
        if part.get(path).is_some_and(Spot::is_empty) {
            part.remove(path);
        }
    }
}

fn part_of(path: &str) -> usize {
    usize::try_from(hash_of(path) >> PART_BITS_FROM).unwrap_or_default() % PARTS
}

#[cfg(test)]
mod tests {
    use nexus_messages::{Caller, EntryType, EventKind, EventMask, Timestamp, ZoneId};
    use proptest::prelude::*;

    use super::super::subscription::Wanted;
    use super::*;

    fn path(text: &str) -> VPath {
        VPath::parse(text).unwrap()
    }

    fn subscription(id: u64, base: VPath, scope: Scope, mask: EventMask, tree: u32) -> Arc<Subscription> {
        Arc::new(Subscription::new(
            id,
            Wanted {
                caller: Arc::new(Caller::administrator()),
                tree: TreeId(tree),
                zone: ZoneId::root(),
                base,
                scope,
                mask,
                since: None,
                at: Timestamp(0),
                queue_max: 9,
            },
        ))
    }

    fn ids(takers: &Takers) -> Vec<u64> {
        let mut ids: Vec<_> = takers.iter().map(|taker| taker.id).collect();
        ids.sort_unstable();
        ids
    }

    /// What the index finds, found by looking at each.
    fn naive(all: &[Arc<Subscription>], tree: TreeId, facts: Facts<'_>) -> Vec<u64> {
        let mut ids: Vec<_> =
            all.iter().filter(|one| one.tree == tree && one.concerns(facts)).map(|one| one.id).collect();
        ids.sort_unstable();
        ids
    }

    fn a_path() -> impl Strategy<Value = VPath> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "a.txt"]), 0..4)
            .prop_map(|names| path(&format!("/{}", names.join("/"))))
    }

    fn a_scope() -> impl Strategy<Value = Option<&'static str>> {
        // Nothing for the entry, an empty text for the subtree.
        prop::option::of(prop::sample::select(vec!["", "*", "**", "a/*", "**/*.txt", "{a,b}", "?b/**"]))
    }

    fn scope(scope: Option<&str>) -> Scope {
        match scope {
            None => Scope::Entry,
            Some("") => Scope::Subtree,
            Some(pattern) => Scope::glob(pattern).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_look_at_each_finds(
            watches in prop::collection::vec((a_path(), a_scope(), any::<u32>(), 0u32..2), 0..40),
            leave in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            events in prop::collection::vec((a_path(), prop::option::of(a_path()), prop::sample::select(EventKind::ALL), any::<bool>()), 0..30),
        ) {
            let mut table = WatchTable::default();
            let mut all = Vec::new();
            for (id, (base, of, mask, tree)) in watches.into_iter().enumerate() {
                let one = subscription(id as u64, base, scope(of), EventMask::from_bits(mask), tree);
                table.insert(one.clone());
                table.insert(one.clone());
                all.push(one);
            }
            let before = table.clone();
            let had = all.clone();
            for index in leave {
                if !all.is_empty() {
                    let old = all.swap_remove(index.index(all.len()));
                    prop_assert!(table.remove(&old) && !table.remove(&old));
                }
            }
            prop_assert_eq!(table.len(), all.len());
            for (path, other, kind, is_dir) in &events {
                let entry_type = if *is_dir { EntryType::Dir } else { EntryType::Reg };
                let facts = Facts { kind: *kind, path, other: other.as_ref(), entry_type };
                for tree in [TreeId(0), TreeId(1)] {
                    prop_assert_eq!(ids(&table.takers(tree, facts)), naive(&all, tree, facts));
                    // What was published before is as it was.
                    prop_assert_eq!(ids(&before.takers(tree, facts)), naive(&had, tree, facts));
                }
            }
            for one in &all {
                prop_assert!(table.remove(one));
            }
            prop_assert!(table.parts.iter().all(|part| part.is_empty()), "nothing is left behind");
        }
    }

    #[test]
    fn what_happens_to_a_directory_concerns_those_below_it() {
        let mut table = WatchTable::default();
        table.insert(subscription(1, path("/a/b/c"), Scope::Entry, EventMask::ALL, 0));
        let at = path("/a");
        let facts = |kind, entry_type| Facts { kind, path: &at, other: None, entry_type };
        let found = |kind, entry_type| ids(&table.takers(TreeId::ROOT, facts(kind, entry_type)));
        assert_eq!(found(EventKind::DirDeleted, EntryType::Dir), [1]);
        assert_eq!(found(EventKind::Renamed, EntryType::Dir), [1]);
        assert_eq!(found(EventKind::Unmounted, EntryType::Mount), [1]);
        assert_eq!(found(EventKind::MetadataChanged, EntryType::Dir), [0; 0]);
        assert_eq!(found(EventKind::Renamed, EntryType::Link), [0; 0]);
    }
}
