//! The folder of a store's regions: what is in it, what of it is left over, and how much room it takes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::lives::{self, Lives};

/// What a region holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SharedKind {
    /// Messages, each read once.
    Pipe,
    /// Records, read from any place.
    Log,
}

impl SharedKind {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Pipe => 1,
            Self::Log => 2,
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Log => "stream",
        }
    }
}

/// Where the regions of one store are. Only its owner makes and removes them; others of the same user map what is there. Clones are the same folder.
#[derive(Debug, Clone)]
pub struct SharedFolder(Arc<Place>);

#[derive(Debug)]
struct Place {
    path: PathBuf,
    store: u64,
    home: SharedHome,
    /// Who lives, of those who share it, once the folder is made.
    made: OnceLock<Arc<Lives>>,
    /// Held while it is made: what is begun in it is not yet there for one who sweeps.
    making: Mutex<()>,
    /// How many bytes each region has whose file is there; none until somebody wants to know.
    sizes: Mutex<Option<Sizes>>,
}

type Sizes = BTreeMap<(SharedKind, u64), u64>;

/// What a folder of regions belongs to: with that gone, it is left over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedHome {
    /// This process.
    Process,
    /// The store whose identity is in this file, in sixteen hexadecimal digits.
    File(PathBuf),
}

/// The file in the folder that says what it belongs to.
const HOME: &str = "home";

/// The file in the folder that tells who lives, of those who share what is in it.
const LIVES: &str = "lives";

/// The most bytes that are read of what says what a folder belongs to: a path, and some words.
const SMALL_MAX: u64 = 8_192;

/// The most entries that are looked at for folders that are left over.
const LOOKED_AT_MAX: usize = 10_000;

impl SharedFolder {
    /// The folder for the regions of this store, in `root`, for this user alone. It is made when the first region is. To be called by the one owner of the store.
    pub fn new(root: impl AsRef<Path>, store: u64, home: SharedHome) -> Self {
        let path = root.as_ref().join(format!("{}{store:016x}", prefix()));
        Self(Arc::new(Place {
            path,
            store,
            home,
            made: OnceLock::new(),
            making: Mutex::default(),
            sizes: Mutex::default(),
        }))
    }

