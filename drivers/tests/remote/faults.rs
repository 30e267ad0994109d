//! A wire that fails: every call ends in time and says what it is, no wrong byte is read, no acknowledged write is lost, and all is well when the wire is.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::{Addressing, ContentStore, ObjectStore, PathWrite, StoreError};
use nexus_messages::syscall::MountSpec;
use nexus_messages::{ContentId, ErrorKind};

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::moto;
use crate::subjects::{env, open, paths, read, s3, try_open, write};

/// How long an operation may take through the wire.
const TIMEOUT: Duration = Duration::from_millis(400);

/// A change looks before it and after it: each look, and the change, may take its time.
const STEPS: u32 = 4;

/// What the machine may be late.
const SLACK: Duration = Duration::from_secs(3);

/// Within this time all is well again.
const WELL_WITHIN: Duration = Duration::from_secs(30);

fn in_time<T>(
    what: &str,
    fault: Fault,
    call: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let began = env().now();
    let answer = call();
    let took = env().now() - began;
    assert!(took < TIMEOUT * STEPS + SLACK, "{what} under {fault:?} took {took:?}");
    answer
}

/// A failure of the backend, and never one that says what is or is not there.
fn failed<T: Debug>(what: &str, fault: Fault, answer: Result<T, StoreError>) -> StoreError {
    let error = answer.expect_err(&format!("{what} under {fault:?}"));
    assert!(error.is_backend_failure(), "{what} under {fault:?}: {error:?}");
    if matches!(fault, Fault::Stall | Fault::Slow) {
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{what} under {fault:?}: {error:?}");
    } else {
        // A loaded machine may be late with any of them.
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::Io | ErrorKind::TimedOut), "{what} under {fault:?}: {error:?}");
    }
    error
}

fn through_the_wire(spec: &MountSpec) -> MountSpec {
    spec.clone().option("timeout_ms", TIMEOUT.as_millis().to_string()).option("retries", "1")
}

/// Asks until it succeeds: the first calls may meet what the fault left, and a loaded machine is late.
fn until_well<T>(what: &str, mut call: impl FnMut() -> Result<T, StoreError>) -> T {
    let began = env().now();
    loop {
        match call() {
            Ok(answer) => return answer,
            Err(error) => assert!(env().now() - began < WELL_WITHIN, "{what}: {error}"),
        }
    }
}

/// A store at a server: how it is mounted past the wire, and how through it.
struct Case {
    direct: MountSpec,
    wired: MountSpec,
    proxy: Proxy,
    writable: bool,
}

impl Case {
    fn of(port: u16, writable: bool, spec: impl Fn(u16) -> MountSpec) -> Self {
        let proxy = Proxy::start(port);
        Self { direct: spec(port), wired: through_the_wire(&spec(proxy.port())), proxy, writable }
    }

    fn wired(&self) -> Arc<dyn ObjectStore> {
        until_well("opening", || try_open(&self.wired))
    }

    /// All calls, one after the other, under each fault. At `d/f` there is `content`.
    fn every_call_ends_in_time(&self, content: &str) {
        let store = self.wired();
        for fault in Fault::ALL {
            self.proxy.set(fault);
            let looked = in_time("stat", fault, || block_on(paths(&*store).stat("d/f")));
            failed("stat", fault, looked);
            failed("read", fault, in_time("read", fault, || read(&*store, "d/f")));
            let listed = in_time("list", fault, || block_on(paths(&*store).list("d", None, 9)));
            failed("list", fault, listed);
            failed("probe", fault, in_time("probe", fault, || block_on(store.probe())));
            if self.writable {
                for how in [PathWrite::Whole, PathWrite::Exclusive] {
                    failed("write", fault, in_time("write", fault, || write(&*store, "d/g", "new", how)));
                }
                failed("delete", fault, in_time("delete", fault, || block_on(paths(&*store).delete("d/f"))));
            }
            let opened = in_time("open", fault, || try_open(&self.wired));
            assert!(opened.is_err(), "opened under {fault:?}");
            self.proxy.set(Fault::None);
            let read = until_well("it serves again", || read(&*store, "d/f"));
            assert_eq!(read[..], *content.as_bytes(), "after {fault:?}");
        }
    }

