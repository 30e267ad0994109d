//! Who is restarted, how often, and what the others see of it. On real threads and in a simulation.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nexus_actors::{ActorState, CallError, ChildExit, Env, ExitReason, Latch, block_on, child};
use nexus_supervisors::{
    AutoShutdown, Backoff, ChildSpec, Kill, OrderError, Restart, Shutdown, Strategy, SupSpec, Tree,
};

use crate::common::{
    Add, Args, Boom, Log, Quit, SOON, quiet_host, until, until_running, worker, worker_with,
};

/// Runs `claim` on threads and in a simulation.
fn check<F: Future<Output = ()>>(claim: impl Fn(Env) -> F) {
    let env = quiet_host();
    block_on(claim(env.clone()));
    env.stop();
    let (env, simulation) = Env::seeded(11);
    simulation.quiet();
    simulation.block_on(claim(env));
}

fn poison_under(strategy: Strategy, restarted: &'static str, killed_once_more: &'static str) {
    check(async |env| {
        let log = Log::default();
        let mut spec = SupSpec::new("sup", strategy).restarts(5, SOON);
        let mut actors = Vec::new();
        for id in ["a", "b", "c"] {
            let (actor, child) = worker(&env, id, &log);
            actors.push(actor);
            spec = spec.child(child);
        }
        let tree = Tree::start(&env, spec).await.unwrap();
        assert_eq!(log.take(), "start a, start b, start c");
        assert_eq!(actors[1].call(Add(5), SOON).await, Ok(5));
        // What is queued behind the poison is served by the next incarnation.
        let (poison, behind) =
            futures_util::future::join(actors[1].call(Boom, SOON), actors[1].call(Add(2), SOON)).await;
        assert_eq!(poison, Err(CallError::Crashed { generation: 1 }));
        assert_eq!(behind, Ok(2));
        until_running(&env, &tree, "sup/c", if restarted.contains("start c") { 2 } else { 1 }).await;
        assert_eq!(log.take(), restarted);
        let status = tree.find("sup/b").unwrap().actor;
        assert_eq!((status.generation, status.restarts), (2, 1));
        assert!(matches!(status.last_exit, Some(ExitReason::Panic { handling: Some("worker.boom"), .. })));

        assert!(tree.kill("sup/b", Kill::Brutal));
        until_running(&env, &tree, "sup/b", 3).await;
        until_running(&env, &tree, "sup/c", if restarted.contains("start c") { 3 } else { 1 }).await;
        assert_eq!(log.take(), killed_once_more);
        tree.stop().await;
        assert_eq!(log.take(), "stop c, stop b, stop a");
        assert_eq!(actors[0].call(Add(1), SOON).await, Err(CallError::Down));
        assert_eq!(tree.wait().await, ExitReason::Shutdown);
    });
}

#[test]
fn one_for_one_restarts_the_poisoned_child_alone() {
    poison_under(Strategy::OneForOne, "start b", "start b");
}

#[test]
fn one_for_all_restarts_everybody() {
    let all = "stop c, stop a, start a, start b, start c";
    poison_under(Strategy::OneForAll, all, all);
}

#[test]
fn rest_for_one_restarts_those_below() {
    let rest = "stop c, start b, start c";
    poison_under(Strategy::RestForOne, rest, rest);
}

#[test]
fn a_child_whose_start_was_under_way_when_its_supervisor_died_is_not_there_after() {
    check(async |env| {
        let (_, first) = worker(&env, "steady", &Log::default());
        let inner = SupSpec::new("sup", Strategy::OneForOne).child(first);
        let spec = SupSpec::new("top", Strategy::OneForOne).supervisor(inner);
        let tree = Tree::start(&env, spec).await.unwrap();
        let orders = tree.supervisor("top/sup").unwrap();
        let args = Args { id: "hangs", panics_in: Some("init never ends"), ..Args::default() };
        let (_, hangs) = worker_with(&env, args);
        let starting = orders.start_child(hangs);
        let killing = async {
            until(&env, &tree, "top/sup/hangs", |s| s.actor.state == ActorState::Starting).await;
            assert!(tree.kill("top/sup", Kill::Brutal));
        };
        let (started, ()) = futures_util::future::join(starting, killing).await;
        assert!(matches!(started, Err(OrderError::Call(CallError::Crashed { .. }))), "{started:?}");
        until_running(&env, &tree, "top/sup/steady", 2).await;
        assert!(tree.find("top/sup/hangs").is_none());
        tree.stop().await;
    });
}

