//! A folder whose index is damaged. Where nothing was acknowledged that is nowhere else, it is put aside, and another is begun: what it had can be had again. Else, and
//! where that is not known, it stays as it is, and who wants it is told how to go on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nexus_kernel::hal::StoreError;
use parking_lot::Mutex;

use super::marks::{Told, told_of_all};
use super::vault::{INDEX, read_rows};
use crate::wal::{WalConfig, WalMetastore};

/// What is added to the name of a folder that is put aside. There is one at most: the next takes its place.
const ASIDE: &str = "damaged";

/// Two that find one folder damaged do not put two aside.
static TURN: Mutex<()> = Mutex::new(());

/// Puts the folder of a cache aside that nobody could open because of `found`, if that loses nothing. Blocks. When it returns well, opening may be tried again.
///
/// # Errors
/// [`StoreError::Corrupt`] that says how to go on.
pub(super) fn put_aside(folder: &Path, found: &StoreError) -> Result<(), StoreError> {
    let _turn = TURN.lock();
    // Held, so that nobody opens what is about to go. What is damaged so that it cannot be opened, nobody else opens either.
    let held = match WalMetastore::open(folder.join(INDEX), WalConfig::default()) {
        // Somebody else was here before.
        Ok(index) if read_rows(&index).is_ok() => return Ok(()),
        Err(StoreError::Locked { .. }) => return Ok(()),
        Ok(index) => Some(index),
        Err(StoreError::Corrupt { .. }) => None,
        Err(error) => return Err(error),
    };
    let failed = |e: io::Error| StoreError::io(format!("putting {} aside", folder.display()), e);
    if told_of_all(folder).map_err(failed)? != Told::Nothing {
        return Err(StoreError::Corrupt {
            what: format!("the cache in {}", folder.display()),
            found: format!(
                "{found}. Files that were written back may be there and nowhere else, so it is left as it is; to go on without them, move that folder away"
            ),
        });
    }
    let aside = aside_of(folder);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::rename(folder, &aside).map_err(failed)?;
    if let Some(parent) = folder.parent() {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    }
    drop(held);
    tracing::warn!(aside = %aside.display(), %found, "the cache is damaged, and held nothing that is nowhere else: it is put aside, and begun anew");
    Ok(())
}

fn aside_of(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ASIDE);
    folder.with_file_name(name)
}
