//! What else becomes of a mount while its files move: it is not detached or replaced, its driver's actor dies, the kernel ends.

use std::time::Duration;

use nexus::{ErrorKind, Kill, MigrationState};

use crate::bench::{AT, Bench, ODD_FILES, content, refused, until};
use crate::load::Load;

/// Files of the mount.
const FILES: u64 = 60;

fn slowly(bench: &Bench) {
    for number in 0..FILES {
        bench.nx.write(format!("{AT}/d/{number}"), content(number, 100)).expect("it writes");
    }
    bench.odd.slow(Duration::from_millis(40));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    until("copied", || bench.status().filter(|status| status.copied > 10));
}

#[test]
fn the_kernel_ends_in_order_and_the_next_goes_on() {
    let bench = Bench::of_files();
    slowly(&bench);
    let bench = bench.again();
    assert_eq!(bench.status().expect("it is remembered").state, MigrationState::Interrupted);
    assert_eq!(bench.driver().driver, "path-local");
    bench.nx.write(format!("{AT}/d/7"), "changed meanwhile").expect("it writes");
    bench.nx.unlink(format!("{AT}/d/8")).expect("it is removed");
    bench.odd.slow(Duration::ZERO);
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
    bench.done();
    let tree = bench.tree();
    assert_eq!(tree.len() as u64, FILES - 1);
    assert_eq!(tree["/d/7"], b"changed meanwhile");
    assert!(!bench.host("new").join("d/8").exists());
}

#[test]
fn what_was_copied_more_than_a_moment_before_the_end_is_not_copied_again() {
    let bench = Bench::of_files();
    for number in 0..FILES {
        bench.nx.write(format!("{AT}/d/{number}"), content(number, 100)).expect("it writes");
    }
    bench.odd.slow(Duration::from_millis(300));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    until("copied", || bench.status().filter(|status| status.copied > FILES * 3 / 4));
    let bench = bench.again();
    let before = until("counted", || bench.status().filter(|status| status.copied > 0 && status.bytes > 0));
    assert_eq!(before.state, MigrationState::Interrupted);
    bench.odd.slow(Duration::ZERO);
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
    bench.done();
    let after = bench.status().expect("it is listed");
    assert!(after.kept > 0 && after.copied < FILES, "{after:?}");
}

#[test]
fn the_kernel_ends_in_order_and_the_next_undoes_it() {
    let bench = Bench::of_files();
    slowly(&bench);
    let bench = bench.again();
    bench.odd.slow(Duration::ZERO);
    bench.nx.abort_migration(AT).expect("it is told");
    assert_eq!(bench.over().state, MigrationState::Aborted);
    assert!(crate::bench::is_empty(&bench.host("new")));
    assert_eq!(bench.tree().len() as u64, FILES);
}

#[test]
fn the_drivers_actor_dies_meanwhile_and_nothing_is_lost() {
    let bench = Bench::of_files();
    let mounts = bench.nx.mounts().expect("it answers");
    let mount = mounts.into_iter().find(|mount| mount.point.as_str() == AT).expect("it is mounted");
    let load = Load::on(&bench.nx);
    slowly(&bench);
    for _ in 0..3 {
        assert!(bench.nx.kill(&mount.actor, Kill::Panic).expect("it is told"));
        load.go_on(20);
    }
    bench.odd.slow(Duration::ZERO);
    bench.done();
    let mut expected = load.end();
    for number in 0..FILES {
        expected.insert(format!("/d/{number}"), content(number, 100));
    }
    assert!(bench.tree() == expected);
    assert!(crate::bench::read_host(&bench.host("new")) == expected);
}

#[test]
fn meanwhile_the_mount_is_neither_detached_nor_given_another_driver() {
    let bench = Bench::of_files();
    slowly(&bench);
    let other = bench.spec("path-local", "other");
    refused(bench.begin(other.clone()), ErrorKind::Busy);
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it is the one that runs");
    refused(bench.nx.unmount(AT), ErrorKind::Busy);
    refused(bench.nx.swap_driver(AT, other), ErrorKind::Busy);
    bench.nx.write(format!("{AT}/d/1"), "x").expect("calls go on");
    bench.odd.slow(Duration::ZERO);
    bench.nx.abort_migration(AT).expect("it is told");
    bench.over();
}
