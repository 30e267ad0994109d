//! A kernel whose root has ended has said its last word: in order, with the reason, and nobody waits for more.

#![expect(clippy::disallowed_methods, reason = "the user's own threads")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nexus::actors::{Latch, block_on};
use nexus::dispatch::{Registration, Resolution, Resolver};
use nexus::{Caller, Config, Env, ErrorKind, Executed, ExitReason, Kill, MountSpec, Nexus, VPath, blocking};

/// How long anything may take here, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// How often a kernel is booted to be killed.
const BOOTS: u64 = 300;

/// Kills `actor` until the root has ended.
fn kill_until_the_end(nx: &blocking::Nexus, actor: &str) -> ExitReason {
    let env = nx.env();
    loop {
        nx.kill(actor, Kill::Panic).expect("it is an administrator's handle");
        let pause = env.timeout(Duration::from_millis(5), nx.as_async().ended());
        if let Ok(why) = env.blocking_wait(pause) {
            return why.expect("it is ours");
        }
    }
}

struct Nothing;

impl Resolver for Nothing {
    fn resolve(&self, _: &Caller, _: &VPath) -> Resolution {
        Resolution::Refuse("nothing".into())
    }
}

/// Each kind of call answers, and says that the kernel has ended, and why.
async fn check_calls(nx: &Nexus, why: &ExitReason) {
    let path = VPath::parse("/w0/0").expect("it is one");
    let agent = nx.agent("coder-7").expect("it is made without the kernel");
    let told = [
        nx.read(&path).await.map(drop),
        nx.stat(&path).await.map(drop),
        nx.readdir("/").await.map(drop),
        nx.write("/late", "x").await.map(drop),
        nx.append(&path, "x").await.map(drop),
        nx.rename(&path, "/b").await.map(drop),
        nx.unlink(&path).await.map(drop),
        nx.mount("/m", MountSpec::new("memory")).await.map(drop),
        nx.unmount("/").await.map(drop),
        agent.write("/late", "x").await.map(drop),
        nx.glob("/**").await.map(drop),
    ];
    for error in told.map(|done| done.expect_err("the kernel has ended")) {
        assert_eq!((error.kind(), error.executed()), (ErrorKind::Down, Executed::No), "{error}");
        assert!(error.to_string().contains(&format!("the kernel has ended: {why}")), "{error}");
    }
    let hook = Registration::resolver("nothing", "/nothing/**", Arc::new(Nothing)).expect("it is a pattern");
    let refused = nx.register_hook(hook).await.expect_err("the kernel has ended");
    assert_eq!(refused.kind(), ErrorKind::Down, "{refused}");
    assert!(nx.tree().await.is_ok(), "what is left of the tree can be looked at");
    nx.shutdown().await.expect("it may be asked for again");
    assert_eq!(nx.ended().await.expect("it is ours"), *why, "the first reason stays");
}

/// Writers are at work while `actor` is killed until the root gives up.
#[track_caller]
fn check_gives_up(actor: &str) {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = blocking::connect(Config::new(folder.path()).restarts(1, LIMIT)).expect("it boots");
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (nx, acknowledged) = (nx.clone(), acknowledged.clone());
            thread::spawn(move || {
                let mut kept = Vec::new();
                for n in 0.. {
                    match nx.write(format!("/w{writer}/{n}"), n.to_string()) {
                        Ok(_) => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            kept.push(n);
                        }
                        // A call that was under way when the kernel ended may not know; the one after does.
                        Err(error) if error.executed() == Executed::Unknown => {}
                        Err(error) => return (writer, kept, n, error),
                    }
                }
                unreachable!("the kernel has ended")
            })
        })
        .collect();
    while acknowledged.load(Ordering::Relaxed) < 40 {
        thread::yield_now();
    }
    assert_eq!(kill_until_the_end(&nx, actor), ExitReason::RestartIntensity);

    // Handles are still there, and yet the folder is free.
    let again = blocking::connect(folder.path()).expect("the folder is free at once");
    for writer in writers {
        let (writer, kept, last, error) = writer.join().expect("no call hung");
        assert_eq!(error.kind(), ErrorKind::Down, "{error}");
        for n in kept {
            assert_eq!(again.read(format!("/w{writer}/{n}")).expect("it was acknowledged"), n.to_string());
        }
        assert!(
            !again.exists(format!("/w{writer}/{last}")).expect("it tells"),
            "it said not executed: {error}"
        );
    }
    block_on(check_calls(nx.as_async(), &ExitReason::RestartIntensity));
}

