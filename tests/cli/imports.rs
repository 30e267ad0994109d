//! What an import takes, what it leaves out, and what it says of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use crate::fixture::Nexus;
use crate::host::{assert_same, file, tree};

#[test]
fn importing_again_writes_only_what_changed() {
    let nexus = Nexus::new();
    let (source, target) = (nexus.host("source"), nexus.host("target"));
    fs::create_dir(&source).expect("there is room");
    tree(&source);
    let first = nexus.import(&source, "/t");
    let again = nexus.import(&source, "/t");
    assert_eq!(again["files"], first["files"]);
    assert_eq!(
        again["unchanged"],
        first["files"].as_u64().expect("a number") + first["links"].as_u64().expect("a number")
    );
    file(&source.join("text/00.rs"), b"new", 0o644, 900);
    fs::remove_file(source.join("links/up")).expect("it is there");
    std::os::unix::fs::symlink("elsewhere", source.join("links/up")).expect("it is new");
    let third = nexus.import(&source, "/t");
    let unchanged = |counts: &serde_json::Value| counts["unchanged"].as_u64().expect("a number");
    assert_eq!(unchanged(&again) - unchanged(&third), 2);
    nexus.export("/t", &target);
    assert_same(&source, &target);
    let force = nexus.run_args([
        "--json".as_ref(),
        "import".as_ref(),
        "--force".as_ref(),
        source.as_os_str(),
        "/t".as_ref(),
    ]);
    let counts: serde_json::Value = serde_json::from_str(&force.out).expect("one object");
    assert_eq!(counts["unchanged"], counts["links"], "files are written again");
}

#[test]
fn nothing_is_exported_over_what_the_kernel_keeps_its_data_in() {
    let nexus = Nexus::new();
    nexus.feed("write /t/meta.redb", "no store");
    let data = nexus.data();
    let name = data.file_name().and_then(OsStr::to_str).expect("it has one");
    nexus.feed(&format!("write /above/{name}/meta.redb"), "no store");
    nexus.feed("write /above/other/f", "content");
    for (source, destination) in [("/t", data.clone()), ("/t", data.join("deep")), ("/above", nexus.host(""))]
    {
        let ended = nexus.run_args([OsStr::new("export"), OsStr::new(source), destination.as_os_str()]);
        assert!(ended.status != 0 && ended.err.contains("where Nexus keeps its data"), "{ended:?}");
        assert!(ended.err.contains("export"), "{ended:?}");
    }
    assert!(!nexus.host("other").exists(), "nothing was begun");
    assert_eq!(nexus.good("cat /t/meta.redb"), "no store");
    // Beside it there is room.
    nexus.export("/above/other", &nexus.host("out"));
}

#[test]
fn the_last_line_says_files_bytes_and_seconds() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir(&source).expect("there is room");
    file(&source.join("a"), b"12345", 0o644, 1);
    file(&source.join("b"), b"", 0o644, 1);
    let ended = nexus.run_args(["import".as_ref(), "-v".as_ref(), source.as_os_str(), "/t".as_ref()]);
    assert_eq!((ended.status, &*ended.err), (0, ""));
    let mut lines: Vec<&str> = ended.out.lines().collect();
    let last = lines.pop().expect("there is a last line");
    assert!(last.starts_with("2 files, 5 bytes, ") && last.contains(" seconds"), "{last}");
    lines.sort_unstable();
    assert_eq!(lines, ["/t", "/t/a", "/t/b"]);
}

#[test]
fn names_that_are_not_utf8_fail_alone() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir(&source).expect("there is room");
    file(&source.join("good"), b"good", 0o644, 1);
    fs::write(source.join(OsStr::from_bytes(b"bad\xff")), "bad").expect("there is room");
    fs::create_dir(source.join(OsStr::from_bytes(b"dir\xfe"))).expect("there is room");
    fs::write(source.join(OsStr::from_bytes(b"dir\xfe")).join("inside"), "bad").expect("there is room");
    std::os::unix::fs::symlink(OsStr::from_bytes(b"to\xfd"), source.join("link")).expect("it is new");
    let ended = nexus.run_args(["import".as_ref(), source.as_os_str(), "/t".as_ref()]);
    assert_eq!(ended.status, 1);
    let told: Vec<&str> = ended.err.lines().collect();
    assert_eq!(told.len(), 3, "{}", ended.err);
    assert!(
        told.iter().all(|line| line.starts_with("nexus: import ") && line.ends_with("(EILSEQ)")),
        "{told:?}"
    );
    assert!(ended.err.contains("bad\\xff:") && ended.err.contains("dir\\xfe:"), "{}", ended.err);
    assert!(ended.out.contains("1 files, 4 bytes") && ended.out.contains("3 failed"), "{}", ended.out);
    assert_eq!(nexus.good("ls -R /"), "/t\n/t/good\n");
}

#[test]
fn special_files_are_told_and_skipped() {
    let nexus = Nexus::new();
    let source = nexus.host("s");
    fs::create_dir(&source).expect("there is room");
    file(&source.join("good"), b"good", 0o644, 1);
    let _socket = UnixListener::bind(source.join("socket")).expect("there is room");
    let made =
        std::process::Command::new("mkfifo").arg(source.join("pipe")).status().expect("there is a mkfifo");
    assert!(made.success());
    let ended = nexus.run_args(["import".as_ref(), source.as_os_str(), "/t".as_ref()]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert!(ended.err.contains("socket: skipped") && ended.err.contains("pipe: skipped"), "{}", ended.err);
    assert!(ended.out.contains("2 skipped"), "{}", ended.out);
    assert_eq!(nexus.good("ls /t"), "good\n");
}

#[test]
fn the_data_folder_is_left_out() {
    let nexus = Nexus::new();
    file(&nexus.host("beside"), b"x", 0o644, 1);
    nexus.import(&nexus.host(""), "/t");
    assert_eq!(nexus.good("ls -R /t"), "/t/beside\n");
}

#[test]
fn what_is_in_the_way_is_told_and_nothing_is_led_elsewhere() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir_all(source.join("directory")).expect("there is room");
    file(&source.join("file"), b"new", 0o644, 1);
    file(&source.join("directory/inside"), b"new", 0o644, 1);
    file(&source.join("other"), b"new", 0o644, 1);
    nexus.feed("write /victim/kept", "kept");
    nexus.good("mkdir -p /t/file");
    nexus.good("ln -s /victim /t/directory");
    nexus.good("ln -s /victim/kept /t/other");
    let ended = nexus.run_args(["import".as_ref(), source.as_os_str(), "/t".as_ref()]);
    assert_eq!((ended.status, ended.err.lines().count()), (1, 3), "{}", ended.err);
    assert_eq!(nexus.good("ls -R /victim"), "/victim/kept\n");
    assert_eq!(nexus.good("cat /victim/kept"), "kept");
}
