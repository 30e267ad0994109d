//! The children that run, those whose output is on its way, and the last that are done. It outlives the actor, and they do, too.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nexus_messages::{ChildEntry, ChildId, LifeId};
use parking_lot::Mutex;

use super::child::Child;
use super::spawn::Order;
use super::view::ChildStatistics;
use super::{CHILDREN_MAX, DONE_KEPT, ENDED_MAX};

/// The children. Cloning gives another handle on the same table.
///
/// Nothing here waits longer than a few instructions under a mutex.
#[derive(Clone, Default)]
pub(crate) struct ChildTable(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    last: u64,
    running: BTreeMap<ChildId, Running>,
    /// Those that have ended, and whose output is on its way.
    ended: BTreeMap<ChildId, Arc<Child>>,
    /// What those were that were done last, the oldest first.
    done: VecDeque<ChildEntry>,
    started: u64,
    is_closed: bool,
}

enum Running {
    /// A place, and what is to be started there; none when it is being started.
    Coming(Option<Box<Order>>),
    /// Nothing comes there any more, and what had begun is taken back.
    GivenUp,
    Here(Arc<Child>),
}

/// Why a child was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untaken {
    #[error("{CHILDREN_MAX} children run, or are being started, and no more may at once")]
    TooMany,
    #[error(
        "{ENDED_MAX} children have ended, and nobody reads what they wrote: read their pipes, or remove them"
    )]
    TooManyUnread,
    #[error("the kernel has ended")]
    Down,
    #[error("who asked for it went away")]
    GivenUp,
}

/// A place for a child, for who starts it: another one's when this is dropped, and no child is there.
#[derive(Debug)]
pub(super) struct Place {
    table: ChildTable,
    pub(super) id: ChildId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.free(self.id);
    }
}

/// A place for a child, for who asked for it. Dropped before it is [kept](Self::keep), the child that is there by then is killed, and none comes later.
#[derive(Debug)]
pub(super) struct Reservation {
    table: ChildTable,
    id: ChildId,
    given_up: Arc<AtomicBool>,
    is_kept: bool,
}

/// Whether a place is given up.
#[derive(Debug, Clone)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn is_so(&self) -> bool {
        // Acquire pairs with the release of who gave it up: what he did before is seen.
        self.0.load(Ordering::Acquire)
    }
}

impl Reservation {
    /// Says whether the place is given up.
    pub(super) fn given_up(&self) -> GivenUp {
        GivenUp(self.given_up.clone())
    }

    /// Lets the child that is there live.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
        // One that has no paths may be done.
        if let Some(Ok(child)) = self.table.get(self.id) {
            child.keep();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_kept {
            self.given_up.store(true, Ordering::Release);
            self.table.give_up(self.id);
        }
    }
}

