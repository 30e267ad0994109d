//! The kernel's own timers: one ordered table of wakers, driven by a thread or by the simulation.
//!
//! A runtime's timers can be polled only near that runtime. These can be polled by any executor, since all they do
//! is wake a waker.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::panics;

/// Names one entry of the table.
pub(crate) type TimerKey = (Instant, u64);

/// The table of timers, and the clock they go by.
pub(crate) struct Timers {
    state: Mutex<State>,
    earlier: Condvar,
    clock: Clock,
}

struct State {
    due: BTreeMap<TimerKey, Waker>,
    next: u64,
    closed: bool,
    thread: Thread,
}

/// What the thread that fires timers does.
#[derive(Clone, Copy)]
enum Thread {
    /// It looks at the table before it sleeps.
    Awake,
    SleepsUntil(Instant),
    /// Until it is woken.
    Sleeps,
}

enum Clock {
    Real,
    /// Nanoseconds since `base`; only the simulation moves it.
    Virtual {
        base: Instant,
        elapsed: AtomicU64,
    },
}

impl Timers {
    pub(crate) fn real() -> Arc<Self> {
        Self::with(Clock::Real)
    }

    pub(crate) fn simulated() -> Arc<Self> {
        Self::with(Clock::Virtual { base: real_now(), elapsed: AtomicU64::new(0) })
    }

    fn with(clock: Clock) -> Arc<Self> {
        let state = State { due: BTreeMap::new(), next: 0, closed: false, thread: Thread::Awake };
        Arc::new(Timers { state: Mutex::new(state), earlier: Condvar::new(), clock })
    }

    pub(crate) fn now(&self) -> Instant {
        match &self.clock {
            Clock::Real => real_now(),
            // Relaxed: the one thread that moves the clock is the one that reads it.
            Clock::Virtual { base, elapsed } => *base + Duration::from_nanos(elapsed.load(Ordering::Relaxed)),
        }
    }

    /// Whether the time that passes here is everybody's.
    pub(super) fn is_real(&self) -> bool {
        matches!(self.clock, Clock::Real)
    }

    /// Wakes `waker` at `at`, unless it is removed before. None once the table is closed.
    pub(crate) fn insert(&self, at: Instant, waker: Waker) -> Option<TimerKey> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.next += 1;
        let key = (at, state.next);
        // Most timers are deadlines that are taken away again long before. Whoever came first may be gone, and the thread still wakes for it: only who is earlier wakes it.
        let is_earlier = match state.thread {
            Thread::Awake => false,
            Thread::SleepsUntil(wakes) => at < wakes,
            Thread::Sleeps => true,
        };
        state.due.insert(key, waker);
        drop(state);
        if is_earlier {
            self.earlier.notify_one();
        }
        Some(key)
    }

    /// Gives a waiting entry another waker. False when it has fired.
    fn rewake(&self, key: TimerKey, waker: &Waker) -> bool {
        match self.state.lock().due.get_mut(&key) {
            Some(old) => {
                old.clone_from(waker);
                true
            }
            None => false,
        }
    }

    pub(crate) fn remove(&self, key: TimerKey) {
        let removed = self.state.lock().due.remove(&key);
        drop(removed);
    }

    /// Wakes everybody and takes no more entries.
    pub(crate) fn close(&self) {
        let due = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.due)
        };
        self.earlier.notify_one();
        due.into_values().for_each(Waker::wake);
    }

    /// Fires timers on the calling thread until the table is closed.
    pub(crate) fn run(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let Some((&(at, _), _)) = state.due.first_key_value() else {
                state.thread = Thread::Sleeps;
                self.earlier.wait(&mut state);
                state.thread = Thread::Awake;
                continue;
            };
            if at > self.now() {
                state.thread = Thread::SleepsUntil(at);
                self.earlier.wait_until(&mut state, at);
                state.thread = Thread::Awake;
                continue;
            }
            if let Some((_, waker)) = state.due.pop_first() {
                drop(state);
                // The waker belongs to somebody else's executor.
                let _ = panics::guard(|| waker.wake());
                state = self.state.lock();
            }
        }
    }

    /// Simulation: moves the clock to the next timer and fires it. False when there is none.
    pub(crate) fn advance(&self) -> bool {
        let Some(((at, _), waker)) = self.state.lock().due.pop_first() else { return false };
        if let Clock::Virtual { base, elapsed } = &self.clock {
            let to = u64::try_from(at.saturating_duration_since(*base).as_nanos()).unwrap_or(u64::MAX);
            elapsed.fetch_max(to, Ordering::Relaxed);
        }
        // Whoever is woken may drop a message, whose destructor is somebody's code.
        let _ = panics::guard(|| waker.wake());
        true
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where Env::now comes from")]
fn real_now() -> Instant {
    Instant::now()
}

/// Ends at its time. Can be polled by any executor; dropping it takes the timer away.
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep {
    timers: Arc<Timers>,
    /// None: never.
    at: Option<Instant>,
    key: Option<TimerKey>,
}

impl Sleep {
    pub(crate) fn new(timers: Arc<Timers>, at: Option<Instant>) -> Self {
        Sleep { timers, at, key: None }
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleep").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if let Some(key) = self.key {
            // An entry that has gone has fired: its time has come.
            if self.timers.rewake(key, cx.waker()) {
                return Poll::Pending;
            }
            self.key = None;
            return Poll::Ready(());
        }
        if self.timers.now() >= at {
            return Poll::Ready(());
        }
        match self.timers.insert(at, cx.waker().clone()) {
            Some(key) => {
                self.key = Some(key);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.remove(key);
        }
    }
}
