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

    /// At least how long ago that was, and at most: a few ticks of the system apart, some milliseconds. Cheaper than [`elapsed`](Self::elapsed): for whoever wants to
    /// know whether something is surely past, or surely yet to come.
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

/// The system's coarse clock, which runs at the rate of the exact one, and is behind it.
#[cfg(target_os = "linux")]
struct Coarse {
    /// What it showed at the beginning.
    shown: Duration,
    /// How far it can be behind.
    behind: Duration,
    /// How far it can be behind, and how long after the beginning that was.
    ahead: Duration,
}

#[cfg(target_os = "linux")]
impl Coarse {
    /// None when the system has no such clock.
    fn begin(begun: Instant, now: impl FnOnce() -> Instant) -> Option<Self> {
        use rustix::time::{ClockId, clock_getres};
        let behind = duration(clock_getres(ClockId::MonotonicCoarse));
        let shown = Self::shown();
        Some(Self { shown, behind, ahead: behind + now().saturating_duration_since(begun) })
    }

    fn shown() -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        duration(clock_gettime(ClockId::MonotonicCoarse))
    }

    #[inline]
    fn bounds(&self) -> (Duration, Duration) {
        let since = Self::shown().saturating_sub(self.shown);
        // It was behind by anything at the beginning, and is now.
        (since.saturating_sub(self.behind), since + self.ahead)
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
