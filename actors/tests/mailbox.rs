//! Bounds, deadlines, order and fairness of mailboxes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{Add, Block, Bomb, Boom, Counter, Faults, Hold, Later, SOON, Spin, counter, exits, quiet_host};
use futures_util::future::{join, join_all};
use nexus_actors::{
    ActorState, CallError, Child, Env, Executed, ExitReason, Place, Ref, Reply, Undone, block_on, child,
};

/// Runs `claim` on threads and in a simulation.
fn check<F: Future<Output = ()>>(claim: impl Fn(Env) -> F) {
    let env = quiet_host();
    block_on(claim(env.clone()));
    env.stop();
    let (env, simulation) = Env::seeded(5);
    simulation.quiet();
    simulation.block_on(claim(env));
}

async fn started(env: &Env, bound: usize) -> (Ref<Counter>, Arc<dyn Child>) {
    let actor = counter(env, bound);
    let hold = child(&actor, Faults::default());
    hold.start(Place::Kernel, true, exits().0).await.unwrap();
    (actor, hold)
}

#[test]
fn ten_thousand_pending_calls_never_queue_more_than_the_bound() {
    check(async |env| {
        let actor = counter(&env, 16);
        let hold = child(&actor, Faults::default());
        let mut calls: Vec<_> = (0..10_000).map(|_| Box::pin(actor.call(Add(1), SOON))).collect();
        let mut cx = Context::from_waker(Waker::noop());
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut cx).is_pending());
            assert!(actor.status().queued <= 16);
        }
        assert_eq!((actor.status().queued, actor.status().callers_waiting), (16, 9_984));
        assert_eq!(actor.tell(Add(1)), Err(CallError::Busy));
        let most = Arc::new(AtomicU64::new(0));
        let looking = async {
            while actor.status().served < 10_000 {
                most.fetch_max(actor.status().queued as u64, Ordering::SeqCst);
                env.sleep(Duration::from_micros(50)).await;
            }
        };
        hold.start(Place::Kernel, true, exits().0).await.unwrap();
        let (replies, ()) = join(join_all(calls), looking).await;
        // All are served, in the order in which they were sent.
        assert!(replies.iter().enumerate().all(|(at, reply)| *reply == Ok(at as u64 + 1)));
        assert!(most.load(Ordering::SeqCst) <= 16);
    });
}

#[test]
fn a_busy_message_is_withdrawn_and_gives_its_place_back() {
    check(async |env| {
        let (actor, _hold) = started(&env, 2).await;
        let holding = actor.call(Hold(Duration::from_millis(50)), SOON);
        let short = async {
            env.sleep(Duration::from_millis(5)).await;
            let late = join_all((0..2).map(|_| actor.call(Add(100), Duration::from_millis(5)))).await;
            assert_eq!(late, [Err(CallError::Busy), Err(CallError::Busy)]);
            assert_eq!(CallError::Busy.executed(), Executed::No);
            assert_eq!(actor.status().queued, 0);
            actor.tell(Add(1)).unwrap();
            actor.tell(Add(1)).unwrap();
            assert_eq!(actor.tell(Add(1)), Err(CallError::Busy));
        };
        assert_eq!(join(holding, short).await.0, Ok(0));
        assert_eq!(actor.call(Add(0), SOON).await, Ok(2));
    });
}

