//! The machine stops at each point at which the metastore writes during a migration, with what was not flushed lost or kept by chance. The stores of the
//! files are in memory that outlives it. Afterwards one of the two serves, whole; the same order goes on, or an abort undoes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus::hal::{
    Addressing, Catalogue, DriverContext, DriverFactory, DriverOption, ObjectStore, StoreFuture,
};
use nexus::{
    Caller, EntryType, Env, ErrorKind, MigrateOrder, MigrationState, MigrationStatus, MountSpec, Simulation,
    SysRead, SysReaddir, SysSetattr, SysUnlink, SysWrite, Timestamp, VPath,
};
use nexus_drivers::cas::Cas;
use nexus_drivers::disk::sim::SimDisk;
use nexus_drivers::memory::{MemoryPaths, MemoryTransport};
use nexus_drivers::redb::RedbConfig;
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_supervisors::Tree;

/// Runs of the campaign, spread over the points at which the metastore writes.
const RUNS: u64 = 40;

/// Files that are there before.
const FILES: u32 = 30;

/// Changes that are made meanwhile.
const CHANGES: u32 = 12;

/// What is kept of what was not flushed: nothing, all, or some.
const OUTCOMES: [u64; 3] = [0, 1, 5];

/// A store that outlives the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Lasting {
    name: &'static str,
    store: Arc<dyn ObjectStore>,
    /// Whether what it has acknowledged comes to its end.
    flushes: bool,
}

/// A store that has always something to write back.
#[derive(Debug)]
struct Unflushed(Arc<dyn ObjectStore>);

impl ObjectStore for Unflushed {
    fn addressing(&self) -> Addressing<'_> {
        self.0.addressing()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.0.probe()
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

impl Lasting {
    /// A store of contents.
    pub(crate) fn of_contents(name: &'static str) -> Self {
        Self { name, store: Arc::new(Cas::new(MemoryTransport::new())), flushes: true }
    }

    /// A store of files.
    pub(crate) fn new(name: &'static str) -> Self {
        let ticks = AtomicU64::new(1);
        let clock = move || Timestamp(ticks.fetch_add(1_000_000, Ordering::Relaxed));
        Self { name, store: Arc::new(MemoryPaths::new(Arc::new(clock))), flushes: true }
    }

    /// One that never has all at its end.
    pub(crate) fn unflushed(mut self) -> Self {
        self.flushes = false;
        self
    }

    /// The names at its top, or of its contents.
    pub(crate) fn names(&self, simulation: &Simulation) -> Vec<String> {
        match self.store.addressing() {
            Addressing::Path(store) => {
                let page = simulation.block_on(store.list("", None, 1_000)).expect("it is in memory");
                page.entries.into_iter().map(|(name, _)| name).collect()
            }
            Addressing::Content(store) => {
                let contents = simulation.block_on(store.list(None, 1_000)).expect("it is in memory");
                contents.iter().map(ToString::to_string).collect()
            }
        }
    }

    /// What is to be mounted there in the end.
    pub(crate) fn spec(&self) -> serde_json::Value {
        // Files by their paths keep no history.
        serde_json::json!({ "driver": self.name, "options": { "history_count": "0" }, "read_only": false })
    }
}

impl DriverFactory for Lasting {
    fn name(&self) -> &str {
        self.name
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn open(&self, _: &MountSpec, _: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let store: Arc<dyn ObjectStore> =
            if self.flushes { self.store.clone() } else { Arc::new(Unflushed(self.store.clone())) };
        Box::pin(std::future::ready(Ok(store)))
    }
}

/// A kernel, in one of its lives.
pub(crate) struct Life {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) admin: Arc<Caller>,
    tree: Tree,
    pub(crate) env: Env,
    pub(crate) simulation: Simulation,
}

pub(crate) fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

impl Life {
    pub(crate) fn boot(disk: &SimDisk, stores: &[&Lasting; 2], seed: u64) -> Self {
        let (env, simulation) = Env::seeded(seed);
        simulation.quiet();
        let database = RedbConfig::default().cache_bytes(1 << 20).salt(env.random());
        let config = WalConfig::default().ahead_bytes(16 << 10).database(database);
        let metastore = WalMetastore::open_in(&disk.folder(), config).expect("it opens after any crash");
        let mut catalogue = Catalogue::new();
        for store in stores {
            catalogue.add(Arc::new((*store).clone())).expect("two names");
        }
        let (kernel, spec) =
            Kernel::new(&env, KernelConfig::default(), Arc::new(metastore), Arc::new(catalogue))
                .expect("it is made");
        let admin = Arc::new(Caller::administrator());
        let tree = simulation.block_on(async {
            let tree = Tree::start(&env, spec).await.expect("the tree starts");
            if kernel.remount().await.expect("it remounts") == 0 {
                let mount = SysSetattr::mount(path("/m"), MountSpec::new("old"));
                kernel.send(&admin, mount).await.expect("it mounts");
            }
            tree
        });
        Self { kernel, admin, tree, env, simulation }
    }

