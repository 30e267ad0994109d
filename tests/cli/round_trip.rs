//! A tree goes in and comes out again, and is the same.

use std::fs;
use std::process::Stdio;

use crate::children::until;
use crate::fixture::{Nexus, end};
use crate::host::{assert_same, describe, tree};
use crate::serving::Serving;

/// The command under test, as a word of a shell.
const NEXUS: &str = env!("CARGO_BIN_EXE_nexus");

#[test]
fn an_imported_tree_is_exported_identical() {
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("source"), nexus.host("target"));
    fs::create_dir(&source).expect("there is room");
    tree(&source);
    let files = describe(&source)
        .values()
        .filter(|entry| matches!(entry, crate::host::Described::File { .. }))
        .count();
    let counts = nexus.import(&source, "/a/tree");
    assert_eq!(counts["files"], files);
    assert_eq!((&counts["failed"], &counts["skipped"], &counts["links"]), (&0.into(), &0.into(), &7.into()));
    nexus.export("/a/tree", &target);
    assert_same(&source, &target);
    // A second one into the same place changes nothing, and does not follow what is in the way.
    nexus.export("/a/tree", &target);
    assert_same(&source, &target);
    let diff = std::process::Command::new("diff")
        .args(["-r", "--no-dereference"])
        .arg(&source)
        .arg(&target)
        .output();
    let diff = diff.expect("there is a diff");
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn a_single_file_goes_in_and_out() {
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("a"), nexus.host("b"));
    crate::host::file(&source, b"one", 0o640, 1);
    nexus.import(&source, "/x/y");
    assert_eq!(nexus.good("cat /x/y"), "one");
    nexus.export("/x/y", &target);
    assert_same(&source, &target);
}

#[test]
fn an_export_replaces_what_is_in_the_way_and_follows_no_link() {
    let nexus = Nexus::new();
    let (victim, target) = (nexus.host("victim"), nexus.host("target"));
    fs::write(&victim, "untouched").expect("there is room");
    fs::create_dir(&target).expect("there is room");
    std::os::unix::fs::symlink(&victim, target.join("a")).expect("it is new");
    nexus.feed("write /t/a", "ours");
    nexus.export("/t", &target);
    assert_eq!(fs::read(&victim).expect("it is there"), b"untouched");
    assert_eq!(fs::read(target.join("a")).expect("it is there"), b"ours");
    assert!(!fs::symlink_metadata(target.join("a")).expect("it is there").is_symlink());
}

#[test]
fn a_copied_tree_is_exported_identical_but_for_its_times() {
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("source"), nexus.host("target"));
    fs::create_dir(&source).expect("there is room");
    tree(&source);
    nexus.import(&source, "/a");
    nexus.good("cp -r /a /b/c");
    nexus.export("/b/c", &target);
    let timeless = |top| {
        let mut all = describe(top);
        for entry in all.values_mut() {
            use crate::host::Described::{Directory, File, Link};
            let (Directory { modified, .. } | File { modified, .. } | Link { modified, .. }) = entry;
            *modified = (0, 0);
        }
        all
    };
    assert!(timeless(&source) == timeless(&target), "the copy differs");
}

#[test]
fn an_import_into_a_plain_folder_is_identical_there() {
    let nexus = Nexus::new();
    let (source, folder) = (nexus.host("source"), nexus.host("plain"));
    fs::create_dir(&source).expect("there is room");
    fs::create_dir(&folder).expect("there is room");
    tree(&source);
    nexus.good(&format!("mount /plain --driver path-local --opt folder={}", folder.display()));
    nexus.import(&source, "/plain/t");
    // A link of the host is made with the time at which it is made.
    let but_links = |top: &std::path::Path| {
        let mut all = describe(top);
        for entry in all.values_mut() {
            if let crate::host::Described::Link { modified, .. } = entry {
                *modified = (0, 0);
            }
        }
        all
    };
    let (source, imported) = (but_links(&source), but_links(&folder.join("t")));
    for (path, described) in &source {
        assert!(imported.get(path) == Some(described), "{} differs", path.display());
    }
    assert_eq!(source.len(), imported.len());
}

/// What is in a folder of the host.
fn names(folder: &std::path::Path) -> Vec<String> {
    let all = fs::read_dir(folder).expect("it is there");
    all.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn an_export_that_is_killed_leaves_what_was_there_and_the_next_one_clears_what_it_left() {
    let nexus = Nexus::new();
    let (source, out) = (nexus.host("source"), nexus.host("out"));
    fs::create_dir(&out).expect("there is room");
    fs::write(out.join("f"), "as it was").expect("there is room");
    fs::write(&source, vec![7; 8 << 20]).expect("there is room");
    let _serving = Serving::start(&nexus, &["serve"]);
    nexus.import(&source, "/t/f");
    // The system kills who writes a larger file than he may.
    let script = format!("ulimit -c 0; ulimit -f 1024; exec {NEXUS} --data data export /t out");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).current_dir(nexus.host(""));
    let killed = end(shell, "");
    assert_ne!(killed.status, 0, "{killed:?}");
    assert!(fs::read(out.join("f")).expect("it is there") == b"as it was", "it was written to");
    assert_eq!(names(&out).len(), 2, "{:?}", names(&out));
    nexus.export("/t", &out);
    assert_same(&source, &out.join("f"));
    assert_eq!(names(&out), ["f"]);
}

#[test]
fn an_export_that_is_interrupted_leaves_nothing_that_is_not_whole() {
    let nexus = Nexus::new();
    let (source, out) = (nexus.host("source"), nexus.host("out"));
    fs::create_dir(&source).expect("there is room");
    // It has no blocks, and takes a while to be read and written.
    let file = fs::File::create(source.join("f")).expect("there is room");
    file.set_len(1 << 30).expect("it can be that long");
    nexus.good("mount /m --driver local --opt folder=source");
    for signal in ["INT", "TERM"] {
        let mut exporting = nexus.command(["export", "/m", "out"]);
        let mut exporting =
            exporting.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        until("a file comes", || out.exists() && !names(&out).is_empty());
        let kill = format!("kill -{signal} {}", exporting.id());
        let killed = std::process::Command::new("sh").args(["-c", &kill]).status();
        assert!(killed.expect("there is a shell").success());
        let status = exporting.wait().expect("it ends").code();
        let whole = names(&out)
            .iter()
            .all(|name| name == "f" && fs::metadata(out.join(name)).expect("it is there").len() == 1 << 30);
        assert!(whole, "{signal}: {:?}", names(&out));
        // It may have been quicker than the signal.
        let told = if signal == "INT" { 130 } else { 143 };
        assert!(status == Some(told) || !names(&out).is_empty(), "{signal}: {status:?}");
        fs::remove_dir_all(&out).expect("it is there");
    }
}
