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

/// How much is moved, or written, until it is looked whether it is still wanted.
pub(super) const STEP: usize = 8 << 20;

/// Makes all of `source`, which has so many bytes, the content of `part`, which is empty, or has what an earlier try left.
pub(super) fn fill(
    source: &File,
    bytes: u64,
    part: &File,
    path: &str,
    wanted: &Wanted,
) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(path, error);
    // Neither way makes it shorter.
    part.set_len(0).map_err(failed)?;
    if is_shared(source, part) {
        return Ok(());
    }
    if bytes > MOVED_MAX {
        return Err(StoreError::NotSupported { what: "copying so much at once" });
    }
    let (mut from, mut to) = (source, part);
    from.rewind().map_err(failed)?;
    to.rewind().map_err(failed)?;
    loop {
        wanted.check()?;
        // Between two files it is the system that copies.
        if std::io::copy(&mut from.take(STEP as u64), &mut to).map_err(failed)? < STEP as u64 {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;

    /// On a file system that shares content, too: there it is the system that makes the one file the other, and it leaves what is longer.
    #[test]
    fn nothing_is_left_of_an_earlier_try_that_was_longer() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("source"), vec![7; 8_192]).unwrap();
        let source = File::open(at("source")).unwrap();
        let waiting = Arc::new(());
        let part = File::options().create_new(true).read(true).write(true).open(at("part")).unwrap();
        part.set_len(1 << 20).unwrap();
        fill(&source, 8_192, &part, "source", &Wanted::by(&waiting)).unwrap();
        assert_eq!(fs::read(at("part")).unwrap(), vec![7; 8_192]);
    }
}
