//! Children that are killed, that leave others behind, and whose kernel or actor dies.

use std::time::Duration;

use nexus::actors::{Inject, Moment};
use nexus::{ChildExit, ChildSpec, ChildState, Errno, ErrorKind, Executed, Kill, SysWrite};

use crate::bench::{
    LONG, in_memory, is_known, next, numbers, path, records, refused, rest, runs, script, until,
};

#[test]
fn all_that_a_killed_child_said_is_read_and_then_the_end() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let text = "seq 30000\nprintf torn\nkill -9 $$\n";
    let spec = script(folder.path(), text).stdin(path("/c/in")).stdout(path("/c/out"));
    let child = nx.spawn(spec).expect("it starts");
    // Read before the end as well as after it: the pipe is smaller than what it says.
    let mut expected = numbers(1..=30_000);
    expected.push("torn".into());
    assert!(rest(&nx, "/c/out") == expected);
    assert_eq!(child.exited().unwrap(), ChildExit::Signal(9));
    assert_eq!(child.wait().unwrap(), ChildExit::Signal(9));
    refused(nx.send(SysWrite::at(path("/c/in"), "x")), Errno::EPIPE);
    assert_eq!(next(&nx, "/c/out"), "", "and the end again");
    until(&nx, "no zombie is left", || !is_known(child.pid()));
}

#[test]
fn who_waits_to_write_to_a_child_hears_of_its_death() {
    let nx = in_memory();
    let child = nx.spawn(ChildSpec::new("sleep", ["1000"]).stdin(path("/i"))).expect("it starts");
    std::thread::scope(|scope| {
        let writer = nx.pipe_writer("/i").unwrap();
        let writes = scope.spawn(move || {
            loop {
                if let Err(error) = writer.write(vec![b'x'; 10_000], Some(LONG)) {
                    return error;
                }
            }
        });
        let is_full = || {
            let pipes: Vec<nexus_kernel::pipes::PipeEntry> =
                serde_json::from_slice(&nx.read("/__sys__/pipes/.all").unwrap()).expect("it is JSON");
            pipes[0].writers_waiting == 1
        };
        until(&nx, "the pipe is full", is_full);
        child.kill(nexus::ChildSignal::Kill).unwrap();
        assert_eq!(writes.join().unwrap().errno(), Errno::EPIPE);
    });
}

#[test]
fn what_a_child_said_last_waits_for_who_reads_it() {
    let nx = in_memory();
    let child = nx.spawn(ChildSpec::new("seq", ["5000"]).stdout(path("/o"))).expect("it starts");
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
    assert!(!is_known(child.pid()), "a child that is done is forgotten by the host");
    assert!(rest(&nx, "/o") == numbers(1..=5_000));
}

#[test]
fn who_holds_the_output_of_a_child_after_its_end_is_killed_after_the_grace() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let text = "sleep 1000 &\necho $!\n";
    let spec = script(folder.path(), text).stdout(path("/o")).grace(Duration::from_millis(100));
    let child = nx.spawn(spec).expect("it starts");
    let left: u32 = std::str::from_utf8(&next(&nx, "/o")).unwrap().parse().unwrap();
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
    assert_eq!(next(&nx, "/o"), "", "the end comes");
    until(&nx, "what it left behind is gone", || !runs(left));
    let trouble = child.status().unwrap().trouble.unwrap_or_default();
    assert!(trouble.contains("held its output open"), "{trouble}");
}

#[test]
fn who_left_the_group_of_a_child_does_not_hold_up_its_end() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    // The one that went away says something within the grace, and is there when it is over.
    let there = folder.path().join("there");
    let text = "setsid sh -c 'echo also; : > $THERE; exec sleep 20' &\nwhile [ ! -e $THERE ]; do sleep 0.01; done\necho said\n";
    let spec = script(folder.path(), text)
        .env("THERE", there.to_str().unwrap())
        .stdout(path("/o"))
        .grace(Duration::from_millis(500));
    let child = nx.spawn(spec).expect("it starts");
    let begun = nx.env().now();
    let mut lines = rest(&nx, "/o");
    lines.sort();
    assert_eq!(lines, ["also", "said"]);
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
    assert!(nx.env().now() - begun < Duration::from_secs(15), "the end did not wait for it");
}