    pub(crate) async fn order(&self, order: &MigrateOrder) -> nexus::Result<()> {
        let order = serde_json::to_vec(order).expect("it is plain data");
        self.kernel.send(&self.admin, SysWrite::at(path("/__sys__/migrations"), order)).await.map(drop)
    }

    pub(crate) fn begin() -> MigrateOrder {
        Self::begin_to(&serde_json::json!({ "driver": "new", "options": {}, "read_only": false }))
    }

    pub(crate) fn begin_to(to: &serde_json::Value) -> MigrateOrder {
        let order = serde_json::json!({ "begin": { "path": "/m", "to": to } });
        serde_json::from_value(order).expect("it is one")
    }

    pub(crate) fn abort() -> MigrateOrder {
        serde_json::from_value(serde_json::json!({ "abort": { "path": "/m" } })).expect("it is one")
    }

    pub(crate) async fn status(&self) -> Option<MigrationStatus> {
        let read = SysRead::at(path("/__sys__/migrations"));
        let read = self.kernel.send(&self.admin, read).await.expect("it is shown");
        let all: Vec<MigrationStatus> = serde_json::from_slice(&read.data).expect("they are told");
        all.into_iter().next()
    }

    /// How it ends; none when it had not begun.
    pub(crate) async fn over(&self) -> Option<MigrationStatus> {
        loop {
            match self.status().await {
                Some(status) if !status.is_over() => self.env.sleep(Duration::from_millis(50)).await,
                status => return status,
            }
        }
    }

    pub(crate) fn driver(&self) -> String {
        let mounts = self.kernel.mount_statuses();
        mounts.into_iter().find(|mount| mount.point.as_str() == "/m").expect("it is mounted").driver
    }

    pub(crate) fn end(self) {
        self.simulation.block_on(self.tree.stop());
        self.kernel.release_drivers();
        self.kernel.close_store();
    }

    /// What is there.
    async fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let listing = SysReaddir::at(path("/m")).recursive();
        for entry in self.kernel.send(&self.admin, listing).await.expect("it is listed").entries {
            if entry.entry_type == EntryType::Reg {
                let read = self.kernel.send(&self.admin, SysRead::at(&entry.path)).await.expect("it is read");
                files.insert(entry.path.to_string(), read.data.to_vec());
            }
        }
        files
    }
}

/// What a client knows.
#[derive(Default)]
struct Books {
    /// What may be at each path: one of these, where none is nothing.
    files: BTreeMap<String, Vec<Option<Vec<u8>>>>,
}

impl Books {
    fn took(&mut self, at: &str, now: Option<Vec<u8>>, done: &nexus::Result<()>) {
        let may = self.files.entry(at.to_owned()).or_insert_with(|| vec![None]);
        match done {
            Ok(()) => *may = vec![now],
            Err(error) if error.executed() == nexus::Executed::No => {}
            Err(_) => may.push(now),
        }
    }

    #[track_caller]
    fn check(&self, found: &BTreeMap<String, Vec<u8>>, case: &str) {
        for (at, may) in &self.files {
            let there = found.get(at).cloned();
            assert!(may.contains(&there), "{case}: {at} is {there:?}, and not one of {may:?}");
        }
        let odd: Vec<_> = found.keys().filter(|at| !self.files.contains_key(*at)).collect();
        assert!(odd.is_empty(), "{case}: {odd:?}");
    }
}

/// From what to what files move: how the old store is made and the new one, and how long files are.
type Way = (fn(&'static str) -> Lasting, fn(&'static str) -> Lasting, usize);

/// Content that goes to a store of contents, and not into the rows.
const STORED: usize = 20_000;

