//! One seed, one run: the same actors and supervisors as on threads, with crashes.

use std::time::Duration;

use nexus_actors::{Env, Inject, Moment, Trace, WorkerBounds};
use nexus_supervisors::{Backoff, Kill, Strategy, SupSpec, Tree};

use crate::common::{Add, Boom, Log, SOON, worker};

/// Clients, a worker, a pool, two supervisors, and kills at times drawn from the seed.
fn run(seed: u64) -> (Trace, String) {
    let (env, simulation) = Env::seeded(seed);
    simulation.quiet();
    let log = Log::default();
    let written = log.clone();
    simulation.block_on(async {
        let mut inner = SupSpec::new("inner", Strategy::RestForOne).restarts(100, SOON).backoff(Backoff {
            first: Duration::from_millis(1),
            factor: 2,
            max: Duration::from_millis(9),
        });
        let mut actors = Vec::new();
        for id in ["a", "b", "c"] {
            let (actor, child) = worker(&env, id, &log);
            actors.push(actor);
            inner = inner.child(child.watchdog(Duration::from_millis(20)));
        }
        let outer = SupSpec::new("outer", Strategy::OneForAll).restarts(100, SOON).supervisor(inner);
        let tree = Tree::start(&env, outer).await.unwrap();
        let pool = env.pool("pool", 2, 2);
        let batches = log.clone();
        let committer = env
            .worker("committer", WorkerBounds { queue: 4, batch: 4 }, move |batch: Vec<u64>| {
                batches.push(format!("batch of {}", batch.len()));
            })
            .unwrap();
        let client = |n: usize| {
            let (env, actor, log) = (env.clone(), actors[n % 3].clone(), log.clone());
            let (pool, committer) = (pool.clone(), committer.clone());
            async move {
                for round in 0..20 {
                    let outcome = actor.call(Add(1), Duration::from_millis(5)).await;
                    log.push(format!("client {n} round {round}: {outcome:?}"));
                    let blocking = pool.run(move || n + round).await.unwrap();
                    committer.submit(blocking as u64).await.unwrap();
                    env.sleep(Duration::from_micros(env.random() % 700)).await;
                }
            }
        };
        let chaos = async {
            for _ in 0..12 {
                env.sleep(Duration::from_micros(env.random() % 2_000)).await;
                match env.random() % 9 {
                    0 => drop(tree.kill("outer/inner/a", Kill::Panic)),
                    1 => drop(tree.kill("outer/inner/b", Kill::Brutal)),
                    2 => drop(tree.kill("outer/inner/c", Kill::Wedge)),
                    3 => drop(tree.kill("outer/inner", Kill::Error)),
                    4 => drop(actors[1].tell(Boom)),
                    5 => drop(tree.kill("outer/inner/a", Kill::Handling(Inject::Kill, Moment::After))),
                    6 => drop(tree.kill("outer/inner/b", Kill::Handling(Inject::Wedge, Moment::Before))),
                    7 => drop(tree.kill("outer/inner", Kill::Handling(Inject::Panic, Moment::Before))),
                    _ => drop(tree.kill("outer", Kill::Wedge)),
                }
            }
        };
        let clients = futures_util::future::join_all((0..6).map(client));
        futures_util::future::join(clients, chaos).await;
        committer.close().await;
        tree.stop().await;
    });
    (simulation.trace(), written.take())
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let mut digests = Vec::new();
    for seed in 0..8 {
        let (trace, log) = run(seed);
        let (again, log_again) = run(seed);
        assert_eq!(log, log_again);
        if let Some((one, other)) = trace.entries.iter().zip(&again.entries).find(|(one, other)| one != other)
        {
            panic!("seed {seed}: first {one}, then {other}");
        }
        assert_eq!((trace.steps, trace.digest), (again.steps, again.digest));
        assert!(trace.entries.iter().any(|entry| entry.to_string().contains("ended: panicked")) || seed > 0);
        digests.push(trace.digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 8, "different seeds give different runs");
}

#[test]
fn a_deadlock_is_reported_with_the_names_of_those_who_wait() {
    let (env, simulation) = Env::seeded(1);
    simulation.quiet();
    env.spawn("the one who waits", std::future::pending());
    let deadlock = simulation.try_block_on(std::future::pending::<()>()).unwrap_err();
    assert!(deadlock.to_string().contains("the one who waits"), "{deadlock}");
}
