//! SQLite: the suite, and what is its own.

use std::path::Path;

use nexus_actors::{Env, HostConfig};
use nexus_drivers::records::sqlite::{SqliteConfig, SqliteRecords};
use nexus_kernel::hal::conformance::record_store::{Subject, check};
use nexus_kernel::hal::{DriverContext, RecordStore};

pub(crate) fn env() -> Env {
    Env::host(HostConfig::default()).expect("threads can be started")
}

pub(crate) fn context(env: &Env) -> DriverContext {
    DriverContext::new(env.clone(), env.pool("records", 8, 64), None)
}

pub(crate) fn store(env: &Env, path: &Path) -> SqliteRecords {
    SqliteRecords::new(SqliteConfig::new(path), &context(env))
}

/// A subject over a file of its own, each store of which is what `make` makes of it.
pub(crate) fn subject<S: RecordStore>(make: impl Fn(SqliteRecords) -> S + Send + Sync + 'static) -> Subject {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("records.sqlite");
    let mine = env.clone();
    let another = move || Box::new(make(store(&mine, &path))) as Box<dyn RecordStore>;
    let stops = Stops(env.clone());
    Subject { store: another(), another: Box::new(another), env, keeps: Box::new((stops, folder)) }
}

/// Ends an environment's threads with what it goes with.
pub(crate) struct Stops(pub(crate) Env);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn sqlite_conforms() {
    check(&|| subject(|store| store)).assert_passed();
}
