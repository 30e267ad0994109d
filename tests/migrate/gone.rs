//! A store that cannot be reached any more: it is named, and a migration that has begun to go there can be given up.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nexus::{ErrorKind, MigrateOrder, MigrationState, MigrationStatus, SysWrite};
use nexus_drivers::disk::sim::SimDisk;

use crate::bench::{AT, Bench, ODD_CONTENTS, ODD_FILES, content, read_host, refused, until};
use crate::crashes::{Lasting, Life, path};

/// Content that goes to the driver, where it is found by its hash.
const LENGTH: usize = 17_000;

/// What the odd store says when it is gone.
const GONE: &str = "the server cannot be reached";

/// Begins a migration that has far to go, and waits for the first copies.
fn halfway(bench: &Bench, driver: &str) {
    for number in 0..60 {
        bench.nx.write(format!("{AT}/d{}/{number}", number % 4), content(number, LENGTH)).expect("it writes");
    }
    bench.odd.slow(Duration::from_millis(15));
    bench.begin(bench.spec(driver, "new")).expect("it begins");
    until("copied", || bench.status().filter(|status| status.copied > 20));
}

/// How the new store is named.
fn named(bench: &Bench, driver: &str) -> String {
    format!("{driver} (folder={})", bench.host("new").display())
}

/// Gives up; what was copied is where it was, and the old driver serves.
#[track_caller]
fn give_up(bench: &Bench, driver: &str) -> MigrationStatus {
    bench.nx.give_up_migration(AT).expect("it is told");
    let status = bench.over();
    assert_eq!(status.state, MigrationState::GivenUp, "{status:?}");
    assert_eq!(status.new_store(), named(bench, driver));
    assert!(bench.driver().driver != driver, "the old one serves");
    let left = read_host(&bench.host("new")).len() as u64;
    assert!(
        status.left > 10 && 0 < left && left <= status.left,
        "{left} are left, and {} are told",
        status.left
    );
    status
}

/// Nobody asked the store that is gone to change what was copied.
#[track_caller]
fn still_there(copied: &BTreeMap<String, Vec<u8>>, bench: &Bench) {
    let now = read_host(&bench.host("new"));
    for (name, data) in copied {
        // A write that was on its way when the store was gone may have come since: as another file, or behind what its pack held.
        let is_kept = now.get(name).is_some_and(|now| now.starts_with(data));
        assert!(is_kept, "{name}: {} bytes, and {:?} now", data.len(), now.get(name).map(Vec::len));
    }
}

#[test]
fn a_migration_to_a_store_that_is_gone_can_be_given_up_and_replaced() {
    for (bench, driver) in [(Bench::of_files(), ODD_FILES), (Bench::of_contents(), ODD_CONTENTS)] {
        halfway(&bench, driver);
        bench.odd.gone(true);
        let over = bench.over();
        let MigrationState::Failed { cause, .. } = over.state else { panic!("{over:?}") };
        assert!(cause.starts_with(&format!("the new store {}: ", named(&bench, driver))), "{cause}");
        assert!(cause.contains(GONE), "{cause}");
        let copied = read_host(&bench.host("new"));
        // What it takes to abort is told, and which store it is.
        let error = refused(bench.nx.abort_migration(AT), ErrorKind::Io).to_string();
        for said in [&named(&bench, driver), GONE, "--abort --leave-copies"] {
            assert!(error.contains(said), "{error}");
        }
        let other = bench.spec(bench.driver().driver.as_str(), "other");
        let error = refused(bench.begin(other.clone()), ErrorKind::Busy).to_string();
        assert!(error.contains(&named(&bench, driver)), "{error}");
        give_up(&bench, driver);
        still_there(&copied, &bench);
        refused(bench.nx.give_up_migration(AT), ErrorKind::NotFound);
        refused(bench.nx.abort_migration(AT), ErrorKind::NotFound);
        // Nobody remembers it, and another one comes in its place.
        let bench = bench.again();
        assert!(bench.status().is_none());
        let before = bench.tree();
        bench.begin(other).expect("it begins");
        bench.done();
        assert_eq!(before.len(), 60);
        assert!(bench.tree() == before);
        still_there(&copied, &bench);
    }
}

#[test]
fn one_that_runs_or_is_being_undone_is_given_up_at_once() {
    for (bench, driver) in [(Bench::of_files(), ODD_FILES), (Bench::of_contents(), ODD_CONTENTS)] {
        halfway(&bench, driver);
        give_up(&bench, driver);
    }
    let bench = Bench::of_files();
    halfway(&bench, ODD_FILES);
    // Each removal takes longer than anybody waits.
    bench.odd.slow(Duration::from_secs(600));
    bench.nx.abort_migration(AT).expect("it is told");
    assert_eq!(bench.status().expect("it is told").state, MigrationState::Aborting);
    give_up(&bench, ODD_FILES);
    let bench = bench.again();
    assert!(bench.status().is_none());
    refused(bench.nx.abort_migration(AT), ErrorKind::NotFound);
}

