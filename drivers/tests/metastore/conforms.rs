//! Each driver passes the suite.

use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::hal::conformance::metastore::{Subject, check};

#[test]
fn the_store_in_memory_conforms() {
    check(&|| Subject::new(MemoryMetastore::new())).assert_passed();
}

#[cfg(feature = "redb")]
#[test]
fn the_store_on_redb_conforms() {
    use nexus_drivers::redb::{RedbConfig, RedbMetastore};

    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let open =
            move || RedbMetastore::open(folder.path().join("meta.redb"), RedbConfig::default()).unwrap();
        Subject::new(open()).reopen(move |store| {
            drop(store);
            Box::new(open())
        })
    };
    check(&make).assert_passed();
}

#[cfg(feature = "redb")]
#[test]
fn the_store_with_a_log_conforms_folded_or_not() {
    use nexus_drivers::wal::{WalConfig, WalMetastore};

    for fold_before_closing in [false, true] {
        let make = || {
            let folder = tempfile::tempdir().unwrap();
            let open = move || WalMetastore::open(folder.path(), WalConfig::default()).unwrap();
            Subject::new(open()).reopen(move |store| {
                if fold_before_closing {
                    store.upkeep().unwrap();
                }
                drop(store);
                Box::new(open())
            })
        };
        check(&make).assert_passed();
    }
}
