//! Files by their paths become content by its hash, and back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use nexus::sys::{CollectOrder, GarbageEntry};
use nexus::{
    Collection, CollectionState, ErrorKind, MigrationState, MountSpec, SysSetattr, SysStat, SysWrite, VPath,
    WatchItem,
};

use crate::bench::{AT, Bench, LARGE, ODD_CONTENTS, ODD_FILES, content, is_empty, read_host, refused, until};
use crate::files::assert_same;
use crate::load::{Files, Load};

/// Content in several chunks.
const VERY_LARGE: usize = 9 << 20;

/// What a mount with a history has to be told, so that it is given up.
fn without_history(spec: MountSpec) -> MountSpec {
    spec.option("history_count", "0")
}

fn mode_of(bench: &Bench, name: &str) -> u32 {
    bench.nx.stat(format!("{AT}/{name}")).expect("it is there").mode
}

/// Collects garbage of whatever age.
fn collect(bench: &Bench) -> Collection {
    let path = VPath::parse("/__sys__/store/garbage").expect("it is one");
    let shown = || bench.nx.read("/__sys__/store/garbage").expect("it is shown");
    let latest = || serde_json::from_slice::<GarbageEntry>(&shown()).expect("it is JSON").latest;
    let before = latest().map_or(0, |latest| latest.number);
    let mut order = CollectOrder::default();
    (order.dry_run, order.grace_ms) = (false, Some(0));
    let order = serde_json::to_vec(&order).expect("it is plain");
    // One that began by itself ends first.
    until("begun", || match bench.nx.send(SysWrite::at(path.clone(), order.clone())) {
        Ok(_) => Some(()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            None
        }
    });
    let latest = until("collected", || latest().filter(|latest| latest.number > before && latest.is_over()));
    assert_eq!(latest.state, CollectionState::Done, "{latest:?}");
    latest
}

/// How many contents are in a folder of the host that no name leads to; it is not the store of a mount.
fn contents_in(bench: &Bench, folder: &str) -> u64 {
    bench.nx.mount("/look", bench.spec("cas-local", folder)).expect("it mounts");
    collect(bench).freed.objects
}

#[test]
fn files_become_content_by_its_hash_and_back() {
    let bench = Bench::of_files();
    let old = bench.host("old");
    fs::create_dir_all(old.join("a/b/empty")).expect("there is room");
    fs::write(old.join("a/one"), "one").expect("there is room");
    fs::write(old.join("a/none"), "").expect("there is room");
    fs::write(old.join("a/large"), content(1, LARGE)).expect("there is room");
    fs::write(old.join("a/b/very"), content(2, VERY_LARGE)).expect("there is room");
    fs::set_permissions(old.join("a/one"), fs::Permissions::from_mode(0o640)).expect("it is ours");
    fs::set_permissions(old.join("a/b"), fs::Permissions::from_mode(0o750)).expect("it is ours");
    symlink("../one", old.join("a/b/link")).expect("there is room");
    let before = read_host(&old);
    let modified = bench.nx.stat(format!("{AT}/a/one")).expect("it is there").modified;
    let check = |bench: &Bench| {
        assert_same(&bench.tree(), &before);
        assert_eq!((mode_of(bench, "a/one"), mode_of(bench, "a/b")), (0o640, 0o750));
        let stat = |name: &str| bench.nx.stat(format!("{AT}/{name}")).expect("it is there");
        assert_eq!(stat("a/one").modified, modified);
        assert!(stat("a/b/empty").is_directory());
        let link = VPath::parse(&format!("{AT}/a/b/link")).expect("it is one");
        let link = bench.nx.send(SysStat::at(link).no_follow()).expect("it is there");
        assert_eq!(link.link_target.as_deref(), Some("../one"));
    };

    bench.begin(bench.spec("cas-local", "new")).expect("it begins");
    let status = bench.done();
    assert!(status.copied >= 5 && status.kept == 0 && status.bytes > 9 << 20, "{status:?}");
    assert_eq!(bench.driver(), bench.spec("cas-local", "new"));
    check(&bench);
    assert_same(&read_host(&old), &before);
    let bench = bench.again();
    assert!(bench.status().is_none(), "nothing is left of it");
    assert_eq!(bench.driver(), bench.spec("cas-local", "new"));
    check(&bench);
    collect(&bench);
    check(&bench);

    // And back, to another place.
    let error = refused(bench.begin(bench.spec("path-local", "other")), ErrorKind::NotSupported).to_string();
    assert!(error.contains(AT) && error.contains("history_count=0"), "{error}");
    assert!(is_empty(&bench.host("other")) && bench.status().is_none());
    bench.begin(without_history(bench.spec("path-local", "other"))).expect("it begins");
    bench.done();
    check(&bench);
    let other = bench.host("other");
    assert_same(&read_host(&other), &before);
    let mode = |name: &str| fs::metadata(other.join(name)).expect("it is there").mode() & 0o7777;
    assert_eq!((mode("a/one"), mode("a/b")), (0o640, 0o750));
    bench.nx.write(format!("{AT}/a/one"), "two").expect("it writes");
    assert_eq!(fs::read_to_string(other.join("a/one")).expect("it is there"), "two");
    let bench = bench.again();
    assert_eq!(bench.driver().driver, "path-local");
    assert_eq!(bench.nx.read(format!("{AT}/a/one")).expect("it is there"), "two");
    assert!(bench.status().is_none());
}

