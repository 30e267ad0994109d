//! Both connectors pass the suite of stores that are addressed by path.

use std::sync::Arc;

use nexus_kernel::hal::conformance::object_store::path;
use nexus_kernel::hal::{Addressing, ConnectorCategory, ObjectStore, StoreFuture};
use nexus_messages::syscall::MountSpec;

use crate::subjects::{example, files, open, paths, try_open};
use crate::{api, server::Server};

/// A store with what it is about.
#[derive(Debug)]
struct With<T>(Arc<dyn ObjectStore>, T);

impl<T: std::fmt::Debug + Send + Sync + 'static> ObjectStore for With<T> {
    fn addressing(&self) -> Addressing<'_> {
        self.0.addressing()
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.0.probe()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

#[test]
fn an_api_conforms() {
    let make = || {
        let (server, _) = api::start();
        let spec = files(&server);
        path::Subject::new(With(open(&spec), server)).reopen(move |_| open(&spec))
    };
    // The server ends with the store that was closed: it is not opened again.
    let make = move || path::Subject { reopen: None, ..make() };
    path::check(&make).assert_passed();
}

#[test]
fn an_api_says_what_it_is() {
    let (server, _) = api::start();
    let store = open(&files(&server));
    assert_eq!(store.connector(), Some(ConnectorCategory::Api));
    assert!(!store.read_only() && paths(&*store).capabilities().exclusive);
    assert!(try_open(&files(&server).option("parameters", "bsae=x")).is_err());
}

#[test]
fn a_program_conforms() {
    let make = || {
        let folder = tempfile::tempdir().expect("a folder");
        let spec = MountSpec::new("command")
            .option("description", example("folder.toml"))
            .option("parameters", format!("folder={}", folder.path().display()));
        let store = With(open(&spec), folder);
        path::Subject::new(store)
    };
    path::check(&make).assert_passed();
}