#[test]
fn an_abort_that_cannot_reach_the_store_says_what_can_be_done() {
    let bench = Bench::of_files();
    halfway(&bench, ODD_FILES);
    bench.odd.slow(Duration::from_millis(100));
    bench.nx.abort_migration(AT).expect("it is told");
    bench.odd.gone(true);
    let cause = bench.failed("EIO");
    for said in [&named(&bench, ODD_FILES), "what was copied cannot be removed: ", GONE, "--leave-copies"] {
        assert!(cause.contains(said), "{cause}");
    }
    // As it is told, it can be aborted again.
    bench.odd.gone(false);
    bench.odd.slow(Duration::ZERO);
    bench.nx.abort_migration(AT).expect("it is told");
    assert_eq!(bench.over().state, MigrationState::Aborted);
    assert!(read_host(&bench.host("new")).is_empty());
}

#[test]
fn the_store_that_cannot_be_reached_is_blamed_with_one_file_and_not_the_mount() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let check = |bench: &Bench, store: &str| {
        let cause = bench.failed("EIO");
        let told = names.map(|name| format!("{store}: copying {name}: {GONE}"));
        assert!(told.contains(&cause), "{cause}");
    };
    let fill = |bench: &Bench| {
        let written = names.map(|name| fs::write(bench.host("old").join(name), name));
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    };
    let bench = Bench::of_files();
    fill(&bench);
    bench.odd.slow(Duration::from_millis(300));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    until("written", || (bench.odd.under_way() == names.len() as u64).then_some(()));
    bench.odd.gone(true);
    check(&bench, &format!("the new store {}", named(&bench, ODD_FILES)));
    assert_eq!(bench.tree().len(), names.len(), "the old one serves");
    // One that cannot even be opened is named as well.
    bench.nx.give_up_migration(AT).expect("it is told");
    bench.over();
    let error = refused(bench.begin(bench.spec(ODD_FILES, "new")), ErrorKind::Io).to_string();
    assert!(error.contains(&format!("the new store {}: ", named(&bench, ODD_FILES))), "{error}");
}

#[test]
fn the_old_store_is_blamed_for_what_it_does() {
    let bench = Bench::new();
    bench.nx.mount(AT, bench.spec(ODD_FILES, "old")).expect("it mounts");
    for number in 0..20 {
        fs::write(bench.host("old").join(number.to_string()), content(number, 100)).expect("there is room");
    }
    bench.odd.gone(true);
    bench.begin(bench.spec("path-local", "new")).expect("it begins");
    let over = bench.over();
    let MigrationState::Failed { cause, .. } = over.state else { panic!("{over:?}") };
    let old = format!("the old store {ODD_FILES} (folder={}): ", bench.host("old").display());
    assert!(cause.starts_with(&old) && cause.contains(GONE), "{cause}");
}

/// Gives up when all is copied, and the machine stops at the change of the disk with this number after that. Gives how many there were.
fn power_off(off_at: Option<u64>, outcome: u64) -> u64 {
    const FILES: usize = 30;
    // Its last round has no end.
    let (old, new, disk) = (Lasting::new("old").unflushed(), Lasting::new("new"), SimDisk::new(1));
    let case = format!("power off at {off_at:?}, outcome {outcome}");
    let give_up: MigrateOrder =
        serde_json::from_value(serde_json::json!({ "give_up": { "path": "/m" } })).expect("it is one");
    let changes = {
        let life = Life::boot(&disk, &[&old, &new], 7);
        life.simulation.block_on(async {
            for number in 0..FILES {
                let call = SysWrite::at(path(&format!("/m/f{number}")), "one").create();
                life.kernel.send(&life.admin, call).await.expect("it writes");
            }
            life.order(&Life::begin()).await.expect("it begins");
            while life.status().await.is_none_or(|status| status.copied < FILES as u64) {
                life.env.sleep(Duration::from_millis(1)).await;
            }
        });
        let before = disk.counts().changes;
        if let Some(number) = off_at {
            disk.power_off_at(before + number);
        }
        life.simulation.block_on(async {
            if life.order(&give_up).await.is_ok() {
                life.over().await;
            }
        });
        let changes = disk.counts().changes - before;
        if off_at.is_none() {
            let status = life.simulation.block_on(life.status()).expect("it is told");
            assert_eq!((status.state, status.left), (MigrationState::GivenUp, FILES as u64));
        }
        disk.crash_by(outcome);
        changes
    };
    // All of it is known, or nothing.
    let life = Life::boot(&disk, &[&old, &new], 8);
    assert_eq!((life.driver().as_str(), new.names(&life.simulation).len()), ("old", FILES), "{case}");
    let known = life.simulation.block_on(async {
        life.env.sleep(Duration::from_secs(1)).await;
        let known = life.status().await;
        let aborted = life.order(&Life::abort()).await;
        assert_eq!(aborted.is_ok(), known.is_some(), "{case}: {aborted:?}");
        life.over().await;
        known
    });
    let left = new.names(&life.simulation);
    assert_eq!(left.len(), if known.is_some() { 0 } else { FILES }, "{case}: {left:?}, {known:?}");
    life.end();
    changes
}

#[test]
fn a_crash_while_it_is_given_up_leaves_it_known_as_a_whole_or_not_at_all() {
    let changes = power_off(None, 1);
    assert!(changes > 3, "{changes} changes of the disk");
    for off_at in 1..=changes {
        for outcome in [0, 1, 5] {
            power_off(Some(off_at), outcome);
        }
    }
}
