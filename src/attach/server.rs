//! The socket's server: takes clients, and ends with the kernel.
//!
//! Owns:       the socket in the data folder, and one task for each client.
//! Asks:       the kernel, on the client's task.
//! On restart: ends and begins with the kernel. An error while taking a client concerns that client alone.
//! Bounds:     [`Serving::connections_max`] clients, [`Serving::in_flight_max`] calls of each; see `session.rs`.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::{Env, Latch};
use nexus_kernel::Kernel;
use nexus_messages::Caller;
use parking_lot::Mutex;
use serde::Serialize;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::pin;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::grant::Serving;
use super::message::{Refusal, Refused};
use super::session::{DRAIN_MAX, Session};
use super::socket::Bound;
use super::wire::{Kind, Outbox, SLICES_MAX};

/// How long to wait before the next client is taken when taking one failed: most likely there are too many open files.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The user that may attach to any kernel.
const ROOT: u32 = 0;

/// A socket that is served.
pub(crate) struct Server {
    shared: Arc<Shared>,
    bound: Mutex<Option<Bound>>,
}

/// What all clients' tasks share.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) kernel: Arc<Kernel>,
    pub(super) granted: Arc<Caller>,
    pub(super) in_flight_max: u32,
    /// Set when the kernel ends.
    pub(super) ending: Latch<()>,
    pub(super) counts: Counts,
    /// One for each client that may be there.
    places: Arc<Semaphore>,
    places_max: u32,
    /// Told when a client has gone.
    left: Arc<Notify>,
    /// Whether the kernel ends with its last client.
    while_used: AtomicBool,
    /// Whether nobody is taken any more because nobody was there. Held while one is taken, so that none is there when it is set.
    is_over: Mutex<bool>,
}

/// The place of a client.
#[derive(Debug)]
pub(super) struct Place {
    // Given back before that is told.
    _permit: OwnedSemaphorePermit,
    _left: Left,
}

/// Tells, when it is dropped, that a client has gone.
#[derive(Debug)]
struct Left(Arc<Notify>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// What was counted since the socket is served.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: AtomicUsize,
    pub(super) served: AtomicU64,
    pub(super) crashed: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// How a socket is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServingStats {
    /// Clients that are there.
    pub connections: usize,
    /// Their calls that are under way.
    pub calls: usize,
    /// Calls that were begun since the socket is served.
    pub served: u64,
    /// Clients that were taken.
    pub accepted: u64,
    /// Clients that were not: of another user, or too many.
    pub refused: u64,
    /// Clients that were lost to a defect of the server.
    pub crashed: u64,
}

impl Server {
    /// Makes the socket in `folder`, and serves it as a task of the kernel's own. Blocks on disk.
    pub(crate) fn start(
        env: &Env,
        kernel: &Arc<Kernel>,
        folder: &Path,
        serving: &Serving,
        granted: Caller,
    ) -> io::Result<Self> {
        let places_max = u32::try_from(serving.connections_max).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            env: env.clone(),
            kernel: kernel.clone(),
            granted: Arc::new(granted),
            in_flight_max: serving.in_flight_max,
            ending: Latch::new(),
            counts: Counts::default(),
            places: Arc::new(Semaphore::new(places_max as usize)),
            places_max,
            left: Arc::default(),
            while_used: AtomicBool::new(false),
            is_over: Mutex::new(false),
        });
        let (bound, listener) = Bound::new(folder)?;
        env.spawn("serve", accept(shared.clone(), listener, bound.user));
        Ok(Self { shared, bound: Mutex::new(Some(bound)) })
    }

    /// Takes no client any more, lets the calls that have begun end within a limit, and tells all clients. May be repeated.
    pub(crate) async fn stop(&self) {
        drop(self.bound.lock().take());
        self.shared.ending.set(());
        let all_gone = self.shared.places.acquire_many(self.shared.places_max);
        if self.shared.env.timeout(2 * DRAIN_MAX, all_gone).await.is_err() {
            tracing::warn!("clients are left behind");
        }
    }

    /// Waits until nobody is there: until the last has gone, or when nobody comes within `first`. From then on nobody is taken.
    pub(crate) async fn unused(&self, first: Duration) {
        let shared = &self.shared;
        shared.while_used.store(true, Ordering::Relaxed);
        if shared.counts.accepted.load(Ordering::Relaxed) == 0 {
            // Who comes and goes meanwhile is told of.
            let _ = shared.env.timeout(first, shared.left.notified()).await;
        }
        while !shared.close_unused() {
            shared.left.notified().await;
        }
    }

    pub(crate) fn stats(&self) -> ServingStats {
        let counts = &self.shared.counts;
        ServingStats {
            connections: self.shared.clients(),
            calls: counts.calls.load(Ordering::Relaxed),
            served: counts.served.load(Ordering::Relaxed),
            accepted: counts.accepted.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            crashed: counts.crashed.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// How many clients are there.
    fn clients(&self) -> usize {
        self.places_max as usize - self.places.available_permits()
    }

    /// Whether the kernel ends with the one client that is there.
    pub(super) fn ends_with_one(&self) -> bool {
        self.while_used.load(Ordering::Relaxed) && self.clients() == 1
    }

    /// Takes nobody any more, if nobody is there; whether that is so.
    fn close_unused(&self) -> bool {
        let mut is_over = self.is_over.lock();
        *is_over = self.clients() == 0;
        *is_over
    }

    /// A place for a client.
    fn place(&self) -> Result<Place, Refused> {
        let is_over = self.is_over.lock();
        if *is_over {
            return Err(Refused::new(Refusal::Ending, "it was for those who were there"));
        }
        match self.places.clone().try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit, _left: Left(self.left.clone()) }),
            Err(_) => {
                Err(Refused::new(Refusal::Full, format!("{} clients are there already", self.places_max)))
            }
        }
    }
}

/// Takes clients until the kernel ends.
async fn accept(shared: Arc<Shared>, listener: StdListener, user: u32) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the socket cannot be served"),
    };
    let mut ending = pin!(shared.ending.wait());
    loop {
        let taken = match select(&mut ending, pin!(listener.accept())).await {
            Either::Left(_) => return,
            Either::Right((taken, _)) => taken,
        };
        match taken {
            Ok((stream, _)) => admit(&shared, stream, user),
            Err(error) => {
                tracing::warn!(%error, "a client could not be taken");
                shared.env.sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Gives a client a task of its own, unless it is of another user or there are too many.
fn admit(shared: &Arc<Shared>, stream: UnixStream, user: u32) {
    let refused = match stream.peer_cred() {
        Ok(peer) if peer.uid() != user && peer.uid() != ROOT => {
            let why = format!("user {} does not own the kernel, user {user} does", peer.uid());
            Refused::new(Refusal::User, why)
        }
        Err(error) => Refused::new(Refusal::User, format!("whose it is cannot be told: {error}")),
        Ok(_) => match shared.place() {
            Ok(place) => {
                shared.counts.accepted.fetch_add(1, Ordering::Relaxed);
                let session = Session::new(shared.clone(), stream, place);
                return shared.env.spawn("attached", session);
            }
            Err(refused) => refused,
        },
    };
    shared.counts.refused.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(why = refused.text, "a client was refused");
    let mut out = Outbox::default();
    out.push_frame(Kind::Refused, 0, &refused.write());
    let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
    let filled = out.slices(&mut slices);
    // Nothing was sent to it before, so there is room; and if it is gone, nobody misses it.
    let _ = stream.try_write_vectored(&slices[..filled]);
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
