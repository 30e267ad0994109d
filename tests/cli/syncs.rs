//! `sync SRC DST` and `migrate`, as their users see them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::fixture::Nexus;
use crate::host::{file, tree};
use crate::serving::Serving;

/// `sync` with these words, which is to succeed; what it counts.
fn sync(nexus: &Nexus, line: &str) -> Value {
    let out = nexus.good(&format!("--json sync {line}"));
    serde_json::from_str(out.lines().last().expect("it prints")).expect("it prints an object")
}

/// What of two trees of the host must be the same: types, modes and contents; of links the target.
fn described(top: &Path) -> Vec<String> {
    let all = crate::host::describe(top).into_iter();
    let described = all.filter(|(path, _)| !path.as_os_str().is_empty()).map(|(path, what)| match what {
        crate::host::Described::Directory { mode, .. } => format!("{} {mode:o}", path.display()),
        crate::host::Described::File { mode, content, modified } => {
            format!("{} {mode:o} {modified:?} {}", path.display(), blake3::hash(&content))
        }
        crate::host::Described::Link { target, .. } => format!("{} -> {}", path.display(), target.display()),
    });
    described.collect()
}

#[test]
fn a_source_that_is_not_there_is_told_as_what_it_is() {
    let nexus = Nexus::new();
    for source in ["host:nope", "host:nope/below", "/nope"] {
        let refused = nexus.run(&format!("sync {source} /t"));
        assert_eq!((refused.status, &*refused.out), (1, ""), "{refused:?}");
        assert!(refused.err.ends_with("no such file or directory (ENOENT)\n"), "{refused:?}");
    }
    assert_eq!(nexus.good("ls /"), "");
}

#[test]
fn a_tree_goes_in_and_over_and_out_and_is_the_same() {
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("source"), nexus.host("target"));
    fs::create_dir(&source).expect("there is room");
    tree(&source);
    fs::create_dir(source.join("nothing")).expect("there is room");
    fs::create_dir(nexus.host("plain")).expect("there is room");
    nexus.good("mount /plain --driver local --opt folder=plain");
    let first = sync(&nexus, "host:source /t");
    assert!(first["copied"].as_u64() > Some(0) && first["links"].as_u64() > Some(0), "{first}");
    let over = sync(&nexus, "/t /plain/t");
    assert_eq!((&over["copied"], &over["links"]), (&first["copied"], &first["links"]));
    sync(&nexus, "/plain/t host:target");
    assert_eq!(described(&target), described(&source));
    // And nothing is left to be done, in any direction.
    for line in
        ["host:source /t", "/t /plain/t", "/plain/t host:target", "/t host:source", "host:target /plain/t"]
    {
        let again = sync(&nexus, line);
        let done = ["copied", "links", "directories", "deleted", "failed"].map(|what| again[what].clone());
        assert!(done.iter().all(|count| *count == 0), "{line}: {again}");
        assert!(again["unchanged"].as_u64() > Some(0), "{again}");
    }
}

