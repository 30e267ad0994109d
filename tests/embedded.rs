//! The kernel is one child of a user's tree: it stops with its parent, comes back after every kind of end, and is never there twice.

#![expect(clippy::disallowed_methods, reason = "the user's own threads")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nexus::actors::{
    Behaviour, ChildExit, Cx, Handle, LocalBoxFuture, MailboxBounds, Message, Ref, Reply, Start, block_on,
};
use nexus::supervisors::{Backoff, ChildSpec, Kill, Restart, Strategy, SupSpec, Tree};
use nexus::{
    Config, Embedded, Env, Errno, ErrorKind, Executed, ExitReason, HostConfig, MountSpec, Nexus, blocking,
};
use parking_lot::Mutex;

/// How long anything may take here, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// An actor of the user's, that writes for others.
struct Clerk {
    kernel: Embedded,
}

/// Writes this number to `/clerk/N`; whole, so that it may be repeated.
struct File(u64);

impl Message for File {
    type Reply = nexus::Result<()>;
    const NAME: &'static str = "clerk.file";
}

impl Behaviour for Clerk {
    type Args = Embedded;
    const NAME: &'static str = "clerk";

    fn init(kernel: Embedded, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self { kernel }) })
    }
}

impl Handle<File> for Clerk {
    fn handle(&mut self, File(n): File, _: &mut Cx<'_, Self>) -> Reply<Self, nexus::Result<()>> {
        let kernel = self.kernel.clone();
        Reply::later(async move {
            loop {
                let nx = kernel.ready().await?;
                match nx.write(format!("/clerk/{n}"), n.to_string()).await {
                    Err(error) if error.kind() == ErrorKind::Down => {}
                    done => return done.map(drop),
                }
            }
        })
    }
}

/// The user's tree: the kernel between two actors.
struct App {
    env: Env,
    tree: Tree,
    kernel: Embedded,
    clerks: [Ref<Clerk>; 2],
}

impl App {
    async fn start(
        env: Env,
        config: Config,
        strategy: Strategy,
        set: impl FnOnce(ChildSpec) -> ChildSpec,
    ) -> Result<Self, ExitReason> {
        let (child, kernel) = nexus::child(config);
        let clerks = ["first", "second"].map(|name| Ref::new(&env, name, MailboxBounds { messages: 64 }));
        let [first, second] = clerks.clone();
        let spec = SupSpec::new("app", strategy)
            .restarts(10, LIMIT)
            .child(ChildSpec::new("first", first, kernel.clone()))
            .child(set(child))
            .child(ChildSpec::new("second", second, kernel.clone()));
        let tree = Tree::start(&env, spec).await?;
        Ok(Self { env, tree, kernel, clerks })
    }

    /// Both actors have the kernel write.
    async fn work(&self, n: u64) {
        for (clerk, n) in self.clerks.iter().zip([2 * n, 2 * n + 1]) {
            clerk.call(File(n), LIMIT).await.expect("it answers").expect("it is written");
        }
    }

    async fn ready(&self) -> Nexus {
        let ready = self.env.timeout(LIMIT, self.kernel.ready()).await.expect("in time");
        ready.expect("there is a kernel")
    }

    fn generation(&self, path: &str) -> u64 {
        self.tree.find(path).expect("it is in the tree").actor.generation
    }

    async fn stop(self) {
        self.tree.stop().await;
        self.env.stop();
    }
}

fn host() -> Env {
    Env::host(HostConfig::default()).expect("threads can be started")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room")
}

/// The kernel that these handles were for has ended, and says so.
async fn check_old(old: &Nexus) {
    let refused = [
        old.read("/clerk/0").await.map(drop).expect_err("it has ended"),
        old.write("/late", "x").await.map(drop).expect_err("it has ended"),
    ];
    for error in refused {
        assert_eq!((error.errno(), error.executed()), (Errno::ESHUTDOWN, Executed::No), "{error}");
    }
}

/// The whole of it, once: two actors work, the kernel's child fails, they go on, and the parent's stop ends it.
async fn exercise(env: Env, config: Config) {
    let app = App::start(env, config, Strategy::OneForOne, |child| child).await.expect("it starts");
    app.work(0).await;
    let first = app.ready().await;
    assert!(app.tree.kill("app/nexus", Kill::Panic));
    assert_eq!(first.ended().await.expect("it is ours"), ExitReason::Shutdown);
    app.work(1).await;
    check_old(&first).await;
    let second = app.ready().await;
    assert_eq!(second.read("/clerk/3").await.expect("it was written"), "3");
    assert_eq!(app.kernel.tree().expect("it runs").id.as_ref(), "nexus");
    app.tree.stop().await;
    assert!(app.kernel.current().is_none() && app.kernel.tree().is_none());
    check_old(&second).await;
    let error = app.kernel.ready().await.expect_err("it was stopped for good");
    assert_eq!(error.kind(), ErrorKind::Down);
    assert!(error.to_string().contains("the kernel's child has ended: shut down"), "{error}");
    app.env.stop();
}

