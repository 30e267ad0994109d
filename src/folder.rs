//! The data folder, and who owns it.
//!
//! One process at a time. The lock is the operating system's, on an open file: it ends with the process, however that ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::attach::SOCKET;
use nexus_messages::{Error, ErrorKind, Op, Result};

/// The file whose lock is the folder's.
const LOCK: &str = "nexus.lock";

/// The metastore's file.
const METASTORE: &str = "meta.redb";

/// The layout of a data folder that this version reads and writes.
///
/// 1: rows in the database. 2: a log in front of it, without which the database is old.
const FORMAT: u32 = 2;

/// The mode of a folder that is made: what mounts were given may be secret, and content is whose the mounts say. One that is there keeps its own.
const MODE: u32 = 0o700;

/// The mode of a folder above it that is made, before what the process takes away.
const PARENT_MODE: u32 = 0o777;

/// A data folder that belongs to this process for as long as the value lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    // Invariant: locked.
    lock: File,
}

impl DataFolder {
    /// Takes the folder, and makes it when it is missing; says whether its socket will be served. Blocks on disk.
    pub(crate) fn take(path: &Path, serves: bool) -> Result<Self> {
        let failed = |what: &str, error: io::Error| {
            Error::on_host(Op::Connect, path, kind(&error)).because(format!("{what}: {error}"))
        };
        make(path, MODE).map_err(|error| failed("making the data folder", error))?;
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK));
        let mut lock = opened.map_err(|error| failed(LOCK, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = told(&mut lock).unwrap_or_default();
                let served = if owner.serves == Some(true) {
                    format!(", which serves {SOCKET}")
                } else {
                    String::new()
                };
                let why = format!("{}{served}", owner.in_use());
                return Err(Error::on_host(Op::Connect, path, ErrorKind::Busy).because(why));
            }
            Err(TryLockError::Error(error)) => return Err(failed(LOCK, error)),
        }
        let before = told(&mut lock).map_err(|error| failed(LOCK, error))?;
        if let Some(format) = before.format.filter(|format| *format > FORMAT) {
            let why =
                format!("the data folder has format {format}, and this version of nexus knows {FORMAT}");
            return Err(Error::on_host(Op::Connect, path, ErrorKind::NotSupported).because(why));
        }
        let told = tell(&mut lock, serves).and_then(|()| match before.format {
            Some(FORMAT) => Ok(()),
            // On disk before anything is that an older version would not see.
            _ => lock.sync_all(),
        });
        told.map_err(|error| failed(LOCK, error))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that the metastore is recognised by.
    pub(crate) fn metastore(&self) -> PathBuf {
        self.path.join(METASTORE)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // Said, and not left to the closing of the file: a process that is being started by another thread has a copy of the file until it runs.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(folder = %self.path.display(), %error, "the data folder is given up when its file is closed");
        }
    }
}

/// What kind of error it is that keeps the folder from being taken.
fn kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        // A file stands where the folder is to be made.
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => ErrorKind::NotADirectory,
        io::ErrorKind::IsADirectory => ErrorKind::IsADirectory,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StoreFull,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        _ => ErrorKind::Io,
    }
}

/// Makes the folder, for its owner alone, and its parents, so that they outlive a loss of power as what will be in them does.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make(parent, PARENT_MODE)?;
    match DirBuilder::new().mode(mode).create(path) {
        // Another process was first; whose the folder is, the lock tells.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(parent)?.sync_all()
}

/// What the lock file of a folder says: of who owns it, or of who owned it last. Blocks on disk.
pub(crate) fn told_of(path: &Path) -> Told {
    File::open(path.join(LOCK)).and_then(|mut lock| told(&mut lock)).unwrap_or_default()
}

/// What a lock file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    format: Option<u32>,
    process: Option<u32>,
    /// Whether the owner serves the socket, or will.
    pub(crate) serves: Option<bool>,
}

impl Told {
    fn parse(text: &str) -> Self {
        let value = |key| {
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.filter(|(name, _)| *name == key).find_map(|(_, value)| value.trim().parse().ok())
        };
        Self {
            format: value("format"),
            process: value("process"),
            serves: value("serves").map(|serves| serves == 1),
        }
    }

    /// That the folder is in use, and by whom.
    pub(crate) fn in_use(&self) -> String {
        match self.process {
            Some(process) if process == std::process::id() => {
                "the data folder is in use by this process".into()
            }
            Some(process) => format!("the data folder is in use by process {process}"),
            None => "the data folder is in use by another process".into(),
        }
    }
}

/// Enough for what [`tell`] writes.
const TOLD_MAX: u64 = 1_024;

fn told(lock: &mut File) -> io::Result<Told> {
    let mut text = Vec::new();
    lock.rewind()?;
    lock.take(TOLD_MAX).read_to_end(&mut text)?;
    Ok(Told::parse(&String::from_utf8_lossy(&text)))
}

fn tell(lock: &mut File, serves: bool) -> io::Result<()> {
    let (process, serves) = (std::process::id(), u32::from(serves));
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(format!("format {FORMAT}\nprocess {process}\nserves {serves}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(text: &str, format: Option<u32>, process: Option<u32>, serves: Option<bool>) {
        assert_eq!(Told::parse(text), Told { format, process, serves }, "{text:?}");
    }

    #[test]
    fn a_folder_that_is_given_up_is_free_although_a_copy_of_its_lock_file_is_open() {
        let place = tempfile::tempdir().unwrap();
        let folder = DataFolder::take(place.path(), false).unwrap();
        // What a process that is just being started has.
        let _copy = folder.lock.try_clone().unwrap();
        drop(folder);
        DataFolder::take(place.path(), false).unwrap();
    }

    #[test]
    fn a_lock_file_may_be_torn() {
        check("format 1\nprocess 42\nserves 1\n", Some(1), Some(42), Some(true));
        check("format 1\nprocess 42\nserves 0\n", Some(1), Some(42), Some(false));
        check("format 1\nprocess 42\n", Some(1), Some(42), None);
        check("", None, None, None);
        check("format 1\npro", Some(1), None, None);
        check("\0\0\0", None, None, None);
    }

    #[test]
    fn a_folder_has_one_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let owner = DataFolder::take(&path, false).unwrap();
        let refused = DataFolder::take(&path, false).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        assert_eq!(
            refused.to_string(),
            format!("connect {}: busy: the data folder is in use by this process (EBUSY)", path.display())
        );
        drop(owner);
        DataFolder::take(&path, false).unwrap();
    }

    #[test]
    fn what_keeps_a_folder_from_being_taken_is_told_by_its_kind() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refused = DataFolder::take(&path, false).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotADirectory, "{refused}");
        }
        let folder = place.path().join("folder");
        fs::create_dir_all(folder.join(LOCK)).unwrap();
        assert_eq!(DataFolder::take(&folder, false).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(kind(&io::ErrorKind::PermissionDenied.into()), ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_folder_of_a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "format 3\nprocess 1\n").unwrap();
        let refused = DataFolder::take(folder.path(), false).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotSupported);
        assert!(refused.to_string().contains("format 3"), "{refused}");
        assert_eq!(fs::read_to_string(folder.path().join(LOCK)).unwrap(), "format 3\nprocess 1\n");
    }
}