#[test]
fn what_differs_is_copied_and_what_is_too_much_goes_only_when_asked() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir_all(source.join("d")).expect("there is room");
    for name in ["same", "grown", "changed", "d/below"] {
        file(&source.join(name), name.as_bytes(), 0o644, 1);
    }
    sync(&nexus, "host:source /t");
    file(&source.join("grown"), b"grown and more", 0o644, 2);
    // The same size, and another time of change.
    file(&source.join("changed"), b"CHANGED", 0o644, 3);
    file(&source.join("same"), b"same", 0o600, 1);
    fs::remove_file(source.join("d/below")).expect("it is there");
    nexus.feed("write /t/extra/too/much", "x");

    let dry: Vec<Value> = nexus
        .good("--json sync --dry-run --delete host:source /t")
        .lines()
        .map(|line| serde_json::from_str(line).expect("it is an object"))
        .collect();
    let (counts, mut told) = dry.split_last().map(|(last, rest)| (last, rest.to_vec())).expect("it prints");
    told.sort_by_key(|line| line["path"].to_string());
    let would = |action: &str, path: &str| json!({ "action": action, "path": path });
    let expected = [
        would("copy", "/t/changed"),
        would("delete", "/t/d/below"),
        would("delete", "/t/extra"),
        would("copy", "/t/grown"),
        would("describe", "/t/same"),
    ];
    assert_eq!(told, expected);
    assert_eq!((&counts["dry_run"], &counts["described"]), (&json!(true), &json!(1)));
    assert_eq!(nexus.good("cat /t/changed"), "changed", "nothing was done");

    let counts = sync(&nexus, "host:source /t");
    assert_eq!((&counts["copied"], &counts["deleted"]), (&json!(2), &json!(0)));
    assert_eq!(nexus.good("cat /t/extra/too/much"), "x");
    assert_eq!(nexus.good("cat /t/changed"), "CHANGED");
    let counts = sync(&nexus, "--delete host:source /t");
    assert_eq!((&counts["copied"], &counts["deleted"]), (&json!(0), &json!(2)));
    assert_eq!(nexus.good("ls -R /t"), "/t/changed\n/t/d\n/t/grown\n/t/same\n");
    // What has the same content is not copied, however old it is.
    nexus.good("cp /t/changed /t/grown");
    file(&source.join("grown"), b"CHANGED", 0o644, 9);
    assert_eq!(sync(&nexus, "host:source /t")["copied"], 0);
}

#[test]
fn what_is_of_another_type_is_replaced_and_no_link_leads_elsewhere() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir_all(source.join("was-file")).expect("there is room");
    file(&source.join("was-file/in"), b"in", 0o644, 1);
    file(&source.join("was-folder"), b"file", 0o644, 1);
    file(&source.join("was-link"), b"file", 0o644, 1);
    std::os::unix::fs::symlink("was-link", source.join("other")).expect("there is room");
    nexus.feed("write /t/was-file", "x");
    nexus.feed("write /t/was-folder/in", "x");
    nexus.feed("write /victim", "victim");
    nexus.good("ln -s /victim /t/was-link");
    nexus.good("ln -s /victim /t/other");
    let ended = nexus.run("--json sync host:source /t");
    assert_eq!(ended.status, 1, "a folder with something in it stays: {}", ended.err);
    assert!(ended.err.contains("/t/was-folder") && ended.err.contains("--delete"), "{}", ended.err);
    let counts: Value = serde_json::from_str(&ended.out).expect("it is an object");
    assert_eq!(counts["failed"], 1);
    assert!(counts["failures"][0].as_str().is_some_and(|text| text.contains("/t/was-folder")), "{counts}");
    assert_eq!(nexus.good("cat /t/was-file/in"), "in", "the rest went on");
    sync(&nexus, "--delete host:source /t");
    assert_eq!(nexus.good("cat /t/was-folder"), "file");
    assert_eq!(nexus.good("cat /t/was-link"), "file");
    assert_eq!(nexus.good("cat /victim"), "victim");
    // And out again, over what is there.
    let target = nexus.host("target");
    fs::create_dir_all(target.join("was-link/in")).expect("there is room");
    file(&target.join("was-file"), b"x", 0o644, 1);
    std::os::unix::fs::symlink(nexus.host("victim"), target.join("was-folder")).expect("there is room");
    fs::write(nexus.host("victim"), "victim").expect("there is room");
    sync(&nexus, "--delete /t host:target");
    assert_eq!(described(&target), described(&source));
    assert_eq!(fs::read_to_string(nexus.host("victim")).expect("it is there"), "victim");
}

