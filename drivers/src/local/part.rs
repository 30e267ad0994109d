//! A file in the making: hidden in a folder until it takes its place, and gone when it does not.

use std::ffi::CStr;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use nexus_kernel::hal::{ObjectInfo, PathWrite, StoreError};
use nexus_messages::{Attributes, EntryType};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::descend::{FILE, open_folder, sync_open};
use super::info::{self, done, failed};
use crate::pooled::Wanted;

/// What the names of files in the making begin with. Listings leave them out, and no path may name them.
pub(super) const HIDDEN: &str = ".nexus-part-";

/// A file in the making. Dropping it removes it, unless it took its place.
///
/// Its lock says that it is in the making: what has none was left by a process that was killed.
#[derive(Debug)]
pub(super) struct Part {
    folder: OwnedFd,
    name: String,
    file: File,
    is_placed: bool,
}

impl Part {
    /// Makes one in `folder`, under the first of `names` that is free: a process of the same number, as containers have them, may have left others.
    pub(super) fn create(
        folder: OwnedFd,
        names: impl Fn() -> String,
        path: &str,
    ) -> Result<Self, StoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | FILE;
        loop {
            let name = names();
            let file = match rustix::fs::openat(&folder, &*name, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::EXIST) => continue,
                opened => File::from(opened.map_err(|e| failed(path, e))?),
            };
            // Before it had its lock, it looked like one that was left: who took it for that has the lock, and removes it. Where there are no locks, what is left stays
            // until somebody removes it.
            let is_taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            if !is_taken && rustix::fs::fstat(&file).map_err(|e| failed(path, e))?.st_nlink > 0 {
                return Ok(Self { folder, name, file, is_placed: false });
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes `data` behind what was written before.
    pub(super) fn write(&self, data: &[Bytes], path: &str) -> Result<(), StoreError> {
        let mut file = &self.file;
        data.iter().try_for_each(|bytes| file.write_all(bytes)).map_err(|e| StoreError::io(path, e))
    }

    /// Has the disk keep what was written.
    pub(super) fn sync(&self, path: &str) -> Result<(), StoreError> {
        sync(&self.file, path)
    }

    /// Takes the place `name` in `parent`, at `path`, durably.
    pub(super) fn place(
        mut self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
        how: &PathWrite,
        attributes: &Attributes,
        wanted: &Wanted,
    ) -> Result<ObjectInfo, StoreError> {
        let old = what_may_be_replaced(parent, name, path, how)?;
        let kept = old.as_ref().map(|old| EntryType::Reg.copied_mode(old.mode));
        let mode = attributes.mode.or(kept).unwrap_or(EntryType::Reg.default_mode());
        let part = self.file.as_fd().try_clone_to_owned().map_err(|e| StoreError::io(path, e))?;
        if old.is_some() {
            keep_owner(&part, parent, name);
        }
        info::set_open(&part, &attributes.clone().mode(mode), path)?;
        self.sync(path)?;
        // Writing took its time; what was written since to the same path must not be undone.
        wanted.check()?;
        if let PathWrite::IfMatch(_) = how {
            // As late as can be: nothing makes this and what follows one step.
            what_may_be_replaced(parent, name, path, how)?;
        }
        self.rename(parent, name, *how == PathWrite::Exclusive).map_err(|e| failed(path, e))?;
        self.is_placed = true;
        let placed = sync(parent, path).and_then(|()| info::of_open(&part, path));
        placed.map_err(|error| done(path, &error))
    }

    /// Moves the hidden file to its name.
    fn rename(&self, parent: &OwnedFd, name: &str, exclusive: bool) -> Result<(), Errno> {
        if !exclusive {
            return rustix::fs::renameat(&self.folder, &*self.name, parent, name);
        }
        match rename_new(&self.folder, &self.name, parent, name) {
            // A file system without such renames: a second name is refused when it is taken, too.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(&self.folder, &*self.name, parent, name, AtFlags::empty())?;
                // It has its place, whatever becomes of the hidden name.
                let _ = rustix::fs::unlinkat(&self.folder, &*self.name, AtFlags::empty());
                Ok(())
            }
            placed => placed,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_placed {
            // Hidden, and taken for left from here on, if it cannot be removed now.
            let _ = rustix::fs::unlinkat(&self.folder, &*self.name, AtFlags::empty());
        }
    }
}

/// What is there, that `how` may replace; nothing when a new file is to be made.
pub(super) fn what_may_be_replaced(
    parent: &OwnedFd,
    name: &str,
    path: &str,
    how: &PathWrite,
) -> Result<Option<ObjectInfo>, StoreError> {
    let changed = || StoreError::Changed { what: path.into() };
    match (info::of_name(parent, name, path), how) {
        (Ok(_), PathWrite::Exclusive) => Err(StoreError::Exists { what: path.into() }),
        (Ok(old), PathWrite::IfMatch(tag)) => {
            let old = writable(old, path)?;
            if old.tag == *tag { Ok(Some(old)) } else { Err(changed()) }
        }
        (Ok(old), _) => writable(old, path).map(Some),
        (Err(StoreError::NotFound { .. }), PathWrite::IfMatch(_)) => Err(changed()),
        (Err(StoreError::NotFound { .. }), _) => Ok(None),
        (Err(error), _) => Err(error),
    }
}

/// Gives `part` the owner and the group of the file `name`, whose place it is to take, as far as the system lets this process.
fn keep_owner(part: &OwnedFd, parent: &OwnedFd, name: &str) {
    let old = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let (Ok(old), Ok(new)) = (old, rustix::fs::fstat(part)) else { return };
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {
        let (owner, group) = (rustix::fs::Uid::from_raw(old.st_uid), rustix::fs::Gid::from_raw(old.st_gid));
        // Who may not give it away keeps it.
        let _ = rustix::fs::fchown(part, Some(owner), Some(group));
    }
}

/// `there`, if it is a file whose content may be written.
pub(super) fn writable(there: ObjectInfo, path: &str) -> Result<ObjectInfo, StoreError> {
    match there.entry_type {
        EntryType::Reg => Ok(there),
        EntryType::Dir => Err(StoreError::IsADirectory { what: path.into() }),
        EntryType::Link => Err(StoreError::NotSupported { what: "writing through a link" }),
        _ => Err(StoreError::NotSupported { what: "writing to what is not a file" }),
    }
}

#[cfg(target_os = "linux")]
fn rename_new(folder: &OwnedFd, hidden: &str, parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    rustix::fs::renameat_with(folder, hidden, parent, name, rustix::fs::RenameFlags::NOREPLACE)
}

#[cfg(not(target_os = "linux"))]
fn rename_new(_: &OwnedFd, _: &str, _: &OwnedFd, _: &str) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

pub(super) fn sync(file: impl AsFd, path: &str) -> Result<(), StoreError> {
    sync_open(file).map_err(|e| failed(path, e))
}

/// Removes from `folder` what processes that were killed left in the making.
pub(super) fn remove_left(folder: &OwnedFd) -> Result<(), Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes().starts_with(HIDDEN.as_bytes())
            && let Some(_locked) = left(folder, name)
        {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Removes what is left in the folder `name`, if there is nothing else in it.
pub(super) fn remove_hidden(parent: &OwnedFd, name: &str) -> Result<bool, Errno> {
    let folder = open_folder(parent, name)?;
    let mut hidden = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        match entry.file_name() {
            name if matches!(name.to_bytes(), b"." | b"..") => {}
            name if name.to_bytes().starts_with(HIDDEN.as_bytes()) => match left(&folder, name) {
                Some(locked) => hidden.push((name.to_owned(), locked)),
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
    }
    for (name, _locked) in &hidden {
        rustix::fs::unlinkat(&folder, name.as_c_str(), AtFlags::empty())?;
    }
    Ok(!hidden.is_empty())
}

/// The file `name`, if nobody makes it any more: its lock can be had, and is held until this is dropped, so that nobody begins to make it meanwhile. Where that cannot
/// be told it is taken for one in the making.
fn left(folder: &OwnedFd, name: &CStr) -> Option<File> {
    // Over a network, a lock is given only to who may write.
    let opened = rustix::fs::openat(folder, name, OFlags::RDWR | FILE, Mode::empty()).ok()?;
    let file = File::from(opened);
    file.try_lock().is_ok().then_some(file)
}