/// Migrates under load, and gives what must be there.
fn under_load(bench: &Bench, to: MountSpec) -> Files {
    let mut expected = Files::new();
    for number in 0..40 {
        let length = if number % 8 == 0 { LARGE } else { 300 };
        let (name, content) = (format!("/still/{}/{number}", number % 5), content(number, length));
        bench.nx.write(format!("{AT}{name}"), content.clone()).expect("it writes");
        expected.insert(name, content);
    }
    let load = Load::on(&bench.nx);
    load.go_on(30);
    bench.odd.slow(Duration::from_micros(500));
    bench.begin(to).expect("it begins");
    let status = bench.done();
    bench.odd.slow(Duration::ZERO);
    assert!(status.closings >= 1, "{status:?}");
    load.go_on(30);
    expected.extend(load.end());
    expected
}

#[test]
fn nothing_acknowledged_is_lost_under_load_when_names_become_rows() {
    let bench = Bench::of_files();
    let expected = under_load(&bench, bench.spec(ODD_CONTENTS, "new"));
    assert_same(&bench.tree(), &expected);
    assert_same(&bench.again().tree(), &expected);
}

#[test]
fn nothing_acknowledged_is_lost_under_load_when_names_cease_to_be_rows() {
    let bench = Bench::of_contents();
    let expected = under_load(&bench, without_history(bench.spec(ODD_FILES, "new")));
    assert_same(&bench.tree(), &expected);
    assert_same(&read_host(&bench.host("new")), &expected);
    assert_same(&bench.again().tree(), &expected);
}

/// Begins a migration that has far to go, with `files` of content that goes to the store.
fn slowly(bench: &Bench, files: u64, to: MountSpec) {
    for number in 0..files {
        bench.nx.write(format!("{AT}/d/{number}"), content(number, LARGE)).expect("it writes");
    }
    bench.odd.slow(Duration::from_millis(40));
    bench.begin(to).expect("it begins");
    until("copied", || bench.status().filter(|status| status.copied > 10));
}

/// Both ways: a bench, and to where its files go.
fn both_ways() -> [(Bench, MountSpec); 2] {
    let (files, contents) = (Bench::of_files(), Bench::of_contents());
    let to = [files.spec(ODD_CONTENTS, "new"), without_history(contents.spec(ODD_FILES, "new"))];
    let [rows, paths] = to;
    [(files, rows), (contents, paths)]
}

