//! A wire that fails: every call ends in time and says what it is, no wrong byte is read, and all is well when the wire is.

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectStore, PathWrite, StoreError};

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::moto;
use crate::subjects::{env, open, paths, read, s3, write};

const TIMEOUT: Duration = Duration::from_secs(2);

/// A change looks before it and after it: each look, and the change, may take its time.
const STEPS: u32 = 4;

/// What the machine may be late.
const SLACK: Duration = Duration::from_secs(3);

const FAULTS: [Fault; 7] =
    [Fault::Cut, Fault::Stall, Fault::Lost, Fault::Slow, Fault::Garbage, Fault::Unavailable, Fault::Half];

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
fn failed<T: std::fmt::Debug>(what: &str, fault: Fault, answer: Result<T, StoreError>) -> StoreError {
    let error = answer.expect_err(&format!("{what} under {fault:?}"));
    assert!(error.is_backend_failure(), "{what} under {fault:?}: {error:?}");
    error
}

fn mounted(proxy: &Proxy) -> Arc<dyn ObjectStore> {
    let patience = TIMEOUT.as_millis().to_string();
    open(&s3(proxy.port()).option("timeout_ms", patience).option("retries", "1"))
}

#[test]
fn every_call_ends_in_time_and_says_what_it_is() {
    let server = moto();
    let proxy = Proxy::start(server.port());
    let store = mounted(&proxy);
    let content = "0123456789".repeat(500);
    write(&*store, "d/f", content.clone(), PathWrite::Whole).expect("it is written");
    for fault in FAULTS {
        proxy.set(fault);
        let looked = in_time("stat", fault, || block_on(paths(&*store).stat("d/f")));
        failed("stat", fault, looked);
        failed("read", fault, in_time("read", fault, || read(&*store, "d/f")));
        let listed = in_time("list", fault, || block_on(paths(&*store).list("d", None, 9)));
        failed("list", fault, listed);
        for how in [PathWrite::Whole, PathWrite::Exclusive] {
            failed("write", fault, in_time("write", fault, || write(&*store, "d/g", "new", how)));
        }
        failed("delete", fault, in_time("delete", fault, || block_on(paths(&*store).delete("d/f"))));
        failed("probe", fault, in_time("probe", fault, || block_on(store.probe())));
        proxy.set(Fault::None);
        assert_eq!(read(&*store, "d/f").expect("it is read")[..], *content.as_bytes(), "after {fault:?}");
    }
}

/// The looks before a write go through, and what it is about meets the fault.
#[test]
fn a_write_whose_answer_is_lost_is_told_as_unknown_and_was_done_or_not() {
    let server = moto();
    let proxy = Proxy::start(server.port());
    let store = mounted(&proxy);
    let transport = s3(proxy.port()).option("addressing", "content");
    let blobs = open(&transport.option("timeout_ms", TIMEOUT.as_millis().to_string()).option("retries", "0"));
    let nexus_kernel::hal::Addressing::Content(contents) = blobs.addressing() else {
        panic!("it is addressed by content");
    };
    let content = bytes::Bytes::from_static(b"some content");
    let id = nexus_messages::ContentId::Blake3(*blake3::hash(&content).as_bytes());
    block_on(contents.write(&id, std::slice::from_ref(&content))).expect("it is written");
    proxy.set(Fault::Lost);
    let error = block_on(contents.write(&id, std::slice::from_ref(&content)));
    failed("write", Fault::Lost, error);
    proxy.set(Fault::None);
    block_on(contents.write(&id, std::slice::from_ref(&content))).expect("it is written again");
    write(&*store, "f", "whole", PathWrite::Whole).expect("it is written");
    assert_eq!(&read(&*store, "f").expect("it is read")[..], b"whole");
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
