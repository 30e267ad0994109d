//! A newer value takes over a mailbox under load, or the old one goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Add, Boom, Counter, Fault, Faults, Hold, Later, SOON, Where, counter, exits, quiet_host};
use futures_util::future::{join, join_all};
use nexus_actors::{Child, Env, ExitReason, Place, Ref, SwapError, block_on, child};

fn check<F: Future<Output = ()>>(claim: impl Fn(Env) -> F) {
    let env = quiet_host();
    block_on(claim(env.clone()));
    env.stop();
    let (env, simulation) = Env::seeded(5);
    simulation.quiet();
    simulation.block_on(claim(env));
}

async fn started(env: &Env, faults: Faults) -> (Ref<Counter>, Arc<dyn Child>) {
    let actor = counter(env, 16);
    let hold = child(&actor, faults);
    hold.start(Place::Kernel, true, exits().0).await.unwrap();
    (actor, hold)
}

fn version(vsn: u32) -> Faults {
    Faults { vsn, ..Faults::default() }
}

#[test]
fn swaps_under_load_lose_nothing_and_failures_at_each_step_roll_back() {
    check(async |env| {
        let (actor, _hold) = started(&env, version(1)).await;
        let (stop, sum) = (AtomicBool::new(false), AtomicU64::new(0));
        let client = || async {
            let mut last = 0;
            while !stop.load(Ordering::SeqCst) {
                let n = actor.call(Add(1), SOON).await.expect("no call fails over a swap");
                assert!(n > last, "one sender's messages are served in order");
                last = n;
                sum.fetch_add(1, Ordering::SeqCst);
                if n % 3 == 0 {
                    env.sleep(Duration::from_micros(100)).await;
                }
            }
        };
        let swaps = async {
            let limit = Duration::from_millis(200);
            let mut serving = 1;
            for vsn in 2..40 {
                env.sleep(Duration::from_micros(300)).await;
                let mut args = version(vsn);
                let fails = match vsn % 5 {
                    0 => Some(Fault::Error),
                    1 => Some(Fault::Panic),
                    2 if vsn == 2 => Some(Fault::Hang),
                    _ => None,
                };
                args.import = fails.unwrap_or_default();
                let swapped = actor.swap(args, if vsn == 2 { limit / 10 } else { limit }).await;
                match (fails, &swapped) {
                    (None, Ok(report)) => {
                        assert_eq!(report.to, report.from + 1);
                        serving = vsn;
                    }
                    (Some(Fault::Error), Err(SwapError::Import(ExitReason::Error(_))))
                    | (Some(Fault::Panic), Err(SwapError::Import(ExitReason::Panic { .. })))
                    | (Some(Fault::Hang), Err(SwapError::Import(ExitReason::TimedOut { .. }))) => {}
                    _ => panic!("{vsn}: {swapped:?}"),
                }
                assert_eq!(actor.call(Where, SOON).await.unwrap().1, serving);
            }
            stop.store(true, Ordering::SeqCst);
        };
        join(join_all((0..8).map(|_| client())), swaps).await;
        assert_eq!(actor.call(Add(0), SOON).await, Ok(sum.load(Ordering::SeqCst)));
    });
}

#[test]
fn a_failed_export_leaves_the_old_value_serving() {
    check(async |env| {
        for (fault, panics) in [(Fault::Error, false), (Fault::Panic, true)] {
            let (actor, _hold) = started(&env, Faults { export: fault, ..version(1) }).await;
            assert_eq!(actor.call(Add(3), SOON).await, Ok(3));
            match actor.swap(version(2), SOON).await {
                Err(SwapError::Export(ExitReason::Panic { .. })) if panics => {}
                Err(SwapError::Export(ExitReason::Error(_))) if !panics => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(actor.call(Add(1), SOON).await, Ok(4));
            assert_eq!(actor.call(Where, SOON).await.unwrap().1, 1);
        }
    });
}

#[test]
fn a_swap_waits_for_what_is_in_progress_or_gives_up() {
    check(async |env| {
        let (actor, _hold) = started(&env, version(1)).await;
        let ms = Duration::from_millis;
        let (later, (swap, behind)) = join(
            actor.call(Later(ms(30)), SOON),
            join(
                async {
                    env.sleep(ms(5)).await;
                    actor.swap(version(2), SOON).await
                },
                async {
                    env.sleep(ms(10)).await;
                    actor.call(Where, SOON).await
                },
            ),
        )
        .await;
        assert_eq!(later, Ok(1));
        assert!(swap.unwrap().pause >= ms(20));
        assert_eq!(behind.unwrap().1, 2);
        for long in [true, false] {
            let call = async {
                if long {
                    actor.call(Later(ms(60)), SOON).await.unwrap();
                } else {
                    actor.call(Hold(ms(60)), SOON).await.unwrap();
                }
            };
            let swap = async {
                env.sleep(ms(5)).await;
                actor.swap(version(3), ms(10)).await
            };
            assert_eq!(join(call, swap).await.1, Err(SwapError::DrainTimeout { in_flight: 1 }));
            assert_eq!(actor.call(Where, SOON).await.unwrap().1, 2);
        }
    });
}

#[test]
fn faults_in_the_old_values_end_do_not_touch_the_new_one() {
    check(async |env| {
        for faults in [
            Faults { terminate: Fault::Panic, ..version(1) },
            Faults { dropped: Fault::Panic, ..version(1) },
            Faults { terminate: Fault::Hang, ..version(1) },
        ] {
            let (actor, _hold) = started(&env, faults).await;
            actor.call(Add(3), SOON).await.unwrap();
            actor.swap(version(2), SOON).await.unwrap();
            assert_eq!(actor.call(Add(1), SOON).await, Ok(4));
            // A second swap is not held up by an old value that never ends.
            actor.swap(version(3), SOON).await.unwrap();
            assert_eq!(actor.call(Add(1), SOON).await, Ok(5));
        }
    });
}

#[test]
fn a_restart_after_a_swap_uses_the_new_arguments() {
    check(async |env| {
        let (actor, hold) = started(&env, version(1)).await;
        actor.swap(version(2), SOON).await.unwrap();
        assert!(actor.call(Boom, SOON).await.is_err());
        while hold.start(Place::Kernel, true, exits().0).await.is_err() {
            env.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(actor.call(Where, SOON).await.unwrap().1, 2);
        assert_eq!(actor.generation(), 3);
        hold.stop(ExitReason::Shutdown, Some(SOON)).await;
        assert_eq!(actor.swap(version(3), SOON).await, Err(SwapError::NotRunning));
    });
}
