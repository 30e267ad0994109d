//! The time since a moment, exactly, or more cheaply and told less exactly.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timers::Timers;

/// Counts the time since it was made.
pub struct Stopwatch {
    timers: Arc<Timers>,
    begun: Instant,
    coarse: Option<Coarse>,
}

impl Stopwatch {
    pub(super) fn start(timers: &Arc<Timers>) -> Self {
        let begun = timers.now();
        let coarse = timers.is_real().then(|| Coarse::begin(begun, || timers.now())).flatten();
        Self { timers: timers.clone(), begun, coarse }
    }

    /// How long ago it was made.
    #[inline]
    pub fn elapsed(&self) -> Duration {
        self.timers.now().saturating_duration_since(self.begun)
    }

    /// At least how long ago that was, and at most: two ticks of the system apart, some milliseconds. Cheaper than [`elapsed`](Self::elapsed): for whoever wants to
    /// know whether something is surely past. That it is surely yet to come holds as long as the system's ticks come in time, which a machine that is halted
    /// misses.
    #[inline]
    pub fn bounds(&self) -> (Duration, Duration) {
        if let Some(coarse) = &self.coarse {
            return coarse.bounds();
        }
        let elapsed = self.elapsed();
        (elapsed, elapsed)
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stopwatch").field(&self.elapsed()).finish()
    }
}

/// The system's coarse clock, which shows what the exact one showed at the last tick.
#[cfg(target_os = "linux")]
struct Coarse {
    /// What an exact one showed, just after the beginning.
    shown: Duration,
    /// How far it can be behind while the system runs, which is a tick and what that one is late, and how long after the beginning that was.
    ahead: Duration,
}

#[cfg(target_os = "linux")]
impl Coarse {
    /// None when the system has no such clock.
    fn begin(begun: Instant, now: impl FnOnce() -> Instant) -> Option<Self> {
        use rustix::time::{ClockId, clock_getres, clock_gettime};
        let behind = duration(clock_getres(ClockId::MonotonicCoarse));
        // By the exact clock, which has the same beginning: that one may be behind by anything while the system is kept from running.
        let shown = duration(clock_gettime(ClockId::Monotonic));
        Some(Self { shown, ahead: 2 * behind + now().saturating_duration_since(begun) })
    }

    fn shown() -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        duration(clock_gettime(ClockId::MonotonicCoarse))
    }

    #[inline]
    fn bounds(&self) -> (Duration, Duration) {
        let since = Self::shown().saturating_sub(self.shown);
        (since, since + self.ahead)
    }
}

#[cfg(target_os = "linux")]
fn duration(time: rustix::time::Timespec) -> Duration {
    // The time since the machine began is not negative, and the rest is below a second.
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Where there is no such clock it is the exact one.
#[cfg(not(target_os = "linux"))]
struct Coarse;

#[cfg(not(target_os = "linux"))]
impl Coarse {
    fn begin(_: Instant, _: impl FnOnce() -> Instant) -> Option<Self> {
        None
    }

    fn bounds(&self) -> (Duration, Duration) {
        (Duration::ZERO, Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tick is 10 ms at most, on what is built for servers.
    const TICK_MAX: Duration = Duration::from_millis(20);

    #[test]
    fn what_has_elapsed_is_between_two_bounds_that_are_close() {
        let watch = Stopwatch::start(&Timers::real());
        for _ in 0..100_000 {
            let before = watch.elapsed();
            let (least, most) = watch.bounds();
            let after = watch.elapsed();
            assert!(most >= before, "{:?} before it", before - most);
            assert!(least <= after, "{:?} after it", least - after);
            assert!(most <= after + 2 * TICK_MAX, "{:?} after it", most - after);
            assert!(before <= least + 2 * TICK_MAX, "{:?} before it", before - least);
        }
    }

    #[test]
    fn in_a_simulation_the_bounds_are_one() {
        let timers = Timers::simulated();
        let watch = Stopwatch::start(&timers);
        assert_eq!((watch.elapsed(), watch.bounds()), (Duration::ZERO, (Duration::ZERO, Duration::ZERO)));
    }
}
