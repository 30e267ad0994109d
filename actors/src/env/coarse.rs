//! A clock that is cheaper to read than the exact one, and tells less: a moment that now is not past.

use std::time::Instant;

/// The system's coarse clock, beside a moment of the exact one. Both run at the same rate.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Coarse {
    /// Not before the coarse clock showed `shown`.
    begun: Instant,
    shown: std::time::Duration,
    /// How far the coarse clock can be behind.
    behind: std::time::Duration,
}

#[cfg(target_os = "linux")]
impl Coarse {
    pub(crate) fn new(now: impl FnOnce() -> Instant) -> Self {
        use rustix::time::{ClockId, clock_getres};
        let shown = Self::shown();
        Self { begun: now(), shown, behind: duration(clock_getres(ClockId::MonotonicCoarse)) }
    }

    fn shown() -> std::time::Duration {
        use rustix::time::{ClockId, clock_gettime};
        duration(clock_gettime(ClockId::MonotonicCoarse))
    }

    /// A moment that is not before now, and behind it by no more than the coarse clock's tick.
    #[inline]
    pub(crate) fn not_before_now(&self, _: impl FnOnce() -> Instant) -> Instant {
        self.begun + Self::shown().saturating_sub(self.shown) + self.behind
    }
}

#[cfg(target_os = "linux")]
fn duration(time: rustix::time::Timespec) -> std::time::Duration {
    // The time since the machine began is not negative, and the rest is below a second.
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    std::time::Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Where there is no such clock it is the exact one.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Coarse;

#[cfg(not(target_os = "linux"))]
impl Coarse {
    pub(crate) fn new(_: impl FnOnce() -> Instant) -> Self {
        Self
    }

    pub(crate) fn not_before_now(&self, now: impl FnOnce() -> Instant) -> Instant {
        now()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::env::timers::Timers;

    /// A tick is 10 ms at most, on what is built for servers.
    const TICK_MAX: Duration = Duration::from_millis(20);

    #[test]
    fn what_is_not_before_now_is_soon_after_it() {
        let timers = Timers::real();
        for _ in 0..100_000 {
            let before = timers.now();
            let told = timers.not_before_now();
            let after = timers.now();
            assert!(told >= before, "{:?} before it", before - told);
            assert!(told <= after + TICK_MAX, "{:?} after it", told - after);
        }
    }
}
