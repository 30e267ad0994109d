//! Refresh tokens that a server gave instead of those that its users gave, kept in the data folder: the first ones are good for nothing any more.
//!
//! A file for each grant, which its owner alone may read. Its name tells nothing of what is in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nexus_actors::{Env, Pool};
use nexus_kernel::hal::{DriverContext, StoreError};

use super::known::Grant;
use crate::secret::Secret;

/// Where they lie in the data folder.
const FOLDER: &str = "grants";

/// With which a file begins.
const VERSION: &[u8] = b"nexus-grant-1\n";

/// After which time one is taken away of which no mount has asked: a year.
const FORGOTTEN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The place of one grant's token.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    name: String,
    env: Env,
    pool: Pool,
}

impl Kept {
    /// None where there is no data folder.
    pub(super) fn of(grant: Grant, context: &DriverContext) -> Option<Self> {
        let folder = context.data_folder.as_ref()?.join(FOLDER);
        Some(Self { folder, name: grant.name(), env: context.env.clone(), pool: context.pool.clone() })
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// When there is one that cannot be read: the one that was given is most likely good for nothing.
    pub(super) async fn read(&self) -> Result<Option<Secret>, StoreError> {
        let (path, now) = (self.folder.join(&self.name), self.now());
        let read = self.run(move || {
            let read = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                read => read?,
            };
            let text = read.strip_prefix(VERSION).and_then(|token| std::str::from_utf8(token).ok());
            let token = text.filter(|token| !token.is_empty()).map(Secret::new);
            let token = token.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no token"))?;
            // It is used still. Where nobody may say so it is kept for a year from when it came.
            let _ = File::options().write(true).open(&path).and_then(|file| file.set_modified(now));
            Ok(Some(token))
        });
        read.await.map_err(|error| {
            let what = format!("reading the refresh token that came instead of the given one, {FOLDER}/{} in the data folder", self.name);
            StoreError::io(what, error)
        })
    }

    /// Has the disk keep `token` from now on, instead of the one before it.
    pub(super) async fn keep(&self, token: Secret) -> io::Result<()> {
        let (folder, name) = (self.folder.clone(), self.name.clone());
        let (random, now) = (self.env.random(), self.now());
        self.run(move || {
            let path = folder.join(&name);
            fs::create_dir_all(&folder)?;
            // Half of it is never there under its name.
            let beside = folder.join(format!("{name}.{random:016x}"));
            let written = write(&beside, &token).and_then(|()| fs::rename(&beside, &path));
            if written.is_err() {
                // What is left of it goes with what nobody asks for.
                let _ = fs::remove_file(&beside);
            }
            written?;
            File::open(&folder)?.sync_all()?;
            remove_forgotten(&folder, now)
        })
        .await
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.env.wall())
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.pool.run(job).await.unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
    }
}

fn write(path: &Path, token: &Secret) -> io::Result<()> {
    let mut file = own(path)?;
    file.write_all(VERSION)?;
    file.write_all(token.expose().as_bytes())?;
    file.sync_all()
}

/// A new file that its owner alone may read.
fn own(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn remove_forgotten(folder: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_old = |modified| now.duration_since(modified).is_ok_and(|age| age > FORGOTTEN);
        if entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_old) {
            // Somebody else may have taken it away.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}
