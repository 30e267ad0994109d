//! Where everything that is not a pure function comes from: clock, randomness, tasks, threads, blocking work.
//!
//! There are two: [`Env::host`] is the real world, and [`Env::seeded`] a single-thread simulation that replays a run
//! from its seed. Code that takes all of this from its `Env` runs the same in both.

mod bed;
mod host;
mod parker;
mod pool;
mod random;
mod seat;
mod sim;
mod stopwatch;
mod timers;
mod trace;
mod wait;
mod worker;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

pub use self::host::HostConfig;
pub use self::pool::{Pool, PoolError};
pub use self::seat::Place;
pub use self::sim::{Deadlock, Simulation};
pub use self::stopwatch::Stopwatch;
pub use self::timers::Sleep;
pub use self::trace::{Event, Trace, TraceEntry};
pub use self::wait::block_on;
pub use self::worker::{Closed, Worker, WorkerBounds};

use self::host::Host;
use self::random::Random;
pub use self::random::Secret;
pub(crate) use self::seat::{Seat, Tenant};
use self::sim::SimShared;
pub(crate) use self::timers::TimerKey;
use self::timers::{Timers, Within};
use crate::panics;

/// The one door to clock, randomness, tasks, threads and blocking work. Cloning is cheap.
///
/// A host `Env` keeps its threads until [`stop`](Env::stop); actors and tasks hold clones of it, so dropping one's own
/// does not end it.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

struct Inner {
    timers: Arc<Timers>,
    random: Random,
    kind: Kind,
}

enum Kind {
    Host(Arc<Host>),
    Sim(Arc<SimShared>),
}

/// The time was up before the future ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time was up")]
pub struct Elapsed;

impl Env {
    /// The real world, on threads of its own: nothing of the caller's runtime is used, so it works the same under
    /// any executor and under none. Blocks for the start of two threads.
    pub fn host(config: HostConfig) -> io::Result<Env> {
        panics::install_hook();
        let host = Host::start(&config)?;
        let timers = Timers::real();
        let ticking = timers.clone();
        host::thread("nexus-timers".into(), move || ticking.run())?;
        Ok(Env(Arc::new(Inner { timers, random: Random::from_system(), kind: Kind::Host(host) })))
    }

    /// A simulation on the calling thread: which task runs next is drawn from `seed`, and time is virtual and jumps
    /// to the next timer when nothing can run. Two runs of one seed are the same run.
    pub fn seeded(seed: u64) -> (Env, Simulation) {
        panics::install_hook();
        let timers = Timers::simulated();
        let sim = SimShared::new(seed, timers.clone());
        let env = Env(Arc::new(Inner { timers, random: Random::seeded(seed), kind: Kind::Sim(sim.clone()) }));
        (env, Simulation::new(sim))
    }

    /// The monotonic clock.
    pub fn now(&self) -> Instant {
        self.0.timers.now()
    }

