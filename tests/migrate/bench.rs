//! A kernel on a folder, with a mount to be migrated, and drivers that are odd when they are told to.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus::blocking::{self, Nexus};
use nexus::{Config, Error, ErrorKind, MigrationState, MigrationStatus, MountSpec, Result};
use nexus_drivers::cached::Cached;

use crate::odd::{Odd, OddFactory};

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Content that goes to the driver, not into the metastore.
pub(crate) const LARGE: usize = 64 * 1024;

/// The names of the odd drivers.
pub(crate) const ODD_FILES: &str = "odd-files";
pub(crate) const ODD_CONTENTS: &str = "odd-contents";

/// An odd driver with a cache in front of it, for mounts that ask for one.
pub(crate) const CACHED_FILES: &str = "cached-files";

/// What the mount is whose files move.
pub(crate) const AT: &str = "/m";

pub(crate) struct Bench {
    pub(crate) nx: Nexus,
    pub(crate) odd: Odd,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn config(folder: &Path, odd: &Odd) -> Config {
    let built_in = nexus_drivers::catalogue();
    let odd_one = |name: &'static str, inner: &str| {
        let inner = built_in.get(inner).expect("built in");
        Arc::new(OddFactory { name, inner, odd: odd.clone() })
    };
    Config::new(folder.join("data"))
        .driver(odd_one(ODD_FILES, "path-local"))
        .driver(odd_one(ODD_CONTENTS, "cas-local"))
        .driver(Arc::new(Cached::new(odd_one(CACHED_FILES, "path-local"))))
        .content_cache_bytes(0)
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        for name in ["old", "new", "other"] {
            fs::create_dir(folder.path().join(name)).expect("there is room");
        }
        let odd = Odd::default();
        let nx = blocking::connect(config(folder.path(), &odd)).expect("it boots");
        Self { nx, odd, folder }
    }

    /// A bench with files by their paths at [`AT`].
    pub(crate) fn of_files() -> Self {
        let bench = Self::new();
        bench.nx.mount(AT, bench.spec("path-local", "old")).expect("it mounts");
        bench
    }

    /// A bench with content by its hash at [`AT`].
    pub(crate) fn of_contents() -> Self {
        let bench = Self::new();
        bench.nx.mount(AT, bench.spec("cas-local", "old")).expect("it mounts");
        bench
    }

    /// The kernel ends, and another one boots.
    pub(crate) fn again(self) -> Self {
        let Self { nx, odd, folder } = self;
        nx.shutdown().expect("it stops");
        let nx = blocking::connect(config(folder.path(), &odd)).expect("it boots");
        Self { nx, odd, folder }
    }

    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A driver over one of the bench's folders.
    pub(crate) fn spec(&self, driver: &str, folder: &str) -> MountSpec {
        MountSpec::new(driver).option("folder", self.host(folder).display().to_string())
    }

    pub(crate) fn begin(&self, to: MountSpec) -> Result<()> {
        self.nx.migrate(AT, to, true)
    }

    pub(crate) fn status(&self) -> Option<MigrationStatus> {
        let all = self.nx.migrations().expect("it answers");
        all.into_iter().find(|migration| migration.path.as_str() == AT)
    }

    /// How the migration ends.
    #[track_caller]
    pub(crate) fn over(&self) -> MigrationStatus {
        until("over", || self.status().filter(MigrationStatus::is_over))
    }

    /// How the migration ends, which succeeds.
    #[track_caller]
    pub(crate) fn done(&self) -> MigrationStatus {
        let status = self.over();
        assert_eq!(status.state, MigrationState::Done, "{status:?}");
        status
    }

    /// Why the migration came to an end.
    #[track_caller]
    pub(crate) fn failed(&self, error: &str) -> String {
        match self.over().state {
            MigrationState::Failed { cause, error: told } if told == error => cause,
            other => panic!("it is {other:?}, and not failed with {error}"),
        }
    }

    /// The driver that serves.
    pub(crate) fn driver(&self) -> MountSpec {
        let mounts = self.nx.mounts().expect("it answers");
        let mount = mounts.into_iter().find(|mount| mount.point.as_str() == AT).expect("it is mounted");
        let options = mount.options.into_iter();
        options.fold(MountSpec::new(mount.driver), |spec, (key, value)| spec.option(key, value))
    }

    /// All files of the mount.
    pub(crate) fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        read_tree(&self.nx, AT)
    }
}

/// All files below a path, by their paths below it.
pub(crate) fn read_tree(nx: &Nexus, at: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in nx.walk(at) {
        let entry = entry.expect("it is listed");
        if entry.entry_type == nexus::EntryType::Reg {
            let content = nx.read(&entry.path).expect("it is read");
            files.insert(entry.path.as_str()[at.len()..].to_owned(), content.to_vec());
        }
    }
    files
}

/// All files of a folder of the host, by their paths below it. Those that are on their way to become others are left out.
pub(crate) fn read_host(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(&below).expect("it is there") {
            let path = entry.expect("it is there").path();
            let name = path.strip_prefix(folder).expect("it is below").to_string_lossy().into_owned();
            // Files become others under hidden names, contents in a folder beside them. Either may go at any moment.
            if name == "tmp" || name.contains(".nexus-") {
                continue;
            }
            let kind = fs::symlink_metadata(&path).expect("it is there");
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files.insert(format!("/{name}"), fs::read(&path).expect("it is read"));
            }
        }
    }
    files
}

/// How many files are in a folder of the host just now.
pub(crate) fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| if entry.path().is_dir() { count(&entry.path()) } else { 1 };
    entries.filter_map(Result::ok).map(of).sum()
}

/// Whether nothing at all is in a folder of the host.
pub(crate) fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("it is there").next().is_none()
}

/// Content of its own for each number.
pub(crate) fn content(number: u64, length: usize) -> Vec<u8> {
    let mut state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let words = std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes())
    });
    words.flatten().take(length).collect()
}

/// Waits until something has come about by itself.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "never {what}");
        // Whoever is to bring it about needs the processor.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[track_caller]
pub(crate) fn refused<T: Debug>(done: Result<T>, kind: ErrorKind) -> Error {
    let error = done.expect_err("it is refused");
    assert_eq!(error.kind(), kind, "{error}");
    error
}
