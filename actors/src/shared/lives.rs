//! Who lives: a file in which each process that shares memory holds a lock on one byte, whose place is the process's identity.
//!
//! The system gives a lock back when the last of the threads ends that hold the file open, and when the process becomes another program by `exec`: the file is closed then. It
//! knows locks by the open file and not by process numbers, so it answers the same to processes that cannot see each other's numbers, or whose clocks differ; all
//! that they share is the file.
//!
//! A child that a process forked has the file open, too, until it ends or becomes another program: its parent counts as alive for so long.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::OFlags;

/// Bits of a process's identity that are its number: no system has larger ones. The others are random, so nobody has an identity that another one had.
const PID_BITS: u32 = 22;

/// How often another identity is tried when somebody has the one that was made up.
const ATTEMPTS_MAX: usize = 16;

/// The files that this process has open. One that it opened twice would make it two processes to others.
static OPEN: Mutex<Vec<Weak<Lives>>> = Mutex::new(Vec::new());

/// Who lives, of those who share a folder; and this process as one of them, as long as this value is there.
#[derive(Debug)]
pub(super) struct Lives {
    file: File,
    /// Which file it is.
    inode: (u64, u64),
    me: u64,
}

impl Lives {
    /// Joins those of this file; `makes` it, if it is not there. Blocks: it opens a file.
    ///
    /// # Errors
    /// `Unsupported` where the system has no such locks; what the system says.
    pub(super) fn join(path: &Path, makes: bool) -> io::Result<Arc<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(makes).truncate(false).mode(0o600);
        // Closed by `exec`, as all files that are opened here are.
        Self::of(options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?)
    }

    /// Joins those of this file.
    pub(super) fn of(file: File) -> io::Result<Arc<Self>> {
        let found = file.metadata()?;
        let inode = (found.dev(), found.ino());
        let mut open = OPEN.lock();
        open.retain(|lives| lives.strong_count() > 0);
        if let Some(lives) = open.iter().filter_map(Weak::upgrade).find(|lives| lives.inode == inode) {
            return Ok(lives);
        }
        let lives = Arc::new(Self { me: enter(&file)?, file, inode });
        open.push(Arc::downgrade(&lives));
        Ok(lives)
    }

    /// Who this process is. Never 0.
    #[inline]
    pub(super) fn me(&self) -> u64 {
        self.me
    }

    /// Whether no process is this one, or no more. What cannot be told is not so.
    pub(super) fn is_dead(&self, process: u64) -> bool {
        process != self.me && system::is_free(&self.file, process).unwrap_or(false)
    }
}

/// Whether this process is dead, to those of the file at `path`. Blocks: it opens a file.
pub(super) fn is_dead(path: &Path, process: u64) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
    system::is_free(&file, process)
}

/// The number of a process, as it knows it itself.
pub(super) fn pid_of(process: u64) -> u32 {
    (process & ((1 << PID_BITS) - 1)) as u32
}

/// Makes up an identity, and takes it for as long as the file is open.
pub(super) fn enter(file: &File) -> io::Result<u64> {
    let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    for _ in 0..ATTEMPTS_MAX {
        let random = RandomState::new().build_hasher().finish();
        // A place in a file has no sign.
        let me = ((random << PID_BITS) | u64::from(pid_of(pid.into()))) & i64::MAX.cast_unsigned();
        if system::take(file, me)? {
            return Ok(me);
        }
    }
    Err(io::Error::other("no identity of a process is to be had"))
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    fn byte(at: u64, kind: libc::c_int) -> io::Result<libc::flock> {
        let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
        let narrow = |constant: libc::c_int| libc::c_short::try_from(constant).map_err(io::Error::other);
        let (l_type, l_whence) = (narrow(kind)?, narrow(libc::SEEK_SET)?);
        Ok(libc::flock { l_type, l_whence, l_start: at, l_len: 1, l_pid: 0 })
    }

    /// Takes the byte at `at` for as long as the file is open; false when somebody else has it.
    pub(super) fn take(file: &File, at: u64) -> io::Result<bool> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(at, libc::F_WRLCK)?)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => {
                let why = format!("the system does not tell who lives: {error}");
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
        }
    }

    /// Whether nobody who has opened the file another time has the byte at `at`.
    pub(super) fn is_free(file: &File, at: u64) -> io::Result<bool> {
        // Where no byte is, nobody is.
        let Ok(mut found) = byte(at, libc::F_WRLCK) else { return Ok(true) };
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
        Ok(libc::c_int::from(found.l_type) == libc::F_UNLCK)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::File;
    use std::io;

    pub(super) fn take(_: &File, _: u64) -> io::Result<bool> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "who lives is known on Linux alone"))
    }

    pub(super) fn is_free(_: &File, _: u64) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_as_long_as_it_has_the_file_open_and_is_one_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lives");
        assert_eq!(Lives::join(&path, false).unwrap_err().kind(), io::ErrorKind::NotFound);
        let lives = Lives::join(&path, true).unwrap();
        assert_eq!(pid_of(lives.me()), std::process::id());
        assert_eq!(Lives::join(&path, false).unwrap().me(), lives.me(), "it is one, however often it joins");
        // As another process: it has opened the file by itself.
        let other = File::options().read(true).write(true).open(&path).unwrap();
        let it = enter(&other).unwrap();
        assert!(it != lives.me() && !lives.is_dead(it) && !lives.is_dead(lives.me()));
        assert!(!system::is_free(&other, lives.me()).unwrap() && !is_dead(&path, it).unwrap());
        assert!(!system::take(&other, lives.me()).unwrap(), "nobody else is this one");
        drop(other);
        assert!(lives.is_dead(it) && is_dead(&path, it).unwrap());
        assert!(lives.is_dead(u64::MAX), "no process is that");
        let me = lives.me();
        drop(lives);
        assert!(is_dead(&path, me).unwrap());
        assert_ne!(Lives::join(&path, true).unwrap().me(), me, "it is another one then");
    }
}
