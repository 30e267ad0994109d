//! A handler that never returns: its mailbox is served elsewhere, and it can do no more harm.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nexus_actors::{CallError, Env, ExitReason, Place, block_on};
use nexus_supervisors::{Kill, OrderError, Restart, Strategy, SupSpec, Tree};

use crate::common::{
    Add, Args, Block, Log, SOON, Thread, quiet_host, until, until_running, worker, worker_with,
};

/// A machine that stops the whole process for longer is taken for one more wedged handler.
const LIMIT: Duration = Duration::from_millis(250);

#[test]
fn a_wedged_handler_is_written_off_and_its_mailbox_served_on_another_thread() {
    let env = quiet_host();
    block_on(async {
        let log = Log::default();
        let (stuck, child) = worker(&env, "stuck", &log);
        let (innocent, bystander) = worker(&env, "innocent", &log);
        // Both live on the one kernel thread. No restart but the wedged one's may be counted.
        let spec = SupSpec::new("sup", Strategy::OneForOne)
            .restarts(1, SOON)
            .child(child.watchdog(LIMIT))
            .child(bystander);
        let tree = Tree::start(&env, spec).await.unwrap();
        let before = stuck.call(Thread, SOON).await.unwrap();
        assert_eq!(innocent.call(Thread, SOON).await, Ok(before));

        let (release, until_released) = mpsc::channel();
        let wedging = stuck.call(Block(until_released), SOON);
        let waiting = stuck.call(Add(1), SOON);
        let aside = innocent.call(Add(2), SOON);
        let (wedged, waited, aside) = futures_util::future::join3(wedging, waiting, aside).await;
        assert_eq!(wedged, Err(CallError::Crashed { generation: 1 }));
        assert_eq!((waited, aside), (Ok(1), Ok(2)));
        let after = stuck.call(Thread, SOON).await.unwrap();
        assert_ne!(before, after);
        assert_eq!(innocent.call(Thread, SOON).await, Ok(after));

        let status = tree.find("sup/stuck").unwrap().actor;
        assert_eq!(status.generation, 2);
        let Some(ExitReason::Wedged { message, held }) = status.last_exit else { panic!("{status:?}") };
        assert_eq!(message, "worker.block");
        assert!(held > LIMIT);
        let displaced = tree.find("sup/innocent").unwrap().actor.last_exit;
        assert_eq!(displaced, Some(ExitReason::Displaced { by: "stuck".into() }));

        // The ghost comes back: its reply is ignored, it takes no message, and its end changes nothing.
        log.take();
        drop(release);
        let awake = async {
            while !log.take().contains("stuck awoke") {
                env.sleep(Duration::from_millis(1)).await;
            }
        };
        env.timeout(SOON, awake).await.unwrap();
        assert_eq!(stuck.call(Add(1), SOON).await, Ok(2));
        until(&env, &tree, "sup/stuck", |s| s.actor.in_flight == 0).await;
        let status = tree.find("sup/stuck").unwrap().actor;
        assert_eq!((status.generation, status.served), (2, 5));
        tree.stop().await;
    });
    env.stop();
}

async fn an_injected_wedge(env: Env) {
    let (stuck, child) = worker(&env, "stuck", &Log::default());
    let spec = SupSpec::new("sup", Strategy::OneForOne).child(child.watchdog(LIMIT));
    let tree = Tree::start(&env, spec).await.unwrap();
    assert_eq!(stuck.call(Add(1), SOON).await, Ok(1));
    assert!(tree.kill("sup/stuck", Kill::Wedge));
    assert_eq!(stuck.call(Add(1), SOON).await, Ok(1));
    until_running(&env, &tree, "sup/stuck", 2).await;
    until(&env, &tree, "sup/stuck", |s| matches!(s.actor.last_exit, Some(ExitReason::Wedged { .. }))).await;
    tree.stop().await;
}

#[test]
fn an_injected_wedge_is_seen_by_the_watchdog() {
    let env = quiet_host();
    block_on(an_injected_wedge(env.clone()));
    env.stop();
    let (env, simulation) = Env::seeded(3);
    simulation.block_on(an_injected_wedge(env));
}

#[test]
fn one_that_wedges_its_thread_while_others_are_to_start_there_is_written_off() {
    let env = quiet_host();
    block_on(async {
        let (stuck, child) = worker(&env, "stuck", &Log::default());
        let (late, second) = worker(&env, "late", &Log::default());
        // It is there when the first one has started, and is handled before the second one starts on the same thread.
        let (_release, until_released) = mpsc::channel();
        stuck.tell(Block(until_released)).unwrap();
        let spec = SupSpec::new("sup", Strategy::OneForOne)
            .child(child.watchdog(LIMIT))
            .child(second.start_within(LIMIT * 4));
        let tree = env.timeout(SOON, Tree::start(&env, spec)).await.unwrap().unwrap();
        assert_eq!(late.call(Add(1), SOON).await, Ok(1));
        assert_eq!(stuck.call(Add(2), SOON).await, Ok(2));
        let last_exit = tree.find("sup/stuck").unwrap().actor.last_exit;
        assert!(matches!(last_exit, Some(ExitReason::Wedged { .. })), "{last_exit:?}");
        tree.stop().await;
    });
    env.stop();
}

