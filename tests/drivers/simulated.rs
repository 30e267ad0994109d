//! Faults drawn from a seed, in a simulation: time is virtual, so that the longest limits can be waited for, and one seed is one run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use nexus::hal::{
    Addressing, ContentStore, DriverContext, DriverFactory, DriverOption, ObjectStore, StoreFuture,
};
use nexus::{ByteRange, Bytes, Config, ContentId, Env, ErrorKind, MountSpec, MountState, Nexus};
use nexus_drivers::cas::Cas;
use nexus_drivers::faults::{Fault, Faults, FaultyFactory, Where};
use nexus_drivers::memory::MemoryTransport;

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

/// Content in memory, behind a line: a call takes two steps, and each its time.
#[derive(Debug, Clone)]
struct Slow {
    content: Arc<Cas<MemoryTransport>>,
    env: Env,
}

impl Slow {
    async fn steps(&self) {
        for _ in 0..2 {
            self.env.sleep(Duration::from_millis(100)).await;
        }
    }
}

impl DriverFactory for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn open(&self, _: &MountSpec, _: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let store: Arc<dyn ObjectStore> = Arc::new(self.clone());
        Box::pin(std::future::ready(Ok(store)))
    }
}

impl ObjectStore for Slow {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl ContentStore for Slow {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.steps().await;
            self.content.write(id, data).await
        })
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            self.steps().await;
            self.content.read(id, range).await
        })
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            self.steps().await;
            self.content.examine(id, range).await
        })
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        self.content.contains(id)
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.content.length(id)
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        self.content.delete(id)
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.content.list(after, limit)
    }
}

/// Content of which no chunk is like another.
fn unlike(pieces: u64) -> impl Iterator<Item = Bytes> {
    (0..pieces).map(|piece| {
        let mut state = (piece + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let word = std::iter::from_fn(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Some(state.to_le_bytes())
        });
        word.take(1 << 17).flatten().collect::<Vec<_>>().into()
    })
}

#[test]
fn whose_other_end_is_silent_for_long_is_no_failure_of_the_driver() {
    let (env, simulation) = Env::seeded(5);
    let world = env.clone();
    simulation.block_on(async move {
        let slow = Slow { content: Arc::new(Cas::new(MemoryTransport::new())), env: world.clone() };
        let config = Config::in_memory().env(world.clone()).driver(Arc::new(slow));
        let config = config.root(MountSpec::new("slow")).content_cache_bytes(0);
        let nx = nexus::connect(config).await.expect("it boots");
        let silent = world.clone();
        let data = stream::iter(unlike(9).enumerate()).then(move |(n, piece)| {
            let silent = silent.clone();
            async move {
                if n % 3 == 2 {
                    silent.sleep(3 * DEADLINE).await;
                }
                Ok(piece)
            }
        });
        nx.write_stream("/f", data).await.expect("the driver did nothing wrong");
        let mut reader = nx.stream("/f").await.expect("it opens");
        let mut come = Vec::new();
        while let Some(piece) = reader.next().await {
            come.extend_from_slice(&piece.expect("the driver did nothing wrong"));
            if come.len() % 5 == 0 {
                world.sleep(3 * DEADLINE).await;
            }
        }
        assert!(come == unlike(9).collect::<Vec<_>>().concat());
        nx.shutdown().await.expect("it stops");
    });
}

#[test]
fn callers_who_wait_for_their_turn_do_not_make_the_driver_one_that_fails() {
    const CALLERS: usize = 40;
    let (env, simulation) = Env::seeded(6);
    let world = env.clone();
    simulation.block_on(async move {
        let slow = Slow { content: Arc::new(Cas::new(MemoryTransport::new())), env: world.clone() };
        let config = Config::in_memory().env(world.clone()).driver(Arc::new(slow)).content_cache_bytes(0);
        let nx = nexus::connect(config).await.expect("it boots");
        let spec = MountSpec::new("slow").option("concurrency", "8").option("deadline_ms", "700");
        nx.mount("/slow", spec).await.expect("it mounts");
        nx.write("/slow/f", vec![7; 100_000]).await.expect("it writes");
        let reads = join_all((0..CALLERS).map(|_| nx.read("/slow/f"))).await;
        // Three turns of 200 ms are within the deadline, and the fourth is late.
        let read = reads.iter().filter(|read| read.is_ok()).count();
        assert_eq!(read, 24, "{reads:?}");
        let mount =
            nx.mounts().await.expect("it answers").into_iter().find(|mount| mount.point.as_str() == "/slow");
        let mount = mount.expect("it is mounted");
        assert_eq!((mount.state, mount.calls.failed, mount.calls.refused), (MountState::Serving, 0, 0));
        nx.read("/slow/f").await.expect("it serves");
        nx.shutdown().await.expect("it stops");
    });
}

#[test]
fn one_seed_is_one_run_with_faults_too() {
    assert_eq!(run(7), run(7));
}
