//! In front of a store that is addressed by content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, HostConfig, Simulation};
use nexus_drivers::cached::{Cached, CachedContents, Caching, Vault};
use nexus_drivers::cas::Cas;
use nexus_drivers::disk::sim::SimDisk;
use nexus_drivers::faults::{Fault, Faults, FaultyFactory, Where};
use nexus_drivers::memory::{MemoryMetastore, MemoryTransport};
use nexus_kernel::hal::conformance::object_store::content::{Subject, check};
use nexus_kernel::hal::{
    Addressing, ContentStore, DriverContext, DriverFactory, ObjectStore, StoreError, Transport,
};
use nexus_messages::ContentId;
use nexus_messages::syscall::{ByteRange, MountSpec};
use tempfile::TempDir;

use super::crash::{at_each_change, draws, vault_on};
use super::far::{TheStore, content};

type Memory = Cas<MemoryTransport>;

fn id_of(bytes: &Bytes) -> ContentId {
    ContentId::Blake3(*blake3::hash(bytes).as_bytes())
}

fn subject(caching: Caching) -> Subject {
    let env = Env::host(HostConfig::default()).expect("threads");
    let inner = Arc::new(Memory::new(MemoryTransport::new()));
    let pool = env.pool("cached", 2, 64);
    let (index, blobs) = (Arc::new(MemoryMetastore::new()), Arc::new(Memory::new(MemoryTransport::new())));
    let vault = env.blocking_wait(Vault::on(&env, pool, index, blobs, false)).expect("it is empty");
    Subject::new(CachedContents::new(inner, vault, "inner", caching).expect("nothing is wrong"))
}

#[test]
fn a_store_of_contents_with_a_cache_in_front_conforms() {
    for (bytes_max, write_back) in [(0, false), (1 << 20, false), (0, true), (8 << 20, true)] {
        let mut caching = Caching::default();
        (caching.bytes_max, caching.write_back, caching.pending_max) = (bytes_max, write_back, 1 << 20);
        let report = check(&|| subject(caching));
        assert!(report.passed(), "{caching:?}: {:?}", report.failed());
    }
}

/// A store of contents that is far away, and a data folder.
struct Far {
    env: Env,
    simulation: Simulation,
    store: Arc<Memory>,
    faults: Faults,
    factory: Cached,
    folder: TempDir,
}

impl Far {
    fn new() -> Self {
        let (env, simulation) = Env::seeded(9);
        simulation.quiet();
        let store = Arc::new(Memory::new(MemoryTransport::new()));
        let faults = Faults::new();
        let far = FaultyFactory::new("far", Arc::new(TheStore(store.clone())), faults.clone());
        let factory = Cached::new(Arc::new(far));
        Self { env, simulation, store, faults, factory, folder: tempfile::tempdir().expect("a folder") }
    }

    fn open(&self, options: &[(&str, &str)]) -> Result<Near<'_>, StoreError> {
        let spec = options.iter().fold(MountSpec::new("far"), |spec, (key, value)| spec.option(*key, *value));
        let data = Some(self.folder.path().to_owned());
        let context = DriverContext::new(self.env.clone(), self.env.pool("far", 2, 16), data);
        let store = self.simulation.block_on(self.factory.open(&spec, context))?;
        Ok(Near { far: self, store })
    }

    fn has(&self, bytes: &Bytes) -> bool {
        self.simulation.block_on(self.store.contains(&id_of(bytes))).expect("it answers")
    }

    fn pass(&self) {
        self.simulation.run_for(Duration::from_secs(120));
    }
}

struct Near<'a> {
    far: &'a Far,
    store: Arc<dyn ObjectStore>,
}

impl Near<'_> {
    fn contents(&self) -> &dyn ContentStore {
        match self.store.addressing() {
            Addressing::Content(store) => store,
            Addressing::Path(_) => unreachable!("it is addressed by content"),
        }
    }

    fn write(&self, bytes: &Bytes) -> Result<(), StoreError> {
        self.far.simulation.block_on(self.contents().write(&id_of(bytes), std::slice::from_ref(bytes)))
    }

    fn read(&self, bytes: &Bytes, range: ByteRange) -> Result<Bytes, StoreError> {
        self.far.simulation.block_on(self.contents().read(&id_of(bytes), range))
    }

    fn delete(&self, bytes: &Bytes) -> Result<(), StoreError> {
        self.far.simulation.block_on(self.contents().delete(&id_of(bytes)))
    }
}