async fn exercise_both() {
    exercise(host(), Config::in_memory()).await;
    let folder = folder();
    exercise(host(), Config::new(folder.path())).await;
    let nx = nexus::connect(folder.path()).await.expect("the folder is free");
    assert_eq!(nx.readdir("/clerk").await.expect("it is there").len(), 4);
}

#[tokio::test(flavor = "current_thread")]
async fn in_a_current_thread_tokio_program() {
    exercise_both().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_multi_thread_tokio_program() {
    exercise_both().await;
}

#[test]
fn under_another_executor() {
    smol::block_on(exercise_both());
}

#[test]
fn in_a_simulation() {
    for seed in 0..20 {
        let (env, simulation) = Env::seeded(seed);
        simulation.block_on(exercise(env, Config::in_memory()));
    }
}

#[test]
fn a_stop_of_the_parent_loses_nothing_that_was_acknowledged() {
    let folder = folder();
    block_on(async {
        let app = App::start(host(), Config::new(folder.path()), Strategy::OneForOne, |child| child);
        let app = app.await.expect("it starts");
        let nx = app.ready().await;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (nx, acknowledged) = (blocking::Nexus::from(nx.clone()), acknowledged.clone());
                thread::spawn(move || {
                    for n in 0.. {
                        match nx.write(format!("/w{writer}/{n}"), n.to_string()) {
                            Ok(_) => acknowledged.fetch_add(1, Ordering::Relaxed),
                            Err(error) => return (writer, n, error),
                        };
                    }
                    unreachable!("it was stopped")
                })
            })
            .collect();
        // The stop meets writers at work.
        while acknowledged.load(Ordering::Relaxed) < 40 {
            thread::yield_now();
        }
        app.stop().await;

        // No handle was dropped, and yet the folder is free.
        let again = nexus::connect(folder.path()).await.expect("the folder is free at once");
        for writer in writers {
            let (writer, last, error) = writer.join().expect("it ended");
            for n in 0..last {
                let kept = again.read(format!("/w{writer}/{n}")).await.expect("it was acknowledged");
                assert_eq!(kept, n.to_string());
            }
            let there = again.exists(format!("/w{writer}/{last}")).await.expect("it tells");
            assert!(!(there && error.executed() == Executed::No), "it said it was not executed: {error}");
        }
        drop(nx);
    });
}

/// The kernel's child is hurt in one way, and the next one serves what the one before had acknowledged.
#[track_caller]
fn check_comes_back(how: Kill) {
    let folder = folder();
    block_on(async {
        let set = |child: ChildSpec| child.watchdog(Duration::from_secs(1));
        let app = App::start(host(), Config::new(folder.path()), Strategy::OneForOne, set);
        let app = app.await.expect("it starts");
        for round in 0..3 {
            app.work(round).await;
            let old = app.ready().await;
            assert!(app.tree.kill("app/nexus", how));
            let ended = app.env.timeout(LIMIT, old.ended()).await.expect("it ends");
            assert_eq!(
                ended.expect("it is ours"),
                ExitReason::Shutdown,
                "in order, whatever became of its child"
            );
            let new = app.ready().await;
            assert_eq!(
                new.read(format!("/clerk/{}", 2 * round)).await.expect("it is there"),
                (2 * round).to_string()
            );
            check_old(&old).await;
        }
        app.work(3).await;
        app.stop().await;
        let again = nexus::connect(folder.path()).await.expect("the folder is free");
        assert_eq!(again.readdir("/clerk").await.expect("it is there").len(), 8);
    });
}

#[test]
fn it_comes_back_after_a_panic() {
    check_comes_back(Kill::Panic);
}

#[test]
fn it_comes_back_after_an_error() {
    check_comes_back(Kill::Error);
}

#[test]
fn it_comes_back_after_a_brutal_kill() {
    check_comes_back(Kill::Brutal);
}

#[test]
fn it_comes_back_after_its_thread_hung() {
    check_comes_back(Kill::Wedge);
}

