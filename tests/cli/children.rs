//! `run` and `children`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::{Config, HookContext, Op, Serving, Verdict, blocking};

use crate::fixture::Nexus;
use crate::halted::until_halted;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);

/// A command that runs, and not for longer than its test.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.wait();
    }

    /// Sends a signal; says whether it was there to have it.
    fn signal(&self, signal: &str) -> bool {
        let mut kill = std::process::Command::new("kill");
        kill.arg(format!("-{signal}")).arg(self.0.id().to_string()).stderr(Stdio::null());
        kill.status().expect("kill is there").success()
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_some()
    }

    fn wait(&mut self) -> ExitStatus {
        self.0.wait().expect("it ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until it is so.
#[expect(clippy::disallowed_methods, reason = "this process has no kernel whose clock could be asked")]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::yield_now();
    }
}

/// The children, as they are listed; none while nobody serves.
fn listed(nexus: &Nexus) -> Vec<serde_json::Value> {
    let listed = nexus.run("--json children");
    listed.out.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

/// Serves the folder.
fn serve(nexus: &Nexus) -> Running {
    let mut serving = nexus.command(["serve"]);
    let mut serving = Running(serving.stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut line = String::new();
    BufReader::new(serving.0.stdout.take().expect("it is piped")).read_line(&mut line).expect("it serves");
    serving
}

#[test]
fn a_command_is_run_whose_output_is_a_stream() {
    let nexus = Nexus::new();
    let ended = nexus.run("run --tee /log --err /err -- sh -c nothing-7");
    assert_eq!(ended.status, 127, "{ended:?}");
    assert!(nexus.good("stream read /err").contains("nothing-7"));
    let ended = nexus.run("--json run --tee /log -- seq 3");
    assert_eq!((ended.status, &*ended.err), (0, ""));
    let told: serde_json::Value = serde_json::from_str(&ended.out).expect("it is JSON");
    assert_eq!(
        (&told["program"], &told["bytes_out"], &told["state"]["done"]["Code"]),
        (&"seq".into(), &6.into(), &0.into())
    );
    assert_eq!(nexus.good("stream read /log"), "1\n2\n3\n");
    // As shells tell the signal that ended it.
    std::fs::write(nexus.host("die.sh"), "kill -9 $$\n").expect("there is room");
    assert_eq!(nexus.run("run -- sh die.sh").status, 128 + 9, "it works where the command does");
    let missing = nexus.run("run --out /o -- no-such-program-7");
    assert_eq!(missing.status, 1);
    assert!(missing.err.starts_with("nexus: spawn no-such-program-7: "), "{}", missing.err);
    assert_eq!(nexus.run("stat /o").status, 1, "nothing was made");
}

#[test]
fn a_command_is_talked_to_through_its_paths_and_goes_with_the_one_that_runs_it() {
    let nexus = Nexus::new();
    let mut serving = serve(&nexus);
    let mut run = nexus.command(["run", "--in", "/t/in", "--out", "/t/out", "--", "cat"]);
    let mut run = Running(run.stdin(Stdio::null()).spawn().expect("it starts"));
    let written = || nexus.run("pipe write /t/in hello").status == 0;
    until("the child is there", written);
    assert_eq!(nexus.good("pipe read /t/out --wait 60s"), "hello\n");
    let listed = nexus.good("--json children");
    let child: serde_json::Value = serde_json::from_str(listed.trim()).expect("one child");
    let (id, pid) = (child["id"].to_string(), child["pid"].to_string());
    let shown = nexus.good(&format!("children {id}"));
    assert_eq!(shown, format!("{id}\t{pid}\trunning\t5\t6\t0\tcat\n"));
    // Its attachment ends, and with that the child.
    run.kill();
    let is_there = || Path::new(&format!("/proc/{pid}")).exists();
    until("the child is gone", || !is_there());
    let ended = nexus.good(&format!("children {id}"));
    assert!(ended.contains("ended with signal 9"), "{ended}");
    let late = nexus.run(&format!("children {id} --signal TERM"));
    assert!(late.status == 1 && late.err.contains("ended"), "{late:?}");
    assert_eq!(nexus.good("pipe read /t/out"), "", "its output is at its end");

    // And with the kernel, however that ends: this one does not read, and so does not see that nobody writes any more.
    let mut run = nexus.command(["run", "--in", "/t/in", "--", "sleep", "1000"]);
    let mut run = Running(run.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    until("the child is there", || {
        nexus.good("--json children").lines().any(|line| line.contains("\"running\""))
    });
    let listed = nexus.good("--json children");
    let child: serde_json::Value =
        serde_json::from_str(listed.lines().last().expect("one")).expect("it is JSON");
    let pid = child["pid"].to_string();
    serving.kill();
    until("the child is gone", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
    });
    assert_eq!(run.wait().code(), Some(3), "what became of it is not known");
}

#[test]
fn a_command_without_a_server_serves_its_paths_itself() {
    let nexus = Nexus::new();
    let mut run = nexus.command(["run", "--in", "/t/in", "--out", "/t/out", "--", "head", "-n", "1"]);
    let mut run = Running(run.spawn().expect("it starts"));
    // Who looks before would have the folder itself.
    until("the folder is served", || nexus.data().join("nexus.sock").exists());
    until("the child is there", || nexus.run("pipe write /t/in hello").status == 0);
    assert_eq!(nexus.good("pipe read /t/out --wait 60s"), "hello\n", "what is not read yet keeps it");
    assert_eq!(run.wait().code(), Some(0));
}

#[test]
fn signals_are_handed_on_to_the_command() {
    let check = |signal: &str, text: &str, status: i32, says: &str| {
        let nexus = Nexus::new();
        std::fs::write(nexus.host("it.sh"), format!("{text}\n: > there\nwhile :; do sleep 1000; done\n"))
            .expect("there is room");
        let mut run = nexus.command(["run", "--tee", "/log", "--", "sh", "it.sh"]);
        let mut run = Running(run.spawn().expect("it starts"));
        until("the command runs", || nexus.host("there").exists());
        // It runs a moment before its start is told of; a signal that comes in between ends both.
        until("its start is told", || nexus.run("stat /log").status == 0);
        assert!(run.signal(signal));
        assert_eq!(run.wait().code(), Some(status), "{signal} {text}");
        assert_eq!(nexus.good("stream read /log"), says);
    };
    check("TERM", "trap 'echo bye; exit 7' TERM", 7, "bye\n");
    check("INT", "trap 'echo never mind; exit 0' INT", 0, "never mind\n");
    // As shells tell it of who does not care.
    check("HUP", "", 128 + 1, "");
}

#[test]
fn what_nobody_reads_does_not_hold_up_who_wants_the_end() {
    let nexus = Nexus::new();
    let mut run = nexus.command(["run", "--out", "/out", "--", "seq", "300000"]);
    let mut run = Running(run.stderr(Stdio::piped()).spawn().expect("it starts"));
    let has_written = |child: &serde_json::Value| child["bytes_out"].as_u64().is_some_and(|bytes| bytes > 0);
    // Not before: who lists them would have the folder.
    until("the folder is served", || nexus.data().join("nexus.sock").exists());
    until("it has said something", || listed(&nexus).iter().any(has_written));
    // Its output is larger than the pipe, and nobody will read it: first it is the command that hears of the signal, and then nobody.
    until("it ends", || {
        // It may have ended just now.
        run.signal("TERM");
        run.has_ended()
    });
    let mut told = String::new();
    let mut err = run.0.stderr.take().expect("it is piped");
    std::io::Read::read_to_string(&mut err, &mut told).expect("it can be read");
    assert_eq!(run.wait().code(), Some(128 + 15), "{told}");
    assert!(told.contains("was read by nobody"), "{told}");
}

#[test]
fn a_signal_ends_it_when_whoever_runs_the_command_does_not_answer() {
    let nexus = Nexus::new();
    let serving = serve(&nexus);
    for signal in [("INT", 2), ("TERM", 15)] {
        let mut run = nexus.command(["run", "--", "sleep", "1000"]);
        let mut run = Running(run.stderr(Stdio::piped()).spawn().expect("it starts"));
        until("the command runs", || listed(&nexus).iter().any(|child| child["state"] == "running"));
        assert!(serving.signal("STOP"));
        // Until then it may hand on what comes, and be halted before it tells of the end.
        until_halted(serving.0.id());
        assert!(run.signal(signal.0));
        until("it ends", || run.has_ended());
        assert_eq!(run.wait().code(), Some(128 + signal.1));
        assert!(serving.signal("CONT"));
        until("the command goes with it", || listed(&nexus).iter().all(|child| child["state"] != "running"));
    }
}

/// Holds up whoever makes something.
#[derive(Default)]
struct Holds(AtomicUsize);

impl Interceptor for Holds {
    fn ops(&self) -> OpSet {
        [Op::Setattr].into_iter().collect()
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_signal_ends_it_while_the_command_is_not_started() {
    let nexus = Nexus::new();
    let nx = blocking::connect(Config::new(nexus.data()).serve(Serving::administrator())).expect("it boots");
    let holds = Arc::new(Holds::default());
    nx.register_hook(Registration::interceptor("holds", holds.clone())).expect("there is room");
    for (turn, signal) in [("HUP", 1), ("INT", 2), ("QUIT", 3), ("TERM", 15)].into_iter().enumerate() {
        let mut run = nexus.command(["run", "--out", "/out", "--", "echo", "here"]);
        let mut run = Running(run.stderr(Stdio::piped()).spawn().expect("it starts"));
        until("a hook holds it", || holds.0.load(Ordering::Relaxed) > turn);
        assert!(run.signal(signal.0));
        until("it ends", || run.has_ended());
        assert_eq!(run.wait().code(), Some(128 + signal.1));
    }
    assert!(!nx.exists("/out").expect("it looks") && nx.children().expect("it is told").is_empty());
    nx.shutdown().expect("it stops");
}

#[test]
fn merged_output_is_kept_in_the_order_in_which_it_was_written() {
    let nexus = Nexus::new();
    let text = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done";
    let ran = nexus.run_args(["run", "--merge", "--tee", "/tee", "--", "sh", "-c", text]);
    assert_eq!((ran.status, &*ran.err), (0, ""), "{ran:?}");
    let said: String = (1..=9).map(|i| format!("o{i}\ne{i}\n")).collect();
    assert_eq!(nexus.good("stream read /tee"), said);
}
