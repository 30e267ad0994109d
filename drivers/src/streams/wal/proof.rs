//! What a log that was closed says of its end: up to which frame all was on disk. It is never flushed, and true whether it gets to the disk or not.
//!
//! It is a file of its own: what cuts the end of the log off, or overwrites it, leaves it as it is.

use std::sync::Arc;

use crate::disk::Folder;
use crate::frames::frame::Seed;
use crate::frames::segment::Last;

/// The name of that file.
pub(super) const NAME: &str = "closed";

const MAGIC: [u8; 8] = *b"NXSTCL\x01\0";
const BYTES: usize = 32;

/// Says that all is on disk up to the frame `last`, in the segment with this seed.
pub(super) fn write(folder: &Arc<dyn Folder>, seed: Seed, last: Last) {
    let mut out = Vec::with_capacity(BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&last.seq.to_le_bytes());
    out.extend_from_slice(&last.checksum.to_le_bytes());
    let sum = seed.checksum(&[&out]);
    out.extend_from_slice(&sum.to_le_bytes());
    let written = folder.open(NAME, true).and_then(|file| file.write_at(0, &out));
    if let Err(error) = written {
        tracing::debug!(%error, "the next start writes the last batch of streams again");
    }
}

/// Lays the file down, unless it is there: it says nothing yet, and to close on a disk that is full takes no room. There must be a segment.
pub(super) fn lay_down(folder: &Arc<dyn Folder>) {
    let laid = folder.open(NAME, true).and_then(|file| match file.len()? {
        0 => file.write_at(0, &[0; BYTES]),
        _ => Ok(()),
    });
    if let Err(error) = laid {
        tracing::debug!(%error, "there is no room to say that the streams were closed");
    }
}

/// What was said of the segment with this seed.
pub(super) fn read(folder: &Arc<dyn Folder>, seed: Seed) -> Option<Last> {
    let mut bytes = [0; BYTES];
    folder.open(NAME, false).ok()?.read_at(0, &mut bytes).ok()?;
    let (said, sum) = bytes.split_last_chunk::<8>()?;
    if seed.checksum(&[said]) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (seq, checksum) = said.strip_prefix(&MAGIC)?.split_first_chunk::<8>()?;
    let checksum = checksum.first_chunk::<8>()?;
    Some(Last { seq: u64::from_le_bytes(*seq), checksum: u64::from_le_bytes(*checksum) })
}