    /// The looks before a write go through, and what it is about meets the fault: then it was done or not, and who asked for it is told that nobody knows.
    fn a_write_that_meets_the_fault_is_unknown(&self, sends: &'static [u8]) {
        let (store, direct) = (self.wired(), open(&self.direct));
        let mut there = "written before".to_owned();
        write(&*direct, "w", there.clone(), PathWrite::Whole).expect("it is written");
        for fault in Fault::ALL {
            let new = format!("written under {fault:?}");
            self.proxy.set_after(sends, fault);
            let written = in_time("write", fault, || write(&*store, "w", new.clone(), PathWrite::Whole));
            self.proxy.set(Fault::None);
            let error = failed("write", fault, written);
            assert!(error.is_unknown(), "under {fault:?}: {error:?}");
            let now = read(&*direct, "w").expect("it is there");
            assert!(now == there.as_bytes() || now == new.as_bytes(), "{now:?} after {fault:?}");
            there = format!("acknowledged after {fault:?}");
            until_well("it is written", || write(&*store, "w", there.clone(), PathWrite::Whole));
            assert_eq!(read(&*direct, "w").expect("it is there")[..], *there.as_bytes());
        }
    }
}

fn content() -> String {
    "0123456789".repeat(500)
}

#[test]
fn every_call_of_s3_ends_in_time_and_says_what_it_is() {
    let server = moto();
    let case = Case::of(server.port(), true, s3);
    write(&*open(&case.direct), "d/f", content(), PathWrite::Whole).expect("it is written");
    case.every_call_ends_in_time(&content());
    case.a_write_that_meets_the_fault_is_unknown(b"PUT /");
}

#[cfg(feature = "azure")]
#[test]
fn every_call_of_azure_ends_in_time_and_says_what_it_is() {
    let server = crate::servers::azure::azurite();
    let case = Case::of(server.port(), true, crate::subjects::azure);
    write(&*open(&case.direct), "d/f", content(), PathWrite::Whole).expect("it is written");
    case.every_call_ends_in_time(&content());
    case.a_write_that_meets_the_fault_is_unknown(b"PUT /");
}

#[cfg(feature = "http")]
#[test]
fn every_call_of_a_web_server_ends_in_time_and_says_what_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("d")).expect("it is made");
    std::fs::write(folder.path().join("d/f"), content()).expect("it is written");
    let server = crate::web::plain(folder);
    let case = Case::of(server.port(), false, crate::web::mount);
    case.every_call_ends_in_time(&content());
}

/// Content by its hash is written whole and at once.
fn contents(store: &dyn ObjectStore) -> &dyn ContentStore {
    match store.addressing() {
        Addressing::Content(contents) => contents,
        Addressing::Path(_) => panic!("it is addressed by content"),
    }
}

#[test]
fn content_by_its_hash_is_never_wrong_and_can_be_written_again() {
    let server = moto();
    let proxy = Proxy::start(server.port());
    let blobs = open(&through_the_wire(&s3(proxy.port()).option("addressing", "content")));
    let content = bytes::Bytes::from_static(b"some content");
    let id = ContentId::Blake3(*blake3::hash(&content).as_bytes());
    for fault in Fault::ALL {
        proxy.set(fault);
        let written = in_time("write", fault, || {
            block_on(contents(&*blobs).write(&id, std::slice::from_ref(&content)))
        });
        failed("write", fault, written);
        let range = nexus_messages::syscall::ByteRange::ALL;
        failed("read", fault, in_time("read", fault, || block_on(contents(&*blobs).read(&id, range))));
        proxy.set(Fault::None);
        until_well("it is written", || {
            block_on(contents(&*blobs).write(&id, std::slice::from_ref(&content)))
        });
        assert_eq!(until_well("it is read", || block_on(contents(&*blobs).read(&id, range))), content);
    }
}

/// Whoever gives up a call ends it: its place is free for the next one.
#[test]
fn calls_that_are_given_up_free_their_places() {
    let server = moto();
    let proxy = Proxy::start(server.port());
    let store = open(&s3(proxy.port()).option("concurrency", "2").option("timeout_ms", "60000"));
    write(&*store, "f", "1", PathWrite::Whole).expect("it is written");
    proxy.set(Fault::Stall);
    let env = env();
    for _ in 0..6 {
        let given_up = env.timeout(Duration::from_millis(100), paths(&*store).stat("f"));
        assert!(block_on(given_up).is_err(), "it answers");
    }
    proxy.set(Fault::None);
    let answer = block_on(env.timeout(Duration::from_secs(20), paths(&*store).stat("f")));
    assert_eq!(answer.expect("there is a place").expect("it is there").size, 1);
}