#[test]
fn restart_types_decide_by_the_exit() {
    let restarts = |restart: Restart, exit: ExitReason, again: bool| {
        check(|env| {
            let exit = exit.clone();
            async move {
                let (actor, child) = worker(&env, "a", &Log::default());
                let spec = SupSpec::new("sup", Strategy::OneForOne).child(child.restart(restart));
                let tree = Tree::start(&env, spec).await.unwrap();
                actor.call(Quit(exit), SOON).await.unwrap();
                if again {
                    assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
                } else {
                    // Down for good: closed, and a temporary one is forgotten.
                    assert_eq!(actor.call(Add(1), SOON).await, Err(CallError::Down));
                    assert_eq!(tree.find("sup/a").is_none(), restart == Restart::Temporary);
                }
                tree.stop().await;
            }
        });
    };
    let error = || ExitReason::error("bad");
    restarts(Restart::Permanent, ExitReason::Normal, true);
    restarts(Restart::Permanent, error(), true);
    restarts(Restart::Transient, ExitReason::Normal, false);
    restarts(Restart::Transient, ExitReason::Shutdown, false);
    restarts(Restart::Transient, error(), true);
    restarts(Restart::Temporary, ExitReason::Normal, false);
    restarts(Restart::Temporary, error(), false);
}

#[test]
fn too_many_restarts_escalate_and_a_restarted_supervisor_restarts_its_children() {
    check(async |env| {
        let log = Log::default();
        let (leaf, child) = worker(&env, "leaf", &log);
        let (other, sibling) = worker(&env, "other", &log);
        let inner = SupSpec::new("inner", Strategy::OneForOne).restarts(1, SOON).child(child).child(sibling);
        let tree =
            Tree::start(&env, SupSpec::new("outer", Strategy::OneForOne).restarts(1, SOON).supervisor(inner))
                .await
                .unwrap();
        assert_eq!(other.call(Add(3), SOON).await, Ok(3));
        for _ in 0..2 {
            assert!(matches!(leaf.call(Boom, SOON).await, Err(CallError::Crashed { .. })));
        }
        // The second restart was one too many: the inner supervisor gave up, and the outer one restarted it. The
        // references are the old ones.
        assert_eq!(leaf.call(Add(7), SOON).await, Ok(7));
        assert_eq!(other.call(Add(1), SOON).await, Ok(1));
        let inner = tree.find("outer/inner").unwrap();
        assert_eq!(inner.actor.last_exit, Some(ExitReason::RestartIntensity));
        assert_eq!(inner.actor.generation, 2);
        // And again: now it is one too many for the outer one.
        for _ in 0..2 {
            assert!(matches!(leaf.call(Boom, SOON).await, Err(CallError::Crashed { .. })));
        }
        assert_eq!(tree.wait().await, ExitReason::RestartIntensity);
        assert_eq!(leaf.call(Add(1), SOON).await, Err(CallError::Down));
        assert_eq!(tree.snapshot().actor.state, ActorState::Stopped);
    });
}

#[test]
fn a_killed_supervisor_takes_its_children_along_and_brings_them_back() {
    check(async |env| {
        let (leaf, child) = worker(&env, "leaf", &Log::default());
        let inner = SupSpec::new("inner", Strategy::OneForOne).child(child);
        let tree =
            Tree::start(&env, SupSpec::new("outer", Strategy::OneForOne).restarts(3, SOON).supervisor(inner))
                .await
                .unwrap();
        assert_eq!(leaf.call(Add(3), SOON).await, Ok(3));
        for (how, generation) in [(Kill::Brutal, 2), (Kill::Panic, 3), (Kill::Error, 4)] {
            assert!(tree.kill("outer/inner", how));
            until(&env, &tree, "outer/inner", |s| s.actor.generation == generation).await;
            assert_eq!(leaf.call(Add(1), SOON).await, Ok(1));
        }
        tree.stop().await;
    });
}