#[test]
fn a_folder_that_nobody_may_write_to_is_filled_and_closed() {
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("source"), nexus.host("target"));
    fs::create_dir_all(source.join("d/e")).expect("there is room");
    file(&source.join("d/e/f"), b"x", 0o644, 1);
    let close = |folder: &Path| fs::set_permissions(folder, fs::Permissions::from_mode(0o500));
    for folder in ["d/e", "d"] {
        close(&source.join(folder)).expect("it is ours");
    }
    sync(&nexus, "host:source /t");
    sync(&nexus, "/t host:target");
    assert_eq!(described(&target), described(&source));
    let again = sync(&nexus, "/t host:target");
    assert_eq!((&again["described"], &again["unchanged"]), (&json!(0), &json!(1)), "{again}");
}

#[test]
fn what_fails_is_told_and_the_rest_goes_on() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir(&source).expect("there is room");
    file(&source.join("good"), b"good", 0o644, 1);
    fs::write(source.join(OsStr::from_bytes(b"bad\xff")), "bad").expect("there is room");
    nexus.feed("write /t/there", "x");
    let ended = nexus.run("sync --delete host:source /t");
    assert_eq!((ended.status, ended.err.lines().count()), (1, 1), "{}", ended.err);
    assert!(ended.err.contains("bad\\xff"), "{}", ended.err);
    assert!(ended.out.starts_with("1 copied, 4 bytes, ") && ended.out.contains("1 failed"), "{}", ended.out);
    assert_eq!(nexus.good("ls /t"), "good\nthere\n", "where something cannot be told nothing is deleted");
    for (line, status) in [
        ("sync host:source host:target", 2),
        ("sync /nowhere /t", 1),
        ("sync host:nowhere /t", 1),
        ("sync /t /t/below", 1),
        ("sync /t --delete", 2),
    ] {
        assert_eq!(nexus.run(line).status, status, "{line}");
    }
}

/// Each would copy what it has just made, for ever, or remove what it reads.
#[test]
fn what_lies_in_each_other_on_the_host_is_refused_before_anything_is_changed() {
    let nexus = Nexus::new();
    for folder in ["a/inner", "other"] {
        fs::create_dir_all(nexus.host(folder)).expect("there is room");
    }
    file(&nexus.host("a/f"), b"f", 0o644, 1);
    std::os::unix::fs::symlink("a", nexus.host("link")).expect("there is room");
    nexus.good("mount /whole --driver local --opt folder=a");
    nexus.good("mount /inner --driver local --opt folder=link --opt prefix=inner");
    nexus.good("mount /other --driver local --opt folder=other");
    nexus.good("mount /t/deep --driver local --opt folder=a/inner");
    let before = described(&nexus.host("a"));
    for line in [
        "sync host:a /inner",
        "sync host:link /inner/new",
        "sync --delete /inner host:a",
        "sync host:a /whole",
        "sync /whole /inner",
        "sync --delete /inner /whole",
        "sync /t host:a/inner/new",
        "sync / host:a/inner/new",
    ] {
        let ended = nexus.run(line);
        assert_eq!(ended.status, 1, "{line}: {}", ended.err);
        let is_told = ended.err.contains("on the host") || ended.err.contains("of the host");
        assert!(is_told && ended.err.contains(&*nexus.host("a").to_string_lossy()), "{line}: {}", ended.err);
        assert_eq!(described(&nexus.host("a")), before, "{line}");
    }
    // What is mounted below the destination is in the way only of what has its name.
    assert_eq!(sync(&nexus, "host:a /t")["copied"], 1);
    assert_eq!(sync(&nexus, "/whole /other")["copied"], 1);
}

