//! Faults that strike while a message is being handled: what its caller hears, and what becomes of those behind it.

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use nexus_actors::{CallError, Env, ExitReason, Inject, Moment, Strike, block_on};
use nexus_supervisors::{Kill, Strategy, SupSpec, Tree};

use crate::common::{
    Add, Answers, Args, Do, Log, SOON, quiet_host, until, until_running, worker, worker_with,
};

/// A machine that stops the whole process for longer is taken for a wedged handler, before the blow has fallen.
const LIMIT: Duration = Duration::from_millis(500);
const FAULTS: [Inject; 4] = [Inject::Panic, Inject::Error, Inject::Kill, Inject::Wedge];
const MOMENTS: [Moment; 2] = [Moment::Before, Moment::After];

/// Runs `claim` on threads and in a simulation.
fn check<F: Future<Output = ()>>(claim: impl Fn(Env) -> F) {
    let env = quiet_host();
    block_on(claim(env.clone()));
    env.stop();
    let (env, simulation) = Env::seeded(7);
    simulation.quiet();
    simulation.block_on(claim(env));
}

fn names_the_message(why: &ExitReason) -> bool {
    match why {
        ExitReason::Panic { handling, .. } => *handling == Some("worker.do"),
        ExitReason::Wedged { message, .. } => *message == "worker.do",
        ExitReason::Error(text) => text.contains("worker.do"),
        ExitReason::Killed => true, // It says nothing at all; the status does.
        _ => false,
    }
}

#[test]
fn the_struck_message_is_unknown_to_its_caller_and_what_waits_behind_is_served() {
    check(async |env| {
        for fault in FAULTS {
            for moment in MOMENTS {
                for answers in [Answers::Now, Answers::Waiting, Answers::Later] {
                    strike(&env, fault, moment, answers).await;
                }
            }
        }
    });
}

async fn strike(env: &Env, fault: Inject, moment: Moment, answers: Answers) {
    let case = format!("{fault:?} {moment:?} {answers:?}");
    let log = Log::default();
    let (actor, child) = worker(env, "a", &log);
    let spec = SupSpec::new("sup", Strategy::OneForOne).child(child.watchdog(LIMIT));
    let tree = Tree::start(env, spec).await.unwrap();
    log.take();
    assert!(tree.kill("sup/a", Kill::Handling(fault, moment)));
    let armed = tree.find("sup/a").unwrap().actor.armed;
    assert_eq!(armed, Some(Strike { fault, moment }));
    let (struck, behind) =
        futures_util::future::join(actor.call(Do(answers), SOON), actor.call(Add(1), SOON)).await;
    assert_eq!(struck, Err(CallError::Crashed { generation: 1 }), "{case}");
    // While an answer is awaited, others may still be served by the struck incarnation.
    assert_eq!(behind, Ok(1), "{case}");
    until_running(env, &tree, "sup/a", 2).await;
    assert_eq!(actor.call(Do(answers), SOON).await, Ok(()), "{case}");
    let status = tree.find("sup/a").unwrap().actor;
    assert!(names_the_message(status.last_exit.as_ref().unwrap()), "{case}: {status:?}");
    assert_eq!((status.struck, status.last_struck), (1, Some("worker.do")), "{case}");
    assert_eq!((status.restarts, status.armed), (1, None), "{case}");
    tree.stop().await;
    let again = u32::from(moment == Moment::After);
    // A thread that was blocked for too long goes on, on a host: that is what a ghost is.
    let ghost = u32::from(moment == Moment::Before && fault == Inject::Wedge && !env.is_simulated());
    let mut did = 0;
    let all = async {
        while did < 1 + again + ghost {
            did += u32::try_from(log.take().matches("did it").count()).unwrap();
            env.sleep(Duration::from_millis(1)).await;
        }
    };
    env.timeout(SOON, all).await.unwrap();
    assert_eq!(did, 1 + again + ghost, "{case}");
}

