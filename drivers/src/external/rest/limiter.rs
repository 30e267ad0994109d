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
    /// How many of them still wait.
    waiting: u32,
    /// Before this nothing goes: the server said so.
    paused: Option<Instant>,
    /// How often it did. Who waits since before that is let go anew.
    pauses: u64,
}

/// The place of a request among those that are let go.
#[derive(Debug)]
pub(super) struct Slot {
    /// How long it waits.
    pub(super) wait: Duration,
    /// What `until` was before it, and with it.
    before: Option<Instant>,
    until: Option<Instant>,
    pauses: u64,
}

impl Limiter {
    /// `requests` in `per`, and `burst` at once; any number when it is none.
    pub(super) fn new(rate: Option<(u32, Duration, u32)>) -> Self {
        let each = rate.map(|(requests, per, _)| per / requests.max(1));
        let burst = rate.map_or(1, |(_, _, burst)| burst.max(1));
        let ahead_max = each.map_or(Duration::ZERO, |each| each.saturating_mul(burst - 1));
        Self { each, ahead_max, until: None, waiting: 0, paused: None, pauses: 0 }
    }

    /// Lets one request go, after the wait that it gives; then [`go`](Self::go) says whether that still holds. When the wait is longer than `patience` it is not let
    /// go, and not counted: how long it would be is the error.
    pub(super) fn admit(&mut self, now: Instant, patience: Duration) -> Result<Slot, Duration> {
        // What a pause keeps back goes by the rate from its end on.
        let from = self.until.into_iter().chain(self.paused).fold(now, Instant::max);
        let by_rate = from.saturating_duration_since(now).saturating_sub(self.ahead_max);
        let by_pause = self.paused.map_or(Duration::ZERO, |paused| paused.saturating_duration_since(now));
        let wait = by_rate.max(by_pause);
        if wait > patience {
            return Err(wait);
        }
        let before = self.until;
        if let Some(each) = self.each {
            self.until = Some(from + each);
        }
        self.waiting += 1;
        Ok(Slot { wait, before, until: self.until, pauses: self.pauses })
    }

    /// Whether the request goes, now that its wait is over. It does not when the server asked for a pause meanwhile: it is to be admitted anew.
    pub(super) fn go(&mut self, slot: &Slot) -> bool {
        if slot.pauses != self.pauses {
            return false;
        }
        self.waiting -= 1;
        true
    }

    /// Takes back the place of a request that does not go.
    pub(super) fn give_back(&mut self, slot: &Slot) {
        // Those behind it have their waits already.
        if self.go(slot) && self.until == slot.until {
            self.until = slot.before;
        }
    }

    /// Lets nothing go before `until`, also of what waits already.
    pub(super) fn pause(&mut self, until: Instant) {
        if self.paused.is_some_and(|paused| paused >= until) {
            return;
        }
        self.paused = Some(until);
        self.pauses += 1;
        // Those that wait are counted again when they are let go anew.
        let counted = self.each.map_or(Duration::ZERO, |each| each.saturating_mul(self.waiting));
        self.until = self.until.and_then(|until| until.checked_sub(counted));
        self.waiting = 0;
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

    fn wait(limiter: &mut Limiter, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        limiter.admit(now, patience).map(|slot| slot.wait)
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_by_the_rate() {
        let now = now();
        let mut limiter = Limiter::new(Some((10, Duration::from_secs(1), 3)));
        let waits: Vec<_> = (0..5).map(|_| wait(&mut limiter, now, LONG).unwrap()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200].map(millis));
        assert_eq!(
            wait(&mut limiter, now + millis(1_000), LONG),
            Ok(millis(0)),
            "what was not used is there again"
        );
    }

    #[test]
    fn who_cannot_wait_uses_nothing() {
        let now = now();
        let mut limiter = Limiter::new(Some((1, Duration::from_secs(1), 1)));
        assert_eq!(wait(&mut limiter, now, LONG), Ok(millis(0)));
        for _ in 0..3 {
            assert_eq!(wait(&mut limiter, now, millis(10)), Err(millis(1_000)));
        }
        assert_eq!(wait(&mut limiter, now + millis(1_000), millis(10)), Ok(millis(0)));
    }

    #[test]
    fn what_the_server_asks_for_holds_with_a_rate_and_without() {
        let now = now();
        let mut limiter = Limiter::new(None);
        assert_eq!(wait(&mut limiter, now, millis(0)), Ok(millis(0)));
        limiter.pause(now + millis(500));
        limiter.pause(now + millis(100));
        assert_eq!(wait(&mut limiter, now, LONG), Ok(millis(500)));
        assert_eq!(wait(&mut limiter, now + millis(600), LONG), Ok(millis(0)));
    }

    #[test]
    fn a_pause_holds_for_who_waits_already_and_what_it_kept_back_goes_by_the_rate() {
        let now = now();
        let mut limiter = Limiter::new(Some((10, Duration::from_secs(1), 1)));
        let first = limiter.admit(now, LONG).unwrap();
        assert!(limiter.go(&first));
        let waiting: Vec<_> = (0..3).map(|_| limiter.admit(now, LONG).unwrap()).collect();
        assert_eq!(waiting[2].wait, millis(300));
        limiter.pause(now + millis(1_000));
        let mut waits = Vec::new();
        for slot in &waiting {
            let woken = now + slot.wait;
            assert!(!limiter.go(slot), "the server said later");
            let anew = limiter.admit(woken, LONG).unwrap();
            waits.push(woken + anew.wait - now);
            // A shorter one changes nothing.
            limiter.pause(now + millis(500));
        }
        assert_eq!(waits, [1_000, 1_100, 1_200].map(millis));
        assert_eq!(wait(&mut limiter, now + millis(400), LONG), Ok(millis(900)));
    }

    #[test]
    fn who_gives_up_leaves_no_gap_behind() {
        let now = now();
        let mut limiter = Limiter::new(Some((10, Duration::from_secs(1), 1)));
        let slots: Vec<_> = (0..3).map(|_| limiter.admit(now, LONG).unwrap()).collect();
        assert!(limiter.go(&slots[0]));
        for slot in slots[1..].iter().rev() {
            limiter.give_back(slot);
        }
        assert_eq!(wait(&mut limiter, now, LONG), Ok(millis(100)));
    }
}