#[test]
fn what_the_kernel_and_its_mounts_stand_on_is_not_removed_from_the_host() {
    let nexus = Nexus::new();
    for folder in ["plain", "store", "deep/er/plain"] {
        fs::create_dir_all(nexus.host(folder)).expect("there is room");
    }
    file(&nexus.host("plain/f"), b"f", 0o644, 1);
    file(&nexus.host("deep/er/plain/f"), b"f", 0o644, 1);
    file(&nexus.host("too-much"), b"x", 0o644, 1);
    nexus.good("mount /plain --driver local --opt folder=plain");
    nexus.good("mount /deep --driver local --opt folder=deep/er --opt prefix=plain");
    nexus.good("mount /store --driver cas-local --opt folder=store");
    nexus.feed("write /store/large", &"x".repeat(100_000));
    nexus.feed("write /t/f", "t");
    nexus.feed("write /t/deep/er/f", "t");
    let top = nexus.host("").display().to_string();
    let all_is_there = |line: &str| {
        assert_eq!(nexus.good("cat /t/f /plain/f /deep/f"), "tff", "{line}");
        assert_eq!(nexus.good("cat /store/large").len(), 100_000, "{line}");
    };
    // Where it is to go to.
    for line in [
        "sync /t host:data",
        "sync --delete /t host:data/new",
        "sync --dry-run /t host:store",
        "sync --delete /t host:plain",
        "sync --delete /t host:deep/er/plain/new",
    ] {
        let ended = nexus.run(line);
        assert_eq!(ended.status, 1, "{line}: {}", ended.err);
        assert!(ended.err.contains("on the host"), "{line}: {}", ended.err);
        all_is_there(line);
    }
    // What holds one of them, and what is one of them, where they are too much.
    for line in [format!("sync --delete /t host:{top}"), "sync --delete /t/deep/er host:deep".into()] {
        for line in [line.replacen("sync", "sync --dry-run", 1), line] {
            let ended = nexus.run(&line);
            assert_eq!(ended.status, 1, "{line}: {}", ended.err);
            assert!(ended.err.contains("is not removed"), "{line}: {}", ended.err);
            all_is_there(&line);
        }
    }
    assert!(!nexus.host("too-much").exists(), "the rest goes");
    // A folder of a user's may be filled; what is there has another type, and stays.
    fs::create_dir(nexus.host("plain/d")).expect("there is room");
    nexus.feed("write /u/d", "no folder");
    let ended = nexus.run("sync /u host:plain");
    assert!(ended.status == 1 && ended.err.contains("is not removed"), "{}", ended.err);
    assert!(nexus.host("plain/d").is_dir());
    // Beside them all goes as ever.
    assert_eq!(sync(&nexus, "--delete /t host:target")["failed"], 0);
}

#[test]
fn a_folder_of_several_pages_is_compared_and_what_is_too_much_goes() {
    const FILES: usize = 1_100;
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("source"), nexus.host("target"));
    for folder in [&source, &target] {
        fs::create_dir(folder).expect("there is room");
    }
    nexus.good("mount /m --driver local --opt folder=target");
    let name = |nth: usize| format!("{nth:04}");
    for nth in 0..FILES {
        // Every third is on one side, every third on the other, and every third on both.
        for folder in [&source, &target].into_iter().skip(usize::from(nth % 3 == 1)).take(1 + nth % 3 / 2) {
            file(&folder.join(name(nth)), b"x", 0o644, 1);
        }
    }
    let counts = sync(&nexus, "--delete /m host:source");
    let third = |rest: usize| json!((0..FILES).filter(|nth| nth % 3 == rest).count());
    assert_eq!(
        (&counts["copied"], &counts["deleted"], &counts["unchanged"]),
        (&third(1), &third(0), &third(2))
    );
    assert_eq!(described(&source), described(&target));
}

/// A time of change that is not the same says nothing of the content: it is read, and that is counted.
#[test]
fn what_had_to_be_read_to_be_compared_is_counted() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir(&source).expect("there is room");
    fs::create_dir(nexus.host("plain")).expect("there is room");
    nexus.good("mount /plain --driver local --opt folder=plain");
    file(&source.join("f"), b"content", 0o644, 1);
    sync(&nexus, "host:source /plain");
    sync(&nexus, "host:source /t");
    assert_eq!(sync(&nexus, "host:source /plain")["compared"], 0);
    file(&source.join("f"), b"content", 0o644, 2);
    let counted = |line: &str| {
        let counts = sync(&nexus, line);
        assert_eq!((&counts["copied"], &counts["described"]), (&json!(0), &json!(1)), "{line}: {counts}");
        (counts["compared"].clone(), counts["compared_bytes"].clone())
    };
    assert_eq!(counted("host:source /plain"), (json!(1), json!(14)));
    // What is known by its hash is not read.
    assert_eq!(counted("host:source /t"), (json!(1), json!(7)));
}

