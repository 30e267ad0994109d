//! Many calls that go wrong: the mount is left alone for a while, and comes back.

use std::thread;
use std::time::Duration;

use nexus::{ErrorKind, Executed, MountState};
use nexus_drivers::faults::{Fault, Where};

use crate::bench::{Bench, FAULTY_PATH, refused, until};

#[test]
fn a_driver_that_fails_too_often_is_not_called_until_it_answers() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    bench.nx.write("/bad/f", "one").expect("it writes");
    // Nor does it answer when it is opened anew.
    for at in [Where::Look, Where::Probe] {
        bench.faults.always(at, Fault::Error);
    }
    let mut failed = 0;
    let error = until("it was refused", || {
        let calls = bench.faults.calls(Where::Look);
        let error = bench.nx.read("/bad/f").expect_err("it fails");
        assert_eq!(error.executed(), Executed::No);
        if error.kind() == ErrorKind::Unavailable {
            assert_eq!(bench.faults.calls(Where::Look), calls, "the driver was called all the same");
            return Some(error);
        }
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        failed += 1;
        None
    });
    assert!(failed >= 5, "refused after {failed} failures");
    let cause = error.cause().expect("it says why");
    let said = ["/bad", "tried again in", "an injected fault"];
    assert!(said.iter().all(|words| cause.contains(words)), "{cause}");
    refused(bench.nx.write("/bad/g", "two"), ErrorKind::Unavailable, Executed::No);

    let status = bench.status("/bad");
    assert!(status.calls.refused >= 2, "{status:?}");
    until("it is opened anew, in vain", || {
        let state = bench.status("/bad").state;
        matches!(state, MountState::Failed { .. } | MountState::Restarting { .. }).then_some(())
    });
    bench.others_serve();

    bench.faults.clear();
    assert_eq!(until("it serves again", || bench.nx.read("/bad/f").ok()), "one");
    until("it is well", || (bench.status("/bad").state == MountState::Serving).then_some(()));
    bench.nx.write("/bad/g", "two").expect("it writes");
}

/// Its backend cannot be opened anew: the content would be gone. It must come back all the same.
#[test]
fn a_driver_in_memory_keeps_what_it_stores_over_all_of_it() {
    // Nothing is cached: each read asks the driver.
    let bench = Bench::with(|config| config.content_cache_bytes(0));
    let large = vec![7; 64 * 1024];
    bench.nx.mount("/bad", nexus::MountSpec::new("faulty-memory")).expect("it mounts");
    bench.nx.write("/bad/f", large.clone()).expect("it writes");
    for fault in [Fault::Error, Fault::Panic] {
        bench.faults.always(Where::Change, fault);
        until("it was refused", || {
            let error = bench.nx.write("/bad/g", vec![1; 64 * 1024]).expect_err("it fails");
            (error.kind() == ErrorKind::Unavailable).then_some(())
        });
        bench.faults.clear();
        until("it serves again", || bench.nx.write("/bad/g", vec![1; 64 * 1024]).ok());
        assert_eq!(bench.nx.read("/bad/f").expect("it is there"), large);
    }
    assert_eq!(bench.status("/bad").generation, 2, "the placeholder, and the one driver");
    bench.others_serve();
}

/// Each has but a part of its time left when its turn comes.
#[test]
fn calls_that_hang_one_after_the_other_open_it_too() {
    let bench = Bench::new();
    let spec = bench.spec(FAULTY_PATH, "files").option("concurrency", "1").option("deadline_ms", "400");
    bench.nx.mount("/bad", spec).expect("it mounts");
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.always(Where::Look, Fault::Hang);
    bench.faults.always(Where::Open, Fault::Hang);
    thread::scope(|scope| {
        let nx = &bench.nx;
        let refused = || nx.stat("/bad/f").expect_err("it fails").kind() == ErrorKind::Unavailable;
        for nth in 0..4 {
            scope.spawn(move || {
                thread::park_timeout(Duration::from_millis(100) * nth);
                until("it was refused", || refused().then_some(()));
            });
        }
    });
    bench.faults.clear();
    until("it serves again", || bench.nx.read("/bad/f").ok());
}

#[test]
fn calls_that_all_hang_open_it_too() {
    let bench = Bench::new();
    bench.mount_files(100);
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.always(Where::Look, Fault::Hang);
    bench.faults.always(Where::Open, Fault::Hang);
    until("it was refused", || {
        let error = bench.nx.stat("/bad/f").expect_err("it fails");
        (error.kind() == ErrorKind::Unavailable).then_some(())
    });
    bench.others_serve();
    bench.faults.clear();
}

#[test]
fn a_mount_that_nobody_uses_is_asked_how_it_is() {
    let bench = Bench::new();
    let spec = bench.spec(FAULTY_PATH, "files").option("probe_ms", "20");
    bench.nx.mount("/bad", spec).expect("it mounts");
    let opened = bench.status("/bad").generation;
    bench.faults.once_after(2, Where::Probe, Fault::Error);
    until("it was opened anew", || (bench.status("/bad").generation > opened).then_some(()));
    let last = bench.status("/bad").last_failure.expect("the probe failed");
    assert!(last.what.contains("an injected fault"), "{last:?}");
}

#[test]
fn a_mount_that_answers_again_is_well_also_when_nobody_calls_it() {
    let bench = Bench::new();
    let spec = bench.spec(FAULTY_PATH, "files").option("probe_ms", "20");
    bench.nx.mount("/bad", spec).expect("it mounts");
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.always(Where::Look, Fault::Error);
    until("it was refused", || {
        let error = bench.nx.read("/bad/f").expect_err("it fails");
        (error.kind() == ErrorKind::Unavailable).then_some(())
    });
    bench.faults.clear();
    let looks = bench.faults.calls(Where::Look);
    until("it is well", || (bench.status("/bad").state == MountState::Serving).then_some(()));
    assert_eq!(bench.faults.calls(Where::Look), looks, "nobody called it");
}

#[test]
fn a_probe_on_demand_tells_what_is_wrong_and_has_it_mended() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    let kernel = bench.nx.kernel().expect("an administrator's handle");
    let point = nexus::VPath::parse("/bad").expect("it is one");
    let probe =
        |point: &nexus::VPath| nexus::actors::block_on(kernel.probe_mount(&bench.nx.caller().zone, point));
    probe(&point).expect("it answers");
    let opened = bench.status("/bad").generation;
    bench.faults.once(Where::Probe, Fault::Error);
    refused(probe(&point), ErrorKind::Io, Executed::No);
    until("it was opened anew", || (bench.status("/bad").generation > opened).then_some(()));
    refused(probe(&nexus::VPath::parse("/none").expect("it is one")), ErrorKind::NotFound, Executed::No);
}