/// Migrates while files change, up to the change of the disk with this number. Gives how many there were, and whether the new store served after the crash.
fn run((old, new, length): Way, off_at: Option<u64>, outcome: u64) -> (u64, bool) {
    let (old, new, disk) = (old("old"), new("new"), SimDisk::new(1));
    let begin = || Life::begin_to(&new.spec());
    let mut books = Books::default();
    let case = format!("power off at {off_at:?}, outcome {outcome}");
    let changes = {
        let life = Life::boot(&disk, &[&old, &new], 7);
        life.simulation.block_on(async {
            for number in 0..FILES {
                let at = format!("/m/d{}/f{number}", number % 3);
                let content = vec![number.to_le_bytes()[0]; length];
                let done =
                    life.kernel.send(&life.admin, SysWrite::at(path(&at), content.clone()).create()).await;
                books.took(&at, Some(content), &done.map(drop));
            }
        });
        let before = disk.counts().changes;
        if let Some(number) = off_at {
            disk.power_off_at(before + number);
        }
        life.simulation.block_on(async {
            if life.order(&begin()).await.is_err() {
                return;
            }
            for number in 0..CHANGES {
                let at = format!("/m/d{}/f{}", number % 3, number * 2);
                let call = life.kernel.clone();
                if number % 3 == 0 {
                    let done = call.send(&life.admin, SysUnlink::at(path(&at))).await;
                    let gone = done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
                    books.took(&at, None, &if gone { Ok(()) } else { done.map(drop) });
                } else {
                    let content = vec![number.to_le_bytes()[0]; 2 * length];
                    let done =
                        call.send(&life.admin, SysWrite::at(path(&at), content.clone()).create()).await;
                    books.took(&at, Some(content), &done.map(drop));
                }
            }
            life.over().await;
        });
        let changes = disk.counts().changes - before;
        if off_at.is_none() {
            assert_eq!(life.driver(), "new", "{:?}", life.simulation.block_on(life.status()));
            books.check(&life.simulation.block_on(life.files()), &case);
        }
        disk.crash_by(outcome);
        changes
    };
    let life = Life::boot(&disk, &[&old, &new], 8);
    books.check(&life.simulation.block_on(life.files()), &case);
    let is_new = life.driver() == "new";
    let begun = life.simulation.block_on(life.status());
    if !is_new && outcome == OUTCOMES[2] {
        let aborted = life.simulation.block_on(async {
            life.order(&Life::abort()).await?;
            Ok::<_, nexus::Error>(life.over().await)
        });
        match aborted {
            Ok(status) => assert_eq!(status.expect("it is told").state, MigrationState::Aborted, "{case}"),
            Err(error) => {
                assert!(begun.is_none(), "{case}: {error}");
                assert_eq!(error.kind(), ErrorKind::NotFound, "{case}: {error}");
            }
        }
        let left = new.names(&life.simulation);
        let is_marker = |name: &String| name.starts_with("nexus-migration-marker-");
        assert!(left.iter().all(is_marker), "{case}: {left:?} is left");
    }
    if !is_new {
        let done = life.simulation.block_on(async {
            life.order(&begin()).await.expect("it goes on");
            life.over().await.expect("it is told")
        });
        assert_eq!(done.state, MigrationState::Done, "{case}: {done:?}");
    }
    assert_eq!(life.driver(), "new");
    books.check(&life.simulation.block_on(life.files()), &case);
    life.end();
    (changes, is_new)
}

/// Runs over the points at which the metastore writes.
fn campaign(way: Way) {
    let (changes, is_new) = run(way, None, 1);
    assert!(is_new, "it came to its end");
    assert!(changes > 20, "{changes} changes of the disk");
    let step = (changes / RUNS).max(1);
    let mut switched = 0;
    for (number, off_at) in (1..=changes).step_by(usize::try_from(step).expect("small")).enumerate() {
        switched += u64::from(run(way, Some(off_at), OUTCOMES[number % OUTCOMES.len()]).1);
    }
    assert!(
        0 < switched && switched < changes / step,
        "{switched} of {changes} points lie behind the switch"
    );
}

#[test]
fn a_crash_at_any_point_leaves_one_of_the_two_stores_serving_all_there_is() {
    campaign((Lasting::new, Lasting::new, 40));
}

#[test]
fn so_it_is_when_names_become_rows() {
    campaign((Lasting::new, Lasting::of_contents, STORED));
}

#[test]
fn so_it_is_when_names_cease_to_be_rows() {
    campaign((Lasting::of_contents, Lasting::new, STORED));
}