/// An actor of the user's is killed; whether the kernel is restarted with it is the strategy's to say.
#[track_caller]
fn check_strategy(strategy: Strategy, victim: &str, kernel_restarts: bool) {
    let folder = folder();
    block_on(async {
        let app = App::start(host(), Config::new(folder.path()), strategy, |child| child);
        let app = app.await.expect("it starts");
        app.work(0).await;
        let old = app.ready().await;
        let before = app.generation(victim);
        assert!(app.tree.kill(victim, Kill::Panic));
        if kernel_restarts {
            let ended = app.env.timeout(LIMIT, old.ended()).await.expect("it ends");
            assert_eq!(ended.expect("it is ours"), ExitReason::Shutdown);
        }
        while app.generation(victim) == before {
            thread::yield_now();
        }
        app.work(1).await;
        let new = app.ready().await;
        assert_eq!(new.readdir("/clerk").await.expect("it is there").len(), 4);
        if kernel_restarts {
            check_old(&old).await;
        } else {
            assert_eq!(old.read("/clerk/3").await.expect("it is the same kernel"), "3");
        }
        app.stop().await;
    });
}

#[test]
fn the_parents_strategy_says_who_is_restarted_with_whom() {
    check_strategy(Strategy::OneForOne, "app/first", false);
    check_strategy(Strategy::OneForAll, "app/second", true);
    check_strategy(Strategy::RestForOne, "app/first", true);
    check_strategy(Strategy::RestForOne, "app/second", false);
}

fn held(folder: &Path) -> String {
    format!("connect {}: busy: the data folder is in use by this process (EBUSY)", folder.display())
}

#[test]
fn a_boot_that_fails_is_a_failed_start_with_its_text() {
    let folder = folder();
    let holder = blocking::connect(folder.path()).unwrap();
    let env = host();
    block_on(async {
        let (child, kernel) = nexus::child(folder.path());
        let spec = SupSpec::new("app", Strategy::OneForOne).child(child);
        let failed = Tree::start(&env, spec.clone()).await.unwrap_err();
        assert_eq!(failed, ExitReason::error(held(folder.path())));
        let error = env.timeout(LIMIT, kernel.ready()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Down);
        // The same spec may be started again, and the handle is then that of the kernel.
        holder.shutdown().unwrap();
        let tree = Tree::start(&env, spec).await.unwrap();
        kernel.ready().await.unwrap().write("/a", "x").await.unwrap();
        tree.stop().await;
        env.stop();
    });
}

#[test]
fn a_boot_that_fails_is_tried_again_with_the_parents_back_off() {
    /// Failed boots before the folder is let go of.
    const FAILURES: usize = 3;
    let folder = folder();
    let (failures, holder) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
    let monitor = {
        let (failures, holder, folder) = (failures.clone(), holder.clone(), folder.path().to_owned());
        Arc::new(move |exit: &ChildExit| {
            if exit.reason == ExitReason::Killed {
                // The folder is taken before the child is started again.
                let taken = std::iter::repeat_with(|| blocking::connect(&*folder)).find_map(Result::ok);
                *holder.lock() = taken;
                return;
            }
            let mut failures = failures.lock();
            failures.push(exit.reason.clone());
            if failures.len() == FAILURES {
                *holder.lock() = None;
            }
        })
    };
    block_on(async {
        let backoff =
            Backoff { first: Duration::from_millis(20), factor: 2, max: Duration::from_millis(200) };
        let set = |child: ChildSpec| child.backoff(backoff).monitor(monitor);
        let app = App::start(host(), Config::new(folder.path()), Strategy::OneForOne, set);
        let app = app.await.unwrap();
        let old = app.ready().await;
        let before = app.env.now();
        assert!(app.tree.kill("app/nexus", Kill::Brutal));
        old.ended().await.unwrap();
        app.work(0).await;
        // Before the second restart, the third and the fourth.
        assert!(app.env.now() - before >= Duration::from_millis(20 + 40 + 80));
        let failures = failures.lock().clone();
        assert!(failures.len() >= FAILURES);
        assert!(failures.iter().all(|why| *why == ExitReason::error(held(folder.path()))), "{failures:?}");
        app.stop().await;
    });
}

/// Kills the router of this kernel until its root gives up.
async fn exhaust(nx: &Nexus) -> ExitReason {
    loop {
        nx.kill("nexus/kernel/router", Kill::Panic).await.expect("it is an administrator's handle");
        if let Ok(why) = nx.env().timeout(Duration::from_millis(5), nx.ended()).await {
            return why.expect("it is ours");
        }
    }
}

