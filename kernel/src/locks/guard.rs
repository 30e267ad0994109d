//! What a caller has while it waits for locks, and while it has them.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crossbeam_utils::CachePadded;
use nexus_messages::VPath;
use smallvec::SmallVec;

use super::claim::{Claim, LockOwner, Scope};
use super::queue::Place;
use super::shard::{Key, Shard};
use super::sync::Mutex;
use super::table::Inner;

/// A path is locked while this lives. May be kept over an await, moved to another task, and dropped on any thread.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct PathGuard(Held);

/// Several paths are locked while this lives.
#[must_use = "the locks are given back when the guards are dropped"]
#[derive(Debug)]
pub struct PathGuards(
    #[expect(dead_code, reason = "kept to be dropped")] pub(super) SmallVec<[PathGuard; 2]>,
);

enum Held {
    Entry { shard: Arc<CachePadded<Shard>>, key: Key },
    Subtree { table: Arc<Inner>, path: VPath, token: u64 },
}

impl PathGuard {
    pub(super) fn entry(shard: Arc<CachePadded<Shard>>, key: Key) -> Self {
        Self(Held::Entry { shard, key })
    }

    pub(super) fn subtree(table: Arc<Inner>, path: VPath, token: u64) -> Self {
        Self(Held::Subtree { table, path, token })
    }
}

impl Drop for PathGuard {
    #[inline]
    fn drop(&mut self) {
        match &self.0 {
            Held::Entry { shard, key } => {
                if let Some(path) = shard.release(*key)
                    && let Some(table) = shard.table()
                {
                    table.entry_released(&path);
                }
            }
            Held::Subtree { table, path, token } => table.release_subtree(path, *token),
        }
    }
}

impl fmt::Debug for PathGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match &self.0 {
            Held::Entry { .. } => Scope::Entry,
            Held::Subtree { .. } => Scope::Subtree,
        };
        f.debug_struct("PathGuard").field("scope", &scope).finish_non_exhaustive()
    }
}

/// How the queue reaches a call that waits. Shared by the queue and the call's future.
pub(super) struct Ticket(Mutex<Word>);

enum Word {
    Wait(Waker),
    Given(Vec<PathGuard>),
    Taken,
}

impl Ticket {
    pub(super) fn new(waker: Waker) -> Self {
        Self(Mutex::new(Word::Wait(waker)))
    }

    /// Hands over the locks. The waker is for the caller to wake when it has let go of the queue.
    pub(super) fn give(&self, guards: Vec<PathGuard>) -> Option<Waker> {
        match mem::replace(&mut *self.0.lock(), Word::Given(guards)) {
            Word::Wait(waker) => Some(waker),
            Word::Given(_) | Word::Taken => unreachable!("a call is served once"),
        }
    }

    /// The locks, when they were given; else `waker` is the one to wake.
    fn poll(&self, waker: Waker) -> Poll<Vec<PathGuard>> {
        let mut word = self.0.lock();
        let before = match &*word {
            Word::Given(_) => mem::replace(&mut *word, Word::Taken),
            _ => mem::replace(&mut *word, Word::Wait(waker)),
        };
        drop(word);
        match before {
            Word::Given(guards) => Poll::Ready(guards),
            // Dropped here, without the mutex: dropping a waker may drop a whole task.
            Word::Wait(_) | Word::Taken => Poll::Pending,
        }
    }
}

/// What came of asking the queue.
pub(super) enum Asked {
    Given(Vec<PathGuard>),
    Queued(Place, Arc<Ticket>),
    Refused,
}

/// Waits for several locks at once. Dropping it leaves the queue, and gives back what was just given.
pub(super) struct Wait<'a> {
    table: &'a Arc<Inner>,
    stage: Stage,
}

enum Stage {
    Asking(Vec<Claim>, LockOwner),
    Queued(Place, Arc<Ticket>),
    Done,
}

impl<'a> Wait<'a> {
    /// `claims` in canonical order.
    pub(super) fn new(table: &'a Arc<Inner>, claims: Vec<Claim>, owner: LockOwner) -> Self {
        Self { table, stage: Stage::Asking(claims, owner) }
    }
}

impl Future for Wait<'_> {
    type Output = Vec<PathGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<PathGuard>> {
        let waker = cx.waker().clone();
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Asking(claims, owner) => match self.table.ask(claims, owner, Some(waker)) {
                Asked::Given(guards) => Poll::Ready(guards),
                Asked::Queued(place, ticket) => {
                    self.stage = Stage::Queued(place, ticket);
                    Poll::Pending
                }
                Asked::Refused => unreachable!("a call that can wait is not refused"),
            },
            Stage::Queued(place, ticket) => {
                let polled = ticket.poll(waker);
                if polled.is_pending() {
                    self.stage = Stage::Queued(place, ticket);
                }
                polled
            }
            Stage::Done => unreachable!("polled after it was ready"),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Stage::Queued(place, _) = &self.stage {
            // When it was served in the meantime, the guards go with the ticket.
            self.table.leave(*place);
        }
    }
}
