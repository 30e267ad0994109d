//! A cache in front of a slow store, and what is written back to it.

mod contents;
mod crash;
mod damaged;
mod deletes;
mod far;
mod later;
mod reads;
mod refused;
mod undecided;
mod writes;

use std::sync::Arc;

use far::Far;
use nexus_actors::Env;
use nexus_drivers::cached::{CachedPaths, Caching, Vault};
use nexus_drivers::cas::Cas;
use nexus_drivers::memory::{MemoryMetastore, MemoryPaths, MemoryTransport};
use nexus_kernel::hal::StoreError;
use nexus_kernel::hal::conformance::object_store::path::{Subject, check};
use nexus_messages::Timestamp;

/// A store in memory with a cache in front of it that claims to be on disk.
fn subject(caching: Caching) -> Subject {
    let env = Env::host(nexus_actors::HostConfig::default()).expect("threads");
    let clock = env.clone();
    let inner = Arc::new(MemoryPaths::new(Arc::new(move || Timestamp(clock.wall()))));
    let pool = env.pool("cached", 2, 64);
    let (index, blobs) = (Arc::new(MemoryMetastore::new()), Arc::new(Cas::new(MemoryTransport::new())));
    let vault = env.blocking_wait(Vault::on(&env, pool, index, blobs, false)).expect("it is empty");
    Subject::new(CachedPaths::new(inner, vault, "inner", caching).expect("nothing is wrong"))
}

#[test]
fn a_store_with_a_cache_in_front_conforms() {
    for age in [0, 3_600] {
        for (bytes_max, write_back) in [(0, false), (1 << 20, false), (0, true), (8 << 20, true)] {
            let mut caching = Caching::default();
            (caching.bytes_max, caching.write_back) = (bytes_max, write_back);
            (caching.age, caching.pending_max) = (std::time::Duration::from_secs(age), 1 << 20);
            let report = check(&|| subject(caching));
            assert!(report.passed(), "{caching:?}: {report}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_and_named() {
    let far = Far::new();
    let refused = |options: &[(&str, &str)], folder| match far.try_open(options, folder) {
        Err(StoreError::BadOption { why }) => why,
        other => panic!("{options:?}: {other:?}"),
    };
    assert!(refused(&[("write_back", "yes")], false).contains("write_back"));
    assert!(refused(&[("write_back", "maybe")], true).contains("write_back"));
    assert!(refused(&[("cache_bytes", "lots")], true).contains("cache_bytes"));
    assert!(far.try_open(&[("cache_bytes", "1000")], false).is_ok(), "a cache in memory needs no folder");
    // Who asks for nothing has nothing.
    assert!(far.try_open(&[], true).is_ok());
    assert!(!far.folder().join("cached").join("blobs").exists() || far.folder().join("cached").exists());
}
