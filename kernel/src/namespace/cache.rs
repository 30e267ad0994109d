//! Metadata by full path: what a warm stat and a warm read look at.
//!
//! A reader that misses takes a placeholder before it looks at the store; a publication for the same path drops the placeholder, and
//! then what the reader found is not kept. So an old row never comes in after a new one. A directory rename moves the mount
//! to a new namespace generation, and what was filed under the old one is never found again.
//!
//! That nothing is at a path is filed as well, while its parent is a directory. Then it holds until something is published at the path itself, or the
//! parent goes: a link or a file in the parent's place would change what the path leads to. So it is filed together with how many directories
//! had gone that share the parent's counter, and holds no longer than that count.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_messages::{FileId, FileMetadata, VPath};
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard};
use quick_cache::{Equivalent, UnitWeighter};

use super::rows::Placement;
use crate::metrics::Counter;

/// What is known of an entry.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) metadata: Arc<FileMetadata>,
    pub(crate) placement: Placement,
}

/// What is filed under a path.
#[derive(Debug, Clone)]
enum Known {
    There(Node),
    /// Nothing is there as long as the counter of gone directories has this count.
    Nothing(Count),
}

/// A counter of gone directories, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    counter: usize,
    gone: u64,
}

/// How many bits of a hash choose a counter of gone directories. Directories that share one cost each other what is filed of nothing, and no more.
const COUNTER_BITS: u32 = 10;

/// Metadata by mount, namespace generation and path.
#[derive(Debug)]
pub(crate) struct MetadataCache {
    entries: Cache<Key, Known, UnitWeighter, Filed>,
    /// How many directories have gone, by the hash of where they were.
    gone: Box<[AtomicU64]>,
    hits: Counter,
    misses: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    mount: FileId,
    generation: u64,
    path: VPath,
}

#[derive(Debug, Clone, Copy)]
struct KeyRef<'a> {
    mount: FileId,
    generation: u64,
    path: &'a VPath,
}

fn file_under(mount: FileId, generation: u64, path: &VPath) -> u64 {
    // Odd constants spread the small numbers over all bits; the path's hash is well spread already.
    path.hash64()
        ^ mount.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ generation.wrapping_mul(0xc2b2_ae3d_27d4_eb4f).rotate_left(17)
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(file_under(self.mount, self.generation, &self.path));
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(file_under(self.mount, self.generation, self.path));
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.mount == key.mount && self.generation == key.generation && *self.path == key.path
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Self {
        Self { mount: key.mount, generation: key.generation, path: key.path.clone() }
    }
}

/// Takes the hash that a key computed itself.
#[derive(Debug, Clone, Copy, Default)]
struct Filed;

#[derive(Debug, Default)]
struct FiledHasher(u64);

impl BuildHasher for Filed {
    type Hasher = FiledHasher;

    fn build_hasher(&self) -> FiledHasher {
        FiledHasher(0)
    }
}

impl Hasher for FiledHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Placeholder<'a> = PlaceholderGuard<'a, Key, Known, UnitWeighter, Filed, DefaultLifecycle<Key, Known>>;

/// What a look into the cache gave.
pub(crate) enum Lookup<'a> {
    /// It is known: this is there, or nothing is.
    Hit(Option<Node>),
    /// It is not; hand what the store says to [`Fill::keep`].
    Miss(Fill<'a>),
}

/// The right to file what a reader finds, unless something newer is published meanwhile.
pub(crate) struct Fill<'a> {
    placeholder: Option<Placeholder<'a>>,
    /// Of the path's parent, from before the reader looked at the store.
    count: Option<Count>,
}

impl Fill<'_> {
    /// Files what is there, unless something was published since the miss.
    pub(crate) fn keep(self, known: Node) {
        self.file(Known::There(known));
    }

    /// Files that nothing is there in a directory that is; otherwise as [`keep`](Self::keep).
    pub(crate) fn keep_nothing(self) {
        if let Some(count) = self.count {
            self.file(Known::Nothing(count));
        }
    }

    fn file(self, known: Known) {
        if let Some(placeholder) = self.placeholder {
            // Refused when a publication came between: then what was read may be old, and is not kept.
            let _ = placeholder.insert(known);
        }
    }
}