#[test]
fn what_was_cut_short_goes_on_where_it_was() {
    for (bench, to) in both_ways() {
        for number in 0..60 {
            bench.nx.write(format!("{AT}/d/{number}"), content(number, LARGE)).expect("it writes");
        }
        bench.odd.slow(Duration::from_millis(300));
        bench.begin(to.clone()).expect("it begins");
        until("copied", || bench.status().filter(|status| status.copied > 45));
        let old = bench.driver();
        let bench = bench.again();
        let status = bench.status().expect("it is remembered");
        assert_eq!(status.state, MigrationState::Interrupted);
        assert_eq!(bench.driver(), old);
        bench.nx.write(format!("{AT}/d/7"), "changed meanwhile").expect("it writes");
        bench.nx.unlink(format!("{AT}/d/8")).expect("it is removed");
        // What is not named any more is collected, and what is to be named is not.
        collect(&bench);
        bench.odd.slow(Duration::ZERO);
        let elsewhere = if old.driver == "cas-local" { "path-local" } else { "cas-local" };
        let error = refused(bench.begin(without_history(bench.spec(elsewhere, "other"))), ErrorKind::Busy);
        assert!(error.to_string().contains("was begun"), "{error}");
        bench.begin(to).expect("it goes on");
        let status = bench.done();
        assert!(status.kept > 0 && status.copied < 60, "{status:?}");
        let check = |bench: &Bench| {
            let tree = bench.tree();
            assert_eq!(tree.len(), 59);
            assert_eq!(tree["/d/7"], b"changed meanwhile");
            assert!(
                (0..60)
                    .filter(|number| ![7, 8].contains(number))
                    .all(|number| { tree[&format!("/d/{number}")] == content(number, LARGE) })
            );
        };
        check(&bench);
        let bench = bench.again();
        collect(&bench);
        check(&bench);
        assert!(bench.status().is_none(), "nothing is left of it");
    }
}

#[test]
fn an_abort_removes_what_was_copied_and_nothing_else() {
    for (bench, to) in both_ways() {
        let old = bench.driver();
        slowly(&bench, 60, to.clone());
        bench.odd.slow(Duration::ZERO);
        bench.nx.abort_migration(AT).expect("it is told");
        assert_eq!(bench.over().state, MigrationState::Aborted);
        assert_eq!(bench.driver(), old);
        assert!(old.driver == "path-local" || is_empty(&bench.host("new")));
        assert_eq!(bench.tree().len(), 60);
        bench.nx.write(format!("{AT}/d/1"), content(99, LARGE)).expect("the old one serves");
        // Also when another process is told to.
        bench.odd.slow(Duration::from_millis(40));
        bench.begin(to.clone()).expect("it begins");
        until("copied", || bench.status().filter(|status| status.copied > 10));
        let bench = bench.again();
        assert_eq!(bench.status().expect("it is remembered").state, MigrationState::Interrupted);
        bench.odd.slow(Duration::ZERO);
        bench.nx.abort_migration(AT).expect("it is told");
        assert_eq!(bench.over().state, MigrationState::Aborted);
        let bench = bench.again();
        assert!(bench.status().is_none(), "nothing is left of it");
        assert_eq!(bench.tree().len(), 60);
        if old.driver == "path-local" {
            assert_eq!(contents_in(&bench, "new"), 0);
        } else {
            assert!(is_empty(&bench.host("new")));
        }
    }
}

#[test]
fn an_abort_leaves_content_that_was_there_before() {
    let bench = Bench::of_files();
    bench.nx.mount("/n", bench.spec("cas-local", "new")).expect("it mounts");
    bench.nx.write("/n/theirs", content(3, LARGE)).expect("it writes");
    bench.nx.unmount("/n").expect("it is detached");
    // The mount is remembered, so its store is nobody else's.
    refused(bench.begin(bench.spec("cas-local", "new")), ErrorKind::InvalidArgument);
    let other = Bench::of_files();
    let to = MountSpec::new(ODD_CONTENTS).option("folder", bench.host("new").display().to_string());
    bench.nx.shutdown().expect("it stops");
    // One of them is the same as theirs.
    slowly(&other, 40, to);
    other.odd.slow(Duration::ZERO);
    other.nx.abort_migration(AT).expect("it is told");
    assert_eq!(other.over().state, MigrationState::Aborted);
    let (folder, odd) = (bench.folder, bench.odd);
    let nx = nexus::blocking::connect(crate::bench::config(folder.path(), &odd)).expect("it boots");
    let bench = Bench { nx, odd, folder };
    bench.nx.mount("/n", bench.spec("cas-local", "new")).expect("it mounts");
    assert!(bench.nx.read("/n/theirs").expect("it is there") == content(3, LARGE));
    assert_eq!(collect(&bench).freed.objects, 0, "nothing else is there");
}

