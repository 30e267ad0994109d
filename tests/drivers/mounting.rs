//! Mounts that come and go while those die who attach and detach them.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use futures_util::future::BoxFuture;
use nexus::blocking::{self, Nexus};
use nexus::dispatch::{MountHook, Registration};
use nexus::hal::{
    Batch, Change, DriverContext, DriverFactory, DriverOption, Entry, Metastore, ObjectStore, RowKey,
    StoreFuture, Table, TreeId,
};
use nexus::{Config, ErrorKind, Executed, MountContext, MountSpec, Op, OpId, Timestamp, VPath};
use nexus_actors::{ActorState, Inject, Moment};
use nexus_drivers::faults::Faults;
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_supervisors::Kill;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::bench::{Bench, config, refused, until};

const LIFECYCLE: &str = "nexus/registry/lifecycle";
const ROUTER: &str = "nexus/kernel/router";

/// Holds up who mounts and unmounts, once all but the telling is done.
struct Holds {
    reached: Mutex<mpsc::Sender<()>>,
    open: Arc<Semaphore>,
}

impl Holds {
    fn hold(&self) -> BoxFuture<'_, ()> {
        // Nobody may wait for it: the end of a test.
        let _ = self.reached.lock().send(());
        Box::pin(async move {
            let _ = self.open.acquire().await;
        })
    }
}

impl MountHook for Holds {
    fn on_mount<'a>(&'a self, _: &'a MountContext) -> BoxFuture<'a, ()> {
        self.hold()
    }

    fn on_unmount<'a>(&'a self, _: &'a MountContext) -> BoxFuture<'a, ()> {
        self.hold()
    }
}

/// Found by a user of the command: it was told as a driver that fails, and as tried again.
#[test]
fn who_reads_a_file_while_its_mount_goes_is_told_that_it_has_gone() {
    let folder = tempfile::tempdir().expect("there is room");
    let file = std::fs::File::create(folder.path().join("f")).expect("there is room");
    file.set_len(64 << 20).expect("it can be that long");
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let spec = MountSpec::new("local").option("folder", folder.path().display().to_string());
    nx.mount("/m", spec).expect("it mounts");
    let mut reading = nx.stream("/m/f").expect("it is there");
    reading.next().expect("there is more").expect("it is read");
    nx.unmount("/m").expect("nobody changes anything there");
    let error = reading.find_map(Result::err).expect("it is not read to its end");
    assert_eq!((error.kind(), error.errno().name()), (ErrorKind::NoMount, "ENODEV"), "{error}");
    assert!(error.to_string().contains("/m is not mounted any more"), "{error}");
    assert!(!error.to_string().contains("again"), "{error}");
    nx.shutdown().expect("it ends");
}

/// What was known of paths was filed by how often some of them had been moved, which a mount that came back counted from the start again.
#[test]
fn a_mount_that_comes_back_does_not_answer_with_what_it_knew_before_something_moved() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let spec = MountSpec::new("cas-local").option("folder", folder.path().display().to_string());
    nx.mount("/m", spec.clone()).expect("it mounts");
    nx.write("/m/d/f", "before").expect("it is written");
    assert_eq!(nx.stat("/m/d/f").expect("it is there").size, 6);
    nx.rename("/m/d", "/m/e").expect("it moves");
    nx.write("/m/d/f", "and after").expect("it is written");
    nx.unmount("/m").expect("nobody changes anything there");
    nx.mount("/m", spec).expect("it is what it was");
    assert_eq!(nx.stat("/m/d/f").expect("it is there").size, 9);
    assert_eq!(nx.read("/m/d/f").expect("it is there"), "and after");
    assert_eq!(nx.stat("/m/e/f").expect("it is there").size, 6);
    nx.shutdown().expect("it ends");
}

/// Has `change` held up, lets `meanwhile` happen, and lets it go on.
fn held_up<T: Send>(nx: &Nexus, change: impl FnOnce(&Nexus) -> T + Send, meanwhile: impl FnOnce()) -> T {
    let (reached, wait) = mpsc::channel();
    let open = Arc::new(Semaphore::new(0));
    let hook = Arc::new(Holds { reached: Mutex::new(reached), open: open.clone() });
    let hook = nx.register_hook(Registration::mount_hook("holds", hook)).expect("there is room");
    let done = thread::scope(|scope| {
        let changing = scope.spawn(|| change(nx));
        wait.recv().expect("it is told");
        meanwhile();
        open.close();
        changing.join().expect("it ends")
    });
    nx.unregister_hook(hook).expect("it is there");
    done
}

