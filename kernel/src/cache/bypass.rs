//! When a cache that is late is left alone. Pure: handed the time.

use std::time::{Duration, Instant};

/// So many late calls in a row, and it is left alone.
pub const LATE_MAX: u32 = 4;

/// For so long it is left alone.
pub const LEFT_ALONE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Bypass {
    late: u32,
    until: Option<Instant>,
}

impl Bypass {
    /// Whether it may be asked. When the time is over, the first who comes tries it, and others do not until it is known what came of that.
    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        if self.is_left_alone(now) {
            return false;
        }
        if self.until.is_some() {
            // Given up calls tell nothing: then the next one tries after the same time.
            self.until = now.checked_add(LEFT_ALONE);
        }
        true
    }

    pub(super) fn is_left_alone(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    pub(super) fn answered(&mut self, in_time: bool, now: Instant) {
        if in_time {
            *self = Self::default();
            return;
        }
        self.late = self.late.saturating_add(1);
        if self.late >= LATE_MAX {
            self.until = now.checked_add(LEFT_ALONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant is needed to count from")]
    fn it_is_left_alone_when_late_and_tried_by_one() {
        let (start, mut bypass) = (Instant::now(), Bypass::default());
        for _ in 0..LATE_MAX {
            assert!(bypass.may_ask(start));
            bypass.answered(false, start);
        }
        assert!(!bypass.may_ask(start));
        let later = start + LEFT_ALONE;
        assert!(bypass.may_ask(later) && !bypass.may_ask(later), "one tries it");
        bypass.answered(false, later);
        assert!(!bypass.may_ask(later));
        let last = later + LEFT_ALONE;
        assert!(bypass.may_ask(last));
        bypass.answered(true, last);
        assert!(bypass.may_ask(last) && bypass.may_ask(last), "it serves");
    }
}