#[test]
fn a_root_that_gives_up_on_the_router_stops_the_kernel_in_order() {
    check_gives_up("nexus/kernel/router");
}

#[test]
fn a_root_that_gives_up_on_the_committer_stops_the_kernel_in_order() {
    check_gives_up("nexus/store/committer");
}

#[test]
fn a_root_that_gives_up_on_the_lifecycle_stops_the_kernel_in_order() {
    check_gives_up("nexus/registry/lifecycle");
}

/// The root itself is hurt: there is nobody to restart it.
#[track_caller]
fn check_root(how: Kill) {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let nx = nexus::connect(folder.path()).await.expect("it boots");
        nx.write("/w0/0", "one").await.expect("it writes");
        // It may end before it is told whether there was somebody to hurt.
        let _ = nx.kill("nexus", how).await.expect("it is an administrator's handle");
        let why = nx.env().timeout(LIMIT, nx.ended()).await.expect("it ends").expect("it is ours");
        assert!(!why.is_normal(), "{why}");
        let again = nexus::connect(folder.path()).await.expect("the folder is free");
        assert_eq!(again.read("/w0/0").await.expect("it was acknowledged"), "one");
        check_calls(&nx, &why).await;
    });
}

#[test]
fn a_root_that_is_killed_lets_go_of_the_folder() {
    check_root(Kill::Panic);
    check_root(Kill::Error);
    check_root(Kill::Brutal);
}

#[test]
fn in_a_simulation_too_a_root_that_gives_up_is_the_end_and_no_call_outlives_it() {
    for seed in 0..30 {
        let (env, simulation) = Env::seeded(seed);
        simulation.block_on(async {
            let config = Config::in_memory().restarts(1, LIMIT).env(env.clone());
            let nx = nexus::connect(config).await.expect("it boots");
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let (nx, done) = (nx.clone(), Latch::new());
                    let told = done.clone();
                    env.spawn("writer", async move {
                        for n in 0.. {
                            match nx.write(format!("/w{writer}/{n}"), "x").await {
                                Err(error) if error.kind() == ErrorKind::Down => return told.set(()),
                                _ => nx.env().sleep(Duration::from_micros(100)).await,
                            }
                        }
                    });
                    done
                })
                .collect();
            let why = loop {
                nx.kill("nexus/kernel/router", Kill::Error).await.expect("it is an administrator's handle");
                if let Ok(why) = env.timeout(Duration::from_millis(5), nx.ended()).await {
                    break why.expect("it is ours");
                }
            };
            assert_eq!(why, ExitReason::RestartIntensity);
            // The clock is the simulation's: it does not move with the load of the machine.
            let ended = env.now();
            for writer in writers {
                writer.wait().await;
            }
            let waited = env.now() - ended;
            assert!(waited < Duration::from_secs(1), "a call outlived the kernel by {waited:?}, seed {seed}");
            check_calls(&nx, &why).await;
        });
    }
}

#[test]
fn an_environment_that_is_stopped_under_the_kernel_makes_nobody_wait() {
    let folder = tempfile::tempdir().expect("there is room");
    let env = Env::host(Default::default()).expect("threads can be started");
    let nx = blocking::connect(Config::new(folder.path()).env(env.clone())).expect("it boots");
    nx.write("/a", "one").expect("it writes");
    env.stop();
    nx.shutdown().expect("it ends");
    let again = blocking::connect(folder.path()).expect("the folder is free");
    assert_eq!(again.read("/a").expect("it was acknowledged"), "one");
}

/// Found by the chaos run: the kernel had ended, and its store with it, before the call that ended it had its receipt.
#[test]
fn who_kills_the_root_is_told_that_it_was_killed() {
    for turn in 0..BOOTS {
        let nx = blocking::connect(Config::in_memory()).expect("it boots");
        assert!(nx.kill("nexus", Kill::Panic).expect("it is told"), "turn {turn}");
    }
}