    /// Removes the folders in `root` that are left over: what they belong to is gone. Returns how many. Blocks.
    ///
    /// # Errors
    /// What the system says of `root`; what cannot be removed stays.
    pub fn remove_left_over(root: impl AsRef<Path>) -> io::Result<usize> {
        let (prefix, view, mut removed) = (prefix(), view()?, 0);
        for entry in fs::read_dir(root)?.take(LOOKED_AT_MAX) {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let Some(store) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
            // Whatever others make there under such a name is not looked into.
            if !is_ours(&path).unwrap_or(false) {
                continue;
            }
            let Ok(home) = read_small(&path.join(HOME)) else { continue };
            let Some((of, home)) = home.split_once(' ') else { continue };
            let is_left = match home.split_once(' ') {
                Some(("process", process)) => process
                    .parse()
                    .is_ok_and(|process| lives::is_dead(&path.join(LIVES), process).unwrap_or(false)),
                // What is not there for this process may be for who made the folder.
                Some(("file", _)) if u64::from_str_radix(of, 16).is_ok_and(|of| of != view) => false,
                Some(("file", file)) => read_small(Path::new(file)).map_or_else(
                    |error| error.kind() == io::ErrorKind::NotFound,
                    |told| told.split_whitespace().next() != Some(store),
                ),
                _ => false,
            };
            if is_left && fs::remove_dir_all(path).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes the folder if it is not there; what was never finished in it is removed. Gives who lives, of those who share it.
    pub(super) fn ready(&self) -> io::Result<Arc<Lives>> {
        let Place { path, home, made, making, .. } = &*self.0;
        if let Some(lives) = made.get() {
            return Ok(lives.clone());
        }
        let _making = making.lock();
        if let Some(lives) = made.get() {
            return Ok(lives.clone());
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !is_ours(path)? {
            let why = "it is another user's, or no folder";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                fs::remove_file(entry.path())?;
            }
        }
        // Before it says whose it is: until then nobody takes it for left over.
        let lives = Lives::join(&path.join(LIVES), true)?;
        let home = match home {
            SharedHome::Process => format!("process {}", lives.me()),
            SharedHome::File(file) => format!("file {}", file.display()),
        };
        fs::write(path.join(HOME), format!("{:016x} {home}", view()?))?;
        Ok(made.get_or_init(|| lives).clone())
    }

    /// Those who live, of the ones that share the folder of this file.
    pub(super) fn lives_beside(file: &Path) -> io::Result<Arc<Lives>> {
        Lives::join(&file.with_file_name(LIVES), false).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(io::ErrorKind::InvalidData, "nothing beside it tells who shares it")
            }
            _ => error,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The identity of the store.
    pub fn store(&self) -> u64 {
        self.0.store
    }

    /// The file of a region.
    pub fn file(&self, kind: SharedKind, id: u64) -> PathBuf {
        self.0.path.join(format!("{id:016x}.{}", kind.extension()))
    }

    /// The identities of all regions of this kind, in their order. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn ids(&self, kind: SharedKind) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        let entries = match fs::read_dir(&self.0.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(kind.extension())?.strip_suffix('.'));
            ids.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// How many regions of this kind there are, and how many bytes they have together: all whose files are there, whether this process has opened them or not, and one that
    /// is just being made. Blocks: the first time it looks at all of them.
    ///
    /// # Errors
    /// What the system says.
    pub fn held(&self, kind: SharedKind) -> io::Result<(usize, u64)> {
        self.with_sizes(|sizes| {
            let of_kind = sizes.iter().filter(|((of, _), _)| *of == kind).map(|(_, bytes)| bytes);
            (of_kind.clone().count(), of_kind.sum())
        })
    }

    /// Counts a region that is to have so many bytes, in the place of one with its identity: all of its kind may have `most`. Gives what counted before.
    pub(super) fn reserve(
        &self,
        kind: SharedKind,
        id: u64,
        bytes: u64,
        most: u64,
    ) -> io::Result<Option<u64>> {
        self.with_sizes(|sizes| {
            let others = sizes.iter().filter(|((of, other), _)| *of == kind && *other != id);
            let held: u64 = others.map(|(_, bytes)| bytes).sum();
            if held.saturating_add(bytes) > most {
                let why = format!(
                    "shared memory may have {most} bytes for all of this kind, of which {held} are taken, and {bytes} more were to be"
                );
                return Err(io::Error::new(io::ErrorKind::StorageFull, why));
            }
            Ok(sizes.insert((kind, id), bytes))
        })?
    }

    /// What was reserved is not there: what counted before does.
    pub(super) fn unreserve(&self, kind: SharedKind, id: u64, before: Option<u64>) {
        if let Some(sizes) = &mut *self.0.sizes.lock() {
            match before {
                Some(bytes) => sizes.insert((kind, id), bytes),
                None => sizes.remove(&(kind, id)),
            };
        }
    }

    fn with_sizes<T>(&self, look: impl FnOnce(&mut Sizes) -> T) -> io::Result<T> {
        let mut sizes = self.0.sizes.lock();
        if sizes.is_none() {
            // Only this process makes and removes any, and counts it here.
            let mut found = Sizes::new();
            for kind in [SharedKind::Pipe, SharedKind::Log] {
                for id in self.ids(kind)? {
                    match fs::symlink_metadata(self.file(kind, id)) {
                        Ok(file) => drop(found.insert((kind, id), file.len())),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            *sizes = Some(found);
        }
        Ok(look(sizes.get_or_insert_default()))
    }

    /// Removes a region's file, and says whether there was one. Who has it mapped keeps it. Blocks. Repeat: safe.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, kind: SharedKind, id: u64) -> io::Result<bool> {
        let was_there = match fs::remove_file(self.file(kind, id)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        self.unreserve(kind, id, None);
        Ok(was_there)
    }

    /// Removes the folder with all that is in it. Blocks. Repeat: safe.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_all(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                *self.0.sizes.lock() = None;
                Ok(())
            }
        }
    }
}

/// How the names of this user's folders begin.
fn prefix() -> String {
    format!("nexus-{}-", rustix::process::geteuid().as_raw())
}

/// Whether there is a folder of this user at `path`.
fn is_ours(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    Ok(found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

/// What a small file holds, at most [`SMALL_MAX`] bytes of it. Anything else is an error, and not waited for or followed.
fn read_small(path: &Path) -> io::Result<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    let mut text = String::new();
    file.take(SMALL_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// What tells whether another process that told this sees the same files. After a start of the machine it is another.
pub(super) fn view() -> io::Result<u64> {
    let run = fs::read("/proc/sys/kernel/random/boot_id")?;
    // FNV-1a.
    let run = run.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    Ok(run ^ fs::metadata("/proc/self/ns/mnt")?.ino())
}
