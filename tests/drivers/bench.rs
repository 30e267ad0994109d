//! A kernel on a folder, with drivers that go wrong when they are told to.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nexus::blocking::{self, Nexus};
use nexus::sys::ActorEntry;
use nexus::{Config, Error, ErrorKind, Executed, MountSpec, MountStatus, Result};
use nexus_drivers::faults::{Faults, FaultyFactory};

/// How long something may take that happens by itself. Nothing waits so long unless it never happens.
const PATIENCE: Duration = Duration::from_secs(60);

/// The names of the drivers with faults.
pub(crate) const FAULTY_CAS: &str = "faulty-cas";
pub(crate) const FAULTY_PATH: &str = "faulty-path";

/// Content that goes to the driver, not into the metastore.
pub(crate) const LARGE: usize = 64 * 1024;

/// A kernel whose `/` is as usual, and the switches of the drivers [`FAULTY_CAS`] and [`FAULTY_PATH`].
pub(crate) struct Bench {
    pub(crate) nx: Nexus,
    pub(crate) faults: Faults,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn config(folder: &Path, faults: &Faults) -> Config {
    let built_in = nexus_drivers::catalogue();
    let faulty = |name: &str, inner: &str| {
        let inner = built_in.get(inner).expect("built in");
        Arc::new(FaultyFactory::new(name, inner, faults.clone()))
    };
    Config::new(folder.join("data"))
        .driver(faulty(FAULTY_CAS, "cas-local"))
        .driver(faulty(FAULTY_PATH, "path-local"))
        .driver(faulty("faulty-memory", "memory"))
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|config| config)
    }

    pub(crate) fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        for name in ["files", "other", "blobs"] {
            std::fs::create_dir(folder.path().join(name)).expect("there is room");
        }
        let faults = Faults::new();
        let nx = blocking::connect(change(config(folder.path(), &faults))).expect("it boots");
        Self { nx, faults, folder }
    }

    /// A driver over one of the bench's folders.
    pub(crate) fn spec(&self, driver: &str, folder: &str) -> MountSpec {
        MountSpec::new(driver).option("folder", self.folder.path().join(folder).display().to_string())
    }

    /// Mounts, at `/bad`, plain files by a driver with faults.
    pub(crate) fn mount_files(&self, deadline_ms: u64) {
        let spec = self.spec(FAULTY_PATH, "files").option("deadline_ms", deadline_ms.to_string());
        self.nx.mount("/bad", spec).expect("it mounts");
    }

    /// Mounts, at `/bad`, content by its hash by a driver with faults.
    pub(crate) fn mount_blobs(&self, deadline_ms: u64) {
        let spec = self.spec(FAULTY_CAS, "blobs").option("deadline_ms", deadline_ms.to_string());
        self.nx.mount("/bad", spec).expect("it mounts");
    }

    pub(crate) fn status(&self, point: &str) -> MountStatus {
        let mounts = self.nx.mounts().expect("it answers");
        mounts.into_iter().find(|mount| mount.point.as_str() == point).expect("it is mounted")
    }

    /// The actor of the driver at `/bad`.
    pub(crate) fn actor(&self) -> ActorEntry {
        self.find(&self.status("/bad").actor)
    }

    pub(crate) fn find(&self, path: &str) -> ActorEntry {
        let mut at: ActorEntry = self.nx.tree().expect("it answers");
        for name in path.split('/').skip(1) {
            let children = at.children;
            at = children.into_iter().find(|child| &*child.id == name).expect("it is in the tree");
        }
        at
    }

    /// All that is not the bad mount serves, and no supervisor had to be restarted.
    #[track_caller]
    pub(crate) fn others_serve(&self) {
        let large = vec![9; LARGE];
        self.nx.write("/well", large.clone()).expect("it writes");
        assert_eq!(self.nx.read("/well").expect("it reads"), large);
        self.nx.mount("/other", self.spec("path-local", "other")).expect("it mounts");
        self.nx.write("/other/f", "x").expect("it writes");
        assert_eq!(self.nx.read("/other/f").expect("it reads"), "x");
        self.nx.unmount("/other").expect("it unmounts");
        for name in ["nexus", "nexus/drivers", "nexus/registry", "nexus/kernel", "nexus/store"] {
            assert_eq!(self.find(name).generation, 1, "{name} was restarted");
        }
    }
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
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[track_caller]
pub(crate) fn refused<T: Debug>(done: Result<T>, kind: ErrorKind, executed: Executed) -> Error {
    let error = done.expect_err("it is refused");
    assert_eq!((error.kind(), error.executed()), (kind, executed), "{error}");
    error
}
