//! A place for files in the making, on the file system where they will end; what a crash left there is removed at the next start.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::FileLock;

/// The folder of all stagings below the store's own.
pub(super) const FOLDER: &str = "tmp";

/// Held while a staging is opened, so that nobody takes a new one for a dead one.
const OPENING: &str = "opening";

/// Held as long as a staging lives.
const ALIVE: &str = "alive";

/// One owner's folder for files in the making. Several owners, in one process or in several, do not disturb each other.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    next: AtomicU64,
    /// Held as long as this value lives.
    _alive: FileLock,
}

impl Staging {
    /// Makes a staging in `root`, and removes those whose owners are gone.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let all = root.join(FOLDER);
        fs::create_dir_all(&all)?;
        let _opening = FileLock::take(&all.join(OPENING))?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&all)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && !remove_if_dead(&entry.path())? {
                names.push(entry.file_name());
            }
        }
        let name =
            (0..=names.len()).map(|n| format!("{n}")).find(|name| !names.iter().any(|n| n == name.as_str()));
        let folder = all.join(name.unwrap_or_default());
        fs::create_dir(&folder)?;
        let alive = FileLock::take(&folder.join(ALIVE))?;
        Ok(Self { folder, next: AtomicU64::new(0), _alive: alive })
    }

    /// A new, empty file and its path.
    pub(super) fn create(&self) -> io::Result<(File, PathBuf)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(number.to_string());
        Ok((OpenOptions::new().write(true).create_new(true).open(&path)?, path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn remove_if_dead(folder: &Path) -> io::Result<bool> {
    let dead = match File::open(folder.join(ALIVE)).map(|alive| alive.try_lock()) {
        Ok(Ok(())) => true,
        Ok(Err(TryLockError::WouldBlock)) => false,
        Ok(Err(TryLockError::Error(error))) => return Err(error),
        // It died before it was locked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    if !dead {
        return Ok(false);
    }
    match fs::remove_dir_all(folder) {
        // Its owner is just removing it by itself.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}
