//! One subscription: what it waits for, what is queued for it, and who is to be woken.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};

use futures_util::task::AtomicWaker;
use nexus_messages::{Caller, Event, EventMask, Lsn, Timestamp, VPath, ZoneId};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::scope::{Facts, Scope, concerns};
use crate::hal::TreeId;

/// An event, with what the permission gate is to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) event: Event,
    /// Who owned the entry.
    pub(crate) owner: Arc<str>,
}

impl Heard {
    pub(crate) fn facts(&self) -> Facts<'_> {
        let event = &self.event;
        Facts {
            kind: event.kind,
            path: &event.path,
            other: event.other.as_ref(),
            entry_type: event.entry_type,
        }
    }
}

/// Events that are told together: those of one commit, which a place in the log does not tell apart.
pub(crate) type Group = SmallVec<[Arc<Heard>; 1]>;

/// A subscription. Shared by the index, the queue's writers, and its owner; the owner says when it is over.
pub(crate) struct Subscription {
    pub(crate) id: u64,
    pub(crate) caller: Arc<Caller>,
    /// The log that it is told from.
    pub(crate) tree: TreeId,
    /// The zone of that log.
    pub(crate) zone: ZoneId,
    pub(crate) base: VPath,
    pub(crate) scope: Scope,
    pub(crate) mask: EventMask,
    /// Where its owner asked to be told from; none for from then on.
    pub(crate) since: Option<Lsn>,
    /// When it began.
    pub(crate) at: Timestamp,
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    gone: AtomicBool,
    delivered: AtomicU64,
    overflows: AtomicU64,
}

/// What is queued. Pure.
#[derive(Default)]
pub(crate) struct Queue {
    /// Invariant: at most `max` events. Those of one commit stand side by side, all or none of them.
    events: VecDeque<Queued>,
    /// Since something did not fit: up to where in the log nothing is missing. Nothing is queued until the owner has seen it.
    overflow: Option<Lsn>,
    max: usize,
}

struct Queued {
    /// The commit; none for what is in no log.
    lsn: Option<Lsn>,
    heard: Arc<Heard>,
}

/// What is taken from a queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) events: Group,
    /// The last commit among them.
    pub(crate) last: Option<Lsn>,
    /// Nothing is left, and something did not fit: up to where in the log nothing was missing.
    pub(crate) overflow: Option<Lsn>,
}

impl Queue {
    pub(crate) fn new(max: usize) -> Self {
        Self { events: VecDeque::new(), overflow: None, max }
    }

    /// Queues the events of the commit at `lsn`, all or none; of what is in no log, `lsn` is none and `after` the last commit before it. Whether they were
    /// queued.
    pub(crate) fn push(&mut self, lsn: Option<Lsn>, after: Lsn, group: &[Arc<Heard>]) -> bool {
        if self.overflow.is_some() {
            return false;
        }
        if self.events.len() + group.len() > self.max {
            self.overflow = Some(after);
            return false;
        }
        self.events.extend(group.iter().map(|heard| Queued { lsn, heard: heard.clone() }));
        true
    }

    /// Notes that commits after `through` were not told.
    pub(crate) fn miss(&mut self, through: Lsn) {
        self.overflow.get_or_insert(through);
    }

    /// Takes at least one commit, if there is one, and no more events than `limit` if that can be. What was told from the log, up to `told`, is left out.
    pub(crate) fn take(&mut self, limit: usize, told: Lsn) -> Taken {
        let mut taken = Taken::default();
        while let Some(next) = self.events.front() {
            let together = next.lsn.is_some() && next.lsn == taken.last;
            if taken.events.len() >= limit && !together {
                return taken;
            }
            let Some(Queued { lsn, heard }) = self.events.pop_front() else { break };
            if lsn.is_some_and(|lsn| lsn <= told) {
                continue;
            }
            taken.last = lsn.or(taken.last);
            taken.events.push(heard);
        }
        if taken.events.is_empty() {
            taken.overflow = self.overflow.take();
        }
        taken
    }

    /// Whether there is nothing to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.overflow.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.overflow.is_some()
    }
}

/// What a subscription is for.
pub(crate) struct Wanted {
    pub(crate) caller: Arc<Caller>,
    pub(crate) tree: TreeId,
    pub(crate) zone: ZoneId,
    pub(crate) base: VPath,
    pub(crate) scope: Scope,
    pub(crate) mask: EventMask,
    pub(crate) since: Option<Lsn>,
    pub(crate) at: Timestamp,
    /// How many events may be queued.
    pub(crate) queue_max: usize,
}

