//! The chaos run in the simulation: the whole kernel, its clients, kills and swaps under one seed, with the oracle in the same process.
//!
//! `NEXUS_SEEDS` says how many seeds are run, `NEXUS_FIRST_SEED` which is the first.

#[path = "../src/bin/chaos/auditing.rs"]
mod auditing;
#[path = "../src/bin/chaos/cleaning.rs"]
mod cleaning;
#[path = "../src/bin/chaos/clients.rs"]
mod clients;
#[path = "../src/bin/chaos/hurting.rs"]
mod hurting;
#[path = "../src/bin/chaos/life.rs"]
mod life;
#[path = "../src/bin/chaos/limits.rs"]
mod limits;
#[path = "../src/bin/chaos/locks/mod.rs"]
mod locks;
#[path = "../src/bin/chaos/model.rs"]
mod model;
#[path = "../src/bin/chaos/oracle.rs"]
mod oracle;
#[path = "../src/bin/chaos/order.rs"]
mod order;
#[path = "../src/bin/chaos/pipes/mod.rs"]
mod pipes;
#[path = "../src/bin/chaos/plan.rs"]
#[allow(dead_code, reason = "a simulated run has one life, and no process to kill")]
mod plan;
#[path = "../src/bin/chaos/record.rs"]
mod record;
#[path = "../src/bin/chaos/scene.rs"]
mod scene;
#[path = "../src/bin/chaos/services.rs"]
mod services;
#[path = "../src/bin/chaos/streams/mod.rs"]
mod streams;
#[path = "../src/bin/chaos/swaps.rs"]
mod swaps;
#[path = "../src/bin/chaos/watches/mod.rs"]
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nexus::actors::{Trace, guard};
use nexus::{Config, Env, MountSpec};
use nexus_drivers::faults::{Faults, FaultyFactory};
use parking_lot::Mutex;

use crate::clients::BAD_MAX;
use crate::model::Ledger;
use crate::plan::{Dice, End, Life};
use crate::record::{Counts, Record};
use crate::scene::{Scene, Setting, Tell};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 24;

/// One of so many seeds is run twice, and so many at least.
const SEEDS_A_REPLAY: u64 = 50;
const REPLAYS_MIN: u64 = 3;

/// The root of the tree is killed under one of so many seeds.
const ROOT_DIES_EVERY: u64 = 4;

/// How much virtual time a run takes.
const LASTS: Duration = Duration::from_millis(400);

/// How many versions of a file are kept.
const VERSIONS: &str = "4";

/// Longer than a run.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Steps that are shown of two runs that part.
const STEPS_SHOWN: usize = 40;

/// What one run came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    digest: u64,
    killed: u64,
    struck: u64,
    swapped: u64,
    withstood: u64,
    pauses: u64,
    counts: Counts,
    broken: Vec<String>,
}

fn setting() -> Setting {
    Setting {
        plain: MountSpec::new("memory-path"),
        bad: MountSpec::new("faulty").option("deadline_ms", BAD_MAX.as_millis().to_string()),
        swaps_drivers: false,
        pace: Duration::from_millis(4),
        wait: Duration::from_millis(10),
        quiet_every: Duration::from_millis(150),
    }
}

fn run(seed: u64) -> Outcome {
    traced(seed).0
}

/// The outcome of a run, and its steps.
fn traced(seed: u64) -> (Outcome, Trace) {
    let (env, simulation) = Env::seeded(seed);
    simulation.quiet();
    let heard: Arc<Mutex<(Ledger, Outcome)>> = Arc::new(Mutex::new((Ledger::new(), Outcome::default())));
    let hearing = heard.clone();
    let tell: Tell = Arc::new(move |record: Record| {
        let (ledger, outcome) = &mut *hearing.lock();
        ledger.hear(&record);
        match record {
            Record::Killed { struck, .. } => {
                outcome.killed += 1;
                outcome.struck += u64::from(struck);
            }
            Record::Swapped { .. } => outcome.swapped += 1,
            Record::Withstood { .. } => outcome.withstood += 1,
            Record::Quiet => outcome.pauses += 1,
            Record::Did(counts) => outcome.counts.add(*counts),
            Record::Broken { claim } => outcome.broken.push(claim),
            _ => {}
        }
    });
    let end = if seed.is_multiple_of(ROOT_DIES_EVERY) { End::RootDies } else { End::InOrder };
    let life = Life::new(&mut Dice::new(seed), LASTS, end);
    let outer = env.clone();
    let verified = heard.clone();
    simulation.block_on(async move {
        let faults = Faults::new();
        let inner = nexus_drivers::catalogue().get("memory-path").expect("built in");
        let config = Config::in_memory()
            .env(env.clone())
            // What is in memory keeps no versions unless that is asked for; here collections must leave them.
            .root(MountSpec::new("memory").option("history_count", VERSIONS))
            .driver(Arc::new(FaultyFactory::new("faulty", inner, faults.clone())))
            .restarts(u32::MAX, Duration::from_secs(1))
            .watchdog(Duration::from_millis(20))
            .garbage(None, Duration::ZERO)
            .scrub(0, NEVER);
        let nx = nexus::connect(config).await.expect("it boots");
        life::prepare(&nx, &setting()).await.expect("the homes are made");
        swaps::register(&nx, &env).await.expect("the services start");
        life::begin(&nx).await.expect("what all begin with is made");
        let scene = Scene::new(nx.clone(), env.clone(), life, setting(), faults, Ledger::new(), tell);
        let looking = async || {
            if end == End::RootDies {
                // What was in memory went with it.
                return;
            }
            let mut ledger = verified.lock().0.clone();
            let wrong = oracle::verify(&nx, &env, &mut ledger, true).await;
            verified.lock().1.broken.extend(wrong);
        };
        life::run(&scene, looking).await;
    });
    drop(outer);
    let trace = simulation.trace();
    drop(simulation);
    let outcome = std::mem::take(&mut heard.lock().1);
    (Outcome { digest: trace.digest, ..outcome }, trace)
}

