//! The kernel's own timers: one ordered table of wakers, driven by a thread or by the simulation.
//!
//! A runtime's timers can be polled only near that runtime. These can be polled by any executor, since all they do
//! is wake a waker. Who waits on a thread of its own needs no other to wake it in time: the first timer of a future that is
//! [driven on a thread](super::block_on) is that thread's own alarm, and nobody else is told of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::parker::Parker;
use crate::panics;

/// Names one entry of the table.
pub(crate) type TimerKey = (Instant, u64);

/// The table of timers, and the clock they go by.
pub(crate) struct Timers {
    state: Mutex<State>,
    earlier: Condvar,
    clock: Clock,
    /// A number of its own, above 0.
    number: u64,
    /// Set before those with an alarm are woken for it.
    closed: AtomicBool,
    /// Threads that had an alarm by this clock.
    alarms: Mutex<Vec<Weak<Parker>>>,
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

/// The number of the next table.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

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
        Arc::new(Timers {
            state: Mutex::new(state),
            earlier: Condvar::new(),
            clock,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            closed: AtomicBool::new(false),
            alarms: Mutex::default(),
        })
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
        // SeqCst: who set an alarm looks whether this is so, and is woken here if it came before.
        self.closed.store(true, Ordering::SeqCst);
        let alarms = std::mem::take(&mut *self.alarms.lock());
        alarms.iter().filter_map(Weak::upgrade).for_each(|parker| parker.rouse());
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Sets the alarm of the thread that drives the future with this waker; none when there is no such thread, or its alarm is another's.
    fn set_alarm(&self, at: Instant, waker: &Waker) -> Option<Arc<Parker>> {
        if !self.is_real() {
            return None;
        }
        let parker = Parker::driven_by(waker)?;
        if !parker.set_alarm(at) {
            return None;
        }
        // Relaxed: the thread's own.
        if parker.known_to.load(Ordering::Relaxed) != self.number {
            let mut alarms = self.alarms.lock();
            alarms.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(&parker));
            alarms.push(Arc::downgrade(&parker));
            parker.known_to.store(self.number, Ordering::Relaxed);
        }
        Some(parker)
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
pub(super) fn real_now() -> Instant {
    Instant::now()
}

/// A timer and who is to fire it.
#[derive(Default)]
pub(super) enum Armed {
    /// It was not waited for yet.
    #[default]
    Not,
    /// The table.
    Table(TimerKey),
    /// The thread on which is waited, by its alarm.
    Thread(Arc<Parker>),
}

impl Armed {
    /// Ready once it is `at`, or the table is closed; before that the waker is woken then. Never without a time.
    pub(super) fn poll(&mut self, timers: &Timers, at: Option<Instant>, cx: &Context<'_>) -> Poll<()> {
        let Some(at) = at else { return Poll::Pending };
        match self {
            Self::Thread(parker) if parker.is_of(cx.waker()) => {
                if !parker.has_rung() && !timers.is_closed() {
                    return Poll::Pending;
                }
                self.disarm(timers);
                return Poll::Ready(());
            }
            // It is waited for elsewhere now.
            Self::Thread(_) => self.disarm(timers),
            Self::Table(key) => {
                // An entry that has gone has fired: its time has come.
                if timers.rewake(*key, cx.waker()) {
                    return Poll::Pending;
                }
                *self = Self::Not;
                return Poll::Ready(());
            }
            Self::Not => {}
        }
        if timers.now() >= at {
            return Poll::Ready(());
        }
        if let Some(parker) = timers.set_alarm(at, cx.waker()) {
            *self = Self::Thread(parker);
            if !timers.is_closed() {
                return Poll::Pending;
            }
            self.disarm(timers);
            return Poll::Ready(());
        }
        let Some(key) = timers.insert(at, cx.waker().clone()) else { return Poll::Ready(()) };
        *self = Self::Table(key);
        Poll::Pending
    }

