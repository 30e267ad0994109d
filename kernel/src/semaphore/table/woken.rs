//! What follows from an operation when its part is let go of.

use std::task::Waker;

use smallvec::SmallVec;

use crate::semaphore::places::Moment;

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

    pub(super) fn ends(&mut self, at: Moment) {
        self.ends = Some(self.ends.map_or(at, |other| other.min(at)));
    }
}
