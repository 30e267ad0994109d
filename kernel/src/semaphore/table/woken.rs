//! What follows from an operation when its part is let go of.

use std::task::Waker;
use std::time::Duration;

use smallvec::SmallVec;

use crate::semaphore::places::Moment;

/// What is held for less than this ends before somebody would look at all that is held: its end is told.
pub(crate) const BRIEF_BELOW: Duration = Duration::from_secs(1);

/// What the bell is rung for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bid {
    /// Somebody waits, and is to be looked after by then.
    Look(Moment),
    /// What is held ends then, whether somebody waits for it or not.
    Ends(Moment),
}

/// Who was served or told in one operation, woken when the part is let go of.
#[derive(Default)]
pub(super) struct Woken {
    pub(super) served: SmallVec<[Waker; 1]>,
    /// Who only hears of what happened.
    pub(super) hearing: Vec<Waker>,
    /// By when somebody is to look.
    pub(super) look_by: Option<Moment>,
    /// When the first place ends that is held so briefly that nobody would look in time.
    pub(super) ends: Option<Moment>,
}

impl Woken {
    pub(super) fn look_by(&mut self, by: Moment) {
        self.look_by = Some(self.look_by.map_or(by, |other| other.min(by)));
    }

    /// What was given or extended for `ttl` ends then, which is of interest when that is brief.
    #[inline]
    pub(super) fn ends(&mut self, ttl: Duration, at: Moment) {
        if ttl < BRIEF_BELOW {
            self.ends = Some(self.ends.map_or(at, |other| other.min(at)));
        }
    }

    /// Whether nothing follows.
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.served.is_empty() && self.hearing.is_empty() && self.look_by.is_none() && self.ends.is_none()
    }

    /// Wakes them, and rings the bell.
    pub(super) fn wake(self, bell: &dyn Fn(Bid)) {
        self.served.into_iter().chain(self.hearing).for_each(Waker::wake);
        if let Some(by) = self.look_by {
            bell(Bid::Look(by));
        }
        if let Some(at) = self.ends {
            bell(Bid::Ends(at));
        }
    }
}
