//! The machine crashes at every change of the disk: what was acknowledged is there, and comes to the store.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, Simulation};
use nexus_drivers::cached::{CachedPaths, Caching, Vault};
use nexus_drivers::cas::Cas;
use nexus_drivers::disk::sim::SimDisk;
use nexus_drivers::faults::{Fault, Faults, FaultyFactory, Where};
use nexus_drivers::memory::MemoryPaths;
use nexus_drivers::packs::{Limits, Packs};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{
    Addressing, DriverContext, DriverFactory, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore,
    PathWrite, StoreError, StoreFuture,
};
use nexus_messages::syscall::{ByteRange, MountSpec};
use nexus_messages::{Attributes, Timestamp};

use tokio::sync::Notify;

use super::far::{TheStore, content};

/// So small that a short run fills some.
const BLOBS: Limits = Limits {
    segment_bytes: 4 << 20,
    batch_bytes: 2 << 20,
    batch_count: 8,
    unwritten: 6,
    unwritten_max: 12,
    open_max: 3,
};

/// What is on the disk of a machine of what is written back.
pub(crate) async fn vault_on(disk: &SimDisk, env: &Env) -> Result<Arc<Vault>, StoreError> {
    let pool = env.pool("cached", 2, 64);
    let index = disk.folder().folder("index").map_err(|e| StoreError::io("the index", e))?;
    let index = WalMetastore::open_in(&index, WalConfig::default().ahead_bytes(4 << 10))?;
    let blobs = disk.folder().folder("blobs").map_err(|e| StoreError::io("the blobs", e))?;
    let blobs = Packs::open_in(blobs, pool.clone(), env.random(), BLOBS)?;
    Vault::on(env, pool, Arc::new(index), Arc::new(Cas::new(blobs)), false).await
}

/// Numbers below what is asked for, the same for the same seed.
pub(crate) fn draws(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    }
}

