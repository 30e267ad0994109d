//! One call that goes wrong.

use std::time::{Duration, Instant};

use nexus::{ErrorKind, Executed, MountState};
use nexus_drivers::faults::{Fault, Where};

use crate::bench::{Bench, LARGE, refused, until};

/// A deadline that no healthy call misses, on the slowest machine.
const LONG_MS: u64 = 30_000;

/// A deadline that a call that hangs is to miss soon.
const SHORT_MS: u64 = 300;

#[test]
fn a_read_that_hangs_is_told_at_the_deadline_and_was_not_executed() {
    let bench = Bench::new();
    bench.mount_files(SHORT_MS);
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.once(Where::Look, Fault::Hang);
    let began = Instant::now();
    let error = refused(bench.nx.read("/bad/f"), ErrorKind::TimedOut, Executed::No);
    assert!(began.elapsed() >= Duration::from_millis(SHORT_MS), "not before it");
    assert!(began.elapsed() < Duration::from_millis(LONG_MS), "and not by some other limit");
    assert_eq!((error.path(), error.op().name()), (Some("/bad/f"), "read"));
    assert!(error.cause().is_some_and(|cause| cause.contains("300ms")), "{error}");
    assert_eq!(bench.nx.read("/bad/f").expect("the next one is a new call"), "one");
    let calls = bench.status("/bad").calls;
    assert_eq!((calls.failed, calls.timed_out, calls.panicked, calls.in_flight), (1, 1, 0, 0));
}

#[test]
fn a_change_of_plain_files_that_hangs_is_unknown_and_lets_go_of_its_path() {
    for (fault, now) in [(Fault::Hang, "one"), (Fault::DoneThenHang, "two")] {
        let bench = Bench::new();
        bench.mount_files(SHORT_MS);
        bench.nx.write("/bad/f", "one").expect("it writes");
        bench.faults.once(Where::Change, fault);
        refused(bench.nx.write("/bad/f", "two"), ErrorKind::TimedOut, Executed::Unknown);
        // The path's lock is needed to read, and to write, on such a mount.
        assert_eq!(bench.nx.read("/bad/f").expect("nobody holds it"), now, "{fault:?}");
        bench.nx.write("/bad/f", "three").expect("nobody holds it");
        assert_eq!(bench.nx.read("/bad/f").expect("it reads"), "three");
    }
}

/// Blob first, row second: what no row names is nothing, so there is no doubt about it.
#[test]
fn a_write_by_hash_that_hangs_was_not_executed() {
    for fault in [Fault::Hang, Fault::DoneThenHang, Fault::Panic, Fault::DoneThenPanic, Fault::Error] {
        let bench = Bench::new();
        bench.mount_blobs(SHORT_MS);
        bench.nx.write("/bad/f", "one").expect("it writes");
        bench.faults.once(Where::Change, fault);
        let error = bench.nx.write("/bad/f", vec![2; LARGE]).expect_err("it goes wrong");
        assert_eq!(error.executed(), Executed::No, "{fault:?}: {error}");
        assert_eq!(bench.nx.read("/bad/f").expect("it is there"), "one");
        bench.nx.write("/bad/f", vec![3; LARGE]).expect("nobody holds it");
        assert_eq!(bench.nx.read("/bad/f").expect("it is there"), vec![3; LARGE]);
    }
}

#[test]
fn a_panic_is_told_with_its_place_to_the_caller_and_to_the_supervisor() {
    for (fault, executed) in [
        (Fault::Panic, Executed::Unknown),
        (Fault::PanicAtOnce, Executed::Unknown),
        (Fault::DoneThenPanic, Executed::Unknown),
    ] {
        let bench = Bench::new();
        bench.mount_files(LONG_MS);
        let before = bench.actor().generation;
        bench.faults.once(Where::Change, fault);
        let error = refused(bench.nx.write("/bad/f", "x"), ErrorKind::Crashed, executed);
        let cause = error.cause().expect("a panic says something");
        assert!(cause.contains("an injected panic") && cause.contains("switches.rs:"), "{cause}");

        let actor = until("it was restarted", || Some(bench.actor()).filter(|now| now.generation > before));
        let exit = actor.last_exit.expect("it has ended once");
        assert!(&*exit.kind == "panic" && exit.told.contains("an injected panic"), "{exit:?}");
        assert!(exit.place.is_some_and(|place| place.contains("switches.rs:")));
        assert_eq!(exit.handling.as_deref(), Some("writing a file"));
        until("it serves", || (bench.status("/bad").state == MountState::Serving).then_some(()));
        let status = bench.status("/bad");
        assert_eq!(status.calls.panicked, 1);
        assert!(status.last_failure.is_some_and(|last| last.what.contains("an injected panic")));
        bench.nx.write("/bad/f", "x").expect("it is opened anew");
        bench.others_serve();
    }
}

#[test]
fn a_panic_in_a_read_changed_nothing() {
    let bench = Bench::new();
    bench.mount_files(LONG_MS);
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.once(Where::Look, Fault::Panic);
    refused(bench.nx.read("/bad/f"), ErrorKind::Crashed, Executed::No);
    bench.faults.once(Where::Look, Fault::PanicAtOnce);
    // Looked for first: nothing was begun to be changed.
    refused(bench.nx.write("/bad/f", "two"), ErrorKind::Crashed, Executed::No);
    assert_eq!(bench.nx.read("/bad/f").expect("it is there"), "one");
}

/// A removal of a directory is many calls of the driver.
#[test]
fn a_removal_that_ends_half_way_is_unknown() {
    let bench = Bench::new();
    bench.mount_files(LONG_MS);
    for n in 0..4 {
        bench.nx.write(format!("/bad/d/{n}"), "x").expect("it writes");
    }
    bench.faults.once_after(2, Where::Change, Fault::Error);
    refused(bench.nx.remove_all("/bad/d"), ErrorKind::Io, Executed::Unknown);
    assert_eq!(bench.nx.readdir("/bad/d").expect("it is there").len(), 2);
}

#[test]
fn a_caller_that_goes_away_leaves_no_call_behind() {
    let bench = Bench::new();
    bench.mount_files(LONG_MS);
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.once(Where::Look, Fault::Hang);
    let nx = bench.nx.as_async();
    let mut read = Box::pin(nx.read("/bad/f"));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(Future::poll(read.as_mut(), &mut cx).is_pending());
    assert_eq!(bench.status("/bad").calls.in_flight, 1);
    drop(read);
    let calls = bench.status("/bad").calls;
    assert_eq!((calls.in_flight, calls.failed), (0, 0), "given up by its caller, and nothing is known of it");
}

#[test]
fn what_is_wrong_with_an_option_of_the_mount_is_told_before_anything_happens() {
    let bench = Bench::new();
    let spec = bench.spec("path-local", "files").option("deadline_ms", "soon");
    let error = refused(bench.nx.mount("/m", spec), ErrorKind::InvalidArgument, Executed::No);
    assert!(error.cause().is_some_and(|cause| cause.contains("deadline_ms")), "{error}");
    assert_eq!(bench.nx.mounts().expect("it answers").len(), 1);
}