fn dies(bench: &Bench, name: &str, how: Kill) {
    let before = bench.find(name).generation;
    assert!(bench.nx.kill(name, how).expect("it may be killed"), "{name} runs");
    until("it runs again", || {
        let actor = bench.find(name);
        (actor.generation > before && actor.state == ActorState::Running).then_some(())
    });
}

/// The router that comes up believes nothing that the one before it has published.
fn the_router_starts_cold(bench: &Bench) {
    dies(bench, ROUTER, Kill::Error);
    dies(bench, ROUTER, Kill::Error);
}

/// As many drivers run as there are mounts, and none is started again and again for a mount that is gone.
#[track_caller]
fn nobody_is_left_behind(bench: &Bench) {
    until("the drivers' actors are those of the mounts", || {
        let drivers = bench.find("nexus/drivers").children;
        let run = drivers.iter().all(|driver| driver.state == ActorState::Running);
        (run && drivers.len() == bench.nx.mounts().expect("it answers").len()).then_some(())
    });
}

fn specs(bench: &Bench) -> [MountSpec; 2] {
    [MountSpec::new("memory"), bench.spec("path-local", "files")]
}

/// Found by the chaos run: the router did not find the mount where it looks after two crashes, and its driver's actor was started again for ever.
#[test]
fn a_mount_whose_lifecycle_dies_before_it_hears_of_the_route_stays() {
    let bench = Bench::new();
    for spec in specs(&bench) {
        let mount = |nx: &Nexus| nx.mount("/m", spec.clone());
        let done = held_up(&bench.nx, mount, || {
            dies(&bench, LIFECYCLE, Kill::Brutal);
            the_router_starts_cold(&bench);
            assert!(bench.nx.exists("/m").expect("it is known"));
        });
        refused(done, ErrorKind::Crashed, Executed::Unknown);
        bench.nx.mount("/m", spec.clone()).expect("it is there");
        bench.nx.write("/m/f", "x").expect("it serves");
        nobody_is_left_behind(&bench);
        bench.nx.unmount("/m").expect("it goes");
        nobody_is_left_behind(&bench);
    }
}

/// A driver whose stores are where the environment says.
#[derive(Debug)]
struct Around {
    driver: Arc<dyn DriverFactory>,
    says: Arc<Mutex<Option<&'static str>>>,
}

impl DriverFactory for Around {
    fn name(&self) -> &str {
        "around"
    }

    fn options(&self) -> &[DriverOption] {
        &[DriverOption { key: "endpoint", required: false, secret: false, help: "" }]
    }

    fn located(&self, spec: MountSpec) -> MountSpec {
        let is_said = spec.options.contains_key("endpoint");
        self.says
            .lock()
            .filter(|_| !is_said)
            .into_iter()
            .fold(spec, |spec, said| spec.option("endpoint", said))
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        self.driver.open(spec, context)
    }
}

/// That nothing was said means something, too: what is asked for in another environment is another store, which the mount that is there is not.
#[test]
fn a_mount_is_of_the_store_that_was_said_when_it_was_made() {
    let driver = nexus_drivers::catalogue().get("memory-path").expect("built in");
    let says: Arc<Mutex<Option<&'static str>>> = Arc::default();
    let around = Arc::new(Around { driver, says: says.clone() });
    let nx = blocking::connect(Config::in_memory().driver(around)).expect("it boots");
    let mount = || nx.mount("/m", MountSpec::new("around"));
    mount().expect("it is made");
    mount().expect("it is there");
    *says.lock() = Some("https://elsewhere");
    assert_eq!(mount().expect_err("it is another one").kind(), ErrorKind::AlreadyExists);
    nx.unmount("/m").expect("it goes");
    mount().expect("it is made");
    *says.lock() = None;
    assert_eq!(mount().expect_err("it is another one").kind(), ErrorKind::AlreadyExists);
}

/// What was attached last is routed before anybody hears that it is, and goes before anybody hears that it went.
#[test]
fn a_router_that_starts_cold_meanwhile_knows_what_comes_and_what_goes() {
    let bench = Bench::new();
    for spec in specs(&bench) {
        let mounted = held_up(
            &bench.nx,
            |nx| nx.mount("/m", spec.clone()),
            || {
                the_router_starts_cold(&bench);
                assert!(bench.nx.exists("/m").expect("it is known"), "it comes: {spec:?}");
            },
        );
        mounted.expect("it is mounted");
        bench.nx.write("/m/f", "x").expect("it serves");
        let unmounted = held_up(
            &bench.nx,
            |nx| nx.unmount("/m"),
            || {
                the_router_starts_cold(&bench);
                assert!(!bench.nx.exists("/m").expect("it is known"), "it goes: {spec:?}");
            },
        );
        unmounted.expect("it is unmounted");
        nobody_is_left_behind(&bench);
    }
}