#[test]
fn who_gives_up_leaves_the_copies_and_the_old_driver_serves() {
    for (bench, to) in both_ways() {
        let old = bench.driver();
        slowly(&bench, 40, to.clone());
        bench.nx.give_up_migration(AT).expect("it is told");
        bench.odd.slow(Duration::ZERO);
        assert_eq!(bench.over().state, MigrationState::GivenUp);
        assert!(!is_empty(&bench.host("new")));
        let bench = bench.again();
        assert_eq!(bench.driver(), old);
        collect(&bench);
        assert_eq!(bench.tree().len(), 40);
    }
}

#[test]
fn what_no_plain_file_is_or_has_is_told_before_anything_is_written() {
    let bench = Bench::of_contents();
    let to = without_history(bench.spec("path-local", "new"));
    let check = |says: &[&str]| {
        bench.begin(to.clone()).expect("it begins");
        let cause = bench.failed("EOPNOTSUPP");
        assert!(says.iter().all(|said| cause.contains(said)), "{cause}");
        assert!(is_empty(&bench.host("new")), "nothing was written");
        assert_eq!(bench.driver().driver, "cas-local");
    };
    let path = |name: &str| VPath::parse(&format!("{AT}/{name}")).expect("it is one");
    bench.nx.send(SysSetattr::stream(path("events"))).expect("it is made");
    check(&["/m/events", "stream"]);
    bench.nx.unlink(format!("{AT}/events")).expect("it is removed");
    bench.nx.send(SysSetattr::pipe(path("jobs"), 1 << 16)).expect("it is made");
    check(&["/m/jobs", "pipe"]);
    bench.nx.unlink(format!("{AT}/jobs")).expect("it is removed");
    bench.nx.write(format!("{AT}/f.txt"), "x").expect("it writes");
    let mut odd = SysSetattr::at(path("f.txt"));
    odd.attributes.mime_type = Some("application/x-odd".into());
    bench.nx.send(odd).expect("it is described");
    check(&["/m/f.txt", "application/x-odd", "--without-modes"]);
    bench.nx.migrate(AT, to.clone(), false).expect("it begins");
    bench.done();
    assert_eq!(bench.nx.read(format!("{AT}/f.txt")).expect("it is there"), "x");
}

#[test]
fn what_comes_meanwhile_and_is_no_plain_file_ends_it_and_the_old_driver_serves_on() {
    let bench = Bench::of_contents();
    slowly(&bench, 40, without_history(bench.spec(ODD_FILES, "new")));
    let path = VPath::parse(&format!("{AT}/events")).expect("it is one");
    bench.nx.send(SysSetattr::stream(path)).expect("it is made");
    bench.odd.slow(Duration::ZERO);
    let cause = bench.failed("EOPNOTSUPP");
    assert!(cause.contains("/m/events is a stream"), "{cause}");
    assert_eq!(bench.driver().driver, "cas-local");
    bench.nx.write(format!("{AT}/d/1"), "x").expect("the old one serves");
    bench.nx.unlink(format!("{AT}/events")).expect("it is removed");
    bench.begin(without_history(bench.spec(ODD_FILES, "new"))).expect("it goes on");
    bench.done();
    assert_eq!(read_host(&bench.host("new"))["/d/1"], b"x");
}

#[test]
fn what_a_folder_gets_meanwhile_and_no_plain_one_has_ends_it_unless_it_is_taken_back() {
    for is_kept in [true, false] {
        let bench = Bench::of_contents();
        slowly(&bench, 40, without_history(bench.spec(ODD_FILES, "new")));
        let path = VPath::parse(&format!("{AT}/odd")).expect("it is one");
        bench.nx.mkdir(&path).map(drop).expect("it is made");
        let mut odd = SysSetattr::at(path.clone());
        odd.attributes.mime_type = Some("application/x-odd".into());
        bench.nx.send(odd).expect("it is described");
        if !is_kept {
            bench.nx.remove_all(&path).expect("it is removed");
        }
        bench.odd.slow(Duration::ZERO);
        if is_kept {
            let cause = bench.failed("EOPNOTSUPP");
            assert!(cause.contains("/m/odd has the media type application/x-odd"), "{cause}");
            assert_eq!(bench.driver().driver, "cas-local");
        } else {
            bench.done();
            assert_eq!(read_host(&bench.host("new")).len(), 40);
        }
    }
}

