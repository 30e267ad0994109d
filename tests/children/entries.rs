//! What is seen of children.

use nexus::{ChildSignal, ChildSpec, ChildState, Errno, Framing, PipeSpec, SysSetattr, SysWrite};
use serde_json::Value;

use crate::bench::{in_memory, next, path, refused};

#[test]
fn children_are_listed_without_their_environment() {
    let nx = in_memory();
    let spec =
        ChildSpec::new("cat", ["-u", "-"]).env("TOKEN", "secret-7").stdin(path("/i")).stdout(path("/o"));
    let child = nx.spawn(spec).expect("it starts");
    nx.send(SysWrite::at(path("/i"), "12345")).unwrap();
    assert_eq!(next(&nx, "/o"), "12345");
    let text = nx.read(format!("/__sys__/children/{}", child.id())).unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(!text.contains("secret-7"), "{text}");
    let entry: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        (&entry["program"], &entry["args"][0], &entry["state"]),
        (&"cat".into(), &"-u".into(), &"running".into())
    );
    assert_eq!(
        (&entry["bytes_in"], &entry["bytes_out"], &entry["stdin"]),
        (&5.into(), &6.into(), &"/i".into())
    );
    assert_eq!(entry["pid"], child.pid());
    let all = nx.children().unwrap();
    assert_eq!((all.len(), all[0].id, all[0].state), (1, child.id(), ChildState::Running));
    let names: Vec<_> =
        nx.readdir("/__sys__/children").unwrap().into_iter().map(|entry| entry.name().to_owned()).collect();
    assert!(names.contains(&child.id().to_string()), "{names:?}");
    child.kill(ChildSignal::Kill).unwrap();
    child.wait().unwrap();
    assert!(nx.children().unwrap()[0].state.is_done(), "it is told for a while how it ended");
}

#[test]
fn a_signal_is_a_word_that_is_written() {
    let nx = in_memory();
    let child = nx.spawn(ChildSpec::new("sleep", ["1000"])).expect("it starts");
    let file = path(&format!("/__sys__/children/{}", child.id()));
    let error = refused(nx.send(SysWrite::at(&file, "NONE")), Errno::EINVAL);
    assert!(error.to_string().contains("TERM"), "{error}");
    nx.send(SysWrite::at(&file, "TERM\n")).unwrap();
    assert_eq!(child.wait().unwrap(), nexus::ChildExit::Signal(15));
    let gone = path("/__sys__/children/999");
    refused(nx.send(SysWrite::at(gone, "TERM")), Errno::ENOENT);
}

#[test]
fn pipes_for_children_can_be_made_before() {
    let nx = in_memory();
    let spec = PipeSpec::new(100).io_profile(nexus::IoProfile::Stdio);
    assert!(nx.send(SysSetattr::pipe_with(path("/p"), spec)).unwrap().created);
    assert_eq!(nx.stat("/p").unwrap().pipe(), Some(spec));
    refused(nx.send(SysWrite::at(path("/p"), "x")), Errno::EPIPE);
    let lines = Framing::default();
    nx.spawn(ChildSpec::new("cat", ["-"]).stdin(path("/p")).stdout(path("/o")).framing(lines)).unwrap();
    nx.send(SysWrite::at(path("/p"), "x")).unwrap();
    assert_eq!(next(&nx, "/o"), "x");
    // Removed, it ends the input of the child, and so the child.
    nx.unlink("/p").unwrap();
    assert_eq!(next(&nx, "/o"), "");
}

#[test]
fn a_pipe_that_is_on_disk_is_none() {
    let nx = in_memory();
    let spec = PipeSpec::new(100).io_profile(nexus::IoProfile::Durable);
    refused(nx.send(SysSetattr::pipe_with(path("/p"), spec)), Errno::EOPNOTSUPP);
}
