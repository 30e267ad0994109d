//! Walking down from the mounted folder without ever leaving it.
//!
//! No component may be a link, so nothing that others do to the tree meanwhile leads elsewhere: what was opened is what is used, whatever its path is by
//! then. Where the system has `openat2` it sees to that in one call; else each component is opened from the folder before it.

use std::os::fd::{AsFd, OwnedFd};

use nexus_kernel::hal::StoreError;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::info::failed;

/// What a folder is opened with.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a folder is opened with that may be entered, and not listed.
#[cfg(target_os = "linux")]
const ENTERED: OFlags = FOLDER.union(OFlags::PATH);

#[cfg(not(target_os = "linux"))]
const ENTERED: OFlags = FOLDER;

/// What a file is opened with beside reading or writing. Without waiting: a pipe that lies there must not hold a thread of the pool.
pub(super) const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Opens the folder below `root` that `names` lead to.
pub(super) fn folder(root: &OwnedFd, names: &[&str]) -> Result<OwnedFd, StoreError> {
    // One component is one call in either way.
    if names.len() > 1
        && let Some(folder) = beneath(root, &names.join("/"))
    {
        return Ok(folder);
    }
    // What fails is looked for step by step: the error names the component then.
    names.iter().enumerate().try_fold(dup(root)?, |folder, (depth, name)| {
        open_folder(&folder, name).map_err(|e| failed(&names[..=depth].join("/"), not_a_link(e)))
    })
}

/// Opens the folder that `names` lead to, and makes what is missing of them, durably.
pub(super) fn folder_made(root: &OwnedFd, names: &[&str]) -> Result<OwnedFd, StoreError> {
    names.iter().enumerate().try_fold(dup(root)?, |folder, (depth, name)| {
        let failed = |e| failed(&names[..=depth].join("/"), not_a_link(e));
        match open_folder(&folder, name) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&folder, *name, Mode::from_raw_mode(0o755)) {
                    // Somebody else was quicker.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                sync_open(&folder).map_err(failed)?;
                open_folder(&folder, name).map_err(failed)
            }
            opened => opened.map_err(failed),
        }
    })
}

/// The deepest folder that is there of those on the way that `names` lead.
pub(super) fn folder_there(root: &OwnedFd, names: &[&str]) -> Result<OwnedFd, StoreError> {
    let mut folder = dup(root)?;
    for (depth, name) in names.iter().enumerate() {
        folder = match open_folder(&folder, name) {
            Err(Errno::NOENT) => return Ok(folder),
            opened => opened.map_err(|e| failed(&names[..=depth].join("/"), not_a_link(e)))?,
        };
    }
    Ok(folder)
}

/// The folder at `path`, if the system opens it in one call.
#[cfg(target_os = "linux")]
fn beneath(root: &OwnedFd, path: &str) -> Option<OwnedFd> {
    use rustix::fs::ResolveFlags;

    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, FOLDER, Mode::empty(), stay).ok()
}

#[cfg(not(target_os = "linux"))]
fn beneath(_: &OwnedFd, _: &str) -> Option<OwnedFd> {
    None
}

/// Has the disk keep what is open.
pub(super) fn sync_open(open: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::fsync(open) {
        // A folder that may not be listed cannot be asked for alone.
        #[cfg(target_os = "linux")]
        Err(Errno::BADF) => {
            rustix::fs::sync();
            Ok(())
        }
        synced => synced,
    }
}

pub(super) fn dup(folder: &OwnedFd) -> Result<OwnedFd, StoreError> {
    folder.try_clone().map_err(|e| StoreError::io("opening the mounted folder", e))
}

/// Opens the folder `name`; one that may not be listed, for what is in it.
pub(super) fn open_folder(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&parent, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => rustix::fs::openat(parent, name, ENTERED, Mode::empty()),
        opened => opened,
    }
}

/// A link on the way is, to this driver, something that is not a directory.
fn not_a_link(error: Errno) -> Errno {
    if error == Errno::LOOP { Errno::NOTDIR } else { error }
}
