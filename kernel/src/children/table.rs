//! The children that run, and the last that ended. It outlives the actor, and they do, too.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use nexus_messages::{ChildEntry, ChildId, ChildSignal, LifeId};
use parking_lot::Mutex;

use super::child::Child;
use super::spawn::Order;
use super::view::ChildStatistics;
use super::{CHILDREN_MAX, DONE_KEPT};

/// The children. Cloning gives another handle on the same table.
///
/// Nothing here waits longer than a few instructions under a mutex.
#[derive(Clone, Default)]
pub(crate) struct ChildTable(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    last: u64,
    running: BTreeMap<ChildId, Running>,
    /// What those were that ended last, the oldest first.
    done: VecDeque<ChildEntry>,
    started: u64,
    is_ended: bool,
}

enum Running {
    /// A place, and what is to be started there; none when it is being started.
    Coming(Option<Box<Order>>),
    Here(Arc<Child>),
}

/// Why a child was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untaken {
    #[error("{CHILDREN_MAX} children run, and no more may at once")]
    TooMany,
    #[error("the kernel has ended")]
    Down,
    #[error("who asked for it went away")]
    GivenUp,
}

/// A place for a child. Dropped before it is [kept](Self::keep), the child that is there by then is killed, and none comes later.
#[derive(Debug)]
pub(super) struct Reservation {
    table: ChildTable,
    pub(super) id: ChildId,
    is_kept: bool,
}

impl Reservation {
    /// Lets the child that is there live on.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let removed = {
            let mut inner = self.table.0.lock();
            match inner.running.get(&self.id) {
                // It is minded until its end.
                Some(Running::Here(child)) => Err(child.clone()),
                _ => Ok(inner.running.remove(&self.id)),
            }
        };
        if let Err(child) = removed {
            kill(&child);
        }
    }
}

/// Kills a child, and says so when that cannot be done.
pub(super) fn kill(child: &Child) {
    if let Err(error) = child.signal(ChildSignal::Kill) {
        child.trouble(format_args!("it could not be killed: {error}"));
    }
}

impl ChildTable {
    /// A place for what is to be started.
    pub(super) fn reserve(&self) -> Result<Reservation, Untaken> {
        let mut inner = self.0.lock();
        if inner.is_ended {
            return Err(Untaken::Down);
        }
        if inner.running.len() >= CHILDREN_MAX {
            return Err(Untaken::TooMany);
        }
        inner.last += 1;
        let id = ChildId(inner.last);
        inner.running.insert(id, Running::Coming(None));
        Ok(Reservation { table: self.clone(), id, is_kept: false })
    }

    /// Lays down what is to be started at this place.
    pub(super) fn order(&self, id: ChildId, order: Box<Order>) {
        // What was there before goes without the lock.
        let before = self
            .0
            .lock()
            .running
            .get_mut(&id)
            .map(|place| std::mem::replace(place, Running::Coming(Some(order))));
        drop(before);
    }

    /// Takes what is to be started, once.
    pub(super) fn take_order(&self, id: ChildId) -> Option<Box<Order>> {
        match self.0.lock().running.get_mut(&id) {
            Some(Running::Coming(order)) => order.take(),
            _ => None,
        }
    }

    /// The child that was started is at its place now; given back when that was given up meanwhile, or all are ended.
    pub(super) fn admit(&self, child: &Arc<Child>) -> Result<(), Untaken> {
        let mut inner = self.0.lock();
        if inner.is_ended {
            return Err(Untaken::Down);
        }
        let place = inner.running.get_mut(&child.id).ok_or(Untaken::GivenUp)?;
        *place = Running::Here(child.clone());
        inner.started += 1;
        Ok(())
    }

    /// All that the child wrote is where it belongs.
    pub(super) fn is_done(&self, child: &Child) {
        let entry = child.entry();
        let mut inner = self.0.lock();
        let was_there = inner.running.remove(&child.id);
        if was_there.is_some() {
            if inner.done.len() >= DONE_KEPT {
                inner.done.pop_front();
            }
            inner.done.push_back(entry);
        }
        drop(inner);
        drop(was_there);
    }

    /// The child that runs, or what one was that has ended.
    pub(super) fn get(&self, id: ChildId) -> Option<Result<Arc<Child>, ChildEntry>> {
        let inner = self.0.lock();
        match inner.running.get(&id) {
            Some(Running::Here(child)) => Some(Ok(child.clone())),
            Some(Running::Coming(_)) => None,
            None => inner.done.iter().find(|entry| entry.id == id).cloned().map(Err),
        }
    }

    /// The child, as a listing tells of it.
    pub(crate) fn entry(&self, id: ChildId) -> Option<ChildEntry> {
        self.get(id).map(|there| there.map_or_else(|entry| entry, |child| child.entry()))
    }

    /// Those that run and those that ended last, in the order of their beginning.
    pub(crate) fn list(&self) -> Vec<ChildEntry> {
        let (running, mut list) = {
            let inner = self.0.lock();
            (inner.here(), Vec::from(inner.done.clone()))
        };
        list.extend(running.iter().map(|child| child.entry()));
        list.sort_by_key(|entry| entry.id);
        // One that ended between the two looks is not there twice.
        list.dedup_by_key(|entry| entry.id);
        list
    }

    /// What was counted.
    pub(crate) fn statistics(&self) -> ChildStatistics {
        let inner = self.0.lock();
        ChildStatistics { running: inner.here().len(), started: inner.started }
    }

    /// Kills those that are tied to this life. May be repeated.
    pub(crate) fn end_life(&self, life: LifeId) {
        let tied: Vec<_> =
            self.0.lock().here().into_iter().filter(|child| child.life == Some(life)).collect();
        tied.iter().for_each(|child| kill(child));
    }

    /// Nothing is started any more; gives those that run. May be repeated.
    pub(super) fn end(&self) -> Vec<Arc<Child>> {
        let mut inner = self.0.lock();
        inner.is_ended = true;
        inner.here()
    }
}

impl Inner {
    fn here(&self) -> Vec<Arc<Child>> {
        let here = self.running.values().filter_map(|running| match running {
            Running::Here(child) => Some(child.clone()),
            Running::Coming(_) => None,
        });
        here.collect()
    }
}

impl fmt::Debug for ChildTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildTable").field("running", &self.0.lock().running.len()).finish_non_exhaustive()
    }
}