impl MetadataCache {
    /// Room for `entries` paths.
    pub(crate) fn new(entries: usize) -> Self {
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(entries)
            .weight_capacity(entries as u64)
            .build()
            .unwrap_or_else(|_| unreachable!("both capacities are given"));
        let lifecycle = DefaultLifecycle::default();
        let entries = Cache::with_options(options, UnitWeighter, Filed, lifecycle);
        let gone = std::iter::repeat_with(AtomicU64::default).take(1 << COUNTER_BITS).collect();
        Self { entries, gone, hits: Counter::default(), misses: Counter::default() }
    }

    /// What is known to be at `path`. Allocates nothing on a hit, and counts nothing: a hit is counted as a call.
    #[inline]
    pub(crate) fn get(&self, mount: FileId, generation: u64, path: &VPath) -> Option<Node> {
        match self.entries.get(&KeyRef { mount, generation, path })? {
            Known::There(node) => Some(node),
            Known::Nothing(_) => None,
        }
    }

    /// What is known of `path`, or the right to file it.
    pub(crate) fn lookup(&self, mount: FileId, generation: u64, path: &VPath) -> Lookup<'_> {
        let key = KeyRef { mount, generation, path };
        match self.entries.get(&key) {
            Some(Known::There(node)) => {
                self.hits.count();
                return Lookup::Hit(Some(node));
            }
            Some(Known::Nothing(count)) if self.counted(count.counter) == count => {
                self.hits.count();
                return Lookup::Hit(None);
            }
            Some(Known::Nothing(_)) => {
                let outlived = |known: &Known| matches!(known, Known::Nothing(count) if self.counted(count.counter) != *count);
                self.entries.remove_if(&key, outlived);
            }
            None => {}
        }
        self.misses.count();
        let placeholder = match self.entries.get_value_or_guard(&Key::from(key), Some(Duration::ZERO)) {
            GuardResult::Value(Known::There(known)) => return Lookup::Hit(Some(known)),
            GuardResult::Guard(placeholder) => Some(placeholder),
            // Somebody else is looking, or has just found nothing: look as well, and leave the filing to them.
            GuardResult::Value(Known::Nothing(_)) | GuardResult::Timeout => None,
        };
        // After the placeholder, before the store is looked at: what goes from now on makes it outlived.
        let count = path.parent().map(|parent| self.counted(counter(mount, &parent)));
        Lookup::Miss(Fill { placeholder, count })
    }

    /// What the counter says. Acquire pairs with the release that raises it: who sees that a directory has gone finds its row gone, too.
    fn counted(&self, counter: usize) -> Count {
        Count { counter, gone: self.gone[counter].load(Ordering::Acquire) }
    }

    /// Files what a commit made true.
    pub(crate) fn publish(&self, mount: FileId, generation: u64, path: VPath, known: Node) {
        self.entries.insert(Key { mount, generation, path }, Known::There(known));
    }

    /// Forgets the directory at `path`, and that nothing was in it.
    pub(crate) fn forget_directory(&self, mount: FileId, generation: u64, path: &VPath) {
        self.forget(mount, generation, path);
        self.gone[counter(mount, path)].fetch_add(1, Ordering::Release);
    }

    /// Forgets what is known of `path`.
    pub(crate) fn forget(&self, mount: FileId, generation: u64, path: &VPath) {
        self.entries.remove(&KeyRef { mount, generation, path });
    }

    /// How often [`lookup`](Self::lookup) knew, and how often not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.sum(), self.misses.sum())
    }

    /// How many paths are filed.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The counter of a directory.