impl ChildTable {
    /// A table of a kernel that boots at this time, in nanoseconds. Its identities are not those of an earlier one: who asked that for a child may ask this one of it.
    pub(crate) fn since(wall: u64) -> Self {
        // In milliseconds, so that programs that take numbers for fractions can tell two apart.
        let inner = Inner { last: wall / 1_000_000, ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// A place for what is to be started.
    pub(super) fn reserve(&self) -> Result<(Reservation, Place), Untaken> {
        let mut inner = self.0.lock();
        if inner.is_closed {
            return Err(Untaken::Down);
        }
        if inner.running.len() >= CHILDREN_MAX {
            return Err(Untaken::TooMany);
        }
        if inner.ended.len() >= ENDED_MAX {
            return Err(Untaken::TooManyUnread);
        }
        inner.last += 1;
        let id = ChildId(inner.last);
        inner.running.insert(id, Running::Coming(None));
        let reservation = Reservation { table: self.clone(), id, given_up: Arc::default(), is_kept: false };
        Ok((reservation, Place { table: self.clone(), id }))
    }

    /// Nobody starts anything at this place any more. May be repeated.
    fn free(&self, id: ChildId) {
        // What was ordered goes without the lock.
        let _order = {
            let mut inner = self.0.lock();
            match inner.running.get(&id) {
                Some(Running::Here(_)) | None => None,
                Some(Running::Coming(_) | Running::GivenUp) => inner.running.remove(&id),
            }
        };
    }

    /// Nothing comes to this place any more; the child that is there is killed, and given. May be repeated.
    pub(super) fn give_up(&self, id: ChildId) -> Option<Arc<Child>> {
        let (child, order) = {
            let mut inner = self.0.lock();
            match inner.there(id) {
                // It is minded until its end.
                Some(child) => (Some(child), None),
                None => {
                    let place = inner.running.get_mut(&id);
                    (None, place.map(|place| std::mem::replace(place, Running::GivenUp)))
                }
            }
        };
        // What was ordered goes without the lock.
        drop(order);
        child.inspect(|child| child.give_up())
    }

    /// Lays down what is to be started at this place, if something may be.
    pub(super) fn order(&self, id: ChildId, order: Box<Order>) {
        // Goes without the lock when nothing comes there any more: its ends wake who waits at their pipes.
        let mut order = Some(order);
        let mut inner = self.0.lock();
        if let Some(Running::Coming(place)) = inner.running.get_mut(&id) {
            std::mem::swap(place, &mut order);
        }
        drop(inner);
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
        if inner.is_closed {
            return Err(Untaken::Down);
        }
        match inner.running.get_mut(&child.id) {
            Some(place @ Running::Coming(_)) => *place = Running::Here(child.clone()),
            _ => return Err(Untaken::GivenUp),
        }
        inner.started += 1;
        Ok(())
    }

    /// The child has ended: its place is another one's.
    pub(super) fn has_ended(&self, child: &Arc<Child>) {
        let mut inner = self.0.lock();
        if inner.running.remove(&child.id).is_some() {
            inner.ended.insert(child.id, child.clone());
        }
    }

    /// All that the child wrote is where it belongs.
    pub(super) fn is_done(&self, child: &Child) {
        let entry = child.entry();
        let mut inner = self.0.lock();
        let was_there = inner.ended.remove(&child.id);
        if was_there.is_some() {
            if inner.done.len() >= DONE_KEPT {
                inner.done.pop_front();
            }
            inner.done.push_back(entry);
        }
        drop(inner);
        drop(was_there);
    }

    /// The child that runs, or whose output is on its way; or what one was that is done.
    pub(super) fn get(&self, id: ChildId) -> Option<Result<Arc<Child>, ChildEntry>> {
        let inner = self.0.lock();
        let done = || inner.done.iter().find(|entry| entry.id == id).cloned();
        inner.there(id).map(Ok).or_else(|| done().map(Err))
    }

    /// The child, as a listing tells of it.
    pub(crate) fn entry(&self, id: ChildId) -> Option<ChildEntry> {
        self.get(id).map(|there| there.map_or_else(|entry| entry, |child| child.entry()))
    }

    /// Those that run and those that ended last, in the order of their beginning.
    pub(crate) fn list(&self) -> Vec<ChildEntry> {
        // Each is among those of one kind alone.
        let (there, mut list) = {
            let inner = self.0.lock();
            (inner.all(), Vec::from(inner.done.clone()))
        };
        list.extend(there.iter().map(|child| child.entry()));
        list.sort_by_key(|entry| entry.id);
        list
    }

    /// What was counted.
    pub(crate) fn statistics(&self) -> ChildStatistics {
        let inner = self.0.lock();
        ChildStatistics { running: inner.here().count(), ended: inner.ended.len(), started: inner.started }
    }

    /// Kills those that are tied to this life. May be repeated.
    pub(crate) fn end_life(&self, life: LifeId) {
        let mut tied = self.0.lock().all();
        tied.retain(|child| child.life == Some(life));
        tied.iter().for_each(|child| child.kill());
    }

    /// Nothing is started any more; gives those that run, and those whose output is on its way. May be repeated.
    pub(super) fn close(&self) -> Vec<Arc<Child>> {
        let mut inner = self.0.lock();
        inner.is_closed = true;
        inner.all()
    }
}

impl Inner {
    /// The child that runs, or whose output is on its way.
    fn there(&self, id: ChildId) -> Option<Arc<Child>> {
        match self.running.get(&id) {
            Some(Running::Here(child)) => Some(child.clone()),
            Some(Running::Coming(_) | Running::GivenUp) => None,
            None => self.ended.get(&id).cloned(),
        }
    }

    fn here(&self) -> impl Iterator<Item = &Arc<Child>> {
        self.running.values().filter_map(|running| match running {
            Running::Here(child) => Some(child),
            Running::Coming(_) | Running::GivenUp => None,
        })
    }

    fn all(&self) -> Vec<Arc<Child>> {
        self.ended.values().chain(self.here()).cloned().collect()
    }
}

impl fmt::Debug for ChildTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildTable").field("running", &self.0.lock().running.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use nexus_messages::{ChildExit, ChildSignal, ChildSpec, Timestamp, ZoneId};

    use super::*;
    use crate::hal::{Process, ProcessFuture};

    /// One that runs for ever.
    #[derive(Debug)]
    pub(in crate::children) struct Endless;

    impl Process for Endless {
        fn pid(&self) -> u32 {
            1
        }

        fn exited(&self) -> ProcessFuture<'_, io::Result<ChildExit>> {
            Box::pin(std::future::pending())
        }

        fn signal(&self, _: ChildSignal) -> io::Result<bool> {
            Ok(true)
        }

        fn finish(&self) {}
    }

