//! From commits to watchers: on the task of whoever changed something, without mail.
//!
//! What is committed comes here in the order of the log, while the commits' own lock is held. Who is to be told is looked up then: a subscription that was
//! published before a commit was made is told of it. It is told when the commit is on disk and the locks that it was made under are gone, and not before what
//! came before it in its log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use nexus_actors::{Snap, Superseded};
use nexus_messages::{Event, Lsn, ZoneId};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::events::{facts, heard};
use super::subscription::{Group, Heard, Subscription};
use super::table::{Takers, WatchTable};
use super::view::WatchStatistics;
use crate::caught::catch;
use crate::hal::{Entry, LogRecord, Metastore, TreeId};

/// What everybody sees of the watches: who is to be told of what, and what is to be told when it is on disk.
pub(crate) struct Watches {
    metastore: Arc<dyn Metastore>,
    /// How many subscriptions the newest table has. Invariant: stored after the table that has them was published, and before one that has none.
    any: AtomicUsize,
    table: Snap<WatchTable>,
    line: Mutex<Line>,
    /// Commits in the line, and wakers. A hint for those who would only look whether there are any.
    waiting: AtomicUsize,
    next_id: AtomicU64,
    /// Of the subscriptions that are gone.
    delivered: AtomicU64,
    overflows: AtomicU64,
    closed: AtomicBool,
    /// Who owns what is committed nowhere.
    nobody: Arc<str>,
}

/// What is to be told, by log.
#[derive(Default)]
struct Line {
    trees: BTreeMap<TreeId, Told>,
    /// Those who are to be woken because something was not told.
    missed: Wakers,
}

/// What is to be told of one log. As long as what is not on disk, and what calls are about to let go of, at most.
#[derive(Default)]
struct Told {
    /// The last commit that came here, or had come when somebody began to watch; none while nobody watches.
    last: Option<Lsn>,
    waiting: VecDeque<Waiting>,
    /// The first in line, when it was there at the last look and its locks were not gone.
    held_up: Option<Lsn>,
    /// What had come here by the last look, when more was on disk.
    behind: Option<Lsn>,
    /// Up to here all is known to be on disk: the log is only asked about what is behind it.
    durable: Lsn,
}

impl Told {
    /// Up to where in the log nothing is missing when what comes after `last` did not come here.
    fn missing_from(&self, last: Lsn) -> Lsn {
        self.waiting.front().map_or(last, |first| Lsn(first.lsn.0 - 1))
    }
}

struct Waiting {
    lsn: Lsn,
    takers: Vec<(Arc<Subscription>, Group)>,
    held: Option<Held>,
}

/// Whether the locks that a change was made under are there still.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<AtomicBool>);

impl Held {
    fn is_gone(&self) -> bool {
        // Pairs with the release of who lets go: the locks are gone for whoever is told.
        self.0.load(Ordering::Acquire)
    }
}

/// Held under the locks of a change, and dropped after them: then watchers may be told.
pub(crate) struct Holding {
    held: Option<(Arc<Watches>, Held)>,
}

impl Holding {
    /// What goes with the commit.
    pub(crate) fn held(&self) -> Option<Held> {
        self.held.as_ref().map(|(_, held)| held.clone())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some((watches, held)) = self.held.take() {
            held.0.store(true, Ordering::Release);
            watches.tell();
        }
    }
}

/// Who is to be woken.
pub(crate) type Wakers = SmallVec<[Waker; 4]>;