#[test]
fn calls_during_back_off_succeed_within_their_deadline() {
    check(async |env| {
        let log = Log::default();
        let args = Args { id: "a", log: log.clone(), ..Args::default() };
        let (bad_starts, warm) = (args.bad_starts.clone(), args.warm.clone());
        let (actor, child) = worker_with(&env, args);
        let wait = Duration::from_millis(40);
        let child = child.backoff(Backoff { first: wait, factor: 1, max: wait });
        let tree =
            Tree::start(&env, SupSpec::new("sup", Strategy::OneForOne).restarts(9, SOON).child(child)).await;
        let tree = tree.unwrap();
        bad_starts.store(2, Ordering::SeqCst);
        let began = env.now();
        assert!(actor.call(Boom, SOON).await.is_err());
        // The first restart is at once and fails; so does the second; the third succeeds.
        let too_short = actor.call(Add(1), wait / 2);
        let long_enough = actor.call(Add(1), SOON);
        let (short, long) = futures_util::future::join(too_short, long_enough).await;
        assert_eq!((short, long), (Err(CallError::Busy), Ok(1)));
        assert!(env.now() - began >= 2 * wait);
        // Warm first, cold from the second restart on.
        assert_eq!(*warm.lock().unwrap(), [true, true, false, false]);
        tree.stop().await;
    });
}

#[test]
fn faults_in_init_terminate_and_drop_are_survived() {
    check(async |env| {
        for place in ["terminate", "drop", "never stops"] {
            let args = Args { id: "a", panics_in: Some(place), ..Args::default() };
            let (actor, child) = worker_with(&env, args);
            let child = child.shutdown(Shutdown::Timeout(Duration::from_millis(20)));
            let (below, other) = worker(&env, "b", &Log::default());
            let spec = SupSpec::new("sup", Strategy::OneForAll).child(child).child(other);
            let tree = Tree::start(&env, spec).await.unwrap();
            assert!(below.call(Boom, SOON).await.is_err());
            assert_eq!(actor.call(Add(2), SOON).await, Ok(2));
            tree.stop().await;
            assert_eq!(actor.call(Add(2), SOON).await, Err(CallError::Down));
        }
        // A panic in init is a failed start: the tree does not start, and what was started is stopped.
        let log = Log::default();
        let (_, first) = worker(&env, "a", &log);
        let bad = Args {
            id: "b",
            panics_in: Some("init"),
            bad_starts: Arc::new(AtomicU32::new(1)),
            ..Args::default()
        };
        let (_, second) = worker_with(&env, bad);
        let spec = SupSpec::new("sup", Strategy::OneForOne).child(first).child(second);
        let why = Tree::start(&env, spec).await.unwrap_err();
        let ExitReason::Panic { message, location, .. } = why else { panic!("{why}") };
        assert!(message.contains("in init") && location.is_some());
        assert_eq!(log.take(), "start a, stop a");
    });
}

#[test]
fn significant_children_end_their_supervisor() {
    let ends = |auto: AutoShutdown, quits: &'static [usize], ended: bool| {
        check(async |env| {
            let log = Log::default();
            let mut spec = SupSpec::new("sup", Strategy::OneForOne).auto_shutdown(auto);
            let mut actors = Vec::new();
            for id in ["a", "b", "c"] {
                let (actor, child) = worker(&env, id, &log);
                actors.push(actor);
                spec = spec.child(child.restart(Restart::Transient).significant(id != "c"));
            }
            let tree = Tree::start(&env, spec).await.unwrap();
            for at in quits {
                actors[*at].call(Quit(ExitReason::Normal), SOON).await.unwrap();
            }
            if ended {
                assert_eq!(tree.wait().await, ExitReason::Shutdown);
                assert_eq!(actors[2].call(Add(1), SOON).await, Err(CallError::Down));
            } else {
                for (at, actor) in actors.iter().enumerate() {
                    let down = quits.contains(&at);
                    assert_eq!(
                        actor.call(Add(1), SOON).await,
                        if down { Err(CallError::Down) } else { Ok(1) }
                    );
                }
                tree.stop().await;
            }
        });
    };
    ends(AutoShutdown::Never, &[0, 1], false);
    ends(AutoShutdown::AnySignificant, &[2], false);
    ends(AutoShutdown::AnySignificant, &[1], true);
    ends(AutoShutdown::AllSignificant, &[1], false);
    ends(AutoShutdown::AllSignificant, &[1, 0], true);
}

