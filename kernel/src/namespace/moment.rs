//! Which place in a log a point in time is: by the times that its commits have.
//!
//! A commit has the time at which it had its path's lock, so of commits that are under way together a later one may have an earlier time. What was
//! seen at a time T was made by T: the place is the one before the first commit that was made after T.

use nexus_messages::{Lsn, Timestamp};

use crate::hal::{Metastore, StoreError, TreeId};

/// Among how many commits the times may be out of order: as many are looked at before the place that halving finds. Where a clock that was set back
/// put more of them out of order, the place is one at which the clock passed the time.
const DISORDER_MAX: usize = 1_024;

/// The times of commits.
pub(crate) trait Times {
    /// When the commit at `lsn` was made; none when nothing tells.
    fn at(&self, lsn: Lsn) -> Result<Option<Timestamp>, StoreError>;

    /// The commits after `since`, in the order of their places, at most `limit`.
    fn after(&self, since: Lsn, limit: usize) -> Result<Vec<(Lsn, Timestamp)>, StoreError>;
}

/// The times that the log of a tree tells.
pub(crate) struct LogTimes<'s> {
    pub(crate) store: &'s dyn Metastore,
    pub(crate) tree: TreeId,
}

impl Times for LogTimes<'_> {
    fn at(&self, lsn: Lsn) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.store.record(self.tree, lsn)?.map(|record| record.at))
    }

    fn after(&self, since: Lsn, limit: usize) -> Result<Vec<(Lsn, Timestamp)>, StoreError> {
        let records = self.store.changes(self.tree, since, limit)?;
        Ok(records.into_iter().map(|record| (record.lsn, record.at)).collect())
    }
}

/// The place of `time` among the commits from `first` to `last`; none when the first one was made after it. Looks at some 1,000 commits, however many
/// there are.
pub(crate) fn place_at(
    times: &dyn Times,
    first: Lsn,
    last: Lsn,
    time: Timestamp,
) -> Result<Option<Lsn>, StoreError> {
    // What the log lets go of meanwhile was made before all that it keeps.
    let is_by_then = |lsn| times.at(lsn).map(|at| at.is_none_or(|at| at <= time));
    if times.at(first)?.is_none_or(|at| at > time) {
        return Ok(None);
    }
    let (mut by_then, mut beyond) = (first.0, last.0.saturating_add(1));
    while beyond - by_then > 1 {
        let middle = by_then + (beyond - by_then) / 2;
        if is_by_then(Lsn(middle))? {
            by_then = middle;
        } else {
            beyond = middle;
        }
    }
    loop {
        let since = by_then.saturating_sub(DISORDER_MAX as u64).max(first.0);
        let limit = usize::try_from(by_then - since).unwrap_or(DISORDER_MAX);
        let page = if limit == 0 { Vec::new() } else { times.after(Lsn(since), limit)? };
        match page.into_iter().find(|(lsn, at)| lsn.0 <= by_then && *at > time) {
            Some((Lsn(later), _)) => by_then = later - 1,
            None => return Ok(Some(Lsn(by_then))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    /// The times of the commits from place 1 on, and how many were looked at.
    struct Log(Vec<u64>, Cell<usize>);

    impl Times for Log {
        fn at(&self, lsn: Lsn) -> Result<Option<Timestamp>, StoreError> {
            self.1.set(self.1.get() + 1);
            let index = usize::try_from(lsn.0).unwrap().checked_sub(1);
            Ok(index.and_then(|index| self.0.get(index)).copied().map(Timestamp))
        }

        fn after(&self, since: Lsn, limit: usize) -> Result<Vec<(Lsn, Timestamp)>, StoreError> {
            let all = (1..).map(Lsn).zip(self.0.iter().copied().map(Timestamp));
            let page: Vec<_> = all.skip(usize::try_from(since.0).unwrap()).take(limit).collect();
            self.1.set(self.1.get() + page.len());
            Ok(page)
        }
    }

    fn place(times: &[u64], first: u64, time: u64) -> Option<u64> {
        let log = Log(times.to_vec(), Cell::default());
        let place = place_at(&log, Lsn(first), Lsn(times.len() as u64), Timestamp(time)).unwrap();
        assert!(log.1.get() < 2 * DISORDER_MAX + 64, "{} commits were looked at", log.1.get());
        place.map(|Lsn(lsn)| lsn)
    }

    #[test]
    fn the_place_is_before_the_first_commit_that_was_made_later() {
        let check = |time, expected| assert_eq!(place(&[10, 20, 20, 15, 40], 1, time), expected, "at {time}");
        check(9, None);
        check(10, Some(1));
        check(15, Some(1)); // The one of 15 was under way behind those of 20, and seen after them.
        check(20, Some(4));
        check(39, Some(4));
        check(40, Some(5));
        check(u64::MAX, Some(5));
        assert_eq!(place(&[10, 20, 30], 2, 19), None, "what is before the first is not looked at");
        assert_eq!(place(&[10, 20, 30], 2, 20), Some(2));
    }

    #[test]
    fn a_clock_that_was_wrong_once_does_not_hide_what_came_long_after() {
        let mut times: Vec<u64> = (1..=50_000).collect();
        times[99] = u64::MAX;
        assert_eq!(place(&times, 1, 40_000), Some(40_000));
        assert_eq!(place(&times, 1, 200), Some(99), "but it does what came shortly after");
    }

    proptest! {
        /// Against the naive way, where times are out of order among fewer commits than are looked at.
        #[test]
        fn it_is_the_place_that_looking_at_all_commits_gives(
            steps in prop::collection::vec((0u64..3, 0u64..40), 1..400), first in 1u64..20, time in 0u64..700,
        ) {
            let mut clock = 50;
            let times: Vec<u64> = steps.iter().map(|(step, late)| { clock += step; clock - late }).collect();
            let first = first.min(times.len() as u64);
            let made = times.iter().zip(1u64..).skip(usize::try_from(first).unwrap() - 1);
            let all = made.take_while(|(at, _)| **at <= time).last();
            prop_assert_eq!(place(&times, first, time), all.map(|(_, lsn)| lsn));
        }
    }
}
