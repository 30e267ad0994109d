//! Glob and grep.

use globset::GlobBuilder;
use nexus::blocking::Nexus;
use nexus::{ErrorKind, Grep, blocking};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use crate::script::{Bench, Root, check, refused};

#[test]
fn a_pattern_finds_what_it_says() {
    check(
        "write /src/main.rs x
         write /src/.hidden.rs x
         write /src/io/file.rs x
         write /src/io/deep/x.rs x
         write /src/notes.md x
         write /srcx/y.rs x
         mkdir /src/dir.rs
         glob /src/*.rs = /src/.hidden.rs /src/dir.rs /src/main.rs
         glob src/*.md = /src/notes.md
         glob /src/**/*.rs = /src/.hidden.rs /src/dir.rs /src/io/deep/x.rs /src/io/file.rs /src/main.rs
         glob /**/x.rs = /src/io/deep/x.rs
         glob /*/y.rs = /srcx/y.rs
         glob /src/{main,notes}.* = /src/main.rs /src/notes.md
         glob /src/{io/file,main}.rs = /src/io/file.rs /src/main.rs
         glob /src/[mn]*.?? = /src/main.rs /src/notes.md
         glob /src/[!m]otes.md = /src/notes.md
         glob /src/main.rs = /src/main.rs
         glob /src/main.rs/* = \"\"
         glob /src/missing = \"\"
         glob /missing/** = \"\"
         glob /src/io/** = /src/io/deep /src/io/deep/x.rs /src/io/file.rs
         glob / = /
         glob /* = /src /srcx
         glob /src/[ ! EINVAL
         glob /src/../x ! EINVAL",
    );
}

#[test]
fn links_are_found_and_not_followed() {
    check(
        "write /d/f x
         link /d/loop /d
         link /e d
         glob /** = /d /d/f /d/loop /e
         glob /d/l* = /d/loop
         glob /e/f = /e/f
         glob /e/* = /e/f /e/loop
         glob /e/** = /e/f /e/loop",
    );
}

#[test]
fn a_pattern_crosses_mounts() {
    check(
        "mount /m memory
         write /m/a/f.txt x
         write /b/f.txt x
         glob /**/f.txt = /b/f.txt /m/a/f.txt
         glob /*/a/f.txt = /m/a/f.txt",
    );
}

fn found(bench: &Bench, grep: Grep) -> Vec<String> {
    let report = bench.nx.grep(grep).expect("it searches");
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    let lines = report.matches.iter().flat_map(|file| {
        let line = |line: &nexus::Line| {
            format!("{}:{}:{}", file.path, line.number, String::from_utf8_lossy(&line.text))
        };
        let lines: Vec<String> = file.lines.iter().map(line).collect();
        if lines.is_empty() { vec![format!("{}:{}", file.path, file.count)] } else { lines }
    });
    lines.collect()
}

#[test]
fn lines_are_found_in_the_order_of_paths() {
    for root in crate::script::ALL {
        let bench = Bench::new(root);
        let nx = &bench.nx;
        for n in 0..40 {
            nx.write(format!("/d{}/f{n:02}.txt", n % 3), format!("one {n}\ntwo\nONE\n")).unwrap();
        }
        nx.write("/binary", "one\0").unwrap();
        nx.write("/readme.md", "one\r\n").unwrap();
        nx.link("/link", "/readme.md").unwrap();
        let all = found(&bench, Grep::new("one"));
        assert_eq!(all.len(), 41, "{root:?}");
        assert_eq!((all[0].as_str(), all[40].as_str()), ("/d0/f00.txt:1:one 0", "/readme.md:1:one\r"));
        assert!(all[..40].is_sorted(), "{root:?}");
        assert_eq!(found(&bench, Grep::new("one").glob("*.md")), ["/readme.md:1:one\r"]);
        assert_eq!(found(&bench, Grep::new("^one$").ignore_case().path("/d0")).len(), 14, "{root:?}");
        assert_eq!(found(&bench, Grep::new("one|two").path("/d0/f00.txt").count_only()), ["/d0/f00.txt:2"]);
        assert_eq!(found(&bench, Grep::new("ONE").path("/link").ignore_case()), ["/link:1:one\r"]);
        assert_eq!(found(&bench, Grep::new("zzz")), [""; 0]);
        let stats = nx.grep(Grep::new("one").files_only()).unwrap().stats;
        assert_eq!((stats.files, stats.binary), (42, 1), "{root:?}");
    }
}

#[test]
fn a_search_of_nonsense_is_refused() {
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    refused(nx.grep(Grep::new("(")), ErrorKind::InvalidArgument, "grep: invalid argument");
    refused(nx.grep(Grep::new("a").path("/missing")), ErrorKind::NotFound, "grep /missing");
    refused(nx.grep(Grep::new("a").path("missing")), ErrorKind::InvalidPath, "grep missing");
}

#[test]
fn a_file_that_cannot_be_read_does_not_end_the_search() {
    let folder = tempfile::tempdir().unwrap();
    let nx = blocking::connect(folder.path()).unwrap();
    nx.write("/bad", "needle ".repeat(10_000)).unwrap();
    nx.write("/good", "needle").unwrap();
    nx.shutdown().unwrap();
    let blobs = std::fs::read_dir(folder.path().join("blobs")).unwrap();
    blobs.for_each(|entry| drop(std::fs::remove_dir_all(entry.unwrap().path())));
    let nx = blocking::connect(folder.path()).unwrap();
    let report = nx.grep(Grep::new("needle")).unwrap();
    assert_eq!(report.matches.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["/good"]);
    assert_eq!(report.errors.len(), 1);
    assert_eq!((report.errors[0].path(), report.errors[0].errno().name()), (Some("/bad"), "EIO"));
}

/// Every path, matched against the whole pattern.
fn naively(nx: &Nexus, pattern: &str) -> Vec<String> {
    let glob =
        GlobBuilder::new(pattern).literal_separator(true).build().expect("a pattern").compile_matcher();
    let all = nx.walk("/").map(|entry| entry.expect("a walk").path.to_string());
    let mut found: Vec<String> = all.filter(|path| glob.is_match(path)).collect();
    found.sort_unstable();
    found
}

#[test]
fn a_glob_finds_what_matching_every_path_would_find() {
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    for a in ["a", "ab", ".c", "b{"] {
        for b in ["a", "ab/b", "c/a/b", "[d]"] {
            nx.write(format!("/{a}/{b}/f"), "").unwrap();
        }
    }
    let component = prop::sample::select(vec![
        "a",
        "ab",
        "*",
        "?",
        "a*",
        "*b",
        "**",
        "[ab]",
        "[!a]*",
        "{a,ab}",
        "{a,ab/b}",
        ".c",
        "\\[d\\]",
        "b\\{",
        "f",
        "{a/f,c/**}",
    ]);
    let pattern = prop::collection::vec(component, 1..5).prop_map(|parts| format!("/{}", parts.join("/")));
    let cases = Cases { cases: 400, failure_persistence: None, ..Cases::default() };
    let same = |pattern: String| {
        let found: Vec<String> = nx.glob(&pattern).unwrap().iter().map(|path| path.to_string()).collect();
        prop_assert_eq!(found, naively(nx, &pattern), "{}", pattern);
        Ok(())
    };
    TestRunner::new(cases).run(&pattern, same).unwrap();
}