#[test]
fn a_mount_whose_lifecycle_dies_while_it_goes_is_gone() {
    let bench = Bench::new();
    for spec in specs(&bench) {
        bench.nx.mount("/m", spec.clone()).expect("it is mounted");
        let done = held_up(
            &bench.nx,
            |nx| nx.unmount("/m"),
            || {
                dies(&bench, LIFECYCLE, Kill::Brutal);
                the_router_starts_cold(&bench);
                assert!(!bench.nx.exists("/m").expect("it is known"), "{spec:?}");
            },
        );
        refused(done, ErrorKind::Crashed, Executed::Unknown);
        nobody_is_left_behind(&bench);
        bench.nx.mount("/m", spec.clone()).expect("it is mounted again");
        bench.nx.write("/m/f", "x").expect("it serves");
        bench.nx.unmount("/m").expect("it goes");
    }
}

/// The store has put the mount there by then: the next boot would have it, and the one who asked for it would be told that it is not.
#[test]
fn a_mount_whose_router_dies_of_it_is_mounted() {
    let bench = Bench::with(|config| config.restarts(1_000, std::time::Duration::from_secs(1)));
    for spec in specs(&bench) {
        for moment in [Moment::Before, Moment::After] {
            for fault in [Inject::Kill, Inject::Panic] {
                until("it is armed", || {
                    bench
                        .nx
                        .kill(ROUTER, Kill::Handling(fault, moment))
                        .expect("it may be killed")
                        .then_some(())
                });
                bench.nx.mount("/m", spec.clone()).expect("it is mounted");
                bench.nx.write("/m/f", "x").expect("it serves");
                bench.nx.unmount("/m").expect("it goes");
            }
        }
    }
    nobody_is_left_behind(&bench);
    bench.nx.mount("/m", bench.spec("path-local", "other")).expect("it mounts");
    bench.nx.write("/m/f", "one").expect("it writes");
    bench.nx.shutdown().expect("it stops");
    let nx = blocking::connect(config(bench.folder.path(), &bench.faults)).expect("it boots");
    assert_eq!(nx.read("/m/f").expect("the last one that was mounted"), "one");
    nx.shutdown().expect("it stops");
}

/// As a commit leaves it of which nobody knew what became: found by the chaos run, the second such row of a point kept the kernel from booting.
#[test]
fn rows_of_a_point_where_nothing_is_mounted_keep_no_kernel_from_booting_and_go_with_the_next_mount() {
    let folder = tempfile::tempdir().expect("there is room");
    for name in ["old", "new"] {
        std::fs::create_dir(folder.path().join(name)).expect("there is room");
        std::fs::write(folder.path().join(name).join("f"), name).expect("there is room");
    }
    let spec = |name: &str| {
        MountSpec::new("path-local").option("folder", folder.path().join(name).display().to_string())
    };
    let open = || Arc::new(WalMetastore::open(folder.path(), WalConfig::default()).expect("it opens"));
    let boot = |metastore: &Arc<WalMetastore>| {
        let config = config(folder.path(), &Faults::new()).metastore(metastore.clone());
        blocking::connect(config).expect("it boots")
    };
    let metastore = open();
    let nx = boot(&metastore);
    nx.mount("/cut", spec("old")).expect("it mounts");
    nx.shutdown().expect("it stops");

    let rows =
        metastore.reader().and_then(|reader| reader.scan(&RowKey::new(Table::Mounts, Vec::new()), None, 9));
    let rows = rows.expect("it reads").into_iter();
    let row = rows
        .map(|(_, row)| row)
        .find(|row| row.windows(4).any(|name| name == b"/cut"))
        .expect("it is remembered");
    let changes = [1_000_u64, 2_000]
        .map(|root| Change::Put(RowKey::new(Table::Mounts, root.to_be_bytes()), row.clone()));
    let entry = Entry {
        tree: TreeId::ROOT,
        op_id: OpId(1),
        repeatable: false,
        caller: "somebody".into(),
        op: Op::Mount,
        path: VPath::parse("/cut").expect("it is a path"),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(0),
        preconditions: Vec::new(),
        changes: changes.into(),
    };
    metastore.apply(&Batch { entries: vec![entry], next_file_id: 0 }).expect("it commits");

    let nx = boot(&metastore);
    assert_eq!(nx.read("/cut/f").expect("one of them serves"), "old");
    nx.unmount("/cut").expect("it is detached");
    nx.mount("/cut", spec("new")).expect("it mounts");
    nx.shutdown().expect("it stops");
    let nx = boot(&metastore);
    assert_eq!(nx.read("/cut/f").expect("it is mounted"), "new", "what was left there is back");
    nx.shutdown().expect("it stops");
}
