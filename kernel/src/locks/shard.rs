//! One shard of the table of entry locks: the paths whose hash falls into it.

use std::sync::{Arc, Weak};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use nexus_messages::VPath;

use super::claim::{LockOwner, Mode};
use super::sync::{AtomicUsize, Mutex, Ordering};
use super::table::Inner;

/// An empty shard keeps the memory of this many paths and gives back what a burst took beyond that.
const SPARE_PATHS: usize = 256;

/// One shard. Every method takes its mutex for a few instructions.
///
/// A guard of an entry lock owns its shard and not the table, so that guards in different shards share no count.
pub(super) struct Shard {
    paths: Mutex<Paths>,
    /// How many subtree locks are held or wanted. Whoever wants one raises it first and then visits each shard under its mutex.
    subtrees: Arc<AtomicUsize>,
    table: Weak<Inner>,
}

struct Paths {
    /// Invariant: a path is here while somebody holds it or waits for it, and no longer.
    nodes: HashTable<Node>,
    /// The next number for a node or a holder.
    next: u64,
    taken: u64,
    held: usize,
}

struct Node {
    path: VPath,
    number: u64,
    /// How many queued calls want this path. While there are any, those who come or go here must ask the queue.
    marks: u32,
    /// Invariant: when `writer`, there is exactly one holder.
    writer: bool,
    /// The first holder is kept in place, so that a lock without company allocates nothing.
    first: Option<Holder>,
    others: Vec<Holder>,
}

struct Holder {
    token: u64,
    owner: LockOwner,
}

/// Finds a held lock again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    hash: u64,
    node: u64,
    token: u64,
}

/// Why a lock was not given at once.
#[derive(Debug)]
pub(super) enum NotNow {
    /// Somebody holds the path in a mode that excludes this one.
    Held(LockOwner),
    /// A subtree is locked somewhere, or calls are queued for this path: the queue must be asked.
    Ask(LockOwner),
}

/// A lock that is held, as [`Shard::each_held`] shows it.
pub(super) struct Seen<'a> {
    pub(super) path: &'a VPath,
    pub(super) mode: Mode,
    pub(super) owner: &'a LockOwner,
}

impl Shard {
    pub(super) fn new(subtrees: Arc<AtomicUsize>, table: Weak<Inner>) -> Self {
        let paths = Mutex::new(Paths { nodes: HashTable::new(), next: 0, taken: 0, held: 0 });
        Self { paths, subtrees, table }
    }

    /// The table, if it still lives. When it does not, nobody waits: who waits has a handle on it.
    pub(super) fn table(&self) -> Option<Arc<Inner>> {
        self.table.upgrade()
    }

    /// Takes the lock if nothing speaks against it. The fast path: one shard operation and one load.
    ///
    /// The load needs no fence to see a raised count. The one who raised it visits this shard afterwards: if that visit comes
    /// before us, the mutex hands us the raised count, and we ask the queue; if it comes after us, it sees what we hold.
    /// Acquire pairs with the release that lowers the count: who finds no subtree locked sees what its last owner did.
    #[inline]
    pub(super) fn try_take(&self, path: &VPath, mode: Mode, owner: LockOwner) -> Result<Key, NotNow> {
        let mut paths = self.paths.lock();
        if self.subtrees.load(Ordering::Acquire) != 0 {
            return Err(NotNow::Ask(owner));
        }
        let paths = &mut *paths;
        let hash = path.hash64();
        match paths.nodes.entry(hash, |node| node.path == *path, Node::hash) {
            Entry::Vacant(vacant) => {
                let token = paths.next;
                paths.next += 1;
                vacant.insert(Node::held(path.clone(), token, mode, owner));
                paths.count_in();
                Ok(Key { hash, node: token, token })
            }
            Entry::Occupied(occupied) => {
                let node = occupied.into_mut();
                if node.excludes(mode) {
                    return Err(NotNow::Held(owner));
                }
                if node.marks > 0 {
                    return Err(NotNow::Ask(owner));
                }
                let token = paths.next;
                paths.next += 1;
                node.admit(token, mode, owner);
                let key = Key { hash, node: node.number, token };
                paths.count_in();
                Ok(key)
            }
        }
    }

    /// Gives a lock back. Returns the path when somebody may be waiting for it: then the queue must be told.
    ///
    /// Relaxed for the reason given at [`try_take`](Self::try_take): a call that queued before this raised the count or marked the
    /// path before we took the mutex, and one that queues after it finds the path free.
    #[inline]
    pub(super) fn release(&self, key: Key) -> Option<VPath> {
        let mut paths = self.paths.lock();
        let ask = self.subtrees.load(Ordering::Relaxed) != 0;
        paths.held -= 1;
        let Ok(mut found) = paths.nodes.find_entry(key.hash, |node| node.number == key.node) else {
            unreachable!("a held path has a node");
        };
        let node = found.get_mut();
        if node.has_one_lock_alone() {
            let (node, _) = found.remove();
            paths.shrink();
            drop(paths);
            // Without the mutex: what is dropped may free memory.
            return ask.then_some(node.path);
        }
        let holder = node.dismiss(key.token);
        let tell = (ask || node.marks > 0).then(|| node.path.clone());
        drop(paths);
        drop(holder);
        tell
    }

