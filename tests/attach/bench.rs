//! A kernel that serves, and handles to it from outside.

use std::path::Path;
use std::time::Duration;

use nexus::blocking::{self, Nexus};
use nexus::{Config, Serving};

/// How long something may take that must come. Nothing waits so long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whose folder it is.
pub(crate) struct Bench {
    pub(crate) owner: Nexus,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(serving: Serving) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let owner = own(folder.path(), serving);
        Self { owner, folder }
    }

    pub(crate) fn attach(&self) -> Nexus {
        blocking::attach(self.folder.path()).expect("it is served")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Of a defect in the server nobody else may hear.
        if let Ok(Some(stats)) = self.owner.serving() {
            assert!(stats.crashed == 0 || std::thread::panicking(), "{stats:?}");
        }
    }
}

/// Boots a kernel on the folder that serves its socket.
pub(crate) fn own(folder: &Path, serving: Serving) -> Nexus {
    blocking::connect(Config::new(folder).serve(serving)).expect("it boots")
}

/// Waits for what must come.
#[track_caller]
pub(crate) fn until(nx: &Nexus, what: &str, mut come: impl FnMut() -> bool) {
    let latest = nx.env().now() + PATIENCE;
    while !come() {
        assert!(nx.env().now() < latest, "{what} does not come");
        std::thread::yield_now();
    }
}