#[test]
fn content_that_was_read_is_read_again_without_the_store_being_asked() {
    let far = Far::new();
    let all = [content(0, 1), content(10, 1), content(20_000, 1), content((3 << 20) + 7, 1)];
    for bytes in &all {
        far.simulation.block_on(far.store.write(&id_of(bytes), std::slice::from_ref(bytes))).unwrap();
    }
    let near = far.open(&[("cache_bytes", "16777216")]).unwrap();
    for bytes in &all {
        assert!(
            near.read(bytes, ByteRange::new(3, 5)).unwrap()
                == bytes.slice(3.min(bytes.len())..8.min(bytes.len()))
        );
    }
    far.simulation.run_for(Duration::from_secs(1));
    for again in [false, true] {
        let opened = again.then(|| far.open(&[("cache_bytes", "16777216")]).unwrap());
        let near = opened.as_ref().unwrap_or(&near);
        let before = far.faults.calls(Where::Look);
        for bytes in all.iter().filter(|bytes| !bytes.is_empty()) {
            assert!(near.read(bytes, ByteRange::ALL).unwrap() == bytes);
        }
        let ids: Vec<_> = all[1..].iter().map(id_of).collect();
        let many = far.simulation.block_on(near.contents().read_many(&ids)).unwrap();
        assert!(many == all[1..]);
        assert_eq!(far.faults.calls(Where::Look), before, "again: {again}");
    }
    // Whether it is there, the store says all the same.
    far.simulation.block_on(far.store.delete(&id_of(&all[2]))).unwrap();
    assert!(!far.simulation.block_on(near.contents().contains(&id_of(&all[2]))).unwrap());
    assert!(matches!(near.delete(&all[2]), Err(StoreError::NotFound { .. })));
    assert!(matches!(near.read(&all[2], ByteRange::ALL), Err(StoreError::NotFound { .. })));
}

#[test]
fn several_contents_come_from_here_and_from_there_in_their_order() {
    let far = Far::new();
    let all: Vec<_> = (0..8).map(|n| content(1_000 * usize::from(n) + 1, n)).collect();
    for bytes in &all {
        far.simulation.block_on(far.store.write(&id_of(bytes), std::slice::from_ref(bytes))).unwrap();
    }
    let near = far.open(&[("cache_bytes", "16777216")]).unwrap();
    for bytes in all.iter().step_by(3) {
        near.read(bytes, ByteRange::ALL).unwrap();
    }
    let ids: Vec<_> = all.iter().map(id_of).collect();
    let before = far.faults.calls(Where::Look);
    assert!(far.simulation.block_on(near.contents().read_many(&ids)).unwrap() == all);
    assert_eq!(far.faults.calls(Where::Look), before + 1, "the rest is asked for at once");
    assert!(far.simulation.block_on(near.contents().read_many(&ids)).unwrap() == all);
    assert_eq!(far.faults.calls(Where::Look), before + 1);
    let figures = near.store.cache().unwrap();
    assert_eq!((figures.hits, figures.misses), (3 + 8, 3 + 5));
}