#[test]
fn one_that_takes_its_time_to_start_is_not_taken_for_wedged() {
    let env = quiet_host();
    block_on(async {
        let (release, until_released) = mpsc::channel();
        let args =
            Args { id: "slow", init_blocks: Some(Arc::new(Mutex::new(until_released))), ..Args::default() };
        let (slow, child) = worker_with(&env, args);
        let spec = SupSpec::new("sup", Strategy::OneForOne).child(child.watchdog(LIMIT).start_within(SOON));
        let starting = Tree::start(&env, spec);
        let releasing = async {
            // For as long as the watchdog would need to see it, and to see it again.
            env.sleep(LIMIT * 3).await;
            drop(release);
        };
        let (tree, ()) = futures_util::future::join(starting, releasing).await;
        let tree = tree.unwrap();
        assert_eq!(slow.call(Add(1), SOON).await, Ok(1));
        assert_eq!(tree.find("sup/slow").unwrap().actor.generation, 1);
        tree.stop().await;
    });
    env.stop();
}

#[test]
fn a_stop_that_meets_a_wedged_handler_comes_to_its_end() {
    let env = quiet_host();
    block_on(async {
        let (stuck, child) = worker(&env, "stuck", &Log::default());
        let child = child.shutdown(nexus_supervisors::Shutdown::Timeout(Duration::from_millis(10)));
        let tree = Tree::start(&env, SupSpec::new("sup", Strategy::OneForOne).child(child)).await.unwrap();
        let (_release, until_released) = mpsc::channel();
        stuck.tell(Block(until_released)).unwrap();
        until(&env, &tree, "sup/stuck", |s| s.actor.served == 1).await;
        env.timeout(SOON, tree.stop()).await.unwrap();
        assert_eq!(stuck.call(Add(1), SOON).await, Err(CallError::Down));
    });
    env.stop();
}

#[test]
fn the_wedged_child_of_a_supervisor_that_is_killed_and_not_restarted_does_not_keep_its_thread() {
    let env = quiet_host();
    block_on(async {
        let (stuck, child) = worker(&env, "stuck", &Log::default());
        let (innocent, bystander) = worker(&env, "innocent", &Log::default());
        let gone = SupSpec::new("gone", Strategy::OneForOne).child(child).into_child();
        let spec =
            SupSpec::new("top", Strategy::OneForOne).child(gone.restart(Restart::Temporary)).child(bystander);
        let tree = Tree::start(&env, spec).await.unwrap();
        // Both live on the one kernel thread.
        assert_eq!(stuck.call(Thread, SOON).await, innocent.call(Thread, SOON).await);
        let (_release, until_released) = mpsc::channel();
        stuck.tell(Block(until_released)).unwrap();
        until(&env, &tree, "top/gone/stuck", |s| s.actor.running.is_some_and(|busy| busy.on_thread)).await;
        assert!(tree.kill("top/gone", Kill::Brutal));
        // Sooner than the supervisor's own end was waited for.
        assert_eq!(innocent.call(Add(1), SOON / 2).await, Ok(1));
        tree.stop().await;
    });
    env.stop();
}

#[test]
fn an_init_that_never_ends_fails_the_start_and_one_that_blocks_loses_its_thread_alone() {
    let env = quiet_host();
    block_on(async {
        let (waits, first) = worker(&env, "waits", &Log::default());
        let tree = Tree::start(&env, SupSpec::new("sup", Strategy::OneForOne).child(first)).await.unwrap();
        let orders = tree.supervisor("sup").unwrap();
        let (release, blocked) = mpsc::channel();
        let bad = [
            Args { id: "hangs", panics_in: Some("init never ends"), ..Args::default() },
            Args { id: "blocks", init_blocks: Some(Arc::new(Mutex::new(blocked))), ..Args::default() },
        ];
        for args in bad {
            let (_, child) = worker_with(&env, args);
            let refused = orders.start_child(child.start_within(LIMIT)).await;
            assert_eq!(refused, Err(OrderError::Start(ExitReason::TimedOut { doing: "init" })));
        }
        assert_eq!(waits.call(Add(1), SOON).await, Ok(1));
        drop(release);
        tree.stop().await;
    });
    env.stop();
}

#[test]
fn an_environment_that_is_stopped_under_a_running_tree_takes_its_threads_along() {
    let env = quiet_host();
    block_on(async {
        let log = Log::default();
        let (own, first) = worker(&env, "own", &log);
        let (user, second) = worker(&env, "user", &log);
        let spec = SupSpec::new("sup", Strategy::OneForOne)
            .child(first.place(Place::Own))
            .child(second.place(Place::Users));
        let tree = Tree::start(&env, spec).await.unwrap();
        let threads = (own.call(Thread, SOON).await.unwrap(), user.call(Thread, SOON).await.unwrap());
        assert_ne!(threads.0, threads.1);
        env.stop();
        env.stop();
        assert_eq!(tree.wait().await, ExitReason::Killed);
        assert_eq!(own.call(Add(1), SOON).await, Err(CallError::Down));
        assert!(Tree::start(&env, SupSpec::new("late", Strategy::OneForOne)).await.is_err());
    });
}
