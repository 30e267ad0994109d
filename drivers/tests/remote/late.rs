//! What the library repeats out of sight: the first request may be carried out behind what is told, and nothing goes to the store meanwhile that it would undo.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_drivers::catalogue;
use nexus_kernel::hal::{Addressing, DriverContext, ObjectStore, PathWrite, StoreError};
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::moto;
use crate::subjects::{env, open, open_of, paths, read, s3, try_open_in, write};

/// How often it is looked at what has come to the bucket, and for how long at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(60));

/// At least so long is waited for what was lost.
const LATE_MIN: Duration = Duration::from_secs(8);

fn context(folder: Option<&Path>) -> DriverContext {
    DriverContext::new(env(), env().pool("mount", 2, 8), folder.map(Path::to_owned))
}

fn put(store: &dyn ObjectStore, path: &str, content: &'static str) {
    write(store, path, content, PathWrite::Whole).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn there(store: &dyn ObjectStore, path: &str) -> Option<Bytes> {
    match read(store, path) {
        Ok(content) => Some(content),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

fn until_there(store: &dyn ObjectStore, path: &str) {
    let began = env().now();
    while there(store, path).is_none() {
        assert!(env().now() - began < LOOKS.1, "{path} does not come");
        block_on(env().sleep(LOOKS.0));
    }
}

#[test]
fn what_is_written_back_waits_for_a_change_whose_first_request_was_lost() {
    let (server, folder) = (moto(), tempfile::tempdir().expect("a folder"));
    let (wire, direct) = (Proxy::start(server.port()), open(&s3(server.port())));
    let spec = s3(wire.port()).option("write_back", "yes").option("rename", "copy");
    let near = try_open_in(&spec, context(Some(folder.path()))).expect("it is opened");
    let before = ["deleted", "together", "with", "from", "plain"];
    before.iter().for_each(|path| put(&*near, path, "before"));
    block_on(near.flush()).expect("all of it comes to the bucket");

    let store = paths(&*near);
    wire.set_after(b"DELETE ", Fault::LostOnce);
    block_on(store.delete("deleted")).expect("it is repeated, and comes through");
    wire.set_after(b"POST ", Fault::LostOnce);
    let both = ["together", "with"].map(String::from);
    for deleted in block_on(store.delete_many(&both)).expect("it is repeated, and comes through") {
        deleted.expect("it is deleted");
    }
    wire.set_after(b"x-amz-copy-source", Fault::LostOnce);
    block_on(store.rename("from", "to")).expect("it is repeated, and comes through");
    block_on(store.delete("plain")).expect("it comes through");
    assert!(before.iter().all(|path| there(&*direct, path).is_none()), "all of it has left the bucket");

    for path in before {
        put(&*near, path, "after");
        assert_eq!(there(&*near, path).as_deref(), Some(&b"after"[..]), "{path} is read as it was written");
    }
    // What is written behind them, and what is where nothing was lost, need not wait.
    for path in ["other", "another"] {
        put(&*near, path, "other");
        until_there(&*direct, path);
    }
    until_there(&*direct, "plain");
    for path in &before[..4] {
        assert_eq!(there(&*direct, path), None, "{path} went where what was lost may arrive");
    }
    for path in before {
        until_there(&*direct, path);
        assert_eq!(there(&*direct, path).as_deref(), Some(&b"after"[..]), "{path}");
    }
}

/// The kernel would give its call up, and not know what became of it.
#[test]
fn who_has_no_time_to_wait_for_that_is_told_that_nothing_was_asked() {
    let server = moto();
    let (wire, direct) = (Proxy::start(server.port()), open(&s3(server.port())));
    let store = open(&s3(wire.port()).option("deadline_ms", "2000"));
    wire.set_after(b"PUT ", Fault::LostOnce);
    put(&*store, "written", "first");
    let asked = env().now();
    let refused = write(&*store, "written", "second", PathWrite::Whole).expect_err("it may be undone yet");
    assert!(env().now() - asked < Duration::from_secs(2), "it is told in time");
    let is_busy =
        matches!(&refused, StoreError::Io { source, .. } if source.kind() == ErrorKind::ResourceBusy);
    assert!(is_busy && !refused.is_backend_failure() && !refused.is_unknown(), "{refused:?}");
    assert_eq!(there(&*direct, "written").as_deref(), Some(&b"first"[..]));
    put(&*store, "other", "is not concerned");
}

/// Where nothing stands in front of the store that would order what goes there.
#[test]
fn a_change_waits_for_one_of_its_key_whose_first_request_was_lost() {
    let server = moto();
    let (wire, direct) = (Proxy::start(server.port()), open(&s3(server.port())));
    let (spec, kernel) = (s3(wire.port()).option("rename", "copy"), catalogue());
    let open = || open_of(&kernel, &spec, context(None)).expect("it is opened");
    let store = open();
    let before = ["deleted", "together", "with", "from", "copied", "plain", "folder/a"];
    before.iter().for_each(|path| put(&*store, path, "before"));

    wire.set_after(b"PUT ", Fault::LostOnce);
    put(&*store, "written", "first");
    wire.set_after(b"DELETE ", Fault::LostOnce);
    block_on(paths(&*store).delete("deleted")).expect("it is repeated, and comes through");
    wire.set_after(b"POST ", Fault::LostOnce);
    let both = ["together", "with"].map(String::from);
    for deleted in block_on(paths(&*store).delete_many(&both)).expect("it is repeated, and comes through") {
        deleted.expect("it is deleted");
    }
    for (from, to) in [("from", "moved"), ("plain", "copied")] {
        wire.set_after(b"x-amz-copy-source", Fault::LostOnce);
        let done = match to {
            "moved" => block_on(paths(&*store).rename(from, to)),
            _ => block_on(paths(&*store).copy(from, to)),
        };
        done.expect("it is repeated, and comes through");
    }
    let lost = env().now();
    put(&*store, "other", "after");
    put(&*store, "from", "after");
    for path in ["written", "copied"] {
        assert!(there(&*store, path).is_some(), "who reads need not wait");
    }
    assert!(env().now() - lost < LATE_MIN, "nothing is lost of these");
    // A store that fails is opened anew, and what it was asked for may be carried out all the same.
    drop(store);
    let store = open();
    // The mark of a renaming, which is written again, and taken away.
    wire.set_after(b"PUT ", Fault::LostOnce);
    let took = |change: &dyn Fn()| {
        change();
        env().now() - lost
    };
    std::thread::scope(|scope| {
        for path in ["written", "deleted", "together", "with", "moved", "copied", "folder"] {
            let (store, took) = (&*store, &took);
            scope.spawn(move || {
                let took = took(&|| match path {
                    "copied" => block_on(paths(store).delete(path)).expect("it is deleted"),
                    "folder" => drop(block_on(paths(store).rename(path, "renamed")).expect("it is moved")),
                    _ => put(store, path, "after"),
                });
                assert!(took > LATE_MIN, "{path} went where what was lost may arrive");
            });
        }
    });
    assert_eq!(there(&*direct, "copied"), None);
    assert_eq!(there(&*direct, "renamed/a").as_deref(), Some(&b"before"[..]));
    assert_eq!(there(&*direct, "written").as_deref(), Some(&b"after"[..]));
}

/// As a collector deletes content that nothing names, and an agent writes the same again.
#[test]
fn content_is_not_written_while_a_deletion_of_it_may_be_carried_out() {
    let server = moto();
    let wire = Proxy::start(server.port());
    let spec = |port| s3(port).option("addressing", "content");
    let (kernel, direct) = (catalogue(), open(&spec(server.port())));
    let near = open_of(&kernel, &spec(wire.port()), context(None)).expect("it is opened");
    let contents = |store: &dyn ObjectStore, data: &'static [u8]| {
        let Addressing::Content(contents) = store.addressing() else { panic!("it is addressed by path") };
        let id = ContentId::Blake3(*blake3::hash(data).as_bytes());
        block_on(contents.write(&id, &[Bytes::from_static(data)])).expect("it is written");
        id
    };
    let id = contents(&*near, b"named again");
    let delete = |store: &dyn ObjectStore, id: &ContentId| {
        let Addressing::Content(contents) = store.addressing() else { panic!("it is addressed by path") };
        block_on(contents.delete(id)).expect("it comes through");
    };
    wire.set_after(b"DELETE ", Fault::LostOnce);
    delete(&*near, &id);
    let began = env().now();
    // A store that fails is opened anew.
    drop(near);
    let near = open_of(&kernel, &spec(wire.port()), context(None)).expect("it is opened");
    contents(&*near, b"named again");
    assert!(env().now() - began > LATE_MIN, "it went where what was lost may arrive");
    let began = env().now();
    let other = contents(&*near, b"never deleted");
    delete(&*near, &other);
    contents(&*near, b"never deleted");
    assert!(env().now() - began < LATE_MIN, "nothing was lost of this one");
    let Addressing::Content(direct) = direct.addressing() else { panic!("it is addressed by path") };
    let read = block_on(direct.read(&id, ByteRange::ALL)).expect("it is there");
    assert_eq!(&read[..], b"named again");
}

/// As another process may that comes right after: what it knows is what the cache has written down.
#[test]
fn a_cache_in_front_of_content_hears_of_a_deletion_that_may_be_carried_out() {
    let (server, folder) = (moto(), tempfile::tempdir().expect("a folder"));
    let wire = Proxy::start(server.port());
    let spec = |port| s3(port).option("addressing", "content");
    let direct = open(&spec(server.port()));
    let open = || {
        let spec = spec(wire.port()).option("write_back", "yes");
        try_open_in(&spec, context(Some(folder.path()))).expect("it is opened")
    };
    let data = Bytes::from_static(b"named again");
    let id = ContentId::Blake3(*blake3::hash(&data).as_bytes());
    let contents = |store: &dyn ObjectStore, is_deleted: bool| {
        let Addressing::Content(contents) = store.addressing() else { panic!("it is addressed by path") };
        match is_deleted {
            true => block_on(contents.delete(&id)).expect("it is repeated, and comes through"),
            false => block_on(contents.write(&id, std::slice::from_ref(&data))).expect("it is written"),
        }
    };
    let near = open();
    contents(&*near, false);
    block_on(near.flush()).expect("it comes to the bucket");
    wire.set_after(b"DELETE ", Fault::LostOnce);
    contents(&*near, true);
    drop(near);
    let (near, began) = (open(), env().now());
    contents(&*near, false);
    let Addressing::Content(direct) = direct.addressing() else { panic!("it is addressed by path") };
    while !block_on(direct.contains(&id)).expect("it is looked for") {
        assert!(env().now() - began < LOOKS.1, "it does not come");
        block_on(env().sleep(LOOKS.0));
    }
    assert!(env().now() - began > LATE_MIN, "it went where what was lost may arrive");
}
