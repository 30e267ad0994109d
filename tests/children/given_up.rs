//! Starts that are given up before they are done: nothing is started, and nothing is left.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use nexus::{ChildHandle, ChildSpec, ChildState, Error, IoProfile, PipeSpec, SysRead, SysWrite, blocking};

use crate::bench::{in_memory, is_known, next, path, records, script, until};

type Start<'a> = Pin<&'a mut dyn Future<Output = Result<ChildHandle, Error>>>;

/// With a path for each of its inputs and outputs.
fn connected(spec: ChildSpec) -> ChildSpec {
    spec.stdin(path("/c/in"))
        .stdout(path("/c/out"))
        .stdout_stream(path("/c/log"))
        .stderr_stream(path("/c/err"))
}

/// Takes `start` as many steps far, each when there is something to be done; what it came to, if it came to its end.
fn steps(nx: &blocking::Nexus, mut start: Start<'_>, mut steps: usize) -> Option<Result<ChildHandle, Error>> {
    let stepped = poll_fn(|cx| {
        if steps == 0 {
            return Poll::Ready(None);
        }
        steps -= 1;
        start.as_mut().poll(cx).map(Some)
    });
    nx.env().blocking_wait(stepped)
}

/// Takes `start` on until something is at this path, and no further.
fn on_until_made(nx: &blocking::Nexus, mut start: Start<'_>, at: &str) {
    let mut cx = Context::from_waker(Waker::noop());
    until(nx, at, || {
        assert!(start.as_mut().poll(&mut cx).is_pending(), "it stops before its end");
        nx.exists(at).expect("it can be looked at")
    });
}

fn nothing_runs(nx: &blocking::Nexus) {
    let ended = || nx.children().expect("it is told").iter().all(|child| child.state.is_done());
    until(nx, "all have ended", ended);
    for child in nx.children().expect("it is told") {
        assert!(!is_known(child.pid), "{child:?}");
    }
}

#[test]
fn a_start_that_is_given_up_anywhere_leaves_nothing() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    // What it says last is waited for before it is killed.
    let spec = || connected(script(folder.path(), "echo wrong >&2\necho said\nexec sleep 1000\n"));
    for far in 0.. {
        {
            let mut start = pin!(nx.as_async().spawn(spec()));
            if let Some(started) = steps(&nx, start.as_mut(), far) {
                // The one that was waited for is there, and says what it says.
                let child = started.expect("it starts");
                assert_eq!(next(&nx, "/c/out"), "said");
                nx.env().blocking_wait(child.kill(nexus::ChildSignal::Kill)).unwrap();
                nx.env().blocking_wait(child.wait()).unwrap();
                assert_eq!(
                    (records(&nx, "/c/log"), records(&nx, "/c/err")),
                    (vec!["said".into()], vec!["wrong".into()])
                );
                assert!(far > 3, "it was given up on its way: {far}");
                return;
            }
        }
        until(&nx, "what was made is gone", || !nx.exists("/c").unwrap());
        nothing_runs(&nx);
    }
}

#[test]
fn a_start_that_is_given_up_at_any_time_leaves_nothing() {
    let nx = in_memory();
    for round in 0..200 {
        {
            let mut start = pin!(nx.as_async().spawn(connected(ChildSpec::new("seq", ["5"]))));
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..8 {
                if let Poll::Ready(started) = start.as_mut().poll(&mut cx) {
                    // It was quicker. What it says comes to a new stream when its own is taken away, so it ends first.
                    nx.env().blocking_wait(started.expect("it starts").wait()).unwrap();
                    for at in ["/c/in", "/c/out", "/c/log", "/c/err"] {
                        nx.unlink(at).unwrap();
                    }
                    break;
                }
                (0..round * 200).for_each(|_| std::hint::spin_loop());
            }
        }
        until(&nx, "what was made is gone", || !nx.exists("/c").unwrap());
    }
    nothing_runs(&nx);
}

#[test]
fn what_was_there_before_a_start_that_is_given_up_is_as_it_was() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let spec = || connected(script(folder.path(), "echo said\nexec cat\n"));
    for at in ["/c/in", "/c/out"] {
        nx.make_pipe_with(at, PipeSpec::new(1_000).io_profile(IoProfile::Stdio)).unwrap();
    }
    nx.make_stream("/c/log", nexus::StreamSpec::new()).unwrap();
    for far in 0.. {
        {
            let mut start = pin!(nx.as_async().spawn(spec()));
            let mut started = steps(&nx, start.as_mut(), far);
            // For the child that will be.
            let written = nx.send(SysWrite::at(path("/c/in"), "first"));
            if started.is_none() && written.is_ok() {
                started = steps(&nx, start.as_mut(), usize::MAX);
            }
            if let Some(started) = started {
                let child = started.expect("it starts");
                assert_eq!((next(&nx, "/c/out"), next(&nx, "/c/out")), ("said".into(), "first".into()));
                nx.env().blocking_wait(child.kill(nexus::ChildSignal::Kill)).unwrap();
                break;
            }
        }
        until(&nx, "what was made is gone", || !nx.exists("/c/err").unwrap());
        nothing_runs(&nx);
        assert_eq!(next(&nx, "/c/out"), "", "nothing was said");
        assert!(nx.exists("/c/in").unwrap() && records(&nx, "/c/log").is_empty());
    }
}

