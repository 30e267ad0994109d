//! Blobs as files: the blocking core of [`LocalTransport`](super::LocalTransport).
//!
//! A blob is written to a file in the making, flushed, moved to its name, and the folder is flushed, with every folder above that this process
//! has not flushed yet. After a failed flush nothing more is done with that file: the system may have forgotten what was to be written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nexus_kernel::hal::{BlobInfo, StoreError};
use nexus_messages::syscall::ByteRange;
use parking_lot::Mutex;

use super::staging::{self, Staging};
use crate::disk::make_durable;
use crate::path;

/// How many folders are remembered as durable: all of a content-addressed store, `ab/cd`, and some more.
const FOLDERS_MAX: usize = 70_000;

/// The folder, within that of the blobs, in which [`Packs`](crate::packs::Packs) keeps those that share files.
pub(crate) const PACKS_FOLDER: &str = "packs";

/// What in the folder is no blob's.
const RESERVED: [&str; 2] = [staging::FOLDER, PACKS_FOLDER];

#[derive(Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
    staging: Staging,
    // Invariant: these folders, by their keys, are on disk in their parents. Forgetting some is safe.
    durable_folders: Mutex<BTreeSet<String>>,
}

impl Blobs {
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |e| StoreError::io(format!("opening {}", root.display()), e);
        make_durable(root).map_err(failed)?;
        let staging = Staging::open(root).map_err(failed)?;
        Ok(Self { root: root.into(), staging, durable_folders: Mutex::default() })
    }

    pub(crate) fn put(&self, key: &str, data: &[Bytes]) -> Result<(), StoreError> {
        let target = self.path_of(key)?;
        let failed = |e| StoreError::io(format!("writing {key}"), e);
        let folder = self.make_folders(key).map_err(failed)?;
        let (mut file, staged) = self.staging.create().map_err(failed)?;
        let written = data.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_data());
        drop(file);
        if let Err(error) = written.and_then(|()| fs::rename(&staged, &target)) {
            // It is of no use to anybody; what cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&staged);
            return Err(failed(error));
        }
        if let Err(error) = sync_folder(&folder) {
            // It must not be found under a name that only durable blobs have.
            let _ = fs::remove_file(&target);
            return Err(StoreError::Unknown { what: format!("writing {key}"), cause: error.to_string() });
        }
        Ok(())
    }

    pub(crate) fn get(&self, key: &str, range: ByteRange) -> Result<Bytes, StoreError> {
        let failed = |e| StoreError::io(format!("reading {key}"), e);
        let mut file = File::open(self.path_of(key)?).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(StoreError::NotFound { what: key.into() });
        }
        let (start, end) = range.within(metadata.len());
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut part = Vec::with_capacity(usize::try_from(end - start).unwrap_or_default());
        file.take(end - start).read_to_end(&mut part).map_err(failed)?;
        Ok(part.into())
    }

    pub(crate) fn head(&self, key: &str) -> Result<Option<BlobInfo>, StoreError> {
        match fs::metadata(self.path_of(key)?) {
            Ok(metadata) => Ok(metadata.is_file().then_some(BlobInfo { size: metadata.len() })),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(StoreError::io(format!("looking at {key}"), error)),
        }
    }

    pub(crate) fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path_of(key)?;
        let failed = |e| StoreError::io(format!("deleting {key}"), e);
        fs::remove_file(&path).map_err(|error| match is_absence(&error) {
            true => StoreError::NotFound { what: key.into() },
            false => failed(error),
        })?;
        sync_folder(path.parent().unwrap_or(&self.root)).map_err(failed)
    }

    pub(crate) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let mut listing = Listing { root: &self.root, prefix, after, limit, keys: Vec::new() };
        listing.folder("").map_err(|e| StoreError::io(format!("listing {prefix}"), e))?;
        Ok(listing.keys)
    }

    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        fs::metadata(&self.root)
            .map(drop)
            .map_err(|e| StoreError::io(format!("looking at {}", self.root.display()), e))
    }

    fn path_of(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    /// Makes the folders that lead to `key`, durably, and gives the last of them.
    fn make_folders(&self, key: &str) -> io::Result<PathBuf> {
        for (end, _) in key.match_indices('/') {
            let folder = &key[..end];
            if self.durable_folders.lock().contains(folder) {
                continue;
            }
            let path = self.root.join(folder);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            // Also when it was there: who made it may not have come to this.
            sync_folder(path.parent().unwrap_or(&self.root))?;
            let mut durable = self.durable_folders.lock();
            if durable.len() >= FOLDERS_MAX {
                durable.clear();
            }
            durable.insert(folder.into());
        }
        Ok(key.rfind('/').map_or_else(|| self.root.clone(), |end| self.root.join(&key[..end])))
    }
}

/// Refuses what is not a key.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    let names = path::components(key)?;
    if names.is_empty() || RESERVED.contains(&names[0]) {
        return Err(StoreError::BadOption { why: format!("{key:?} is not a key") });
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether the error says that there is nothing at the path: also when a file stands where a folder would.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Walks the folders in the order of the keys, and only those that can hold some.
struct Listing<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    keys: Vec<String>,
}

impl Listing<'_> {
    /// `path` is the folder's key, with a slash at its end unless it is the root's.
    fn folder(&mut self, path: &str) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(path))? {
            let entry = entry?;
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            // A folder stands where the keys below it stand, which have a slash there.
            if entry.file_type()?.is_dir() {
                if path.is_empty() && RESERVED.contains(&name.as_str()) {
                    continue;
                }
                name.push('/');
            }
            names.push(name);
        }
        names.sort_unstable();
        for name in names {
            if self.keys.len() >= self.limit {
                return Ok(());
            }
            let key = format!("{path}{name}");
            let is_folder = key.ends_with('/');
            let may_hold = key.starts_with(self.prefix) || (is_folder && self.prefix.starts_with(&key));
            let is_over =
                self.after.is_some_and(|after| *key <= *after && !(is_folder && after.starts_with(&key)));
            match (may_hold && !is_over, is_folder) {
                (true, true) => self.folder(&key)?,
                (true, false) => self.keys.push(key),
                (false, _) => {}
            }
        }
        Ok(())
    }
}
