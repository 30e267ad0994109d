//! The primitives that the lock table is built on: the ordinary ones, or loom's when a model is checked.

#[cfg(not(nexus_loom))]
pub(super) use parking_lot::Mutex;
#[cfg(not(nexus_loom))]
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(nexus_loom)]
pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};

/// Loom's mutex behind parking_lot's interface.
#[cfg(nexus_loom)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(nexus_loom)]
impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
