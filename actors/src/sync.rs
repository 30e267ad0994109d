//! The primitives that the lock-free parts are built on: the standard ones, or loom's when a model is checked.
//!
//! `Arc` stays the standard one in both builds. Its counting is not ours to prove, and it is part of public signatures.

#[cfg(nexus_loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(nexus_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

#[cfg(not(nexus_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

use std::sync::PoisonError;

/// The lock of cells and of messages on their way, which is taken a few times for each of them: parking_lot's is the
/// quicker one.
#[cfg(not(nexus_loom))]
pub(crate) use parking_lot::Mutex as Lock;

/// Loom's lock behind the same interface.
#[cfg(nexus_loom)]
pub(crate) struct Lock<T>(Mutex<T>);

#[cfg(nexus_loom)]
impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.0)
    }
}

/// Locks, whatever happened to an earlier holder: nothing that we guard this way is left half changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The standard cell behind loom's interface, through which loom sees each access.
#[cfg(not(nexus_loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(nexus_loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Hands out a pointer for reading. Dereferencing it is the caller's promise.
    #[inline]
    pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        look(self.0.get())
    }

    /// Hands out a pointer for writing. Dereferencing it is the caller's promise.
    #[inline]
    pub(crate) fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        change(self.0.get())
    }
}
