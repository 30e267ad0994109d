//! `pipe`: messages from command to command, by way of the process that serves the folder.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use nexus::blocking;
use serde_json::{Value, json};

use crate::children::until;
use crate::fixture::{Nexus, end};
use crate::serving::Serving;

#[test]
fn messages_go_from_command_to_command() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    let made: Value = serde_json::from_str(&nexus.good("--json pipe make /p --capacity 100")).unwrap();
    assert_eq!(made, json!({ "path": "/p", "created": true, "capacity": 100 }));
    nexus.good("pipe make /p");
    nexus.good("pipe write /p one");
    assert_eq!(nexus.feed("pipe write /p -", "two\nlines").status, 0);
    assert_eq!(nexus.feed("pipe write /p", "three").status, 0);
    assert_eq!(nexus.good("pipe read /p"), "one\n");
    assert_eq!(nexus.good("pipe read /p -n 2 --wait 10s"), "two\nlines\nthree\n");
    let written: Value = serde_json::from_str(&nexus.good("--json pipe write /p four")).unwrap();
    assert_eq!(written, json!({ "path": "/p", "written": 4 }));
    let read: Value = serde_json::from_str(&nexus.good("--json pipe read /p")).unwrap();
    assert_eq!(read, json!({ "count": 4, "text": "four" }));

    // One waits for what another writes.
    let mut waiting = nexus.command(["pipe", "read", "/p", "--wait", "1m"]);
    let waiting = waiting.stdout(Stdio::piped()).spawn().expect("it starts");
    nexus.good("pipe write /p five");
    let read = waiting.wait_with_output().expect("it ends");
    assert_eq!((read.status.code(), &*read.stdout), (Some(0), &b"five\n"[..]));

    let told = nexus.run("pipe read /p");
    assert_eq!((told.status, &*told.out), (1, ""));
    assert_eq!(told.err, "nexus: read /p: would have to wait: there is no message in the pipe (EAGAIN)\n");
    let told = nexus.run("pipe read /p --wait 20ms");
    assert!(told.status == 1 && told.err.ends_with("(ETIMEDOUT)\n"), "{}", told.err);
    let large = "x".repeat(101);
    let told = nexus.run(&format!("pipe write /p {large}"));
    assert!(told.status == 1 && told.err.ends_with("(EMSGSIZE)\n"), "{}", told.err);
    let told = nexus.run("pipe make /q --capacity 0");
    assert!(told.status == 1 && told.err.ends_with("(EINVAL)\n"), "{}", told.err);
    assert_eq!(nexus.run("pipe read /p --wait soon").status, 2);
    nexus.good("rm /p");
    assert!(nexus.run("pipe read /p").err.ends_with("(ENOENT)\n"));
}

#[test]
fn a_reader_that_a_signal_ends_takes_no_message_along() {
    const MESSAGES: usize = 100;
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    nexus.good("pipe make /p");
    let mut got = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES {
                nexus.good(&format!("pipe write /p {number} --wait 30s"));
            }
        });
        for signal in ["TERM", "INT", "HUP"].into_iter().cycle() {
            if got.len() + 2 > MESSAGES {
                return;
            }
            let mut reader = nexus.command(["pipe", "read", "/p", "-n", "1000", "--wait", "5s"]);
            let mut reader = reader.stdout(Stdio::piped()).spawn().expect("it starts");
            let mut lines = BufReader::new(reader.stdout.take().expect("it is piped")).lines();
            got.extend(lines.by_ref().take(2).map(|line| line.expect("it is text")));
            // One may be on its way to it by now.
            let kill = format!("kill -{signal} {}", reader.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().expect("it runs").success());
            got.extend(lines.map(|line| line.expect("it is text")));
            let status = reader.wait().expect("it ends").code();
            assert!(status.is_some_and(|status| status > 128), "{signal}: {status:?}");
        }
    });
    got.extend(nexus.run("pipe read /p -n 1000").out.lines().map(str::to_owned));
    let all: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(got, all);
}

#[test]
fn what_is_no_pipe_takes_no_message_and_gives_none() {
    let nexus = Nexus::new();
    assert_eq!(nexus.feed("write /notes.md", "keep").status, 0);
    let told = nexus.run("pipe write /notes.md hi");
    assert!(told.status == 1 && told.err.ends_with("(EOPNOTSUPP)\n"), "{}", told.err);
    let told = nexus.run("pipe read /notes.md");
    assert!(told.status == 1 && told.err.ends_with("(EOPNOTSUPP)\n"), "{}", told.err);
    assert_eq!(nexus.good("cat /notes.md"), "keep");
}

