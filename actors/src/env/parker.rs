//! The thread that drives a future: how it is woken, and the one timer that it needs nobody else for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::bed::Bed;
use super::timers::real_now;

/// Nobody has set the alarm.
const FREE: u64 = 0;
/// Its time has come, and who set it has not taken it away.
const RUNG: u64 = 1;
/// What a time is above those.
const TIMES: u64 = 2;

/// A thread that drives a future, and sleeps meanwhile.
pub(super) struct Parker {
    bed: Bed<word::Of>,
    /// When the thread looks by itself: [`FREE`], [`RUNG`], or [`TIMES`] and the nanoseconds since `begun`. Set by the thread itself; taken away by whoever has the timer by then.
    alarm: AtomicU64,
    begun: Instant,
    /// The number of the table of timers that knew of it last; 0 for none.
    pub(super) known_to: AtomicU64,
}

thread_local! {
    /// That of the thread, when no future is driven on it: whoever waits needs no memory then.
    static SPARE: Cell<Option<Arc<Parker>>> = const { Cell::new(None) };
    /// That of the future that is driven on the thread, the innermost one.
    static DRIVEN: Cell<Option<Arc<Parker>>> = const { Cell::new(None) };
}

/// While it lives, a future is driven on the thread with this parker.
pub(super) struct Driving {
    parker: Arc<Parker>,
    outer: Option<Arc<Parker>>,
}

impl Driving {
    pub(super) fn begin() -> Self {
        // Without what belongs to the thread it is about to end.
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let parker = spare.unwrap_or_else(|| Arc::new(Parker::new()));
        // Only those are to be heard who are told of the waker from now on. Who was told of it before wakes nobody, or once for nothing.
        parker.bed.is_woken();
        let outer = DRIVEN.try_with(|driven| driven.replace(Some(parker.clone()))).ok().flatten();
        Self { parker, outer }
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::from(self.parker.clone())
    }

    /// Sleeps until somebody wakes, or its alarm rings.
    pub(super) fn sleep(&self) {
        loop {
            let Some(most) = self.parker.until_alarm() else { return };
            if self.parker.bed.sleep(most) {
                return;
            }
        }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        let driven = DRIVEN.try_with(|driven| driven.replace(self.outer.take())).ok().flatten();
        // One whose timer lives on elsewhere is not used again.
        if self.parker.alarm.load(Ordering::Relaxed) == FREE {
            let _ = SPARE.try_with(|spare| spare.set(driven));
        }
    }
}

impl Parker {
    fn new() -> Self {
        Self {
            bed: Bed::new(word::Of::default()),
            alarm: AtomicU64::new(FREE),
            begun: real_now(),
            known_to: AtomicU64::new(0),
        }
    }

    /// The one that drives a future on this thread, when this is its waker.
    pub(super) fn driven_by(waker: &Waker) -> Option<Arc<Self>> {
        DRIVEN
            .try_with(|driven| {
                let parker = driven.take();
                let found = parker.as_ref().filter(|parker| parker.is_of(waker)).cloned();
                driven.set(parker);
                found
            })
            .ok()
            .flatten()
    }

    /// Whether it is what this waker wakes.
    pub(super) fn is_of(self: &Arc<Self>, waker: &Waker) -> bool {
        // The address of one that lives is nobody else's.
        std::ptr::eq(waker.data(), Arc::as_ptr(self).cast())
    }

    /// Sets the alarm, unless somebody else has. Of the parker's own thread alone.
    pub(super) fn set_alarm(&self, at: Instant) -> bool {
        let nanos = u64::try_from(at.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX);
        // Relaxed, here and where it is looked at: it is the thread's own, and whoever takes it away has nothing to say by that.
        let set = self.alarm.compare_exchange(
            FREE,
            nanos.saturating_add(TIMES),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        set.is_ok()
    }

    /// Whether the time of who set the alarm has come.
    pub(super) fn has_rung(&self) -> bool {
        self.alarm.load(Ordering::Relaxed) == RUNG
    }

    /// Takes the alarm away. Of who set it alone.
    pub(super) fn clear_alarm(&self) {
        self.alarm.store(FREE, Ordering::Relaxed);
    }

    /// Wakes the thread.
    pub(super) fn rouse(&self) {
        self.bed.wake();
    }

    /// How long the thread may sleep at most, or without end; none when it is to look now, because its alarm rings.
    fn until_alarm(&self) -> Option<Option<Duration>> {
        let alarm = self.alarm.load(Ordering::Relaxed);
        let Some(nanos) = alarm.checked_sub(TIMES) else { return Some(None) };
        let since = real_now().saturating_duration_since(self.begun);
        let left = Duration::from_nanos(nanos).saturating_sub(since);
        if !left.is_zero() {
            return Some(Some(left));
        }
        // Unless it was taken away meanwhile.
        let rings = self.alarm.compare_exchange(alarm, RUNG, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if rings { None } else { Some(None) }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.bed.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bed.wake();
    }
}

#[cfg(target_os = "linux")]
mod word {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::thread::futex::Flags;

    use super::super::bed::Word;
    use crate::futex;

    #[derive(Default)]
    pub(super) struct Of(AtomicU32);

    impl Word for Of {
        fn exchange(&self, old: u32, new: u32, order: Ordering) -> Result<u32, u32> {
            self.0.compare_exchange(old, new, order, Ordering::Relaxed)
        }

        fn swap(&self, new: u32, order: Ordering) -> u32 {
            self.0.swap(new, order)
        }

        fn sleep(&self, expected: u32, most: Option<Duration>) {
            futex::sleep(&self.0, Flags::PRIVATE, expected, most);
        }

        fn wake(&self) {
            futex::wake(&self.0, Flags::PRIVATE, 1);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod word {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread::{self, Thread};
    use std::time::Duration;

    use super::super::bed::Word;

    /// The thread that makes it is the one that sleeps there.
    pub(super) struct Of(AtomicU32, Thread);

    impl Default for Of {
        fn default() -> Self {
            Self(AtomicU32::new(0), thread::current())
        }
    }

    impl Word for Of {
        fn exchange(&self, old: u32, new: u32, order: Ordering) -> Result<u32, u32> {
            self.0.compare_exchange(old, new, order, Ordering::Relaxed)
        }

        fn swap(&self, new: u32, order: Ordering) -> u32 {
            self.0.swap(new, order)
        }

        fn sleep(&self, _: u32, most: Option<Duration>) {
            // A wake that has come since keeps it from sleeping.
            most.map_or_else(thread::park, thread::park_timeout);
        }

        fn wake(&self) {
            self.1.unpark();
        }
    }
}
