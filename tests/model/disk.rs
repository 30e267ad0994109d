//! A kernel on a simulated disk: rows and blobs on one disk, everything else under one seed, on the thread of the test.

use std::sync::Arc;

use bytes::Bytes;
use nexus::{Caller, Env, MountSpec, Simulation, SysSetattr, VPath};
use nexus_drivers::cached::{CachedContents, Caching, Vault};
use nexus_drivers::cas::Cas;
use nexus_drivers::disk::sim::SimDisk;
use nexus_drivers::packs::{Limits, Packs};
use nexus_drivers::redb::RedbConfig;
use nexus_drivers::streams::MemoryStreams;
use nexus_drivers::streams::wal::{WalStreams, WalStreamsConfig};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{
    Addressing, Catalogue, ContentStore, DriverContext, DriverFactory, DriverOption, Metastore, ObjectStore,
    StoreError, StoreFuture,
};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;
use nexus_supervisors::Tree as Supervision;
use parking_lot::Mutex;

use crate::client::{Client, METADATA_CACHE_BYTES};

/// Small, so that logs grow in the middle of a workload.
const AHEAD_BYTES: u64 = 16 << 10;

/// So few that the index of the blobs is written, and segments are begun, in the middle of a workload.
const BLOBS: Limits = Limits {
    segment_bytes: 512 << 10,
    batch_bytes: 256 << 10,
    batch_count: 8,
    unwritten: 6,
    unwritten_max: 12,
    open_max: 3,
};

/// The folder of the blobs. Rows are beside it.
const BLOBS_FOLDER: &str = "blobs";

/// The folder of the streams.
const STREAMS_FOLDER: &str = "streams";

/// So short that segments of the streams' log are begun in the middle of a workload.
const SEGMENT_BYTES: u64 = 900;

/// The folder of what is written back, and the store where it goes, which for once is on the same disk: a crash is one of both.
const CACHED_FOLDER: &str = "cached";
const ELSEWHERE_FOLDER: &str = "elsewhere";

/// How much content stays here that has come to the store elsewhere: so little that it goes again in the middle of a workload.
const CACHED_BYTES: u64 = 256 << 10;

/// How many bytes may be here alone.
const PENDING_BYTES: u64 = 64 << 20;

/// Where blobs are written.
#[derive(Debug, Clone)]
pub(crate) enum Blobs {
    /// On the disk, before the row.
    Here,
    /// When [`Machine::write_late`] is called, and not before the row: in another order than the kernel does it, for tests of the test.
    Late(Arc<Mutex<Vec<Blob>>>),
    /// On the disk, from where they go to a store elsewhere.
    WrittenBack,
}

/// A blob that is not written yet.
type Blob = (ContentId, Vec<Bytes>);

impl Blobs {
    pub(crate) fn late() -> Self {
        Self::Late(Arc::default())
    }
}

/// A kernel.
pub(crate) struct Machine {
    pub(crate) client: Client,
    metastore: Arc<WalMetastore>,
    streams: Option<Arc<WalStreams>>,
    blobs: Arc<OnDisk>,
    supervision: Supervision,
    env: Env,
    simulation: Simulation,
}

impl Machine {
    /// Boots a kernel on what is on `disk`, which may be nothing. Each life of a disk has a seed of its own.
    pub(crate) fn boot(disk: &SimDisk, seed: u64, blobs: Blobs) -> Result<Self, String> {
        Self::boot_with(disk, seed, blobs, false)
    }

    /// As [`boot`](Self::boot), of a kernel that keeps streams, on the same disk.
    pub(crate) fn with_streams(disk: &SimDisk, seed: u64) -> Result<Self, String> {
        Self::boot_with(disk, seed, Blobs::Here, true)
    }

