//! The content of one file made that of another, within one folder.
//!
//! Where the file system can, both share it until one of them is written to: then it takes no time, whatever its size. Elsewhere the system moves it, and what is
//! too large for that to be one step of a driver is left to whoever can do it piece by piece.

use std::fs::File;
use std::io::{Read, Seek};

use nexus_kernel::hal::StoreError;

use crate::pooled::Wanted;

/// More than this is not moved.
const MOVED_MAX: u64 = 64 << 20;

/// How much is moved until it is looked whether it is still wanted.
const STEP: u64 = 8 << 20;

/// Makes all of `source`, which has so many bytes, the content of `part`, which is empty, or has what an earlier try left.
pub(super) fn fill(
    source: &File,
    bytes: u64,
    part: &File,
    path: &str,
    wanted: &Wanted,
) -> Result<(), StoreError> {
    if is_shared(source, part) {
        return Ok(());
    }
    if bytes > MOVED_MAX {
        return Err(StoreError::NotSupported { what: "copying so much at once" });
    }
    let failed = |error| StoreError::io(path, error);
    let (mut from, mut to) = (source, part);
    part.set_len(0).map_err(failed)?;
    from.rewind().map_err(failed)?;
    to.rewind().map_err(failed)?;
    loop {
        wanted.check()?;
        // Between two files it is the system that copies.
        if std::io::copy(&mut from.take(STEP), &mut to).map_err(failed)? < STEP {
            return Ok(());
        }
    }
}

/// Whether the file system now shares the content of `source` with `part`.
#[cfg(target_os = "linux")]
fn is_shared(source: &File, part: &File) -> bool {
    rustix::fs::ioctl_ficlone(part, source).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn is_shared(_: &File, _: &File) -> bool {
    false
}
