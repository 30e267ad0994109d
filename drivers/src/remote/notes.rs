//! What was found out of a server, kept in the data folder for when the same mount is opened again. Nothing depends on it: what cannot be read is found out anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nexus_actors::{Env, Pool};
use nexus_kernel::hal::{DriverContext, DriverOption};
use nexus_messages::syscall::MountSpec;
use serde::{Deserialize, Serialize};

use super::conditions::Conditions;

/// Where it lies in the data folder.
const FOLDER: &str = "remote";

/// With which a note begins.
const VERSION: u8 = 1;

/// For how long it counts.
const COUNTS_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The note of one mount.
#[derive(Debug)]
pub(super) struct Notes {
    folder: PathBuf,
    name: String,
    pool: Pool,
}

#[derive(Serialize, Deserialize)]
struct Note {
    /// When it was found, in nanoseconds of the wall's clock.
    found: u64,
    conditions: Conditions,
}

impl Notes {
    /// Of a mount that has these options; none where there is no data folder. Secrets leave no trace in it.
    pub(super) fn of(spec: &MountSpec, options: &[DriverOption], context: &DriverContext) -> Option<Self> {
        let folder = context.data_folder.as_ref()?.join(FOLDER);
        let is_secret = |key: &str| options.iter().any(|option| option.key == key && option.secret);
        let mut hasher = blake3::Hasher::new();
        hasher.update(spec.driver.as_bytes());
        for (key, value) in spec.options.iter().filter(|(key, _)| !is_secret(key)) {
            // Keys and values with their lengths: no two lists read the same.
            for part in [key, value] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
        }
        Some(Self { folder, name: hasher.finalize().to_hex().to_string(), pool: context.pool.clone() })
    }

    /// What was found less than a day before `now`.
    pub(super) async fn read(&self, now: u64) -> Option<Conditions> {
        let path = self.folder.join(&self.name);
        let bytes = self.pool.run(move || fs::read(path).ok()).await.ok()??;
        let (&VERSION, note) = bytes.split_first()? else { return None };
        let Note { found, conditions } = postcard::from_bytes(note).ok()?;
        // A clock that was set back makes it of the future.
        let age = Duration::from_nanos(now.checked_sub(found)?);
        (age < COUNTS_FOR).then_some(conditions)
    }

    /// Keeps what was found just now, if anything was, and takes away what counts no more.
    pub(super) async fn keep(self, conditions: Option<Conditions>, env: &Env) {
        let Self { folder, name, pool } = self;
        let (found, random) = (env.wall(), env.random());
        let kept = pool.run(move || {
            let Some(conditions) = conditions else {
                return match fs::remove_file(folder.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            };
            let note = Note { found, conditions };
            let bytes = postcard::to_extend(&note, vec![VERSION]).map_err(io::Error::other)?;
            fs::create_dir_all(&folder)?;
            // Half of it is never there under its name.
            let beside = folder.join(format!("{name}.{random:016x}"));
            fs::write(&beside, bytes)?;
            fs::rename(&beside, folder.join(name))?;
            remove_old(&folder, found)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%error, "what was found out of a server is not kept, and is found out again at the next start");
        }
    }
}

fn remove_old(folder: &Path, now: u64) -> io::Result<()> {
    let now = UNIX_EPOCH + Duration::from_nanos(now);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_old = |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age > COUNTS_FOR);
        if entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_old) {
            // Somebody else may have taken it away.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::conditions::Verdict;

    const FOUND: Conditions = Conditions {
        absent: Verdict::Honoured,
        state: Verdict::Ignored,
        parts_absent: Verdict::Honoured,
        parts_state: Verdict::Ignored,
    };

    #[test]
    fn a_note_counts_for_a_day_and_for_the_mount_it_is_of() {
        const OPTIONS: &[DriverOption] =
            &[DriverOption { key: "key", required: false, secret: true, help: "a secret" }];
        let (env, simulation) = Env::seeded(1);
        let folder = tempfile::tempdir().unwrap();
        let spec = MountSpec::new("s3").option("bucket", "b").option("key", "one");
        let notes = |spec: &MountSpec| {
            let context =
                DriverContext::new(env.clone(), env.pool("notes", 1, 1), Some(folder.path().into()));
            Notes::of(spec, OPTIONS, &context).unwrap()
        };
        let read = |spec: &MountSpec, now| simulation.block_on(notes(spec).read(now));
        let now = env.wall();
        assert_eq!(read(&spec, now), None);
        simulation.block_on(notes(&spec).keep(Some(FOUND), &env));
        let day = u64::try_from(COUNTS_FOR.as_nanos()).unwrap();
        for (after, found) in
            [(0, Some(FOUND)), (day - 1_000_000_000, Some(FOUND)), (day + 1_000_000_000, None)]
        {
            assert_eq!(read(&spec, now + after), found, "{after}");
        }
        assert_eq!(read(&spec, now - 1_000_000_000), None, "a clock that was set back");
        assert_eq!(read(&spec.clone().option("key", "two"), now), Some(FOUND), "whoever asks");
        assert_eq!(read(&spec.clone().option("prefix", "p"), now), None);
        simulation.block_on(notes(&spec).keep(None, &env));
        assert_eq!(read(&spec, now), None, "nothing was found the next time");
        simulation.block_on(notes(&spec).keep(Some(FOUND), &env));
        // Half a note is none.
        let file = fs::read_dir(folder.path().join(FOLDER)).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(read(&spec, now), None, "{length}");
        }
    }
}
