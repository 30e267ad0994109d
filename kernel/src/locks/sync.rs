//! The primitives that the lock tables are built on: the ordinary ones, or loom's when a model is checked.

#[cfg(not(nexus_loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(nexus_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[cfg(nexus_loom)]
pub(crate) use loom::sync::MutexGuard;
#[cfg(nexus_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Loom's mutex behind parking_lot's interface.
#[cfg(nexus_loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(nexus_loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