impl Watches {
    pub(crate) fn new(metastore: Arc<dyn Metastore>) -> Self {
        Self {
            metastore,
            any: AtomicUsize::new(0),
            table: Snap::default(),
            line: Mutex::default(),
            waiting: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            delivered: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            nobody: Arc::from(""),
        }
    }

    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) // Only uniqueness is asked of it.
    }

    /// Whether anybody watches anything: one load.
    #[inline]
    pub(crate) fn anyone(&self) -> bool {
        // A commit that misses a subscription was made before it was there for all to see, so the place in the log at which that begins is not before it.
        self.any.load(Ordering::SeqCst) != 0
    }

    /// To be held under the locks of a change, and longer than they are.
    #[inline]
    pub(crate) fn hold(self: &Arc<Self>) -> Holding {
        let held = || (self.clone(), Held(Arc::default()));
        Holding { held: self.anyone().then(held) }
    }

    /// Takes the pen for the incarnation `writer` of the watcher, and gives what to go on from.
    pub(super) fn claim(&self, writer: u64) -> Result<Arc<WatchTable>, Superseded> {
        self.table.claim(writer)
    }

    /// Makes `table` the one that commits are looked up in from now on.
    pub(super) fn publish(&self, writer: u64, table: WatchTable) -> Result<(), Superseded> {
        let len = table.len();
        if len > 0 && !self.anyone() {
            // What was committed while nobody watched did not come here.
            self.line.lock().trees.values_mut().for_each(|told| told.last = None);
        }
        self.table.publish(writer, table)?;
        self.any.store(len, Ordering::SeqCst);
        Ok(())
    }

    /// Somebody hears of the log of `tree` from now on, and will read all of it that is there now: what comes next and is not the next place is a gap. To be called when the subscription is
    /// published, and before its owner knows.
    pub(super) fn follow(&self, tree: TreeId) {
        // When it cannot be read, its owner is told so.
        if let Ok(last) = self.metastore.last_lsn(tree) {
            self.line.lock().trees.entry(tree).or_default().last.get_or_insert(last);
        }
    }

    /// The subscriptions as they are published.
    pub(crate) fn table(&self) -> Arc<WatchTable> {
        self.table.get()
    }

    /// An entry was committed at `lsn`. To be called in the order of the log, after what it changed is visible; and then, when what keeps that order is let go of,
    /// [`tell`](Self::tell).
    #[inline]
    pub(crate) fn committed(&self, entry: &Entry, lsn: Lsn, held: Option<Held>) {
        if self.anyone() {
            self.line_up(entry, lsn, held);
        }
    }

    fn line_up(&self, entry: &Entry, lsn: Lsn, held: Option<Held>) {
        let tree = entry.tree;
        // For each event those whom it concerns. What nobody waits for is not made.
        let concerned: SmallVec<[Takers; 1]> =
            self.table.read(|table| facts(entry).map(|facts| table.takers(tree, facts)).collect());
        let takers = match concerned.iter().all(|takers| takers.is_empty()) {
            true => Vec::new(),
            false => {
                let zone =
                    concerned.iter().flatten().next().map_or_else(ZoneId::root, |one| one.zone.clone());
                together(&concerned, &heard(&LogRecord::of(entry, lsn), &zone))
            }
        };
        let mut line = self.line.lock();
        let Line { trees, missed } = &mut *line;
        let told = trees.entry(tree).or_default();
        if let Some(last) = told.last.replace(lsn)
            && last.0 + 1 < lsn.0
        {
            // Whoever committed what is in between died before it said so. The log knows of it.
            self.miss(tree, told.missing_from(last), missed);
        }
        if !takers.is_empty() {
            told.waiting.push_back(Waiting { lsn, takers, held });
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Has those who watch the log of `tree` told that commits after `through` did not come here.
    fn miss(&self, tree: TreeId, through: Lsn, missed: &mut Wakers) {
        let table = self.table.get();
        let before = missed.len();
        missed.extend(table.iter().filter(|one| one.tree == tree).filter_map(|one| one.miss(through)));
        self.waiting.fetch_add(missed.len() - before, Ordering::SeqCst);
    }

    /// Tells what is on disk and was not told yet. To be called when something became durable, or locks are gone.
    #[inline]
    pub(crate) fn tell(&self) {
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.tell_those(|held| held.is_none_or(Held::is_gone));
        }
    }

    fn tell_those(&self, mut may: impl FnMut(Option<&Held>) -> bool) {
        let mut line = self.line.lock();
        let mut wakers = std::mem::take(&mut line.missed);
        self.waiting.fetch_sub(wakers.len(), Ordering::SeqCst);
        for (tree, told) in line.trees.iter_mut().filter(|(_, told)| !told.waiting.is_empty()) {
            let durable = self.metastore.durable_lsn(*tree).unwrap_or_default();
            while let Some(first) =
                told.waiting.pop_front_if(|first| first.lsn <= durable && may(first.held.as_ref()))
            {
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                let before = Lsn(first.lsn.0.saturating_sub(1));
                let pushed =
                    first.takers.iter().map(|(taker, group)| taker.push(Some(first.lsn), before, group));
                wakers.extend(pushed.flatten());
            }
        }
        drop(line);
        wake(wakers);
    }

    /// Tells at once of something that is committed nowhere, in the zone of `tree`. Gives those who are to be woken, for who holds a lock to let go of it first.
    pub(crate) fn announced(&self, tree: TreeId, event: Event) -> Wakers {
        if !self.anyone() {
            return Wakers::new();
        }
        let mut heard = Heard { event, owner: self.nobody.clone() };
        let takers = self.table.read(|table| table.takers(tree, heard.facts()));
        if takers.is_empty() {
            return Wakers::new();
        }
        // Under the lock, so that it is told between the same commits to everybody.
        let mut line = self.line.lock();
        let through = self.told_through(&mut line, tree);
        heard.event.lsn = through;
        let group = [Arc::new(heard)];
        let wakers = takers.iter().filter_map(|taker| taker.push(None, through, &group)).collect();
        drop(line);
        wakers
    }

    /// The place in the log of `tree` of what is committed nowhere and told now: the last commit that everybody was told of, or that is on disk while nobody watches.
    pub(crate) fn place(&self, tree: TreeId) -> Lsn {
        let mut line = self.line.lock();
        let is_followed = self.anyone() && line.trees.get(&tree).is_some_and(|told| told.last.is_some());
        match is_followed {
            true => self.told_through(&mut line, tree),
            false => self.metastore.durable_lsn(tree).unwrap_or_default(),
        }
    }

    /// Up to where in the log of `tree` everybody was told.
    pub(super) fn through(&self, tree: TreeId) -> Lsn {
        self.told_through(&mut self.line.lock(), tree)
    }

    fn told_through(&self, line: &mut Line, tree: TreeId) -> Lsn {
        let Some(told) = line.trees.get_mut(&tree) else { return Lsn::default() };
        let first = told.waiting.front().map(|first| Lsn(first.lsn.0.saturating_sub(1)));
        // What did not come here yet may be for somebody.
        let through = first.or(told.last).unwrap_or_default();
        if through > told.durable {
            // One that is closed does not say: then it is what it said before.
            told.durable = self.metastore.durable_lsn(tree).unwrap_or(told.durable);
        }
        through.min(told.durable)
    }

    /// Tells of changes whose calls keep their locks, although nothing is left to be done under them, since the last look: their callers do not go on, and
    /// nobody else is to wait for them. And of those that are on disk and did not come here since the last look: who committed them died before he said so.
    pub(super) fn tell_held_up(&self) {
        {
            let mut line = self.line.lock();
            let Line { trees, missed } = &mut *line;
            for (tree, told) in trees {
                let durable = self.metastore.durable_lsn(*tree).unwrap_or_default();
                let behind = told.last.filter(|last| *last < durable);
                if let Some(last) = behind.filter(|_| behind == told.behind) {
                    self.miss(*tree, told.missing_from(last), missed);
                    told.last = Some(durable);
                }
                told.behind = behind;
                let first = told.waiting.front_mut().filter(|first| first.lsn <= durable);
                told.held_up = first.and_then(|first| {
                    if told.held_up == Some(first.lsn) {
                        first.held = None;
                    }
                    first.held.is_some().then_some(first.lsn)
                });
            }
        }
        self.tell();
    }

    /// Notes what a subscription counted that is gone.
    pub(super) fn count(&self, old: &Subscription) {
        let (delivered, overflows) = old.counts();
        self.delivered.fetch_add(delivered, Ordering::Relaxed);
        self.overflows.fetch_add(overflows, Ordering::Relaxed);
    }

    /// What was counted. Looks at each subscription.
    pub(crate) fn statistics(&self) -> WatchStatistics {
        let mut counted = WatchStatistics {
            watches: 0,
            delivered: self.delivered.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::SeqCst),
        };
        for one in self.table().iter() {
            let (delivered, overflows) = one.counts();
            counted.watches += usize::from(!one.is_gone());
            counted.delivered += delivered;
            counted.overflows += overflows;
        }
        counted
    }

    /// The kernel has ended: whoever waits is told so.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for one in self.table().iter() {
            one.wake();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// For each of those whom something concerns all of it, in its order. `heard` are the events of `concerned`, in the same order.
fn together(concerned: &[Takers], heard: &[Arc<Heard>]) -> Vec<(Arc<Subscription>, Group)> {
    let each = concerned
        .iter()
        .zip(heard)
        .flat_map(|(takers, heard)| takers.iter().map(move |taker| (taker, heard)));
    let mut each: Vec<_> = each.collect();
    // Stable: the events of one taker stay in their order.
    each.sort_by_key(|(taker, _)| taker.id);
    each.chunk_by(|(one, _), (other, _)| one.id == other.id)
        .map(|group| (group[0].0.clone(), group.iter().map(|(_, heard)| (*heard).clone()).collect()))
        .collect()
}

/// Wakes them. With no lock held: what a waker does is its executor's.
fn wake(wakers: Wakers) {
    for waker in wakers {
        if let Err(panicked) = catch(|| waker.wake()) {
            tracing::error!(%panicked, "a watcher could not be woken");
        }
    }
}
