//! How often may be asked: a token bucket that counts time instead of tokens.

use std::time::{Duration, Instant};

/// When the next request may go.
#[derive(Debug)]
pub(super) struct Limiter {
    /// How long one request uses of the rate; none when there is no rate.
    each: Option<Duration>,
    /// How far ahead of the rate requests may be.
    ahead_max: Duration,
    /// When all that was let go is within the rate.
    until: Option<Instant>,
    /// Before this nothing goes: the server said so.
    paused: Option<Instant>,
}

impl Limiter {
    /// `requests` in `per`, and `burst` at once; any number when it is none.
    pub(super) fn new(rate: Option<(u32, Duration, u32)>) -> Self {
        let each = rate.map(|(requests, per, _)| per / requests.max(1));
        let burst = rate.map_or(1, |(_, _, burst)| burst.max(1));
        let ahead_max = each.map_or(Duration::ZERO, |each| each.saturating_mul(burst - 1));
        Self { each, ahead_max, until: None, paused: None }
    }

    /// Lets one request go, after the wait that it gives. When that is longer than `patience` it is not let go, and not counted: how long it would be is the
    /// error.
    pub(super) fn admit(&mut self, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        let until = self.until.map_or(now, |until| until.max(now));
        let by_rate = until.saturating_duration_since(now).saturating_sub(self.ahead_max);
        let by_pause = self.paused.map_or(Duration::ZERO, |paused| paused.saturating_duration_since(now));
        let wait = by_rate.max(by_pause);
        if wait > patience {
            return Err(wait);
        }
        if let Some(each) = self.each {
            self.until = Some(until + each);
        }
        Ok(wait)
    }

    /// Lets nothing go before `until`.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused = Some(self.paused.map_or(until, |paused| paused.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn now() -> Instant {
        nexus_actors::Env::seeded(1).0.now()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_by_the_rate() {
        let now = now();
        let mut limiter = Limiter::new(Some((10, Duration::from_secs(1), 3)));
        let waits: Vec<_> = (0..5).map(|_| limiter.admit(now, LONG).unwrap()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200].map(millis));
        assert_eq!(
            limiter.admit(now + millis(1_000), LONG),
            Ok(millis(0)),
            "what was not used is there again"
        );
    }

    #[test]
    fn who_cannot_wait_uses_nothing() {
        let now = now();
        let mut limiter = Limiter::new(Some((1, Duration::from_secs(1), 1)));
        assert_eq!(limiter.admit(now, LONG), Ok(millis(0)));
        for _ in 0..3 {
            assert_eq!(limiter.admit(now, millis(10)), Err(millis(1_000)));
        }
        assert_eq!(limiter.admit(now + millis(1_000), millis(10)), Ok(millis(0)));
    }

    #[test]
    fn what_the_server_asks_for_holds_with_a_rate_and_without() {
        let now = now();
        let mut limiter = Limiter::new(None);
        assert_eq!(limiter.admit(now, millis(0)), Ok(millis(0)));
        limiter.pause(now + millis(500));
        limiter.pause(now + millis(100));
        assert_eq!(limiter.admit(now, LONG), Ok(millis(500)));
        assert_eq!(limiter.admit(now + millis(600), LONG), Ok(millis(0)));
    }
}
