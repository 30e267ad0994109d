//! `nexus watch`: changes as they happen, and those that were, also in another process.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use nexus::{Config, MountSpec, blocking};
use serde_json::{Value, json};

use crate::children::until;
use crate::fixture::{Nexus, end};
use crate::serving::Serving;
use crate::watching::Server;

/// A kernel in this process, which serves the data folder.
fn owner(nexus: &Nexus) -> blocking::Nexus {
    let config = Config::new(nexus.data()).serve(nexus::Serving::administrator());
    blocking::connect(config).expect("nobody else owns it")
}

/// `nexus watch` with these arguments, when the kernel of this process has its watch.
fn begun(nexus: &Nexus, owner: &blocking::Nexus, args: &[&str]) -> Child {
    let mut command = nexus.command(["watch"]);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the command starts");
    until("its watch", || owner.read("/__sys__/watches/.all").expect("it is listed") != "[]\n");
    child
}

#[test]
fn changes_from_outside_that_come_in_a_burst_are_all_told_to_who_is_attached() {
    const CHANGES: usize = 300;
    const SETTLED: Duration = Duration::from_millis(300);
    let nexus = Nexus::new();
    let (owner, outside) = (owner(&nexus), nexus.host("outside"));
    fs::create_dir(&outside).expect("there is room");
    let folder = outside.display().to_string();
    owner.mount("/home", MountSpec::new("path-local").option("folder", folder)).expect("it mounts");
    let mut here = owner.watch("/home").stream().expect("it begins");
    // The system begins to tell a moment after the mount is there.
    for mark in 0.. {
        fs::create_dir(outside.join(format!("mark-{mark}"))).expect("it is ours");
        if here.next_for(SETTLED).is_some() {
            break;
        }
    }
    drop(here);
    until("no watch", || owner.read("/__sys__/watches/.all").expect("it is listed") == "[]\n");
    let count = CHANGES.to_string();
    let args = ["--glob", "/home/burst-*", "--mask", "outside_change", "--count", &count, "--wait", "60s"];
    let child = begun(&nexus, &owner, &args);
    for change in 0..CHANGES {
        fs::create_dir(outside.join(format!("burst-{change}"))).expect("it is ours");
    }
    let ended = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let mut paths: Vec<_> = text.lines().map(told).collect();
    assert_eq!((ended.status.code(), &*ended.stderr, paths.len()), (Some(0), &b""[..], CHANGES), "{text}");
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), CHANGES, "each once: {text}");
    owner.shutdown().expect("it ends");
}

#[test]
fn an_overflow_is_told_on_standard_error_with_the_place_that_the_rest_is_told_from() {
    // More than fits into the queue, what is on its way, and what standard output takes that nobody reads.
    const LOCKS: usize = 5_000;
    let nexus = Nexus::new();
    let owner = owner(&nexus);
    let lock_once = || {
        let lock = owner.lock("/l", Duration::ZERO).expect("it is free");
        owner.unlock("/l", lock.id).expect("it is held");
    };
    // The first lock writes what all others go on with: behind this nothing is in the log.
    lock_once();
    let before = owner.write("/before", "x").expect("it writes").receipt.lsn;
    let mut child = begun(&nexus, &owner, &["/", "--mask", "lock,unlock,file_write"]);
    (0..LOCKS).for_each(|_| lock_once());
    owner.write("/after", "x").expect("it writes");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let locks =
        lines.by_ref().map(|line| told(&line.expect("it is text"))).take_while(|line| line.contains("/l"));
    let heard = locks.count();
    assert!(heard > 0 && heard < 2 * LOCKS, "{heard} lines, and then the rest from the log");
    child.kill().expect("it runs");
    let ended = child.wait_with_output().expect("it ends");
    let expected = format!(
        "nexus: watch /: what is in no log may be missing from here on; the rest comes from the log, as with --since {before}\n"
    );
    // It may have read on before its own reader held it up, and then it is told twice.
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!told.is_empty() && told.replace(&expected, "").is_empty(), "{told}");
    owner.shutdown().expect("it ends");
}

