//! What whoever waits for a place polls.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Filed, Inner};
use crate::semaphore::places::Moved;
use crate::semaphore::ticket::{Ticket, Verdict};

/// A wait for a place. Dropping it leaves the line, and gives back what was just given.
#[must_use = "nothing is waited for unless it is polled"]
pub(crate) struct Waiting<'t, K: Filed> {
    /// Borrowed: who shares in the table changes a count beside what each of its operations reads.
    pub(super) table: &'t Inner<K>,
    pub(super) key: K,
    pub(super) number: u64,
    pub(super) ticket: Arc<Ticket>,
    pub(super) is_over: bool,
}

impl<K: Filed> Future for Waiting<'_, K> {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        let polled = self.ticket.poll(cx.waker());
        self.is_over |= polled.is_ready();
        polled
    }
}

// Nothing in it is pinned.
impl<K: Filed> Unpin for Waiting<'_, K> {}

impl<K: Filed> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        if mem::replace(&mut self.is_over, true) {
            return;
        }
        let left = self.table.with(&self.key, |inner, part, woken| {
            let mut moved = Moved::default();
            let left =
                part.places.leave(&self.key, self.number, &inner.tokens, inner.clock.now(), &mut moved);
            inner.settle(part, moved, woken);
            if let Some(waiter) = &left {
                inner.accounts.leave(&mut part.known, &waiter.request.owner.agent);
            }
            left.is_some()
        });
        // Who is gone from the line was told, and nobody has heard it.
        if !left && let Some(Verdict::Held(grant)) = self.ticket.take() {
            self.table.release(&self.key, grant.id);
        }
    }
}
