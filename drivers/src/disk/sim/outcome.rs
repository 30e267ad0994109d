//! What becomes of what was not flushed, one outcome after the other.

use std::ops::Range;

use super::{Kept, SimDisk};

/// What a crash leaves of what was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Digit by digit, to the base of three: nothing is kept of the first thing, or all, or a part.
    Digits(usize),
    /// By chance.
    Seed(u64),
}

impl Outcome {
    /// All outcomes for so many things that were not flushed; when these are more than `max`, those of `seeds`.
    pub fn of(unsynced: usize, max: usize, seeds: Range<u64>) -> Vec<Self> {
        let all = u32::try_from(unsynced).ok().and_then(|count| 3_usize.checked_pow(count));
        match all.filter(|count| *count <= max) {
            Some(count) => (0..count).map(Self::Digits).collect(),
            None => seeds.map(Self::Seed).collect(),
        }
    }

    /// Crashes the disk so.
    pub fn crash(self, disk: &SimDisk) {
        match self {
            Self::Seed(seed) => disk.crash_by(seed),
            Self::Digits(number) => {
                let mut rest = number;
                disk.crash(|_| {
                    let digit = rest % 3;
                    rest /= 3;
                    match digit {
                        0 => Kept::Nothing,
                        1 => Kept::All,
                        _ => Kept::Torn(number as u64 + 7),
                    }
                });
            }
        }
    }
}
