//! A swap, and death at each side of the row.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use nexus::actors::{Inject, Moment};
use nexus::{ErrorKind, Executed, Kill, MountSpec, MountState, MountStatus, blocking};
use nexus_drivers::faults::Faults;
use nexus_drivers::wal::{WalConfig, WalMetastore};

use crate::bench::{FAULTY_CAS, LARGE, config, until};
use crate::gate::{Gated, Stop};

/// Tells the child that it is one, and what it works on.
const FOLDER: &str = "DRIVERS_TEST_FOLDER";
const STOP: &str = "DRIVERS_TEST_STOP";

/// What the child says when it is to be killed.
const NOW: &str = "kill me";

fn metastore(folder: &Path) -> Arc<Gated> {
    Gated::new(WalMetastore::open(folder, WalConfig::default()).expect("it opens"))
}

fn boot(folder: &Path, metastore: &Arc<Gated>) -> blocking::Nexus {
    let config = config(folder, &Faults::new()).metastore(metastore.clone()).content_cache_bytes(0);
    blocking::connect(config).expect("it boots")
}

fn spec(folder: &Path, driver: &str) -> MountSpec {
    MountSpec::new(driver).option("folder", folder.join("blobs").display().to_string())
}

fn status(nx: &blocking::Nexus) -> MountStatus {
    let mounts = nx.mounts().expect("it answers");
    mounts.into_iter().find(|mount| mount.point.as_str() == "/m").expect("it is mounted")
}

/// A kernel with content that only the driver has.
fn begin(folder: &Path, metastore: &Arc<Gated>) -> blocking::Nexus {
    let nx = boot(folder, metastore);
    nx.mount("/m", spec(folder, FAULTY_CAS)).expect("it mounts");
    nx.write("/m/f", vec![1; LARGE]).expect("it writes");
    nx
}

#[test]
fn the_driver_after_a_killed_swap_is_the_one_of_the_row() {
    for (stop, driver) in [
        (Some(Stop::BeforeTheRow), FAULTY_CAS),
        (Some(Stop::AfterTheRow), "cas-local"),
        // It was acknowledged.
        (None, "cas-local"),
    ] {
        let folder = tempfile::tempdir().expect("there is room");
        let mut child = Command::new(std::env::current_exe().expect("it runs"))
            .args(["--exact", "dying::swaps_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(STOP, format!("{stop:?}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("it has one")).lines();
        let ready = said.map_while(Result::ok).any(|line| line.contains(NOW));
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        assert!(ready, "the child came to its end before it was killed");

        let nx = boot(folder.path(), &metastore(folder.path()));
        assert_eq!(status(&nx).driver, driver, "{stop:?}");
        assert_eq!(nx.read("/m/f").expect("it was acknowledged"), vec![1; LARGE], "{stop:?}");
        nx.write("/m/g", vec![2; LARGE]).expect("it writes");
        nx.shutdown().expect("it stops");
    }
}

/// No claim by itself: what the test above starts as another process, and kills.
#[test]
fn swaps_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (folder, metastore) = (Path::new(&folder), metastore(Path::new(&folder)));
    let nx = begin(folder, &metastore);
    let new = spec(folder, "cas-local");
    let stop = match std::env::var(STOP).expect("it is said").as_str() {
        "Some(BeforeTheRow)" => Stop::BeforeTheRow,
        "Some(AfterTheRow)" => Stop::AfterTheRow,
        _ => {
            nx.swap_driver("/m", new).expect("it is replaced");
            println!("{NOW}");
            loop {
                thread::park();
            }
        }
    };
    metastore.arm(stop);
    let swap = thread::spawn(move || nx.swap_driver("/m", new));
    metastore.reached();
    println!("{NOW}");
    let _ = swap.join();
}

/// From the row on the kernel finishes the swap, whichever actor dies.
#[test]
fn a_swap_whose_actors_die_at_the_row_is_finished() {
    for (victim, stop) in [
        ("nexus/registry/lifecycle", Stop::BeforeTheRow),
        ("nexus/registry/lifecycle", Stop::AfterTheRow),
        ("driver", Stop::BeforeTheRow),
        ("driver", Stop::AfterTheRow),
    ] {
        let folder = tempfile::tempdir().expect("there is room");
        let metastore = metastore(folder.path());
        let nx = begin(folder.path(), &metastore);
        let before = status(&nx);
        metastore.arm(stop);
        let (other, new) = (nx.clone(), spec(folder.path(), "cas-local"));
        let swap = thread::spawn(move || other.swap_driver("/m", new));
        metastore.reached();
        // What were written to a new driver now would be looked for in the old one, if the kernel died.
        assert_eq!(
            status(&nx).generation,
            before.generation,
            "published before the row is known to be on disk"
        );
        let victim = if victim == "driver" { before.actor.as_str() } else { victim };
        let generation = |nx: &blocking::Nexus| {
            let mut at = nx.tree().expect("it answers");
            for name in victim.split('/').skip(1) {
                at = at.children.into_iter().find(|child| &*child.id == name).expect("it is in the tree");
            }
            at.generation
        };
        let was = generation(&nx);
        assert!(nx.kill(victim, Kill::Brutal).expect("it can be killed"));
        until("it was restarted", || (generation(&nx) > was).then_some(()));
        metastore.open();
        match swap.join().expect("it ends") {
            Ok(swapped) => assert!(swapped.to > before.generation),
            // Whoever asked an actor that died is told that it does not know.
            Err(error) => assert_eq!(error.executed(), Executed::Unknown, "{error}"),
        }
        until("the new driver serves", || (status(&nx).driver == "cas-local").then_some(()));
        until("it was published", || (status(&nx).generation > before.generation).then_some(()));
        assert_eq!(nx.read("/m/f").expect("it is there"), vec![1; LARGE]);
        nx.swap_driver("/m", spec(folder.path(), FAULTY_CAS)).expect("nothing is left of it");
        nx.shutdown().expect("it stops");
    }
}