#[test]
fn for_whom_a_command_acts_is_said_to_it_or_to_all_of_an_environment_and_told() {
    let nexus = Nexus::new();
    let run = |args: &[&str], user: Option<&str>| {
        let mut command = nexus.command(args);
        command.envs(user.map(|user| ("NEXUS_USER", user)));
        let ended = end(command, args[0]);
        (ended.status, ended.err)
    };
    let itself = env!("CARGO_BIN_EXE_nexus");
    for (args, user) in [
        (&["write", "/a"][..], None),
        (&["--user", "ada", "write", "/a"], None),
        (&["write", "/a"], Some("bob")),
        (&["--user", "ada", "write", "/a"], Some("bob")),
        (&["--user", "eve", "lock", "/l", "--", itself, "write", "/a"], None),
    ] {
        assert_eq!(run(args, user), (0, String::new()), "{args:?}");
    }
    let told = nexus.good("--json watch /a --since 0 --mask file_write --count 5 --wait 60s");
    let events = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("each is an object"));
    let users: Vec<_> = events.filter_map(|event| event.get("user").cloned()).collect();
    assert_eq!(users, [Value::Null, "ada".into(), "bob".into(), "ada".into(), "eve".into()]);
    let (status, why) = run(&["--user", "", "ls", "/"], None);
    assert!(status == 1 && why.contains("does not name a user"), "{status} {why}");
    let (status, why) = run(&["--user", "ada", "serve"], None);
    assert!(status == 2 && why.contains("--user"), "{status} {why}");
    // Who is served as an agent does not say for whom, and what an environment says for all commands is no reason to refuse one.
    let _serving = Serving::start(&nexus, &["serve", "--agent", "coder-7"]);
    assert_eq!(run(&["ls", "/"], Some("bob")), (0, String::new()));
    let (status, why) = run(&["--user", "bob", "ls", "/"], None);
    assert!(status == 1 && why.contains("EACCES"), "{status} {why}");
}

