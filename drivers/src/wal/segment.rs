//! How the log is read again: after a crash, and around what is damaged.

use std::sync::Arc;

use nexus_kernel::hal::StoreError;

use super::frame::{self, CHAIN_START, Payload};
use crate::disk::Folder;
pub(super) use crate::frames::segment::{Last, Segment, Unwritten, failed, name_of, number_of, numbers};

/// Reads the log in `folder` as [`Journal::open`](super::journal::Journal::open) does, and changes nothing. Gives what is damaged, and the numbers of all segments; none when nothing is.
pub(super) fn read_all(
    folder: &Arc<dyn Folder>,
    salt: u64,
    applied: u64,
    replay: &mut impl FnMut(u64, Payload<'static>) -> Result<(), StoreError>,
) -> Result<Option<(Gap, Vec<u64>)>, StoreError> {
    let numbers = numbers(folder)?;
    let mut reading = Reading::after(applied);
    for number in &numbers {
        let mut segment = Segment::open(folder, salt, *number, false)?;
        if let Err(error) = reading.segment(&mut segment, replay) {
            return reading.gap.map(|gap| Some((gap, numbers))).ok_or(error);
        }
    }
    Ok(None)
}

/// A frame that is not there, although a later one says that it was on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// The segment in which all ends that is whole.
    pub(super) segment: u64,
    /// Where in that segment.
    pub(super) at: u64,
    /// The number of the frame.
    pub(super) frame: u64,
    /// The number of the later one.
    pub(super) proof: u64,
}

/// Where reading the log has come to.
pub(super) struct Reading {
    last: Option<Last>,
    applied: u64,
    /// Where the log ended: the segment, the place in it, and the number of the frame that is not there.
    torn: Option<(u64, u64, u64)>,
    /// What is damaged, where it ended with that.
    gap: Option<Gap>,
}

impl Reading {
    /// Before the first segment, of a log of which all up to the frame `applied` is in the database.
    pub(super) fn after(applied: u64) -> Self {
        Self { last: None, applied, torn: None, gap: None }
    }

    /// Reads the frames of `segment`, and gives how many there are. Sets where it ends.
    pub(super) fn segment(
        &mut self,
        segment: &mut Segment,
        replay: &mut impl FnMut(u64, Payload<'static>) -> Result<(), StoreError>,
    ) -> Result<usize, StoreError> {
        let mut frames = 0;
        while let Some((header, payload)) = segment.frame(segment.end)? {
            let follows = match self.last {
                None => header.seq <= self.applied + 1,
                Some(last) if header.seq == last.seq + 1 => header.previous == last.checksum,
                // A segment in between was let go: its frames are in the database.
                Some(last) => frames == 0 && header.seq > last.seq && header.seq <= self.applied + 1,
            };
            if !follows {
                // Left over from a frame that nobody was told of, or the proof that one which somebody was told of is gone.
                break;
            }
            if header.seq > self.applied {
                let payload = frame::decode(&payload).map_err(|found| StoreError::Corrupt {
                    what: format!("frame {} of the log", header.seq),
                    found,
                })?;
                replay(header.seq, payload)?;
            }
            self.last = Some(Last { seq: header.seq, checksum: header.checksum });
            segment.end += header.frame_bytes();
            frames += 1;
        }
        let missing = self.last.map_or(self.applied + 1, |last| last.seq + 1);
        if missing > self.applied
            && let Some(proof) = segment.proves(segment.end, missing)?
        {
            let (at, place) = match self.torn {
                Some((segment, place, _)) if frames == 0 => (segment, place),
                _ => (segment.number, segment.end),
            };
            self.gap = Some(Gap { segment: at, at: place, frame: missing, proof: proof.seq });
            return Err(StoreError::Corrupt {
                what: format!("frame {missing} of the log (segment {at}, at {place})"),
                found: format!(
                    "nothing whole, and frame {} was written after it was on disk; fsck tells what can be kept",
                    proof.seq
                ),
            });
        }
        if frames > 0 || self.torn.is_none() {
            self.torn = Some((segment.number, segment.end, missing));
        }
        Ok(frames)
    }

    /// The last frame of the log, or what stands for it when there is none.
    pub(super) fn end(&self) -> Last {
        match self.last {
            Some(last) if last.seq >= self.applied => last,
            _ => Last { seq: self.applied, checksum: CHAIN_START },
        }
    }
}