#[test]
fn children_come_and_go_by_order_and_survive_their_supervisor() {
    check(async |env| {
        let drivers = SupSpec::new("drivers", Strategy::OneForOne);
        let tree =
            Tree::start(&env, SupSpec::new("nexus", Strategy::OneForOne).supervisor(drivers)).await.unwrap();
        let orders = tree.supervisor("nexus/drivers").unwrap();
        let (actor, child) = worker(&env, "disk", &Log::default());
        assert_eq!(orders.start_child(child.clone()).await, Ok(1));
        assert!(orders.start_child(child).await.is_err());
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        let names: Vec<_> = orders.which_children().iter().map(|c| c.id.to_string()).collect();
        assert_eq!(names, ["disk"]);

        assert!(tree.kill("nexus/drivers", Kill::Panic));
        until_running(&env, &tree, "nexus/drivers/disk", 2).await;
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));

        orders.terminate_child("disk").await.unwrap();
        assert_eq!(actor.call(Add(1), SOON).await, Err(CallError::Down));
        assert_eq!(orders.restart_child("disk").await, Ok(3));
        assert!(orders.delete_child("disk").await.is_err());
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        orders.terminate_child("disk").await.unwrap();
        orders.delete_child("disk").await.unwrap();
        assert!(orders.which_children().is_empty());

        let bad: ChildSpec =
            worker_with(&env, Args { id: "bad", bad_starts: Arc::new(AtomicU32::new(1)), ..Args::default() })
                .1;
        assert!(orders.start_child(bad).await.is_err());
        assert!(orders.which_children().is_empty());
        tree.stop().await;
    });
}

#[test]
fn a_monitor_hears_of_exits_and_failed_restarts_before_the_supervisor_acts() {
    check(async |env| {
        let log = Log::default();
        let args = Args { id: "a", log: log.clone(), ..Args::default() };
        let bad_starts = args.bad_starts.clone();
        let (actor, child) = worker_with(&env, args);
        let hears = log.clone();
        let monitor = Arc::new(move |exit: &ChildExit| {
            let why = if exit.reason == ExitReason::error("a bad start") { "a bad start" } else { "an exit" };
            hears.push(format!("{} {}: {why}", exit.id, exit.generation));
        });
        let child = child.monitor(Arc::new(|_| panic!("a bad monitor"))).monitor(monitor);
        let inner = SupSpec::new("inner", Strategy::OneForOne).restarts(9, SOON).child(child);
        let outer = SupSpec::new("outer", Strategy::OneForOne).restarts(9, SOON).supervisor(inner);
        let tree = Tree::start(&env, outer).await.unwrap();
        assert!(actor.call(Boom, SOON).await.is_err());
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        assert_eq!(log.take(), "start a, a 1: an exit, start a");

        bad_starts.store(1, Ordering::SeqCst);
        assert!(tree.kill("outer/inner/a", Kill::Brutal));
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        assert_eq!(log.take(), "a 2: an exit, a 3: a bad start, start a");

        // Its supervisor's end is not its own; and the next supervisor tells it again.
        assert!(tree.kill("outer/inner", Kill::Panic));
        until_running(&env, &tree, "outer/inner/a", 5).await;
        log.take();
        assert!(actor.fail(5, ExitReason::error("reported")));
        until_running(&env, &tree, "outer/inner/a", 6).await;
        assert_eq!(log.take(), "a 5: an exit, start a");
        tree.stop().await;
        assert_eq!(log.take(), "stop a");
    });
}

