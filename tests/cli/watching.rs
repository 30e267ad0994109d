//! Watching a kernel, and hurting it: `ps`, `top`, `kill`, and `/__sys__/` as any other folder.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::fixture::Nexus;

/// Another process that owns the data folder; ended with it.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(nexus: &Nexus) -> Self {
        let mut serve = nexus.command(["serve"]).stdout(Stdio::piped()).spawn().expect("the command starts");
        let mut line = String::new();
        let out = serve.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says that it serves");
        assert!(line.starts_with("serving "), "{line}");
        Self(serve)
    }

    /// Waits for its end, which somebody has seen to; its exit status.
    pub(crate) fn ended(mut self) -> Option<i32> {
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first lines that a command prints, after which nobody reads on.
fn first_lines(mut command: Command, count: usize) -> Vec<String> {
    let mut running =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let out = BufReader::new(running.stdout.take().expect("it is piped"));
    let lines = out.lines().take(count).map(|line| line.expect("it is text")).collect();
    let mut told = String::new();
    running.stderr.take().expect("it is piped").read_to_string(&mut told).expect("it is text");
    let status = running.wait().expect("it ends");
    assert_eq!((status.code(), &*told), (Some(0), ""));
    lines
}

#[test]
fn a_watched_tree_is_printed_again_and_again_until_nobody_reads() {
    let nexus = Nexus::new();
    let up: Vec<u64> = first_lines(nexus.command(["ps", "--watch", "--json"]), 3)
        .iter()
        .map(|line| {
            let tree: Value = serde_json::from_str(line).expect("each line is the tree");
            assert_eq!(tree["path"], "nexus");
            tree["up_ms"].as_u64().expect("it is up")
        })
        .collect();
    assert!(up.is_sorted() && up[2] >= up[0] + 2_000, "one each second: {up:?}");

    let once = nexus.good("ps").lines().count();
    let text = first_lines(nexus.command(["ps", "--watch"]), 2 * once + 1);
    assert!(text[0].trim_start().starts_with("STATE") && text[once].is_empty(), "{text:#?}");
    assert_eq!(text[once + 1], text[0]);
    assert!(text.iter().all(|line| !line.contains('\u{1b}')), "a pipe is no screen: {text:#?}");
}

#[test]
fn top_gives_one_look_to_what_is_no_terminal() {
    let nexus = Nexus::new();
    nexus.feed("write /a", "x");
    let text = nexus.good("top");
    for part in ["router", "LAST EXIT", "MEAN", "read", "cas-local  read-write  serving"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let look: Value = serde_json::from_str(&nexus.good("top --json")).expect("it is one object");
    assert_eq!(look["actors"]["path"], "nexus");
    assert!(look["syscalls"].as_array().is_some_and(|ops| ops.iter().any(|op| op["op"] == "read")));
    assert_eq!(look["mounts"][0]["point"], "/");
}

#[test]
fn a_killed_actor_is_back_and_its_end_is_told() {
    let nexus = Nexus::new();
    let check = |line: &str, exit: &str| {
        let told = nexus.good(line);
        assert!(told.contains(exit) && told.contains("running again as generation 2"), "{line}: {told}");
    };
    check("kill nexus/kernel/router", "nexus/kernel/router: panicked: ");
    check("kill --how error nexus/store/committer", "nexus/store/committer: error: ");
    check("kill --how brutal /nexus/kernel/", "nexus/kernel: killed");
    let missing = nexus.run("kill nexus/kernel/nobody");
    assert_eq!(missing.status, 1);
    assert!(missing.err.starts_with("nexus: kill /__sys__/actors/nexus/kernel/nobody: "), "{}", missing.err);
    assert!(missing.err.ends_with("(ENOENT)\n"), "{}", missing.err);
}

#[test]
fn the_same_commands_see_and_hurt_the_kernel_of_another_process() {
    let nexus = Nexus::new();
    let server = Server::start(&nexus);
    let generation = |actor: &str| {
        let entry = nexus.good(&format!("cat /__sys__/actors/{actor}"));
        let entry: Value = serde_json::from_str(&entry).expect("it describes an actor");
        entry["generation"].as_u64().expect("it has one")
    };
    assert_eq!(generation("nexus/kernel/router"), 1);
    nexus.good("kill nexus/kernel/router");
    assert_eq!(generation("nexus/kernel/router"), 2);
    assert_eq!(nexus.feed("write /__sys__/actors/nexus/kernel/locks", "error\n").status, 0);
    let tree = nexus.good("ps");
    let router = tree.lines().find(|line| line.contains("router")).expect("it is in the tree");
    assert!(router.contains("panicked: "), "{router}");
    assert!(nexus.good("top").contains("panicked: "));
    assert!(nexus.good("mounts").contains("cas-local  read-write  serving"));
    // What the other commands asked of that kernel was counted there.
    let text = nexus.good("cat /__sys__/metrics");
    assert!(text.contains("nexus_actor_restarts_total{actor=\"nexus/kernel/router\"} 1\n"), "{text}");
    drop(server);
}

#[test]
fn the_kernel_is_a_folder_to_look_around_in() {
    let nexus = Nexus::new();
    let top = nexus.good("ls /__sys__");
    for name in ["actors", "config", "hooks", "locks", "metrics", "mounts", "services", "store", "version"] {
        assert!(top.lines().any(|line| line == name), "no {name} in\n{top}");
    }
    assert!(nexus.good("ls -R /__sys__/actors").contains("/__sys__/actors/nexus/kernel/router\n"));
    assert!(nexus.good("grep -l router /__sys__/actors/nexus/kernel").ends_with("kernel/router\n"));
    assert_eq!(nexus.good("ls /"), "");
    let refused = nexus.feed("write /__sys__/version", "2");
    assert_eq!(refused.status, 1);
    assert!(refused.err.ends_with("(EROFS)\n"), "{}", refused.err);
    nexus.good("export / out");
    assert!(!nexus.host("out/__sys__").exists());
}

#[test]
fn each_syscall_is_told_to_who_asks_for_it() {
    let nexus = Nexus::new();
    let mut stat = nexus.command(["stat", "/nothing"]);
    let told = stat.env("NEXUS_LOG", "nexus_kernel::syscall=debug").output().expect("it runs");
    let told = String::from_utf8_lossy(&told.stderr);
    let line = told.lines().find(|line| line.contains("op=\"stat\"")).unwrap_or_else(|| panic!("{told}"));
    for part in ["path=\"/nothing\"", "agent=\"nexus\"", "zone=\"root\"", "outcome=\"ENOENT\"", "time.busy="]
    {
        assert!(line.contains(part), "no {part} in {line}");
    }
}
