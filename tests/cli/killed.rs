//! What a process that is killed leaves, and what a second one is told.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::fixture::Nexus;
use crate::host::{assert_same, describe, file};

const FILES: usize = 1_500;

/// When the import is killed: early, and well on its way.
const ACKNOWLEDGED: [usize; 2] = [50, 600];

#[test]
fn an_import_that_is_killed_leaves_what_it_acknowledged_and_is_completed_by_another() {
    for enough in ACKNOWLEDGED {
        let nexus = Nexus::new();
        let (source, left, whole) = (nexus.host("source"), nexus.host("left"), nexus.host("whole"));
        for number in 0..FILES {
            let folder = source.join(format!("{}", number % 17));
            fs::create_dir_all(&folder).expect("there is room");
            // Some are small enough to be kept with their row, some are not.
            let content = format!("{number} ").repeat(if number % 10 == 0 { 8_000 } else { 100 });
            file(&folder.join(format!("{number}")), content.as_bytes(), 0o640, number as u64);
        }
        let acknowledged = killed_import(&nexus, &source, enough);
        assert!(acknowledged.len() >= enough && acknowledged.len() < FILES, "{}", acknowledged.len());

        let present = nexus.good("ls -R /t");
        let present: BTreeSet<&str> = present.lines().collect();
        let missing: Vec<_> =
            acknowledged.iter().filter(|path| !present.contains(path.as_str()) && *path != "/t").collect();
        assert!(missing.is_empty(), "acknowledged and gone: {missing:?}");
        nexus.export("/t", &left);
        let original = describe(&source);
        for (path, described) in describe(&left) {
            // Directories have their time at the end only.
            if matches!(described, crate::host::Described::File { .. }) {
                assert!(original[&path] == described, "{} is torn", path.display());
            }
        }

        let counts = nexus.import(&source, "/t");
        assert_eq!(counts["files"], FILES);
        assert!(
            counts["unchanged"].as_u64().expect("a number") >= (acknowledged.len() - 18) as u64,
            "{counts}"
        );
        nexus.export("/t", &whole);
        assert_same(&source, &whole);
    }
}

/// Kills an import once `enough` paths were acknowledged, and gives all that were.
fn killed_import(nexus: &Nexus, source: &std::path::Path, enough: usize) -> BTreeSet<String> {
    let args = ["import".as_ref(), "-v".as_ref(), source.as_os_str(), "/t".as_ref()];
    let mut import = nexus.command(args).stdout(Stdio::piped()).spawn().expect("the command starts");
    let mut said = BufReader::new(import.stdout.take().expect("it is piped"));
    let mut acknowledged = BTreeSet::new();
    let mut line = String::new();
    // What was said before the kill is in the pipe after it.
    while said.read_line(&mut line).expect("it can be read") > 0 {
        // A line without an end was cut off, and says nothing.
        if let Some(path) = line.strip_suffix('\n') {
            acknowledged.insert(path.to_owned());
        }
        if acknowledged.len() == enough {
            import.kill().expect("it runs");
        }
        line.clear();
    }
    let ended = import.wait().expect("it ends");
    assert_eq!(ended.code(), None, "it was killed before its end");
    acknowledged
}

#[test]
fn a_second_process_on_a_folder_that_is_held_and_not_served_is_refused() {
    let nexus = Nexus::new();
    nexus.feed("write /f", "kept");
    let mut first = nexus.command(["tour-writer", "/w", "--writers", "1"]);
    let mut first = first.stdout(Stdio::piped()).spawn().expect("the command starts");
    let mut said = BufReader::new(first.stdout.take().expect("it is piped"));
    let mut line = String::new();
    // Once it has acknowledged a write it owns the folder.
    said.read_line(&mut line).expect("it can be read");
    assert_eq!(line, "0-0\n");
    let second = nexus.run("cat /f");
    assert_eq!((second.status, &*second.out), (1, ""));
    let expected = format!(
        "nexus: connect {}: busy: the data folder is in use by process {}, which does not serve nexus.sock (EBUSY)\n",
        nexus.data().display(),
        first.id()
    );
    assert_eq!(second.err, expected);
    // Who was refused has broken nothing.
    line.clear();
    said.read_line(&mut line).expect("it can be read");
    assert_eq!(line, "0-1\n");
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    assert_eq!(nexus.good("cat /f"), "kept");
    assert!(nexus.good("ls /w").starts_with("0-0\n0-1\n"));
}
