//! The object stores against their suites, and against what each promises alone.

#[path = "object_store/broken_contents.rs"]
mod broken_contents;
#[path = "object_store/broken_paths.rs"]
mod broken_paths;
#[path = "object_store/cas.rs"]
mod cas;
#[path = "object_store/conforms.rs"]
mod conforms;
#[path = "object_store/disk.rs"]
mod disk;
#[path = "object_store/links.rs"]
mod links;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use nexus_actors::{Env, HostConfig, Pool, block_on};
use nexus_drivers::cas::Cas;
use nexus_drivers::local::{LocalTransport, PathLocal};
use nexus_drivers::memory::{MemoryPaths, MemoryTransport};
use nexus_kernel::hal::conformance::object_store::content::Damage;
use nexus_kernel::hal::{StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, Timestamp};

fn pool() -> Pool {
    static ENV: OnceLock<Env> = OnceLock::new();
    ENV.get_or_init(|| Env::host(HostConfig::default()).unwrap()).pool("test", 4, 64)
}

fn wait<T>(call: StoreFuture<'_, T>) -> Result<T, nexus_kernel::hal::StoreError> {
    block_on(call)
}

fn cas_local(folder: &Path) -> Cas<LocalTransport> {
    Cas::new(block_on(LocalTransport::open(folder, pool())).unwrap())
}

fn path_local(folder: &Path) -> PathLocal {
    block_on(PathLocal::open(folder, pool())).unwrap()
}

/// Each look at the clock is a second later.
fn memory_paths() -> MemoryPaths {
    let seconds = std::sync::atomic::AtomicU64::new(1_000);
    MemoryPaths::new(Arc::new(move || {
        Timestamp(seconds.fetch_add(1, std::sync::atomic::Ordering::Relaxed) * 1_000_000_000)
    }))
}

fn id_of(content: &[u8]) -> ContentId {
    ContentId::Blake3(*blake3::hash(content).as_bytes())
}

fn damaged(mut content: Vec<u8>, how: Damage) -> Vec<u8> {
    match how {
        Damage::Torn => content.truncate(content.len() / 2),
        Damage::Altered => *content.last_mut().unwrap() ^= 1,
    }
    content
}

/// Damages a blob of a content-addressed store on `transport`.
fn damage_on(transport: &MemoryTransport, id: &ContentId, how: Damage) {
    let key = Cas::<MemoryTransport>::key(id).unwrap();
    let content = wait(transport.get(&key, ByteRange::ALL)).unwrap().to_vec();
    wait(transport.put(&key, &[damaged(content, how).into()])).unwrap();
}

/// Damages a blob of a content-addressed store in `folder`.
fn damage_in(folder: &Path, id: &ContentId, how: Damage) {
    let file = folder.join(Cas::<LocalTransport>::key(id).unwrap());
    let content = std::fs::read(&file).unwrap();
    std::fs::write(&file, damaged(content, how)).unwrap();
}
