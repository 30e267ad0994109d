//! What the disk says of an entry, in the kernel's words.

use std::os::fd::{AsFd, OwnedFd};

use nexus_kernel::hal::{ObjectInfo, StoreError};
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

/// The bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

pub(super) fn failed(path: &str, error: Errno) -> StoreError {
    match error {
        Errno::INVAL => StoreError::BadOption { why: format!("{path}: {error}") },
        // Opening does not follow links; whoever gets here asked for what lies behind one.
        Errno::LOOP => StoreError::NotSupported { what: "following a link" },
        _ => StoreError::io(path, error.into()),
    }
}

/// Of what failed when the change at `path` was made already: nobody knows what a crash leaves of it.
pub(super) fn done(path: &str, error: &StoreError) -> StoreError {
    let (what, cause) = (format!("changing {path:?}"), error.to_string());
    match error.is_backend_failure() {
        true => StoreError::Unknown { what, cause },
        false => StoreError::Doubtful { what, cause },
    }
}

/// What is called `name` in `parent`, and is at `path`.
pub(super) fn of_name(parent: &OwnedFd, name: &str, path: &str) -> Result<ObjectInfo, StoreError> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
    let mut info = of_stat(&stat);
    info.created = created(parent, name, AtFlags::SYMLINK_NOFOLLOW).unwrap_or(info.created);
    if info.entry_type == EntryType::Link {
        let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(|e| failed(path, e))?;
        // A target that is no text cannot be told; a wrong one would lead astray.
        info.link_target = target.to_str().ok().map(Into::into);
    }
    Ok(info)
}

/// What is there of an entry of this type of which no more can be told: its folder may be listed, and not entered.
pub(super) fn of_unseen(file_type: FileType, inode: u64) -> ObjectInfo {
    let entry_type = type_of_file(file_type);
    let mut info =
        ObjectInfo::new(entry_type, 0, ContentId::Tag(format!("{inode:x}-unseen").into()), Timestamp(0));
    info.inode = inode;
    info.mode = 0;
    info
}

/// What kind of entry is called `name` in `parent`.
pub(super) fn type_of(parent: &OwnedFd, name: &str) -> Result<EntryType, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| type_of_stat(&stat))
}

/// What `file` is by now, which is open, but for when it was made.
pub(super) fn of_open_now(file: impl AsFd, path: &str) -> Result<ObjectInfo, StoreError> {
    Ok(of_stat(&rustix::fs::fstat(&file).map_err(|e| failed(path, e))?))
}

/// What `file` is, which is open.
pub(super) fn of_open(file: impl AsFd, path: &str) -> Result<ObjectInfo, StoreError> {
    let mut info = of_open_now(&file, path)?;
    info.created = created(&file, "", AtFlags::EMPTY_PATH).unwrap_or(info.created);
    Ok(info)
}

/// When it was made, where the system keeps that.
#[cfg(target_os = "linux")]
fn created(folder: impl AsFd, name: &str, flags: AtFlags) -> Option<Timestamp> {
    use rustix::fs::{StatxFlags, statx};

    let stat = statx(folder, name, flags, StatxFlags::BTIME).ok()?;
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    known.then(|| timestamp(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec.into()))
}

#[cfg(not(target_os = "linux"))]
fn created(_: impl AsFd, _: &str, _: AtFlags) -> Option<Timestamp> {
    None
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the fields' types differ from system to system"
)]
fn of_stat(stat: &Stat) -> ObjectInfo {
    let entry_type = type_of_stat(stat);
    let size = match entry_type {
        EntryType::Reg | EntryType::Link => u64::try_from(stat.st_size).unwrap_or_default(),
        _ => 0,
    };
    let modified = timestamp(stat.st_mtime as i64, stat.st_mtime_nsec as u64);
    let changed = timestamp(stat.st_ctime as i64, stat.st_ctime_nsec as u64);
    let inode = stat.st_ino as u64;
    let tag = format!("{inode:x}-{size:x}-{:x}-{:x}", modified.nanos(), changed.nanos());
    let mut info = ObjectInfo::new(entry_type, size, ContentId::Tag(tag.into()), modified);
    info.inode = inode;
    // Of a folder that is how many folders are in it.
    if entry_type == EntryType::Reg {
        info.names = stat.st_nlink as u64;
    }
    info.mode = stat.st_mode as u32 & PERMISSIONS;
    info
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the field's type differs from system to system"
)]
fn type_of_stat(stat: &Stat) -> EntryType {
    type_of_file(FileType::from_raw_mode(stat.st_mode as _))
}

