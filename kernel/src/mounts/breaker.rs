//! The circuit breaker of a mount. Pure: it is handed the time.
//!
//! Closed, it lets calls pass and counts the failures in a row that tell of the backend's health. At [`FAILURES_MAX`] it opens, and calls are refused
//! at once, so that a backend that is down holds nobody up and is left alone. After a wait, which grows with each opening in a row, it is half open: one
//! call passes, and its result opens it again or closes it. When none comes, a probe that is answered closes it. After M. Nygard, "Release It!".

use std::time::{Duration, Instant};

/// This many failures in a row open it.
pub(super) const FAILURES_MAX: u32 = 5;

/// How long it stays open the first time; each further opening in a row doubles it.
pub(super) const WAIT_FIRST: Duration = Duration::from_millis(500);

/// It stays open no longer than this.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(FAILURES_MAX > 0 && WAIT_FIRST.as_nanos() <= WAIT_MAX.as_nanos());

/// A circuit breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Openings since it was last closed.
    opens: u32,
    /// Raised with every change of `state`'s variant: what a call that passed before says is of no interest any more.
    era: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { trying: bool },
}

/// The right to make one call, whose end is told to the breaker once: by [`settle`](Breaker::settle) or [`abandon`](Breaker::abandon).
#[derive(Debug)]
#[must_use = "the breaker waits for what becomes of the call"]
pub(super) struct Pass {
    era: u64,
}

/// The call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// When the next call passes; the present when one is being tried.
    pub(super) until: Instant,
}

/// A change that the result of a call made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Closed,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, opens: 0, era: 0 }
    }

    /// Whether a call may be made at `now`.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Pass, Refused> {
        self.look(now)?;
        match self.state {
            State::Closed { .. } => {}
            State::Open { .. } => self.turn(State::HalfOpen { trying: true }),
            State::HalfOpen { .. } => self.state = State::HalfOpen { trying: true },
        }
        Ok(Pass { era: self.era })
    }

    /// As [`admit`](Self::admit), for who does not make a call yet.
    pub(super) fn look(&self, now: Instant) -> Result<(), Refused> {
        match self.state {
            State::Open { until } if now < until => Err(Refused { until }),
            State::HalfOpen { trying: true } => Err(Refused { until: now }),
            _ => Ok(()),
        }
    }

    /// What became of a call: whether it tells of a healthy backend.
    pub(super) fn settle(&mut self, pass: Pass, healthy: bool, now: Instant) -> Option<Change> {
        if pass.era != self.era {
            return None;
        }
        match (self.state, healthy) {
            (State::Closed { .. }, true) => {
                self.state = State::Closed { failures: 0 };
                None
            }
            (State::Closed { failures }, false) if failures + 1 < FAILURES_MAX => {
                self.state = State::Closed { failures: failures + 1 };
                None
            }
            (State::HalfOpen { .. }, true) => {
                self.opens = 0;
                self.turn(State::Closed { failures: 0 });
                Some(Change::Closed)
            }
            (_, false) => {
                self.opens = self.opens.saturating_add(1);
                self.turn(State::Open { until: now + wait(self.opens) });
                Some(Change::Opened)
            }
            // No pass is given while it is open.
            (State::Open { .. }, true) => None,
        }
    }

    /// A call was given up by its caller, and tells nothing.
    pub(super) fn abandon(&mut self, pass: Pass) {
        if pass.era == self.era && matches!(self.state, State::HalfOpen { .. }) {
            self.state = State::HalfOpen { trying: false };
        }
    }

    /// The backend was opened anew and answers: what waited for that need not wait longer. One call is tried first all the same.
    pub(super) fn renew(&mut self) {
        if !matches!(self.state, State::Closed { .. }) {
            self.turn(State::HalfOpen { trying: false });
        }
    }

    /// The backend answers, and nobody calls it: what was half open is closed without a call, and what was open is half open.
    pub(super) fn confirm(&mut self) -> Option<Change> {
        match self.state {
            State::HalfOpen { trying: false } => {
                self.opens = 0;
                self.turn(State::Closed { failures: 0 });
                return Some(Change::Closed);
            }
            State::Open { .. } => self.turn(State::HalfOpen { trying: false }),
            State::Closed { .. } | State::HalfOpen { trying: true } => {}
        }
        None
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Until when calls are refused; the present when one is tried first. None while it is closed.
    pub(super) fn refuses_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until } => Some(until.max(now)),
            State::HalfOpen { .. } => Some(now),
        }
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

