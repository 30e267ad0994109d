//! What is counted of a mount's driver: as much as there was.

use std::sync::Arc;
use std::time::Duration;

use nexus::hal::{
    Addressing, CacheFigures, DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError,
    StoreFuture,
};
use nexus::{Config, ErrorKind, Executed, MountSpec, MountState, MountStatus, blocking};
use nexus_drivers::faults::{Fault, Where};

use crate::bench::{Bench, refused, until};

/// A deadline that a call that hangs is to miss soon.
const SHORT_MS: u64 = 300;

/// What is told of it once all calls have ended.
fn settled(bench: &Bench) -> MountStatus {
    until("all calls have ended", || Some(bench.status("/bad")).filter(|status| status.calls.in_flight == 0))
}

/// How many calls were timed: those that change something, and those that do not.
fn timed(status: &MountStatus) -> (u64, u64) {
    let times = &status.times;
    (times.writes.calls, times.looks.calls + times.reads.calls + times.listings.calls)
}

#[test]
fn calls_and_bytes_are_those_that_the_driver_saw() {
    let bench = Bench::new();
    bench.mount_files(30_000);
    let (before, changes, looks) =
        (settled(&bench), bench.faults.calls(Where::Change), bench.faults.calls(Where::Look));
    assert_eq!((before.bytes_read, before.bytes_written), (0, 0));
    for (path, length) in [("/bad/f", 1_000), ("/bad/g", 2_500)] {
        bench.nx.write(path, vec![7; length]).expect("it writes");
    }
    bench.nx.read("/bad/f").expect("it reads");
    bench.nx.read_range("/bad/g", 500, 100).expect("it reads");
    bench.nx.readdir("/bad").expect("it lists");
    bench.nx.unlink("/bad/f").expect("it is removed");
    assert!(!bench.nx.exists("/bad/f").expect("it is known"));

    let now = settled(&bench);
    assert_eq!((now.bytes_read, now.bytes_written), (1_100, 3_500));
    let seen = (bench.faults.calls(Where::Change) - changes, bench.faults.calls(Where::Look) - looks);
    let (was, is) = (timed(&before), timed(&now));
    assert_eq!((is.0 - was.0, is.1 - was.1), seen, "{now:?}");
    assert_eq!(now.times.writes.calls, 3, "two writes and a removal");
    assert_eq!((now.times.reads.calls, now.times.listings.calls), (2, 1));
    for times in [now.times.looks, now.times.reads, now.times.writes, now.times.listings] {
        let (median, most) = (times.median_ns.expect("there were some"), times.p99_ns.expect("there were"));
        assert!(0 < median && median <= most && most <= times.longest_ns, "{times:?}");
        assert!(times.total_ns >= times.longest_ns && times.total_ns <= times.longest_ns * times.calls);
    }
    // That nothing is there is an answer as any other, and no failure.
    assert!(now.errors.keys().eq(["ENOENT"]), "{:?}", now.errors);
    assert_eq!((now.calls.failed, now.last_failure), (0, None));
}

