//! Replacing a mount's driver while calls go on.

use nexus::{Config, ErrorKind, Executed, MountSpec, MountState, SysSetattr, VPath, blocking};
use nexus_drivers::faults::{Fault, Where};

use crate::bench::{Bench, FAULTY_CAS, FAULTY_PATH, refused, until};
use crate::restarts::Load;

/// Swaps of each kind of mount.
const SWAPS: u64 = 200;

#[test]
fn no_call_fails_over_two_hundred_swaps_of_plain_files() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    swaps_under_load(&bench, "/bad", &[FAULTY_PATH, "path-local"], "files");
}

#[test]
fn no_call_fails_over_two_hundred_swaps_of_content_by_hash() {
    let bench = Bench::with(|config| config.content_cache_bytes(0));
    bench.mount_blobs(30_000);
    swaps_under_load(&bench, "/bad", &[FAULTY_CAS, "cas-local"], "blobs");
}

fn swaps_under_load(bench: &Bench, at: &str, drivers: &[&str], folder: &str) {
    let load = Load::on(&bench.nx, at);
    let mut generation = bench.status(at).generation;
    for n in 0..SWAPS {
        let driver = drivers[usize::try_from(n).expect("small") % drivers.len()];
        let spec = bench.spec(driver, folder).option("deadline_ms", (30_000 + n).to_string());
        let swapped = bench.nx.swap_driver(at, spec.clone()).expect("it is replaced");
        assert_eq!((swapped.from, swapped.to), (generation, generation + 1));
        assert_eq!(swapped.pause, std::time::Duration::ZERO, "no call waits");
        assert_eq!(swapped.left, 0, "all calls in the old one have ended");
        generation = swapped.to;
        let status = bench.status(at);
        assert_eq!((&status.driver, &status.options), (&spec.driver, &spec.options));
        if n % 20 == 0 {
            load.go_on(4);
        }
    }
    load.go_on(4);
    assert!(load.end() > 0);
    let status = bench.status(at);
    assert_eq!((status.state, status.calls.failed), (MountState::Serving, 0));
    bench.others_serve();
}

#[test]
fn a_swap_that_fails_leaves_the_old_driver_serving() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    bench.nx.write("/bad/f", "one").expect("it writes");
    let before = bench.status("/bad");
    let next = bench.spec(FAULTY_PATH, "files").option("open_ms", "200");
    let load = Load::on(&bench.nx, "/bad");
    for (at, fault, kind) in [
        (Where::Open, Fault::Error, ErrorKind::Io),
        (Where::Open, Fault::Panic, ErrorKind::Crashed),
        (Where::Open, Fault::PanicAtOnce, ErrorKind::Crashed),
        (Where::Open, Fault::Hang, ErrorKind::TimedOut),
        (Where::Open, Fault::Block, ErrorKind::TimedOut),
        (Where::Open, Fault::DoneThenHang, ErrorKind::TimedOut),
        (Where::Probe, Fault::Error, ErrorKind::Io),
        (Where::Probe, Fault::Panic, ErrorKind::Crashed),
        (Where::Probe, Fault::PanicAtOnce, ErrorKind::Crashed),
        (Where::Probe, Fault::Hang, ErrorKind::TimedOut),
    ] {
        bench.faults.once(at, fault);
        refused(bench.nx.swap_driver("/bad", next.clone()), kind, Executed::No);
        assert_eq!(bench.faults.hits(at, fault), 1, "{at:?} {fault:?}");
        let now = bench.status("/bad");
        assert_eq!((now.generation, &now.options), (before.generation, &before.options), "{fault:?}");
        assert_eq!(now.state, MountState::Serving);
        load.go_on(2);
    }
    bench.faults.clear();
    load.end();
    assert_eq!(bench.nx.read("/bad/f").expect("it is there"), "one");
    bench.nx.swap_driver("/bad", next).expect("and the next one succeeds");
    bench.others_serve();
}

#[test]
fn what_cannot_take_a_drivers_place_is_refused_before_anything_happens() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    bench.nx.mount("/memory", MountSpec::new("memory")).expect("it mounts");
    let swap = |at: &str, spec: MountSpec, kind| {
        let before = bench.status("/bad");
        refused(bench.nx.swap_driver(at, spec), kind, Executed::No);
        let now = bench.status("/bad");
        assert_eq!((now.generation, now.options), (before.generation, before.options));
    };
    swap("/bad", bench.spec("cas-local", "blobs"), ErrorKind::InvalidArgument);
    swap("/", bench.spec("path-local", "files"), ErrorKind::InvalidArgument);
    swap("/bad", MountSpec::new("no-such-driver"), ErrorKind::InvalidArgument);
    swap("/bad", bench.spec("path-local", "files").option("colour", "blue"), ErrorKind::InvalidArgument);
    swap("/bad", bench.spec("path-local", "files").option("open_ms", "soon"), ErrorKind::InvalidArgument);
    swap("/bad", bench.spec("path-local", "nowhere"), ErrorKind::InvalidArgument);
    swap("/bad", MountSpec::new("memory-path"), ErrorKind::NotSupported);
    swap("/memory", MountSpec::new("memory"), ErrorKind::NotSupported);
    swap("/none", bench.spec("path-local", "files"), ErrorKind::NotFound);
    swap("/bad/d", bench.spec("path-local", "files"), ErrorKind::NotFound);
    bench.others_serve();
}

