//! Children that another process asks for.

use nexus::{ChildExit, ChildSignal, ChildSpec, Config, Errno, Serving, SysWrite, blocking};

use crate::bench::{is_known, next, path, refused, until};

fn served(serving: Serving) -> (tempfile::TempDir, blocking::Nexus, blocking::Nexus) {
    let folder = tempfile::tempdir().expect("there is room");
    let owner = blocking::connect(Config::new(folder.path()).serve(serving)).expect("it boots");
    let nx = blocking::attach(folder.path()).expect("it attaches");
    (folder, owner, nx)
}

#[test]
fn a_child_is_asked_for_from_another_process() {
    let (_folder, owner, nx) = served(Serving::administrator());
    let cat = ChildSpec::new("cat", ["-"]).stdin(path("/i")).stdout(path("/o"));
    let child = nx.spawn(cat).expect("it starts");
    nx.send(SysWrite::at(path("/i"), "hello")).unwrap();
    assert_eq!(next(&owner, "/o"), "hello");
    assert_eq!(owner.children().unwrap(), nx.children().unwrap());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| child.wait());
        assert!(child.kill(ChildSignal::Terminate).unwrap());
        assert_eq!(waits.join().unwrap().unwrap(), ChildExit::Signal(15));
    });
    assert_eq!(child.exited().unwrap(), ChildExit::Signal(15));
    let error = refused(nx.spawn(ChildSpec::new("no-such-program-7", [""; 0])), Errno::ENOENT);
    assert!(error.to_string().contains("no-such-program-7"), "{error}");
}

#[test]
fn a_child_that_is_tied_ends_with_the_connection_and_others_go_on() {
    let (folder, owner, nx) = served(Serving::administrator());
    let tied = nx.spawn(ChildSpec::new("sleep", ["1000"]).tied()).expect("it starts");
    let free =
        nx.spawn(ChildSpec::new("cat", ["-"]).stdin(path("/i")).stdout(path("/o"))).expect("it starts");
    let (tied, id) = (tied.pid(), free.id());
    drop(free);
    nx.shutdown().unwrap();
    until(&owner, "the tied one is gone", || !is_known(tied));
    let nx = blocking::attach(folder.path()).expect("it attaches");
    nx.send(SysWrite::at(path("/i"), "still")).unwrap();
    assert_eq!(next(&nx, "/o"), "still");
    assert_eq!(nx.children().unwrap().last().map(|child| child.id), Some(id));
}

#[test]
fn a_child_of_an_owner_that_has_ended_is_not_taken_for_one_of_the_next() {
    let (folder, owner, nx) = served(Serving::administrator());
    let sleeper = || ChildSpec::new("sleep", ["1000"]);
    let child = nx.spawn(sleeper()).expect("it starts");
    owner.shutdown().unwrap();
    let next =
        blocking::connect(Config::new(folder.path()).serve(Serving::administrator())).expect("it boots");
    let other = next.spawn(sleeper()).expect("it starts");
    assert!(!child.kill(ChildSignal::Kill).expect("the handle attaches again"), "it has ended");
    refused(child.status(), Errno::ENOENT);
    refused(child.wait(), Errno::ENOENT);
    assert!(other.kill(ChildSignal::Terminate).unwrap(), "it runs");
    assert_eq!(other.wait().unwrap(), ChildExit::Signal(15));
}

#[test]
fn who_attaches_as_an_agent_runs_nothing() {
    let (_folder, owner, nx) = served(Serving::agent("coder-7"));
    refused(nx.spawn(ChildSpec::new("cat", ["-"]).stdin(path("/i"))), Errno::EACCES);
    assert!(owner.children().unwrap().is_empty() && !owner.exists("/i").unwrap());
}
