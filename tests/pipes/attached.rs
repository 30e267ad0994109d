//! Pipes of a kernel in another process, as an attached handle sees them.

use std::time::Duration;

use nexus::{Config, Errno, Serving, SysRead, SysWrite, blocking};

use crate::bench::{LONG, SHORT, path, read, refused, write};

fn served() -> (blocking::Nexus, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("there is room");
    let config = Config::new(folder.path()).serve(Serving::administrator());
    (blocking::connect(config).expect("it boots"), folder)
}

#[test]
fn messages_go_both_ways_over_a_connection() {
    let (owner, folder) = served();
    let nx = blocking::attach(folder.path()).expect("it is served");
    let at = path("/p");
    assert_eq!(nx.make_pipe(&at, 100).unwrap().metadata.pipe().unwrap().capacity, 100);
    write(&nx, &at, "there").unwrap();
    assert_eq!(read(&owner, &at).unwrap(), "there");
    write(&owner, &at, "and back").unwrap();
    assert_eq!(nx.send(SysRead::at(&at).wait(LONG)).unwrap().data, "and back");
    refused(read(&nx, &at), Errno::EAGAIN);
    refused(nx.send(SysRead::at(&at).wait(SHORT)), Errno::ETIMEDOUT);
    refused(write(&nx, &at, &"x".repeat(101)), Errno::EMSGSIZE);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| nx.send(SysRead::at(&at).wait(LONG)));
        nx.send(SysWrite::at(&at, "late")).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().data, "late");
    });
    nx.send(SysWrite::at(&at, "patient").wait(Duration::MAX)).unwrap();
    assert_eq!(nx.send(SysRead::at(&at).wait(Duration::MAX)).unwrap().data, "patient");
    owner.shutdown().expect("it stops");
}

#[test]
fn the_ends_of_a_client_go_with_its_connection() {
    let (owner, folder) = served();
    let at = path("/p");
    owner.make_pipe(&at, 100).unwrap();
    let reader = owner.pipe_reader(&at).unwrap();
    let client = blocking::attach(folder.path()).expect("it is served");
    let kept = client.pipe_writer(&at).unwrap();
    let dropped = client.pipe_writer(&at).unwrap();
    assert_eq!(kept.metadata().path, "/p");
    dropped.write("one", Some(LONG)).unwrap();
    drop(dropped);
    kept.write("two", None).unwrap();
    assert_eq!(reader.read(Some(LONG)).unwrap().unwrap(), "one");
    assert_eq!(reader.read(Some(LONG)).unwrap().unwrap(), "two");
    // Its process is gone, say.
    client.shutdown().expect("it lets go");
    assert_eq!(reader.read(Some(LONG)).unwrap(), None, "the last writer is gone");
    refused(kept.write("from beyond", None), Errno::ESHUTDOWN);

    let client = blocking::attach(folder.path()).expect("it is served");
    let remote = client.pipe_reader(&at).unwrap();
    let writer = owner.pipe_writer(&at).unwrap();
    writer.write("three", None).unwrap();
    assert_eq!(remote.read(Some(LONG)).unwrap().unwrap(), "three");
    refused(remote.read(None), Errno::EAGAIN);
    drop(writer);
    assert_eq!(remote.read(Some(LONG)).unwrap(), None);
    owner.shutdown().expect("it stops");
}