#[test]
fn a_lazy_child_is_made_once_for_a_tree_and_stays_the_same() {
    check(async |env| {
        let log = Log::default();
        let (made, wired) = (Arc::new(AtomicU32::new(0)), Latch::new());
        let (counts, wires, writes) = (made.clone(), wired.clone(), log.clone());
        // Written down without an environment.
        let spec = ChildSpec::lazy(
            "lazy",
            Arc::new(move |env: &Env| {
                counts.fetch_add(1, Ordering::SeqCst);
                let actor = crate::common::actor(env, "lazy");
                wires.set(actor.clone());
                child(&actor, Args { id: "lazy", log: writes.clone(), ..Args::default() })
            }),
        );
        assert_eq!(made.load(Ordering::SeqCst), 0);
        let inner = SupSpec::new("inner", Strategy::OneForOne).child(spec.clone());
        let outer = SupSpec::new("outer", Strategy::OneForOne).restarts(9, SOON).supervisor(inner);
        let tree = Tree::start(&env, outer).await.unwrap();
        let actor = wired.wait().await;
        assert!(actor.call(Boom, SOON).await.is_err());
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        assert!(tree.kill("outer/inner", Kill::Brutal));
        until_running(&env, &tree, "outer/inner/lazy", 3).await;
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        assert_eq!(made.load(Ordering::SeqCst), 1);
        // As a child that comes by order, and in a tree of its own, it is another actor.
        let late = SupSpec::new("late", Strategy::OneForOne);
        let other = Tree::start(&env, late).await.unwrap();
        assert_eq!(other.supervisor("late").unwrap().start_child(spec).await, Ok(1));
        assert_eq!(made.load(Ordering::SeqCst), 2);
        assert_eq!(tree.find("outer/inner/lazy").unwrap().actor.generation, 3);
        other.stop().await;
        tree.stop().await;
        assert_eq!(actor.call(Add(1), SOON).await, Err(CallError::Down));
    });
}

#[test]
fn the_tree_can_be_written_as_json() {
    check(async |env| {
        let (actor, child) = worker(&env, "a", &Log::default());
        let tree = Tree::start(&env, SupSpec::new("sup", Strategy::OneForOne).child(child)).await.unwrap();
        assert!(actor.call(Boom, SOON).await.is_err());
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        let json = serde_json::to_value(tree.snapshot()).unwrap();
        let child = &json["children"][0];
        assert_eq!(child["id"], "a");
        assert_eq!(child["generation"], 2);
        assert_eq!(child["last_exit"]["Panic"]["message"], "boom");
        tree.stop().await;
    });
}

/// Found by the chaos run: once its last success was longer ago than the period, each failed restart was followed by the next at once.
#[test]
fn a_child_that_cannot_be_restarted_is_not_tried_without_pause_however_long() {
    let (env, simulation) = Env::seeded(11);
    simulation.quiet();
    simulation.block_on(async {
        let log = Log::default();
        let bad_starts = Arc::new(AtomicU32::new(0));
        let args = Args { id: "a", log: log.clone(), bad_starts: bad_starts.clone(), ..Args::default() };
        let (_actor, child) = worker_with(&env, args);
        let wait = Duration::from_millis(100);
        let child = child.backoff(Backoff { first: wait, factor: 2, max: wait });
        let spec = SupSpec::new("sup", Strategy::OneForOne).restarts(u32::MAX, wait * 2).child(child);
        let tree = Tree::start(&env, spec).await.unwrap();
        bad_starts.store(1_000, Ordering::Relaxed);
        assert!(tree.kill("sup/a", Kill::Brutal));
        env.sleep(wait * 100).await;
        let tried = 1_000 - bad_starts.load(Ordering::Relaxed);
        assert!((90..=110).contains(&tried), "{tried} times in the time of 100 waits");
        tree.stop().await;
    });
}