#[test]
fn a_store_of_contents_that_lies_in_the_mount_is_not_taken() {
    let bench = Bench::of_files();
    fs::create_dir(bench.host("old").join("inside")).expect("there is room");
    let error = refused(bench.begin(bench.spec("cas-local", "old/inside")), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("itself"), "{error}");
    assert!(is_empty(&bench.host("old/inside")) && bench.status().is_none());
    assert_eq!(bench.driver().driver, "path-local");
}

#[test]
fn who_watches_hears_of_what_callers_do_and_of_no_copy() {
    for (bench, to) in both_ways() {
        let mut watch = bench.nx.watch(AT).stream().expect("it watches");
        for number in 0..20 {
            bench.nx.write(format!("{AT}/d/{number}"), content(number, LARGE)).expect("it writes");
        }
        bench.nx.write(format!("{AT}/before"), "x").expect("it writes");
        bench.begin(to).expect("it begins");
        bench.done();
        bench.nx.write(format!("{AT}/after"), "x").expect("it writes");
        let mut heard = Vec::new();
        while heard.last().is_none_or(|path: &String| !path.ends_with("/after")) {
            match watch.next().expect("it goes on").expect("it is heard") {
                WatchItem::Event(event) => heard.push(event.path.to_string()),
                other => panic!("{other:?}"),
            }
        }
        let of = |name: &str| heard.iter().filter(|path| **path == format!("{AT}/{name}")).count();
        assert_eq!((of("before"), of("d/7"), of("after")), (1, 1, 1), "{heard:?}");
    }
}

#[test]
fn reads_go_on_over_the_switch() {
    for (bench, to) in both_ways() {
        let expected = content(5, LARGE);
        bench.nx.write(format!("{AT}/f"), expected.clone()).expect("it writes");
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        assert!(bench.nx.read(format!("{AT}/f")).expect("it is read") == expected);
                        assert_eq!(bench.nx.stat(format!("{AT}/f")).expect("it is there").size, LARGE as u64);
                    }
                });
            }
            bench.begin(to).expect("it begins");
            let status = bench.over();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(status.state, MigrationState::Done, "{status:?}");
        });
    }
}

