//! `stream`: records that stay, read from anywhere.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::children::until;
use crate::fixture::Nexus;
use crate::serving::Serving;

#[test]
fn records_stay_from_command_to_command() {
    let nexus = Nexus::new();
    let made: Value = serde_json::from_str(&nexus.good("--json stream make /s --bytes-max 1000")).unwrap();
    assert_eq!(made, json!({ "path": "/s", "created": true }));
    nexus.good("stream make /s");
    let first: Value = serde_json::from_str(&nexus.good("--json stream append /s one two")).unwrap();
    assert_eq!(first, json!({ "path": "/s", "first": 0, "count": 2 }));
    assert_eq!(nexus.feed("stream append /s", "three\nlines").status, 0);
    assert_eq!(nexus.good("stream read /s"), "one\ntwo\nthree\nlines\n");
    assert_eq!(nexus.good("stream read /s --from 1 -n 1"), "two\n");
    assert_eq!(nexus.good("stream tail /s -n 1"), "three\nlines\n");
    let record: Value = serde_json::from_str(&nexus.good("--json stream read /s --from 1 -n 1")).unwrap();
    assert_eq!((&record["offset"], &record["text"]), (&json!(1), &json!("two")));
    let told = nexus.run("stream read /s --from 3 -n 1");
    assert_eq!((told.status, &*told.out, &*told.err), (1, "", ""), "there is none yet");
    assert!(nexus.run("stream read /s --from 4").err.ends_with("(EINVAL)\n"));
    assert!(nexus.run("stream make /q --bytes-max 0").err.ends_with("(EINVAL)\n"));
    nexus.good("mkdir /d");
    assert!(nexus.run("stream append /d x").err.ends_with("(EOPNOTSUPP)\n"));
    nexus.good("mv /s /t");
    assert_eq!(nexus.good("stream tail /t -n 2"), "two\nthree\nlines\n");
    nexus.good("rm /t");
    assert!(nexus.run("stream read /t").err.ends_with("(ENOENT)\n"));
}

#[test]
fn a_follower_sees_what_is_appended_elsewhere() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    nexus.good("stream make /s");
    nexus.good("stream append /s before");
    let mut following = nexus.command(["stream", "tail", "-f", "/s"]);
    let mut following = following.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(following.stdout.take().expect("it is piped")).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "before");
    nexus.good("stream append /s after");
    assert_eq!(lines.next().unwrap().unwrap(), "after");
    following.kill().expect("it runs");
    following.wait().expect("it ends");
}

#[test]
fn a_record_is_nobody_elses_while_a_command_works_on_it_whatever_deadline_its_group_has() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    nexus.good("stream make /s");
    // Whoever names the group first says its deadline.
    assert_eq!(nexus.run("stream take /s g --deadline 2s").status, 1);
    nexus.good("stream append /s one");
    let (begun, done) = (nexus.host("begun"), nexus.host("done"));
    let script = format!("touch {}; while [ ! -e {} ]; do sleep 0.01; done", begun.display(), done.display());
    let mut works = nexus.command(["stream", "take", "/s", "g", "--", "sh", "-c", &script]);
    let mut works = works.stdout(Stdio::piped()).spawn().expect("it starts");
    until("the command works", || begun.exists());
    let other = nexus.run("stream take /s g --wait 4s");
    assert_eq!((other.status, &*other.out), (1, ""), "it is with the first one");
    std::fs::write(done, "").expect("there is room");
    assert!(works.wait().expect("it ends").success());
    let group: Value = serde_json::from_str(&nexus.good("--json stream groups /s g")).unwrap();
    assert_eq!(&group["info"]["finished"], &json!(1));
}

#[test]
fn a_command_whose_record_is_not_extended_any_more_is_waited_for() {
    let nexus = Nexus::new();
    let serving = Serving::start(&nexus, &["serve"]);
    nexus.good("stream make /s");
    nexus.good("stream append /s one");
    let (begun, done, ended) = (nexus.host("begun"), nexus.host("done"), nexus.host("ended"));
    let script = format!(
        "touch {there}; while [ -e {there} ] && [ ! -e {} ]; do sleep 0.01; done; touch {}",
        done.display(),
        ended.display(),
        there = begun.display(),
    );
    let mut works = nexus.command(["stream", "take", "/s", "g", "--hold", "2s", "--", "sh", "-c", &script]);
    let mut works = works.stderr(Stdio::piped()).spawn().expect("it starts");
    until("the command works", || begun.exists());
    serving.signal("KILL");
    let mut told = BufReader::new(works.stderr.take().expect("it is piped")).lines();
    let warned = told.next().unwrap().unwrap();
    assert!(warned.contains("record 0 is not extended, the command goes on: "), "{warned}");
    std::fs::write(done, "").expect("there is room");
    assert_eq!(works.wait().expect("it ends").code(), Some(1));
    assert!(ended.exists());
    let failed = told.next().unwrap().unwrap();
    assert!(failed.ends_with("(ESHUTDOWN)"), "{failed}");
}