/// A running `nexus watch`, ended with it.
pub(crate) struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    pub(crate) fn start(nexus: &Nexus, args: &[&str]) -> Self {
        let mut command = nexus.command(["watch"]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("the command starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("it is told").expect("it is text")
    }

    pub(crate) fn ended(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pattern_is_told_of_the_directory_that_takes_along_what_matches() {
    let nexus = Nexus::new();
    nexus.feed("write /w/a/x.md", "1");
    nexus.good("mv /w/a /out");
    nexus.good("mv /out /w/b");
    nexus.good("rm -r /w/b");
    let text = nexus.good("watch /w/*/x.md --glob --since 1 --wait 0s");
    assert_eq!(
        text.lines().map(told).collect::<Vec<_>>(),
        [
            "file_write nexus /w/a/x.md",
            "file_rename nexus /w/a -> /out",
            "file_rename nexus /out -> /w/b",
            "dir_delete nexus /w/b"
        ]
    );
}

#[test]
fn who_counts_is_told_all_of_a_transaction_and_goes_on_behind_it() {
    let nexus = Nexus::new();
    nexus.good("mkdir /w");
    let made = (1..4).map(|name| json!({ "op": "mkdir", "path": format!("/w/{name}") }));
    let done = nexus.feed("tx", &json!({ "ops": made.collect::<Vec<_>>() }).to_string());
    assert_eq!(done.status, 0, "{done:?}");
    nexus.good("mkdir /w/4");
    let (mut next, mut told) = (1, Vec::new());
    for expected in [1, 3, 1] {
        let text = nexus.good(&format!("watch /w --since {next} --count 1 --wait 0s --json"));
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        next = lines.pop().and_then(|last| last["next"].as_u64()).expect("it tells where to go on");
        assert_eq!(lines.len(), expected, "{text}");
        told.extend(lines.iter().map(|line| line["path"].as_str().expect("it has one").to_owned()));
    }
    assert_eq!(told, ["/w", "/w/1", "/w/2", "/w/3", "/w/4"]);
    // Beyond the end nothing is told, and no place from which something would be.
    let refused = nexus.run("watch /w --since 999999 --wait 0s --json");
    assert_eq!((refused.status, &*refused.out), (1, ""), "{refused:?}");
}

/// Found by a user of the command: the cursor stands where the log does, and reaches the place of such an event with the next commit.
#[test]
fn who_counts_what_is_in_no_log_ends_with_it() {
    const WAIT: Duration = Duration::from_secs(60);
    let nexus = Nexus::new();
    let owner = owner(&nexus);
    let lock = owner.lock("/l", Duration::ZERO).expect("it is free");
    let began = owner.env().now();
    let child = begun(&nexus, &owner, &["/l", "--mask", "unlock", "--count", "1", "--wait", "60s"]);
    owner.unlock("/l", lock.id).expect("it is held");
    let ended = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!((ended.status.code(), text.lines().count()), (Some(0), 1), "{text}");
    assert!(owner.env().now() - began < WAIT, "it waited for more");
    owner.shutdown().expect("it ends");
}

/// All of a line but its time.
fn told(line: &str) -> String {
    let mut words: Vec<_> = line.split(' ').collect();
    words.remove(1);
    words.remove(0);
    words.join(" ")
}

fn lsn(line: &str) -> u64 {
    line.split(' ').next().and_then(|first| first.parse().ok()).expect("it begins with its place")
}

#[test]
fn what_was_is_told_from_the_log_in_a_process_of_its_own() {
    let nexus = Nexus::new();
    nexus.feed("write /w/a", "1");
    nexus.feed("write /w/b", "2");
    nexus.good("mv /w/b /w/c");
    nexus.feed("write /elsewhere", "3");
    let text = nexus.good("watch /w --since 1 --wait 0s");
    let lines: Vec<_> = text.lines().map(told).collect();
    assert_eq!(
        lines,
        ["file_write nexus /w/a", "file_write nexus /w/b", "file_rename nexus /w/b -> /w/c"],
        "{text}"
    );
    let second = lsn(text.lines().nth(1).expect("there are three"));
    let rest = nexus.good(&format!("watch /w --since {second} --wait 0s"));
    assert_eq!(rest.lines().map(told).collect::<Vec<_>>(), lines[2..], "each once");

    let json = nexus.good("watch --glob /w/{a,c} --mask file_rename --since 1 --wait 0s --json");
    let objects: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        (objects[0]["kind"].as_str(), objects[0]["other"].as_str()),
        (Some("file_rename"), Some("/w/c"))
    );
    assert!(objects[1]["next"].as_u64() > objects[0]["lsn"].as_u64() && objects.len() == 2, "{json}");
}

#[test]
fn wrong_watches_are_told_and_a_count_that_is_not_reached_is_a_failure() {
    let nexus = Nexus::new();
    nexus.feed("write /a", "1");
    let bad = |line: &str, told: &str| {
        let ended = nexus.run(line);
        assert_eq!(ended.status, 1, "{line}: {}", ended.err);
        assert!(ended.err.contains(told) && ended.out.is_empty(), "{line}: {}", ended.err);
    };
    bad("watch --glob /[ --wait 0s", "watch /: invalid argument");
    bad("watch / --since 4000 --wait 0s", "the log ends at");
    bad("watch /a --count 1 --wait 10ms", "");
    assert_eq!(nexus.good("watch /a --since 1 --count 1").lines().count(), 1);
}

#[test]
fn changes_of_another_process_are_told_as_they_happen() {
    let nexus = Nexus::new();
    nexus.feed("write /w/0", "0");
    let server = Server::start(&nexus);
    let begun = lsn(nexus.good("watch /w --since 1 --count 1").trim());
    let mut watch = Watch::start(&nexus, &["/w", "--since", &begun.to_string(), "--count", "3"]);
    nexus.feed("write /w/a", "1");
    assert_eq!(told(&watch.line()), "file_write nexus /w/a");
    nexus.good("mkdir /w/d");
    nexus.good("cp /w/a /w/d/copy");
    assert_eq!(
        [told(&watch.line()), told(&watch.line())],
        ["dir_create nexus /w/d", "file_copy nexus /w/d/copy <- /w/a"]
    );
    assert_eq!(watch.ended(), Some(0));
    drop(server);
}
