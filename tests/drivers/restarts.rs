//! Drivers whose actors end, and drivers that cannot be opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nexus::{ActorState, ErrorKind, Executed, Kill, MountState, blocking};
use nexus_drivers::faults::{Fault, Faults, Where};

use crate::bench::{Bench, FAULTY_PATH, config, refused, until};

/// Content of the callers: more than what goes into the metastore.
const SIZE: usize = 20 * 1024;

/// Reads and writes on threads of their own, until told to stop; each call must succeed.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    pub(crate) calls: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// Two readers of a file in `at`, and two writers each of a file of its own there.
    pub(crate) fn on(nx: &blocking::Nexus, at: &str) -> Self {
        nx.write(format!("{at}/read"), vec![5; SIZE]).expect("it writes");
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4_u8).map(|number| {
            let (nx, at, stop, calls) = (nx.clone(), at.to_owned(), stop.clone(), calls.clone());
            thread::spawn(move || {
                let own = format!("{at}/w{number}");
                for round in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if number < 2 {
                        assert_eq!(nx.read(format!("{at}/read")).expect("a read fails"), vec![5; SIZE]);
                    } else {
                        let content = vec![round.to_le_bytes()[0]; SIZE];
                        nx.write(&*own, content.clone()).expect("a write fails");
                        assert_eq!(nx.read(&*own).expect("what was written is there"), content);
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, calls, threads }
    }

    /// Waits until so many more calls were made.
    pub(crate) fn go_on(&self, more: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + more;
        until("the callers go on", || {
            assert!(!self.threads.iter().any(thread::JoinHandle::is_finished), "a caller failed");
            (self.calls.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no call failed");
        }
        self.calls.load(Ordering::Relaxed)
    }
}

#[test]
fn no_call_fails_of_a_drivers_actor_that_ends_in_whatever_way() {
    // Nothing is cached: each read asks the driver.
    let bench = Bench::with(|config| config.content_cache_bytes(0));
    bench.mount_files(30_000);
    bench.nx.mount("/blobs", bench.spec("cas-local", "blobs")).expect("it mounts");
    let loads = [Load::on(&bench.nx, "/bad"), Load::on(&bench.nx, "/blobs")];
    for (how, points) in [
        (Kill::Panic, &["/bad", "/blobs"][..]),
        (Kill::Error, &["/bad", "/blobs"]),
        (Kill::Brutal, &["/bad", "/blobs"]),
        // Its watchdog takes some seconds.
        (Kill::Wedge, &["/bad"]),
    ] {
        for &point in points {
            let before = bench.status(point);
            let generation = bench.find(&before.actor).generation;
            assert!(bench.nx.kill(&before.actor, how).expect("it can be killed"));
            until("it was restarted", || {
                let actor = bench.find(&before.actor);
                (actor.generation > generation && actor.state == ActorState::Running).then_some(())
            });
            until("its driver was opened anew", || {
                let now = bench.status(point);
                (now.generation > before.generation && now.state == MountState::Serving).then_some(())
            });
        }
        loads.iter().for_each(|load| load.go_on(3));
    }
    for load in loads {
        assert!(load.end() > 0);
    }
    assert_eq!(bench.find("nexus/drivers").generation, 1);
}

#[test]
fn no_call_fails_when_the_drivers_supervisor_is_restarted() {
    let bench = Bench::with(|config| config.content_cache_bytes(0));
    bench.mount_files(30_000);
    let load = Load::on(&bench.nx, "/bad");
    for how in [Kill::Panic, Kill::Error, Kill::Brutal] {
        let generation = bench.find("nexus/drivers").generation;
        let driver = bench.actor().generation;
        assert!(bench.nx.kill("nexus/drivers", how).expect("it can be killed"));
        until("it was restarted", || {
            let is_new = bench.find("nexus/drivers").generation > generation;
            (is_new && bench.actor().generation > driver).then_some(())
        });
        load.go_on(10);
    }
    load.end();
}

#[test]
fn a_driver_that_could_not_be_opened_has_failed_also_while_it_is_tried_again() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    bench.faults.once(Where::Open, Fault::Error);
    bench.faults.always(Where::Open, Fault::Hang);
    let path = bench.status("/bad").actor;
    until("it was killed", || bench.nx.kill(&path, Kill::Panic).expect("it can be killed").then_some(()));
    until("it is being tried again", || (bench.faults.hits(Where::Open, Fault::Hang) > 0).then_some(()));
    let status = bench.status("/bad");
    let MountState::Failed { cause, .. } = &status.state else { panic!("{status:?}") };
    assert!(cause.contains("an injected fault"), "{cause}");
    bench.faults.clear();
}

/// More deaths in a row than any supervisor's intensity allows, each followed by an opening that fails.
#[test]
fn a_driver_that_dies_and_cannot_be_opened_harms_only_its_mount_however_long() {
    let bench = Bench::with(|config| config.restarts(3, std::time::Duration::from_secs(60)));
    bench.mount_files(30_000);
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.always(Where::Open, Fault::Error);
    let path = bench.status("/bad").actor;
    for _ in 0..6 {
        let generation = bench.find(&path).generation;
        until("it was killed", || bench.nx.kill(&path, Kill::Panic).expect("it can be killed").then_some(()));
        until("it was restarted", || (bench.find(&path).generation > generation).then_some(()));
    }
    let before = bench.faults.hits(Where::Open, Fault::Error);
    until("it is tried again and again", || {
        (bench.faults.hits(Where::Open, Fault::Error) > before + 5).then_some(())
    });
    let status = bench.status("/bad");
    let (MountState::Failed { cause, .. } | MountState::Restarting { cause }) = &status.state else {
        panic!("{status:?}");
    };
    assert!(cause.contains("an injected fault"), "{cause}");
    assert_eq!(bench.nx.read("/bad/f").expect("the old instance serves"), "one");
    bench.others_serve();

    bench.faults.clear();
    until("it is opened", || (bench.status("/bad").state == MountState::Serving).then_some(()));
    assert!(bench.status("/bad").generation > status.generation);
    assert_eq!(bench.nx.read("/bad/f").expect("it is there"), "one");
}

#[test]
fn a_mount_that_cannot_be_opened_at_boot_serves_as_soon_as_it_can() {
    for fault in [Fault::Error, Fault::Panic, Fault::PanicAtOnce, Fault::Hang, Fault::Block] {
        let bench = Bench::new();
        let spec = bench.spec(FAULTY_PATH, "files").option("open_ms", "200");
        bench.nx.mount("/bad", spec.clone()).expect("it mounts");
        bench.nx.write("/bad/f", "one").expect("it writes");
        bench.nx.shutdown().expect("it stops");

        let faults = Faults::new();
        faults.always(Where::Open, fault);
        let nx = blocking::connect(config(bench.folder.path(), &faults));
        let nx = nx.expect("one bad mount is no reason not to boot");
        let error = refused(nx.read("/bad/f"), ErrorKind::Unavailable, Executed::No);
        assert!(error.cause().is_some_and(|cause| cause.contains("/bad")), "{fault:?}: {error}");
        nx.write("/well", "x").expect("the others serve");
        // Whoever mounts it again is told what is wrong, and nothing is mounted twice.
        assert!(nx.mount("/bad", spec).is_err());
        faults.clear();
        assert_eq!(until("it serves", || nx.read("/bad/f").ok()), "one", "{fault:?}");
        nx.shutdown().expect("it stops");
    }
}

/// A mount whose driver hangs must not be there for ever.
#[test]
fn a_mount_in_trouble_can_be_detached() {
    let bench = Bench::new();
    bench.mount_files(100);
    bench.nx.write("/bad/f", "one").expect("it writes");
    for at in [Where::Look, Where::Open, Where::Probe] {
        bench.faults.always(at, Fault::Hang);
    }
    until("it is in trouble", || {
        let error = bench.nx.stat("/bad/f").expect_err("it hangs");
        (error.kind() == ErrorKind::Unavailable).then_some(())
    });
    bench.nx.unmount("/bad").expect("it is detached");
    refused(bench.nx.stat("/bad/f"), ErrorKind::NotFound, Executed::No);
    bench.others_serve();
}

/// Threads that never come back are lost, but not without end.
#[test]
fn a_driver_that_blocks_when_it_is_opened_holds_up_few_threads_and_no_actor() {
    let bench = Bench::new();
    let spec = bench.spec(FAULTY_PATH, "files").option("open_ms", "50");
    bench.nx.mount("/bad", spec).expect("it mounts");
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.always(Where::Open, Fault::Block);
    let path = bench.status("/bad").actor;
    assert!(bench.nx.kill(&path, Kill::Brutal).expect("it can be killed"));
    let last = until("no more are risked", || {
        let last = bench.status("/bad").last_failure?;
        last.what.contains("no more are risked").then_some(last)
    });
    assert_eq!(bench.faults.hits(Where::Open, Fault::Block), 8, "{last:?}");
    assert_eq!(bench.find(&path).generation, 2, "its actor was never held up");
    assert_eq!(bench.nx.read("/bad/f").expect("the old instance serves"), "one");
    bench.faults.clear();
}
