//! Trees of the host: made, and described so that two can be compared.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What an entry of the host is, as far as a copy has to have it: type, mode, time of change to the nanosecond, content or target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Described {
    Directory { mode: u32, modified: (i64, i64) },
    File { mode: u32, modified: (i64, i64), content: Vec<u8> },
    Link { target: PathBuf, modified: (i64, i64) },
}

/// All entries of a tree, by their path below it; the top is the empty path.
pub(crate) fn describe(top: &Path) -> BTreeMap<PathBuf, Described> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it was listed");
        let (mode, modified) = (metadata.mode() & 0o7777, (metadata.mtime(), metadata.mtime_nsec()));
        let described = if metadata.is_dir() {
            let children = fs::read_dir(&path).expect("it is a directory");
            left.extend(children.map(|child| child.expect("it can be read").path()));
            Described::Directory { mode, modified }
        } else if metadata.is_symlink() {
            Described::Link { target: fs::read_link(&path).expect("it is a link"), modified }
        } else {
            Described::File { mode, modified, content: fs::read(&path).expect("it is a file") }
        };
        let below = path.strip_prefix(top).expect("it lies below").to_owned();
        found.insert(below, described);
    }
    found
}

/// Two trees are the same; the first difference is told by its path, not by all bytes of both.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (describe(left), describe(right));
    let names = |tree: &BTreeMap<PathBuf, Described>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&left), names(&right));
    for (path, described) in &left {
        let same = right[path] == *described;
        assert!(same, "{} differs:\n{:.300}\n{:.300}", path.display(), show(described), show(&right[path]));
    }
}

fn show(described: &Described) -> String {
    format!("{described:?}")
}

/// A time long ago, another one for each `number`, with nanoseconds.
pub(crate) fn long_ago(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + number * 86_400, 123_456_789)
}

pub(crate) fn file(path: &Path, content: &[u8], mode: u32, number: u64) {
    fs::write(path, content).expect("there is room");
    settle(path, mode, number);
}

fn settle(path: &Path, mode: u32, number: u64) {
    let file = File::open(path).expect("it was made");
    file.set_permissions(Permissions::from_mode(mode)).expect("it is ours");
    file.set_times(FileTimes::new().set_modified(long_ago(number))).expect("it is ours");
}

/// A tree with some of everything: binary files, empty ones, large ones, deep and empty folders, links of all kinds, odd names, modes.
pub(crate) fn tree(top: &Path) {
    let make = |name: &str| {
        let path = top.join(name);
        fs::create_dir_all(&path).expect("there is room");
        path
    };
    let text = make("text");
    for number in 0..60 {
        let lines: String =
            (0..=number).map(|line| format!("line {line} of {number}, fn main() {{}}\n")).collect();
        file(&text.join(format!("{number:02}.rs")), lines.as_bytes(), 0o644, number);
    }
    let binary = make("binary");
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    file(&binary.join("large"), &bytes, 0o644, 100);
    file(&binary.join("middle.bin"), &bytes[..20_000], 0o600, 101);
    file(&binary.join("small.bin"), b"fn main\0fn main", 0o644, 102);
    file(&binary.join("no end of line"), b"fn main", 0o644, 103);
    file(&binary.join("latin1.txt"), b"fn caf\xe9() {}\r\nfn main\n", 0o644, 104);
    let deep = (0..40).fold(top.join("deep"), |path, level| path.join(format!("level{level}")));
    fs::create_dir_all(&deep).expect("there is room");
    file(&deep.join("bottom"), b"fn bottom() {}\n", 0o644, 105);
    make("empty/emptier");
    let odd = make("odd names");
    for (number, name) in (200..).zip(ODD_NAMES) {
        file(&odd.join(name), name.as_bytes(), 0o644, number);
    }
    file(&odd.join("x".repeat(255)), b"", 0o644, 300);
    let modes = make("modes");
    for (number, mode) in (400..).zip([0o755, 0o400, 0o777, 0o4755, 0o2711, 0o000]) {
        file(&modes.join(format!("{mode:04o}")), b"#!/bin/sh\n", mode, number);
    }
    let links = make("links");
    for (name, target) in [
        ("relative", "../text/00.rs"),
        ("absolute", "/etc/hostname"),
        ("dangling", "nowhere/at all"),
        ("directory", "../deep"),
        ("itself", "itself"),
        ("up", "../../../../.."),
        ("odd target", ".//a/../b \n"),
    ] {
        symlink(target, links.join(name)).expect("it is new");
    }
    // The deepest first: what is set in a directory does not change it, but what was made in it did.
    for (number, name) in (500..).zip(["empty/emptier", "empty", "odd names", "text", "deep/level0"]) {
        settle(&top.join(name), 0o755, number);
    }
    settle(&modes, 0o1777, 600);
    settle(&binary, 0o700, 601);
    settle(top, 0o750, 602);
}

const ODD_NAMES: [&str; 12] = [
    "with space",
    " leading",
    "trailing ",
    "-dash",
    "..dots",
    "...",
    "back\\slash",
    "quote'\"",
    "star*?[a]{b}",
    "tab\tinside",
    "ünïcode 名前 🦀",
    "line\nfeed",
];
