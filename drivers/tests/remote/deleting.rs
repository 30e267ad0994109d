//! Many keys that are deleted in one call.

use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectStore, StoreError};
use nexus_messages::ErrorKind;

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::{moto, put, request};
use crate::servers::small::Small;
use crate::subjects::{names, open, paths, s3};

/// A server with so many keys in a folder, whose names are given.
fn filled(count: usize) -> (Small, Vec<String>) {
    let server = Small::start(Duration::ZERO);
    request(server.port(), &format!("POST /bkt?fill={count} HTTP/1.1"));
    (server, (0..count).map(|number| format!("listed/f-{number:06}.txt")).collect())
}

fn deleted(store: &dyn ObjectStore, some: &[String]) -> Vec<Result<(), StoreError>> {
    let each = block_on(paths(store).delete_many(some)).expect("the server answers");
    assert_eq!(each.len(), some.len());
    each
}

#[test]
fn a_thousand_keys_go_in_one_request() {
    let (server, keys) = filled(1_000);
    let store = open(&s3(server.port()));
    assert_eq!(paths(&*store).capabilities().deletes_at_once, 1_000);
    let before = server.requests();
    assert!(deleted(&*store, &keys).iter().all(Result::is_ok));
    assert_eq!(server.requests() - before, 1);
    assert!(names(&*store, "").is_empty());
    assert!(deleted(&*store, &keys[..9]).iter().all(Result::is_ok), "what is not there is deleted");
}

#[test]
fn a_server_that_takes_no_list_is_told_each_key_and_asked_for_no_list_again() {
    let (server, keys) = filled(60);
    server.take_no_lists();
    let store = open(&s3(server.port()));
    assert!(deleted(&*store, &keys[..20]).iter().all(Result::is_ok));
    let most = paths(&*store).capabilities().deletes_at_once;
    assert!((2..1_000).contains(&most), "{most}");
    let before = server.requests();
    assert!(deleted(&*store, &keys[20..]).iter().all(Result::is_ok));
    assert_eq!(server.requests() - before, 40);
    assert!(names(&*store, "").is_empty());
}

#[test]
fn a_key_that_the_server_keeps_is_told_by_its_name_and_without_its_words() {
    let (server, mut keys) = filled(3);
    keys.insert(1, "listed/locked".into());
    put(server.port(), "listed/locked", "1");
    let store = open(&s3(server.port()));
    let each = deleted(&*store, &keys);
    let kept: Vec<_> = each.iter().map(Result::is_err).collect();
    assert_eq!(kept, [false, true, false, false]);
    let error = each[1].as_ref().expect_err("it is kept");
    assert_eq!((error.kind(), error.is_unknown()), (ErrorKind::PermissionDenied, false));
    let told = error.to_string();
    assert!(told.contains("deleting \"listed/locked\"") && told.contains("AccessDenied"), "{told}");
    assert!(!told.contains("is mine"), "{told}");
    assert_eq!(names(&*store, "listed"), ["locked"]);
}

#[test]
fn names_that_a_list_would_change_are_deleted_and_their_neighbours_are_not() {
    let server = moto();
    for key in ["d/a", "d/a%20", "d/a%26amp%3Bb", "d/a%26b", "d/%3Ca%3E"] {
        put(server.port(), key, "1");
    }
    let store = open(&s3(server.port()));
    let some = ["d/a ", "d/a&amp;b", "d/<a>"].map(String::from);
    assert!(deleted(&*store, &some).iter().all(Result::is_ok));
    assert_eq!(names(&*store, "d"), ["a", "a&b"]);
}

#[test]
fn an_answer_that_is_lost_leaves_open_what_was_deleted() {
    let server = moto();
    let keys: Vec<_> = (0..9).map(|number| format!("d/{number}")).collect();
    keys.iter().for_each(|key| put(server.port(), key, "1"));
    let wire = Proxy::start(server.port());
    let store = open(&s3(wire.port()).option("timeout_ms", "1500"));
    wire.set_after(b"POST", Fault::Lost);
    let error = block_on(paths(&*store).delete_many(&keys)).expect_err("its answer is lost");
    assert!(error.is_unknown(), "{error:?}");
    assert!(error.to_string().contains("deleting the keys from \"d/0\""), "{error}");
    wire.set(Fault::None);
    assert!(deleted(&*store, &keys).iter().all(Result::is_ok), "it may be repeated");
    assert!(names(&*store, "").is_empty());
}
