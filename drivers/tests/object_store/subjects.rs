//! The stores that are tested, and what happens to them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use nexus_actors::{Env, HostConfig, Pool, block_on};
use nexus_drivers::cas::Cas;
use nexus_drivers::local::{LocalTransport, PathLocal};
use nexus_drivers::memory::{MemoryPaths, MemoryTransport};
use nexus_drivers::packs::Packs;
use nexus_kernel::hal::conformance::object_store::content::Damage;
use nexus_kernel::hal::{StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, Timestamp};

pub(crate) fn pool() -> Pool {
    static ENV: OnceLock<Env> = OnceLock::new();
    ENV.get_or_init(|| Env::host(HostConfig::default()).unwrap()).pool("test", 4, 64)
}

pub(crate) fn wait<T>(call: StoreFuture<'_, T>) -> Result<T, nexus_kernel::hal::StoreError> {
    block_on(call)
}

/// As `cas-local` opens it.
pub(crate) fn cas_packs(folder: &Path) -> Cas<Packs> {
    Cas::new(packs(folder))
}

pub(crate) fn packs(folder: &Path) -> Packs {
    block_on(Packs::open(folder, pool(), 1)).unwrap()
}

/// A file each.
pub(crate) fn cas_local(folder: &Path) -> Cas<LocalTransport> {
    Cas::new(block_on(LocalTransport::open(folder, pool())).unwrap())
}

pub(crate) fn path_local(folder: &Path) -> PathLocal {
    block_on(PathLocal::open(folder, pool())).unwrap()
}

/// Each look at the clock is a second later.
pub(crate) fn memory_paths() -> MemoryPaths {
    let seconds = std::sync::atomic::AtomicU64::new(1_000);
    MemoryPaths::new(Arc::new(move || {
        Timestamp(seconds.fetch_add(1, std::sync::atomic::Ordering::Relaxed) * 1_000_000_000)
    }))
}

pub(crate) fn id_of(content: &[u8]) -> ContentId {
    ContentId::Blake3(*blake3::hash(content).as_bytes())
}

pub(crate) fn damaged(mut content: Vec<u8>, how: Damage) -> Vec<u8> {
    match how {
        Damage::Torn => content.truncate(content.len() / 2),
        Damage::Altered => *content.last_mut().unwrap() ^= 1,
    }
    content
}

/// Damages a blob of a content-addressed store on `transport`.
pub(crate) fn damage_on(transport: &MemoryTransport, id: &ContentId, how: Damage) {
    let key = Cas::<MemoryTransport>::key(id).unwrap();
    let content = wait(transport.get(&key, ByteRange::ALL)).unwrap().to_vec();
    wait(transport.put(&key, &[damaged(content, how).into()])).unwrap();
}

/// Damages a blob of a content-addressed store in `folder`.
pub(crate) fn damage_in(folder: &Path, id: &ContentId, how: Damage) {
    let file = folder.join(Cas::<LocalTransport>::key(id).unwrap());
    let content = std::fs::read(&file).unwrap();
    std::fs::write(&file, damaged(content, how)).unwrap();
}

/// Damages a blob of packs in `folder`: that which was written last.
pub(crate) fn damage_packed(folder: &Path, id: &ContentId, how: Damage) {
    let key = Cas::<Packs>::key(id).unwrap();
    if folder.join(&key).exists() {
        return damage_in(folder, id, how);
    }
    let mut segments: Vec<_> = std::fs::read_dir(folder.join("packs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pack"))
        .collect();
    segments.sort_unstable();
    for segment in segments.iter().rev() {
        let mut bytes = std::fs::read(segment).unwrap();
        let Some(key_at) = bytes.windows(key.len()).rposition(|part| part == key.as_bytes()) else {
            continue;
        };
        let (content_at, len_at) = (key_at + key.len(), key_at - 40);
        let len = u32::from_le_bytes(bytes[len_at..len_at + 4].try_into().unwrap()) as usize;
        let content = &mut bytes[content_at..content_at + len];
        match how {
            Damage::Torn => content[len / 2..].fill(0),
            Damage::Altered => content[len - 1] ^= 1,
        }
        std::fs::write(segment, bytes).unwrap();
        return;
    }
    panic!("{key} is in no segment");
}
