//! A folder of the file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DiskFile, Folder};

/// A folder of the file system.
#[derive(Debug)]
pub struct LocalFolder {
    path: PathBuf,
    // Opened once: a flush of names needs no name.
    handle: File,
}

impl LocalFolder {
    /// The folder at `path`; made, durably, with its parents, when it is missing.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        make_durable(path)?;
        Ok(Self { path: path.into(), handle: File::open(path)? })
    }
}

/// Makes `folder` with its parents, each of them durable in its own parent.
pub(crate) fn make_durable(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_durable(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl Folder for LocalFolder {
    fn open(&self, name: &str, make: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(make).truncate(false);
        Ok(Arc::new(LocalFile(options.open(self.path.join(name))?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is no text is not one of the driver's.
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Folder>> {
        Ok(Arc::new(Self::open(self.path.join(name))?))
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let status = rustix::fs::fstatvfs(&self.handle)?;
        Ok(Some(status.f_bavail.saturating_mul(status.f_frsize)))
    }
}

#[derive(Debug)]
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn read_at_hand(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let wanted = out.len();
        let mut into = [io::IoSliceMut::new(out)];
        match rustix::io::preadv2(&self.0, &mut into, offset, rustix::io::ReadWriteFlags::NOWAIT) {
            Ok(read) if read == wanted => Ok(()),
            // Some of it, an end, a file system that cannot tell: who waits finds out.
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