    fn started(table: &ChildTable) -> Result<Arc<Child>, Untaken> {
        let (reservation, place) = table.reserve()?;
        let spec = ChildSpec::new("endless", [""; 0]);
        let entry = ChildEntry::new(place.id, 1, &spec, "test".into(), ZoneId::root(), Timestamp(0));
        let child = Arc::new(Child::new(entry, Box::new(Endless), None, spec.grace));
        table.admit(&child)?;
        reservation.keep();
        Ok(child)
    }

    #[test]
    fn a_start_that_is_given_up_has_its_place_until_it_ends() {
        let table = ChildTable::default();
        let mut starts: Vec<_> =
            std::iter::repeat_with(|| table.reserve().expect("there is room").1).take(CHILDREN_MAX).collect();
        assert_eq!(table.reserve().map(drop), Err(Untaken::TooMany));
        let start = starts.pop().expect("so many were begun");
        let spec = ChildSpec::new("endless", [""; 0]);
        let entry = ChildEntry::new(start.id, 1, &spec, "test".into(), ZoneId::root(), Timestamp(0));
        let late = Arc::new(Child::new(entry, Box::new(Endless), None, spec.grace));
        assert_eq!(table.admit(&late), Err(Untaken::GivenUp), "none comes later");
        drop(start);
        started(&table).expect("there is room again");
        assert_eq!(table.reserve().map(drop), Err(Untaken::TooMany));
    }

    #[test]
    fn who_has_ended_makes_room_for_another_one_and_so_many_alone_stay_unread() {
        let table = ChildTable::default();
        let mut running: VecDeque<_> =
            std::iter::repeat_with(|| started(&table).expect("there is room")).take(CHILDREN_MAX).collect();
        let mut ended = Vec::new();
        for _ in 0..ENDED_MAX {
            assert_eq!(started(&table).map(drop), Err(Untaken::TooMany));
            let child = running.pop_front().expect("so many run");
            table.has_ended(&child);
            ended.push(child);
            if ended.len() < ENDED_MAX {
                running.push_back(started(&table).expect("there is room again"));
            }
        }
        assert_eq!(started(&table).map(drop), Err(Untaken::TooManyUnread));
        table.is_done(&ended[0]);
        started(&table).expect("one was read");
        let counted = table.statistics();
        assert_eq!((counted.running, counted.ended), (CHILDREN_MAX, ENDED_MAX - 1));
        // All are there for who asks, and each once.
        let ids: Vec<_> = table.list().into_iter().map(|entry| entry.id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b) && ids.len() == CHILDREN_MAX + ENDED_MAX, "{}", ids.len());
        assert!(table.get(ended[0].id).is_some_and(|there| there.is_err()));
        assert!(table.get(ended[1].id).is_some_and(|there| there.is_ok()));
    }
}