#[test]
fn failures_are_counted_by_their_kind_and_the_latest_is_told() {
    let bench = Bench::new();
    bench.mount_files(SHORT_MS);
    bench.nx.write("/bad/f", "one").expect("it writes");
    let before = settled(&bench);
    let began = bench.nx.stat("/").expect("it is there");
    for (fault, kind) in [
        (Fault::Error, ErrorKind::Io),
        (Fault::Error, ErrorKind::Io),
        (Fault::Hang, ErrorKind::TimedOut),
        (Fault::Panic, ErrorKind::Crashed),
    ] {
        let generation = bench.actor().generation;
        bench.faults.once(Where::Look, fault);
        refused(bench.nx.read("/bad/f"), kind, Executed::No);
        if fault == Fault::Panic {
            // It is opened anew.
            until("it was restarted", || (bench.actor().generation > generation).then_some(()));
        }
    }
    until("it serves", || (bench.status("/bad").state == MountState::Serving).then_some(()));
    let now = settled(&bench);
    let more = |name: &str| {
        let count = |status: &MountStatus| status.errors.get(name).copied().unwrap_or(0);
        count(&now) - count(&before)
    };
    // A crash is an input/output error to who knows of nothing else.
    assert_eq!((more("EIO"), more("ETIMEDOUT"), more("ENOENT")), (3, 1, 0), "{:?}", now.errors);
    assert_eq!((now.calls.failed, now.calls.timed_out, now.calls.panicked), (4, 1, 1));
    let reads = now.times.reads;
    assert!(Duration::from_nanos(reads.longest_ns) >= Duration::from_millis(SHORT_MS), "{reads:?}");
    let last = now.last_failure.expect("it failed");
    assert!(&*last.error == "EIO" && last.what.contains("an injected panic"), "{last:?}");
    assert!(last.at >= began.created, "{last:?}");

    // All of it is where administrators look.
    let shown = bench.nx.read("/__sys__/mounts/root/bad/.self").expect("it is shown");
    let shown: MountStatus = serde_json::from_slice(&shown).expect("it is JSON");
    assert_eq!((shown.errors, shown.times, shown.cache), (now.errors, now.times, None));
    let metrics = bench.nx.read("/__sys__/metrics").expect("it is shown");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let labels = r#"zone="root",point="/bad",driver="faulty-path""#;
    for line in [
        format!("nexus_mount_errors_total{{{labels},error=\"ETIMEDOUT\"}} 1\n"),
        format!("nexus_mount_written_bytes_total{{{labels}}} 3\n"),
        format!("nexus_mount_call_seconds_count{{{labels},kind=\"write\"}} "),
    ] {
        assert!(metrics.contains(&line), "no {line} in\n{metrics}");
    }
    assert!(!metrics.contains("nexus_mount_cache"), "there is none");
}

/// Drivers of another kind, of which something is kept here.
#[derive(Debug)]
struct Keeping(Arc<dyn DriverFactory>);

#[derive(Debug)]
struct Kept {
    store: Arc<dyn ObjectStore>,
    panics: bool,
}

impl ObjectStore for Kept {
    fn addressing(&self) -> Addressing<'_> {
        self.store.addressing()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.store.probe()
    }

    fn cache(&self) -> Option<CacheFigures> {
        assert!(!self.panics, "nobody is to hear of this");
        let mut figures = CacheFigures::default();
        (figures.hits, figures.misses, figures.bytes, figures.bytes_max) = (30, 10, 1_000, 1_000_000);
        (figures.pending_files, figures.pending_bytes, figures.failed) = (2, 700, 1);
        figures.last_failure = Some("the server answers 503".into());
        Some(figures)
    }
}

impl DriverFactory for Keeping {
    fn name(&self) -> &str {
        "keeping"
    }

    fn options(&self) -> &[DriverOption] {
        &[DriverOption { key: "panics", required: false, secret: false, help: "" }]
    }

    fn volatile(&self) -> bool {
        true
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let panics = spec.options.contains_key("panics");
        let opening = self.0.open(spec, context);
        Box::pin(async move {
            let store = opening.await?;
            Ok::<_, StoreError>(Arc::new(Kept { store, panics }) as Arc<dyn ObjectStore>)
        })
    }
}

#[test]
fn what_a_driver_keeps_here_is_told_and_one_that_panics_over_it_hinders_nobody() {
    let memory = nexus_drivers::catalogue().get("memory-path").expect("built in");
    let nx = blocking::connect(Config::in_memory().driver(Arc::new(Keeping(memory)))).expect("it boots");
    nx.mount("/k", MountSpec::new("keeping")).expect("it mounts");
    nx.mount("/p", MountSpec::new("keeping").option("panics", "yes")).expect("it mounts");
    let mounts = nx.mounts().expect("they are listed");
    let cache = |point: &str| {
        let mount = mounts.iter().find(|mount| mount.point.as_str() == point).expect("it is there");
        mount.cache.clone()
    };
    let kept = cache("/k").expect("something is kept");
    assert_eq!((kept.hit_rate(), kept.pending_files, kept.failed), (Some(0.75), 2, 1));
    assert_eq!(kept.last_failure.as_deref(), Some("the server answers 503"));
    assert_eq!((cache("/p"), cache("/")), (None, None));
    let metrics = nx.read("/__sys__/metrics").expect("it is shown");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let line = "nexus_mount_pending_bytes{zone=\"root\",point=\"/k\",driver=\"keeping\"} 700\n";
    assert!(metrics.contains(line), "{metrics}");
    nx.shutdown().expect("it stops");
}
