//! One pointer that many threads read while one replaces it: an `Arc` behind crossbeam's epochs.
//!
//! Reading is a pin and a load and shares no write with other readers. What a swap took out is freed once every thread
//! that was pinned at that time has unpinned. This is the only place that frees memory which others may still read.
#![expect(unsafe_code, reason = "turns the raw pointer that epochs protect back into references and owners")]

use crate::sync::atomic::{AtomicPtr, Ordering};
use reclaim::Reclaim;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// The current `Arc<T>`, replaceable under its readers.
pub(crate) struct EpochPtr<T> {
    /// Invariant: came from `Arc::into_raw`, and carries one strong count for as long as it stands here.
    pointer: AtomicPtr<T>,
    reclaim: Reclaim<T>,
    /// `AtomicPtr` is Send and Sync for every `T`; this makes us so only where an `Arc<T>` is.
    owns: PhantomData<Arc<T>>,
}

impl<T: Send + Sync + 'static> EpochPtr<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self {
            pointer: AtomicPtr::new(Arc::into_raw(value).cast_mut()),
            reclaim: Reclaim::new(),
            owns: PhantomData,
        }
    }

    /// Holds back the freeing of everything that is loaded through the answer. It cannot leave its thread, and while it
    /// lives no garbage of the whole process is freed, so nothing may block under it.
    #[inline]
    pub(crate) fn pin(&self) -> Pinned<'_, T> {
        Pinned { owner: self, guard: reclaim::pin() }
    }

    /// An owner of the current value.
    pub(crate) fn get(&self) -> Arc<T> {
        self.pin().load().to_arc()
    }
}

impl<T> Drop for EpochPtr<T> {
    fn drop(&mut self) {
        // Acquire pairs with the swap that put the pointer here, perhaps on another thread.
        let last = self.pointer.load(Ordering::Acquire);
        // SAFETY: by the invariant the pointer holds one strong count, and `&mut self` says that nobody is pinned on us.
        drop(unsafe { Arc::from_raw(last) });
    }
}

/// A pinned thread, looking at one [`EpochPtr`].
pub(crate) struct Pinned<'a, T> {
    owner: &'a EpochPtr<T>,
    guard: reclaim::Guard,
}

impl<T: Send + Sync + 'static> Pinned<'_, T> {
    /// The value of this moment. Two loads under one pin may differ.
    #[inline]
    pub(crate) fn load(&self) -> Loaded<'_, T> {
        // Acquire pairs with the release of the swap: who sees the pointer sees the value behind it.
        let pointer = self.owner.pointer.load(Ordering::Acquire);
        Loaded { pointer, pinned: PhantomData }
    }

    /// Replaces the value. The old one is freed later, and never inside this call, so a lock may be held here.
    pub(crate) fn swap(&self, value: Arc<T>) {
        let new = Arc::into_raw(value).cast_mut();
        let old = self.owner.pointer.swap(new, Ordering::AcqRel);
        // SAFETY: the swap took `old` out with its strong count, only once; who loaded it before is pinned.
        unsafe { self.owner.reclaim.retire(&self.guard, old) };
    }

    /// Passes this thread's garbage on and frees what nobody can see any more. Runs foreign destructors.
    pub(crate) fn collect(self) {
        reclaim::flush(&self.guard);
    }
}

/// A value that the pin keeps alive.
pub(crate) struct Loaded<'a, T> {
    /// Invariant: what `Arc::into_raw` gave, not a reference, which could not reach the counts beside the value. The value
    /// has a strong count until a swap takes it out, and what a swap took out after the pin is freed only after it.
    pointer: *const T,
    pinned: PhantomData<&'a T>,
}

impl<T> Loaded<'_, T> {
    /// Takes a count of its own, with which the value outlives the pin.
    pub(crate) fn to_arc(&self) -> Arc<T> {
        // SAFETY: by the invariant the pointer is an `Arc`'s and has a strong count while the pin lives.
        unsafe {
            Arc::increment_strong_count(self.pointer);
            Arc::from_raw(self.pointer)
        }
    }

    /// Whether both are one and the same value. No address is used twice under one pin, so this cannot be fooled.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.pointer, other.pointer)
    }
}

impl<T> Deref for Loaded<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the invariant the value lives while the pin does, which outlives `self`.
        unsafe { &*self.pointer }
    }
}

/// Freeing by crossbeam's epochs.
#[cfg(any(not(nexus_loom), crossbeam_loom))]
mod reclaim {
    pub(super) use crossbeam_epoch::{Guard, pin};
    use std::marker::PhantomData;
    use std::sync::Arc;

    pub(super) struct Reclaim<T>(PhantomData<T>);

    impl<T: Send + Sync + 'static> Reclaim<T> {
        pub(super) fn new() -> Self {
            Self(PhantomData)
        }

        /// Gives back the strong count of `pointer` when no pinned thread can hold it any more.
        ///
        /// # Safety
        /// `pointer` came from `Arc::into_raw`, its count is given up here and only here, and it can no longer be loaded.
        #[expect(clippy::unused_self, reason = "the model check keeps its garbage here")]
        pub(super) unsafe fn retire(&self, guard: &Guard, pointer: *const T) {
            // SAFETY: `T` is Send, Sync and 'static, so any thread may drop the `Arc` at any later time; epochs delay that
            // until all who were pinned now are gone.
            unsafe { guard.defer_unchecked(move || drop(Arc::from_raw(pointer))) };
        }
    }

    pub(super) fn flush(guard: &Guard) {
        guard.flush();
    }
}

/// For loom: the best that any reclamation could do, freeing only when the whole cell goes. With it the models can be
/// gone through exhaustively; on the real epochs (`--cfg crossbeam_loom`) only up to a number of preemptions.
#[cfg(all(nexus_loom, not(crossbeam_loom)))]
mod reclaim {
    use std::sync::{Arc, Mutex};

    pub(super) struct Reclaim<T>(Mutex<Vec<Arc<T>>>);
    pub(super) struct Guard;

    impl<T> Reclaim<T> {
        pub(super) fn new() -> Self {
            Self(Mutex::new(Vec::new()))
        }

        /// # Safety
        /// As above.
        pub(super) unsafe fn retire(&self, _: &Guard, pointer: *const T) {
            // SAFETY: the caller gives up the count that `pointer` carries.
            self.0.lock().unwrap().push(unsafe { Arc::from_raw(pointer) });
        }
    }

    pub(super) fn pin() -> Guard {
        Guard
    }

    pub(super) fn flush(_: &Guard) {}
}
