//! Writing into a file as it is: to a place in it, or behind what it has by then.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use nexus_kernel::hal::{ObjectInfo, PathWrite, StoreError};
use nexus_messages::Attributes;
use rustix::fs::{AtFlags, OFlags};

use super::copying::STEP;
use super::folder::{Folder, content_info};
use super::info::{self, done};
use super::part::{sync, writable};
use crate::pooled::Wanted;

/// Where the bytes go.
#[derive(Clone, Copy)]
enum Goes {
    To {
        offset: u64,
        truncate: bool,
    },
    /// The system finds the end, so that what others append meanwhile stays.
    Behind,
}

impl Folder {
    /// Writes `data` into the file `name` in `parent`, at `path`. None when `how` asks for another content instead.
    pub(super) fn write_in_place(
        &self,
        (parent, name, path): (&OwnedFd, &str, &str),
        data: &[Bytes],
        how: &PathWrite,
        attributes: &Attributes,
        wanted: &Wanted,
    ) -> Option<Result<ObjectInfo, StoreError>> {
        let goes = match how {
            PathWrite::At { offset, truncate } => Goes::To { offset: *offset, truncate: *truncate },
            PathWrite::Append => Goes::Behind,
            _ => return None,
        };
        Some(self.write_as(parent, name, path, data, goes, attributes, wanted))
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments of a write, and where it was found to go")]
    fn write_as(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
        data: &[Bytes],
        goes: Goes,
        attributes: &Attributes,
        wanted: &Wanted,
    ) -> Result<ObjectInfo, StoreError> {
        let size: u64 = data.iter().map(|part| part.len() as u64).sum();
        let too_large = || StoreError::BadOption { why: format!("{path} cannot be so large") };
        let end = match goes {
            Goes::To { offset, truncate } => {
                let end = offset.checked_add(size).filter(|end| i64::try_from(*end).is_ok());
                Some(end.ok_or_else(too_large)?).filter(|_| truncate)
            }
            Goes::Behind => None,
        };
        let append = if matches!(goes, Goes::Behind) { OFlags::APPEND } else { OFlags::empty() };
        let (file, is_new) = self.open_or_make(parent, name, path, OFlags::WRONLY | append)?;
        writable(content_info(&file, path)?, path)?;
        let (begun, written) = match goes {
            Goes::To { offset, .. } => write_to(&file, data, offset, path, wanted),
            Goes::Behind => write_behind(&file, data, path, wanted),
        };
        if !begun && let Err(error) = written {
            if is_new {
                remove_empty(parent, name, &file);
            }
            return Err(error);
        }
        let settle = || {
            if let Some(end) = end {
                file.set_len(end).map_err(|e| StoreError::io(path, e))?;
            }
            info::set_open(&file, attributes, path)?;
            sync(&file, path)?;
            if is_new {
                sync(parent, path)?;
            }
            info::of_open(&file, path)
        };
        // From its first byte on it is changed.
        written.and_then(|()| settle()).map_err(|error| done(path, &error))
    }

    /// Opens the file `name`, or makes it; says whether it did.
    fn open_or_make(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
        flags: OFlags,
    ) -> Result<(File, bool), StoreError> {
        loop {
            match self.open_file(parent, name, path, flags) {
                Err(StoreError::NotFound { .. }) => {}
                opened => return Ok((opened?, false)),
            }
            match self.open_file(parent, name, path, flags | OFlags::CREATE | OFlags::EXCL) {
                // Somebody else was quicker.
                Err(StoreError::Exists { .. }) => {}
                made => return Ok((made?, true)),
            }
        }
    }
}

/// Writes `data` to `offset`; says also whether any of it was written.
fn write_to(
    file: &File,
    data: &[Bytes],
    offset: u64,
    path: &str,
    wanted: &Wanted,
) -> (bool, Result<(), StoreError>) {
    let mut at = offset;
    let mut write = || {
        for part in data {
            let mut rest = &part[..];
            while !rest.is_empty() {
                wanted.check()?;
                let some = rest.get(..STEP).unwrap_or(rest);
                let count = some_of(file.write_at(some, at), path)?;
                (rest, at) = (&rest[count..], at + count as u64);
            }
        }
        Ok(())
    };
    let written = write();
    (at > offset, written)
}

/// Writes `data` behind what the file has; says also whether any of it was written. In one step, as far as the system takes it so.
fn write_behind(file: &File, data: &[Bytes], path: &str, wanted: &Wanted) -> (bool, Result<(), StoreError>) {
    let mut parts: Vec<_> =
        data.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let (mut rest, mut begun, mut file) = (&mut parts[..], false, file);
    while !rest.is_empty() {
        let count = wanted.check().and_then(|()| some_of(file.write_vectored(rest), path));
        match count {
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) => return (begun, Err(error)),
        }
        begun |= matches!(count, Ok(1..));
    }
    (begun, Ok(()))
}

/// How much was written: something, unless a signal came first.
fn some_of(written: io::Result<usize>, path: &str) -> Result<usize, StoreError> {
    match written {
        Ok(0) => Err(StoreError::io(path, ErrorKind::WriteZero.into())),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        written => written.map_err(|e| StoreError::io(path, e)),
    }
}

/// Removes the file `name`, which was made for a write that wrote nothing, unless somebody else wrote to it.
fn remove_empty(parent: &OwnedFd, name: &str, file: &File) {
    let (Ok(made), Ok(there)) =
        (rustix::fs::fstat(file), rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))
    else {
        return;
    };
    if made.st_size == 0 && (made.st_dev, made.st_ino) == (there.st_dev, there.st_ino) {
        // The write is refused with its own reason.
        let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
    }
}