/// Where two runs part, with the steps before.
fn parting(one: &Trace, other: &Trace) -> String {
    let both = one.entries.iter().zip(&other.entries);
    let same = both.take_while(|(one, other)| one == other).count();
    let told = |trace: &Trace| {
        let steps = trace.entries.iter().take(same + STEPS_SHOWN / 4).skip(same.saturating_sub(STEPS_SHOWN));
        steps.map(|step| format!("{step}\n")).collect::<String>()
    };
    format!("{same} steps are the same; the one:\n{}the other:\n{}", told(one), told(other))
}

fn number(name: &str, unsaid: u64) -> u64 {
    std::env::var(name).ok().map_or(unsaid, |said| said.parse().expect("a number"))
}

#[test]
fn whatever_is_killed_and_swapped_no_claim_is_broken_under_any_seed() {
    let first = number("NEXUS_FIRST_SEED", 1);
    let seeds = number("NEXUS_SEEDS", SEEDS);
    let mut sum = Outcome::default();
    let mut broken = BTreeMap::new();
    for seed in first..first + seeds {
        let outcome = guard(|| run(seed))
            .unwrap_or_else(|panicked| Outcome { broken: vec![panicked.to_string()], ..Outcome::default() });
        if !outcome.broken.is_empty() {
            println!("seed {seed}: {:#?}", outcome.broken);
            broken.insert(seed, outcome.broken);
        }
        // Two processes that run the same seeds print the same.
        sum.digest = sum.digest.rotate_left(1) ^ outcome.digest;
        sum.killed += outcome.killed;
        sum.struck += outcome.struck;
        sum.swapped += outcome.swapped;
        sum.withstood += outcome.withstood;
        sum.pauses += outcome.pauses;
        sum.counts.add(outcome.counts);
    }
    assert!(broken.is_empty(), "{} of {seeds} seeds break a claim: {:?}", broken.len(), broken.keys());
    // A run in which nothing happens proves nothing.
    println!("{seeds} seeds: {sum:?}");
    assert!(sum.killed >= 5 * seeds && sum.struck * 100 >= 30 * sum.killed, "{sum:?}");
    assert!(sum.swapped >= seeds && sum.withstood * 4 >= seeds && sum.pauses >= 2 * seeds, "{sum:?}");
    assert!(sum.counts.reads >= 100 * seeds && sum.counts.changes >= 100 * seeds, "{sum:?}");
    assert!(sum.counts.refused >= seeds && sum.counts.over_quota >= seeds, "{sum:?}");
    assert!(
        sum.counts.audited >= seeds && sum.counts.verified * 4 >= seeds && sum.counts.usages >= seeds,
        "{sum:?}"
    );
    let Counts { locked, lost, deadlocks, kept, fenced, stale, given_up, messages, messages_read, .. } =
        sum.counts;
    assert!(locked >= 20 * seeds && lost >= seeds && deadlocks * 12 >= seeds && kept * 4 >= seeds, "{sum:?}");
    assert!(fenced >= seeds && stale >= seeds && given_up >= 4 * seeds, "{sum:?}");
    assert!(messages >= 20 * seeds && messages_read >= 20 * seeds, "{sum:?}");
    let Counts { pipes_full, pipes_removed, appended, records_read, events, resumed, overflows, .. } =
        sum.counts;
    assert!(pipes_full >= seeds && pipes_removed * 4 >= seeds, "{sum:?}");
    assert!(appended >= 20 * seeds && records_read >= 20 * seeds, "{sum:?}");
    assert!(events >= 100 * seeds && resumed >= 4 * seeds && overflows * 8 >= seeds, "{sum:?}");
    let passes = [sum.counts.collections, sum.counts.checks, sum.counts.scrubs];
    assert!(passes.iter().all(|passes| *passes >= seeds), "{sum:?}");
}

#[test]
fn one_seed_of_chaos_is_one_run() {
    let mut digests = Vec::new();
    let first = number("NEXUS_FIRST_SEED", 1);
    let seeds = number("NEXUS_SEEDS", SEEDS).div_ceil(SEEDS_A_REPLAY);
    for seed in first..first + seeds.max(REPLAYS_MIN) {
        let ((one, steps), (other, other_steps)) = (traced(seed), traced(seed));
        assert_eq!(one, other, "seed {seed}: {}", parting(&steps, &other_steps));
        digests.push(one.digest);
    }
    digests.dedup();
    assert!(digests.len() > 1, "seeds make a difference");
}
