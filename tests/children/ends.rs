//! Messages through children, and the ends of their pipes.

use std::time::Duration;

use nexus::{ChildExit, ChildSpec, Errno, SysRead, SysWrite};
use nexus_kernel::pipes::PipeEntry;

use crate::bench::{LONG, in_memory, next, numbers, path, refused, rest, until};

fn cat() -> ChildSpec {
    ChildSpec::new("cat", ["-"]).stdin(path("/c/in")).stdout(path("/c/out"))
}

#[test]
fn what_is_written_to_cat_comes_back_in_its_order() {
    let nx = in_memory();
    let child = nx.spawn(cat()).expect("it starts");
    let (writer, reader) = (nx.pipe_writer("/c/in").unwrap(), nx.pipe_reader("/c/out").unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in numbers(1..=20_000) {
                writer.write(line, Some(LONG)).expect("cat reads");
            }
        });
        for line in numbers(1..=20_000) {
            assert_eq!(reader.read(Some(LONG)).unwrap(), Some(line));
        }
        // The last writer is gone: so cat's input is at its end, and then its output.
        assert_eq!(reader.read(Some(LONG)).unwrap(), None);
    });
    assert_eq!(child.wait().unwrap(), ChildExit::Code(0));
    let entry = child.status().unwrap();
    let bytes: u64 = numbers(1..=20_000).iter().map(|line| line.len() as u64).sum();
    assert_eq!((entry.bytes_in, entry.bytes_out), (bytes, bytes + 20_000), "{entry:?}");
    assert_eq!((entry.lines_dropped, entry.messages_unread, entry.trouble), (0, 0, None));
}

#[test]
fn a_path_is_enough_to_talk_to_a_child() {
    let nx = in_memory();
    let child = nx.spawn(cat()).expect("it starts");
    let to = path("/c/in");
    for line in ["one", "two\n", "{\"a\":1}"] {
        nx.send(SysWrite::at(&to, line)).expect("there is room");
        assert_eq!(next(&nx, "/c/out"), line.trim_end());
    }
    // Whoever comes and goes by path ends nothing.
    refused(nx.send(SysRead::at(path("/c/out"))), Errno::EAGAIN);
    assert!(child.kill(nexus::ChildSignal::Kill).unwrap());
    assert_eq!(child.wait().unwrap(), ChildExit::Signal(9));
    assert!(!child.kill(nexus::ChildSignal::Kill).unwrap(), "it has ended");
}

#[test]
fn a_child_that_needs_all_of_its_input_is_given_it() {
    let nx = in_memory();
    let spec = ChildSpec::new("sort", ["-n"]).stdin(path("/s/in")).stdout(path("/s/out"));
    let child = nx.spawn(spec).expect("it starts");
    let writer = nx.pipe_writer("/s/in").unwrap();
    for line in numbers(1..=500).into_iter().rev() {
        writer.write(line, Some(LONG)).unwrap();
    }
    drop(writer);
    assert_eq!(rest(&nx, "/s/out"), numbers(1..=500));
    assert!(child.wait().unwrap().is_success());
}

#[test]
fn a_child_that_reads_no_more_breaks_the_pipe() {
    let nx = in_memory();
    let spec = ChildSpec::new("head", ["-n", "2"]).stdin(path("/h/in")).stdout(path("/h/out"));
    let child = nx.spawn(spec).expect("it starts");
    let to = path("/h/in");
    nx.send(SysWrite::at(&to, "a")).unwrap();
    nx.send(SysWrite::at(&to, "b")).unwrap();
    assert_eq!(rest(&nx, "/h/out"), ["a", "b"]);
    assert!(child.wait().unwrap().is_success());
    let error = refused(nx.send(SysWrite::at(&to, "c").wait(LONG)), Errno::EPIPE);
    assert!(error.to_string().contains("no child process"), "{error}");
}

#[test]
fn a_child_that_closes_its_input_breaks_the_pipe_while_it_runs() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let spec = crate::bench::script(folder.path(), "exec 0<&-\necho closed\nexec sleep 1000\n");
    let child = nx.spawn(spec.stdin(path("/c/in")).stdout(path("/c/out"))).expect("it starts");
    assert_eq!(next(&nx, "/c/out"), "closed");
    let writes = || {
        nx.send(SysWrite::at(path("/c/in"), "x"))
            .map_or_else(|error| error.errno() == Errno::EPIPE, |_| false)
    };
    until(&nx, "the pipe breaks", writes);
    assert_eq!(child.status().unwrap().state, nexus::ChildState::Running);
}

#[test]
fn a_flood_waits_for_a_slow_reader() {
    let nx = in_memory();
    let child = nx.spawn(ChildSpec::new("yes", ["flood"]).stdout(path("/f"))).expect("it starts");
    let is_full = || {
        let pipes: Vec<PipeEntry> =
            serde_json::from_slice(&nx.read("/__sys__/pipes/.all").unwrap()).expect("it is JSON");
        pipes[0].writers_waiting == 1
    };
    until(&nx, "the pipe is full", is_full);
    let full = child.status().unwrap().bytes_out;
    // What fits in the pipe, by the number of its messages, and a chunk in the hands of the pump.
    assert!((16_384 * 6..16_384 * 6 + (64 << 10) + 1).contains(&full), "{full}");
    let reader = nx.pipe_reader("/f").unwrap();
    for _ in 0..100_000 {
        assert_eq!(reader.read(Some(LONG)).unwrap().as_deref(), Some(&b"flood"[..]));
    }
    // The last reader is gone: the child is told so as by every pipe.
    drop(reader);
    assert_eq!(child.wait().unwrap(), ChildExit::Signal(13), "SIGPIPE");
    assert_eq!(child.status().unwrap().trouble, None);
}

#[test]
fn both_outputs_may_lead_to_one_pipe_in_the_order_in_which_they_are_written() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let text = "for n in 1 2 3 4 5 6 7 8 9; do echo out $n; echo err $n >&2; done\n";
    let spec = crate::bench::script(folder.path(), text).stdout(path("/both")).stderr(path("/both"));
    let child = nx.spawn(spec).expect("it starts");
    let lines = rest(&nx, "/both");
    assert!(child.wait().unwrap().is_success());
    let said: Vec<_> = (1..=9).flat_map(|n| [format!("out {n}"), format!("err {n}")]).collect();
    assert_eq!(lines, said, "as they were written");
    let status = child.status().unwrap();
    assert_eq!((status.bytes_out, status.bytes_err), (9 * 12, 0), "it is one descriptor");
}

#[test]
fn the_end_is_told_to_who_waits_for_it() {
    let nx = in_memory();
    let child = nx.spawn(cat()).expect("it starts");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| child.wait());
        let reads = scope.spawn(|| next(&nx, "/c/out"));
        child.kill(nexus::ChildSignal::Terminate).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), ChildExit::Signal(15));
        assert_eq!(reads.join().unwrap(), "");
    });
    let begun = nx.env().now();
    assert_eq!(child.exited().unwrap(), ChildExit::Signal(15), "and again");
    assert!(nx.env().now() - begun < Duration::from_secs(5));
}
