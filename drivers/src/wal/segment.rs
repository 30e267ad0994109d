//! The files of the log, and how frames are read again: after a crash, and around what is damaged.

use std::io;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;

use super::frame::{self, ALIGNMENT, CHAIN_START, HEADER_BYTES, Head, Header, Payload, Seed};
use crate::disk::{DiskFile, Folder};

/// How much is read at once when frames are looked for behind a damaged one, in bytes.
const SEARCH_BYTES: usize = 1 << 20;

/// What the names of segments end with.
const SUFFIX: &str = ".wal";

/// The number and the checksum of a frame, which the next one follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) seq: u64,
    pub(super) checksum: u64,
}

/// One file of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) seed: Seed,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Up to here the file has blocks.
    pub(super) written: u64,
}

/// The name of the segment with this number.
pub(super) fn name_of(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20)?.parse().ok()
}

pub(super) fn failed(what: &str) -> impl Fn(io::Error) -> StoreError + '_ {
    move |error| StoreError::io(what, error)
}

/// The numbers of the segments in `folder`, in their order.
pub(super) fn numbers(folder: &Arc<dyn Folder>) -> Result<Vec<u64>, StoreError> {
    let names = folder.list().map_err(failed("listing the log"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

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

impl Segment {
    pub(super) fn open(
        folder: &Arc<dyn Folder>,
        salt: u64,
        number: u64,
        make: bool,
    ) -> Result<Self, StoreError> {
        let what = format!("opening segment {number} of the log");
        let file = folder.open(&name_of(number), make).map_err(failed(&what))?;
        let written = file.len().map_err(failed(&what))?;
        Ok(Self { number, seed: Seed::of(salt, number), file, end: 0, written })
    }

    /// The frame at `at`, if there is a whole one.
    fn frame(&self, at: u64) -> Result<Option<(Header, Vec<u8>)>, StoreError> {
        let what = format!("reading segment {} of the log", self.number);
        let mut head = [0; HEADER_BYTES];
        if at + HEADER_BYTES as u64 > self.written {
            return Ok(None);
        }
        self.file.read_at(at, &mut head).map_err(failed(&what))?;
        let header = match frame::head(self.seed, &head) {
            Some(Head::Known(header)) => header,
            None => return Ok(None),
            Some(Head::Newer(format)) => {
                let cause = format!("format {format}, which this version does not know");
                return Err(StoreError::Backend { what, cause });
            }
        };
        if at + header.frame_bytes() > self.written {
            return Ok(None);
        }
        let mut payload = vec![0; header.payload_bytes()];
        self.file.read_at(at + HEADER_BYTES as u64, &mut payload).map_err(failed(&what))?;
        Ok(frame::is_whole(self.seed, &head, &header, &payload).then_some((header, payload)))
    }

    /// A frame behind `at` that says that all up to `seq` was on disk when it was written.
    fn proves(&self, at: u64, seq: u64) -> Result<Option<Header>, StoreError> {
        let mut proof = None;
        self.search(at, &mut |header, _| {
            proof = (header.durable >= seq).then_some(header);
            proof.is_none()
        })?;
        Ok(proof)
    }

    /// Looks at each whole frame from `at` on, whatever it follows, for as long as it is asked to go on.
    pub(super) fn search(
        &self,
        at: u64,
        look: &mut dyn FnMut(Header, Vec<u8>) -> bool,
    ) -> Result<(), StoreError> {
        let what = format!("reading segment {} of the log", self.number);
        let mut at = at;
        let mut piece = Vec::new();
        while at < self.written {
            let length = SEARCH_BYTES.min(usize::try_from(self.written - at).unwrap_or(SEARCH_BYTES));
            piece.resize(length, 0);
            self.file.read_at(at, &mut piece).map_err(failed(&what))?;
            for (n, eight) in piece.chunks(8).enumerate() {
                if frame::begins(eight)
                    && let Some((header, payload)) = self.frame(at + n as u64 * ALIGNMENT)?
                    && !look(header, payload)
                {
                    return Ok(());
                }
            }
            at += length as u64;
        }
        Ok(())
    }
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