#[test]
fn what_a_child_said_is_read_also_when_others_held_its_output_for_longer_than_the_grace() {
    let nx = in_memory();
    nx.make_pipe("/o", 1_000).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Less than the descriptor of the host holds, and much more than the pipe.
    let text = "setsid sleep 20 &\nseq 10000\n";
    let spec = script(folder.path(), text).stdout(path("/o")).grace(Duration::from_millis(50));
    let child = nx.spawn(spec).expect("it starts");
    let is_over =
        || child.status().unwrap().trouble.is_some_and(|told| told.contains("held its output open"));
    until(&nx, "the grace is over", is_over);
    until(&nx, "nobody remembers the child but us", || !is_known(child.pid()));
    let reader = nx.pipe_reader("/o").unwrap();
    for line in numbers(1..=10_000) {
        assert_eq!(reader.read(Some(LONG)).unwrap(), Some(line));
    }
    assert_eq!(reader.read(Some(LONG)).unwrap(), None);
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
}

#[test]
fn nobody_is_said_to_hold_an_output_that_waits_for_its_reader() {
    let nx = in_memory();
    nx.make_pipe("/o", 1_000).unwrap();
    // Less than the descriptor of the host holds, and much more than the pipe.
    // What another test starts holds it, too, until it is another program: for as long as the machine takes.
    let spec = ChildSpec::new("seq", ["10000"]).stdout(path("/o")).grace(Duration::from_secs(5));
    let child = nx.spawn(spec).expect("it starts");
    until(&nx, "nobody is waited for any more", || !is_known(child.pid()));
    assert_eq!(child.status().unwrap().trouble, None);
    let reader = nx.pipe_reader("/o").unwrap();
    for line in numbers(1..=10_000) {
        assert_eq!(reader.read(Some(LONG)).unwrap(), Some(line));
    }
    assert_eq!(reader.read(Some(LONG)).unwrap(), None);
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
    assert_eq!(child.status().unwrap().trouble, None);
}

#[test]
fn a_child_that_has_ended_runs_no_more_though_nobody_reads_what_it_said() {
    let nx = in_memory();
    nx.make_pipe("/o", 1_000).unwrap();
    let child = nx.spawn(ChildSpec::new("seq", ["10000"]).stdout(path("/o"))).expect("it starts");
    assert_eq!(child.exited().unwrap(), ChildExit::Code(0), "it is told at once");
    assert_eq!(child.status().unwrap().state, ChildState::Ended(ChildExit::Code(0)));
    let counted = || -> serde_json::Value {
        serde_json::from_slice(&nx.read("/__sys__/children/statistics").unwrap()).expect("it is JSON")
    };
    let told = counted();
    assert_eq!((&told["running"], &told["ended"], &told["started"]), (&0.into(), &1.into(), &1.into()));
    assert_eq!(rest(&nx, "/o"), numbers(1..=10_000), "what it said is there to be read");
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
    until(&nx, "it is done", || counted()["ended"] == 0);
    assert!(nx.children().unwrap()[0].state.is_done());
}

#[test]
fn a_flood_of_who_holds_the_output_ends_with_the_grace() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there");
    let text = "setsid sh -c 'echo flood; : > $THERE; exec yes flood' &\nwhile [ ! -e $THERE ]; do sleep 0.01; done\n";
    let spec = script(folder.path(), text)
        .env("THERE", there.to_str().unwrap())
        .stdout(path("/o"))
        .grace(Duration::from_millis(100));
    let child = nx.spawn(spec).expect("it starts");
    assert!(!rest(&nx, "/o").is_empty(), "there is a flood, and an end of it");
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
}

#[test]
fn the_end_of_the_kernel_is_that_of_its_children() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    // One that ends when it is asked, one that does not, one that is halted, and one that leaves another behind.
    let deaf = "trap '' TERM HUP\necho deaf\nwhile :; do sleep 1000; done\n";
    let children = [
        ChildSpec::new("cat", ["-"]).stdin(path("/c/in")),
        script(folder.path(), deaf).stdout(path("/deaf")),
        script(folder.path(), "echo halted\nkill -STOP $$\n").stdout(path("/halted")),
        script(folder.path(), "sleep 1000 &\necho $!\nwait\n").stdout(path("/left")),
    ]
    .map(|spec| nx.spawn(spec).expect("it starts"));
    assert_eq!((next(&nx, "/deaf"), next(&nx, "/halted")), ("deaf".into(), "halted".into()));
    let left: u32 = std::str::from_utf8(&next(&nx, "/left")).unwrap().parse().unwrap();
    nx.shutdown().unwrap();
    for child in &children {
        assert!(!is_known(child.pid()), "{child:?} is neither running nor a zombie");
    }
    let env = nexus::Env::host(nexus::HostConfig::default()).unwrap();
    // Its death was ordered; whoever is its parent by now hears of it.
    env.blocking_wait(env.timeout(LONG, async {
        while runs(left) {
            env.sleep(Duration::from_millis(1)).await;
        }
    }))
    .expect("what it left behind is gone");
    env.stop();
}

