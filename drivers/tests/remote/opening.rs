//! What is found out when a mount is opened, and what is refused before anything is asked of a server.

use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::{DriverContext, PathWrite, StoreError};
use nexus_messages::ErrorKind;
use nexus_messages::syscall::MountSpec;

use crate::servers::free_port;
use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::{moto, s3rver};
use crate::servers::small::Small;
use crate::subjects::{apart, env, names, open, paths, read, s3, try_open, try_open_in, write};

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let nowhere = || s3(1);
    for (spec, saying) in [
        (MountSpec::new("s3"), "needs the option \"bucket\""),
        (nowhere().option("buckets", "x"), "no option \"buckets\""),
        (nowhere().option("timeout_ms", "soon"), "timeout_ms is \"soon\""),
        (nowhere().option("allow_http", "false"), "endpoint must be"),
        (nowhere().option("secret_key", "env:NEXUS_NO_SUCH_VARIABLE"), "secret_key: there is no variable"),
        (nowhere().option("anonymous", "true"), "anonymous is true"),
        (MountSpec::new("s3").option("bucket", "b").option("secret_key", "x"), "access_key is not"),
        (nowhere().option("region", ""), "region is \"\", and must be"),
        (nowhere().option("write_back_at_once", "3"), "write_back_at_once is given"),
        (MountSpec::new("azure").option("container", ""), "container is \"\""),
    ] {
        let error = try_open(&spec).expect_err("it is refused");
        assert!(matches!(error, StoreError::BadOption { .. }), "{error:?}");
        assert!(error.to_string().contains(saying), "{error}");
    }
}

#[test]
fn a_server_that_honours_conditions_is_told_from_one_that_does_not() {
    let honours = moto();
    let store = open(&s3(honours.port()));
    assert!(paths(&*store).capabilities().exclusive);
    assert_eq!(names(&*store, ""), [""; 0], "nothing is left of trying");
    let ignores = s3rver();
    let store = open(&s3(ignores.port()));
    assert!(!paths(&*store).capabilities().exclusive);
    assert_eq!(names(&*store, ""), [""; 0], "nothing is left of trying");
}

#[test]
fn a_mount_that_is_opened_again_does_not_try_the_server_again_and_one_that_is_asked_for_does() {
    let (server, folder) = (Small::start(Duration::ZERO), tempfile::tempdir().expect("a folder"));
    let open = |spec: &MountSpec, is_again: bool| {
        let context = DriverContext::new(env(), env().pool("mount", 2, 8), Some(folder.path().into()));
        let before = server.requests();
        let store = try_open_in(spec, if is_again { context.again() } else { context }).expect("it answers");
        let can = paths(&*store).capabilities();
        (server.requests() - before, can.exclusive, can.if_match)
    };
    let spec = s3(server.port());
    let (asked, ..) = open(&spec, true);
    assert!(asked > 5, "nothing is known yet: {asked}");
    let (asked, exclusive, if_match) = open(&spec, true);
    assert!(asked <= 2, "{asked}");
    let (asked, ..) = open(&spec, false);
    assert!(asked > 5, "who asks for a mount hears what is so now: {asked}");
    let (asked, ..) = open(&spec.clone().option("prefix", "p"), true);
    assert!(asked > 5, "it is another one: {asked}");
    let tried = open(&spec, false);
    assert_eq!((tried.1, tried.2), (exclusive, if_match));
}

#[test]
fn a_mount_that_is_read_only_writes_nothing_and_promises_nothing() {
    let server = moto();
    let writer = open(&s3(server.port()));
    write(&*writer, "a/b", "1", PathWrite::Whole).expect("it is written");
    let store = open(&s3(server.port()).read_only());
    assert!(store.read_only() && !paths(&*store).capabilities().exclusive);
    assert_eq!(&read(&*store, "a/b").expect("it is read")[..], b"1");
    let refused = write(&*store, "c", "2", PathWrite::Whole).expect_err("it is refused");
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused:?}");
    let refused = block_on(paths(&*store).delete("a/b")).expect_err("it is refused");
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused:?}");
    assert_eq!(names(&*writer, ""), ["a"]);
}

#[test]
fn a_mount_that_must_not_write_opens_and_promises_nothing() {
    let server = moto();
    write(&*open(&s3(server.port())), "a", "1", PathWrite::Whole).expect("it is written");
    let proxy = Proxy::start(server.port());
    proxy.set(Fault::Denied);
    let store = open(&s3(proxy.port()));
    assert!(!paths(&*store).capabilities().exclusive);
    assert_eq!(&read(&*store, "a").expect("it is read")[..], b"1");
    for how in [PathWrite::Whole, PathWrite::Exclusive] {
        let denied = write(&*store, "b", "2", how).expect_err("it is refused");
        assert_eq!(denied.kind(), ErrorKind::PermissionDenied, "{denied:?}");
        assert!(!denied.is_backend_failure() && !denied.is_unknown(), "{denied:?}");
    }
}

#[test]
fn a_server_that_is_not_there_and_a_bucket_that_is_not_are_told() {
    let nobody = s3(free_port()).option("retries", "0").option("timeout_ms", "3000");
    let error = try_open(&nobody).expect_err("nobody is there");
    assert!(error.is_backend_failure() && error.to_string().contains("reached"), "{error:?}");
    let server = moto();
    let error = try_open(&s3(server.port()).option("bucket", "none")).expect_err("it is not there");
    assert_eq!(error.to_string(), "the bucket \"none\" is not there");
}

#[test]
fn keys_are_as_other_tools_see_them() {
    let server = moto();
    let prefixed = open(&apart(s3(server.port())).option("prefix", "team/data"));
    write(&*prefixed, "with space/ä+%20.txt", "1", PathWrite::Whole).expect("it is written");
    let whole = open(&s3(server.port()));
    assert_eq!(&read(&*whole, "team/data/with space/ä+%20.txt").expect("it is there")[..], b"1");
    write(&*whole, "team/data/other", "2", PathWrite::Whole).expect("it is written");
    assert_eq!(names(&*prefixed, ""), ["other", "with space"]);
    let before = block_on(paths(&*prefixed).stat("other")).expect("it is there").tag;
    write(&*whole, "team/data/other", "3", PathWrite::Whole).expect("it is written");
    assert_ne!(block_on(paths(&*prefixed).stat("other")).expect("it is there").tag, before);
}
