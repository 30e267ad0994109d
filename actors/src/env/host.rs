//! The real world: an actix system with arbiters for actors, and a tokio runtime for I/O, all on threads of their own.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_rt::{Arbiter, System};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use super::seat::{Place, Seat};
use crate::panics;

/// How long `stop` waits for each thread.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The size of a host environment.
#[derive(Debug, Clone, Copy)]
pub struct HostConfig {
    /// Threads for the kernel's actors. At least one.
    pub kernel_threads: usize,
    /// Threads for users' services and drivers; started when first used. At least one.
    pub user_threads: usize,
    /// Worker threads of the I/O runtime. At least one.
    pub io_threads: usize,
    /// Most threads that the I/O runtime starts for blocking calls of libraries. At least one.
    pub blocking_threads_max: usize,
    /// Leaves panics on these threads to exit reasons and logs, and keeps them from the process's panic hook.
    pub quiet: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            kernel_threads: 1,
            user_threads: 1,
            io_threads: 1,
            blocking_threads_max: 16,
            quiet: false,
        }
    }
}

thread_local! {
    /// The host that this thread belongs to; 0 for none.
    static HOST: Cell<u64> = const { Cell::new(0) };
}

pub(crate) struct Host {
    id: u64,
    quiet: bool,
    system: System,
    system_thread: Mutex<Option<JoinHandle<()>>>,
    seats: Mutex<Seats>,
    arbiters: Mutex<Vec<Running>>,
    io: Mutex<Option<Runtime>>,
    io_handle: Handle,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Seats {
    kernel: Ring,
    users: Ring,
    supervisors: Ring,
}

/// Threads of one kind, handed out in turn and started when first needed.
#[derive(Default)]
struct Ring {
    seats: Vec<Option<Arc<Seat>>>,
    next: usize,
}

/// An arbiter, and the channel that closes when its thread has dropped all its tasks.
struct Running {
    arbiter: Arbiter,
    gone: flume::Receiver<()>,
    place: Place,
    seat: Arc<Seat>,
}

impl Host {
    pub(crate) fn start(config: &HostConfig) -> io::Result<Arc<Self>> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let quiet = config.quiet;
        let io = Builder::new_multi_thread()
            .worker_threads(config.io_threads.max(1))
            .max_blocking_threads(config.blocking_threads_max.max(1))
            .thread_name("nexus-io")
            .on_thread_start(move || enter_thread(id, quiet))
            .enable_all()
            .build()?;
        let (started, system) = mpsc::sync_channel(1);
        let system_thread = thread("nexus-system".into(), move || {
            enter_thread(id, quiet);
            let runner = System::new();
            // Whoever waits for this is gone only if its thread panicked.
            let _ = started.send(System::current());
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actor system ended badly");
            }
        })?;
        let system = system.recv().map_err(|_| io::Error::other("the actor system did not start"))?;
        let ring = |n: usize| Ring { seats: vec![None; n.max(1)], next: 0 };
        let seats = Seats {
            kernel: ring(config.kernel_threads),
            users: ring(config.user_threads),
            supervisors: ring(1),
        };
        Ok(Arc::new(Host {
            id,
            quiet,
            system,
            system_thread: Mutex::new(Some(system_thread)),
            seats: Mutex::new(seats),
            arbiters: Mutex::default(),
            io_handle: io.handle().clone(),
            io: Mutex::new(Some(io)),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Whether panics on its threads are kept from the process's panic hook.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.io_handle.spawn(super::logged(name, future));
    }

    /// A seat of this kind; a lost one is replaced. None once stopped.
    pub(crate) fn seat(&self, place: Place) -> Option<Arc<Seat>> {
        let mut seats = self.seats.lock();
        let ring = match place {
            Place::Own => return self.arbiter(place),
            Place::Kernel => &mut seats.kernel,
            Place::Users => &mut seats.users,
            Place::Supervisors => &mut seats.supervisors,
        };
        let at = ring.next % ring.seats.len();
        ring.next = ring.next.wrapping_add(1);
        match &ring.seats[at] {
            Some(seat) if !seat.is_lost() => Some(seat.clone()),
            _ => {
                let seat = self.arbiter(place)?;
                ring.seats[at] = Some(seat.clone());
                Some(seat)
            }
        }
    }

    /// Starts a thread. An arbiter is born on the system's own thread, which does nothing else.
    fn arbiter(&self, place: Place) -> Option<Arc<Seat>> {
        if self.stopped.load(Ordering::Acquire) {
            return None;
        }
        let (id, quiet) = (self.id, self.quiet);
        let (started, arbiter) = mpsc::sync_channel(1);
        self.system.arbiter().spawn_fn(move || {
            let made = Arbiter::try_new();
            let _ = started.send(made);
        });
        let arbiter = match arbiter.recv() {
            Ok(Ok(arbiter)) => arbiter,
            Ok(Err(error)) => {
                tracing::error!(%error, "no thread for an actor");
                return None;
            }
            Err(_) => return None,
        };
        let (held, gone) = flume::bounded::<()>(0);
        arbiter.spawn_fn(move || {
            enter_thread(id, quiet);
            actix_rt::spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
        });
        let seat = Seat::on_arbiter(place, arbiter.handle());
        let mut arbiters = self.arbiters.lock();
        // Threads that ended by themselves are forgotten, so the list is as long as the threads that run.
        arbiters.retain(|running| !running.gone.is_disconnected());
        arbiters.push(Running { arbiter, gone, place, seat: seat.clone() });
        Some(seat)
    }

    pub(crate) fn stop(self: &Arc<Self>) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        let host = self.clone();
        match thread("nexus-stop".into(), move || host.shut()) {
            Ok(_) if HOST.with(Cell::get) == self.id => {}
            Ok(helper) => {
                let _ = helper.join();
            }
            Err(error) => tracing::error!(%error, "no thread to stop the others with"),
        }
    }

    /// The last handle is gone: stop without waiting, on whatever thread this is.
    pub(crate) fn abandon(self: &Arc<Self>) {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            let host = self.clone();
            if let Err(error) = thread("nexus-stop".into(), move || host.shut()) {
                tracing::error!(%error, "no thread to stop the others with");
            }
        }
    }

    fn shut(&self) {
        let mut arbiters = std::mem::take(&mut *self.arbiters.lock());
        for place in [Place::Supervisors, Place::Kernel, Place::Users, Place::Own] {
            let (now, later) = arbiters.into_iter().partition::<Vec<_>, _>(|running| running.place == place);
            arbiters = later;
            for running in &now {
                running.arbiter.stop();
            }
            for running in now {
                let lost = running.seat.is_lost();
                let grace = if lost { Duration::ZERO } else { STOP_GRACE };
                match running.gone.recv_timeout(grace) {
                    Err(flume::RecvTimeoutError::Timeout) => {
                        tracing::warn!(?place, lost, "a thread is stuck and is left behind");
                    }
                    _ => {
                        let _ = running.arbiter.join();
                    }
                }
            }
        }
        self.system.stop();
        if let Some(thread) = self.system_thread.lock().take() {
            let _ = thread.join();
        }
        let io = self.io.lock().take();
        if let Some(io) = io {
            io.shutdown_timeout(STOP_GRACE);
        }
    }
}

fn enter_thread(host: u64, quiet: bool) {
    HOST.with(|h| h.set(host));
    panics::set_quiet(quiet);
}

/// Starts a thread. Every thread of the kernel that is not an arbiter's or the I/O runtime's is started here.
pub(crate) fn thread(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(run)
}

#[expect(clippy::disallowed_methods, reason = "this is where Env::wall comes from")]
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
