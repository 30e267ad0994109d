//! Where memory is that processes share: in the file system of the machine's memory, if there is one, else in the data folder.
//!
//! A kernel with a data folder finds there what an earlier one left that was killed; so the folder of its regions is named by an identity that is kept in the data
//! folder. Without one it ends with the kernel. What processes left that are gone, or data folders, is removed when a kernel boots.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nexus_actors::{Env, SharedFolder, SharedHome};

/// Where Linux has files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// The file in the data folder that holds the identity.
const IDENTITY: &str = "shared";

/// Everybody may make files there.
const ALL_MAY_WRITE: u32 = 0o002;

/// Where regions are made, of a kernel with this data folder or without one.
pub(crate) fn root(data: Option<&Path>) -> PathBuf {
    let in_memory = fs::metadata(IN_MEMORY)
        .is_ok_and(|found| found.is_dir() && found.permissions().mode() & ALL_MAY_WRITE != 0);
    match data {
        _ if in_memory => IN_MEMORY.into(),
        Some(data) => data.into(),
        None => std::env::temp_dir(),
    }
}

/// The folder for the regions of a kernel with this data folder, which it owns, or without one. Blocks: it reads or writes a short file.
pub(crate) fn folder(env: &Env, data: Option<&Path>) -> io::Result<SharedFolder> {
    let (store, home) = match data {
        None => (env.random(), SharedHome::Process),
        Some(data) => {
            let data = fs::canonicalize(data)?;
            let file = data.join(IDENTITY);
            (identity(env, &data, &file)?, SharedHome::File(file))
        }
    };
    Ok(SharedFolder::new(root(data), store, home))
}

/// The identity in this file of the data folder `data`; another one when there is none that makes sense, and in a copy of the folder: it is not the one whose memory
/// that is.
fn identity(env: &Env, data: &Path, file: &Path) -> io::Result<u64> {
    let found = fs::metadata(data)?;
    let place = format!("{:x}:{:x}", found.dev(), found.ino());
    match fs::read_to_string(file) {
        Ok(text) => {
            let mut words = text.split_whitespace();
            let identity = words.next().and_then(|identity| u64::from_str_radix(identity, 16).ok());
            if let Some(identity) = identity.filter(|_| words.next() == Some(&place)) {
                return Ok(identity);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let identity = env.random();
    fs::write(file, format!("{identity:016x} {place}\n"))?;
    Ok(identity)
}
