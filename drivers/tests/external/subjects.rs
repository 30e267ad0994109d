//! The mounts that are tested, and how they are called.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::catalogue;
use nexus_kernel::hal::{
    Addressing, Catalogue, DriverContext, ListPage, ObjectInfo, ObjectStore, PathStore, PathWrite, StoreError,
};
use nexus_messages::Attributes;
use nexus_messages::syscall::{ByteRange, MountSpec};

use crate::server::Server;

pub(crate) fn env() -> Env {
    static ENV: OnceLock<Env> = OnceLock::new();
    ENV.get_or_init(|| Env::host(HostConfig::default()).expect("threads can be started")).clone()
}

/// Opens what `spec` says, as the kernel does. No executor is around: what polls is `nexus_actors::block_on`.
pub(crate) fn try_open(spec: &MountSpec) -> Result<Arc<dyn ObjectStore>, StoreError> {
    open_of(&catalogue(), spec)
}

/// Another instance of what `spec` says, by the factories of one kernel.
pub(crate) fn open_of(catalogue: &Catalogue, spec: &MountSpec) -> Result<Arc<dyn ObjectStore>, StoreError> {
    open_in(catalogue, spec, None)
}

/// As [`open_of`], of a kernel with a data folder.
pub(crate) fn open_in(
    catalogue: &Catalogue,
    spec: &MountSpec,
    data: Option<&Path>,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    catalogue.check(spec)?;
    let factory = catalogue.get(&spec.driver).expect("it was checked");
    let context = DriverContext::new(env(), env().pool("mount", 2, 8), data.map(Path::to_owned));
    block_on(factory.open(spec, context))
}

pub(crate) fn open(spec: &MountSpec) -> Arc<dyn ObjectStore> {
    try_open(spec).unwrap_or_else(|error| panic!("{spec:?}: {error}"))
}

/// A description among the examples.
pub(crate) fn example(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/connectors");
    folder.join(name).to_str().expect("it is text").to_owned()
}

/// The server of files as the example describes it.
pub(crate) fn files(server: &Server) -> MountSpec {
    MountSpec::new("rest")
        .option("description", example("files.toml"))
        .option("parameters", format!("base={}/v1", server.base()))
        .option("token", crate::api::TOKEN)
}

/// A mount of `server` by the routes in `text`, which is TOML.
pub(crate) fn described(server: &Server, folder: &Path, text: &str) -> MountSpec {
    let file = folder.join("described.toml");
    let base = server.base();
    std::fs::write(&file, format!("connector = \"rest\"\nbase = \"{base}\"\n{text}")).expect("it is written");
    MountSpec::new("rest").option("description", file.to_str().expect("it is text"))
}

/// A mount of `program` by the routes in `text`, which is TOML.
pub(crate) fn command(folder: &Path, text: &str) -> MountSpec {
    let file = folder.join("described.toml");
    std::fs::write(&file, format!("connector = \"command\"\n{text}")).expect("it is written");
    MountSpec::new("command").option("description", file.to_str().expect("it is text"))
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

pub(crate) fn stat(store: &dyn ObjectStore, path: &str) -> Result<ObjectInfo, StoreError> {
    block_on(paths(store).stat(path))
}

pub(crate) fn delete(store: &dyn ObjectStore, path: &str) -> Result<(), StoreError> {
    block_on(paths(store).delete(path))
}

pub(crate) fn list(store: &dyn ObjectStore, path: &str) -> Result<ListPage, StoreError> {
    block_on(paths(store).list(path, None, usize::MAX))
}

pub(crate) fn names(store: &dyn ObjectStore, path: &str) -> Vec<String> {
    let page = list(store, path).unwrap_or_else(|error| panic!("{path}: {error}"));
    page.entries.into_iter().map(|(name, _)| name).collect()
}