#[test]
fn content_is_acknowledged_before_the_store_has_it_and_is_there_later() {
    for (options, again) in [
        (&[("write_back", "yes")][..], &[][..]),
        (&[("write_back", "yes"), ("cache_bytes", "16777216")], &[("write_back", "yes")]),
    ] {
        let far = Far::new();
        far.faults.always(Where::Change, Fault::Error);
        let all = [content(0, 2), content(10, 2), content(20_000, 2), content((3 << 20) + 7, 2)];
        let near = far.open(options).unwrap();
        for bytes in &all {
            near.write(bytes).unwrap();
            near.write(bytes).unwrap();
        }
        let check = |near: &Near<'_>| {
            for bytes in &all {
                let id = id_of(bytes);
                assert!(near.read(bytes, ByteRange::ALL).unwrap() == bytes);
                assert!(
                    near.read(bytes, ByteRange::new(4, 3)).unwrap()
                        == bytes.slice(4.min(bytes.len())..7.min(bytes.len()))
                );
                let length = far.simulation.block_on(near.contents().length(&id)).unwrap();
                assert_eq!(length, Some(bytes.len() as u64));
                assert!(
                    far.simulation.block_on(near.contents().examine(&id, ByteRange::ALL)).unwrap() == bytes
                );
            }
            let mut ids: Vec<_> = all.iter().map(id_of).collect();
            ids.sort_by_key(|id| id.blake3().copied());
            let listed = far.simulation.block_on(near.contents().list(None, 100)).unwrap();
            assert_eq!(listed, ids);
            let rest = far.simulation.block_on(near.contents().list(Some(&ids[1]), 100)).unwrap();
            assert_eq!(rest, ids[2..]);
        };
        check(&near);
        assert!(!far.has(&all[1]));
        drop(near);
        far.pass();
        let near = far.open(again).unwrap();
        check(&near);
        far.faults.clear();
        far.simulation.block_on(near.store.flush()).unwrap();
        assert!(all.iter().all(|bytes| far.has(bytes)));
        check(&near);
    }
}

#[test]
fn content_that_is_deleted_before_it_came_to_the_store_never_comes_there() {
    let far = Far::new();
    far.faults.always(Where::Change, Fault::Error);
    let near = far.open(&[("write_back", "yes")]).unwrap();
    let bytes = content(100, 3);
    near.write(&bytes).unwrap();
    assert!(near.delete(&bytes).is_err(), "a deletion is not acknowledged before the store has made it");
    assert_eq!(near.read(&bytes, ByteRange::ALL).unwrap(), bytes);
    far.faults.clear();
    near.delete(&bytes).unwrap();
    assert!(matches!(near.read(&bytes, ByteRange::ALL), Err(StoreError::NotFound { .. })));
    far.pass();
    assert!(!far.has(&bytes));
    near.write(&bytes).unwrap();
    far.pass();
    assert!(far.has(&bytes));
}

#[test]
fn what_content_does_not_have_is_refused_and_named() {
    let far = Far::new();
    match far.open(&[("cache_age_ms", "1000")]) {
        Err(StoreError::BadOption { why }) => assert!(why.starts_with("cache_age_ms"), "{why}"),
        other => panic!("{:?}", other.map(|near| near.store)),
    }
}

/// A machine with a disk, and contents elsewhere that outlive it.
struct Machine {
    simulation: Simulation,
    near: CachedContents,
    faults: Faults,
}

impl Machine {
    fn boot(disk: &SimDisk, elsewhere: &Arc<Memory>, seed: u64) -> Result<Self, StoreError> {
        let (env, simulation) = Env::seeded(seed);
        simulation.quiet();
        let faults = Faults::new();
        let far = FaultyFactory::new("far", Arc::new(TheStore(elsewhere.clone())), faults.clone());
        let mut caching = Caching::default();
        (caching.write_back, caching.pending_max, caching.bytes_max) = (true, 64 << 20, 3 << 20);
        let opening = async {
            let context = DriverContext::new(env.clone(), env.pool("far", 1, 8), None);
            let inner = far.open(&MountSpec::new("far"), context).await?;
            let vault = vault_on(disk, &env).await?;
            CachedContents::new(inner, vault, "far", caching)
        };
        let near = simulation.block_on(opening)?;
        Ok(Self { simulation, near, faults })
    }

