//! The mounts that are tested, and how they are called.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::catalogue;
use nexus_kernel::hal::{
    Addressing, Catalogue, DriverContext, ObjectInfo, ObjectStore, PathStore, PathWrite, StoreError,
};
use nexus_messages::Attributes;
use nexus_messages::syscall::{ByteRange, MountSpec};

use crate::servers::s3::{BUCKET, KEY};

pub(crate) fn env() -> Env {
    static ENV: OnceLock<Env> = OnceLock::new();
    ENV.get_or_init(|| Env::host(HostConfig::default()).expect("threads can be started")).clone()
}

/// Opens what `spec` says, as the kernel does. No executor is around: what polls is `nexus_actors::block_on`.
pub(crate) fn try_open(spec: &MountSpec) -> Result<Arc<dyn ObjectStore>, StoreError> {
    try_open_in(spec, DriverContext::new(env(), env().pool("mount", 2, 8), None))
}

pub(crate) fn try_open_in(
    spec: &MountSpec,
    context: DriverContext,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    open_of(&catalogue(), spec, context)
}

/// Another instance of what `spec` says, by the factories of one kernel.
pub(crate) fn open_of(
    catalogue: &Catalogue,
    spec: &MountSpec,
    context: DriverContext,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    catalogue.check(spec)?;
    let factory = catalogue.get(&spec.driver).expect("it was checked");
    block_on(async {
        let store = factory.open(spec, context).await?;
        store.probe().await?;
        Ok(store)
    })
}

pub(crate) fn open(spec: &MountSpec) -> Arc<dyn ObjectStore> {
    try_open(spec).unwrap_or_else(|error| panic!("{spec:?}: {error}"))
}

/// The smallest parts that there are: so little content is large.
pub(crate) const PART: usize = 5 << 20;

/// A mount of the server at `port`.
pub(crate) fn s3(port: u16) -> MountSpec {
    MountSpec::new("s3")
        .option("bucket", BUCKET)
        .option("endpoint", format!("http://127.0.0.1:{port}"))
        .option("allow_http", "true")
        .option("access_key", KEY)
        .option("secret_key", KEY)
        .option("part_bytes", PART.to_string())
}

/// A mount of Azure's emulator at `port`.
#[cfg(feature = "azure")]
pub(crate) fn azure(port: u16) -> MountSpec {
    use crate::servers::azure::{ACCOUNT, CONTAINER, KEY};
    MountSpec::new("azure")
        .option("container", CONTAINER)
        .option("account", ACCOUNT)
        .option("endpoint", format!("http://127.0.0.1:{port}/{ACCOUNT}"))
        .option("allow_http", "true")
        .option("access_key", KEY)
        .option("part_bytes", PART.to_string())
}

/// `spec` with a prefix of its own.
pub(crate) fn apart(spec: MountSpec) -> MountSpec {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    spec.option("prefix", format!("apart/{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn paths(store: &dyn ObjectStore) -> &dyn PathStore {
    match store.addressing() {
        Addressing::Path(paths) => paths,
        Addressing::Content(_) => panic!("it is addressed by content"),
    }
}

pub(crate) fn write(
    store: &dyn ObjectStore,
    path: &str,
    content: impl Into<Bytes>,
    how: PathWrite,
) -> Result<ObjectInfo, StoreError> {
    block_on(paths(store).write(path, &[content.into()], how, &Attributes::none()))
}

pub(crate) fn read(store: &dyn ObjectStore, path: &str) -> Result<Bytes, StoreError> {
    Ok(block_on(paths(store).read(path, ByteRange::ALL))?.0)
}

pub(crate) fn names(store: &dyn ObjectStore, path: &str) -> Vec<String> {
    let page = block_on(paths(store).list(path, None, usize::MAX)).expect("it is listed");
    page.entries.into_iter().map(|(name, _)| name).collect()
}