fn type_of_file(file_type: FileType) -> EntryType {
    match file_type {
        FileType::RegularFile => EntryType::Reg,
        FileType::Directory => EntryType::Dir,
        FileType::Symlink => EntryType::Link,
        // Pipes, and sockets and devices with them, are of no use here, but they are there.
        _ => EntryType::Pipe,
    }
}

/// The epoch, and what is before it, becomes the earliest time that there is: 0 says that nobody knows one.
fn timestamp(seconds: i64, nanos: u64) -> Timestamp {
    let Ok(seconds) = u64::try_from(seconds) else { return Timestamp::EARLIEST };
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)).max(Timestamp::EARLIEST)
}

pub(super) fn mode_of(mode: u32) -> Mode {
    Mode::from_bits_truncate((mode & PERMISSIONS) as _)
}

/// The times to set: that of reading stays, and that of writing becomes `modified`.
pub(super) fn times(modified: Timestamp) -> Timestamps {
    // The epoch is told as the earliest time.
    let modified = if modified == Timestamp::EARLIEST { Timestamp::default() } else { modified };
    let seconds = i64::try_from(modified.secs()).unwrap_or(i64::MAX);
    let nanos = i64::try_from(modified.nanos() % 1_000_000_000).unwrap_or_default();
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos },
    }
}

/// Gives `file` the attributes that the disk keeps.
pub(super) fn set_open(file: impl AsFd, attributes: &Attributes, path: &str) -> Result<(), StoreError> {
    if let Some(mode) = attributes.mode {
        rustix::fs::fchmod(&file, mode_of(mode)).map_err(|e| failed(path, e))?;
    }
    if let Some(modified) = attributes.modified {
        rustix::fs::futimens(&file, &times(modified)).map_err(|e| failed(path, e))?;
    }
    Ok(())
}

/// Gives what may not be read the attributes that the disk keeps.
#[cfg(target_os = "linux")]
pub(super) fn set_unread(
    parent: &OwnedFd,
    name: &str,
    attributes: &Attributes,
    path: &str,
) -> Result<(), StoreError> {
    use std::os::fd::AsRawFd;

    use rustix::fs::OFlags;

    use super::descend::{FILE, sync_open};

    let failed = |e| failed(path, e);
    let open = rustix::fs::openat(parent, name, OFlags::PATH | FILE, Mode::empty()).map_err(failed)?;
    if !matches!(of_open_now(&open, path)?.entry_type, EntryType::Reg | EntryType::Dir) {
        // It was one of those a moment ago.
        return Err(StoreError::NotSupported { what: "following a link" });
    }
    // What is open so is named by this alone, whatever becomes of its path.
    let named = format!("/proc/self/fd/{}", open.as_raw_fd());
    if let Some(mode) = attributes.mode {
        rustix::fs::chmod(&*named, mode_of(mode)).map_err(failed)?;
    }
    if let Some(modified) = attributes.modified {
        rustix::fs::utimensat(rustix::fs::CWD, &*named, &times(modified), AtFlags::empty())
            .map_err(failed)?;
    }
    sync_open(&open).map_err(failed)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn set_unread(_: &OwnedFd, _: &str, _: &Attributes, path: &str) -> Result<(), StoreError> {
    Err(failed(path, Errno::ACCESS))
}