#[test]
fn a_signal_that_ends_the_command_of_a_record_is_the_end_of_the_take() {
    let nexus = Nexus::new();
    nexus.good("stream make /s");
    nexus.good("stream append /s one two");
    // The second one ends by itself, so that this does.
    let begun = nexus.host("begun").display().to_string();
    let script = format!(
        "[ -e {begun} ] && exec touch {begun}.again; touch {begun}; while [ -e {begun} ]; do sleep 0.01; done"
    );
    let mut works = nexus.command(["stream", "take", "/s", "g", "-n", "5", "--", "sh", "-c", &script]);
    let mut works = works.stdin(Stdio::null()).spawn().expect("it starts");
    until("the command works", || nexus.host("begun").exists());
    let mut kill = Command::new("kill");
    assert!(kill.arg("-TERM").arg(works.id().to_string()).status().expect("kill is there").success());
    assert_eq!(works.wait().expect("it ends").code(), Some(1));
    assert!(!nexus.host("begun.again").exists(), "nobody worked on the second one");
    assert_eq!(nexus.good("stream groups /s g"), "waiting 0 1\n", "the first one is for the next");
}

#[test]
fn a_take_waits_for_its_first_record_alone() {
    let nexus = Nexus::new();
    nexus.good("stream make /s");
    nexus.good("stream append /s one two");
    let mut works = nexus.command(["stream", "take", "/s", "g", "-n", "5", "--wait", "40s", "--", "cat"]);
    let mut works = works.stdout(Stdio::piped()).spawn().expect("it starts");
    until("the end of it", || works.try_wait().expect("it is there").is_some());
    let output = works.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout == b"onetwo", "{output:?}");
}

#[test]
fn a_group_gives_each_record_to_one_agent_until_it_is_acknowledged() {
    let nexus = Nexus::new();
    nexus.good("stream make /s");
    nexus.good("stream append /s one two three");
    assert_eq!(nexus.good("stream take /s g -n 2"), "one\ntwo\n");
    assert_eq!(nexus.good("stream groups /s"), "g next 2 lag 3 held 2 waiting 0 dead 0 lost 0\n");
    let held = nexus.good("stream groups /s g");
    assert!(held.lines().all(|line| line.starts_with("held ")) && held.lines().count() == 2, "{held}");
    // The command that took them has ended, and they are this agent's still.
    let done: Value = serde_json::from_str(&nexus.good("--json stream ack /s g 0")).unwrap();
    assert_eq!(done, json!({ "path": "/s", "group": "g", "count": 1 }));
    assert!(nexus.run("stream ack /s g 0").err.ends_with("(EPERM)\n"));
    nexus.good("stream giveback /s g");
    let again: Value = serde_json::from_str(&nexus.good("--json stream take /s g --ack")).unwrap();
    assert_eq!(
        (&again["offset"], &again["deliveries"], &again["text"]),
        (&json!(1), &json!(2), &json!("two"))
    );
    // A command that fails gives its record back, and one that does not acknowledges it.
    assert_eq!(nexus.run("stream take /s g -- false").status, 1);
    assert_eq!(
        (nexus.run("stream take /s g -n 0").out, nexus.run("stream take /s g -n 0").status),
        (String::new(), 0)
    );
    assert_eq!(nexus.good("stream take /s g -- cat"), "three");
    let none = nexus.run("stream take /s g --wait 10ms");
    assert_eq!((none.status, &*none.out, &*none.err), (1, "", ""));
    let group: Value = serde_json::from_str(&nexus.good("--json stream groups /s g")).unwrap();
    assert_eq!((&group["info"]["lag"], &group["info"]["finished"]), (&json!(0), &json!(3)));
    nexus.good("stream rmgroup /s g");
    assert_eq!(nexus.good("stream groups /s"), "");
    assert!(nexus.run("stream take /s .g").err.ends_with("(EINVAL)\n"));
    assert!(nexus.run("stream ack /s g 0").err.ends_with("(ENOENT)\n"));
}

#[test]
fn what_fails_is_tried_once_in_a_call_and_is_there_for_the_next() {
    let nexus = Nexus::new();
    nexus.good("stream make /s");
    for record in ["a", "b", "c"] {
        nexus.good(&format!("stream append /s {record}"));
    }
    let fails = "cat; [ $NEXUS_RECORD_OFFSET = 1 ]";
    let ran = nexus.run_args(["stream", "take", "/s", "g", "-n", "100", "--", "sh", "-c", fails]);
    assert_eq!((ran.status, &*ran.out), (1, "abc"), "{ran:?}");
    assert_eq!(nexus.good("stream groups /s g"), "waiting 0 1\nwaiting 2 1\n");
    let ran = nexus.run_args(["stream", "take", "/s", "g", "-n", "100", "--", "cat"]);
    assert_eq!((ran.status, &*ran.out), (0, "ac"), "{ran:?}");
}

#[test]
fn a_take_that_makes_no_sense_makes_no_group() {
    let nexus = Nexus::new();
    nexus.good("stream make /s");
    for wrong in ["--hold 2days", "--hold 0s", "--deadline 2days", "--deliveries 0", "--from 7"] {
        for command in ["", " -- true"] {
            let refused = nexus.run(&format!("stream take /s g {wrong}{command}"));
            assert_eq!((refused.status, &*refused.out), (1, ""), "{wrong}: {refused:?}");
            assert!(refused.err.ends_with("(EINVAL)\n"), "{wrong}: {refused:?}");
            assert_eq!(nexus.good("stream groups /s"), "", "{wrong}");
        }
    }
}
