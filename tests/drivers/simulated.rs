//! Faults drawn from a seed, in a simulation: time is virtual, so that the longest limits can be waited for, and one seed is one run.

use std::sync::Arc;
use std::time::Duration;

use nexus::{Config, Env, ErrorKind, MountSpec, MountState, Nexus};
use nexus_drivers::faults::{Fault, Faults, FaultyFactory, Where};

/// Calls of one run.
const CALLS: usize = 60;

/// The deadline of a call when the mount names none.
const DEADLINE: Duration = Duration::from_secs(60);

/// All but the one that blocks its thread: a simulation has no other.
const FAULTS: [Fault; 6] =
    [Fault::Error, Fault::Panic, Fault::PanicAtOnce, Fault::Hang, Fault::DoneThenPanic, Fault::DoneThenHang];

fn drawn<T: Copy>(env: &Env, from: &[T]) -> T {
    let length = u64::try_from(from.len()).expect("short");
    from[usize::try_from(env.random() % length).expect("short")]
}

/// Makes calls while faults come and go, and gives what came of each, and when.
async fn hurt(env: &Env, nx: &Nexus, faults: &Faults) -> Vec<String> {
    let mut seen = Vec::new();
    let began = env.now();
    for n in 0..CALLS {
        if env.random().is_multiple_of(2) {
            let at = drawn(env, &[Where::Open, Where::Probe, Where::Look, Where::Change]);
            faults.times(drawn(env, &[1, 3, 9]), at, drawn(env, &FAULTS));
        }
        let (call, file) = (env.now(), format!("/bad/{}", n % 4));
        let done = match env.random() % 3 {
            0 => nx.read(&file).await.map(drop),
            1 => nx.write(&file, format!("{n}")).await.map(drop),
            _ => nx.readdir("/bad").await.map(drop),
        };
        let took = env.now() - call;
        // A write looks, and then changes.
        assert!(took <= 3 * DEADLINE, "call {n} took {took:?}");
        if let Err(error) = &done {
            let kind = error.kind();
            let is_typed = matches!(
                kind,
                ErrorKind::Io
                    | ErrorKind::Crashed
                    | ErrorKind::TimedOut
                    | ErrorKind::Unavailable
                    | ErrorKind::NotFound
            );
            assert!(is_typed, "{error}");
        }
        nx.write("/well", "x").await.expect("the other mount serves");
        seen.push(format!("{:?} {done:?}", env.now() - began));
        env.sleep(Duration::from_millis(env.random() % 3_000)).await;
    }
    seen
}

fn run(seed: u64) -> Vec<String> {
    let folder = tempfile::tempdir().expect("there is room");
    let faults = Faults::new();
    let inner = nexus_drivers::catalogue().get("path-local").expect("built in");
    let faulty = Arc::new(FaultyFactory::new("faulty", inner, faults.clone()));
    let (env, simulation) = Env::seeded(seed);
    let world = env.clone();
    let folder = folder.path().to_owned();
    simulation.block_on(async move {
        let nx =
            nexus::connect(Config::in_memory().env(world.clone()).driver(faulty)).await.expect("it boots");
        let spec = MountSpec::new("faulty").option("folder", folder.display().to_string());
        nx.mount("/bad", spec).await.expect("it mounts");
        let mut seen = hurt(&world, &nx, &faults).await;

        faults.clear();
        // Longer than any wait of the breaker, and of the attempts to open it.
        world.sleep(Duration::from_secs(60)).await;
        nx.write("/bad/last", "x").await.expect("it serves again");
        let mounts = nx.mounts().await.expect("it answers");
        let bad = mounts.into_iter().find(|mount| mount.point.as_str() == "/bad").expect("it is mounted");
        assert_eq!(bad.state, MountState::Serving, "{bad:?}");
        assert_eq!(bad.calls.in_flight, 0, "{bad:?}");
        seen.push(format!("{:?}", bad.calls));
        let tree = nx.tree().await.expect("it answers");
        for supervisor in &tree.children {
            assert_eq!(supervisor.generation, 1, "{} was restarted", supervisor.id);
        }
        nx.shutdown().await.expect("it stops");
        seen
    })
}

#[test]
fn whatever_the_faults_each_call_ends_typed_and_in_time_and_the_mount_comes_back() {
    for seed in 0..12 {
        run(seed);
    }
}

#[test]
fn one_seed_is_one_run_with_faults_too() {
    assert_eq!(run(7), run(7));
}
