//! How the driver of a mount is doing: counted where it is called, looked at from everywhere.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nexus_actors::Env;
use nexus_messages::{ErrorKind, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::breaker::{Breaker, Change, Pass, Refused};
use super::figures::{CallKind, Ended, Figures};
use crate::hal::StoreError;

/// How the calls of a mount's driver went, since the mount was attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DriverCalls {
    /// Calls made of the driver.
    pub made: u64,
    /// Calls under way.
    pub in_flight: usize,
    /// Calls in which the backend failed, those that were late and those that panicked included. What an ordinary answer says, such as that
    /// nothing is there, is no failure.
    pub failed: u64,
    /// Calls that were late, and given up.
    pub timed_out: u64,
    /// Calls that panicked.
    pub panicked: u64,
    /// Calls that were not made, because the driver had failed too often.
    pub refused: u64,
}

/// The latest failure of a mount's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DriverFailure {
    /// When.
    pub at: Timestamp,
    /// What was being done, and what became of it.
    pub what: Arc<str>,
    /// The name of the error, such as EIO.
    #[serde(default)]
    pub error: String,
}

/// Whether there is a driver to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// As far as its actor knows.
    Good,
    /// It is being opened anew.
    Opening { cause: Arc<str> },
    /// It could not be opened, and will be tried again.
    Failed { cause: Arc<str>, until: Instant },
}

/// What is known of the driver of one mount.
#[derive(Debug)]
pub(super) struct Health {
    breaker: Mutex<Breaker>,
    standing: Mutex<Standing>,
    /// Why there is no driver, and will be none.
    end: OnceLock<StoreError>,
    latest: Mutex<Option<DriverFailure>>,
    figures: Figures,
    made: AtomicU64,
    in_flight: AtomicUsize,
    failed: AtomicU64,
    timed_out: AtomicU64,
    panicked: AtomicU64,
    refused: AtomicU64,
}

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    Backend,
    Late,
    Panic,
}

/// The driver is not to be called now.
#[derive(Debug)]
pub(super) struct NotNow {
    pub(super) cause: Arc<str>,
    pub(super) retry_in: Duration,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            breaker: Mutex::new(Breaker::new()),
            standing: Mutex::new(Standing::Opening { cause: "it was not opened yet".into() }),
            end: OnceLock::new(),
            latest: Mutex::new(None),
            figures: Figures::new(),
            made: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            failed: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Begins a call of the driver, unless it has failed too often.
    pub(super) fn begin(&self, env: &Env) -> Result<UnderWay<'_>, NotNow> {
        let now = env.now();
        let admitted = self.breaker.lock().admit(now);
        match admitted {
            Ok(pass) => {
                self.made.fetch_add(1, Ordering::Relaxed);
                self.in_flight.fetch_add(1, Ordering::Relaxed);
                Ok(UnderWay { health: self, pass: Some(pass), began: now })
            }
            Err(refused) => Err(self.refuse(refused, now)),
        }
    }

    /// Whether a call could begin now: who would be refused need not wait for its turn.
    pub(super) fn look(&self, env: &Env) -> Result<(), NotNow> {
        let now = env.now();
        let looked = self.breaker.lock().look(now);
        looked.map_err(|refused| self.refuse(refused, now))
    }

    fn refuse(&self, refused: Refused, now: Instant) -> NotNow {
        self.refused.fetch_add(1, Ordering::Relaxed);
        NotNow { cause: self.cause(), retry_in: refused.until.saturating_duration_since(now) }
    }

    /// Takes note of a failure.
    pub(super) fn note(&self, env: &Env, error: &StoreError) {
        let (what, name) = (error.to_string().into(), error.kind().errno().name().to_owned());
        *self.latest.lock() = Some(DriverFailure { at: Timestamp(env.wall()), what, error: name });
    }

    /// The latest failure, in words.
    pub(super) fn cause(&self) -> Arc<str> {
        self.latest
            .lock()
            .as_ref()
            .map_or_else(|| "nothing is known to have failed".into(), |failure| failure.what.clone())
    }

    pub(super) fn latest(&self) -> Option<DriverFailure> {
        self.latest.lock().clone()
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        *self.standing.lock() = standing;
    }

    /// There is no driver any more, and will be none. The first word counts.
    pub(super) fn ended(&self, why: StoreError) {
        let _ = self.end.set(why);
    }

    /// Why there will be no driver any more.
    pub(super) fn end(&self) -> Option<StoreError> {
        self.end.get().cloned()
    }

    /// The driver was opened anew, and answers.
    pub(super) fn renewed(&self) {
        self.breaker.lock().renew();
        self.set_standing(Standing::Good);
    }

    /// The driver that is there answers a probe.
    pub(super) fn answers(&self) -> Option<Change> {
        self.breaker.lock().confirm()
    }

    /// Until when calls are refused, when they are.
    pub(super) fn refuses_until(&self, now: Instant) -> Option<Instant> {
        self.breaker.lock().refuses_until(now)
    }

    /// Whether calls pass, and failed no more often than calls do.
    pub(super) fn is_closed(&self) -> bool {
        self.breaker.lock().is_closed()
    }

    /// What the calls came to.
    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn calls(&self) -> DriverCalls {
        // Each number for itself: nothing hangs on how they fit together.
        DriverCalls {
            made: self.made.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            panicked: self.panicked.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// A call of the driver. One that is dropped without a word was given up by its caller.
#[must_use]
pub(super) struct UnderWay<'a> {
    health: &'a Health,
    pass: Option<Pass>,
    began: Instant,
}

/// What became of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    /// None for what is not timed.
    pub(super) kind: Option<CallKind>,
    /// How it failed, if the backend did.
    pub(super) failing: Option<Failing>,
    /// What it answered with, if that was an error, whosever it was.
    pub(super) error: Option<ErrorKind>,
    pub(super) read: u64,
    pub(super) written: u64,
}

impl UnderWay<'_> {
    /// The call has ended.
    pub(super) fn ended(mut self, came: Came, now: Instant) -> Option<Change> {
        let health = self.health;
        let Came { kind, failing, error, read, written } = came;
        let took = now.saturating_duration_since(self.began);
        health.figures.count(Ended { kind, took, error, read, written });
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        if let Some(failing) = failing {
            count(&health.failed);
            match failing {
                Failing::Backend => 0,
                Failing::Late => count(&health.timed_out),
                Failing::Panic => count(&health.panicked),
            };
        }
        let pass = self.pass.take()?;
        health.breaker.lock().settle(pass, failing.is_none(), now)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.health.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(pass) = self.pass.take() {
            self.health.breaker.lock().abandon(pass);
        }
    }
}
