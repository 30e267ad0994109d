//! The files of a log: their names, what is appended to them, and how frames are found in them again.

use std::io;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;
use parking_lot::Mutex;

use super::frame::{self, ALIGNMENT, HEADER_BYTES, Head, Header, Seed};
use crate::disk::{DiskFile, Folder};

/// How much is read at once when frames are looked for behind a damaged one, in bytes.
const SEARCH_BYTES: usize = 1 << 20;

/// How much is written again at once, in bytes.
const AGAIN_BYTES: usize = 1 << 20;

/// What the names of segments end with.
const SUFFIX: &str = ".wal";

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The number and the checksum of a frame, which the next one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) seq: u64,
    pub(crate) checksum: u64,
}

/// One file of the log.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) seed: Seed,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Up to here the file has blocks.
    pub(crate) written: u64,
}

/// The name of the segment with this number.
pub(crate) fn name_of(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20)?.parse().ok()
}

pub(crate) fn failed(what: &str) -> impl Fn(io::Error) -> StoreError + '_ {
    move |error| StoreError::io(what, error)
}

/// The numbers of the segments in `folder`, in their order.
pub(crate) fn numbers(folder: &Arc<dyn Folder>) -> Result<Vec<u64>, StoreError> {
    let names = folder.list().map_err(failed("listing the log"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Segment {
    pub(crate) fn open(
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

    /// The header of the frame at `at`, if there is one and the file has room for all of it. Its payload is not looked at.
    #[cfg(feature = "local")]
    pub(crate) fn header(&self, at: u64) -> Result<Option<Header>, StoreError> {
        Ok(self.look(at)?.map(|(_, header)| header))
    }

    fn look(&self, at: u64) -> Result<Option<([u8; HEADER_BYTES], Header)>, StoreError> {
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
        Ok((at + header.frame_bytes() <= self.written).then_some((head, header)))
    }

    /// The frame at `at`, if there is a whole one.
    pub(crate) fn frame(&self, at: u64) -> Result<Option<(Header, Vec<u8>)>, StoreError> {
        let Some((head, header)) = self.look(at)? else { return Ok(None) };
        let what = format!("reading segment {} of the log", self.number);
        let mut payload = vec![0; header.payload_bytes()];
        self.file.read_at(at + HEADER_BYTES as u64, &mut payload).map_err(failed(&what))?;
        Ok(frame::is_whole(self.seed, &head, &header, &payload).then_some((header, payload)))
    }

    /// A frame behind `at` that says that all up to `seq` was on disk when it was written.
    pub(crate) fn proves(&self, at: u64, seq: u64) -> Result<Option<Header>, StoreError> {
        let mut proof = None;
        self.search(at, &mut |_, header, _| {
            proof = (header.durable >= seq).then_some(header);
            proof.is_none()
        })?;
        Ok(proof)
    }

    /// The number of the first whole frame in it, whatever it follows.
    pub(crate) fn any_frame(&self) -> Result<Option<u64>, StoreError> {
        let mut first = None;
        self.search(0, &mut |_, header, _| {
            first = Some(header.seq);
            false
        })?;
        Ok(first)
    }

    /// Looks at each whole frame from `at` on, whatever it follows, for as long as it is asked to go on.
    pub(crate) fn search(
        &self,
        at: u64,
        look: &mut dyn FnMut(u64, Header, Vec<u8>) -> bool,
    ) -> Result<(), StoreError> {
        let what = format!("reading segment {} of the log", self.number);
        let mut at = at;
        let mut piece = Vec::new();
        while at < self.written {
            let length = SEARCH_BYTES.min(usize::try_from(self.written - at).unwrap_or(SEARCH_BYTES));
            piece.resize(length, 0);
            self.file.read_at(at, &mut piece).map_err(failed(&what))?;
            for (n, eight) in piece.chunks(8).enumerate() {
                let place = at + n as u64 * ALIGNMENT;
                if frame::begins(eight)
                    && let Some((header, payload)) = self.frame(place)?
                    && !look(place, header, payload)
                {
                    return Ok(());
                }
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Writes `frames` where the next one goes, without going on behind them: whoever relies on them sets [`end`](Self::end). The file has blocks for them
    /// first, in steps of `ahead` bytes. `others` is the lock of those who may be flushing the file meanwhile; none when nobody is.
    pub(crate) fn write(
        &mut self,
        frames: &[u8],
        ahead: u64,
        others: Option<&Mutex<()>>,
    ) -> Result<(), Unwritten> {
        // Nothing of the frames was written: they are not there.
        self.extend(frames.len(), ahead).map_err(Unwritten::Not)?;
        let error = match self.file.write_at(self.end, frames) {
            Ok(()) => return Ok(()),
            Err(error) => failed("writing to the log")(error),
        };
        // Some of it may be there, even all. So that it never counts, it goes, and durably: all of it, because a frame that is written again as it was would
        // bring back those that stood behind it. Of a flush that fails only one of two would hear.
        let alone = others.map(Mutex::try_lock);
        if alone.as_ref().is_some_and(Option::is_none) {
            return Err(Unwritten::Unknown(error));
        }
        let until = self.end + frames.len() as u64;
        match self.zero(self.end, until).and_then(|()| self.file.sync()) {
            Ok(()) => Err(Unwritten::Not(error)),
            Err(_) => Err(Unwritten::Unknown(error)),
        }
    }

    /// Writes this part of the file again as it stands there, which takes no room, so that the next flush brings it to the disk: of what was read nobody knows whether an earlier one
    /// did, and failed.
    pub(crate) fn write_again(&self, from: u64, to: u64) -> io::Result<()> {
        let mut piece = Vec::new();
        let mut at = from;
        while at < to {
            let length = AGAIN_BYTES.min(usize::try_from(to - at).unwrap_or(AGAIN_BYTES));
            piece.resize(length, 0);
            self.file.read_at(at, &mut piece)?;
            self.file.write_at(at, &piece)?;
            at += length as u64;
        }
        Ok(())
    }

    /// Writes zeros over a part of the file.
    pub(crate) fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let piece = ZEROS.len().min(usize::try_from(to - at).unwrap_or(ZEROS.len()));
            self.file.write_at(at, &ZEROS[..piece])?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Sees to it that the file has blocks for so many bytes more: it is written with zeros up to a multiple of `ahead`.
    pub(crate) fn extend(&mut self, bytes: usize, ahead: u64) -> Result<(), StoreError> {
        let until = self.end + bytes as u64;
        if until > self.written {
            let zeros = until.next_multiple_of(ahead);
            let mut at = self.written;
            while at < zeros {
                let piece = ZEROS.len().min(usize::try_from(zeros - at).unwrap_or(ZEROS.len()));
                self.file.write_at(at, &ZEROS[..piece]).map_err(failed("extending the log"))?;
                at += piece as u64;
                self.written = at;
            }
        }
        Ok(())
    }
}

/// Why a frame was not written.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// It is not in the log, and never will be.
    Not(StoreError),
    /// It may be in the log. Nothing more may be written.
    Unknown(StoreError),
}
