//! How a tree ends that restarts too often: in order, with a reason, and never in a hang.

use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use nexus_actors::{ActorState, CallError, Env, ExitReason, Place, block_on};
use nexus_supervisors::{Kill, OrderError, Shutdown, Strategy, SupSpec, Tree, TreeStatus};

use crate::common::{Add, Block, Boom, Log, SOON, quiet_host, until, worker};

/// Runs `claim` on threads and in a simulation.
fn check<F: Future<Output = ()>>(claim: impl Fn(Env) -> F) {
    let env = quiet_host();
    block_on(claim(env.clone()));
    env.stop();
    let (env, simulation) = Env::seeded(13);
    simulation.quiet();
    simulation.block_on(claim(env));
}

fn all_stopped(status: &TreeStatus) -> bool {
    status.actor.state == ActorState::Stopped && status.children.iter().all(all_stopped)
}

#[test]
fn a_root_that_gives_up_stops_all_in_order_and_says_why() {
    check(async |env| {
        let log = Log::default();
        let (first, a) = worker(&env, "a", &log);
        let (second, b) = worker(&env, "b", &log);
        let (third, c) = worker(&env, "c", &log);
        let (bad, d) = worker(&env, "d", &log);
        let (last, e) = worker(&env, "e", &log);
        let inner = SupSpec::new("inner", Strategy::RestForOne).child(b).child(c);
        let root = SupSpec::new("root", Strategy::OneForOne)
            .restarts(1, SOON * 10)
            .child(a)
            .supervisor(inner)
            .child(d)
            .child(e);
        let tree = Tree::start(&env, root).await.unwrap();
        let orders = tree.supervisor("root/inner").unwrap();
        assert!(bad.call(Boom, SOON).await.is_err());
        assert_eq!(bad.call(Add(1), SOON).await, Ok(1));
        log.take();

        // The second crash is one too many. Who waits behind it hears at the end that nobody will serve.
        let (crashed, waiting, why) =
            futures_util::future::join3(bad.call(Boom, SOON), bad.call(Add(1), SOON * 10), tree.wait()).await;
        assert_eq!(crashed, Err(CallError::Crashed { generation: 2 }));
        assert_eq!(waiting, Err(CallError::Down));
        assert_eq!(why, ExitReason::RestartIntensity);
        assert_eq!(log.take(), "stop e, stop c, stop b, stop a");
        for actor in [&first, &second, &third, &bad, &last] {
            assert_eq!(actor.call(Add(1), SOON).await, Err(CallError::Down));
        }
        assert_eq!(orders.restart_child("b").await, Err(OrderError::Call(CallError::Down)));
        assert!(all_stopped(&tree.snapshot()), "{:?}", tree.snapshot());

        // What comes later changes nothing of it.
        assert!(tree.kill("root", Kill::Brutal) && tree.kill("root/a", Kill::Panic));
        tree.stop().await;
        assert_eq!(tree.wait().await, ExitReason::RestartIntensity);
        assert_eq!(log.take(), "");
    });
}

#[test]
fn a_failure_climbs_level_by_level_up_to_the_last_word() {
    check(async |env| {
        let log = Log::default();
        let (leaf, child) = worker(&env, "leaf", &log);
        let (_, sibling) = worker(&env, "sibling", &log);
        let low = SupSpec::new("low", Strategy::OneForOne).restarts(1, SOON * 10).child(child);
        let middle = SupSpec::new("middle", Strategy::OneForOne).restarts(1, SOON * 10).supervisor(low);
        let top =
            SupSpec::new("top", Strategy::RestForOne).restarts(0, SOON).child(sibling).supervisor(middle);
        let tree = Tree::start(&env, top).await.unwrap();
        // Each level bears one; so four crashes are what the tree bears in all.
        for _ in 0..3 {
            assert!(leaf.call(Boom, SOON).await.is_err());
            assert_eq!(leaf.call(Add(1), SOON).await, Ok(1));
        }
        assert_eq!(tree.find("top/middle/low").unwrap().actor.last_exit, Some(ExitReason::RestartIntensity));
        assert_eq!(tree.find("top/middle").unwrap().actor.restarts, 0);
        assert!(leaf.call(Boom, SOON).await.is_err());
        assert_eq!(tree.wait().await, ExitReason::RestartIntensity);
        assert_eq!(tree.find("top/middle").unwrap().actor.last_exit, Some(ExitReason::RestartIntensity));
        assert!(log.take().ends_with("stop sibling"));
        assert_eq!(leaf.call(Add(1), SOON).await, Err(CallError::Down));
    });
}

/// A child blocks the one kernel thread, on which its siblings live as well; then the root gives up.
fn wedged_at_the_end(watchdog: Option<Duration>, stops: Duration) {
    let env = quiet_host();
    block_on(async {
        let log = Log::default();
        let (stuck, mut child) = worker(&env, "stuck", &log);
        if let Some(limit) = watchdog {
            child = child.watchdog(limit);
        }
        let mut root = SupSpec::new("root", Strategy::OneForOne)
            .restarts(0, SOON)
            .child(child.shutdown(Shutdown::Timeout(stops)));
        let mut siblings = Vec::new();
        for id in ["a", "b", "c"] {
            let (sibling, child) = worker(&env, id, &log);
            siblings.push(sibling);
            root = root.child(child.shutdown(Shutdown::Timeout(stops)));
        }
        let (bad, child) = worker(&env, "bad", &log);
        let tree = Tree::start(&env, root.child(child.place(Place::Own))).await.unwrap();
        let (_release, until_released) = mpsc::channel();
        let begun = stuck.call(Block(until_released), SOON * 10);
        let queued = stuck.call(Add(1), SOON * 10);
        let beside = siblings[0].call(Add(1), SOON * 10);
        let gives_up = async {
            until(&env, &tree, "root/stuck", |s| s.actor.in_flight == 1).await;
            assert!(bad.call(Boom, SOON).await.is_err());
            tree.wait().await
        };
        let all = futures_util::future::join4(begun, queued, beside, gives_up);
        let (begun, queued, beside, why) = env.timeout(SOON, all).await.expect("it ends");
        assert_eq!(why, ExitReason::RestartIntensity);
        assert_eq!(begun, Err(CallError::Crashed { generation: 1 }));
        assert_eq!((queued, beside), (Err(CallError::Down), Err(CallError::Down)));
        assert!(all_stopped(&tree.snapshot()));
    });
    env.stop();
}

#[test]
fn a_wedged_child_does_not_hang_the_last_word() {
    wedged_at_the_end(None, Duration::from_millis(10));
}

#[test]
fn a_watchdog_goes_on_while_its_supervisor_stops() {
    // Without it each of the siblings would use up its limit, which is as long as this test may take.
    wedged_at_the_end(Some(Duration::from_millis(40)), SOON);
}
