//! What the database stands on: a file, or in tests and simulations anything that can be read, written and flushed.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use nexus_kernel::hal::StoreError;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::error;

/// What the database stands on.
pub struct Disk {
    /// How errors call it.
    pub name: String,
    /// What is read, written and flushed. It also takes the lock that keeps others out.
    pub backend: Box<dyn StorageBackend>,
    /// How many bytes may still be taken; none when nobody knows.
    pub free_bytes: Box<dyn Fn() -> io::Result<Option<u64>> + Send + Sync>,
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
