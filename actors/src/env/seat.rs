//! Threads for actors: a seat is one arbiter, which hosts any number of actors.
//!
//! A handler that blocks its thread cannot be ended. Its seat is then *lost*: it is replaced for whoever starts next, and
//! the other tenants of the thread, which are stuck with it through no fault of theirs, are displaced.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use actix_rt::ArbiterHandle;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use super::sim::SimShared;

/// The kind of thread that a task or an actor runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// One of the kernel's threads, in turn.
    #[default]
    Kernel,
    /// The thread of supervisors. Nothing else belongs there.
    Supervisors,
    /// One of the threads for users' services and drivers, in turn.
    Users,
    /// A thread of its own, which ends with it.
    Own,
}

/// Somebody who lives on a seat.
pub(crate) trait Tenant: Send + Sync {
    /// The thread is lost because of `by`. Called from another thread.
    fn displace(&self, tenancy: u64, by: &Arc<str>);
}

pub(crate) struct Seat {
    place: Place,
    thread: Thread,
    lost: AtomicBool,
    tenants: Mutex<Vec<(u64, Weak<dyn Tenant>)>>,
}

enum Thread {
    Arbiter(ArbiterHandle),
    Sim(Arc<SimShared>),
}

impl Seat {
    pub(crate) fn on_arbiter(place: Place, handle: ArbiterHandle) -> Arc<Self> {
        Self::with(place, Thread::Arbiter(handle))
    }

    pub(crate) fn simulated(sim: Arc<SimShared>) -> Arc<Self> {
        Self::with(Place::Own, Thread::Sim(sim))
    }

    fn with(place: Place, thread: Thread) -> Arc<Self> {
        Arc::new(Seat { place, thread, lost: AtomicBool::new(false), tenants: Mutex::default() })
    }

    /// Runs the task that `make` makes on this seat's thread. False when the thread has ended.
    pub(crate) fn spawn<F>(&self, name: Arc<str>, make: F) -> bool
    where
        F: FnOnce() -> LocalBoxFuture<'static, ()> + Send + 'static,
    {
        match &self.thread {
            Thread::Arbiter(handle) => handle.spawn_fn(move || {
                actix_rt::spawn(make());
            }),
            Thread::Sim(sim) => {
                sim.spawn(name, Box::new(make));
                true
            }
        }
    }

    /// Whether blocking code on this seat leaves other tasks running.
    pub(crate) fn is_thread(&self) -> bool {
        matches!(self.thread, Thread::Arbiter(_))
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Enters a tenant. The number is its own among all seats.
    pub(crate) fn move_in(&self, tenant: Weak<dyn Tenant>) -> u64 {
        static TENANCIES: AtomicU64 = AtomicU64::new(1);
        let tenancy = TENANCIES.fetch_add(1, Ordering::Relaxed);
        self.tenants.lock().push((tenancy, tenant));
        tenancy
    }

    pub(crate) fn move_out(&self, tenancy: u64) {
        self.tenants.lock().retain(|(number, _)| *number != tenancy);
        self.vacated();
    }

    /// The last of an own thread has left: the thread ends.
    pub(crate) fn vacated(&self) {
        if self.place == Place::Own
            && let Thread::Arbiter(handle) = &self.thread
        {
            handle.stop();
        }
    }

    /// Writes the thread off. Every tenant but `culprit` is displaced.
    pub(crate) fn lose(&self, culprit: u64, by: &Arc<str>) {
        if !self.is_thread() || self.lost.swap(true, Ordering::AcqRel) {
            return;
        }
        let tenants = std::mem::take(&mut *self.tenants.lock());
        tracing::error!(by = %by, displaced = tenants.len().saturating_sub(1), "a thread is lost to a wedged handler");
        for (tenancy, tenant) in tenants {
            if tenancy != culprit
                && let Some(tenant) = tenant.upgrade()
            {
                tenant.displace(tenancy, by);
            }
        }
        // Should the handler ever return, its thread ends instead of living on for nobody.
        if let Thread::Arbiter(handle) = &self.thread {
            handle.stop();
        }
    }
}