#[test]
fn a_root_that_gives_up_is_an_exit_of_the_child_and_the_parent_decides() {
    let folder = folder();
    let exits = Arc::new(Mutex::new(Vec::new()));
    block_on(async {
        let env = host();
        let heard = exits.clone();
        let (child, kernel) = nexus::child(Config::new(folder.path()).restarts(1, LIMIT));
        let child = child.monitor(Arc::new(move |exit| heard.lock().push(exit.reason.clone())));
        let app = SupSpec::new("app", Strategy::OneForOne).restarts(1, LIMIT).child(child);
        let tree = Tree::start(&env, app).await.unwrap();

        let first = kernel.ready().await.unwrap();
        first.write("/a", "one").await.unwrap();
        assert_eq!(exhaust(&first).await, ExitReason::RestartIntensity);
        let second = env.timeout(LIMIT, kernel.ready()).await.unwrap().unwrap();
        assert_eq!(second.read("/a").await.unwrap(), "one");
        let refused = first.read("/a").await.unwrap_err().to_string();
        assert!(refused.contains("the kernel has ended: restarted its children too often"), "{refused}");

        // The parent allows one restart.
        assert_eq!(exhaust(&second).await, ExitReason::RestartIntensity);
        assert_eq!(env.timeout(LIMIT, tree.wait()).await.unwrap(), ExitReason::RestartIntensity);
        assert_eq!(*exits.lock(), [ExitReason::RestartIntensity, ExitReason::RestartIntensity]);
        let none = env.timeout(LIMIT, kernel.ready()).await.unwrap().unwrap_err();
        assert!(none.to_string().contains("restarted its children too often"), "{none}");
        let again = nexus::connect(folder.path()).await.unwrap();
        assert_eq!(again.read("/a").await.unwrap(), "one");
        env.stop();
    });
}

#[test]
fn a_handle_that_shuts_the_kernel_down_ends_the_child_in_order() {
    block_on(async {
        let set = |child: ChildSpec| child.restart(Restart::Transient);
        let app = App::start(host(), Config::in_memory(), Strategy::OneForOne, set).await.unwrap();
        app.ready().await.shutdown().await.unwrap();
        let error = app.env.timeout(LIMIT, app.kernel.ready()).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("the kernel's child has ended: shut down"), "{error}");
        // By order it is started again.
        app.tree.supervisor("app").unwrap().restart_child("nexus").await.unwrap();
        app.work(0).await;
        app.stop().await;
    });
}

#[test]
fn a_start_that_is_broken_off_leaves_no_kernel_behind() {
    let folder = folder();
    block_on(async {
        let env = host();
        let (child, kernel) = nexus::child(Config::new(folder.path()).root(MountSpec::new("cas-local")));
        let spec = SupSpec::new("app", Strategy::OneForOne).child(child.start_within(Duration::ZERO));
        for _ in 0..5 {
            let broken = Tree::start(&env, spec.clone()).await.unwrap_err();
            assert_eq!(broken, ExitReason::TimedOut { doing: "init" });
        }
        assert!(env.timeout(LIMIT, kernel.ready()).await.unwrap().is_err());
        // The kernel that was begun ends in its own time, and then the folder is free.
        let freed = async {
            loop {
                match nexus::connect(folder.path()).await {
                    Ok(nx) => return nx.shutdown().await,
                    Err(error) if error.kind() == ErrorKind::Busy => {
                        env.sleep(Duration::from_millis(5)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        env.timeout(LIMIT, Box::pin(freed)).await.unwrap().unwrap();
        env.stop();
    });
}

#[test]
fn a_spec_that_is_never_started_leaves_nobody_waiting() {
    let (child, kernel) = nexus::child(Config::in_memory());
    drop(child);
    let error = block_on(kernel.ready()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Down);
    assert!(error.to_string().contains("dropped before it was started"), "{error}");
}

#[test]
fn several_kernels_stand_under_one_supervisor() {
    block_on(async {
        let env = host();
        let (one, first) = nexus::child_as("one", Config::in_memory());
        let (two, second) = nexus::child_as("two", Config::in_memory());
        let app = SupSpec::new("app", Strategy::OneForOne).child(one).child(two);
        let tree = Tree::start(&env, app).await.unwrap();
        first.ready().await.unwrap().write("/a", "x").await.unwrap();
        assert!(!second.ready().await.unwrap().exists("/a").await.unwrap());
        tree.stop().await;
        env.stop();
    });
}