#[test]
fn a_relative_folder_is_the_same_one_from_another_working_directory() {
    let nexus = Nexus::new();
    for folder in ["files", "elsewhere/files"] {
        fs::create_dir_all(nexus.host(folder)).expect("there is room");
        file(&nexus.host(folder).join("f"), folder.as_bytes(), 0o644, 1);
    }
    nexus.good("mount /m --driver local --opt folder=files");
    nexus.good("mount /blobs --driver cas-local --opt folder=blobs");
    nexus.feed("write /blobs/f", "content");
    for (path, content) in [("/m/f", "files"), ("/blobs/f", "content")] {
        let there = nexus.command(["cat", path]).current_dir(nexus.host("elsewhere")).output();
        let there = there.expect("it is run");
        assert_eq!(
            String::from_utf8_lossy(&there.stdout),
            content,
            "{}",
            String::from_utf8_lossy(&there.stderr)
        );
    }
    // Mounted again, from where it was first, it is the same mount.
    nexus.good("mount /m --driver local --opt folder=files");
}

#[test]
fn alone_it_still_brings_to_the_disk_what_was_acknowledged() {
    let nexus = Nexus::new();
    nexus.feed("write --eventual /a", "x");
    assert_eq!(nexus.good("sync"), "");
    assert!(nexus.good("--json sync /a").starts_with("{\"lsn\":"));
}

/// The time at which the clocks of hosts begin is one, and what is before it becomes that.
#[test]
fn a_file_of_1970_keeps_its_time() {
    let nexus = Nexus::new();
    let epoch = SystemTime::UNIX_EPOCH;
    for name in ["source", "plain"] {
        fs::create_dir(nexus.host(name)).expect("there is room");
    }
    let old = [
        ("first", epoch),
        ("older", epoch - Duration::from_secs(86_400)),
        ("later", epoch + Duration::new(1, 7)),
    ];
    for (name, at) in old {
        let file = fs::File::create(nexus.host("source").join(name)).expect("there is room");
        file.set_modified(at).expect("it is ours");
    }
    nexus.good("mount /plain --driver local --opt folder=plain");
    nexus.good("import source /i");
    nexus.good("export /i exported");
    sync(&nexus, "host:source /t");
    sync(&nexus, "/t /plain/t");
    sync(&nexus, "/plain/t host:synced");
    for folder in ["exported", "plain/t", "synced"] {
        for (name, at) in old {
            let there = fs::metadata(nexus.host(folder).join(name)).expect("it is there");
            assert_eq!(there.modified().expect("it is kept"), at.max(epoch), "{folder}/{name}");
        }
    }
    assert!(nexus.good("ls -l /t").contains("1970-01-01"));
    let again = sync(&nexus, "host:source /plain/t");
    assert_eq!((&again["copied"], &again["described"]), (&json!(0), &json!(0)), "{again}");
}