#[test]
fn the_drop_of_the_last_handle_ends_children_too() {
    let nx = in_memory();
    let child = nx.spawn(ChildSpec::new("sleep", ["1000"])).expect("it starts");
    let pid = child.pid();
    drop((child, nx));
    let env = nexus::Env::host(nexus::HostConfig::default()).unwrap();
    let gone = env.timeout(LONG, async {
        while is_known(pid) {
            env.sleep(Duration::from_millis(1)).await;
        }
    });
    env.blocking_wait(gone).expect("the child is gone");
    env.stop();
}

/// The process runs by then, and nobody has heard of it.
#[test]
fn a_start_that_its_actor_dies_of_leaves_nothing_running_and_nothing_made() {
    for moment in [Moment::Before, Moment::After] {
        let nx = in_memory();
        assert!(nx.kill("nexus/kernel/children", Kill::Handling(Inject::Panic, moment)).unwrap());
        let error = nx.spawn(ChildSpec::new("sleep", ["1000"]).stdout(path("/o"))).unwrap_err();
        assert_eq!((error.kind(), error.executed()), (ErrorKind::Crashed, Executed::Unknown), "{error}");
        assert!(!nx.exists("/o").unwrap(), "{moment:?}");
        until(&nx, "nothing runs", || nx.children().unwrap().iter().all(|child| child.state.is_done()));
        assert!(nx.children().unwrap().iter().all(|child| !is_known(child.pid)), "{moment:?}");
        assert!(nx.spawn(ChildSpec::new("true", [""; 0])).unwrap().wait().unwrap().is_success());
    }
}

#[test]
fn the_death_of_the_actor_under_load_loses_nothing() {
    let nx = in_memory();
    let spec = ChildSpec::new("seq", ["200000"]).stdout(path("/o")).stderr_stream(path("/e"));
    let echo = ChildSpec::new("cat", ["-"]).stdin(path("/c/in")).stdout(path("/c/out"));
    let (child, cat) = (nx.spawn(spec).expect("it starts"), nx.spawn(echo).expect("it starts"));
    std::thread::scope(|scope| {
        let (nx, reads) = (&nx, nx.pipe_reader("/o").unwrap());
        let reading = scope.spawn(move || {
            let mut lines = Vec::new();
            while let Some(line) = reads.read(Some(LONG)).expect("it goes on") {
                lines.push(line);
            }
            lines
        });
        let writes = nx.pipe_writer("/c/in").unwrap();
        scope.spawn(move || {
            for line in numbers(1..=20_000) {
                writes.write(line, Some(LONG)).expect("it goes on");
            }
        });
        let echoed = scope.spawn(|| rest(nx, "/c/out"));
        let mut started = Vec::new();
        let mut kills = 0;
        while kills < 8 {
            if nx.kill("nexus/kernel/children", Kill::Panic).unwrap() {
                kills += 1;
            }
            // Begun while it dies, it is started, or not at all.
            if let Ok(child) = nx.spawn(ChildSpec::new("sleep", ["1000"])) {
                started.push(child.id());
            }
            let restarted = || {
                let tree = nx.tree().unwrap();
                let kernel = tree.children.iter().find(|child| &*child.id == "kernel");
                kernel.is_some_and(|kernel| {
                    kernel
                        .children
                        .iter()
                        .any(|child| &*child.id == "children" && child.state == nexus::ActorState::Running)
                })
            };
            until(nx, "the actor is back", restarted);
        }
        assert!(reading.join().unwrap() == numbers(1..=200_000));
        assert!(echoed.join().unwrap() == numbers(1..=20_000));
        let running = || {
            let all = nx.children().unwrap();
            all.iter()
                .filter(|child| child.state == ChildState::Running)
                .map(|child| child.id)
                .collect::<Vec<_>>()
        };
        until(nx, "those run whose start was told, and no others", || running() == started);
    });
    assert!(child.wait().unwrap().is_success() && cat.wait().unwrap().is_success());
    assert!(records(&nx, "/e").is_empty());
}
