//! What outlives the kernel: entries, and what is in streams on disk.

use nexus::{ChildExit, ChildSpec, EntryType, Errno, IoProfile, SysWrite};

use crate::bench::{next, numbers, on_disk, path, records, refused, rest, script, until};

#[test]
fn all_that_a_child_said_is_in_its_stream_after_the_kernel_s_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let nx = on_disk(&data);
    let spec = script(folder.path(), "seq 20000 >&2\nprintf last >&2\n").stderr_stream(path("/log"));
    let child = nx.spawn(spec).expect("it starts");
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
    nx.shutdown().unwrap();
    let nx = on_disk(&data);
    let stat = nx.stat("/log").unwrap();
    assert_eq!((stat.entry_type, stat.io_profile), (EntryType::Stream, Some(IoProfile::Stdio)));
    let mut expected = numbers(1..=20_000);
    expected.push("last".into());
    assert!(records(&nx, "/log") == expected);
    // And another child goes on in it.
    let child = nx.spawn(ChildSpec::new("seq", ["3"]).stdout_stream(path("/log"))).expect("it starts");
    child.wait().unwrap();
    expected.extend(numbers(1..=3));
    assert!(records(&nx, "/log") == expected);
}

#[test]
fn what_a_child_says_when_it_is_told_to_end_is_in_its_stream() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let nx = on_disk(&data);
    let text = "trap 'echo bye; exit 3' TERM\necho hello\nn=0\nwhile :; do n=$((n+1)); echo $n; done\n";
    let spec = script(folder.path(), text).stdout_stream(path("/log")).stdout(path("/out"));
    nx.spawn(spec).expect("it starts");
    assert_eq!(next(&nx, "/out"), "hello");
    // Nobody reads the pipe any more, and the end does not wait for that.
    until(&nx, "it says something", || records(&nx, "/log").len() > 1_000);
    nx.shutdown().unwrap();
    let said = records(&on_disk(&data), "/log");
    let (first, last) = (said.first().unwrap(), said.last().unwrap());
    assert_eq!((&first[..], &last[..]), (&b"hello"[..], &b"bye"[..]));
    assert!(
        said[1..said.len() - 1] == numbers(1..=said.len() as u64 - 2),
        "none is missing, none is there twice"
    );
}

#[test]
fn a_stream_that_is_moved_away_is_followed_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let nx = on_disk(&folder.path().join("data"));
    let child = nx
        .spawn(ChildSpec::new("cat", ["-"]).stdin(path("/i")).stdout(path("/o")).stdout_stream(path("/log")))
        .expect("it starts");
    let say = |line: &str| {
        nx.send(SysWrite::at(path("/i"), line.to_owned())).unwrap();
        assert_eq!(next(&nx, "/o"), line);
    };
    say("one");
    nx.rename("/log", "/log.1").unwrap();
    say("two");
    assert_eq!((records(&nx, "/log.1"), records(&nx, "/log")), (vec!["one".into()], vec!["two".into()]));
    nx.unlink("/log").unwrap();
    say("three");
    assert_eq!(records(&nx, "/log"), ["three"]);
    // What cannot be appended is counted, and the child goes on.
    nx.unlink("/log").unwrap();
    nx.write("/log/in/the/way", "x").unwrap();
    say("four");
    nx.remove_all("/log").unwrap();
    say("five");
    assert_eq!(records(&nx, "/log"), ["five"]);
    let entry = child.status().unwrap();
    assert_eq!(entry.records_lost, 1, "{entry:?}");
}

#[test]
fn a_record_that_a_stream_does_not_keep_takes_no_other_along() {
    let folder = tempfile::tempdir().unwrap();
    let nx = on_disk(&folder.path().join("data"));
    nx.make_stream("/log", nexus::StreamSpec::new().bytes_max(100)).unwrap();
    let text = "echo one\nprintf '%0200d\n' 7\necho two\n";
    let child = nx.spawn(script(folder.path(), text).stdout_stream(path("/log"))).expect("it starts");
    assert!(child.wait().unwrap().is_success());
    assert_eq!(records(&nx, "/log"), ["one", "two"]);
    assert_eq!(child.status().unwrap().records_lost, 1);
}

#[test]
fn a_pipe_of_a_child_says_that_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let nx = on_disk(folder.path());
    let cat = || ChildSpec::new("cat", ["-"]).stdin(path("/c/in")).stdout(path("/c/out"));
    let child = nx.spawn(cat()).expect("it starts");
    child.kill(nexus::ChildSignal::Kill).unwrap();
    child.wait().unwrap();
    let check = |nx: &nexus::blocking::Nexus| {
        let pipe = nx.stat("/c/in").unwrap().pipe().unwrap();
        assert_eq!((pipe.io_profile, pipe.capacity), (IoProfile::Stdio, nexus::CHILD_PIPE_CAPACITY));
        assert_eq!(next(nx, "/c/out"), "", "who reads is at the end");
        refused(nx.send(SysWrite::at(path("/c/in"), "x")), Errno::EPIPE);
        // Who opens an end does not change that.
        let writer = nx.pipe_writer("/c/in").unwrap();
        refused(writer.write("x", None), Errno::EPIPE);
        let reader = nx.pipe_reader("/c/out").unwrap();
        assert_eq!(reader.read(None).unwrap(), None);
    };
    check(&nx);
    nx.shutdown().unwrap();
    let nx = on_disk(folder.path());
    check(&nx);
    // With a child the pipes are pipes again.
    nx.spawn(cat()).expect("it starts");
    nx.send(SysWrite::at(path("/c/in"), "again")).unwrap();
    assert_eq!(next(&nx, "/c/out"), "again");
}

#[test]
fn what_a_child_did_not_take_is_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let nx = on_disk(folder.path());
    let spec = || ChildSpec::new("cat", ["-"]).stdin(path("/i")).stdout(path("/o"));
    let halted = script(folder.path(), "echo here\nexec sleep 1000\n").stdin(path("/i")).stdout(path("/o"));
    let first = nx.spawn(halted).expect("it starts");
    assert_eq!(next(&nx, "/o"), "here");
    // More than the descriptor of the host holds, which goes with the process.
    let line = "x".repeat(64 << 10);
    for _ in 0..12 {
        nx.send(SysWrite::at(path("/i"), line.clone())).unwrap();
    }
    first.kill(nexus::ChildSignal::Kill).unwrap();
    first.wait().unwrap();
    assert_eq!(rest(&nx, "/o"), [""; 0]);
    let second = nx.spawn(spec()).expect("it starts");
    let writer = nx.pipe_writer("/i").unwrap();
    drop(writer);
    let came = rest(&nx, "/o");
    assert!(second.wait().unwrap().is_success());
    assert!(came.len() >= 9 && came.iter().all(|message| *message == line), "{}", came.len());
}
