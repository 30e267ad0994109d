//! A file that is laid down while there is room, so that a segment can be begun on a disk that is full: to begin one is what gives the space of the others back.
//!
//! It holds zeros. When it is missing, or short, there is no spare; nothing else comes of that.

use std::io;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;

use crate::disk::Folder;
use crate::frames::segment::{Segment, name_of};

/// The name of that file.
pub(super) const NAME: &str = "spare";

/// How long it is, in bytes. A segment begins with what all streams are: of those that know no operations this is enough for some hundreds.
const BYTES: u64 = 64 << 10;

static ZEROS: [u8; 8 << 10] = [0; 8 << 10];

/// Lays it down, unless it is there. Never flushed: the blocks that it is for are taken by writing.
pub(super) fn lay_down(folder: &Arc<dyn Folder>) {
    let laid = folder.open(NAME, true).and_then(|file| {
        let mut at = file.len()?;
        while at < BYTES {
            let piece = ZEROS.len().min(usize::try_from(BYTES - at).unwrap_or(ZEROS.len()));
            file.write_at(at, &ZEROS[..piece])?;
            at += piece as u64;
        }
        Ok(())
    });
    if let Err(error) = laid {
        tracing::debug!(%error, "there is no spare segment of the streams' log");
    }
}

/// Makes it the segment `number`, if it has room for so many bytes.
pub(super) fn take(
    folder: &Arc<dyn Folder>,
    salt: u64,
    number: u64,
    bytes: usize,
) -> Result<Segment, StoreError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::Full,
        _ => StoreError::io("taking the spare segment of the log", error),
    };
    let room = folder.open(NAME, false).and_then(|file| file.len()).map_err(failed)?;
    if room < bytes as u64 {
        return Err(StoreError::Full);
    }
    folder.rename(NAME, &name_of(number)).map_err(failed)?;
    Segment::open(folder, salt, number, false)
}
