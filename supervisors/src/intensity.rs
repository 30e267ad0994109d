//! Counts restarts in a sliding period.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Invariant: holds at most `max + 1` times, none older than `within` at the last hit.
#[derive(Debug)]
pub(crate) struct Intensity {
    max: u32,
    within: Duration,
    hits: VecDeque<Instant>,
}

impl Intensity {
    pub(crate) fn new(max: u32, within: Duration) -> Self {
        Intensity { max, within, hits: VecDeque::new() }
    }

    /// Counts a restart. True when there were more than allowed within the period that ends now.
    pub(crate) fn hit(&mut self, now: Instant) -> bool {
        self.hits.push_back(now);
        while let Some(first) = self.hits.front()
            && now.saturating_duration_since(*first) > self.within
        {
            self.hits.pop_front();
        }
        let too_many = self.hits.len() > self.max as usize;
        if too_many {
            self.hits.pop_front();
        }
        too_many
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_count_over_all_times(max in 0_u32..5, steps in prop::collection::vec(0_u64..40, 1..60)) {
            let within = Duration::from_millis(50);
            #[expect(clippy::disallowed_methods, reason = "any time will do")]
            let begin = Instant::now();
            let mut counted = Intensity::new(max, within);
            let mut all = Vec::new();
            let mut now = begin;
            for step in steps {
                now += Duration::from_millis(step);
                all.push(now);
                let recent = all.iter().filter(|at| now - **at <= within).count();
                prop_assert_eq!(counted.hit(now), recent > max as usize);
            }
        }
    }
}
