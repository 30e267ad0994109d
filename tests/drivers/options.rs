//! The options that every mount takes, whatever its driver.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nexus::hal::MOUNT_OPTIONS;
use nexus::{Attributes, Error, ErrorKind, Executed, MountSpec, SysWrite, VPath};
use nexus_drivers::faults::{Fault, Where};

use crate::bench::{Bench, FAULTY_PATH, refused, until};

/// A mount of each driver that needs nothing but this machine.
fn specs(bench: &Bench) -> [MountSpec; 4] {
    [
        MountSpec::new("memory"),
        MountSpec::new("memory-path"),
        bench.spec("cas-local", "blobs"),
        bench.spec("local", "files"),
    ]
}

#[track_caller]
fn refused_by_name(done: nexus::Result<impl std::fmt::Debug>, key: &str) {
    let error = refused(done, ErrorKind::InvalidArgument, Executed::No);
    assert!(error.cause().is_some_and(|cause| cause.contains(key)), "{key}: {error}");
}

#[test]
fn what_is_bad_or_unknown_is_refused_by_its_name_and_nothing_is_mounted() {
    let bench = Bench::new();
    let bad = |key: &str| match key {
        "history_count" | "history_age_s" => "-1",
        "mode_files" | "mode_dirs" => "rwx",
        _ => "nonsense",
    };
    for spec in specs(&bench) {
        refused_by_name(bench.nx.mount("/m", spec.clone().option("nonsense", "1")), "nonsense");
        for option in MOUNT_OPTIONS {
            let spec = spec.clone().option(option.key, bad(option.key));
            refused_by_name(bench.nx.mount("/m", spec), option.key);
        }
        // What the kernel finds out once the driver is open, too.
        let volatile = spec.driver.starts_with("memory");
        if volatile {
            refused_by_name(
                bench.nx.mount("/m", spec.clone().option("consistency", "strong")),
                "consistency",
            );
        }
        if spec.driver == "memory-path" || spec.driver == "local" {
            refused_by_name(bench.nx.mount("/m", spec.clone().option("history_count", "5")), "history_count");
        }
        assert_eq!(bench.nx.mounts().expect("they are listed").len(), 1);
        // Nothing of it is left: the same point, and the same store.
        bench.nx.mount("/m", spec).expect("it mounts");
        bench.nx.unmount("/m").expect("it goes");
    }
}

