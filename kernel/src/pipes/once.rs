//! Writes with an identity: each is executed once, as long as it is among the last of its pipe.

use std::collections::{HashMap, VecDeque};

use nexus_messages::OpId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// How many writes of a pipe are remembered by their identities.
pub const OPS_KEPT: usize = 128;

/// The writes of one pipe that have an identity.
#[derive(Default)]
pub(super) struct Once {
    state: Mutex<State>,
    /// Told when one that was under way is so no longer.
    ended: Notify,
}

#[derive(Default)]
struct State {
    /// How many bytes each has written; nothing yet, of one that is under way.
    known: HashMap<OpId, Option<u64>>,
    /// Those that were executed, the oldest first.
    executed: VecDeque<OpId>,
}

/// What is known of a write that begins.
pub(super) enum Begun<'a> {
    /// It is the first of its identity.
    First(Writing<'a>),
    /// It was executed, and wrote so many bytes.
    Before(u64),
    /// It is under way. This ends with it, however it does.
    UnderWay(Notified<'a>),
}

/// A write under way. Dropped before it was [executed](Self::executed), it is as if it had not been.
pub(super) struct Writing<'a> {
    once: &'a Once,
    op: OpId,
    is_executed: bool,
}

impl Once {
    pub(super) fn begin(&self, op: OpId) -> Begun<'_> {
        // Before the look: whoever ends after it tells this one.
        let ended = self.ended.notified();
        let mut state = self.state.lock();
        match state.known.get(&op) {
            Some(Some(length)) => Begun::Before(*length),
            Some(None) => Begun::UnderWay(ended),
            None => {
                state.known.insert(op, None);
                Begun::First(Writing { once: self, op, is_executed: false })
            }
        }
    }
}

impl Writing<'_> {
    /// It has written so many bytes.
    pub(super) fn executed(mut self, length: u64) {
        self.is_executed = true;
        let mut state = self.once.state.lock();
        state.known.insert(self.op, Some(length));
        state.executed.push_back(self.op);
        if state.executed.len() > OPS_KEPT
            && let Some(oldest) = state.executed.pop_front()
        {
            state.known.remove(&oldest);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_executed {
            self.once.state.lock().known.remove(&self.op);
        }
        self.once.ended.notify_waiters();
    }
}