fn counter(mount: FileId, directory: &VPath) -> usize {
    (file_under(mount, 0, directory) >> (u64::BITS - COUNTER_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use nexus_messages::{EntryType, Timestamp, ZoneId};

    use super::*;

    const MOUNT: FileId = FileId(1);

    fn path(text: &str) -> VPath {
        VPath::parse(text).unwrap()
    }

    fn node(id: u64) -> Node {
        let metadata =
            FileMetadata::new(path("/a"), ZoneId::root(), FileId(id), EntryType::Reg, Timestamp(1));
        Node { metadata: Arc::new(metadata), placement: Placement::None }
    }

    fn found(cache: &MetadataCache) -> Option<u64> {
        cache.get(MOUNT, 0, &path("/a")).map(|node| node.metadata.file_id.0)
    }

    #[test]
    fn what_was_read_before_a_publication_is_not_kept() {
        let check = |publish: &dyn Fn(&MetadataCache), expected: Option<u64>| {
            let cache = MetadataCache::new(10);
            let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &path("/a")) else {
                panic!("nothing was filed yet")
            };
            publish(&cache);
            fill.keep(node(1));
            assert_eq!(found(&cache), expected);
        };
        check(&|_| (), Some(1));
        check(&|cache| cache.forget(MOUNT, 0, &path("/a")), None);
        check(&|cache| cache.publish(MOUNT, 0, path("/a"), node(2)), Some(2));
    }

    /// What is filed of a path that nothing is at, after `change`.
    fn known_of_nothing(change: impl FnOnce(&MetadataCache)) -> bool {
        let cache = MetadataCache::new(10);
        let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &path("/d/a")) else {
            panic!("nothing was filed yet")
        };
        fill.keep_nothing();
        assert!(cache.get(MOUNT, 0, &path("/d/a")).is_none());
        change(&cache);
        matches!(cache.lookup(MOUNT, 0, &path("/d/a")), Lookup::Hit(None))
    }

    #[test]
    fn that_nothing_is_there_is_known_until_something_is_or_its_directory_goes() {
        assert!(known_of_nothing(|_| ()));
        assert!(known_of_nothing(|cache| cache.forget_directory(MOUNT, 0, &path("/other"))));
        assert!(!known_of_nothing(|cache| cache.forget(MOUNT, 0, &path("/d/a"))));
        assert!(!known_of_nothing(|cache| cache.publish(MOUNT, 0, path("/d/a"), node(1))));
        assert!(!known_of_nothing(|cache| cache.forget_directory(MOUNT, 0, &path("/d"))));
    }

    #[test]
    fn a_directory_that_goes_while_a_reader_looks_outlives_what_the_reader_files() {
        let cache = MetadataCache::new(10);
        let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &path("/d/a")) else {
            panic!("nothing was filed yet")
        };
        cache.forget_directory(MOUNT, 0, &path("/d"));
        fill.keep_nothing();
        let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &path("/d/a")) else { panic!("it was outlived") };
        fill.keep_nothing();
        assert!(matches!(cache.lookup(MOUNT, 0, &path("/d/a")), Lookup::Hit(None)), "it is filed anew");
    }

    #[test]
    fn two_readers_do_not_wait_for_each_other() {
        let cache = MetadataCache::new(10);
        let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &path("/a")) else { panic!("nothing was filed yet") };
        let Lookup::Miss(second) = cache.lookup(MOUNT, 0, &path("/a")) else {
            panic!("nothing was filed yet")
        };
        second.keep(node(7));
        assert_eq!(found(&cache), None, "the first reader files");
        fill.keep(node(1));
        assert_eq!(found(&cache), Some(1));
        assert!(cache.get(MOUNT, 1, &path("/a")).is_none(), "another generation knows nothing of it");
    }

    #[test]
    fn it_is_bounded() {
        let cache = MetadataCache::new(100);
        for n in 0..10_000 {
            cache.publish(MOUNT, 0, path(&format!("/{n}")), node(n));
        }
        assert!(cache.len() <= 200, "{}", cache.len());
    }
}