#[test]
fn a_shell_has_its_pipes_for_as_long_as_it_runs() {
    let nexus = Nexus::new();
    let lines = "pipe make /p\npipe write /p 'to myself'\npipe read /p\nls -l /p\n";
    let ended = end(nexus.command(["shell"]), lines);
    assert_eq!((ended.status, &*ended.err), (0, ""));
    assert!(ended.out.contains("to myself\n"), "{}", ended.out);
    assert!(ended.out.contains("prw-r--r--"), "{}", ended.out);
    let told = nexus.run("pipe read /p");
    assert!(told.status == 1 && told.err.ends_with("(EAGAIN)\n"), "the entry is there: {}", told.err);
}

#[test]
fn what_would_be_gone_with_the_command_is_not_taken() {
    let nexus = Nexus::new();
    nexus.good("pipe make /p");
    nexus.good("stream make /s --kind memory");
    for (line, at) in [("pipe write /p", "/p"), ("pipe write /p --wait 5s", "/p"), ("stream append /s", "/s")]
    {
        // The owner that the one before has started may be there for a moment yet.
        until("nobody owns the folder", || nexus.is_free());
        let refused = nexus.feed(line, "hello");
        assert_eq!((refused.status, &*refused.out), (1, ""), "{refused:?}");
        assert!(refused.err.starts_with(&format!("nexus: write {at}: ")), "{refused:?}");
        assert!(refused.err.contains("start `nexus serve`"), "{refused:?}");
    }
    // What is wrong with it otherwise is told as ever.
    assert!(nexus.feed("pipe write /nope", "hello").err.ends_with("(ENOENT)\n"));
    nexus.good("ln -s /p /link");
    assert!(nexus.feed("pipe write /link", "hello").err.contains("start `nexus serve`"));
    {
        let _serving = Serving::start(&nexus, &["serve"]);
        nexus.good("pipe write /p one");
        nexus.good("stream append /s one");
        assert_eq!(
            (nexus.good("pipe read /p"), nexus.good("stream read /s")),
            ("one\n".into(), "one\n".into())
        );
    }
    let shell = nexus.feed("shell", "stream append /s two\nstream tail /s -n 1\n");
    assert_eq!((shell.status, &*shell.out, &*shell.err), (0, "two\n", ""));
}

#[test]
fn what_ends_with_the_last_client_is_not_taken_from_it() {
    let nexus = Nexus::new();
    nexus.good("stream make /s --kind memory");
    // As one that a command has started, who has gone by now.
    let serving = Serving::start(&nexus, &["serve", "--while-used"]);
    let refused = nexus.run("stream append /s hello");
    assert!(refused.status == 1 && refused.err.contains("start `nexus serve`"), "{refused:?}");
    assert_eq!(serving.ended(), Some(0));

    let _serving = Serving::start(&nexus, &["serve", "--while-used"]);
    let other = blocking::attach(nexus.data()).expect("it serves");
    assert!(other.is_last_client());
    nexus.good("stream append /s hello");
    let again = blocking::attach(nexus.data()).expect("it serves");
    assert!(!again.is_last_client(), "who could read it is there");
    assert_eq!(nexus.good("stream read /s"), "hello\n");
}

#[cfg(target_os = "linux")]
#[test]
fn messages_and_records_in_shared_memory_outlive_the_command_that_brought_them() {
    // Nobody serves: each command owns the kernel, and ends.
    let nexus = Nexus::new();
    nexus.good("pipe make /p --kind shared");
    nexus.good("pipe write /p one");
    nexus.good("pipe write /p two");
    assert_eq!(nexus.good("pipe read /p -n 2"), "one\ntwo\n");
    nexus.good("stream make /s --kind shared --bytes-max 10000");
    nexus.good("stream append /s one two");
    assert_eq!(nexus.good("stream read /s"), "one\ntwo\n");
    nexus.good("rm /p");
    nexus.good("rm /s");
    assert!(nexus.run("pipe read /p").err.ends_with("(ENOENT)\n"));
}
