//! A mount whose wire fails in every way, under load: what the other mounts notice of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexus::blocking::{self, Nexus};
use nexus::{ErrorKind, MountSpec, MountState};

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::moto;
use crate::{bucket, status, until};

/// How long one call of the failing mount's driver may take.
const DEADLINE: Duration = Duration::from_millis(500);

/// A write looks, writes, and looks; each may take its time.
const STEPS: u32 = 4;

/// What a loaded machine may add.
const SLACK: Duration = Duration::from_secs(3);

/// Callers of the failing mount.
const CALLERS: usize = 2;

/// How often each of the others is used under each fault.
const ROUNDS: usize = 6;

/// The mounts that do not fail: the kernel's own, a folder, and another part of the same bucket over a wire that is whole.
const OTHERS: [&str; 3] = ["", "/plain", "/near"];

/// No operation on another mount takes longer.
const LONGEST: Duration = Duration::from_secs(5);

/// What a caller of the failing mount was told is there.
type Acknowledged = BTreeMap<String, String>;

/// Uses the failing mount until it is told to stop.
fn call(nx: &Nexus, caller: usize, stop: &AtomicBool, failures: &AtomicUsize) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let in_time = |what: &str, began: Instant| {
        let took = began.elapsed();
        assert!(took < DEADLINE * STEPS + SLACK, "{what} took {took:?}");
    };
    for turn in 0_usize.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let (path, content) = (format!("/far/{caller}/{}", turn % 20), format!("{caller} wrote {turn}"));
        let began = Instant::now();
        let written = nx.write(&path, content.clone());
        in_time("a write", began);
        match written {
            Ok(_) => drop(acknowledged.insert(path.clone(), content)),
            Err(error) => {
                let kind = error.kind();
                let is_of_the_wire =
                    matches!(kind, ErrorKind::Io | ErrorKind::TimedOut | ErrorKind::Unavailable);
                assert!(is_of_the_wire, "{error}");
                failures.fetch_add(1, Ordering::AcqRel);
                // It may be there or not, from here on.
                acknowledged.remove(&path);
            }
        }
        let began = Instant::now();
        let read = nx.read(&path);
        in_time("a read", began);
        if let (Ok(read), Some(there)) = (read, acknowledged.get(&path)) {
            assert_eq!(read, *there.as_bytes(), "{path}");
        }
    }
    acknowledged
}

/// Uses the other mounts, which fail nobody, and gives the median of how long that took.
fn others_serve(nx: &Nexus, during: &str) -> Duration {
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        for mount in OTHERS {
            let (path, content) = (format!("{mount}/f{}", round % 3), format!("{during} {round}"));
            let began = Instant::now();
            nx.write(&path, content.clone()).unwrap_or_else(|error| panic!("{during}: {error}"));
            let read = nx.read(&path).unwrap_or_else(|error| panic!("{during}: {error}"));
            assert_eq!(read, *content.as_bytes(), "{path}");
            took.push(began.elapsed());
        }
    }
    took.sort();
    let longest = took.last().copied().unwrap_or_default();
    assert!(longest < LONGEST, "{during}: {longest:?}");
    took[took.len() / 2]
}

#[test]
fn other_mounts_do_not_notice() {
    let (server, folder) = (moto(), tempfile::tempdir().expect("there is room"));
    let proxy = Proxy::start(server.port());
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).expect("there is room");
    let nx = blocking::connect(folder.path().join("data")).expect("it boots");
    let local = MountSpec::new("local").option("folder", plain.display().to_string()).option("notice", "no");
    nx.mount("/plain", local).expect("it mounts");
    nx.mount("/near", bucket(server.port(), "near")).expect("it mounts");
    let millis = |time: Duration| time.as_millis().to_string();
    let far = bucket(proxy.port(), "far")
        .option("timeout_ms", millis(DEADLINE / 2))
        .option("retries", "0")
        .option("deadline_ms", millis(DEADLINE))
        .option("open_ms", "1000");
    until("the wire carries the opening", || nx.mount("/far", far.clone()).ok());

    let (stop, failures) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged: Acknowledged = thread::scope(|scope| {
        let (nx, stop, failures) = (&nx, &stop, &failures);
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| scope.spawn(move || call(nx, caller, stop, failures))).collect();
        let usual = others_serve(nx, "before");
        for fault in Fault::ALL {
            let before = failures.load(Ordering::Acquire);
            proxy.set(fault);
            until("somebody notices", || (failures.load(Ordering::Acquire) > before).then_some(()));
            let median = others_serve(nx, &format!("under {fault:?}"));
            assert!(
                median < usual * 3 + Duration::from_millis(50),
                "{fault:?}: {median:?} instead of {usual:?}"
            );
        }
        proxy.set(Fault::None);
        until("it serves again by itself", || nx.write("/far/again", "x").ok());
        others_serve(nx, "after");
        stop.store(true, Ordering::Release);
        let all = callers.into_iter().map(|caller| caller.join().expect("it saw no other error"));
        all.flatten().collect()
    });
    for (path, content) in &acknowledged {
        let read = until("it is read", || nx.read(path).ok());
        assert_eq!(read, *content.as_bytes(), "{path}");
    }
    assert!(!acknowledged.is_empty());
    for point in ["/", "/plain", "/near"] {
        let there = status(&nx, point);
        assert_eq!(
            (there.calls.failed, there.calls.refused, &there.state),
            (0, 0, &MountState::Serving),
            "{there:?}"
        );
        assert!(there.errors.keys().all(|error| error == "ENOENT"), "{there:?}");
    }
    let far = status(&nx, "/far");
    assert!(far.calls.failed > 0 && far.last_failure.is_some(), "{far:?}");
    nx.shutdown().expect("it ends");
}