#[test]
fn a_message_that_is_there_is_not_for_a_child_that_is_given_up() {
    let nx = in_memory();
    nx.make_pipe("/in", 1_000).unwrap();
    nx.send(SysWrite::at(path("/in"), "kept")).unwrap();
    for far in 0.. {
        let mut start =
            pin!(nx.as_async().spawn(ChildSpec::new("cat", ["-"]).stdin(path("/in")).stdout(path("/out"))));
        if steps(&nx, start.as_mut(), far).is_some() {
            break;
        }
    }
    assert_eq!(next(&nx, "/out"), "kept", "it is for the one that lives");
}

#[test]
fn what_others_have_used_of_a_start_that_is_given_up_stays() {
    let nx = in_memory();
    {
        let mut start = pin!(nx.as_async().spawn(connected(ChildSpec::new("cat", ["-"]))));
        on_until_made(&nx, start.as_mut(), "/c/out");
        let append = SysWrite::at(path("/c/log"), "mine").append();
        nx.send(append).expect("it is a stream");
        nx.send(SysWrite::at(path("/c/in"), "for the next")).expect("it has a reader");
    }
    until(&nx, "what nobody used is gone", || !nx.exists("/c/out").unwrap());
    nothing_runs(&nx);
    assert_eq!(records(&nx, "/c/log"), ["mine"]);
    let child = nx.spawn(ChildSpec::new("cat", ["-"]).stdin(path("/c/in")).stdout(path("/c/new"))).unwrap();
    assert_eq!(next(&nx, "/c/new"), "for the next");
    child.kill(nexus::ChildSignal::Kill).unwrap();
    // An end that somebody has opened, and what was changed of an entry, counts as well.
    let (reader, changed) = {
        let mut start = pin!(
            nx.as_async().spawn(ChildSpec::new("cat", ["-"]).stdin(path("/d/in")).stdout(path("/d/out")))
        );
        on_until_made(&nx, start.as_mut(), "/d/out");
        let changed = nx.send(nexus::SysSetattr::at(path("/d/in")).mode(0o600));
        (nx.pipe_reader("/d/out").unwrap(), changed)
    };
    changed.expect("it can be changed");
    nothing_runs(&nx);
    // Another start takes its turn behind what the one that was given up takes back.
    let same = ChildSpec::new("true", [""; 0]).stdin(path("/d/in")).stdout(path("/d/out"));
    nx.spawn(same).unwrap().wait().unwrap();
    assert_eq!(nx.stat("/d/in").unwrap().mode & 0o777, 0o600);
    assert_eq!(reader.read(None).expect("its pipe is there"), None);
}

#[test]
fn who_begins_where_another_one_gives_up_has_its_paths() {
    let nx = in_memory();
    let cat = || connected(ChildSpec::new("cat", ["-"]));
    for round in 0..30 {
        let child = {
            let mut start = pin!(nx.as_async().spawn(cat()));
            on_until_made(&nx, start.as_mut(), "/c/out");
            // Beside the one that is given up, or after it.
            (round % 2 == 0).then(|| nx.spawn(cat()).expect("it starts"))
        };
        let child = child.unwrap_or_else(|| nx.spawn(cat()).expect("it starts"));
        nx.send(SysWrite::at(path("/c/in"), "hello")).expect("it reads");
        assert_eq!(next(&nx, "/c/out"), "hello");
        assert_eq!(child.status().unwrap().state, ChildState::Running);
        child.kill(nexus::ChildSignal::Kill).unwrap();
        child.wait().unwrap();
        assert_eq!(records(&nx, "/c/log"), ["hello"]);
        for at in ["/c/in", "/c/out", "/c/log", "/c/err"] {
            nx.unlink(at).expect("it is there");
        }
    }
}

#[test]
fn of_many_starts_at_the_same_paths_that_are_given_up_nothing_is_left() {
    let nx = in_memory();
    for _ in 0..20 {
        {
            let mut first = pin!(nx.as_async().spawn(connected(ChildSpec::new("cat", ["-"]))));
            on_until_made(&nx, first.as_mut(), "/c/log");
            let mut second = pin!(nx.as_async().spawn(connected(ChildSpec::new("cat", ["-"]))));
            on_until_made(&nx, second.as_mut(), "/c/out");
        }
        until(&nx, "what was made is gone", || !nx.exists("/c").unwrap());
    }
    nothing_runs(&nx);
    assert!(nx.send(SysRead::at(path("/c/out"))).is_err());
}
