//! What a message of a child is.

use nexus::{Bytes, ChildSpec, Errno, Framing, LongLines, PipeSpec, SysSetattr, SysWrite};

use crate::bench::{in_memory, path, records, refused, rest, script};

#[test]
fn bytes_that_are_no_text_come_as_they_are() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let spec = script(folder.path(), "printf '\\377\\000\\376\\n\\200'\n").stdout(path("/o"));
    nx.spawn(spec).expect("it starts");
    assert_eq!(rest(&nx, "/o"), [Bytes::from_static(b"\xff\0\xfe"), Bytes::from_static(b"\x80")]);
}

#[test]
fn empty_lines_are_records_and_no_messages() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let spec = script(folder.path(), "printf 'a\\n\\nb\\n'\n").stdout(path("/o")).stdout_stream(path("/s"));
    let child = nx.spawn(spec).expect("it starts");
    assert_eq!(rest(&nx, "/o"), ["a", "b"]);
    child.wait().unwrap();
    assert_eq!(records(&nx, "/s"), ["a", "", "b"]);
}

#[test]
fn a_line_too_long_is_left_out_and_counted() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let text = "echo 12345; echo 1234567890; echo abc\n";
    let spec =
        |longer| script(folder.path(), text).stdout(path("/o")).framing(Framing::Lines { max: 5, longer });
    let child = nx.spawn(spec(LongLines::Drop)).expect("it starts");
    assert_eq!(rest(&nx, "/o"), ["12345", "abc"]);
    child.wait().unwrap();
    let entry = child.status().unwrap();
    assert_eq!(entry.lines_dropped, 1);
    assert!(entry.trouble.as_deref().is_some_and(|trouble| trouble.contains("too long")), "{entry:?}");
    // Or it comes in pieces, for who says so.
    let child = nx.spawn(spec(LongLines::Cut)).expect("it starts");
    assert_eq!(rest(&nx, "/o"), ["12345", "12345", "67890", "abc"]);
    child.wait().unwrap();
    assert_eq!(child.status().unwrap().lines_dropped, 0);
}

#[test]
fn a_small_pipe_takes_no_longer_lines_than_it_holds() {
    let nx = in_memory();
    nx.send(SysSetattr::pipe_with(path("/o"), PipeSpec::new(8))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let spec = script(folder.path(), "echo 12345678; echo 123456789; echo x\n").stdout(path("/o"));
    let child = nx.spawn(spec).expect("it starts");
    // A pipe in memory that was there before serves as well.
    assert_eq!(rest(&nx, "/o"), ["12345678", "x"]);
    child.wait().unwrap();
    assert_eq!(child.status().unwrap().lines_dropped, 1);
}

#[test]
fn raw_messages_are_the_bytes_and_nothing_else() {
    let nx = in_memory();
    let spec = ChildSpec::new("cat", ["-"]).stdin(path("/i")).stdout(path("/o")).framing(Framing::Raw);
    nx.spawn(spec).expect("it starts");
    let writer = nx.pipe_writer("/i").unwrap();
    for message in ["ab", "\n\nc", "d"] {
        writer.write(message, Some(crate::bench::LONG)).unwrap();
    }
    drop(writer);
    assert_eq!(rest(&nx, "/o").concat(), b"ab\n\ncd");
}

#[test]
fn a_message_that_is_too_large_for_the_pipe_is_refused_as_ever() {
    let nx = in_memory();
    nx.spawn(ChildSpec::new("cat", ["-"]).stdin(path("/i"))).expect("it starts");
    let large = vec![b'x'; nexus::CHILD_PIPE_CAPACITY as usize + 1];
    refused(nx.send(SysWrite::at(path("/i"), large)), Errno::EMSGSIZE);
}
