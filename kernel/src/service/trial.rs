//! A version on trial in shadow: it is given copies of real calls, and its answers are compared with those that the callers got.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_actors::Latch;

use super::Generation;

/// The trial of one version. Callers count in it; the swap that began it waits for its end.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) generation: Arc<Generation>,
    /// Held from a call until its copy is sent: so the copies come in the order of the calls.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// How many answers must agree.
    needed: u64,
    agreed: AtomicU64,
    /// Set at the end: well, or with what was different.
    ended: Latch<Result<u64, Arc<str>>>,
}

impl Trial {
    pub(crate) fn new(generation: Arc<Generation>, needed: u32) -> Self {
        let turn = tokio::sync::Mutex::new(());
        Self { generation, turn, needed: needed.into(), agreed: AtomicU64::new(0), ended: Latch::new() }
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
        self.ended.set(Err(how.to_string().into()));
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
