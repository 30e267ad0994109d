//! Messages that were read, and whose readers have not heard of them yet: what one that goes away by then had is there for others.
//!
//! A ring in memory knows the place of what comes back by itself. Of a pipe in memory that processes share, this process keeps what comes back while other
//! messages of it are away, so that they are in their order when they are written before all others; and as long as there is no room for them. Readers of this
//! process find them before all others meanwhile, and others may read on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use nexus_actors::{Env, SharedPipe, SharedTrouble};
use parking_lot::Mutex;

use super::pipe::Pipe;

/// A message that was read, for who may put it back.
#[derive(Debug)]
pub(super) enum Taken {
    Memory(nexus_actors::Taken<Bytes>),
    /// With its number among those that this process took.
    Shared(u64, Bytes),
}

impl Taken {
    pub(super) fn message(&self) -> &Bytes {
        match self {
            Self::Memory(taken) => &taken.message,
            Self::Shared(_, message) => message,
        }
    }
}

/// A message that was read and not handed over yet: it goes back, before all others, when this is dropped before it is [kept](Self::keep).
pub struct GivenMessage {
    env: Env,
    pipe: Arc<Pipe>,
    taken: Option<Taken>,
    /// Whether it is among those that are waited for with what came back.
    is_away: bool,
}

impl GivenMessage {
    pub(super) fn new(env: &Env, pipe: &Arc<Pipe>, taken: Taken) -> Self {
        Self { env: env.clone(), pipe: pipe.clone(), taken: Some(taken), is_away: true }
    }

    /// The message.
    pub fn message(&self) -> Bytes {
        self.taken.as_ref().map(|taken| taken.message().clone()).unwrap_or_default()
    }

    /// When it was taken, among those from its pipe that have to go back in this order: the last first. All others find their places by themselves.
    pub fn turn(&self) -> u64 {
        match &self.taken {
            Some(Taken::Shared(number, _)) => *number,
            _ => 0,
        }
    }

    /// It is handed over.
    pub fn keep(mut self) {
        self.taken = None;
    }

    /// It is on its way to who asked for it, and nobody waits any longer whether it comes back. It may all the same.
    pub fn is_sent(&mut self) {
        if std::mem::take(&mut self.is_away) {
            self.pipe.is_settled(&self.env);
        }
    }
}

impl Drop for GivenMessage {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.pipe.put_back(taken);
        }
        if self.is_away {
            self.pipe.is_settled(&self.env);
        } else {
            self.pipe.carry_back(&self.env);
        }
    }
}

impl fmt::Debug for GivenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenMessage").field("taken", &self.taken).finish_non_exhaustive()
    }
}

/// What readers of this process took from a pipe in shared memory, and what of it came back.
#[derive(Default)]
pub(super) struct Away {
    /// How many have come back. Changed under the lock.
    came_back: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// How many may still come back, and are waited for.
    away: usize,
    /// By their numbers.
    back: BTreeMap<u64, Bytes>,
    /// Whether somebody waits for room for them.
    is_carried: bool,
}

impl Away {
    /// Whether nothing came back: one load.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.came_back.load(Ordering::Acquire) == 0
    }

    /// How many came back, and how many bytes they have.
    pub(super) fn held(&self) -> (usize, usize) {
        if self.is_empty() {
            return (0, 0);
        }
        let state = self.state.lock();
        (state.back.len(), state.back.values().map(Bytes::len).sum())
    }

    /// The next message, for good.
    pub(super) fn pop(&self, pipe: &SharedPipe) -> Result<Option<Bytes>, SharedTrouble> {
        if !self.is_empty()
            && let Some((_, message)) = self.pop_back()
        {
            return Ok(Some(message));
        }
        pipe.try_pop()
    }

    fn pop_back(&self) -> Option<(u64, Bytes)> {
        let mut state = self.state.lock();
        let first = state.back.pop_first();
        self.count(&state);
        first
    }

    /// The next message, which may come back. It is waited for with what came back, until it is [settled](Self::settled).
    pub(super) fn take(&self, pipe: &SharedPipe) -> Result<Option<Taken>, SharedTrouble> {
        // Under the lock, so that the numbers are in the order of the messages.
        let mut state = self.state.lock();
        let taken = match state.back.pop_first() {
            Some((number, message)) => Some((number, message)),
            None => pipe.try_pop()?.map(|message| {
                state.next += 1;
                (state.next, message)
            }),
        };
        state.away += usize::from(taken.is_some());
        self.count(&state);
        Ok(taken.map(|(number, message)| Taken::Shared(number, message)))
    }

    pub(super) fn put_back(&self, number: u64, message: Bytes) {
        let mut state = self.state.lock();
        state.back.insert(number, message);
        self.count(&state);
    }

    /// One that was waited for is so no longer.
    pub(super) fn settled(&self) {
        self.state.lock().away -= 1;
    }

    /// Writes what came back before all others, as far as there is room and nothing else is waited for. Says whether to come again when there is room: to the first who
    /// is told so, until nothing is left to be carried.
    pub(super) fn carry(&self, pipe: &SharedPipe, is_carrier: bool) -> bool {
        if self.is_empty() && !is_carrier {
            return false;
        }
        let mut state = self.state.lock();
        while state.away == 0
            && let Some((number, message)) = state.back.pop_last()
        {
            // What it cannot be written into now, it is with the next look.
            if !matches!(pipe.try_put_back(&message), Ok(true)) {
                state.back.insert(number, message);
                break;
            }
        }
        self.count(&state);
        let is_left = state.away == 0 && !state.back.is_empty();
        let comes_again = is_left && (is_carrier || !state.is_carried);
        state.is_carried = is_left;
        comes_again
    }

    /// Lets go of what came back.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        let back = std::mem::take(&mut state.back);
        self.count(&state);
        drop(state);
        drop(back);
    }

    fn count(&self, state: &State) {
        self.came_back.store(state.back.len(), Ordering::Release);
    }
}