    /// Nobody is woken for it from now on.
    pub(super) fn disarm(&mut self, timers: &Timers) {
        match std::mem::take(self) {
            Self::Not => {}
            Self::Table(key) => timers.remove(key),
            Self::Thread(parker) => parker.clear_alarm(),
        }
    }
}

/// Ends at its time. Can be polled by any executor; dropping it takes the timer away.
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep {
    timers: Arc<Timers>,
    /// None: never.
    at: Option<Instant>,
    armed: Armed,
}

impl Sleep {
    pub(crate) fn new(timers: Arc<Timers>, at: Option<Instant>) -> Self {
        Sleep { timers, at, armed: Armed::Not }
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleep").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { timers, at, armed } = self.get_mut();
        armed.poll(timers, *at, cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.armed.disarm(&self.timers);
    }
}

/// A timer of whoever has the table at hand, and waits no longer than that.
pub(super) struct Within<'t> {
    timers: &'t Timers,
    at: Option<Instant>,
    armed: Armed,
}

impl<'t> Within<'t> {
    pub(super) fn new(timers: &'t Timers, duration: Duration) -> Self {
        Self { timers, at: timers.now().checked_add(duration), armed: Armed::Not }
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.armed.poll(self.timers, self.at, cx)
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        self.armed.disarm(self.timers);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::thread;

    use super::super::block_on;
    use super::*;

    const LONG: Duration = Duration::from_hours(1);
    const SHORT: Duration = Duration::from_millis(30);

    fn after(timers: &Arc<Timers>, duration: Duration) -> Sleep {
        Sleep::new(timers.clone(), timers.now().checked_add(duration))
    }

    fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        thread::Builder::new().spawn(work).expect("a thread can be started")
    }

    fn in_table(timers: &Timers) -> usize {
        timers.state.lock().due.len()
    }

    fn pending(sleep: &mut Sleep) -> impl Future<Output = bool> {
        poll_fn(move |cx| Poll::Ready(Pin::new(&mut *sleep).poll(cx).is_pending()))
    }

    #[test]
    fn a_thread_that_waits_is_its_own_alarm() {
        // Nobody drives the table.
        let timers = Timers::real();
        let began = real_now();
        block_on(after(&timers, SHORT));
        assert!(real_now() - began >= SHORT);
        assert_eq!(in_table(&timers), 0);
    }

    #[test]
    fn the_second_timer_of_a_thread_is_in_the_table_and_the_next_one_its_alarm_again() {
        let timers = Timers::real();
        let (mut first, mut second) = (after(&timers, LONG), after(&timers, LONG));
        assert!(block_on(async { pending(&mut first).await && pending(&mut second).await }));
        assert_eq!(in_table(&timers), 1, "one of them");
        drop(first);
        drop(second);
        assert_eq!(in_table(&timers), 0);
        block_on(after(&timers, SHORT));
    }

    #[test]
    fn one_that_is_waited_for_elsewhere_moves_there() {
        let timers = Timers::real();
        let mut sleep = after(&timers, SHORT);
        assert!(block_on(pending(&mut sleep)));
        assert_eq!(in_table(&timers), 0);
        let mut elsewhere = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut sleep).poll(&mut elsewhere).is_pending());
        assert_eq!(in_table(&timers), 1);
        // And back, by another thread.
        let sleep = aside(move || block_on(sleep));
        let ticking = aside({
            let timers = timers.clone();
            move || timers.run()
        });
        sleep.join().expect("it ends");
        timers.close();
        ticking.join().expect("it ends");
    }

    #[test]
    fn an_alarm_that_rings_for_one_does_not_ring_for_the_next() {
        let timers = Timers::real();
        let mut first = after(&timers, SHORT);
        block_on(async {
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                // Woken by the alarm, and not asked about it.
                if polls == 1 { Pin::new(&mut first).poll(cx) } else { Poll::Ready(()) }
            })
            .await;
            assert_eq!(polls, 2);
            drop(first);
            let (began, second) = (real_now(), after(&timers, SHORT));
            pin!(second).await;
            assert!(real_now() - began >= SHORT);
        });
        assert_eq!(in_table(&timers), 0);
    }

    #[test]
    fn a_table_that_is_closed_ends_what_threads_wait_for() {
        let timers = Timers::real();
        let (told, waits) = mpsc::channel();
        let waiting = aside({
            let timers = timers.clone();
            move || {
                let mut sleep = after(&timers, LONG);
                assert!(block_on(pending(&mut sleep)));
                told.send(()).expect("it is heard");
                block_on(sleep);
            }
        });
        waits.recv().expect("it waits");
        timers.close();
        waiting.join().expect("it ends");
        block_on(after(&timers, LONG));
    }
}