#[test]
fn only_an_administrator_replaces_a_driver() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    let agent = bench.nx.agent("coder-7").expect("a name");
    let spec = bench.spec("path-local", "files");
    refused(agent.swap_driver("/bad", spec.clone()), ErrorKind::PermissionDenied, Executed::No);
    let call = SysSetattr::mount(VPath::parse("/bad").expect("it is one"), spec).replace();
    refused(agent.send(call), ErrorKind::PermissionDenied, Executed::No);
    assert_eq!(bench.status("/bad").driver, FAULTY_PATH);
}

#[test]
fn without_replace_another_mount_is_still_refused() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    let other = bench.spec("path-local", "files");
    refused(bench.nx.mount("/bad", other), ErrorKind::AlreadyExists, Executed::No);
    let mut file = SysSetattr::file(VPath::parse("/f").expect("it is one"));
    file.replace = true;
    refused(bench.nx.send(file), ErrorKind::InvalidArgument, Executed::No);
}

#[test]
fn the_next_boot_uses_the_driver_that_was_swapped_in() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    bench.nx.write("/bad/f", "one").expect("it writes");
    let read_only = bench.spec("path-local", "files").option("deadline_ms", "1234").read_only();
    bench.nx.swap_driver("/bad", read_only.clone()).expect("it is replaced");
    refused(bench.nx.write("/bad/f", "two"), ErrorKind::ReadOnly, Executed::No);
    bench.nx.shutdown().expect("it stops");

    let nx = blocking::connect(Config::new(bench.folder.path().join("data"))).expect("it boots");
    let mounts = nx.mounts().expect("it answers");
    let there = mounts.iter().find(|mount| mount.point.as_str() == "/bad").expect("it is mounted");
    assert_eq!(
        (&there.driver, &there.options, there.read_only),
        (&read_only.driver, &read_only.options, true)
    );
    assert_eq!(nx.read("/bad/f").expect("it is there"), "one");
    // And what is detached is remembered as it was last.
    nx.unmount("/bad").expect("it is detached");
    nx.mount("/bad", read_only).expect("it is attached");
    assert_eq!(nx.read("/bad/f").expect("it is there"), "one");
    nx.shutdown().expect("it stops");
}

/// Calls that hang inside the old driver are not waited for without end, and not lost.
#[test]
fn a_call_that_is_inside_the_old_driver_ends_there() {
    let bench = Bench::new();
    bench.mount_files(2_000);
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.once(Where::Change, Fault::DoneThenHang);
    let nx = bench.nx.clone();
    let writer = std::thread::spawn(move || nx.write("/bad/g", "two"));
    until("it hangs", || (bench.faults.hits(Where::Change, Fault::DoneThenHang) == 1).then_some(()));
    let swapped = bench.nx.swap_driver("/bad", bench.spec("path-local", "files")).expect("it is replaced");
    assert_eq!((swapped.calls, swapped.left), (1, 0), "{swapped:?}");
    refused(writer.join().expect("it ends"), ErrorKind::TimedOut, Executed::Unknown);
    assert_eq!(bench.nx.read("/bad/g").expect("it was done"), "two");
}

/// The mount is being replaced by a driver that takes its time to open: nobody else is held up by it.
#[test]
fn a_swap_that_hangs_holds_up_neither_calls_nor_other_mounts() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    bench.nx.write("/bad/f", "one").expect("it writes");
    bench.faults.once(Where::Open, Fault::Block);
    let (nx, spec) = (bench.nx.clone(), bench.spec(FAULTY_PATH, "files").option("open_ms", "50000"));
    let swap = std::thread::spawn(move || nx.swap_driver("/bad", spec));
    until("it hangs", || (bench.faults.hits(Where::Open, Fault::Block) == 1).then_some(()));
    bench.nx.write("/bad/f", "two").expect("calls go on");
    bench.others_serve();
    assert!(!swap.is_finished(), "others were served after it, not meanwhile");
    bench.faults.clear();
    refused(swap.join().expect("it ends"), ErrorKind::Io, Executed::No);
}

#[test]
fn a_mount_that_is_detached_while_its_driver_is_replaced_stays_detached() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    bench.faults.once(Where::Open, Fault::Block);
    let (nx, spec) = (bench.nx.clone(), bench.spec(FAULTY_PATH, "files").option("open_ms", "50000"));
    let swap = std::thread::spawn(move || nx.swap_driver("/bad", spec));
    until("it is being opened", || (bench.faults.hits(Where::Open, Fault::Block) == 1).then_some(()));
    let nx = bench.nx.clone();
    let unmount = std::thread::spawn(move || nx.unmount("/bad"));
    bench.faults.clear();
    refused(swap.join().expect("it ends"), ErrorKind::Io, Executed::No);
    unmount.join().expect("it ends").expect("one after the other");
    refused(bench.nx.stat("/bad"), ErrorKind::NotFound, Executed::No);

    // And the other way round: many of both at once.
    for _ in 0..20 {
        bench.mount_files(30_000);
        let (nx, spec) = (bench.nx.clone(), bench.spec("path-local", "files"));
        let swap = std::thread::spawn(move || nx.swap_driver("/bad", spec));
        bench.nx.unmount("/bad").expect("it is detached");
        if let Err(error) = swap.join().expect("it ends") {
            assert_eq!(error.executed(), Executed::No, "{error}");
        }
        refused(bench.nx.stat("/bad"), ErrorKind::NotFound, Executed::No);
    }
    bench.nx.shutdown().expect("it stops");
    let nx = blocking::connect(Config::new(bench.folder.path().join("data"))).expect("it boots");
    assert_eq!(nx.mounts().expect("it answers").len(), 1, "only the root comes back");
    nx.shutdown().expect("it stops");
}