    /// All contents: a page may have fewer than it might, and only one that has none is the last.
    fn all(&self) -> Result<Vec<ContentId>, StoreError> {
        let mut all: Vec<ContentId> = Vec::new();
        loop {
            let page = self.simulation.block_on(self.near.list(all.last(), 10))?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    fn work(&self, disk: &SimDisk, seed: u64, expected: &mut BTreeMap<usize, Vec<bool>>) {
        let mut draw = draws(seed);
        let mut draw = |below| usize::try_from(draw(below)).expect("it is small");
        for _ in 0..12 {
            if disk.is_off() {
                return;
            }
            let (which, what) = (draw(4), draw(10));
            let bytes = some(which);
            let id = id_of(&bytes);
            let (done, is_there) = match what {
                0..5 => {
                    let written = self.near.write(&id, std::slice::from_ref(&bytes));
                    (self.simulation.block_on(written), true)
                }
                5 => (self.simulation.block_on(self.near.delete(&id)), false),
                6 => {
                    // What it says, the check after the crash does not need.
                    let _ = self.simulation.block_on(self.near.read(&id, ByteRange::ALL));
                    continue;
                }
                7 => {
                    self.simulation.run_for(Duration::from_secs(3));
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
            let states = expected.entry(which).or_insert_with(|| vec![false]);
            match done {
                Ok(()) => *states = vec![is_there],
                // That is all that it can be.
                Err(StoreError::NotFound { .. }) if !is_there => *states = vec![false],
                Err(_) => states.push(is_there),
            }
        }
    }
}

fn some(which: usize) -> Bytes {
    content([5, 300, 20_000, (1 << 20) + 9][which], 7)
}

fn crash(seed: u64, off_at: u64) -> Result<(), String> {
    let (disk, far) = (SimDisk::new(seed), Arc::new(Memory::new(MemoryTransport::new())));
    let mut expected = BTreeMap::new();
    disk.power_off_at(off_at);
    if let Ok(machine) = Machine::boot(&disk, &far, seed) {
        machine.work(&disk, seed, &mut expected);
    }
    disk.crash_by(off_at % 4);
    let machine = Machine::boot(&disk, &far, seed + 1).map_err(|error| format!("opening again: {error}"))?;
    for later in [false, true] {
        for (which, states) in &expected {
            let (bytes, id) = (some(*which), id_of(&some(*which)));
            let here = match machine.simulation.block_on(machine.near.read(&id, ByteRange::ALL)) {
                Ok(found) if found == bytes => true,
                Ok(found) => return Err(format!("content {which} has {} bytes here", found.len())),
                Err(StoreError::NotFound { .. }) => false,
                Err(error) => return Err(format!("content {which} here: {error}")),
            };
            let there = machine.simulation.block_on(far.contains(&id)).map_err(|error| error.to_string())?;
            let listed = machine.all().map_err(|error| error.to_string())?.contains(&id);
            // What was deleted while the power went off may still be read here, until its space is needed.
            let right = states.contains(&here) && states.contains(&listed) && (here || !listed);
            if !right || later && there != listed {
                return Err(format!(
                    "content {which} of {states:?}: here {here}, listed {listed}, there {there}, later {later}"
                ));
            }
        }
        machine.simulation.run_for(Duration::from_secs(300));
    }
    Ok(())
}

#[test]
fn a_crash_anywhere_loses_no_content_that_was_acknowledged() {
    let changes = |seed| {
        let disk = SimDisk::new(seed);
        let machine = Machine::boot(&disk, &Arc::new(Memory::new(MemoryTransport::new())), seed).unwrap();
        machine.work(&disk, seed, &mut BTreeMap::new());
        disk.counts().changes
    };
    let points = at_each_change(2, changes, crash);
    assert!(points > 50, "{points} crashes are few");
}

/// The transport behind is as any other: what is damaged there is told when it is read the first time.
#[test]
fn what_is_damaged_at_the_store_is_not_kept() {
    let far = Far::new();
    let bytes = content(1_000, 4);
    let key = Memory::key(&id_of(&bytes)).unwrap();
    far.simulation.block_on(far.store.transport().put(&key, &[content(1_000, 5)])).unwrap();
    let near = far.open(&[("cache_bytes", "16777216")]).unwrap();
    for _ in 0..2 {
        assert!(matches!(near.read(&bytes, ByteRange::ALL), Err(StoreError::Corrupt { .. })));
    }
    near.write(&bytes).unwrap();
    assert_eq!(near.read(&bytes, ByteRange::ALL).unwrap(), bytes);
}
