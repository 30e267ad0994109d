//! What cannot be is refused before anything is written.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use nexus::{ErrorKind, MigrationState, MountSpec};

use crate::bench::{AT, Bench, LARGE, ODD_CONTENTS, ODD_FILES, content, is_empty, refused, until};

#[test]
fn wrong_orders_are_refused_and_change_nothing() {
    let bench = Bench::of_files();
    bench.nx.write(format!("{AT}/f"), "one").expect("it writes");
    bench.nx.mount("/other", bench.spec("path-local", "other")).expect("it mounts");
    let check = |to: MountSpec, kind: ErrorKind, says: &str| {
        let error = refused(bench.begin(to), kind).to_string();
        assert!(error.contains(says), "{error}");
        assert!(bench.status().is_none() && is_empty(&bench.host("new")));
    };
    check(MountSpec::new("no-such-driver"), ErrorKind::InvalidArgument, "no-such-driver");
    check(bench.spec("path-local", "new").option("colour", "blue"), ErrorKind::InvalidArgument, "colour");
    check(bench.spec("path-local", "new").option("open_ms", "soon"), ErrorKind::InvalidArgument, "open_ms");
    check(bench.spec("path-local", "nowhere"), ErrorKind::InvalidArgument, "");
    check(bench.spec("path-local", "old"), ErrorKind::InvalidArgument, "already");
    check(bench.spec("path-local", "other"), ErrorKind::InvalidArgument, "/other");
    check(MountSpec::new("memory-path"), ErrorKind::NotSupported, "memory-path");
    refused(bench.nx.migrate("/none", bench.spec("path-local", "new"), true), ErrorKind::NotFound);
    let part = bench.nx.migrate(format!("{AT}/d"), bench.spec("path-local", "new"), true);
    let part = refused(part, ErrorKind::NotFound).to_string();
    assert!(part.contains("a part of /m, which `nexus sync /m/d ELSEWHERE`"), "{part}");
    refused(bench.nx.abort_migration(AT), ErrorKind::NotFound);
    let agent = bench.nx.agent("coder-7").expect("a name");
    refused(agent.migrate(AT, bench.spec("path-local", "new"), true), ErrorKind::PermissionDenied);
    refused(agent.migrations(), ErrorKind::PermissionDenied);
}

/// A mount whose files are to go where only plain files go.
fn to_plain(make: impl FnOnce(&Bench)) -> Bench {
    let bench = Bench::of_files();
    fs::create_dir(bench.host("old").join("d")).expect("there is room");
    fs::write(bench.host("old").join("d/f"), "one").expect("there is room");
    make(&bench);
    bench.odd.plain();
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    bench
}

#[track_caller]
fn check_refused(bench: &Bench, says: &[&str]) {
    let cause = bench.failed("EOPNOTSUPP");
    assert!(says.iter().all(|said| cause.contains(said)), "{cause}");
    assert!(is_empty(&bench.host("new")), "nothing was written");
    assert_eq!(bench.driver().driver, "path-local");
    bench.nx.write(format!("{AT}/d/f"), "two").expect("the old one serves");
}

#[test]
fn what_the_new_store_cannot_hold_is_told_before_anything_is_copied() {
    let link = |bench: &Bench| symlink("f", bench.host("old").join("d/link")).expect("there is room");
    check_refused(&to_plain(link), &["/m/d/link", "links"]);
    let empty = |bench: &Bench| fs::create_dir(bench.host("old").join("empty")).expect("there is room");
    check_refused(&to_plain(empty), &["/m/empty", "empty folder"]);
    let mode = |bench: &Bench| {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bench.host("old").join("d/f"), mode).expect("it is ours");
    };
    check_refused(&to_plain(mode), &["/m/d/f", "755", "--without-modes"]);
}

#[test]
fn a_name_that_would_be_another_one_there_is_told_before_anything_is_copied() {
    let bench = Bench::of_files();
    fs::create_dir(bench.host("old").join("d")).expect("there is room");
    for name in ["a", "d/f", "d/p\\q", "z"] {
        fs::write(bench.host("old").join(name), "one").expect("there is room");
    }
    bench.odd.names_without("\\");
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    check_refused(&bench, &["/m/d/p\\q: ", "is another one there"]);
}

#[test]
fn modes_are_given_up_when_that_is_asked_for() {
    let bench = to_plain(|bench| {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bench.host("old").join("d/f"), mode).expect("it is ours");
    });
    bench.failed("EOPNOTSUPP");
    bench.nx.migrate(AT, bench.spec(ODD_FILES, "new"), false).expect("it begins");
    bench.done();
    assert_eq!(fs::read_to_string(bench.host("new").join("d/f")).expect("it is there"), "one");
}

