//! A wire that fails: every call ends in time and says what it is, no wrong byte is read, no acknowledged write is lost, and all is well when the wire is.

use std::fmt::Debug;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_kernel::hal::{Addressing, ContentStore, ObjectStore, PathWrite, StoreError};
use nexus_messages::syscall::{ByteRange, MountSpec};
use nexus_messages::{ContentId, ErrorKind};

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::moto;
use crate::subjects::{env, open, paths, read, s3, try_open, write};

/// How long an operation may take through the wire: a loaded machine answers within a third of it.
const TIMEOUT: Duration = Duration::from_millis(1_000);

/// A change looks before it and after it: each look, and the change, may take its time.
const STEPS: u32 = 4;

/// What the machine may be late.
const SLACK: Duration = Duration::from_secs(3);

/// Within this time all is well again.
const WELL_WITHIN: Duration = Duration::from_secs(60);

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

/// A store at a server, and how it is mounted at a port.
struct Case<'c> {
    port: u16,
    writable: bool,
    spec: &'c (dyn Fn(u16) -> MountSpec + Sync),
}

/// A wire of its own, and the store beyond it.
struct Wired {
    proxy: Proxy,
    spec: MountSpec,
    store: Arc<dyn ObjectStore>,
}

impl Case<'_> {
    fn wired(&self) -> Wired {
        let proxy = Proxy::start(self.port);
        let spec = through_the_wire(&(self.spec)(proxy.port()));
        let store = until_well("opening", || try_open(&spec));
        Wired { proxy, spec, store }
    }

    /// Each fault by itself, on a wire of its own, beside the others: most of the time is spent waiting.
    fn under_each_fault(&self, check: impl Fn(&Wired, Fault) + Sync) {
        // One after the other, lest the server is late with all of them.
        let wired = Fault::ALL.map(|fault| (fault, self.wired()));
        thread::scope(|scope| {
            for (fault, wired) in &wired {
                let check = &check;
                scope.spawn(move || check(wired, *fault));
            }
        });
    }

    /// All calls, one after the other, under each fault. At `d/f` there is `content`.
    fn every_call_ends_in_time(&self, content: &str) {
        self.under_each_fault(|Wired { proxy, spec, store }, fault| {
            proxy.set(fault);
            let looked = in_time("stat", fault, || block_on(paths(&**store).stat("d/f")));
            failed("stat", fault, looked);
            failed("read", fault, in_time("read", fault, || read(&**store, "d/f")));
            let listed = in_time("list", fault, || block_on(paths(&**store).list("d", None, 9)));
            failed("list", fault, listed);
            failed("probe", fault, in_time("probe", fault, || block_on(store.probe())));
            if self.writable {
                for how in [PathWrite::Whole, PathWrite::Exclusive] {
                    failed("write", fault, in_time("write", fault, || write(&**store, "d/g", "new", how)));
                }
                failed("delete", fault, in_time("delete", fault, || block_on(paths(&**store).delete("d/f"))));
            }
            let opened = in_time("open", fault, || try_open(spec));
            assert!(opened.is_err(), "opened under {fault:?}");
            proxy.set(Fault::None);
            let read = until_well("it serves again", || read(&**store, "d/f"));
            assert_eq!(read[..], *content.as_bytes(), "after {fault:?}");
        });
    }

    /// The looks before a write go through, and what it is about meets the fault: then it was done or not, and who asked for it is told that nobody knows.
    fn a_write_that_meets_the_fault_is_unknown(&self, sends: &'static [u8]) {
        let direct = open(&(self.spec)(self.port));
        self.under_each_fault(|Wired { proxy, store, .. }, fault| {
            let path = format!("written/{fault:?}");
            let (before, new) = ("written before", format!("written under {fault:?}"));
            until_well("it is written", || write(&*direct, &path, before, PathWrite::Whole));
            proxy.set_after(sends, fault);
            // On a loaded machine a look before it may be late: then it was not begun.
            let error = until_well("the looks before it are in time", || {
                let write = || write(&**store, &path, new.clone(), PathWrite::Whole);
                let error = failed("write", fault, in_time("write", fault, write));
                if error.is_unknown() { Ok(error) } else { Err(error) }
            });
            proxy.set(Fault::None);
            let now = until_well("it is read", || read(&*direct, &path));
            assert!(now == before.as_bytes() || now == new.as_bytes(), "{now:?} after {error}");
            let after = format!("acknowledged after {fault:?}");
            until_well("it is written", || write(&**store, &path, after.clone(), PathWrite::Whole));
            assert_eq!(until_well("it is read", || read(&*direct, &path))[..], *after.as_bytes());
        });
    }
}

fn content() -> String {
    "0123456789".repeat(500)
}

#[test]
fn every_call_of_s3_ends_in_time_and_says_what_it_is() {
    let server = moto();
    let case = Case { port: server.port(), writable: true, spec: &s3 };
    write(&*open(&s3(server.port())), "d/f", content(), PathWrite::Whole).expect("it is written");
    case.every_call_ends_in_time(&content());
    case.a_write_that_meets_the_fault_is_unknown(b"PUT /");
}

#[cfg(feature = "azure")]
#[test]
fn every_call_of_azure_ends_in_time_and_says_what_it_is() {
    let server = crate::servers::azure::azurite();
    let case = Case { port: server.port(), writable: true, spec: &crate::subjects::azure };
    write(&*open(&crate::subjects::azure(server.port())), "d/f", content(), PathWrite::Whole)
        .expect("it is written");
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
    let case = Case { port: server.port(), writable: false, spec: &crate::web::mount };
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
    let by_hash = |port| s3(port).option("addressing", "content");
    let case = Case { port: server.port(), writable: true, spec: &by_hash };
    case.under_each_fault(|Wired { proxy, store, .. }, fault| {
        let content = Bytes::from(format!("some content for {fault:?}"));
        let id = ContentId::Blake3(*blake3::hash(&content).as_bytes());
        let write = || block_on(contents(&**store).write(&id, std::slice::from_ref(&content)));
        let read = || block_on(contents(&**store).read(&id, ByteRange::ALL));
        proxy.set(fault);
        failed("write", fault, in_time("write", fault, write));
        failed("read", fault, in_time("read", fault, read));
        proxy.set(Fault::None);
        until_well("it is written", write);
        assert_eq!(until_well("it is read", read), content);
    });
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