/// How long it stays open at its `opens`th opening in a row.
fn wait(opens: u32) -> Duration {
    let times = 2_u32.checked_pow(opens.saturating_sub(1)).unwrap_or(u32::MAX);
    WAIT_FIRST.saturating_mul(times).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn begin() -> Instant {
        Instant::now()
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> Option<Change> {
        let pass = breaker.admit(now).expect("it lets calls pass");
        breaker.settle(pass, false, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_call_closes_it_again() {
        let (mut breaker, now) = (Breaker::new(), begin());
        for _ in 1..FAILURES_MAX {
            assert_eq!(fail(&mut breaker, now), None);
        }
        assert_eq!(fail(&mut breaker, now), Some(Change::Opened));
        assert_eq!(breaker.admit(now).unwrap_err(), Refused { until: now + WAIT_FIRST });
        let later = now + WAIT_FIRST;
        let tried = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "one at a time");
        assert_eq!(breaker.settle(tried, true, later), Some(Change::Closed));
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_good_call_in_between_begins_the_count_anew() {
        let (mut breaker, now) = (Breaker::new(), begin());
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                assert_eq!(fail(&mut breaker, now), None);
            }
            let pass = breaker.admit(now).unwrap();
            assert_eq!(breaker.settle(pass, true, now), None);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> = [1, 2, 3, 4, 7, 400].map(|opens| wait(opens).as_millis()).into();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 30_000, 30_000]);
    }

    #[test]
    fn a_call_that_is_given_up_leaves_its_place_to_the_next() {
        let (mut breaker, now) = (Breaker::new(), begin());
        while fail(&mut breaker, now).is_none() {}
        breaker.renew();
        let tried = breaker.admit(now).unwrap();
        assert!(breaker.admit(now).is_err());
        breaker.abandon(tried);
        assert!(breaker.admit(now).is_ok());
    }

    /// The same by the book: which calls still count, and what they said, one by one.
    struct Naive {
        mode: Mode,
        said: Vec<bool>,
        counting: BTreeSet<usize>,
        openings: u32,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Mode {
        Closed,
        Open(Instant),
        HalfOpen,
    }

    impl Naive {
        fn enter(&mut self, mode: Mode) {
            self.mode = mode;
            self.said.clear();
            self.counting.clear();
        }

        fn admit(&mut self, call: usize, now: Instant) -> bool {
            if let Mode::Open(until) = self.mode
                && now >= until
            {
                self.enter(Mode::HalfOpen);
            }
            let passes = match self.mode {
                Mode::Closed => true,
                Mode::HalfOpen => self.counting.is_empty(),
                Mode::Open(_) => false,
            };
            if passes {
                self.counting.insert(call);
            }
            passes
        }

        fn settle(&mut self, call: usize, healthy: bool, now: Instant) {
            if !self.counting.remove(&call) {
                return;
            }
            self.said.push(healthy);
            let in_a_row = self.said.iter().rev().take_while(|healthy| !**healthy).count();
            let opens = in_a_row >= FAILURES_MAX as usize || (self.mode == Mode::HalfOpen && !healthy);
            if opens {
                let mut open_for = WAIT_FIRST;
                for _ in 0..self.openings {
                    open_for = (open_for * 2).min(WAIT_MAX);
                }
                self.openings += 1;
                self.enter(Mode::Open(now + open_for));
            } else if self.mode == Mode::HalfOpen {
                self.openings = 0;
                self.enter(Mode::Closed);
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        Settle(usize, bool),
        Abandon(usize),
        Renew,
        Confirm,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            6 => (any::<prop::sample::Index>(), prop::bool::weighted(0.2)).prop_map(|(n, healthy)| Step::Settle(n.index(64), healthy)),
            1 => any::<prop::sample::Index>().prop_map(|n| Step::Abandon(n.index(64))),
            1 => Just(Step::Renew),
            1 => Just(Step::Confirm),
            2 => prop_oneof![0_u64..600, 0_u64..40_000].prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_one_that_remembers_everything(steps in prop::collection::vec(step(), 1..200)) {
            let mut now = begin();
            let mut breaker = Breaker::new();
            let mut naive =
                Naive { mode: Mode::Closed, said: Vec::new(), counting: BTreeSet::new(), openings: 0 };
            let mut under_way: Vec<(usize, Pass)> = Vec::new();
            for (call, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Begin => {
                        let looked = breaker.look(now);
                        let admitted = breaker.admit(now);
                        prop_assert_eq!(looked, admitted.as_ref().map(drop).map_err(|refused| *refused));
                        prop_assert_eq!(admitted.is_ok(), naive.admit(call, now), "{:?}", naive.mode);
                        match admitted {
                            Ok(pass) => under_way.push((call, pass)),
                            Err(refused) => prop_assert!(refused.until >= now),
                        }
                    }
                    Step::Settle(n, healthy) if !under_way.is_empty() => {
                        let (call, pass) = under_way.swap_remove(n % under_way.len());
                        let before = naive.mode;
                        naive.settle(call, healthy, now);
                        let change = match naive.mode {
                            mode if mode == before => None,
                            Mode::Closed => Some(Change::Closed),
                            _ => Some(Change::Opened),
                        };
                        prop_assert_eq!(breaker.settle(pass, healthy, now), change);
                    }
                    Step::Abandon(n) if !under_way.is_empty() => {
                        let (call, pass) = under_way.swap_remove(n % under_way.len());
                        naive.counting.remove(&call);
                        breaker.abandon(pass);
                    }
                    Step::Renew => {
                        if naive.mode != Mode::Closed {
                            naive.enter(Mode::HalfOpen);
                        }
                        breaker.renew();
                    }
                    Step::Confirm => {
                        let before = naive.mode;
                        match before {
                            Mode::HalfOpen if naive.counting.is_empty() => {
                                naive.openings = 0;
                                naive.enter(Mode::Closed);
                            }
                            Mode::Open(_) => naive.enter(Mode::HalfOpen),
                            _ => {}
                        }
                        let closes = before == Mode::HalfOpen && naive.mode == Mode::Closed;
                        prop_assert_eq!(breaker.confirm(), closes.then_some(Change::Closed));
                    }
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                    _ => {}
                }
                prop_assert_eq!(breaker.is_closed(), naive.mode == Mode::Closed);
                let until = match naive.mode {
                    Mode::Closed => None,
                    Mode::Open(until) => Some(until.max(now)),
                    Mode::HalfOpen => Some(now),
                };
                prop_assert_eq!(breaker.refuses_until(now), until);
            }
        }
    }
}
