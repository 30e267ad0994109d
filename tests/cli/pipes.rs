//! Output that nobody reads to its end.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::fixture::Nexus;

#[test]
fn a_closed_pipe_ends_a_listing_quietly() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    std::fs::create_dir(&source).expect("there is room");
    for number in 0..3_000 {
        let name = format!("{number}-{}", "x".repeat(60));
        std::fs::write(source.join(name), "").expect("there is room");
    }
    nexus.import(&source, "/t");
    let mut listing = nexus.command(["ls", "-R", "/t"]);
    let mut listing =
        listing.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let mut head = BufReader::new(listing.stdout.take().expect("it is piped"));
    let mut line = String::new();
    head.read_line(&mut line).expect("there is a line");
    assert!(line.starts_with("/t/"), "{line}");
    drop(head);
    let mut told = String::new();
    let mut err = listing.stderr.take().expect("it is piped");
    err.read_to_string(&mut told).expect("it is text");
    let status = listing.wait().expect("it ends");
    assert_eq!((status.code(), &*told), (Some(0), ""));
}

#[test]
fn a_pipe_sees_no_progress() {
    let nexus = Nexus::new();
    std::fs::write(nexus.host("f"), "x").expect("there is room");
    let ended = nexus.run("import f /f");
    assert_eq!((ended.status, &*ended.err), (0, ""));
    assert!(!ended.out.contains('\r') && !ended.out.contains('\u{1b}'), "{:?}", ended.out);
}

#[test]
fn nothing_is_no_message() {
    let nexus = Nexus::new();
    nexus.good("pipe make /p --kind shared");
    for line in ["pipe write /p -", "pipe write /p"] {
        let refused = nexus.feed(line, "");
        assert_eq!((refused.status, &*refused.out), (1, ""), "{line}");
        assert!(refused.err.ends_with("a pipe has no empty messages (EINVAL)\n"), "{refused:?}");
    }
}
