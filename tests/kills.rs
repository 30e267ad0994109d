//! Killing a primitive loses nothing that was acknowledged, and no reader notices.

#![expect(clippy::disallowed_methods, reason = "the callers are threads of a program around the kernel")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{Running, boot, path};
use futures_util::future::BoxFuture;
use nexus::actors::{ActorState, Event, Simulation};
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::{Config, Env, EventMask, HookContext, Nexus, Op, TreeStatus, Verdict};
use nexus_actors::{Inject, Moment, block_on};
use nexus_messages::Executed;
use nexus_messages::syscall::{
    MountSpec, SysRead, SysRename, SysSetattr, SysStat, SysTx, SysUnlink, SysWrite,
};
use nexus_supervisors::Kill;

/// How often each primitive is killed in each way.
const ROUNDS: u64 = 3;

/// How long one message may hold an actor.
const WATCHDOG: Duration = Duration::from_millis(100);

/// How long one that is wedged may hold others: far longer than its watchdog takes, and half of what it would be wedged for without one.
const HELD_MAX: Duration = Duration::from_secs(30);

/// Who reads `/hot` on a thread of its own.
struct Reader {
    thread: thread::JoinHandle<()>,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

impl Reader {
    fn start(running: &Running) -> Self {
        let (kernel, admin) = (running.kernel.clone(), running.admin.clone());
        let (stop, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, done) = (stop.clone(), reads.clone());
        let thread = thread::spawn(move || {
            block_on(async {
                let hot = path("/hot");
                while !stopped.load(Ordering::Relaxed) {
                    let read = kernel.send(&admin, SysRead::at(&hot)).await.expect("it is there");
                    assert_eq!(read.data, "warm");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        Self { thread, stop, reads }
    }

    /// Waits until it has read once more from its beginning to its end, or has given up.
    fn goes_on(&self) {
        // The one that is under way may have begun before.
        let seen = self.reads.load(Ordering::Relaxed) + 1;
        while self.reads.load(Ordering::Relaxed) <= seen && !self.thread.is_finished() {
            thread::yield_now();
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no read failed");
    }
}

/// Waits until the actor has been restarted since `generation`, and serves.
fn until_restarted(running: &Running, name: &str, generation: u64) {
    let serves = |running: &Running| {
        let actor = running.tree.find(name).expect("it is in the tree").actor;
        actor.generation > generation && actor.state == ActorState::Running
    };
    while !serves(running) {
        thread::yield_now();
    }
}

fn kill_and_wait(running: &Running, name: &str, how: Kill) {
    let generation = running.tree.find(name).expect("it is in the tree").actor.generation;
    assert!(running.tree.kill(name, how), "{name} can be killed");
    until_restarted(running, name, generation);
}

#[test]
fn readers_notice_no_killed_primitive() {
    let folder = tempfile::tempdir().expect("there is room");
    let running = block_on(async {
        let running = boot(folder.path()).await;
        running
            .kernel
            .send(&running.admin, SysWrite::at(path("/hot"), "warm").create())
            .await
            .expect("it writes");
        running
    });
    let reader = Reader::start(&running);
    for name in [
        "nexus/kernel/router",
        "nexus/kernel/locks",
        "nexus/kernel/dispatch",
        "nexus/kernel/watcher",
        "nexus/registry/lifecycle",
    ] {
        for how in [Kill::Panic, Kill::Error, Kill::Brutal] {
            kill_and_wait(&running, name, how);
            reader.goes_on();
        }
    }
    reader.end();
    block_on(async {
        // What was restarted serves: mounts come and go as before.
        let memory = SysSetattr::mount(path("/memory"), MountSpec::new("memory"));
        running.kernel.send(&running.admin, memory).await.expect("it mounts");
        running
            .kernel
            .send(&running.admin, SysWrite::at(path("/memory/x"), "y").create())
            .await
            .expect("it writes");
        running.kernel.send(&running.admin, SysUnlink::at(path("/memory"))).await.expect("it unmounts");
        running.stop().await;
    });
}

#[test]
fn what_blocks_an_actor_of_the_store_blocks_the_others_on_its_thread_no_longer_than_a_watchdog() {
    let running = block_on(nexus::connect(Config::in_memory().watchdog(WATCHDOG))).expect("it boots");
    let env = running.kernel().expect("it is the administrator").env().clone();
    for name in ["nexus/store/upkeep", "nexus/store/committer"] {
        assert!(
            block_on(running.kill(name, Kill::Wedge)).expect("it is the administrator"),
            "{name} is there"
        );
        // The lifecycle, the router and the committer serve on, elsewhere.
        let mounting = async {
            // What the held thread had begun is told as crashed, and may have been done.
            while let Err(error) = running.mount("/memory", MountSpec::new("memory")).await {
                assert_eq!(error.kind(), nexus::ErrorKind::Crashed, "{error}");
            }
            while let Err(error) = running.unmount("/memory").await {
                assert_eq!(error.kind(), nexus::ErrorKind::Crashed, "{error}");
            }
            running.write("/a", "b").await.expect("it writes");
        };
        let served = block_on(env.timeout(HELD_MAX, mounting));
        assert!(served.is_ok(), "{name} holds the others on its thread");
    }
    block_on(running.shutdown()).expect("it stops");
}

/// Lets nobody write below `/__sys__/actors`.
struct Protects;

impl Interceptor for Protects {
    fn ops(&self) -> OpSet {
        OpSet::from(Op::Write)
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        let is_kill = cx.call.path().as_str().starts_with("/__sys__/actors/");
        let verdict = if is_kill { Verdict::refuse("they are left in peace") } else { Verdict::Continue };
        Box::pin(std::future::ready(verdict))
    }
}

#[test]
fn a_kill_passes_what_every_write_passes() {
    block_on(async {
        let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
        let router = || async { nx.read("/__sys__/actors/nexus/kernel/router").await.expect("it is there") };
        let restarts = |shown: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(shown).expect("it is JSON")["restarts"].clone()
        };
        let protects = Registration::interceptor("protects", Arc::new(Protects));
        let hook = nx.register_hook(protects).await.expect("there is room");
        let refused = nx.kill("nexus/kernel/router", Kill::Panic).await.expect_err("a hook says no");
        assert!(refused.to_string().contains("they are left in peace"), "{refused}");
        assert_eq!(restarts(&router().await), 0);
        nx.unregister_hook(hook).await.expect("it is there");
        assert!(nx.kill("nexus/kernel/router", Kill::Panic).await.expect("nobody says no"));
        while restarts(&router().await) == 0 {
            thread::yield_now();
        }
        assert!(!nx.kill("nexus/kernel/nobody", Kill::Panic).await.expect("nobody says no"));
        nx.shutdown().await.expect("it stops");
        assert!(!nx.kill("nexus/kernel/router", Kill::Panic).await.expect("there is no kernel"));
    });
}

#[test]
fn a_killed_committer_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("there is room");
    let running = block_on(boot(folder.path()));
    let stop = Arc::new(AtomicBool::new(false));
    let (acknowledged, unknown) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (kernel, admin, stop) = (running.kernel.clone(), running.admin.clone(), stop.clone());
            let (acknowledged, unknown) = (acknowledged.clone(), unknown.clone());
            thread::spawn(move || {
                let mut kept = Vec::new();
                block_on(async {
                    for n in 0u64.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let file = path(&format!("/w{writer}/{n}"));
                        match kernel.send(&admin, SysWrite::at(&file, n.to_string()).create()).await {
                            Ok(_) => {
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                                kept.push((file, n));
                            }
                            Err(error) => {
                                assert_eq!(error.executed(), Executed::Unknown, "{error}");
                                unknown.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
                kept
            })
        })
        .collect();
    for round in 0..ROUNDS {
        for how in [Kill::Panic, Kill::Error, Kill::Brutal] {
            // Each kill meets writers at work.
            let before = acknowledged.load(Ordering::Relaxed);
            while acknowledged.load(Ordering::Relaxed) < before + 20 {
                assert!(
                    !writers.iter().all(thread::JoinHandle::is_finished),
                    "the writers failed in round {round}"
                );
                thread::yield_now();
            }
            kill_and_wait(&running, "nexus/store/committer", how);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let kept: Vec<_> =
        writers.into_iter().flat_map(|writer| writer.join().expect("no writer failed")).collect();
    assert!(kept.len() as u64 >= ROUNDS * 3 * 20);
    block_on(async {
        for (file, n) in &kept {
            let read =
                running.kernel.send(&running.admin, SysRead::at(file)).await.expect("it was acknowledged");
            assert_eq!(read.data, n.to_string());
        }
        running.stop().await;

        // And on disk: a new kernel on the same folder has them too.
        let again = boot(folder.path()).await;
        for (file, n) in &kept {
            let stat = again.kernel.send(&again.admin, SysStat::at(file)).await.expect("it was acknowledged");
            assert_eq!(stat.size, n.to_string().len() as u64);
        }
        again.stop().await;
    });
}

#[test]
fn a_transaction_is_whole_or_not_there_when_its_committer_is_killed() {
    const FILES: u64 = 3;
    let folder = tempfile::tempdir().expect("there is room");
    let running = block_on(boot(folder.path()));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let at = |writer: u64, n: u64, file: u64| path(&format!("/t{writer}/{n}/{file}"));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (kernel, admin, stop) = (running.kernel.clone(), running.admin.clone(), stop.clone());
            let acknowledged = acknowledged.clone();
            thread::spawn(move || {
                // Of each transaction, whether it was acknowledged.
                let mut sent = Vec::new();
                block_on(async {
                    for n in 0u64.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        // Some of the content is stored before the commit.
                        let data = vec![b'x'; if n % 8 == 0 { 20_000 } else { 10 }];
                        let write = |file| SysWrite::at(at(writer, n, file), data.clone()).create_exclusive();
                        let moved = SysRename::new(at(writer, n, FILES), at(writer, n, FILES - 1));
                        let tx =
                            (0..FILES - 1).chain([FILES]).fold(SysTx::new(), |tx, file| tx.with(write(file)));
                        match kernel.send(&admin, tx.with(moved)).await {
                            Ok(_) => {
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                                sent.push(true);
                            }
                            Err(error) => {
                                assert_eq!(error.executed(), Executed::Unknown, "{error}");
                                sent.push(false);
                            }
                        }
                    }
                });
                (writer, sent)
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        for how in [Kill::Panic, Kill::Error, Kill::Brutal] {
            let before = acknowledged.load(Ordering::Relaxed);
            while acknowledged.load(Ordering::Relaxed) < before + 20 {
                assert!(!writers.iter().all(thread::JoinHandle::is_finished), "the writers failed");
                thread::yield_now();
            }
            kill_and_wait(&running, "nexus/store/committer", how);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<_> = writers.into_iter().map(|writer| writer.join().expect("no writer failed")).collect();
    block_on(async {
        running.stop().await;
        let again = boot(folder.path()).await;
        for (writer, sent) in sent {
            for (n, acknowledged) in (0u64..).zip(sent) {
                let mut there = 0;
                for file in 0..FILES {
                    there += u64::from(
                        again.kernel.send(&again.admin, SysRead::at(at(writer, n, file))).await.is_ok(),
                    );
                }
                let left = again.kernel.send(&again.admin, SysStat::at(at(writer, n, FILES))).await;
                assert!(left.is_err(), "it was moved, or never there");
                assert!(there == FILES || there == 0 && !acknowledged, "{there} of {FILES}: {writer}, {n}");
            }
        }
        again.stop().await;
    });
}

/// The store has put the mount away by then: with its route left it would be taken for attached, and what is written there be gone with the next boot.
#[test]
fn a_mount_whose_router_dies_of_taking_it_away_is_gone_and_comes_back_whole() {
    for moment in [Moment::Before, Moment::After] {
        let folder = tempfile::tempdir().expect("there is room");
        let files = folder.path().join("files");
        std::fs::create_dir(&files).expect("there is room");
        let spec = MountSpec::new("path-local").option("folder", files.display().to_string());
        let boot = || {
            let config = Config::new(folder.path().join("data")).restarts(1_000, Duration::from_secs(1));
            nexus::blocking::connect(config).expect("it boots")
        };
        let nx = boot();
        nx.mount("/m", spec.clone()).expect("it is mounted");
        assert!(
            nx.kill("nexus/kernel/router", Kill::Handling(Inject::Panic, moment)).expect("it may be killed")
        );
        nx.unmount("/m").expect("what is committed is finished");
        assert!(!nx.exists("/m").expect("it is known"), "{moment:?}");
        nx.mount("/m", spec).expect("it is mounted again");
        nx.write("/m/x", "kept").expect("it is written");
        nx.shutdown().expect("it ends");
        assert_eq!(boot().read("/m/x").expect("it is there"), "kept", "{moment:?}");
    }
}

/// The paths of all actors with their incarnations, in the order of the tree.
fn actors(nx: &Nexus) -> Vec<(String, u64)> {
    fn walk(status: &TreeStatus, path: String, found: &mut Vec<(String, u64)>) {
        for child in &status.children {
            walk(child, format!("{path}/{}", child.id), found);
        }
        let serves = status.actor.state == ActorState::Running;
        found.push((path, if serves { status.actor.generation } else { 0 }));
    }
    let tree = nx.kernel().expect("a kernel of this process").supervised().expect("it serves").snapshot();
    let mut found = Vec::new();
    walk(&tree, tree.id.to_string(), &mut found);
    found
}

/// Who works in the simulation now, by name.
fn at_work(simulation: &Simulation) -> BTreeMap<Arc<str>, i64> {
    let mut working = BTreeMap::new();
    for step in simulation.trace().entries {
        match step.event {
            Event::Spawned => *working.entry(step.who).or_default() += 1,
            Event::Ended => *working.entry(step.who).or_default() -= 1,
            _ => {}
        }
    }
    working
}

/// Hears everything, and is as large as it is.
struct Listening(#[expect(dead_code, reason = "who looks whether it is gone holds the other end")] Arc<()>);

impl Observer for Listening {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, _: &nexus::Event) {}
}

/// A kernel in a simulation, to which somebody listens.
fn listened_to(env: &Env, heard: &Arc<()>) -> impl Future<Output = Nexus> {
    let config = Config::in_memory().env(env.clone()).restarts(u32::MAX, Duration::from_secs(1));
    let observer = Registration::observer("listening", Arc::new(Listening(heard.clone())));
    async move {
        let nx = nexus::connect(config).await.expect("it boots");
        nx.register_hook(observer).await.expect("it is registered");
        nx.write("/f", "x").await.expect("it is written");
        nx
    }
}

/// Found by a campaign that took all memory: a killed committer left its thread behind.
#[test]
fn whoever_is_killed_leaves_nobody_behind() {
    let (env, simulation) = Env::seeded(5);
    simulation.quiet();
    let nx = simulation.block_on(listened_to(&env, &Arc::default()));
    let killed_once = || {
        simulation.block_on(async {
            for (path, generation) in actors(&nx).iter().rev().skip(1) {
                assert!(nx.kill(path, Kill::Brutal).await.expect("somebody may"), "{path}");
                let back = async {
                    while !actors(&nx).iter().any(|(at, now)| at == path && now > generation) {
                        env.sleep(Duration::from_millis(1)).await;
                    }
                };
                env.timeout(HELD_MAX, back).await.expect("it comes back");
                nx.write("/f", "x").await.expect("it is written");
            }
            env.sleep(HELD_MAX).await;
        });
        at_work(&simulation)
    };
    let before = killed_once();
    killed_once();
    assert_eq!(killed_once(), before);
    simulation.block_on(nx.shutdown()).expect("it ends");
}

/// Found by the same campaign: an observer's queue was kept by its actor, and kept that.
#[test]
fn nothing_is_left_of_a_kernel_that_has_ended() {
    let (env, simulation) = Env::seeded(5);
    let heard = Arc::new(());
    let nx = simulation.block_on(listened_to(&env, &heard));
    simulation.block_on(nx.shutdown()).expect("it ends");
    drop((nx, env));
    drop(simulation);
    assert_eq!(Arc::strong_count(&heard), 1, "who listened is gone with the kernel");
}