/// What was prepared is still good: the next incarnation is asked to publish it.
#[test]
fn a_swap_succeeds_although_the_drivers_actor_dies_of_publishing() {
    for fault in [Inject::Panic, Inject::Error, Inject::Kill] {
        for moment in [Moment::Before, Moment::After] {
            let folder = tempfile::tempdir().expect("there is room");
            let metastore = metastore(folder.path());
            let nx = begin(folder.path(), &metastore);
            let before = status(&nx);
            metastore.arm(Stop::AfterTheRow);
            let (other, new) = (nx.clone(), spec(folder.path(), "cas-local"));
            let swap = thread::spawn(move || other.swap_driver("/m", new));
            metastore.reached();
            let struck = nx.kill(&before.actor, Kill::Handling(fault, moment));
            assert!(struck.expect("it can be killed"));
            metastore.open();
            let swapped = swap.join().expect("it ends").expect("it is asked again");
            assert!(swapped.to > before.generation, "{fault:?} {moment:?}");
            assert_eq!(status(&nx).driver, "cas-local");
            assert_eq!(nx.read("/m/f").expect("it is there"), vec![1; LARGE]);
            nx.shutdown().expect("it stops");
        }
    }
}

/// What has to be written at a boot for what begins empty is no reason for the rest not to come up: room is made there.
#[test]
fn a_mount_that_cannot_begin_empty_hinders_no_other() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = begin(folder.path(), &metastore(folder.path()));
    nx.mount("/memory", MountSpec::new("memory")).expect("it mounts");
    nx.write("/memory/f", vec![1; LARGE]).expect("it writes");
    nx.write("/memory/small", "small").expect("it writes");
    nx.shutdown().expect("it stops");
    let metastore = metastore(folder.path());
    metastore.arm(Stop::Full);
    let nx = boot(folder.path(), &metastore);
    assert_eq!(nx.read("/m/f").expect("it is there"), vec![1; LARGE]);
    let there = nx.mounts().expect("they are listed");
    let there = there.iter().find(|mount| mount.point.as_str() == "/memory").expect("it is there");
    assert!(
        matches!(&there.state, MountState::Failed { cause, .. } if cause.contains("begin anew")),
        "{there:?}"
    );
    metastore.open();
    for gone in [
        nx.read("/memory/f").map(drop),
        nx.read("/memory/small").map(drop),
        nx.readdir("/memory").map(drop),
        nx.write("/memory/new", "x").map(drop),
    ] {
        let error = gone.expect_err("it stays shut").to_string();
        assert!(error.contains("begin anew"), "{error}");
    }
    nx.write("/m/g", "there is room").expect("it writes");
    nx.unmount("/memory").expect("it goes");
    nx.mount("/memory", MountSpec::new("memory")).expect("it mounts");
    nx.write("/memory/f", "anew").expect("it writes");
    nx.shutdown().expect("it stops");
}

/// A row that cannot be written is no reason for the old driver to go.
#[test]
fn a_swap_whose_row_is_refused_leaves_the_old_driver_serving() {
    let folder = tempfile::tempdir().expect("there is room");
    let metastore = metastore(folder.path());
    let nx = begin(folder.path(), &metastore);
    let before = status(&nx);
    metastore.arm(Stop::Full);
    let error = nx.swap_driver("/m", spec(folder.path(), "cas-local")).expect_err("it has no room");
    assert_eq!((error.kind(), error.executed()), (ErrorKind::StoreFull, Executed::No));
    let now = status(&nx);
    assert_eq!((now.driver, now.generation), (before.driver, before.generation));
    assert_eq!(nx.read("/m/f").expect("it is there"), vec![1; LARGE]);
    metastore.open();
    nx.swap_driver("/m", spec(folder.path(), "cas-local")).expect("and the next one succeeds");
}