impl Subscription {
    pub(crate) fn new(id: u64, wanted: Wanted) -> Self {
        let Wanted { caller, tree, zone, base, scope, mask, since, at, queue_max } = wanted;
        Self {
            id,
            caller,
            tree,
            zone,
            base,
            scope,
            mask,
            since,
            at,
            queue: Mutex::new(Queue::new(queue_max)),
            waker: AtomicWaker::new(),
            gone: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        }
    }

    pub(crate) fn concerns(&self, facts: Facts<'_>) -> bool {
        concerns(&self.base, &self.scope, self.mask, facts)
    }

    /// Queues events; who is to be woken.
    pub(crate) fn push(&self, lsn: Option<Lsn>, after: Lsn, group: &[Arc<Heard>]) -> Option<Waker> {
        if self.is_gone() {
            return None;
        }
        let mut queue = self.queue.lock();
        let was_over = queue.is_over();
        if queue.push(lsn, after, group) {
            self.delivered.fetch_add(group.len() as u64, Ordering::Relaxed);
        } else if !was_over {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
        drop(queue);
        self.waker.take()
    }

    /// Notes that commits after `through` were not told; who is to be woken.
    pub(crate) fn miss(&self, through: Lsn) -> Option<Waker> {
        self.queue.lock().miss(through);
        self.overflows.fetch_add(1, Ordering::Relaxed);
        self.waker.take()
    }

    pub(crate) fn take(&self, limit: usize, told: Lsn) -> Taken {
        self.queue.lock().take(limit, told)
    }

    /// Has whoever polls woken by what is queued from now on. Look again after it.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// Its owner is gone: what is queued goes, and nothing more is queued.
    pub(crate) fn leave(&self) {
        // Read by those who push, to whom it is only a hint; those who list see it as soon as they may.
        self.gone.store(true, Ordering::Release);
        self.waker.take();
        self.queue.lock().events = VecDeque::new();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// How many events are queued, and whether something did not fit.
    pub(crate) fn queued(&self) -> (usize, bool) {
        let queue = self.queue.lock();
        (queue.len(), queue.is_over())
    }

    /// How many events were queued so far, and how often something did not fit.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.delivered.load(Ordering::Relaxed), self.overflows.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Subscription");
        f.field("id", &self.id).field("base", &self.base).field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::{EntryType, EventKind, OpId};

    use super::*;

    fn heard(name: &str) -> Arc<Heard> {
        let path = VPath::parse(name).unwrap();
        let caller = Arc::new(Caller::administrator());
        let event = Event::new(EventKind::FileWritten, path, EntryType::Reg, caller, OpId(1));
        Arc::new(Heard { event, owner: "a".into() })
    }

    fn names(taken: &Taken) -> Vec<&str> {
        taken.events.iter().map(|heard| heard.event.path.as_str()).collect()
    }

    #[test]
    fn the_events_of_a_commit_are_taken_together() {
        let mut queue = Queue::new(10);
        assert!(queue.push(Some(Lsn(1)), Lsn(0), &[heard("/a"), heard("/b")]));
        assert!(queue.push(Some(Lsn(2)), Lsn(1), &[heard("/c")]));
        let first = queue.take(1, Lsn(0));
        assert_eq!((names(&first), first.last), (vec!["/a", "/b"], Some(Lsn(1))));
        let second = queue.take(9, Lsn(0));
        assert_eq!((names(&second), second.last), (vec!["/c"], Some(Lsn(2))));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_told_as_that_and_nothing_follows_it() {
        let mut queue = Queue::new(2);
        assert!(queue.push(Some(Lsn(1)), Lsn(0), &[heard("/a")]));
        assert!(!queue.push(Some(Lsn(5)), Lsn(4), &[heard("/b"), heard("/c")]));
        assert!(!queue.push(Some(Lsn(6)), Lsn(5), &[heard("/d")]));
        let first = queue.take(9, Lsn(0));
        assert_eq!((names(&first), first.overflow), (vec!["/a"], None));
        assert_eq!(queue.take(9, Lsn(0)).overflow, Some(Lsn(4)));
        assert!(queue.push(Some(Lsn(7)), Lsn(6), &[heard("/e")]));
        assert_eq!(names(&queue.take(9, Lsn(0))), ["/e"]);
    }

    #[test]
    fn what_the_log_told_is_left_out() {
        let mut queue = Queue::new(9);
        for lsn in 1..=3 {
            queue.push(Some(Lsn(lsn)), Lsn(lsn - 1), &[heard("/a")]);
        }
        queue.push(None, Lsn(3), &[heard("/lock")]);
        let taken = queue.take(9, Lsn(2));
        assert_eq!((names(&taken), taken.last), (vec!["/a", "/lock"], Some(Lsn(3))));
    }
}