/// What is there but for content: the paths of all entries, and what they are.
fn entries(bench: &Bench) -> Vec<(String, nexus::EntryType, u32)> {
    let all = bench.nx.walk(AT).with_metadata();
    let all = all.map(|entry| entry.expect("it is listed"));
    let mut all: Vec<_> = all
        .map(|entry| {
            let mode = entry.metadata.as_ref().expect("it was asked for").mode;
            (entry.path.to_string(), entry.entry_type, mode)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn folders_that_come_and_go_meanwhile_are_as_they_are() {
    for (bench, to) in both_ways() {
        let at = |name: &str| format!("{AT}/{name}");
        for name in ["goes", "stays", "deep/empty", "moved/below"] {
            bench.nx.mkdir(at(name)).expect("it is made");
        }
        for name in ["implied/last", "moved/below/f", "mixed/file", "mixed/other"] {
            bench.nx.write(at(name), content(1, LARGE)).expect("it writes");
        }
        slowly(&bench, 40, to);
        until("all of it", || bench.status().filter(|status| status.copied >= status.found - 2));
        bench.nx.rmdir(at("goes")).expect("it is removed");
        bench.nx.mkdir(at("comes/with/more")).expect("it is made");
        bench.nx.unlink(at("implied/last")).expect("it is removed");
        bench.nx.rename(at("moved"), at("deep/empty/moved")).expect("it is renamed");
        bench.nx.unlink(at("mixed/file")).expect("it is removed");
        bench.nx.mkdir(at("mixed/file")).expect("it is made");
        bench.nx.rename(at("mixed/other"), at("mixed/file/other")).expect("it is renamed");
        bench.nx.copy(at("d/1"), at("d/copied")).expect("it is copied");
        let mode = VPath::parse(&at("stays")).expect("it is one");
        bench.nx.send(SysSetattr::at(mode).mode(0o700)).expect("it is described");
        if bench.driver().driver == "cas-local" {
            let tx = bench.nx.tx().write(at("d/2"), "by").rename(at("d/3"), at("tx/3")).unlink(at("d/4"));
            tx.commit().expect("it is in order");
        }
        let (files, all) = (bench.tree(), entries(&bench));
        bench.odd.slow(Duration::ZERO);
        let status = bench.done();
        assert!(status.closings >= 1, "{status:?}");
        assert_same(&bench.tree(), &files);
        assert_eq!(entries(&bench), all);
        assert_eq!(entries(&bench.again()), all);
    }
}

#[test]
fn a_link_that_became_a_file_and_a_file_that_became_a_link_are_what_they_are() {
    for (bench, to) in both_ways() {
        let at = |name: &str| format!("{AT}/{name}");
        bench.nx.write(at("a/file"), content(1, LARGE)).expect("it writes");
        bench.nx.link(at("a/link"), "file").expect("it is made");
        slowly(&bench, 40, to);
        until("all of it", || bench.status().filter(|status| status.copied >= status.found - 2));
        bench.nx.unlink(at("a/link")).expect("it goes");
        bench.nx.write(at("a/link"), content(2, LARGE)).expect("it writes");
        bench.nx.unlink(at("a/file")).expect("it goes");
        bench.nx.link(at("a/file"), "link").expect("it is made");
        let all = entries(&bench);
        bench.odd.slow(Duration::ZERO);
        bench.done();
        assert_eq!(entries(&bench), all);
        assert!(bench.nx.read(at("a/file")).expect("it leads there") == content(2, LARGE));
    }
}

#[test]
fn garbage_is_collected_behind_a_history_that_was_given_up() {
    let bench = Bench::of_contents();
    for number in [1, 2] {
        bench.nx.write(format!("{AT}/large"), content(number, VERY_LARGE)).expect("it writes");
    }
    bench.begin(without_history(bench.spec("path-local", "new"))).expect("it begins");
    bench.done();
    // What was in memory is not, and the store of the older version is no mount's any more.
    let bench = bench.again();
    collect(&bench);
    assert!(bench.nx.read(format!("{AT}/large")).expect("it is there") == content(2, VERY_LARGE));
}

#[test]
fn a_mount_below_it_stays_where_it_is() {
    for (bench, to) in both_ways() {
        bench.nx.write(format!("{AT}/d/f"), content(1, LARGE)).expect("it writes");
        bench.nx.mount(format!("{AT}/d/below"), bench.spec("path-local", "other")).expect("it mounts");
        bench.nx.write(format!("{AT}/d/below/g"), "other").expect("it writes");
        bench.begin(to).expect("it begins");
        bench.done();
        bench.nx.write(format!("{AT}/d/below/h"), "more").expect("it writes");
        let check = |bench: &Bench| {
            assert_eq!(bench.nx.read(format!("{AT}/d/below/g")).expect("it is there"), "other");
            assert!(bench.nx.read(format!("{AT}/d/f")).expect("it is there") == content(1, LARGE));
        };
        check(&bench);
        check(&bench.again());
    }
}

#[test]
fn the_metastore_knows_nothing_of_the_old_names_once_they_are_collected() {
    let bench = Bench::of_contents();
    for number in 0..40 {
        bench.nx.write(format!("{AT}/d/{number}"), content(number, 100)).expect("it writes");
    }
    bench.begin(without_history(bench.spec("path-local", "new"))).expect("it begins");
    bench.done();
    let rows = collect(&bench).rows;
    // Each entry has two rows, its name and what it is, and the root one.
    assert_eq!(rows, 2 * 41 + 1);
    assert_eq!(collect(&bench).rows, 0);
    assert_eq!(bench.tree().len(), 40);
}
