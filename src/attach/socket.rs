//! The socket in the data folder.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The socket's name in the data folder.
pub(crate) const SOCKET: &str = "nexus.sock";

/// Where a new socket is made, out of everybody's reach.
const NURSERY: &str = ".nexus.sock.new";

/// The longest path that the operating system takes for a socket.
const SOCKET_PATH_MAX: usize = 107;

/// A path of the socket in `folder` that the operating system takes. What it leads through is open for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(Self { path, _folder: None });
        }
        // The way through an open folder is short, whatever the folder's own path is.
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// A socket that listens, and is gone with the value.
#[derive(Debug)]
pub(crate) struct Bound {
    path: PathBuf,
    /// The user that the socket belongs to, and so this process.
    pub(crate) user: u32,
}

impl Bound {
    /// Makes the socket in `folder`, whose owner we are: one that is there belongs to the dead, and is replaced.
    pub(crate) fn new(folder: &Path) -> io::Result<(Self, UnixListener)> {
        let nursery = folder.join(NURSERY);
        // What a killed owner left.
        let _ = fs::remove_dir_all(&nursery);
        DirBuilder::new().mode(0o700).create(&nursery)?;
        let made = Self::give_birth(folder, &nursery);
        let _ = fs::remove_dir_all(&nursery);
        made
    }

    /// It has its mode before anybody can reach it.
    fn give_birth(folder: &Path, nursery: &Path) -> io::Result<(Self, UnixListener)> {
        let listener = UnixListener::bind(&Address::of(nursery)?.path)?;
        listener.set_nonblocking(true)?;
        let socket = nursery.join(SOCKET);
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        let user = fs::symlink_metadata(&socket)?.uid();
        let path = folder.join(SOCKET);
        fs::rename(socket, &path)?;
        Ok((Self { path, user }, listener))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // When it is gone already, that is what is wanted.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn check(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let (bound, listener) = Bound::new(folder).unwrap();
        let found = fs::symlink_metadata(folder.join(SOCKET)).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.mode() & 0o7777, 0o600);
        assert!(!folder.join(NURSERY).exists());
        let _client = UnixStream::connect(&Address::of(folder).unwrap().path).unwrap();
        listener.set_nonblocking(false).unwrap();
        listener.accept().unwrap();
        drop(bound);
        assert!(!folder.join(SOCKET).exists());
    }

    #[test]
    fn a_socket_is_its_users_alone_wherever_the_folder_is() {
        let top = tempfile::tempdir().unwrap();
        check(&top.path().join("short"));
        check(&top.path().join("x".repeat(120)));
        check(&top.path().join("deep/".repeat(100)));
    }

    #[test]
    fn what_a_killed_owner_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (killed, listener) = Bound::new(folder.path()).unwrap();
        std::mem::forget(killed);
        drop(listener);
        fs::create_dir(folder.path().join(NURSERY)).unwrap();
        UnixStream::connect(folder.path().join(SOCKET)).unwrap_err();
        check(folder.path());
    }
}