#[test]
fn the_readme_tells_of_every_option() {
    let readme = include_str!("../../README.md");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `")).collect();
    for option in MOUNT_OPTIONS {
        let name = format!("`{}`", option.key);
        let is_told = |row: &&str| row.split('|').nth(1).is_some_and(|first| first.contains(&name));
        assert!(rows.iter().any(is_told), "no row of {name}");
    }
}

#[test]
fn every_mount_can_be_read_only() {
    let bench = Bench::new();
    for spec in specs(&bench) {
        bench.nx.mount("/m", spec.clone().option("read_only", "true")).expect("it mounts");
        assert!(bench.status("/m").read_only, "{spec:?}");
        refused(bench.nx.write("/m/f", "x"), ErrorKind::ReadOnly, Executed::No);
        refused(bench.nx.mkdir("/m/d"), ErrorKind::ReadOnly, Executed::No);
        assert!(bench.nx.readdir("/m").expect("it is listed").is_empty());
        bench.nx.unmount("/m").expect("it goes");
        bench.nx.mount("/m", spec.option("read_only", "false")).expect("it mounts");
        bench.nx.write("/m/f", "x").expect("it writes");
        bench.nx.unmount("/m").expect("it goes");
    }
}

fn mode(bench: &Bench, path: &str) -> u32 {
    bench.nx.stat(path).expect("it is there").mode
}

#[test]
fn what_is_made_without_saying_has_the_modes_of_the_mount() {
    let bench = Bench::new();
    for spec in specs(&bench) {
        let asked = spec.clone().option("mode_files", "600").option("mode_dirs", "0710");
        bench.nx.mount("/m", asked).expect("it mounts");
        bench.nx.write("/m/a/b/f", "x").expect("it writes");
        bench.nx.append("/m/a/g", "x").expect("it writes");
        bench.nx.mkdir("/m/d").expect("it is made");
        bench.nx.copy("/m/a/b/f", "/m/copy").expect("it is copied");
        let plain = |path: &str| bench.folder.path().join("files").join(path);
        for (path, expected) in
            [("a/b/f", 0o600), ("a/g", 0o600), ("copy", 0o600), ("d", 0o710), ("a", 0o710), ("a/b", 0o710)]
        {
            assert_eq!(mode(&bench, &format!("/m/{path}")), expected, "{path} of {spec:?}");
            if spec.driver == "local" {
                assert_eq!(permissions(&plain(path)), expected, "{path} on disk");
            }
        }
        // Who says what it is to be has the last word, and what is there keeps what it has.
        let path = VPath::parse("/m/said").expect("it is one");
        bench
            .nx
            .send(SysWrite::at(&path, "x").create().attributes(Attributes::none().mode(0o640)))
            .expect("it writes");
        bench.nx.write("/m/said", "y").expect("it writes");
        assert_eq!(mode(&bench, "/m/said"), 0o640, "{spec:?}");
        bench.nx.unmount("/m").expect("it goes");
    }
}

fn permissions(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn a_part_of_a_folder_is_mounted_and_leads_nowhere_else() {
    let bench = Bench::new();
    let files = bench.folder.path().join("files");
    std::fs::create_dir_all(files.join("team/data")).expect("there is room");
    std::fs::write(files.join("team/data/f"), "inside").expect("there is room");
    std::os::unix::fs::symlink(bench.folder.path().join("other"), files.join("out")).expect("there is room");
    let spec = |prefix: &str| bench.spec("local", "files").option("prefix", prefix);
    for bad in ["out", "..", "/team", "team/", "none"] {
        refused_by_name(bench.nx.mount("/m", spec(bad)), "prefix");
    }
    bench.nx.mount("/m", spec("team/data")).expect("it mounts");
    assert_eq!(bench.nx.read("/m/f").expect("it is there"), "inside");
    bench.nx.write("/m/g", "ours").expect("it writes");
    assert_eq!(std::fs::read(files.join("team/data/g")).expect("it is there"), b"ours");
}

#[test]
fn what_the_kernel_keeps_its_data_in_is_neither_served_nor_seen() {
    let bench = Bench::new();
    let spec = |folder: &str, prefix: Option<&str>| {
        let spec = bench.spec("local", folder);
        prefix.map_or(spec.clone(), |prefix| spec.option("prefix", prefix))
    };
    std::fs::create_dir_all(bench.folder.path().join("data/inside")).expect("there is room");
    for (folder, prefix) in
        [("data", None), (".", Some("data")), ("data", Some("inside")), ("data/inside", None)]
    {
        let error = bench.nx.mount("/m", spec(folder, prefix)).expect_err("it is the kernel's").to_string();
        assert!(error.contains("keeps its own data"), "{folder} {prefix:?}: {error}");
    }
    // What holds it is served without it.
    bench.nx.mount("/m", spec(".", None)).expect("it mounts");
    bench.nx.write("/m/files/f", "ours").expect("it writes");
    let names: Vec<_> = bench.nx.readdir("/m").expect("it is listed");
    let names: Vec<_> = names.iter().filter_map(|entry| entry.path.name()).collect();
    assert!(names.contains(&"files") && !names.contains(&"data"), "{names:?}");
    let config = std::fs::read_dir(bench.folder.path().join("data")).expect("it is there").next();
    let inside = config.expect("it is not empty").expect("it is there").file_name().into_string();
    let inside = format!("/m/data/{}", inside.expect("it is text"));
    for path in ["/m/data", &inside, "/m/data/new"] {
        for done in [
            bench.nx.stat(path).map(drop),
            bench.nx.read(path).map(drop),
            bench.nx.write(path, "x").map(drop),
            bench.nx.unlink(path).map(drop),
            bench.nx.remove_all(path).map(drop),
            bench.nx.rename(path, "/m/elsewhere").map(drop),
            bench.nx.rename("/m/files", path).map(drop),
        ] {
            let error = done.expect_err("it is the kernel's").to_string();
            assert!(error.contains("keeps its own data"), "{path}: {error}");
        }
    }
    bench.nx.write("/kept", "yes").expect("it writes");
}

#[test]
fn no_more_calls_of_a_driver_are_made_at_once_than_may_be() {
    let bench = Bench::new();
    let spec = bench.spec(FAULTY_PATH, "files").option("concurrency", "1").option("deadline_ms", "400");
    bench.nx.mount("/bad", spec).expect("it mounts");
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.once(Where::Look, Fault::Hang);
    let began = Instant::now();
    let errors: Vec<Error> = thread::scope(|scope| {
        let reads: Vec<_> = (0..3).map(|_| scope.spawn(|| bench.nx.read("/bad/f").err())).collect();
        until("one is inside", || (bench.status("/bad").calls.in_flight == 1).then_some(()));
        reads.into_iter().filter_map(|read| read.join().expect("it ends")).collect()
    });
    // One was inside until its deadline. The others had waited for their turn, from when on they came: what is left of their time may do.
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!((1..=3).contains(&errors.len()), "{errors:?}");
    for error in &errors {
        assert_eq!((error.kind(), error.executed()), (ErrorKind::TimedOut, Executed::No), "{error}");
    }
    assert_eq!(bench.nx.read("/bad/f").expect("its turn has come"), "one");
    let calls = bench.status("/bad").calls;
    assert_eq!((calls.failed, calls.in_flight), (1, 0), "who waits in vain says nothing of the backend");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    bench.nx.read("/bad/f").expect("each has its turn");
                }
            });
        }
        for _ in 0..100 {
            assert!(bench.status("/bad").calls.in_flight <= 1);
        }
    });
}