    fn boot_with(disk: &SimDisk, seed: u64, kept: Blobs, with_streams: bool) -> Result<Self, String> {
        let (env, simulation) = Env::seeded(seed);
        simulation.quiet();
        let database = RedbConfig::default().cache_bytes(1 << 20).salt(env.random());
        let config = WalConfig::default().ahead_bytes(AHEAD_BYTES).database(database);
        let metastore = WalMetastore::open_in(&disk.folder(), config).map_err(told("the metastore"))?;
        let metastore = Arc::new(metastore);
        let blobs =
            Arc::new(OnDisk { disk: disk.clone(), opened: Mutex::default(), vault: Arc::default(), kept });
        let streams = with_streams.then(|| {
            let folder = disk.folder().folder(STREAMS_FOLDER).map_err(told("the folder of streams"))?;
            let config = WalStreamsConfig::default().segment_bytes(SEGMENT_BYTES).ahead_bytes(512);
            let streams = WalStreams::open_in(folder, &env, env.pool("streams", 1, 64), config);
            streams.map(Arc::new).map_err(told("the streams"))
        });
        let streams = streams.transpose()?;
        let booting = boot(&env, metastore.clone(), blobs.clone(), streams.clone());
        let (client, supervision) =
            simulation.try_block_on(booting).map_err(|deadlock| deadlock.to_string())??;
        Ok(Self { client, metastore, streams, blobs, supervision, env, simulation })
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.simulation.block_on(future)
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Folds the log into the database.
    pub(crate) fn fold(&self) -> Result<(), StoreError> {
        self.metastore.upkeep()
    }

    /// Copies the blobs that are left together.
    pub(crate) fn compact(&self) -> Result<u64, StoreError> {
        let Some(packs) = self.blobs.opened.lock().clone() else { return Ok(0) };
        self.wait(packs.compact())
    }

    /// Writes the blobs that were held back.
    pub(crate) fn write_late(&self) {
        let Blobs::Late(held) = &self.blobs.kept else { return };
        let held = std::mem::take(&mut *held.lock());
        let opened = self.blobs.opened.lock().clone();
        if let Some(packs) = opened {
            let cas = Cas::new(packs);
            for (id, data) in held {
                let _ = self.wait(cas.write(&id, &data));
            }
        }
    }

    /// What the blobs' own look at themselves found wrong when they were opened.
    pub(crate) fn damage(&self) -> Vec<String> {
        let opened = self.blobs.opened.lock();
        opened.iter().flat_map(Packs::damage).map(|damage| damage.to_string()).collect()
    }

    /// Ends in order. Without it a kernel ends as one that is killed: what it would still write must find its disk crashed.
    pub(crate) fn end(self) {
        self.wait(self.supervision.stop());
        self.client.kernel.release_drivers();
        self.client.kernel.close_store();
        if let Some(streams) = &self.streams {
            streams.shut();
        }
        self.simulation.run_until_idle();
    }
}

async fn boot(
    env: &Env,
    metastore: Arc<dyn Metastore>,
    blobs: Arc<OnDisk>,
    streams: Option<Arc<WalStreams>>,
) -> Result<(Client, Supervision), String> {
    let mut config = KernelConfig::default();
    // So small that entries leave them.
    (config.metadata_cache_bytes, config.content_cache_bytes) = (METADATA_CACHE_BYTES, 2 << 20);
    let mut catalogue = Catalogue::new();
    catalogue.add(blobs).expect("it is the only one");
    let (kernel, spec) =
        Kernel::new(env, config, metastore, Arc::new(catalogue)).map_err(told("the kernel"))?;
    if let Some(streams) = streams {
        kernel.set_stream_stores(Arc::new(MemoryStreams::default()), Some(streams));
    }
    let supervision = Supervision::start(env, spec).await.map_err(|why| why.to_string())?;
    let remounted = kernel.remount().await.map_err(told("mounting again"))?;
    if remounted == 0 {
        let admin = Arc::new(Caller::administrator());
        let mount = SysSetattr::mount(VPath::root(), MountSpec::new("on-disk"));
        kernel.send(&admin, mount).await.map_err(told("the first mount"))?;
    }
    Ok((Client::new(kernel, true), supervision))
}

fn told<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Makes the driver: content by its hash, packed, on the simulated disk.
#[derive(Debug)]
struct OnDisk {
    disk: SimDisk,
    /// A folder is open once in each life.
    opened: Mutex<Option<Packs>>,
    /// So is the one of what is written back.
    vault: Arc<Mutex<Option<Arc<Vault>>>>,
    kept: Blobs,
}

impl OnDisk {
    fn opened(&self, context: &DriverContext) -> Result<Packs, StoreError> {
        let mut opened = self.opened.lock();
        if let Some(packs) = &*opened {
            return Ok(packs.clone());
        }
        Ok(opened.insert(blobs_in(&self.disk, BLOBS_FOLDER, context)?).clone())
    }
}

fn blobs_in(disk: &SimDisk, folder: &str, context: &DriverContext) -> Result<Packs, StoreError> {
    let folder = disk.folder().folder(folder).map_err(|e| StoreError::io("opening blobs", e))?;
    Packs::open_in(folder, context.pool.clone(), context.env.random(), BLOBS)
}

/// What is written back, with its content in `packs`.
async fn vault(disk: &SimDisk, packs: Packs, context: &DriverContext) -> Result<Arc<Vault>, StoreError> {
    let index = disk.folder().folder(CACHED_FOLDER).map_err(|e| StoreError::io("opening the cache", e))?;
    let index = WalMetastore::open_in(&index, WalConfig::default().ahead_bytes(AHEAD_BYTES))?;
    let (pool, blobs) = (context.pool.clone(), Arc::new(Cas::new(packs)));
    Vault::on(&context.env, pool, Arc::new(index), blobs, false).await
}

impl DriverFactory for OnDisk {
    fn name(&self) -> &str {
        "on-disk"
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn open(&self, _: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        match &self.kept {
            Blobs::Here => {
                let opened = self.opened(&context);
                Box::pin(async move { Ok(Arc::new(Cas::new(opened?)) as Arc<dyn ObjectStore>) })
            }
            Blobs::Late(held) => {
                let (opened, held) = (self.opened(&context), held.clone());
                Box::pin(async move {
                    let late = LateBlobs { store: Cas::new(opened?), held };
                    Ok(Arc::new(late) as Arc<dyn ObjectStore>)
                })
            }
            Blobs::WrittenBack => {
                let (opened, disk, known) = (self.opened(&context), self.disk.clone(), self.vault.clone());
                Box::pin(async move {
                    let elsewhere = blobs_in(&disk, ELSEWHERE_FOLDER, &context)?;
                    let there = known.lock().clone();
                    let vault = match there {
                        Some(vault) => vault,
                        None => {
                            let vault = vault(&disk, opened?, &context).await?;
                            known.lock().insert(vault).clone()
                        }
                    };
                    let mut caching = Caching::default();
                    (caching.write_back, caching.pending_max) = (true, PENDING_BYTES);
                    caching.bytes_max = CACHED_BYTES;
                    let elsewhere = Arc::new(Cas::new(elsewhere));
                    let cached = CachedContents::new(elsewhere, vault, "elsewhere", caching)?;
                    Ok(Arc::new(cached) as Arc<dyn ObjectStore>)
                })
            }
        }
    }
}

/// A driver that says that a blob is durable, and writes it later.
#[derive(Debug)]
struct LateBlobs {
    store: Cas<Packs>,
    held: Arc<Mutex<Vec<Blob>>>,
}

impl ObjectStore for LateBlobs {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.store.probe()
    }
}

impl ContentStore for LateBlobs {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        self.held.lock().push((id.clone(), data.to_vec()));
        Box::pin(std::future::ready(Ok(())))
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        self.store.read(id, range)
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        self.store.examine(id, range)
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        self.store.contains(id)
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.store.length(id)
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        self.store.delete(id)
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.store.list(after, limit)
    }
}