    /// Counts the time from now on.
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch::start(&self.0.timers)
    }

    /// Nanoseconds since the Unix epoch. It can jump when the machine's clock is set; measure with
    /// [`now`](Env::now).
    pub fn wall(&self) -> u64 {
        match &self.0.kind {
            Kind::Host(_) => host::wall(),
            Kind::Sim(sim) => sim.wall(),
        }
    }

    /// A random number. Not a secret: whoever sees some of them can tell the next.
    pub fn random(&self) -> u64 {
        self.0.random.next()
    }

    /// A secret of its own, for what nobody may guess: identities by which something is released, say.
    pub fn secret(&self) -> Secret {
        match &self.0.kind {
            Kind::Host(_) => Secret::from_system(),
            Kind::Sim(_) => Secret::seeded(self.random()),
        }
    }

    /// Ends after `duration`; never for one that is too long to be counted. Can be polled by any executor.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(self.0.timers.clone(), self.now().checked_add(duration))
    }

    /// Drives `future` for at most `duration`, then drops it. Can be polled by any executor.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        let (mut future, mut within) = (pin!(future), None);
        let first_of_both = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(Ok(out)),
            // Most of what is waited for is there at once: then nobody looks at the clock.
            Poll::Pending => {
                let within = within.get_or_insert_with(|| Within::new(&self.0.timers, duration));
                within.poll(cx).map(|()| Err(Elapsed))
            }
        });
        first_of_both.await
    }

    /// Runs `future` as a task of the kernel's I/O runtime, where tokio's own I/O works. A panic in it is logged with
    /// its place and ends that task alone. After [`stop`](Env::stop) it is dropped.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        match &self.0.kind {
            Kind::Host(host) => host.spawn(name, future),
            Kind::Sim(sim) => sim.spawn(name.into(), Box::new(move || future.boxed_local())),
        }
    }

    /// Runs `future` as [`spawn`](Env::spawn) does, and gives what it comes to. It goes on when this is dropped, and when nobody polls this any more: so nobody is held up
    /// by a caller who has begun what others wait for. None when it panicked, and after [`stop`](Env::stop).
    pub async fn apart<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, over) = oneshot::channel();
        self.spawn(name, async move {
            // Who asked may be gone.
            let _ = done.send(future.await);
        });
        over.await.ok()
    }

    /// Runs a task that need not be `Send` on a thread of this kind. `make` is called there. After
    /// [`stop`](Env::stop) it is dropped.
    pub fn spawn_at<F>(&self, place: Place, name: &'static str, make: F)
    where
        F: FnOnce() -> LocalBoxFuture<'static, ()> + Send + 'static,
    {
        if let Some(seat) = self.seat(place) {
            let leaving = seat.clone();
            seat.spawn(name.into(), move || {
                async move {
                    logged(name, async move { make().await }).await;
                    leaving.vacated();
                }
                .boxed_local()
            });
        }
    }

    /// A bounded pool for calls that block: at most `threads_max` threads, started as needed and ended when idle,
    /// and at most `queue_max` jobs waiting for one.
    pub fn pool(&self, name: &'static str, threads_max: usize, queue_max: usize) -> Pool {
        Pool::new(self.clone(), name, threads_max, queue_max)
    }

    /// One thread that is handed, in one call, all that waits (up to `bounds.batch`). A panic in `work` ends it; see
    /// [`Worker::ended`].
    pub fn worker<J: Send + 'static>(
        &self,
        name: &'static str,
        bounds: WorkerBounds,
        work: impl FnMut(Vec<J>) + Send + 'static,
    ) -> io::Result<Worker<J>> {
        Worker::start(self, name, bounds, work)
    }

    /// Drives `future` on the calling thread, without a runtime; a simulation runs all its tasks meanwhile. Blocks.
    pub fn blocking_wait<F: Future>(&self, future: F) -> F::Output {
        match &self.0.kind {
            Kind::Host(_) => block_on(future),
            Kind::Sim(sim) => sim::drive(sim, future),
        }
    }

    /// Ends all threads of this environment, in order: supervisors, kernel, users, I/O. Actors that still run are
    /// dropped on their threads. A thread that does not end within two seconds is left behind with a warning.
    ///
    /// Waits for the end, except on one of these threads, where the end follows in the background. May be repeated.
    /// Timers go on until the last `Env` is gone.
    pub fn stop(&self) {
        if let Kind::Host(host) = &self.0.kind {
            host.stop();
        }
    }

    /// Whether this is a simulation.
    pub fn is_simulated(&self) -> bool {
        matches!(self.0.kind, Kind::Sim(_))
    }

    /// Writes an event into the simulation's trace; costs one branch on a host.
    pub fn note<T: Into<Cow<'static, str>>>(&self, who: &Arc<str>, what: impl FnOnce() -> T) {
        if let Kind::Sim(sim) = &self.0.kind {
            sim.note(who, what().into());
        }
    }

    /// A thread for an actor. None once stopped.
    pub(crate) fn seat(&self, place: Place) -> Option<Arc<Seat>> {
        match &self.0.kind {
            Kind::Host(host) => host.seat(place),
            Kind::Sim(sim) => Some(Seat::simulated(sim.clone())),
        }
    }

    pub(crate) fn wake_at(&self, at: Instant, waker: Waker) -> Option<TimerKey> {
        self.0.timers.insert(at, waker)
    }

    pub(crate) fn cancel_wake(&self, key: TimerKey) {
        self.0.timers.remove(key);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.timers.close();
        if let Kind::Host(host) = &self.kind {
            host.abandon();
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind {
            Kind::Host(_) => "Env(host)",
            Kind::Sim(_) => "Env(simulation)",
        })
    }
}

/// Awaits `future`; a panic in it is logged.
async fn logged(name: &'static str, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let ended = poll_fn(|cx| match panics::guard(|| future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
    });
    if let Err(panicked) = ended.await {
        tracing::error!(task = name, %panicked, "a task panicked");
    }
}

impl crate::slot::Timer for Env {
    fn now(&self) -> Instant {
        Env::now(self)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        Env::sleep(self, duration)
    }
}