/// Crashes the work of so many seeds, each at every change of the disk that `changes` counts. Gives how many crashes that were.
pub(crate) fn at_each_change(
    seeds: u64,
    changes: impl Fn(u64) -> u64,
    crash: impl Fn(u64, u64) -> Result<(), String>,
) -> usize {
    // More of them: NEXUS_CACHED_SEEDS=50
    let asked = std::env::var("NEXUS_CACHED_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let mut points = 0;
    for seed in 1..=asked.unwrap_or(seeds) {
        let changes = changes(seed);
        for off_at in 1..=changes {
            if let Err(wrong) = crash(seed, off_at) {
                panic!("seed {seed}, power off at change {off_at} of {changes}: {wrong}");
            }
            points += 1;
        }
    }
    points
}

/// The names that are written to.
const NAMES: [&str; 4] = ["a", "d/b", "d/c", "e/f/g"];

/// What may be at each path: the last state that was acknowledged, and what was asked for since and failed.
type Expected = BTreeMap<&'static str, Vec<Option<Bytes>>>;

/// A machine with a disk, and a store elsewhere that outlives it.
struct Machine {
    env: Env,
    sent: Arc<Notify>,
    simulation: Simulation,
    near: CachedPaths,
    faults: Faults,
}

/// A store that takes its time for what is written.
#[derive(Debug)]
struct Slow {
    inner: Arc<dyn ObjectStore>,
    env: Env,
    slow: Duration,
    /// Told of each write.
    sent: Arc<Notify>,
}

impl Slow {
    fn paths(&self) -> &dyn PathStore {
        match self.inner.addressing() {
            Addressing::Path(paths) => paths,
            Addressing::Content(_) => unreachable!("it is addressed by path"),
        }
    }
}

/// Lets others go first.
async fn pending_once() {
    let mut is_first = true;
    poll_fn(|cx| {
        if std::mem::take(&mut is_first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

impl ObjectStore for Slow {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.inner.probe()
    }
}

impl PathStore for Slow {
    fn capabilities(&self) -> PathCapabilities {
        self.paths().capabilities()
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.paths().stat(path)
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        self.paths().read(path, range)
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            if !self.slow.is_zero() {
                self.env.sleep(self.slow).await;
            }
            let written = self.paths().write(path, data, how, attributes).await;
            self.sent.notify_one();
            // The answer takes its time, too.
            for _ in 0..self.env.random() % 12 {
                pending_once().await;
            }
            written
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        self.paths().delete(path)
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        self.paths().list(path, after, limit)
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.paths().make_directory(path, attributes)
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.paths().rename(from, to)
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.paths().make_link(path, target)
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.paths().set_attributes(path, attributes)
    }
}

impl Machine {
    fn boot(disk: &SimDisk, elsewhere: &Arc<MemoryPaths>, seed: u64) -> Result<Self, StoreError> {
        Self::boot_slow(disk, elsewhere, seed, Duration::ZERO)
    }

    /// With a store that takes so long for each change.
    fn boot_slow(
        disk: &SimDisk,
        elsewhere: &Arc<MemoryPaths>,
        seed: u64,
        slow: Duration,
    ) -> Result<Self, StoreError> {
        let (env, simulation) = Env::seeded(seed);
        simulation.quiet();
        let sent = Arc::new(Notify::new());
        let told = &sent;
        let faults = Faults::new();
        let far = FaultyFactory::new("far", Arc::new(TheStore(elsewhere.clone())), faults.clone());
        let mut caching = Caching::default();
        (caching.write_back, caching.pending_max) = (true, 64 << 20);
        (caching.bytes_max, caching.age) = (3 << 20, Duration::from_secs(5));
        let opening = async {
            let context = DriverContext::new(env.clone(), env.pool("far", 1, 8), None);
            let inner = far.open(&MountSpec::new("far"), context).await?;
            let inner = Arc::new(Slow { inner, env: env.clone(), slow, sent: told.clone() });
            let vault = vault_on(disk, &env).await?;
            CachedPaths::new(inner, vault, "far", caching)
        };
        let near = simulation.block_on(opening)?;
        Ok(Self { env, sent, simulation, near, faults })
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match self.simulation.block_on(self.near.read(path, ByteRange::ALL)) {
            Ok((bytes, _)) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does some things, and notes what may be there.
    fn work(&self, disk: &SimDisk, seed: u64, expected: &mut Expected) {
        let mut draw = draws(seed);
        for step in 0..10_u8 {
            if disk.is_off() {
                return;
            }
            let path = NAMES[usize::try_from(draw(4)).expect("it is small")];
            let states = expected.entry(path).or_insert_with(|| vec![None]);
            let (done, state) = match draw(10) {
                0..6 => {
                    let length =
                        [5, 300, 20_000, (1 << 20) + 9][usize::try_from(draw(4)).expect("it is small")];
                    let bytes = content(length, step);
                    let write = async {
                        self.near
                            .write(path, std::slice::from_ref(&bytes), PathWrite::Whole, &Attributes::none())
                            .await
                    };
                    (self.simulation.block_on(write).map(drop), Some(bytes))
                }
                6 => (self.simulation.block_on(self.near.delete(path)), None),
                7 => {
                    self.simulation.run_for(Duration::from_secs(draw(8)));
                    continue;
                }
                8 => {
                    self.faults.always(Where::Change, Fault::Error);
                    continue;
                }
                _ => {
                    self.faults.clear();
                    continue;
                }
            };
            match done {
                Ok(()) => *states = vec![state],
                // That is all that it can be.
                Err(StoreError::NotFound { .. }) if state.is_none() => {}
                Err(_) => states.push(state),
            }
        }
    }
}

fn elsewhere() -> Arc<MemoryPaths> {
    Arc::new(MemoryPaths::new(Arc::new(|| Timestamp(1))))
}

/// Works on a new disk whose power goes off at the change `off_at`, crashes, and says what is wrong then.
fn crash(seed: u64, off_at: u64) -> Result<(), String> {
    let (disk, far) = (SimDisk::new(seed), elsewhere());
    let mut expected = Expected::new();
    disk.power_off_at(off_at);
    if let Ok(machine) = Machine::boot(&disk, &far, seed) {
        machine.work(&disk, seed, &mut expected);
    }
    disk.crash_by(off_at % 4);
    let machine = Machine::boot(&disk, &far, seed + 1).map_err(|error| format!("opening again: {error}"))?;
    for (path, states) in &expected {
        let found = machine.read(path).map_err(|error| format!("{path} here: {error}"))?;
        if !states.contains(&found) {
            return Err(format!("{path} has {:?} here", found.map(|bytes| bytes.len())));
        }
    }
    machine.simulation.run_for(Duration::from_secs(300));
    for (path, states) in &expected {
        let theirs = machine.simulation.block_on(far.read(path, ByteRange::ALL)).ok().map(|(bytes, _)| bytes);
        if !states.contains(&theirs) {
            return Err(format!("{path} has {:?} at the store", theirs.map(|bytes| bytes.len())));
        }
        let here = machine.read(path).map_err(|error| format!("{path} here, later: {error}"))?;
        if here != theirs {
            return Err(format!("{path} has {:?} here, later", here.map(|bytes| bytes.len())));
        }
    }
    Ok(())
}

#[test]
fn a_crash_anywhere_loses_nothing_that_was_acknowledged() {
    let changes = |seed| {
        let disk = SimDisk::new(seed);
        let machine = Machine::boot(&disk, &elsewhere(), seed).unwrap();
        machine.work(&disk, seed, &mut Expected::new());
        disk.counts().changes
    };
    let points = at_each_change(3, changes, crash);
    assert!(points > 100, "{points} crashes are few");
}

#[test]
fn what_is_written_while_the_state_before_it_goes_to_the_store_is_not_taken_for_that() {
    const SLOW: Duration = Duration::from_millis(5);
    for seed in 1..=150 {
        let (disk, far) = (SimDisk::new(seed), elsewhere());
        let machine = Machine::boot_slow(&disk, &far, seed, SLOW).unwrap();
        let write = async |content: &'static str| {
            machine.near.write("f", &[content.into()], PathWrite::Whole, &Attributes::none()).await
        };
        machine.simulation.block_on(write("first")).unwrap();
        machine.simulation.block_on(async {
            // The first has just come to the store; what is known of that first, the seed decides.
            machine.sent.notified().await;
            write("second").await.unwrap();
            machine.env.sleep(Duration::from_micros(seed % 3)).await;
        });
        disk.crash_by(0);
        let machine = Machine::boot(&disk, &far, seed + 1).unwrap();
        assert_eq!(machine.read("f").unwrap().unwrap(), "second", "seed {seed}");
        machine.simulation.run_for(Duration::from_secs(60));
        let (theirs, _) = machine.simulation.block_on(far.read("f", ByteRange::ALL)).unwrap();
        assert_eq!(theirs, "second", "seed {seed}");
    }
}

#[test]
fn what_a_dead_kernel_had_sent_arrives_before_what_the_next_one_sends() {
    const LATE: Duration = Duration::from_secs(7);
    for (seed, writes) in [(1, 1), (2, 2), (3, 3)] {
        let (disk, far) = (SimDisk::new(seed), elsewhere());
        let write = |machine: &Machine, n: u64| {
            let content = Bytes::from(format!("state {n}"));
            let written =
                async { machine.near.write("d/f", &[content], PathWrite::Whole, &Attributes::none()).await };
            machine.simulation.block_on(written).map(drop)
        };
        let machine = Machine::boot_slow(&disk, &far, seed, Duration::from_secs(1)).unwrap();
        // The first of them is on its way when it dies, whatever else is pending by then.
        for n in 1..=writes {
            write(&machine, n).unwrap();
            machine.simulation.run_for(Duration::from_millis(100));
        }
        disk.crash_by(0);
        let machine = Machine::boot(&disk, &far, seed + 10).unwrap();
        if writes < 3 {
            write(&machine, 9).unwrap();
        }
        let last = machine.read("d/f").unwrap().unwrap();
        machine.simulation.run_for(LATE);
        let late =
            async { far.write("d/f", &["state 1".into()], PathWrite::Whole, &Attributes::none()).await };
        machine.simulation.block_on(late).unwrap();
        machine.simulation.run_for(Duration::from_secs(60));
        assert_eq!(machine.read("d/f").unwrap().unwrap(), last, "{writes} writes");
        let theirs = async { far.read("d/f", ByteRange::ALL).await };
        assert_eq!(machine.simulation.block_on(theirs).unwrap().0, last, "{writes} writes");
    }
}