#[test]
fn an_armed_fault_is_seen_and_can_be_withdrawn() {
    check(async |env| {
        let log = Log::default();
        let (actor, child) = worker(&env, "a", &log);
        let tree = Tree::start(&env, SupSpec::new("sup", Strategy::OneForOne).child(child)).await.unwrap();
        let hold = tree.child("sup/a").unwrap();
        let kill = Kill::Handling(Inject::Kill, Moment::After);
        assert!(tree.kill("sup/a", kill));
        // One at a time; nobody is there twice.
        assert!(!tree.kill("sup/a", kill) && !tree.kill("sup/b", kill));
        assert_eq!(hold.disarm(), Some(Strike { fault: Inject::Kill, moment: Moment::After }));
        assert_eq!((hold.disarm(), hold.status().armed), (None, None));
        assert_eq!(actor.call(Do(Answers::Now), SOON).await, Ok(()));

        // Also from a message that carries it already, and awaits its answer.
        for answers in [Answers::Waiting, Answers::Later] {
            assert!(tree.kill("sup/a", kill));
            let mut call = Box::pin(actor.call(Do(answers), SOON));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            hold.disarm();
            assert_eq!(call.await, Ok(()));
        }
        let status = hold.status();
        assert_eq!((status.generation, status.struck), (1, 0));

        // It goes with the incarnation that it was meant for.
        assert!(tree.kill("sup/a", Kill::Handling(Inject::Kill, Moment::Before)));
        assert!(tree.kill("sup/a", Kill::Brutal));
        until_running(&env, &tree, "sup/a", 2).await;
        assert_eq!((hold.status().armed, hold.status().struck), (None, 0));
        assert_eq!(actor.call(Do(Answers::Now), SOON).await, Ok(()));
        tree.stop().await;
    });
}

#[test]
fn a_withdrawn_message_is_spared_and_the_next_is_struck() {
    check(async |env| {
        let (actor, child) = worker(&env, "a", &Log::default());
        let tree = Tree::start(&env, SupSpec::new("sup", Strategy::OneForOne).child(child)).await.unwrap();
        let hold = tree.child("sup/a").unwrap();
        hold.suspend();
        assert!(tree.kill("sup/a", Kill::Handling(Inject::Panic, Moment::Before)));
        // A suspended actor begins nothing, so nothing is struck.
        assert_eq!(actor.call(Add(1), Duration::from_millis(5)).await, Err(CallError::Busy));
        drop(actor.call(Add(1), SOON));
        assert!(hold.status().armed.is_some());
        hold.resume();
        assert_eq!(actor.call(Add(1), SOON).await, Err(CallError::Crashed { generation: 1 }));
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
        tree.stop().await;
    });
}

#[test]
fn a_supervisor_can_be_struck_while_it_mourns() {
    check(async |env| {
        let args = Args { id: "leaf", ..Args::default() };
        let warm = args.warm.clone();
        let (leaf, child) = worker_with(&env, args);
        let inner = SupSpec::new("inner", Strategy::OneForOne).restarts(9, SOON).child(child);
        let outer = SupSpec::new("outer", Strategy::OneForOne).restarts(9, SOON).supervisor(inner);
        let tree = Tree::start(&env, outer).await.unwrap();
        for (n, fault) in (0..).zip([Inject::Panic, Inject::Error, Inject::Kill]) {
            // Each incarnation has a first message of its own, and then hears of one exit.
            until(&env, &tree, "outer/inner", |s| s.actor.served == 2 * n + 1).await;
            assert!(tree.kill("outer/inner", Kill::Handling(fault, Moment::Before)));
            assert!(tree.kill("outer/inner/leaf", Kill::Brutal));
            until(&env, &tree, "outer/inner", |s| s.actor.struck == n + 1).await;
            assert_eq!(leaf.call(Add(1), SOON).await, Ok(1));
        }
        assert_eq!(warm.lock().unwrap().len(), 4);
        assert_eq!(tree.find("outer/inner").unwrap().actor.last_struck, Some("supervisor.exited"));
        tree.stop().await;
    });
}

#[test]
fn an_ordered_stop_strikes_nobody() {
    check(async |env| {
        let (actor, child) = worker(&env, "a", &Log::default());
        let tree = Tree::start(&env, SupSpec::new("sup", Strategy::OneForOne).child(child)).await.unwrap();
        let mut call = Box::pin(actor.call(Do(Answers::Never), SOON));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        until(&env, &tree, "sup/a", |s| s.actor.in_flight == 1).await;
        tree.stop().await;
        assert_eq!(call.await, Err(CallError::Crashed { generation: 1 }));
        assert_eq!(tree.find("sup/a").unwrap().actor.struck, 0);
    });
}
