//! What the database stands on: a file, or in tests and simulations anything that can be read, written and flushed.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::error;
use crate::disk::{DiskFile, Folder};

/// What the database stands on.
pub struct Disk {
    /// How errors call it.
    pub name: String,
    /// What is read, written and flushed. It also takes the lock that keeps others out.
    pub backend: Box<dyn StorageBackend>,
    /// How many bytes may still be taken; none when nobody knows.
    pub free_bytes: Box<dyn Fn() -> io::Result<Option<u64>> + Send + Sync>,
}

/// Sees to it that the database `name` is there, whole: it is made by `make` under another name first. So a crash leaves none or a whole one.
pub(crate) fn make_whole(
    folder: &dyn Folder,
    name: &str,
    make: impl Fn(&str) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let failed = |e| StoreError::io(format!("making {name}"), e);
    if folder.list().map_err(failed)?.iter().any(|there| there == name) {
        return Ok(());
    }
    let making = format!("{name}.making");
    match make(&making) {
        // A crash left some of it.
        Err(StoreError::Corrupt { .. }) => {
            folder.remove(&making).map_err(failed)?;
            make(&making)?;
        }
        made => made?,
    }
    folder.rename(&making, name).and_then(|()| folder.sync()).map_err(failed)
}

impl Disk {
    /// The file `name` in `folder`, made when it is missing. It takes no lock: whoever opens it sees to it that nobody else does.
    pub fn in_folder(folder: &Arc<dyn Folder>, name: &str) -> Result<Disk, StoreError> {
        let failed = |e| StoreError::io(format!("opening {name}"), e);
        let file = folder.open(name, true).map_err(failed)?;
        folder.sync().map_err(failed)?;
        let measured = folder.clone();
        Ok(Disk {
            name: name.into(),
            backend: Box::new(InFolder(file)),
            free_bytes: Box::new(move || measured.free_bytes()),
        })
    }
}

/// A file of a [`Folder`], as redb sees it.
#[derive(Debug)]
struct InFolder(Arc<dyn DiskFile>);

impl StorageBackend for InFolder {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("name", &self.name)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// Opens files as disks.
#[derive(Debug)]
pub struct FileDisk;

impl FileDisk {
    /// Opens the file at `path`, or makes it, durably, in a folder that exists.
    pub fn open(path: &Path) -> Result<Disk, StoreError> {
        let name = path.display().to_string();
        let failed = |e| StoreError::io(format!("opening {name}"), e);
        let made = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        if made {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        let measured = file.try_clone().map_err(failed)?;
        let backend = FileBackend::new(file).map_err(|e| error::database(&name, e))?;
        Ok(Disk {
            backend: Box::new(backend),
            free_bytes: Box::new(move || {
                let status = rustix::fs::fstatvfs(&measured)?;
                Ok(Some(status.f_bavail.saturating_mul(status.f_frsize)))
            }),
            name,
        })
    }
}