    /// Notes that a queued call wants `path`: from now on those who come and go there ask the queue.
    pub(super) fn mark(&self, path: &VPath) {
        let mut paths = self.paths.lock();
        let paths = &mut *paths;
        let number = paths.next;
        match paths.nodes.entry(path.hash64(), |node| node.path == *path, Node::hash) {
            Entry::Vacant(vacant) => {
                paths.next += 1;
                vacant.insert(Node::marked(path.clone(), number));
            }
            Entry::Occupied(mut occupied) => occupied.get_mut().marks += 1,
        }
    }

    /// Takes back a [`mark`](Self::mark).
    pub(super) fn unmark(&self, path: &VPath) {
        let mut paths = self.paths.lock();
        let Ok(mut found) = paths.nodes.find_entry(path.hash64(), |node| node.path == *path) else {
            unreachable!("a marked path has a node");
        };
        found.get_mut().marks -= 1;
        if found.get().is_idle() {
            found.remove();
        }
    }

    /// Makes a holder of who marked the path. The caller has seen that nothing excludes it, and kept the queue locked since.
    pub(super) fn promote(&self, path: &VPath, mode: Mode, owner: LockOwner) -> Key {
        let mut paths = self.paths.lock();
        let paths = &mut *paths;
        let hash = path.hash64();
        let Some(node) = paths.nodes.find_mut(hash, |node| node.path == *path) else {
            unreachable!("a marked path has a node");
        };
        assert!(!node.excludes(mode), "{path} was given away twice");
        let token = paths.next;
        paths.next += 1;
        node.marks -= 1;
        node.admit(token, mode, owner);
        let key = Key { hash, node: node.number, token };
        paths.count_in();
        key
    }

    /// Whether a holder of exactly `path` excludes `mode`.
    pub(super) fn is_held_against(&self, path: &VPath, mode: Mode) -> bool {
        let paths = self.paths.lock();
        let node = paths.nodes.find(path.hash64(), |node| node.path == *path);
        node.is_some_and(|node| node.excludes(mode))
    }

    /// Whether some holder of `base` or of a path below it excludes `mode`. Looks at each path that is held.
    pub(super) fn is_held_below_against(&self, base: &VPath, mode: Mode) -> bool {
        self.paths.lock().nodes.iter().any(|node| node.excludes(mode) && node.path.is_within(base))
    }

    /// Shows each lock that is held, in no particular order, until `show` says that it has enough.
    pub(super) fn each_held(&self, mut show: impl FnMut(Seen<'_>) -> bool) {
        let paths = self.paths.lock();
        for node in &paths.nodes {
            for holder in node.first.iter().chain(&node.others) {
                if !show(Seen { path: &node.path, mode: node.mode(), owner: &holder.owner }) {
                    return;
                }
            }
        }
    }

    /// How many locks were taken since the start, and how many are held now.
    pub(super) fn counts(&self) -> (u64, usize) {
        let paths = self.paths.lock();
        (paths.taken, paths.held)
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.paths.lock().nodes.len()
    }
}

impl Paths {
    fn count_in(&mut self) {
        self.taken += 1;
        self.held += 1;
    }

    fn shrink(&mut self) {
        if self.nodes.is_empty() && self.nodes.capacity() > 2 * SPARE_PATHS {
            self.nodes.shrink_to(SPARE_PATHS, Node::hash);
        }
    }
}

impl Node {
    fn held(path: VPath, token: u64, mode: Mode, owner: LockOwner) -> Self {
        let first = Some(Holder { token, owner });
        Self { path, number: token, marks: 0, writer: mode == Mode::Write, first, others: Vec::new() }
    }

    fn marked(path: VPath, number: u64) -> Self {
        Self { path, number, marks: 1, writer: false, first: None, others: Vec::new() }
    }

    fn hash(&self) -> u64 {
        self.path.hash64()
    }

    fn mode(&self) -> Mode {
        if self.writer { Mode::Write } else { Mode::Read }
    }

    #[inline]
    fn is_held(&self) -> bool {
        self.first.is_some() || !self.others.is_empty()
    }

    #[inline]
    fn is_idle(&self) -> bool {
        self.marks == 0 && !self.is_held()
    }

    /// Whether a single lock is all that the node is for.
    #[inline]
    fn has_one_lock_alone(&self) -> bool {
        self.marks == 0 && usize::from(self.first.is_some()) + self.others.len() == 1
    }

    #[inline]
    fn excludes(&self, mode: Mode) -> bool {
        self.is_held() && self.mode().excludes(mode)
    }

    fn admit(&mut self, token: u64, mode: Mode, owner: LockOwner) {
        self.writer = mode == Mode::Write;
        let holder = Holder { token, owner };
        if self.first.is_none() {
            self.first = Some(holder);
        } else {
            self.others.push(holder);
        }
    }

    #[inline]
    fn dismiss(&mut self, token: u64) -> Holder {
        if let Some(holder) = self.first.take_if(|first| first.token == token) {
            return holder;
        }
        let Some(at) = self.others.iter().position(|holder| holder.token == token) else {
            unreachable!("a lock is given back once, by its guard");
        };
        self.others.swap_remove(at)
    }
}