#[test]
fn a_store_that_has_files_or_lies_in_the_mount_is_not_taken() {
    let bench = Bench::of_files();
    fs::write(bench.host("new").join("theirs"), "x").expect("there is room");
    bench.begin(bench.spec("path-local", "new")).expect("it begins");
    bench.failed("ENOTEMPTY");
    assert_eq!(fs::read_to_string(bench.host("new").join("theirs")).expect("it is there"), "x");
    fs::create_dir(bench.host("old").join("inside")).expect("there is room");
    let inside = refused(bench.begin(bench.spec("path-local", "old/inside")), ErrorKind::InvalidArgument);
    assert!(inside.to_string().contains("itself"), "{inside}");
    assert!(is_empty(&bench.host("old").join("inside")));
    // Also by another name, which its options do not tell.
    symlink(bench.host("old").join("inside"), bench.host("other").join("to")).expect("there is room");
    bench.begin(bench.spec("path-local", "other/to")).expect("it begins");
    let cause = bench.failed("EINVAL");
    assert!(cause.contains("itself"), "{cause}");
    assert!(is_empty(&bench.host("old").join("inside")));
}

#[test]
fn one_store_is_the_aim_of_one_migration_and_of_no_mount() {
    for (bench, driver, old) in
        [(Bench::of_files(), ODD_FILES, "path-local"), (Bench::of_contents(), ODD_CONTENTS, "cas-local")]
    {
        bench.nx.mount("/n", bench.spec(old, "other")).expect("it mounts");
        for (number, at) in [AT, "/n"].into_iter().flat_map(|at| (0..20).map(move |number| (number, at))) {
            bench.nx.write(format!("{at}/{number}"), content(number, LARGE)).expect("it writes");
        }
        let to = bench.spec(driver, "new");
        let check = |bench: &Bench| {
            for done in [
                bench.nx.migrate("/n", to.clone(), true),
                bench.nx.mount("/x", to.clone()).map(drop),
                bench.nx.swap_driver("/n", to.clone()).map(drop),
            ] {
                let error = refused(done, ErrorKind::InvalidArgument).to_string();
                assert!(error.contains(AT) && error.contains("migration"), "{error}");
            }
        };
        bench.odd.slow(Duration::from_millis(15));
        bench.begin(to.clone()).expect("it begins");
        check(&bench);
        // One that came to an end has its copies there.
        bench.odd.room(Some(10));
        bench.odd.slow(Duration::ZERO);
        bench.failed("ENOSPC");
        check(&bench);
        let bench = bench.again();
        check(&bench);
        bench.odd.room(None);
        bench.nx.abort_migration(AT).expect("it is told");
        assert_eq!(bench.over().state, MigrationState::Aborted);
        bench.nx.migrate("/n", to.clone(), true).expect("it begins");
        until("over", || {
            let all = bench.nx.migrations().expect("it answers");
            all.into_iter().find(|one| one.path.as_str() == "/n" && one.state == MigrationState::Done)
        });
        assert!(bench.nx.read("/n/7").expect("it is there") == content(7, LARGE));
    }
}

#[test]
fn what_comes_meanwhile_and_cannot_be_held_is_told_as_well() {
    let names = Bench::of_files();
    fs::create_dir(names.host("old").join("d")).expect("there is room");
    slowly(&names);
    let unnameable = names.host("old").join("d").join(OsStr::from_bytes(b"\xff"));
    fs::write(unnameable, "x").expect("there is room");
    names.odd.slow(Duration::ZERO);
    let cause = names.failed("EOPNOTSUPP");
    assert!(cause.contains("/m/d holds names that no path can hold"), "{cause}");

    let emptied = Bench::of_files();
    emptied.nx.write(format!("{AT}/d/last"), "x").expect("it writes");
    emptied.odd.plain();
    slowly(&emptied);
    emptied.nx.unlink(format!("{AT}/d/last")).expect("it is removed");
    emptied.odd.slow(Duration::ZERO);
    let cause = emptied.failed("EOPNOTSUPP");
    assert!(cause.contains("/m/d is an empty folder"), "{cause}");
    assert_eq!(emptied.driver().driver, "path-local");
}

#[test]
fn what_others_put_where_a_copy_is_to_be_ends_it_and_stays() {
    let bench = Bench::of_files();
    slowly(&bench);
    let theirs = bench.host("new").join("theirs");
    fs::write(&theirs, "theirs").expect("there is room");
    bench.nx.write(format!("{AT}/theirs"), "ours").expect("it writes");
    bench.odd.slow(Duration::ZERO);
    let cause = bench.failed("ENOTEMPTY");
    assert!(cause.contains("theirs in the new store is no copy of this migration"), "{cause}");
    bench.nx.abort_migration(AT).expect("it is told");
    bench.over();
    assert_eq!(fs::read_to_string(&theirs).expect("it is there"), "theirs");
    assert_eq!(bench.nx.read(format!("{AT}/theirs")).expect("it is there"), "ours");
    assert!(!bench.host("new").join("e").exists(), "its copies are gone");
}

/// Begins a migration that has far to go.
fn slowly(bench: &Bench) {
    for number in 0..60 {
        bench.nx.write(format!("{AT}/e/{number}"), content(number, 100)).expect("it writes");
    }
    bench.odd.slow(Duration::from_millis(40));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    until("copied", || bench.status().filter(|status| status.copied > 10));
}
