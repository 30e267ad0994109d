//! A version on trial in shadow: it is given copies of real calls, and its answers are compared with those that the callers got.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use nexus_actors::{Env, Latch};
use nexus_messages::{Error, ErrorKind};
use tokio::sync::{Mutex, MutexGuard};

use super::Generation;

/// The trial of one version. Callers count in it; the swap that began it waits for its end.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) generation: Arc<Generation>,
    /// Held from a call until its copy is sent: so the copies come in the order of the calls.
    turn: Mutex<()>,
    /// How many answers must agree.
    needed: u64,
    agreed: AtomicU64,
    /// Calls that were not copied, since they had no turn in time. What they changed, the version on trial does not know of.
    missed: AtomicU64,
    /// Set at the end: well, or with what was different.
    ended: Latch<Result<u64, Arc<str>>>,
}

impl Trial {
    pub(crate) fn new(generation: Arc<Generation>, needed: u32) -> Self {
        let (agreed, missed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { generation, turn: Mutex::new(()), needed: needed.into(), agreed, missed, ended: Latch::new() }
    }

    /// Refuses a trial against `serving` that could only wait: nothing that it does is compared.
    pub(crate) fn check_against(serving: &Generation) -> Result<(), Error> {
        if serving.is_compared() {
            return Ok(());
        }
        let error = crate::registry::error(&serving.service, ErrorKind::InvalidArgument);
        Err(error.because(format!(
            "there is nothing to try version {} in shadow by: it exports no compared message, and no hook of it decides before a call",
            serving.version
        )))
    }

    /// The turn of a call to be copied; none when it is not had within `within`.
    pub(crate) async fn turn(&self, env: &Env, within: Duration) -> Option<MutexGuard<'_, ()>> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(_) => env.timeout(within, self.turn.lock()).await.ok(),
        };
        if turn.is_none() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        turn
    }

    /// How many answers have agreed so far.
    pub(crate) fn agreed(&self) -> u64 {
        self.agreed.load(Ordering::Relaxed)
    }

    /// One answer was as the caller's.
    pub(crate) fn agrees(&self) {
        let agreed = self.agreed.fetch_add(1, Ordering::Relaxed) + 1;
        if agreed >= self.needed {
            self.ended.set(Ok(agreed));
        }
    }

    /// One answer was not. The first one ends the trial.
    pub(crate) fn differs(&self, how: impl Display) {
        let how = match self.missed.load(Ordering::Relaxed) {
            0 => how.to_string(),
            missed => format!("{how}; {missed} calls had to go on without a copy for it"),
        };
        self.ended.set(Err(how.into()));
    }

    /// Compares one answer with the caller's.
    pub(crate) fn compare(&self, equal: bool, how: impl Display) {
        if equal {
            self.agrees();
        } else {
            self.differs(how);
        }
    }

    /// Waits for the end: how many answers agreed, or what was different.
    pub(crate) async fn ended(&self) -> Result<u64, Arc<str>> {
        self.ended.wait().await
    }
}
