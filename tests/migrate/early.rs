//! Mounts that acknowledge what is not at their store yet.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nexus::{ErrorKind, MigrationState, SysWrite};
use nexus_drivers::disk::sim::SimDisk;

use crate::bench::{AT, Bench, CACHED_FILES, ODD_FILES, content, is_empty, read_host, refused, until};
use crate::crashes::{Lasting, Life, path};
use crate::load::Load;

/// A bench whose mount writes back.
fn of_early() -> Bench {
    let bench = Bench::new();
    bench.nx.mount(AT, bench.spec(CACHED_FILES, "old").option("write_back", "yes")).expect("it mounts");
    bench
}

#[test]
fn a_mount_that_writes_back_is_left_when_all_is_at_its_store() {
    let bench = of_early();
    bench.odd.room(Some(0));
    for number in 0..20 {
        bench.nx.write(format!("{AT}/d/{number}"), content(number, 200)).expect("it is acknowledged");
    }
    assert!(read_host(&bench.host("old")).is_empty(), "the store has no room");
    bench.begin(bench.spec("path-local", "new")).expect("it begins");
    let status = until("copied", || bench.status().filter(|status| status.copied >= 20));
    assert!(!status.is_over(), "{status:?}");
    bench.nx.write(format!("{AT}/d/7"), "changed meanwhile").expect("nobody waits for the store");
    bench.odd.room(None);
    bench.done();
    let (old, new) = (read_host(&bench.host("old")), read_host(&bench.host("new")));
    assert_eq!((old.len(), &*old["/d/7"]), (20, &b"changed meanwhile"[..]));
    assert!(old == new && bench.tree() == new);
    // What is written now goes to the new store, and nothing that was pending comes to it later.
    bench.nx.write(format!("{AT}/d/7"), "in the new one").expect("it writes");
    let bench = bench.again();
    assert_eq!(fs::read(bench.host("new").join("d/7")).expect("it is there"), b"in the new one");
    assert!(read_host(&bench.host("old")) == old);
}

#[test]
fn nothing_acknowledged_is_lost_when_a_mount_that_writes_back_is_left_under_load() {
    let bench = of_early();
    let load = Load::on(&bench.nx);
    load.go_on(30);
    bench.odd.slow(Duration::from_micros(500));
    bench.begin(bench.spec("path-local", "new")).expect("it begins");
    bench.done();
    load.go_on(30);
    let expected = load.end();
    assert!(bench.tree() == expected);
    assert!(read_host(&bench.host("new")) == expected);
}

#[test]
fn nothing_acknowledged_stays_behind_when_a_mount_that_writes_back_is_given_another_store() {
    let bench = of_early();
    // So long it takes to open the new one, and to bring a file to the old one.
    bench.odd.slow(Duration::from_millis(20));
    let (over, mut written) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            (0..)
                .take_while(|number| {
                    let path = format!("{AT}/d/{number}");
                    bench.nx.write(path, content(*number, 200)).expect("it is acknowledged");
                    thread::park_timeout(Duration::from_millis(30));
                    !over.load(Ordering::Relaxed)
                })
                .count() as u64
        });
        // A machine that stands still may not have brought all to the old one in time.
        let swapped = until("replaced", || match bench.nx.swap_driver(AT, bench.spec(ODD_FILES, "new")) {
            Err(error) if error.kind() == ErrorKind::Busy => None,
            swapped => Some(swapped),
        });
        over.store(true, Ordering::Relaxed);
        written = caller.join().expect("no call failed") + 1;
        swapped.expect("it is replaced");
    });
    let (old, new) = (read_host(&bench.host("old")), read_host(&bench.host("new")));
    let both: Vec<_> = (0..written).map(|number| format!("/d/{number}")).collect();
    let missing: Vec<_> =
        both.iter().filter(|path| !old.contains_key(*path) && !new.contains_key(*path)).collect();
    assert!(missing.is_empty(), "{missing:?}, which are {} of {written}", missing.len());
    assert!(bench.tree() == new);
}

#[test]
fn to_a_mount_that_writes_back_none_goes_and_to_one_that_caches_it_does() {
    let bench = Bench::of_files();
    bench.nx.write(format!("{AT}/d/f"), "one").expect("it writes");
    let cached = bench.spec(CACHED_FILES, "new").option("cache_bytes", "1000000");
    let error = refused(bench.begin(cached.clone().option("write_back", "yes")), ErrorKind::NotSupported);
    assert!(error.to_string().contains("write_back") && error.to_string().contains("--replace"), "{error}");
    assert!(bench.status().is_none() && is_empty(&bench.host("new")));
    bench.begin(cached.clone()).expect("it begins");
    bench.done();
    bench.nx.swap_driver(AT, cached.option("write_back", "yes")).expect("it is replaced");
    assert_eq!(bench.nx.read(format!("{AT}/d/f")).expect("it is there"), "one");
}

#[test]
fn a_store_that_takes_nothing_of_what_was_acknowledged_is_not_left() {
    let (old, new, disk) = (Lasting::new("old").unflushed(), Lasting::new("new"), SimDisk::new(1));
    let life = Life::boot(&disk, &[&old, &new], 7);
    let status = life.simulation.block_on(async {
        let write = SysWrite::at(path("/m/f"), "one").create();
        life.kernel.send(&life.admin, write.clone()).await.expect("it is written");
        life.order(&Life::begin()).await.expect("it begins");
        let status = life.over().await.expect("it is told");
        life.kernel.send(&life.admin, write).await.expect("the old one serves");
        status
    });
    match status.state {
        MigrationState::Failed { cause, error } => {
            assert!(error == "ETIMEDOUT" && cause.contains("written back"), "{error}: {cause}");
        }
        other => panic!("it is {other:?}"),
    }
    assert_eq!(life.driver(), "old");
    life.end();
}
