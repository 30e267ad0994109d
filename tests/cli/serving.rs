//! `serve`, and the commands that attach to it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::fixture::{Ended, Nexus, end};
use crate::host::{assert_same, tree};

/// `serve`, running.
pub(crate) struct Serving {
    child: Child,
    said: String,
    /// Open for as long as it runs: it may say more.
    _out: BufReader<ChildStdout>,
}

impl Serving {
    pub(crate) fn start(nexus: &Nexus, args: &[&str]) -> Self {
        let mut command = nexus.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut said = String::new();
        out.read_line(&mut said).expect("it can be read");
        Self { child, said, _out: out }
    }

    /// Whether it said that it serves.
    pub(crate) fn is_there(&self) -> bool {
        self.said.starts_with("serving ")
    }

    /// Waits for its end, which comes by itself; its exit status.
    pub(crate) fn ended(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// Sends it a signal and waits for its end: its status, and what it told.
    pub(crate) fn signal(mut self, signal: &str) -> (Option<i32>, String) {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}")).arg(self.child.id().to_string());
        assert!(kill.status().expect("kill is there").success());
        let status = self.child.wait().expect("it ends");
        let mut told = String::new();
        let mut err = self.child.stderr.take().expect("it is piped");
        std::io::Read::read_to_string(&mut err, &mut told).expect("it can be read");
        (status.code(), told)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_command_attaches_to_a_folder_that_is_served() {
    let nexus = Nexus::new();
    let serving = Serving::start(&nexus, &["serve"]);
    let socket = nexus.data().join("nexus.sock");
    let expected = format!(
        "serving {} to administrators at {}, process {}\n",
        nexus.data().display(),
        socket.display(),
        serving.child.id()
    );
    assert_eq!(serving.said, expected);

    let source = nexus.host("source");
    fs::create_dir(&source).expect("there is room");
    tree(&source);
    let counts = nexus.import(&source, "/in");
    assert_eq!(counts["failed"], 0);
    nexus.export("/in", &nexus.host("out"));
    assert_same(&source, &nexus.host("out"));
    assert_eq!(nexus.good("grep -c fn.bottom /in/deep").lines().count(), 1);
    nexus.feed("write /f", "one\n");
    nexus.feed("append /f", "two\n");
    assert_eq!(nexus.good("cat /f"), "one\ntwo\n");
    nexus.good("mount /m --driver memory");
    assert_eq!(nexus.good("mounts").lines().count(), 3);
    let refused = nexus.run("rm /m");
    assert_eq!(refused.err, "nexus: unlink /m: busy: a mount point, which umount detaches (EBUSY)\n");
    nexus.good("umount /m");
    assert!(nexus.good("ps").contains("router"));
    assert!(nexus.good("fsck --repair").ends_with("all is well\n"));
    let stat: Value = serde_json::from_str(&nexus.good("--json stat /f")).expect("it is JSON");
    assert_eq!((&stat["size"], &stat["owner"]), (&8.into(), &"nexus".into()));
    let shell = nexus.feed("shell", "cat /f\nls /nope\nstat --json /f\n");
    assert_eq!((shell.status, shell.out.starts_with("one\ntwo\n{")), (0, true), "{shell:?}");
    assert!(shell.err.contains("readdir /nope: no such file or directory (ENOENT)"), "{shell:?}");
    let missing = nexus.run("cat /nope");
    assert_eq!(
        (missing.status, &*missing.err),
        (1, "nexus: read /nope: no such file or directory (ENOENT)\n")
    );

    assert_eq!(serving.signal("TERM"), (Some(0), String::new()));
    assert!(!socket.exists());
    assert_eq!(nexus.good("cat /f"), "one\ntwo\n");
}

#[test]
fn the_tour_holds_on_a_folder_that_is_served() {
    let nexus = Nexus::new();
    let serving = Serving::start(&nexus, &["serve"]);
    let source = nexus.host("source");
    fs::create_dir(&source).expect("there is room");
    tree(&source);
    let ended = nexus.run_args(["--json".as_ref(), "tour".as_ref(), source.as_os_str()]);
    assert_eq!((ended.status, &*ended.err), (0, ""), "{}", ended.out);
    let steps: Vec<Value> =
        ended.out.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let named = |name: &str| steps.iter().filter(|step| step["step"] == name).collect::<Vec<_>>();
    assert!(named("boot")[0]["says"].as_str().is_some_and(|says| says.starts_with("the kernel that owns")));
    assert!(named("kill").len() >= 5, "each primitive");
    assert_eq!(named("kills")[0]["failed"], 0);
    for crash in named("kill -9") {
        assert_eq!((&crash["left"]["missing"], &crash["left"]["torn"]), (&0.into(), &0.into()));
    }
    assert_eq!(serving.signal("INT"), (Some(0), String::new()), "it was there all the time");
}

#[test]
fn a_folder_is_served_once() {
    let nexus = Nexus::new();
    let serving = Serving::start(&nexus, &["--json", "serve"]);
    let said: Value = serde_json::from_str(&serving.said).expect("it is JSON");
    assert_eq!((&said["process"], &said["agent"]), (&serving.child.id().into(), &Value::Null));
    assert_eq!(said["data"], nexus.data().display().to_string());
    let second = nexus.run("serve");
    let expected = format!(
        "nexus: connect {}: busy: the data folder is in use by process {}, which serves nexus.sock (EBUSY)\n",
        nexus.data().display(),
        serving.child.id()
    );
    assert_eq!((second.status, second.err), (1, expected));
    assert_eq!(nexus.feed("write /f", "x").status, 0);
    let inside = nexus.feed("shell", "serve\n");
    assert_eq!((inside.status, inside.err.contains("serve it from a command line")), (2, true), "{inside:?}");
}

#[test]
fn an_agent_may_be_all_that_is_granted() {
    let nexus = Nexus::new();
    let serving = Serving::start(&nexus, &["serve", "--agent", "coder-7"]);
    assert!(serving.said.contains(" to the agent coder-7 at "), "{}", serving.said);
    assert_eq!(nexus.feed("write /f", "x").status, 0);
    assert!(nexus.good("ls -l /").contains(" coder-7 "));
    let refused = |line: &str| {
        let Ended { status, err, .. } = nexus.run(line);
        assert!(status == 1 && err.ends_with("(EACCES)\n"), "{line}: {err}");
    };
    refused("mount /m --driver memory");
    refused("ps");
    refused("mounts");
    drop(serving);
    let unfit = nexus.run("serve --agent a/b");
    assert!(unfit.status == 1 && unfit.err.contains("\"a/b\" does not name an agent"), "{unfit:?}");
}

#[test]
fn commands_run_at_once_on_one_kernel() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let nexus = &nexus;
            let run = move || {
                for round in 0..4 {
                    let ended = end(nexus.command(["append", "/log"]), &format!("{n} {round}\n"));
                    assert_eq!((ended.status, &*ended.err), (0, ""));
                }
            };
            std::thread::Builder::new().spawn_scoped(scope, run).expect("it starts");
        }
    });
    assert_eq!(nexus.good("cat /log").lines().count(), 32);
}
