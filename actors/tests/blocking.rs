//! Pools and workers: bounds, batches, panics.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{SOON, quiet_host};
use futures_util::future::{join, join_all};
use nexus_actors::{Env, ExitReason, WorkerBounds, block_on};
use tokio::sync::oneshot;

#[test]
fn a_pool_never_runs_more_jobs_at_once_than_it_has_threads() {
    let env = quiet_host();
    block_on(async {
        let pool = env.pool("test", 3, 2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..60).map(|n| {
            let (now, most) = (now.clone(), most.clone());
            pool.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                n
            })
        });
        let results: Vec<_> = join_all(jobs).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, (0..60).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 3);
    });
    env.stop();
}

#[test]
fn a_worker_gets_all_that_arrived_during_the_batch_before() {
    let env = quiet_host();
    let batches: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
    let into = batches.clone();
    let (entered, first_entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let worker = env
        .worker("test", WorkerBounds { queue: 16, batch: 8 }, move |batch| {
            into.lock().unwrap().push(batch);
            let _ = entered.send(());
            let _ = released.recv();
        })
        .unwrap();
    block_on(async {
        worker.submit(0).await.unwrap();
        first_entered.recv().unwrap();
        for n in 1..=10 {
            worker.submit(n).await.unwrap();
        }
        assert_eq!(worker.queued(), 10);
        drop(release);
        assert_eq!(worker.close().await, ExitReason::Normal);
        assert_eq!(worker.close().await, ExitReason::Normal);
    });
    let batches = batches.lock().unwrap();
    assert_eq!(*batches, [vec![0], (1..=8).collect(), vec![9, 10]]);
    env.stop();
}

async fn a_panic_ends_the_worker(env: Env) {
    let worker = env
        .worker("test", WorkerBounds { queue: 2, batch: 1 }, |batch: Vec<(bool, oneshot::Sender<()>)>| {
            for (bad, done) in batch {
                assert!(!bad, "a bad job");
                done.send(()).unwrap();
            }
        })
        .unwrap();
    // Three jobs for a queue of two: one of them waits for room.
    let job = |bad: bool| {
        let (done, heard) = oneshot::channel();
        let worker = worker.clone();
        async move {
            let submitted = worker.submit((bad, done)).await;
            heard.await.map_err(|_| submitted.is_ok())
        }
    };
    let outcome = join_all([job(false), job(true), job(false), job(false), job(false)]);
    let (outcome, ended) = env.timeout(SOON, join(outcome, worker.ended())).await.unwrap();
    assert_eq!(outcome[0], Ok(()));
    // Jobs that were not run are dropped, so that whoever waits for them hears of it.
    assert!(outcome[1..].iter().all(Result::is_err));
    let ExitReason::Panic { message, location, .. } = ended else { panic!("{ended}") };
    assert_eq!(&*message, "a bad job");
    assert!(location.unwrap().contains("blocking.rs"));
    assert!(worker.submit((false, oneshot::channel().0)).await.is_err());
    assert!(worker.try_submit((false, oneshot::channel().0)).is_err());
}

#[test]
fn a_panic_ends_the_worker_and_drops_what_waited() {
    let env = quiet_host();
    block_on(a_panic_ends_the_worker(env.clone()));
    env.stop();
    let (env, simulation) = Env::seeded(2);
    simulation.block_on(a_panic_ends_the_worker(env));
}

#[test]
fn timers_fire_in_order_on_any_executor_and_virtual_time_does_not_wait() {
    let (env, simulation) = Env::seeded(9);
    let before = env.now();
    let order = Arc::new(Mutex::new(Vec::new()));
    simulation.block_on(join_all([30, 10, 20].map(|hours| {
        let (env, order) = (env.clone(), order.clone());
        async move {
            env.sleep(Duration::from_secs(hours * 3600)).await;
            order.lock().unwrap().push(hours);
        }
    })));
    assert_eq!(*order.lock().unwrap(), [10, 20, 30]);
    assert_eq!(env.now() - before, Duration::from_secs(30 * 3600));
    // Waiting from synchronous code drives the simulation too.
    env.blocking_wait(env.sleep(Duration::from_secs(60)));
    assert_eq!(env.now() - before, Duration::from_secs(30 * 3600 + 60));
}