#[test]
fn a_dropped_call_is_withdrawn_unless_it_was_begun() {
    check(async |env| {
        let actor = counter(&env, 4);
        {
            let mut call = pin!(actor.call(Add(100), SOON));
            assert!(matches!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
            assert_eq!(actor.status().queued, 1);
        }
        assert_eq!(actor.status().queued, 0);
        let hold = child(&actor, Faults::default());
        hold.start(Place::Kernel, true, exits().0).await.unwrap();
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
    });
}

#[test]
fn a_call_that_was_begun_times_out_as_unknown() {
    check(async |env| {
        let (actor, _hold) = started(&env, 4).await;
        let short = Duration::from_millis(10);
        let (held, later) = (actor.call(Hold(short * 3), short), actor.call(Later(short * 3), SOON));
        let (held, later) = join(held, later).await;
        assert_eq!((held, later), (Err(CallError::Timeout), Ok(1)));
        assert_eq!(actor.call(Later(short * 3), short).await, Err(CallError::Timeout));
        assert_eq!(CallError::Timeout.executed(), Executed::Unknown);
        // The reply that nobody waited for came nevertheless.
        env.sleep(short * 4).await;
        assert_eq!(actor.call(Add(0), SOON).await, Ok(2));
    });
}

#[test]
fn a_crash_is_told_to_all_that_was_begun_and_to_nothing_else() {
    check(async |env| {
        let actor = counter(&env, 8);
        let hold = child(&actor, Faults::default());
        let (port, mut heard) = exits();
        hold.start(Place::Kernel, true, port.clone()).await.unwrap();
        let (later, boom, queued) =
            (actor.call(Later(SOON), SOON * 2), actor.call(Boom, SOON), actor.call(Add(1), SOON));
        let restart = async {
            assert_eq!(heard.recv().await.unwrap().generation, 1);
            assert_eq!(actor.status().state, ActorState::Waiting);
            hold.start(Place::Kernel, true, port).await.unwrap();
        };
        let (later, boom, queued, ()) = futures_util::join!(later, boom, queued, restart);
        let crashed = Err(CallError::Crashed { generation: 1 });
        assert_eq!(later, crashed);
        assert_eq!(boom, Err(CallError::Crashed { generation: 1 }));
        assert_eq!(queued, Ok(1));
    });
}

/// What an offer came to: its error, and what came back.
fn undone(result: Result<u64, Undone<Add>>) -> (CallError, Option<u64>) {
    let Undone { error, message } = result.unwrap_err();
    (error, message.map(|Add(n)| n))
}

#[test]
fn an_offer_that_was_not_executed_comes_back_whole() {
    check(async |env| {
        let short = Duration::from_millis(5);
        let actor = counter(&env, 1);
        // It expires in the queue, and while it waits for room.
        let (queued, waits) = join(actor.offer(Add(1), short), actor.offer(Add(2), short)).await;
        assert_eq!(undone(queued), (CallError::Busy, Some(1)));
        assert_eq!(undone(waits), (CallError::Busy, Some(2)));

        let hold = child(&actor, Faults::default());
        let (closed_under_it, ()) = join(actor.offer(Add(3), SOON), async {
            env.sleep(short).await;
            hold.close();
        })
        .await;
        assert_eq!(undone(closed_under_it), (CallError::Down, Some(3)));
        assert_eq!(undone(actor.offer(Add(4), SOON).await), (CallError::Down, Some(4)));

        hold.start(Place::Kernel, true, exits().0).await.unwrap();
        assert_eq!(actor.offer(Add(5), SOON).await, Ok(5));
    });
}

#[test]
fn what_was_told_and_not_begun_when_the_mailbox_is_closed_is_counted_and_calls_are_not() {
    check(async |env| {
        let actor = counter(&env, 8);
        let hold = child(&actor, Faults::default());
        for _ in 0..3 {
            actor.tell(Add(1)).unwrap();
        }
        let (down, ()) = join(actor.call(Add(1), SOON), async { hold.close() }).await;
        assert_eq!((down, actor.status().lost), (Err(CallError::Down), 3));
        hold.close();
        assert_eq!(actor.tell(Add(1)), Err(CallError::Down));
        assert_eq!(actor.status().lost, 3, "who is told of it has lost nothing");
    });
}

#[test]
fn an_offer_that_was_begun_does_not_come_back() {
    check(async |env| {
        let (actor, _hold) = started(&env, 4).await;
        let late = actor.offer(Hold(Duration::from_millis(30)), Duration::from_millis(5)).await.unwrap_err();
        assert_eq!((late.error, late.message.is_none()), (CallError::Timeout, true));
        let boom = actor.offer(Boom, SOON).await.unwrap_err();
        assert_eq!((boom.error, boom.message.is_none()), (CallError::Crashed { generation: 1 }, true));
    });
}

#[test]
fn a_message_with_a_bad_destructor_harms_neither_its_caller_nor_who_ends_it() {
    check(async |env| {
        let actor = counter(&env, 4);
        let hold = child(&actor, Faults::default());
        actor.tell(Bomb).unwrap();
        let (down, ()) = join(actor.call(Bomb, SOON), async { hold.close() }).await;
        assert_eq!(down, Err(CallError::Down));
        assert_eq!(actor.call(Bomb, SOON).await, Err(CallError::Down));
    });
}

#[test]
fn a_visit_comes_in_its_turn() {
    check(async |env| {
        let (actor, _hold) = started(&env, 8).await;
        let (add, visit, again) = futures_util::join!(
            actor.call(Add(1), SOON),
            actor.visit(|me: &mut Counter, cx| Reply::Now((me.total(), cx.generation())), SOON),
            actor.call(Add(1), SOON),
        );
        assert_eq!((add, visit, again), (Ok(1), Ok((1, 1)), Ok(2)));
        // It may take a while, and change what it visits.
        let pause = env.sleep(Duration::from_millis(1));
        let slow = actor.visit(
            |_, _| Reply::wait_then(pause, |me: &mut Counter, _, ()| std::mem::take(me.total_mut())),
            SOON,
        );
        assert_eq!(join(slow, actor.call(Add(7), SOON)).await, (Ok(2), Ok(7)));
    });
}

#[test]
fn a_visitor_that_panics_is_the_actors_crash() {
    check(async |env| {
        let actor = counter(&env, 8);
        let (port, mut heard) = exits();
        child(&actor, Faults::default()).start(Place::Kernel, true, port).await.unwrap();
        let visit = actor.visit(|_, _| -> Reply<Counter, ()> { panic!("a bad guest") }, SOON).await;
        assert_eq!(visit, Err(CallError::Crashed { generation: 1 }));
        let ExitReason::Panic { handling, .. } = heard.recv().await.unwrap().reason else {
            panic!("no panic")
        };
        assert_eq!(handling, Some("actor.visit"));
    });
}

#[test]
fn a_failure_reported_from_outside_ends_the_incarnation_it_names_and_no_other() {
    check(async |env| {
        let actor = counter(&env, 8);
        let hold = child(&actor, Faults::default());
        let (port, mut heard) = exits();
        hold.start(Place::Kernel, true, port.clone()).await.unwrap();
        let why = |n: u32| ExitReason::error(format!("on a caller's task: {n}"));
        // What was begun is unknown, what is queued waits for the next incarnation.
        let (begun, queued, ()) =
            futures_util::join!(actor.call(Hold(SOON), SOON * 2), actor.call(Add(1), SOON), async {
                while actor.status().in_flight == 0 {
                    env.sleep(Duration::from_millis(1)).await;
                }
                assert!(actor.fail(1, why(1)));
                // The first reason stays.
                assert!(!hold.fail(1, why(2)));
                let exit = heard.recv().await.unwrap();
                assert_eq!((exit.generation, exit.reason), (1, why(1)));
                hold.start(Place::Kernel, true, port).await.unwrap();
            });
        assert_eq!((begun, queued), (Err(CallError::Crashed { generation: 1 }), Ok(1)));
        // A report that comes late, or for one that is yet to come, harms nobody.
        assert!(!actor.fail(1, why(3)) && !actor.fail(3, why(3)));
        assert_eq!(actor.call(Add(1), SOON).await, Ok(2));
        // Nor does one during an ordered stop, which is told as what it is.
        hold.suspend();
        let stopping = hold.stop(ExitReason::Shutdown, Some(SOON));
        assert!(!actor.fail(2, why(4)));
        assert_eq!(stopping.await, ExitReason::Shutdown);
        assert!(!actor.fail(2, why(5)) && heard.try_recv().is_err());
    });
}

#[test]
fn a_suspended_actor_keeps_its_mail() {
    check(async |env| {
        let (actor, hold) = started(&env, 4).await;
        hold.suspend();
        assert_eq!(actor.call(Add(1), Duration::from_millis(5)).await, Err(CallError::Busy));
        assert_eq!(actor.status().state, ActorState::Suspended);
        let call = actor.call(Add(1), SOON);
        let resume = async {
            env.sleep(Duration::from_millis(5)).await;
            hold.resume();
        };
        assert_eq!(join(call, resume).await.0, Ok(1));
    });
}

#[test]
fn a_suspension_outlives_its_incarnation() {
    check(async |env| {
        let actor = counter(&env, 4);
        let hold = child(&actor, Faults::default());
        let (port, mut heard) = exits();
        hold.start(Place::Kernel, true, port.clone()).await.unwrap();
        hold.suspend();
        hold.kill();
        heard.recv().await.unwrap();
        hold.start(Place::Kernel, true, port).await.unwrap();
        assert_eq!(actor.status().state, ActorState::Suspended);
        assert_eq!(actor.call(Add(1), Duration::from_millis(5)).await, Err(CallError::Busy));
        hold.resume();
        assert_eq!(actor.call(Add(1), SOON).await, Ok(1));
    });
}

#[test]
fn an_actor_that_sends_to_itself_does_not_starve_its_neighbour() {
    let env = quiet_host();
    block_on(async {
        let (spinner, spinning) = started(&env, 4).await;
        let (neighbour, _hold) = started(&env, 4).await;
        let turns = Arc::new(AtomicU64::new(0));
        spinner.tell(Spin(turns.clone())).unwrap();
        // And the neighbour does not starve it: tokio looks at what other threads woke at least every 31 polls, and a
        // poll is 32 messages.
        for n in 1..=31 * 32 * 2 {
            assert_eq!(neighbour.call(Add(1), SOON).await, Ok(n));
        }
        assert_eq!(spinning.stop(ExitReason::Shutdown, Some(SOON)).await, ExitReason::Shutdown);
        assert!(turns.load(Ordering::SeqCst) > 0);
    });
    env.stop();
}

#[test]
fn in_a_simulation_the_budget_is_exact() {
    let (env, simulation) = Env::seeded(1);
    simulation.quiet();
    simulation.block_on(async {
        let (spinner, _spinning) = started(&env, 4).await;
        let (neighbour, _hold) = started(&env, 4).await;
        let turns = Arc::new(AtomicU64::new(0));
        spinner.tell(Spin(turns.clone())).unwrap();
        for _ in 0..20 {
            let before = turns.load(Ordering::SeqCst);
            neighbour.call(Add(1), SOON).await.unwrap();
            // A few polls of 32 messages each: as often as the seed puts the spinner before the others.
            assert!(turns.load(Ordering::SeqCst) - before <= 32 * 32);
            assert_eq!(turns.load(Ordering::SeqCst) % 32, 0);
        }
    });
}

#[test]
fn a_handler_that_blocks_lets_its_caller_time_out() {
    let env = quiet_host();
    block_on(async {
        let (actor, _hold) = started(&env, 4).await;
        let (release, blocked) = std::sync::mpsc::channel();
        let short = Duration::from_millis(20);
        let (one, two) = join(actor.call(Block(blocked), short), actor.call(Add(1), short)).await;
        assert_eq!((one, two), (Err(CallError::Timeout), Err(CallError::Busy)));
        drop(release);
        assert_eq!(actor.call(Add(0), SOON).await, Ok(1000));
    });
    env.stop();
}
