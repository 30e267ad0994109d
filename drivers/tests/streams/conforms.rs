//! Each driver passes the suite.

use nexus_drivers::streams::MemoryStreams;
use nexus_kernel::hal::conformance::stream_store::{Subject, check};

#[test]
fn streams_in_memory_conform() {
    check(&|| Subject::new(MemoryStreams::default())).assert_passed();
}

#[cfg(target_os = "linux")]
#[test]
fn streams_in_shared_memory_conform() {
    use nexus_actors::{Env, HostConfig, SharedFolder, SharedHome, Sleepers};
    use nexus_drivers::streams::{SharedStreams, SharedStreamsConfig};

    let env = Env::host(HostConfig::default()).unwrap();
    let (pool, sleepers) = (env.pool("test", 2, 64), Sleepers::new(&env));
    let host = tempfile::tempdir().unwrap();
    let stores = std::sync::atomic::AtomicU64::new(0);
    let make = || {
        let store = stores.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = SharedFolder::new(host.path(), store, SharedHome::Process);
        let config = SharedStreamsConfig::default();
        Subject::new(SharedStreams::new(folder, sleepers.clone(), pool.clone(), config))
    };
    let report = check(&make);
    env.stop();
    report.assert_passed();
}

#[cfg(all(feature = "local", unix))]
mod on_disk {
    use std::sync::Arc;

    use nexus_actors::{Env, HostConfig, block_on};
    use nexus_drivers::streams::wal::{WalStreams, WalStreamsConfig};
    use nexus_kernel::hal::conformance::Report;

    use super::{Subject, check};

    /// What the suite finds of streams on disk with these settings.
    fn report(config: &WalStreamsConfig) -> Report {
        let env = Env::host(HostConfig::default()).unwrap();
        let pool = env.pool("test", 2, 64);
        let make = || {
            let folder = tempfile::tempdir().unwrap();
            let (env, pool, config) = (env.clone(), pool.clone(), config.clone());
            let open = move || {
                block_on(WalStreams::open(folder.path(), &env, pool.clone(), config.clone())).unwrap()
            };
            Subject::new(open()).reopen(move |store| {
                drop(store);
                Arc::new(open())
            })
        };
        let report = check(&make);
        env.stop();
        report
    }

    #[test]
    fn streams_on_disk_conform() {
        report(&WalStreamsConfig::default()).assert_passed();
    }

    #[test]
    fn streams_on_disk_conform_when_nothing_is_in_memory_and_each_segment_is_short() {
        let config = WalStreamsConfig::default().segment_bytes(600).ahead_bytes(512);
        report(&config.recent_bytes(0).index_bytes(0)).assert_passed();
    }
}