#[test]
fn a_mount_is_migrated_by_a_command() {
    let nexus = Nexus::new();
    for name in ["old", "new", "third", "fourth"] {
        fs::create_dir(nexus.host(name)).expect("there is room");
    }
    file(&nexus.host("old/a"), b"one", 0o640, 1);
    nexus.good("mount /m --driver local --opt folder=old");
    let none = nexus.run("migrate /m --status");
    assert_eq!(none.status, 1, "{}", none.err);
    let done: Value = serde_json::from_str(&nexus.good("--json migrate /m --to local --opt folder=new"))
        .expect("it is one");
    assert_eq!((&done["state"], &done["to"], &done["copied"]), (&json!("done"), &json!("local"), &json!(1)));
    assert_eq!(nexus.good("cat /m/a"), "one");
    assert_eq!(fs::read_to_string(nexus.host("new/a")).expect("it is there"), "one");
    assert!(nexus.good("mounts").contains(&format!("folder={}", nexus.host("new").display())));
    let told = nexus.good("migrate /m --to path-local --opt folder=third");
    assert!(told.starts_with("/m from local to path-local is done; 1 copied"), "{told}");
    // Also to content by its hash. What is refused is told, with the status of a failure.
    let told = nexus.good("migrate /m --to cas-local --opt folder=cas");
    assert!(told.starts_with("/m from path-local to cas-local is done; 1 copied"), "{told}");
    assert_eq!(nexus.good("cat /m/a"), "one");
    let refused = nexus.run("migrate /m --to local --opt folder=fourth");
    assert_eq!(refused.status, 1);
    assert!(refused.err.contains("history_count=0") && refused.err.contains("EOPNOTSUPP"), "{}", refused.err);
    nexus.good("migrate /m --to local --opt folder=fourth --opt history_count=0");
    assert_eq!(fs::read_to_string(nexus.host("fourth/a")).expect("it is there"), "one");
    let taken = nexus.run("migrate /m --to local --opt folder=old");
    assert_eq!(taken.status, 1, "it is not empty");
    assert!(taken.err.starts_with("nexus: migrate") && taken.err.contains("not empty"), "{}", taken.err);
    // What was mounted once is remembered with what it held.
    fs::create_dir(nexus.host("once")).expect("there is room");
    nexus.good("mount /z --driver local --opt folder=once");
    let taken = nexus.run("migrate /m --to local --opt folder=once").err;
    assert!(taken.starts_with("nexus: migrate /m: ") && taken.contains("of the mount /z ("), "{taken}");
    nexus.good("umount /z");
    let taken = nexus.run("migrate /m --to local --opt folder=once").err;
    assert!(taken.contains("of the mount /z, which is not mounted any more"), "{taken}");
    for command in ["migrate /m --to", "mount /twice --driver"] {
        let twice = nexus.run(&format!("{command} local --opt folder=old --opt folder=once"));
        assert!(twice.status == 2 && twice.err.contains("--opt folder is given twice"), "{twice:?}");
    }
    assert_eq!(nexus.run("migrate /m --abort").status, 1, "there is nothing to abort");
    assert_eq!(nexus.run("migrate /m").status, 2);
}

/// More files at once than a client has places for streams, and some that go in more than one piece.
#[test]
fn a_served_folder_is_filled_and_emptied_by_an_attached_sync() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    let (source, target) = (nexus.host("source"), nexus.host("missing/target"));
    fs::create_dir(&source).expect("there is room");
    for nth in 0..200 {
        file(&source.join(format!("{nth:03}")), format!("content {nth}").as_bytes(), 0o644, 1);
    }
    for nth in 0..4 {
        file(&source.join(format!("large{nth}")), &vec![nth; 1_500_000], 0o644, 1);
    }
    nexus.good("mount /m --driver memory");
    assert_eq!(sync(&nexus, "host:source /t")["copied"], 204);
    assert_eq!(sync(&nexus, "/t /m")["copied"], 204);
    let dry = sync(&nexus, "--dry-run /m host:missing/target");
    assert_eq!((&dry["copied"], &dry["directories"]), (&json!(204), &json!(2)), "{dry}");
    // The folder that it is to be in is made, too.
    let out = sync(&nexus, "/t host:missing/target");
    assert_eq!((&out["copied"], &out["directories"]), (&json!(204), &json!(2)), "{out}");
    assert_eq!(described(&target), described(&source));
}

/// From here on, modes count for the commands that this thread starts, also when it is root's.
#[cfg(target_os = "linux")]
fn heed_modes() {
    use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

    for above in [CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH, CapabilitySet::FOWNER] {
        // Whoever may not do this has none of them.
        let _ = remove_capability_from_bounding_set(above);
    }
}

