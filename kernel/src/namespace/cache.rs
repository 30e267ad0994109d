//! Metadata by full path, bounded in bytes: what a warm stat and a warm read look at.
//!
//! A reader that misses takes a placeholder before it looks at the store; a publication for the same path drops the placeholder, and
//! then what the reader found is not kept. So an old row never comes in after a new one. A directory rename moves the mount
//! to a new namespace generation, and what was filed under the old one is never found again.
//!
//! That nothing is at a path is filed as well, while its parent is a directory. Then it holds until something is published at the path itself, or the
//! parent goes: a link or a file in the parent's place would change what the path leads to. So it is filed together with how many directories
//! had gone that share the parent's counter, and holds no longer than that count.
//!
//! An entry weighs what it takes: the texts of its path and of its row, the row, and its part of the table. Who passes once, as a scan does, leaves before
//! who came again; of those that left a hash is kept for a while, and its room in the table is set aside from the bound.
//! The table does not shrink: where many light entries were and fewer heavy ones are, it still has the places of the many.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_messages::{ContentId, FileId, FileMetadata, VPath};
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard};
use quick_cache::{Equivalent, Weighter};

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

/// What one allocation that is shared takes beside what is in it: two counters, and about as much again for the allocator.
const SHARED_OVERHEAD: u64 = 32;

/// What the table takes for an entry beside key and value: its links to others, its state, and its part of the index, which is half empty at worst.
const TABLE_OVERHEAD: u64 = 29;

/// What each entry takes in the table, and each one that left and of which a hash is kept. The table grows by doubling: what it has not touched yet is
/// nobody's.
const PLACE: u64 = (size_of::<Key>() + size_of::<Known>()) as u64 + TABLE_OVERHEAD;

/// What an entry is expected to weigh when the table is laid out: a file with a path of some fifty bytes.
const ENTRY_EXPECTED: u64 = 512;

/// Of so many entries that are expected, the hash of one more is kept that left.
const EXPECTED_PER_LEFT: u32 = 2;

/// Of so many bits is how often paths of one mount begin to mean something else: a thousand times a second for thirty years.
const GENERATIONS_BITS: u32 = 40;

/// The fewest entries that are expected. Who finds no room at first finds it when it comes again, as its hash is known: so some are kept in any cache.
const EXPECTED_MIN: u64 = 2;

/// An entry is kept that weighs at most this part of a shard, in sixteenths. Invariant: the table refuses none such; its own limit is 97 of 100.
const ENTRY_SIXTEENTHS: u64 = 15;

/// Metadata by mount, namespace generation and path.
#[derive(Debug)]
pub(crate) struct MetadataCache {
    entries: Cache<Key, Known, ByBytes, Filed>,
    /// The heaviest entry that is kept.
    entry_max: u64,
    /// How many directories have gone, by the hash of where they were.
    gone: Box<[AtomicU64]>,
    hits: Counter,
    misses: Counter,
    /// How many mounts were made.
    mounts: AtomicU64,
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

/// Weighs an entry with all that is its own. The zone's name is its mount's.
#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<Key, Known> for ByBytes {
    fn weight(&self, key: &Key, known: &Known) -> u64 {
        let known = match known {
            Known::There(node) => weight_of(&node.metadata, &key.path),
            Known::Nothing(_) => 0,
        };
        PLACE + shared(key.path.as_str()) + known
    }
}

/// What `metadata` takes that is filed under `path`.
fn weight_of(metadata: &FileMetadata, path: &VPath) -> u64 {
    // As a rule both are one text.
    let own_path = (!std::ptr::eq(metadata.path.as_str(), path.as_str())).then_some(metadata.path.as_str());
    let tag = match &metadata.content_id {
        Some(ContentId::Tag(tag)) => Some(&**tag),
        // Hashes lie in the row.
        _ => None,
    };
    let texts = [
        own_path,
        Some(&metadata.owner),
        metadata.mime_type.as_deref(),
        metadata.link_target.as_deref(),
        tag,
    ];
    let texts: u64 = texts.into_iter().flatten().map(shared).sum();
    SHARED_OVERHEAD + size_of::<FileMetadata>() as u64 + texts
}

