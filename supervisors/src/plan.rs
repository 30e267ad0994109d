//! Who is stopped and started when a child has ended.

use std::ops::Range;
use std::sync::Arc;

use crate::board::Kid;
use crate::spec::Strategy;

/// Work on several children.
#[derive(Default)]
pub(crate) struct Plan {
    /// In the order of their start; stopped in reverse.
    pub(crate) stop: Vec<Arc<Kid>>,
    /// Not started again.
    pub(crate) close: Vec<Arc<Kid>>,
    /// In order, and whether the start is a warm one.
    pub(crate) start: Vec<(Arc<Kid>, bool)>,
}

/// The children that are restarted with the one at `at`, itself included.
pub(crate) fn affected(strategy: Strategy, at: usize, len: usize) -> Range<usize> {
    match strategy {
        Strategy::OneForOne => at..at + 1,
        Strategy::OneForAll => 0..len,
        Strategy::RestForOne => at..len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_strategy_takes_its_own_share() {
        assert_eq!(affected(Strategy::OneForOne, 1, 4), 1..2);
        assert_eq!(affected(Strategy::OneForAll, 1, 4), 0..4);
        assert_eq!(affected(Strategy::RestForOne, 1, 4), 1..4);
    }
}
