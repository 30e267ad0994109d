//! Writes with an identity: each is executed once, as long as it is among the last of its pipe.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nexus_messages::OpId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// How many writes of a pipe are remembered by their identities. All writes of those who are attached have one.
pub const OPS_KEPT: usize = 4_096;

/// As many are remembered of a pipe whatever others are.
const OPS_KEPT_MIN: usize = 128;

/// How many may be remembered of all pipes, but for those.
const OPS_KEPT_ALL: usize = 1 << 20;

/// How many writes are remembered, of all pipes.
pub(super) type Remembered = Arc<AtomicUsize>;

/// The writes of one pipe that have an identity.
pub(super) struct Once {
    state: Mutex<State>,
    all: Remembered,
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
    pub(super) fn new(all: Remembered) -> Self {
        Self { state: Mutex::default(), all, ended: Notify::new() }
    }

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

impl Once {
    /// How many bytes the write of this identity has written, if it was executed; none while one is under way.
    pub(super) fn executed(&self, op: OpId) -> Option<Option<u64>> {
        match self.state.lock().known.get(&op) {
            Some(Some(length)) => Some(Some(*length)),
            Some(None) => None,
            None => Some(None),
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
        // A number of its own, which orders nothing.
        let mut all = self.once.all.fetch_add(1, Ordering::Relaxed) + 1;
        while state.executed.len() > if all > OPS_KEPT_ALL { OPS_KEPT_MIN } else { OPS_KEPT }
            && let Some(oldest) = state.executed.pop_front()
        {
            state.known.remove(&oldest);
            all = self.once.all.fetch_sub(1, Ordering::Relaxed) - 1;
        }
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.all.fetch_sub(self.state.get_mut().executed.len(), Ordering::Relaxed);
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

#[cfg(test)]
#[cfg(not(nexus_loom))]
mod tests {
    use super::*;

    fn write(once: &Once, op: usize) {
        let Begun::First(writing) = once.begin(OpId(op as u128)) else { panic!("{op} is known") };
        writing.executed(7);
    }

    fn is_known(once: &Once, op: usize) -> bool {
        matches!(once.begin(OpId(op as u128)), Begun::Before(7))
    }

    #[test]
    fn so_many_are_remembered_and_fewer_when_there_are_many_of_all_pipes() {
        let all = Remembered::default();
        let once = Once::new(all.clone());
        (0..OPS_KEPT).for_each(|op| write(&once, op));
        assert!(is_known(&once, 0));
        write(&once, OPS_KEPT);
        assert!(!is_known(&once, 0) && is_known(&once, 1));
        assert_eq!(all.load(Ordering::Relaxed), OPS_KEPT);
        // Others have more than may be.
        all.fetch_add(OPS_KEPT_ALL + OPS_KEPT, Ordering::Relaxed);
        write(&once, OPS_KEPT + 1);
        assert!(
            !is_known(&once, OPS_KEPT + 1 - OPS_KEPT_MIN) && is_known(&once, OPS_KEPT + 2 - OPS_KEPT_MIN)
        );
        drop(once);
        assert_eq!(all.load(Ordering::Relaxed), OPS_KEPT_ALL + OPS_KEPT);
    }
}
