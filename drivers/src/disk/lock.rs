//! A file that is locked for as long as its holder lives, so that no other process does what only one may.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// The lock of a file, and by no means held for longer than its process lives.
#[derive(Debug)]
pub(crate) struct FileLock {
    // Invariant: locked.
    file: File,
}

impl FileLock {
    /// Takes the lock of the file at `path`, which is made when it is missing; none when somebody else has it.
    pub(crate) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// As [`try_take`](Self::try_take), but waits for whoever has it. Blocks.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Ok(Self { file })
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Said, and not left to the closing of the file: a process that is being started by another thread has a copy of the file until it runs.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a lock is given up when its file is closed");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_up_is_free_although_a_copy_of_its_file_is_open() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        let lock = FileLock::try_take(&path).unwrap().unwrap();
        assert!(FileLock::try_take(&path).unwrap().is_none());
        // What a process that is just being started has.
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        let lock = FileLock::try_take(&path).unwrap().unwrap();
        drop(lock);
        FileLock::take(&path).unwrap();
    }
}
