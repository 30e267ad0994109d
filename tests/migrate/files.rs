//! Files by their paths move to another store of files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use nexus::ErrorKind;

use crate::bench::{AT, Bench, ODD_FILES, content, count, read_host, until};
use crate::load::{Files, Load};

#[test]
fn all_that_is_there_is_there_afterwards_and_the_old_store_is_as_it_was() {
    let bench = Bench::of_files();
    let old = bench.host("old");
    fs::create_dir_all(old.join("a/b/empty")).expect("there is room");
    fs::write(old.join("a/one"), "one").expect("there is room");
    fs::write(old.join("a/none"), "").expect("there is room");
    fs::write(old.join("a/b/large"), content(1, 9 << 10).repeat(1 << 10)).expect("there is room");
    fs::set_permissions(old.join("a/one"), fs::Permissions::from_mode(0o640)).expect("it is ours");
    fs::set_permissions(old.join("a/b"), fs::Permissions::from_mode(0o750)).expect("it is ours");
    symlink("../one", old.join("a/b/link")).expect("there is room");
    let before = read_host(&old);
    let modified = bench.nx.stat(format!("{AT}/a/one")).expect("it is there").modified;

    bench.begin(bench.spec("path-local", "new")).expect("it begins");
    let status = bench.done();
    assert_eq!(bench.driver(), bench.spec("path-local", "new"));
    assert!(status.copied >= 4 && status.kept == 0 && status.bytes > 9 << 20, "{status:?}");

    let new = bench.host("new");
    assert_eq!(read_host(&new), before);
    assert_eq!(read_host(&old), before);
    assert!(fs::metadata(new.join("a/b/empty")).expect("it is there").is_dir());
    assert_eq!(fs::read_link(new.join("a/b/link")).expect("it is a link").to_str(), Some("../one"));
    let mode = |name: &str| fs::metadata(new.join(name)).expect("it is there").mode() & 0o7777;
    assert_eq!((mode("a/one"), mode("a/b")), (0o640, 0o750));
    assert_eq!(bench.nx.stat(format!("{AT}/a/one")).expect("it is there").modified, modified);

    // What is written now goes to the new store.
    bench.nx.write(format!("{AT}/a/one"), "two").expect("it writes");
    assert_eq!(fs::read_to_string(new.join("a/one")).expect("it is there"), "two");
    assert_eq!(fs::read_to_string(old.join("a/one")).expect("it is there"), "one");

    let bench = bench.again();
    assert_eq!(bench.driver(), bench.spec("path-local", "new"));
    assert_eq!(bench.nx.read(format!("{AT}/a/one")).expect("it is there"), "two");
    assert!(bench.status().is_none(), "nothing is left of it");
}

/// Migrates under load, and gives what must be there.
fn under_load(bench: &Bench, files: u64) -> Files {
    let mut expected = Files::new();
    for number in 0..files {
        let (name, content) = (format!("/still/{}/{number}", number % 5), content(number, 300));
        bench.nx.write(format!("{AT}{name}"), content.clone()).expect("it writes");
        expected.insert(name, content);
    }
    let load = Load::on(&bench.nx);
    load.go_on(30);
    bench.odd.slow(Duration::from_micros(500));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    let status = bench.done();
    bench.odd.slow(Duration::ZERO);
    assert!(status.closings >= 1, "{status:?}");
    load.go_on(30);
    expected.extend(load.end());
    expected
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_removed_comes_back_under_load() {
    let bench = Bench::of_files();
    let expected = under_load(&bench, 40);
    assert_same(&bench.tree(), &expected);
    assert_same(&read_host(&bench.host("new")), &expected);
    // And back: a folder that is not empty is not taken, another one is.
    fs::remove_dir_all(bench.host("old")).expect("it is ours");
    fs::create_dir(bench.host("old")).expect("there is room");
    let load = Load::on(&bench.nx);
    bench.begin(bench.spec("path-local", "old")).expect("it begins");
    bench.done();
    drop(load.end());
    let bench = bench.again();
    assert_same(&bench.tree(), &read_host(&bench.host("old")));
}

#[test]
fn what_was_said_of_the_mount_goes_on() {
    let bench = Bench::new();
    fs::write(bench.host("old").join("f"), "x").expect("there is room");
    let spec = bench.spec("path-local", "old").read_only();
    let spec = spec.option("mode_files", "600").option("deadline_ms", "9000");
    bench.nx.mount(AT, spec).expect("it mounts");
    bench.begin(bench.spec("path-local", "new").option("deadline_ms", "8000")).expect("it begins");
    bench.done();
    let driver = bench.driver();
    let said = |key: &str| driver.options.get(key).map(String::as_str);
    assert_eq!((said("mode_files"), said("deadline_ms")), (Some("600"), Some("8000")));
    let refused = bench.nx.write(format!("{AT}/g"), "y").expect_err("it takes no changes");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    assert_eq!(read_host(&bench.host("new")), read_host(&bench.host("old")));
}

#[track_caller]
pub(crate) fn assert_same(found: &Files, expected: &Files) {
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, content) in expected {
        assert!(found[name] == *content, "{name} has another content");
    }
}

#[test]
fn a_call_that_is_inside_over_the_switch_goes_on_in_the_new_store() {
    let bench = Bench::new();
    bench.nx.mount(AT, bench.spec(ODD_FILES, "old")).expect("it mounts");
    for number in 0..60 {
        bench.nx.write(format!("{AT}/d/{number}"), content(number, 100)).expect("it writes");
    }
    bench.odd.slow(Duration::from_millis(25));
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| bench.nx.remove_all(format!("{AT}/d")));
        until("removed", || (count(&bench.host("old")) < 58).then_some(()));
        bench.begin(bench.spec("path-local", "new")).expect("it begins");
        bench.done();
        assert!(count(&bench.host("old")) > 0, "it switched while files were removed");
        removal.join().expect("it ends").expect("all is removed");
    });
    assert!(bench.tree().is_empty() && !bench.host("new").join("d").exists());
}