/// Paths and modes below a folder.
#[cfg(target_os = "linux")]
fn modes(top: &Path) -> Vec<String> {
    let two = |line: String| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    described(top).into_iter().map(two).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn folders_that_are_closed_to_their_owner_are_filled_and_emptied() {
    heed_modes();
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("source"), nexus.host("target"));
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    fs::create_dir_all(source.join("a/b")).expect("there is room");
    fs::create_dir_all(source.join("c/d/e")).expect("there is room");
    for name in ["a/f", "a/b/f", "a/b/g", "c/d/e/f"] {
        file(&source.join(name), b"one", 0o444, 1);
    }
    for (name, closed) in [("a/b", 0o500), ("a", 0o555), ("c/d/e", 0o555), ("c/d", 0o500)] {
        mode(&source.join(name), closed);
    }
    sync(&nexus, "host:source /t");
    sync(&nexus, "/t host:target");
    assert_eq!(described(&target), described(&source));

    nexus.feed("write /t/a/b/f", "changed");
    nexus.feed("write /t/a/new/f", "new");
    nexus.good("rm /t/a/b/g");
    nexus.good("rm -r /t/c/d");
    let counts = sync(&nexus, "--delete /t host:target");
    let count = |what: &str| counts[what].as_u64().expect("a number");
    assert_eq!([count("copied"), count("deleted"), count("failed")], [2, 2, 0], "{counts}");
    assert_eq!(fs::read(target.join("a/b/f")).expect("it is there"), b"changed");
    assert!(target.join("a/new/f").exists() && !target.join("a/b/g").exists());
    assert!(!target.join("c/d").exists());
    let is = |name: &str| fs::metadata(target.join(name)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((is("a"), is("a/b")), (0o555, 0o500));
    assert_eq!(sync(&nexus, "--delete /t host:target")["copied"], 0);

    // And by the commands that do not compare, into a folder that is mounted and out of it again.
    fs::create_dir(nexus.host("plain")).expect("there is room");
    nexus.good("mount /plain --driver local --opt folder=plain");
    nexus.import(&source, "/plain/in");
    nexus.good("cp -r /plain/in /plain/over");
    nexus.export("/plain/over", &nexus.host("out"));
    nexus.export("/plain/over", &nexus.host("out"));
    for copy in ["plain/in", "plain/over", "out"] {
        assert_eq!(modes(&nexus.host(copy)), modes(&source), "{copy}");
    }
    for top in ["source", "target", "plain/in", "plain/over", "out"] {
        for closed in ["a", "a/b", "c/d", "c/d/e"] {
            // So that they can be removed; some are gone.
            let open = fs::Permissions::from_mode(0o755);
            let _ = fs::set_permissions(nexus.host(top).join(closed), open);
        }
    }
}

/// Names of a folder that no path can hold are no reason to say that all was copied.
#[test]
fn names_that_no_path_can_hold_are_told_by_whatever_copies() {
    let nexus = Nexus::new();
    let folder = nexus.host("folder");
    fs::create_dir_all(folder.join("d")).expect("there is room");
    fs::write(folder.join("d/ok"), "x").expect("there is room");
    fs::write(folder.join("d").join(OsStr::from_bytes(b"caf\xe9")), "x").expect("there is room");
    nexus.good(&format!("mount /m --driver local --opt folder={}", folder.display()));
    let (out, copy) = (nexus.host("out"), nexus.host("copy"));
    let (out, copy) = (out.display(), copy.display());
    for line in ["cp -r /m /c", &format!("export /m {out}"), &format!("sync /m host:{copy}"), "ls /m/d"] {
        let told = nexus.run(line);
        assert_eq!(told.status, 1, "{line}: {told:?}");
        assert!(told.err.contains("/m/d: names that no path can hold"), "{line}: {told:?}");
    }
    assert_eq!(nexus.good("cat /c/d/ok"), "x");
}