/// What a text takes.
fn shared(text: &str) -> u64 {
    SHARED_OVERHEAD + text.len() as u64
}

type Placeholder<'a> = PlaceholderGuard<'a, Key, Known, ByBytes, Filed, DefaultLifecycle<Key, Known>>;

/// What a look into the cache gave.
pub(crate) enum Lookup<'a> {
    /// It is known: this is there, or nothing is.
    Hit(Option<Node>),
    /// It is not; hand what the store says to [`Fill::keep`].
    Miss(Fill<'a>),
}

/// That nothing was there was filed of a directory from which something went since.
struct Outlived;

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
    /// Room for `bytes` bytes; none at all for 0.
    pub(crate) fn new(bytes: u64) -> Self {
        // The table divides itself into shards of some dozens of expected entries at least, so that the heaviest usual one finds room in any.
        let expected = (bytes / ENTRY_EXPECTED).max(EXPECTED_MIN);
        let room = bytes.saturating_sub(expected / u64::from(EXPECTED_PER_LEFT) * PLACE);
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(expected).unwrap_or(usize::MAX))
            .ghost_allocation(1.0 / f64::from(EXPECTED_PER_LEFT))
            .weight_capacity(room)
            .build()
            .unwrap_or_else(|_| unreachable!("both capacities are given"));
        let entries = Cache::with_options(options, ByBytes, Filed, DefaultLifecycle::default());
        let entry_max = entries.shard_capacity() / 16 * ENTRY_SIXTEENTHS;
        let gone = std::iter::repeat_with(AtomicU64::default).take(1 << COUNTER_BITS).collect();
        Self {
            entries,
            entry_max,
            gone,
            hits: Counter::default(),
            misses: Counter::default(),
            mounts: AtomicU64::new(0),
        }
    }

    /// The first namespace generation of a mount that is made now. One that comes back, with the root it had, finds nothing that was filed of it before: what was
    /// known under this generation need not be so any more.
    pub(crate) fn new_mount(&self) -> u64 {
        self.mounts.fetch_add(1, Ordering::Relaxed) << GENERATIONS_BITS
    }

    /// What `take` makes of what is known to be at `path`. Allocates nothing on a hit, and counts nothing: a hit is counted as a call.
    #[inline]
    pub(crate) fn get<R>(
        &self,
        mount: FileId,
        generation: u64,
        path: &VPath,
        take: impl FnOnce(Node) -> Option<R>,
    ) -> Option<R> {
        match self.entries.get(&KeyRef { mount, generation, path })? {
            Known::There(node) => take(node),
            Known::Nothing(_) => None,
        }
    }

    /// What is known of `path`: this is there, or nothing is. For who will not file what the store says.
    #[expect(clippy::option_option, reason = "whether it is known, and whether something is there")]
    pub(crate) fn known(&self, mount: FileId, generation: u64, path: &VPath) -> Option<Option<Node>> {
        self.filed(&KeyRef { mount, generation, path }).unwrap_or_default()
    }

    /// What is known of the path, if anything is filed; or that what is filed is no longer so.
    #[expect(
        clippy::option_option,
        reason = "whether something is filed, whether it is known, and whether something is there"
    )]
    fn filed(&self, key: &KeyRef<'_>) -> Result<Option<Option<Node>>, Outlived> {
        let known = match self.entries.get(key) {
            Some(Known::There(node)) => Ok(Some(Some(node))),
            Some(Known::Nothing(count)) if self.counted(count.counter) == count => Ok(Some(None)),
            Some(Known::Nothing(_)) => Err(Outlived),
            None => Ok(None),
        };
        if matches!(known, Ok(Some(_))) {
            self.hits.count();
        } else {
            self.misses.count();
        }
        known
    }

    /// What is known of `path`, or the right to file it.
    pub(crate) fn lookup(&self, mount: FileId, generation: u64, path: &VPath) -> Lookup<'_> {
        let key = KeyRef { mount, generation, path };
        match self.filed(&key) {
            Ok(Some(known)) => return Lookup::Hit(known),
            Ok(None) => {}
            Err(Outlived) => {
                let outlived = |known: &Known| matches!(known, Known::Nothing(count) if self.counted(count.counter) != *count);
                self.entries.remove_if(&key, outlived);
            }
        }
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

    /// Files what a commit made true, unless it is too heavy: then nothing is known of the path.
    pub(crate) fn publish(&self, mount: FileId, generation: u64, path: VPath, known: Node) {
        let (key, known) = (Key { mount, generation, path }, Known::There(known));
        if ByBytes.weight(&key, &known) <= self.entry_max {
            self.entries.insert(key, known);
        } else {
            // The table would refuse it and leave a reader's placeholder where it is, and so file what the reader found before.
            self.entries.remove(&key);
        }
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

    /// How many bytes they take.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}

/// The counter of a directory.
fn counter(mount: FileId, directory: &VPath) -> usize {
    (file_under(mount, 0, directory) >> (u64::BITS - COUNTER_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use nexus_messages::{EntryType, PATH_MAX, Timestamp, ZoneId};

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
        cache.get(MOUNT, 0, &path("/a"), |node| Some(node.metadata.file_id.0))
    }

    #[test]
    fn what_was_read_before_a_publication_is_not_kept() {
        let check = |publish: &dyn Fn(&MetadataCache), expected: Option<u64>| {
            let cache = MetadataCache::new(1 << 16);
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
        let cache = MetadataCache::new(1 << 16);
        let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &path("/d/a")) else {
            panic!("nothing was filed yet")
        };
        fill.keep_nothing();
        assert!(cache.get(MOUNT, 0, &path("/d/a"), Some).is_none());
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
        let cache = MetadataCache::new(1 << 16);
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
        let cache = MetadataCache::new(1 << 16);
        let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &path("/a")) else { panic!("nothing was filed yet") };
        let Lookup::Miss(second) = cache.lookup(MOUNT, 0, &path("/a")) else {
            panic!("nothing was filed yet")
        };
        second.keep(node(7));
        assert_eq!(found(&cache), None, "the first reader files");
        fill.keep(node(1));
        assert_eq!(found(&cache), Some(1));
        assert!(cache.get(MOUNT, 1, &path("/a"), Some).is_none(), "another generation knows nothing of it");
    }

    /// A path of `length` bytes for each number.
    fn long(number: u64, length: usize) -> VPath {
        let mut text = format!("/{number}");
        while text.len() < length {
            text.push(if text.len() % 200 == 0 { '/' } else { 'x' });
        }
        path(&text)
    }

    /// A file as a commit or a reader finds it at `path`.
    fn file_at(path: &VPath) -> Node {
        let metadata =
            FileMetadata::new(path.clone(), ZoneId::root(), FileId(1), EntryType::Reg, Timestamp(1));
        Node { metadata: Arc::new(metadata), placement: Placement::None }
    }

    /// The heaviest link that can be made at `path` by somebody with a short name.
    fn heavy_link_at(path: &VPath) -> Node {
        let mut metadata =
            FileMetadata::new(path.clone(), ZoneId::root(), FileId(1), EntryType::Link, Timestamp(1));
        metadata.link_target = Some(Arc::from("x".repeat(PATH_MAX)));
        Node { metadata: Arc::new(metadata), placement: Placement::None }
    }

    fn read(cache: &MetadataCache, path: &VPath) {
        if let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, path) {
            fill.keep(file_at(path));
        }
    }

    fn read_nothing(cache: &MetadataCache, path: &VPath) {
        if let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, path) {
            fill.keep_nothing();
        }
    }

    fn knows(cache: &MetadataCache, path: &VPath) -> bool {
        cache.entries.peek(&KeyRef { mount: MOUNT, generation: 0, path }).is_some()
    }

    const KIB: u64 = 1_024;

    /// How many entries are there after many more were filed than there is room for, and never more bytes than `bound`.
    fn filled(bound: u64, file: impl Fn(&MetadataCache, u64)) -> usize {
        let cache = MetadataCache::new(bound);
        for number in 0..4 * bound / ENTRY_EXPECTED + 1_000 {
            file(&cache, number);
            assert!(cache.bytes() <= bound, "{} of {bound} after {number}", cache.bytes());
        }
        assert!(cache.bytes() > bound / 2, "{} of {bound} are used", cache.bytes());
        cache.len()
    }

    #[test]
    fn it_is_bounded_in_bytes_however_long_paths_are() {
        for bound in [16 * KIB, 100_003, 1_000_003] {
            let published = |length| {
                filled(bound, move |cache, number| {
                    let path = long(number, length);
                    cache.publish(MOUNT, 0, path.clone(), file_at(&path));
                })
            };
            let (short, longer, longest) = (published(20), published(1_000), published(4_000));
            assert!(2 * longer < short && 2 * longest < longer, "{short}, {longer}, {longest} in {bound}");
            let read = filled(bound, |cache, number| read(cache, &long(number, 1_000)));
            assert!(read.abs_diff(longer) <= 1 + longer / 4, "{read} read, {longer} published");
        }
    }

    #[test]
    fn that_nothing_is_there_is_weighed_too() {
        for bound in [16 * KIB, 1_000_003] {
            let nothing =
                |length| filled(bound, move |cache, number| read_nothing(cache, &long(number, length)));
            let (short, longer, longest) = (nothing(20), nothing(1_000), nothing(4_000));
            assert!(2 * longer < short && 2 * longest < longer, "{short}, {longer}, {longest} in {bound}");
            let files = filled(bound, |cache, number| read(cache, &long(number, 20)));
            assert!(files < short, "{files} files and {short} times nothing in {bound}");
        }
    }

    #[test]
    fn an_entry_weighs_all_that_is_its_own() {
        let weight = |change: &dyn Fn(&mut FileMetadata)| {
            let cache = MetadataCache::new(1 << 20);
            let mut node = file_at(&path("/a"));
            change(Arc::get_mut(&mut node.metadata).expect("nobody else has it"));
            cache.publish(MOUNT, 0, path("/a"), node);
            assert_eq!(cache.len(), 1);
            cache.bytes()
        };
        let plain = weight(&|_| ());
        let text = "x".repeat(1_000);
        let more = |change: &dyn Fn(&mut FileMetadata)| weight(change) - plain;
        assert_eq!(more(&|file| file.owner = Arc::from(&*text)), 1_000);
        assert_eq!(more(&|file| file.mime_type = Some(Arc::from(&*text))), 1_000 + SHARED_OVERHEAD);
        assert_eq!(more(&|file| file.link_target = Some(Arc::from(&*text))), 1_000 + SHARED_OVERHEAD);
        let tag = ContentId::Tag(Arc::from(&*text));
        assert_eq!(more(&|file| file.content_id = Some(tag.clone())), 1_000 + SHARED_OVERHEAD);
        // A path that is not the one it is filed under.
        assert_eq!(more(&|file| file.path = long(1, 1_000)), 1_000 - "/a".len() as u64);
    }

    #[test]
    fn the_table_takes_no_more_than_is_counted_for_it() {
        let cache = MetadataCache::new(1 << 20);
        for number in 0..20_000 {
            read(&cache, &path(&format!("/{number}")));
        }
        let left = (1 << 20) / ENTRY_EXPECTED / u64::from(EXPECTED_PER_LEFT);
        let taken = cache.entries.memory_used();
        let counted = (cache.len() as u64 + left) * PLACE;
        let taken = (taken.entries + taken.map) as u64;
        assert!(taken <= counted, "{taken} of {counted}");
        assert!(taken > counted / 2, "{taken} of {counted}");
    }

    /// Caches of this size, and of twice, four times as many bytes and so on. The table has more shards from size to size.
    fn sizes(smallest: u64) -> impl Iterator<Item = u64> {
        (0..8).map(move |doubled| smallest << doubled)
    }

    #[test]
    fn the_heaviest_usual_entry_finds_room_in_the_smallest_cache_that_has_as_much() {
        let at = long(1, PATH_MAX);
        for bound in sizes(12 * KIB) {
            let cache = MetadataCache::new(bound);
            cache.publish(MOUNT, 0, at.clone(), heavy_link_at(&at));
            assert!(knows(&cache, &at), "published, in {bound}");
            let cache = MetadataCache::new(bound);
            let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &at) else { panic!("nothing was filed yet") };
            fill.keep(heavy_link_at(&at));
            assert!(knows(&cache, &at), "read, in {bound}");
        }
    }

    #[test]
    fn what_is_asked_for_again_finds_room_in_a_full_cache_however_small() {
        let check = |bound: u64, length: usize, ask: fn(&MetadataCache, &VPath)| {
            let cache = MetadataCache::new(bound);
            for number in 0..4 * bound / ENTRY_EXPECTED + 100 {
                ask(&cache, &long(number, 20));
            }
            for number in 1_000_000..1_000_100 {
                let at = long(number, length);
                ask(&cache, &at);
                ask(&cache, &at);
                assert!(knows(&cache, &at), "{number}, of {length} bytes in {bound}");
            }
        };
        for ask in [read, read_nothing] {
            sizes(700).for_each(|bound| check(bound, 20, ask));
            sizes(12 * KIB).for_each(|bound| check(bound, PATH_MAX, ask));
        }
    }

    #[test]
    fn what_is_too_heavy_is_not_known_and_leaves_nothing_older() {
        let at = path("/a");
        for bound in [4 * KIB, 8 * KIB] {
            let cache = MetadataCache::new(bound);
            cache.publish(MOUNT, 0, at.clone(), file_at(&at));
            assert!(knows(&cache, &at));
            let mut heavy = heavy_link_at(&at);
            Arc::get_mut(&mut heavy.metadata).expect("nobody else has it").owner = "x".repeat(8_192).into();
            cache.publish(MOUNT, 0, at.clone(), heavy.clone());
            assert!(!knows(&cache, &at), "the older one");

            let Lookup::Miss(fill) = cache.lookup(MOUNT, 0, &at) else { panic!("it is too heavy") };
            cache.publish(MOUNT, 0, at.clone(), heavy);
            fill.keep(file_at(&at));
            assert!(!knows(&cache, &at), "what a reader found before");
        }
    }

    #[test]
    fn without_room_nothing_is_known() {
        let cache = MetadataCache::new(0);
        let at = path("/a");
        cache.publish(MOUNT, 0, at.clone(), file_at(&at));
        read(&cache, &at);
        read_nothing(&cache, &path("/b"));
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn what_is_asked_for_again_outlives_a_scan() {
        const BOUND: u64 = 256 * KIB;
        const SCANNED: u64 = 10 * BOUND / ENTRY_EXPECTED;
        let hot: Vec<VPath> = (0..100).map(|number| path(&format!("/hot/{number}"))).collect();
        let scans: [fn(&MetadataCache, &VPath); 3] = [read, read_nothing, |cache, path| {
            cache.publish(MOUNT, 0, path.clone(), file_at(path));
        }];
        for scan in scans {
            let cache = MetadataCache::new(BOUND);
            // It comes while the cache is full of what nobody asks for again.
            (0..SCANNED).for_each(|number| scan(&cache, &path(&format!("/before/{number}"))));
            for _ in 0..3 {
                hot.iter().for_each(|path| read(&cache, path));
            }
            (0..SCANNED).for_each(|number| scan(&cache, &path(&format!("/scanned/{number}"))));
            let survived = hot.iter().filter(|path| knows(&cache, path)).count();
            let scanned = (0..SCANNED).map(|number| path(&format!("/scanned/{number}")));
            let scanned = scanned.filter(|path| knows(&cache, path)).count() as u64;
            assert!(survived >= 95, "{survived} of 100, beside {scanned} that were scanned");
            assert!(scanned < SCANNED / 5, "the scan is larger than the cache: {scanned} are there");
        }
    }
}
