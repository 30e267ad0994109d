//! The runtime works the same inside every kind of program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Add, Boom, Later, SOON, counter, exits, quiet_host};
use nexus_actors::{CallError, Env, ExitReason, Place, PoolError, WorkerBounds, block_on, child};
use std::sync::{Arc, Mutex};
use std::time::Duration;

async fn exercise(env: Env) {
    let actor = counter(&env, 16);
    let hold = child(&actor, Default::default());
    let (port, mut heard) = exits();
    assert_eq!(hold.start(Place::Kernel, true, port.clone()).await, Ok(1));
    assert_eq!(actor.call(Add(5), SOON).await, Ok(5));
    assert_eq!(actor.call(Later(Duration::from_millis(1)), SOON).await, Ok(6));
    assert_eq!(actor.call(Boom, SOON).await, Err(CallError::Crashed { generation: 1 }));
    let exit = heard.recv().await.unwrap();
    let ExitReason::Panic { message, location, handling } = exit.reason else { panic!("{exit:?}") };
    assert_eq!((&*message, handling), ("boom at 6", Some("counter.boom")));
    assert!(location.unwrap().contains("common/mod.rs:"));
    // A call between two incarnations waits for the next one.
    let call = actor.call(Add(1), SOON);
    let (started, called) = futures_util::future::join(hold.start(Place::Own, true, port), call).await;
    assert_eq!((started, called), (Ok(2), Ok(1)));

    assert_eq!(env.timeout(Duration::from_millis(1), std::future::pending::<()>()).await.ok(), None);
    let pool = env.pool("test", 2, 1);
    assert_eq!(pool.run(|| 7).await, Ok(7));
    let bad = pool.run(|| -> u32 { panic!("in the pool") }).await;
    assert!(
        matches!(bad, Err(PoolError::Panicked(p)) if &*p.message == "in the pool" && p.location.is_some())
    );

    let batches: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
    let into = batches.clone();
    let worker = env
        .worker("test", WorkerBounds { queue: 4, batch: 3 }, move |batch| into.lock().unwrap().push(batch))
        .unwrap();
    for n in 0..10 {
        worker.submit(n).await.unwrap();
    }
    assert_eq!(worker.close().await, ExitReason::Normal);
    assert!(worker.submit(11).await.is_err());
    let batches = batches.lock().unwrap().clone();
    assert!(batches.iter().all(|batch| batch.len() <= 3));
    assert_eq!(batches.concat(), (0..10).collect::<Vec<_>>());

    assert_eq!(hold.stop(ExitReason::Shutdown, Some(SOON)).await, ExitReason::Shutdown);
    hold.close();
    assert_eq!(actor.call(Add(1), SOON).await, Err(CallError::Down));
    env.stop();
}

#[tokio::test(flavor = "current_thread")]
async fn in_a_current_thread_tokio_program() {
    exercise(quiet_host()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_multi_thread_tokio_program() {
    exercise(quiet_host()).await;
}

#[test]
fn with_no_tokio_at_all() {
    block_on(exercise(quiet_host()));
}

#[test]
fn in_a_simulation() {
    let (env, simulation) = Env::seeded(7);
    simulation.block_on(exercise(env));
}

#[test]
fn stop_from_an_io_task_does_not_deadlock() {
    let env = quiet_host();
    let (done, heard) = std::sync::mpsc::channel();
    let stopping = env.clone();
    env.spawn("stopper", async move {
        stopping.stop();
        done.send(()).unwrap();
    });
    heard.recv_timeout(SOON).unwrap();
}
