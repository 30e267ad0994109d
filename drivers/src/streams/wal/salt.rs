//! The number that binds all frames to their store, so that nobody can put into a record what looks like a frame.

use std::io;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Folder;
use crate::frames::segment::{failed, numbers};

const NAME: &str = "salt";
const MAKING: &str = "salt.new";

const MAGIC: [u8; 8] = *b"NXSTRM\x01\0";
const BYTES: usize = 24;

/// Where it stands: twice, in sectors far from each other, because without it nothing can be read.
const PLACES: [u64; 2] = [0, 4_096];

/// The salt of the store in `folder`, if there is one. Changes nothing. Blocks.
pub(super) fn there(folder: &Arc<dyn Folder>) -> Result<Option<u64>, StoreError> {
    match folder.open(NAME, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && numbers(folder)?.is_empty() => Ok(None),
        // It is there, or told as lost: none is made.
        _ => of(folder, 0).map(Some),
    }
}

/// The salt of the store in `folder`; `seed` becomes it when there is no store yet. Blocks.
pub(super) fn of(folder: &Arc<dyn Folder>, seed: u64) -> Result<u64, StoreError> {
    let failed = failed("opening the streams' log");
    let file = match folder.open(NAME, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A store whose salt is lost must not be taken for a new one.
            if let Some(segment) = numbers(folder)?.first() {
                return Err(StoreError::Corrupt {
                    what: "the salt of the streams' log".into(),
                    found: format!("nothing, and there is segment {segment}"),
                });
            }
            return make(folder, seed).map_err(&failed).map(|()| seed);
        }
        Err(error) => return Err(failed(error)),
    };
    for place in PLACES {
        let mut bytes = [0; BYTES];
        match file.read_at(place, &mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(failed(error)),
        }
        if let Some(salt) = decode(&bytes) {
            return Ok(salt);
        }
    }
    let (what, found) = ("the salt of the streams' log".into(), "something else, twice".into());
    Err(StoreError::Corrupt { what, found })
}

fn make(folder: &Arc<dyn Folder>, salt: u64) -> io::Result<()> {
    let file = folder.open(MAKING, true)?;
    for place in PLACES {
        file.write_at(place, &encode(salt))?;
    }
    file.sync()?;
    folder.rename(MAKING, NAME)?;
    folder.sync()
}

fn encode(salt: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&salt.to_le_bytes());
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn decode(bytes: &[u8; BYTES]) -> Option<u64> {
    let (said, sum) = bytes.split_last_chunk::<8>()?;
    let salt = said.strip_prefix(&MAGIC)?.first_chunk()?;
    (xxh3_64(said) == u64::from_le_bytes(*sum)).then_some(u64::from_le_bytes(*salt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn the_salt_stays_when_one_of_the_two_is_damaged_and_is_missed_when_both_are() {
        let disk = SimDisk::new(1);
        assert_eq!(of(&disk.folder(), 7).unwrap(), 7);
        disk.crash_by(0);
        assert_eq!(of(&disk.folder(), 8).unwrap(), 7, "it was flushed");
        assert!(disk.damage(NAME, 9, |byte| byte ^ 1, 1));
        assert_eq!(of(&disk.folder(), 8).unwrap(), 7);
        assert!(disk.damage(NAME, 4_096, |byte| byte ^ 1, 1));
        assert!(matches!(of(&disk.folder(), 8), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn a_log_without_its_salt_is_not_taken_for_a_new_one() {
        let disk = SimDisk::new(1);
        disk.folder().open(&crate::frames::segment::name_of(1), true).unwrap();
        assert!(matches!(of(&disk.folder(), 8), Err(StoreError::Corrupt { .. })));
    }
}
