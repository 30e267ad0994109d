//! `ls -R`, `glob` and `grep` say of an imported tree what the system's own tools say of the original.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::Nexus;
use crate::host::tree;

/// The lines that a tool of the system prints in the folder.
fn system(folder: &Path, tool: &str, args: &[&str]) -> BTreeSet<String> {
    let output = Command::new(tool).args(args).current_dir(folder).env("LC_ALL", "C").output();
    let output = output.expect("the system has this tool");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.strip_prefix("./").unwrap_or(line).to_owned()).collect()
}

/// The lines that the command prints, below `/t`.
fn ours(nexus: &Nexus, args: &[&str]) -> BTreeSet<String> {
    let ended = nexus.run_args(args);
    assert_eq!(ended.err, "", "{args:?}");
    ended.out.lines().map(|line| line.strip_prefix("/t/").unwrap_or(line).to_owned()).collect()
}

fn imported() -> (Nexus, std::path::PathBuf) {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    fs::create_dir(&source).expect("there is room");
    tree(&source);
    nexus.import(&source, "/t");
    (nexus, source)
}

#[test]
fn listings_agree_with_find() {
    let (nexus, source) = imported();
    let all = system(&source, "find", &[".", "-mindepth", "1"]);
    assert_eq!(ours(&nexus, &["ls", "-R", "/t"]), all);
    assert_eq!(ours(&nexus, &["ls", "/t/text"]), system(&source, "ls", &["-A", "text"]));
    assert_eq!(ours(&nexus, &["glob", "/t/**"]), all);
    let rust = system(&source, "find", &[".", "-name", "*.rs"]);
    assert_eq!(ours(&nexus, &["glob", "/t/**/*.rs"]), rust);
    let ones = system(&source, "find", &["text", "-name", "1?.rs"]);
    assert_eq!(ours(&nexus, &["glob", "/t/text/1?.rs"]), ones);
    let either = system(&source, "find", &["text", "(", "-name", "[1-3]0.rs", "-o", "-name", "05.rs", ")"]);
    assert_eq!(ours(&nexus, &["glob", "/t/text/{[1-3]0,05}.rs"]), either);
    assert!(ours(&nexus, &["glob", "/t/*.rs"]).is_empty());
}

#[test]
fn searches_agree_with_grep() {
    let (nexus, source) = imported();
    // Text of any encoding is searched as bytes; what has a NUL in it is binary to both.
    for pattern in ["fn main", "line 1[0-9] of", "^fn", "[{][}]$", "nowhere in it"] {
        let with = |option: &str| {
            system(&source, "grep", &["-r", "-a", "-E", option, "--", pattern, "text", "deep", "odd names"])
        };
        let run = |option: &str| {
            let mut lines = BTreeSet::new();
            for below in ["/t/text", "/t/deep", "/t/odd names"] {
                lines.extend(ours(&nexus, &["grep", option, "--", pattern, below]));
            }
            lines
        };
        assert_eq!(run("-l"), with("-l"), "{pattern}");
        assert_eq!(run("-n"), with("-n"), "{pattern}");
        // grep tells files without a match too, and a name with a line feed in it takes two lines.
        let found = |line: &String| {
            line.rsplit(':').next().is_some_and(|count| count.parse().is_ok_and(|count: u32| count > 0))
        };
        let counted: BTreeSet<String> = with("-c").into_iter().filter(found).collect();
        assert_eq!(run("-c"), counted, "{pattern}");
    }
    let upper = system(&source, "grep", &["-r", "-i", "-l", "FN MAIN", "text"]);
    assert_eq!(ours(&nexus, &["grep", "-i", "-l", "FN MAIN", "/t/text"]), upper);
    // Binary files are passed over as `grep -I` does.
    let texts = system(&source, "grep", &["-r", "-I", "-l", "fn main", "binary"]);
    assert!(!texts.contains("binary/small.bin") && texts.contains("binary/no end of line"));
    assert_eq!(ours(&nexus, &["grep", "-l", "fn main", "/t/binary"]), texts);
    let some = system(&source, "grep", &["-r", "-c", "--include=1*.rs", "main", "text"]);
    assert_eq!(ours(&nexus, &["grep", "-c", "--glob", "1*.rs", "main", "/t/text"]), some);
}
