//! A store that is far away, and what is here of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, Simulation};
use nexus_drivers::cached::Cached;
use nexus_drivers::faults::{Faults, FaultyFactory, Where};
use nexus_drivers::memory::MemoryPaths;
use nexus_kernel::hal::{
    Addressing, CacheFigures, DriverContext, DriverFactory, DriverOption, ObjectInfo, ObjectStore, PathStore,
    PathWrite, StoreError, StoreFuture,
};
use nexus_messages::syscall::{ByteRange, MountSpec};
use nexus_messages::{Attributes, Timestamp};
use tempfile::TempDir;

/// Opens the one store that there is.
#[derive(Debug)]
pub(crate) struct TheStore(pub(crate) Arc<dyn ObjectStore>);

/// The store, which outlives whoever opens it.
#[derive(Debug)]
struct Opened(Arc<dyn ObjectStore>);

impl ObjectStore for Opened {
    fn addressing(&self) -> Addressing<'_> {
        self.0.addressing()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.0.probe()
    }
}

impl DriverFactory for TheStore {
    fn name(&self) -> &str {
        "the-store"
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn open(&self, _: &MountSpec, _: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let store: Arc<dyn ObjectStore> = Arc::new(Opened(self.0.clone()));
        Box::pin(std::future::ready(Ok(store)))
    }
}

/// The store behind, what goes wrong with it, and a data folder.
pub(crate) struct Far {
    pub(crate) env: Env,
    pub(crate) simulation: Simulation,
    /// What other tools see.
    pub(crate) store: Arc<MemoryPaths>,
    pub(crate) faults: Faults,
    factory: Cached,
    folder: TempDir,
}

/// A mount of it.
pub(crate) struct Near<'a> {
    far: &'a Far,
    store: Arc<dyn ObjectStore>,
}

impl Far {
    pub(crate) fn new() -> Self {
        let (env, simulation) = Env::seeded(7);
        simulation.quiet();
        let clock = env.clone();
        let store = Arc::new(MemoryPaths::new(Arc::new(move || Timestamp(clock.wall()))));
        let faults = Faults::new();
        let far = FaultyFactory::new("far", Arc::new(TheStore(store.clone())), faults.clone());
        let factory = Cached::new(Arc::new(far));
        Self { env, simulation, store, faults, factory, folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.simulation.block_on(future)
    }

    /// Lets time pass, in which all that is due is done.
    pub(crate) fn pass(&self, time: Duration) {
        self.simulation.run_for(time);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn try_open(
        &self,
        options: &[(&str, &str)],
        folder: bool,
    ) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let spec = options.iter().fold(MountSpec::new("far"), |spec, (key, value)| spec.option(*key, *value));
        let data = folder.then(|| self.folder.path().to_owned());
        let context = DriverContext::new(self.env.clone(), self.env.pool("far", 2, 16), data);
        self.wait(self.factory.open(&spec, context))
    }

    pub(crate) fn open(&self, options: &[(&str, &str)]) -> Near<'_> {
        Near { far: self, store: self.try_open(options, true).expect("nothing is wrong with them") }
    }

    /// How often the store was asked something, and changed.
    pub(crate) fn calls(&self) -> (u64, u64) {
        (self.faults.calls(Where::Look), self.faults.calls(Where::Change))
    }

    /// What another tool finds at `path`.
    pub(crate) fn theirs(&self, path: &str) -> Option<Bytes> {
        match self.wait(self.store.read(path, ByteRange::ALL)) {
            Ok((bytes, _)) => Some(bytes),
            Err(_) => None,
        }
    }

    /// What other tools work with.
    pub(crate) fn paths(&self) -> &dyn PathStore {
        &*self.store
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.env.wall())
    }

    /// Another tool writes.
    pub(crate) fn they_write(&self, path: &str, content: impl Into<Bytes>) {
        let written =
            self.wait(self.store.write(path, &[content.into()], PathWrite::Whole, &Attributes::none()));
        written.expect("nothing is wrong with the store");
    }

    /// Another tool removes.
    pub(crate) fn they_remove(&self, path: &str) {
        self.wait(self.store.delete(path)).expect("nothing is wrong with the store");
    }
}

impl Near<'_> {
    pub(crate) fn paths(&self) -> &dyn PathStore {
        match self.store.addressing() {
            Addressing::Path(store) => store,
            Addressing::Content(_) => unreachable!("it is addressed by path"),
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        self.store.flush().await
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        self.store.cache().expect("it has a cache")
    }

    pub(crate) fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        self.read_part(path, ByteRange::ALL).map(|(bytes, _)| bytes)
    }

    pub(crate) fn read_part(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        self.far.wait(self.paths().read(path, range))
    }

    pub(crate) fn stat(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        self.far.wait(self.paths().stat(path))
    }

    pub(crate) fn write(&self, path: &str, content: impl Into<Bytes>) -> Result<ObjectInfo, StoreError> {
        self.write_as(path, content, PathWrite::Whole)
    }

    pub(crate) fn write_as(
        &self,
        path: &str,
        content: impl Into<Bytes>,
        how: PathWrite,
    ) -> Result<ObjectInfo, StoreError> {
        self.far.wait(self.paths().write(path, &[content.into()], how, &Attributes::none()))
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.far.wait(self.paths().delete(path))
    }

    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let page = self.far.wait(self.paths().list(path, None, 1_000))?;
        Ok(page.entries.into_iter().map(|(name, _)| name).collect())
    }
}

/// Bytes that are not the same everywhere.
pub(crate) fn content(length: usize, seed: u8) -> Bytes {
    let byte = |at: usize| (at.wrapping_mul(31) >> 3).to_le_bytes()[0] ^ seed;
    (0..length).map(byte).collect::<Vec<u8>>().into()
}
