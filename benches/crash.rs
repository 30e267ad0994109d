//! What crashes of the kernel's own actors cost: until the actor serves again, and what warm reads notice meanwhile.
//!
//!     cargo bench --bench crash

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexus::{Config, Kill, Nexus, SysRead, VPath};

/// The actors that are killed, with a bit of work that needs each, so that it is seen to serve.
const ACTORS: [&str; 7] = [
    "nexus/store/committer",
    "nexus/store/upkeep",
    "nexus/kernel/router",
    "nexus/kernel/locks",
    "nexus/kernel/dispatch",
    "nexus/registry/services",
    "nexus/registry/lifecycle",
];

/// Kills of each actor, each way.
const KILLS: u64 = 100;

/// What is asked for, at the median.
const AIM: Duration = Duration::from_millis(5);

/// Reads that are timed together, and turns of them with and without crashes.
const READS: u32 = 10_000;
const TURNS: usize = 400;

/// The time from one kill to the next while reads are timed.
const KILL_EVERY: Duration = Duration::from_millis(5);

fn main() {
    let folder =
        tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the folder can be written");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("it starts");
    // The kills of a benchmark are no reason to give up.
    let config = Config::new(folder.path()).restarts(u32::MAX, Duration::from_secs(1));
    let nx = runtime.block_on(nexus::connect(config)).expect("it boots");
    // Panics that are asked for would fill the screen.
    std::panic::set_hook(Box::new(|_| {}));
    runtime.block_on(async {
        for actor in ACTORS {
            for (how, name) in [(Kill::Panic, "a panic"), (Kill::Brutal, "a brutal kill")] {
                restarts(&nx, actor, how, name).await;
            }
        }
        reads(&nx).await;
        nx.shutdown().await.expect("it stops in order");
    });
}

/// How often the actor at `path` has come back, and whether it serves.
async fn state(nx: &Nexus, path: &str) -> (u64, bool) {
    let tree = nx.tree().await.expect("it is there");
    let mut found = &tree;
    for id in path.split('/').skip(1) {
        found = found.children.iter().find(|child| &*child.id == id).expect("it is in the tree");
    }
    (found.generation, found.state == nexus::actors::ActorState::Running)
}

async fn restarts(nx: &Nexus, actor: &str, how: Kill, name: &str) {
    let mut took = Vec::new();
    for _ in 0..KILLS {
        let (before, serves) = state(nx, actor).await;
        assert!(serves, "{actor} serves before it is killed");
        let began = Instant::now();
        assert!(nx.kill(actor, how).await.expect("it is there"), "{actor} is there");
        loop {
            let (generation, serves) = state(nx, actor).await;
            if generation > before && serves {
                break;
            }
            tokio::task::yield_now().await;
        }
        took.push(began.elapsed());
    }
    // Whoever was killed, all of it works.
    nx.write("/after", name.to_owned()).await.expect("it writes");
    assert_eq!(nx.read("/after").await.expect("it is there"), name.as_bytes());
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{:<48} median {:>9.1?}   p90 {:>9.1?}   longest {:>9.1?}",
        format!("{actor}, {name}"),
        at(50),
        at(90),
        at(100)
    );
    assert!(at(50) < AIM, "{actor}: over {AIM:?} at the median");
}

/// Warm reads by turns without crashes and with some: what is published serves them, whoever has crashed.
async fn reads(nx: &Nexus) {
    let file = VPath::parse("/warm").expect("it is a path");
    nx.write(&file, vec![7u8; 4_096]).await.expect("it writes");
    let (crashing, over, kills) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let killer = {
        let (nx, crashing, over, kills) = (nx.clone(), crashing.clone(), over.clone(), kills.clone());
        tokio::spawn(async move {
            for turn in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                tokio::time::sleep(KILL_EVERY).await;
                if crashing.load(Ordering::Relaxed) {
                    // One that is being restarted is not there to be killed.
                    let hit = nx.kill(ACTORS[turn % ACTORS.len()], Kill::Brutal).await.unwrap_or(false);
                    kills.fetch_add(u64::from(hit), Ordering::Relaxed);
                }
            }
        })
    };
    let mut took = [Vec::new(), Vec::new()];
    for turn in 0..TURNS {
        crashing.store(turn % 2 == 1, Ordering::Relaxed);
        let began = Instant::now();
        for _ in 0..READS {
            let read = nx.send(SysRead::at(&file)).await.expect("no read fails of a crash");
            assert!(read.data.len() == 4_096);
        }
        took[turn % 2].push(began.elapsed() / READS);
        // The killer shares the threads of the runtime.
        tokio::task::yield_now().await;
    }
    over.store(true, Ordering::Relaxed);
    killer.await.expect("it ends");
    let [without, with] = took.map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2]
    });
    println!(
        "a warm read of 4 KiB: {without:.1?}; while actors crash ({} did): {with:.1?}, {:.2} times that",
        kills.load(Ordering::Relaxed),
        with.as_secs_f64() / without.as_secs_f64()
    );
    assert!(kills.load(Ordering::Relaxed) > 0, "some crashed");
}
