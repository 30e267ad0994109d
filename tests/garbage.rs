//! What nothing names any more goes, and nothing else ever does.

#[path = "common/only.rs"]
mod only;
#[path = "common/rows.rs"]
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nexus::blocking::{self, Nexus};
use nexus::hal::{Change, RowKey, Table, Transport};
use nexus::sys::{CollectOrder, GarbageEntry};
use nexus::{
    ByteRange, Bytes, Collection, CollectionState, Config, ContentId, ErrorKind, MountSpec, SysWrite, VPath,
};
use nexus_drivers::cas::Cas;
use nexus_drivers::faults::{Fault, Faults, FaultyFactory, Where};
use nexus_drivers::memory::{MemoryMetastore, MemoryTransport};
use only::only;
use rows::{Rows, inode_key, with_byte};

/// Content up to so many bytes is a row.
const INLINE_MAX: usize = 16 * 1_024;

/// Content above so many bytes is in chunks.
const WHOLE_MAX: usize = 1 << 20;

/// A store in memory that the test looks into.
#[derive(Debug, Clone)]
struct Looked(Arc<Cas<MemoryTransport>>);

impl Looked {
    fn blobs(&self) -> BTreeMap<String, Bytes> {
        let transport = self.0.transport();
        let keys = wait(transport.list("cas/", None, usize::MAX)).expect("it lists");
        let blob = |key: String| {
            let content = wait(transport.get(&key, ByteRange::ALL)).expect("it reads");
            (key.rsplit('/').next().expect("it has a name").to_owned(), content)
        };
        keys.into_iter().map(blob).collect()
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    nexus::actors::block_on(future)
}

/// A kernel whose rows and blobs the test looks into. Nothing is cached, so that what is read is there.
struct Bench {
    nx: Nexus,
    store: Looked,
    rows: Arc<MemoryMetastore>,
}

impl Bench {
    fn new() -> Self {
        let store = Looked(Arc::new(Cas::new(MemoryTransport::new())));
        let rows = Arc::new(MemoryMetastore::new());
        let config = Config::in_memory()
            .metastore(rows.clone())
            .driver(only("looked-into", store.0.clone()))
            // Without versions, so that what is reachable is what is there.
            .root(MountSpec::new("looked-into").option("history_count", "0"))
            .content_cache_bytes(0)
            .restarts(100_000, Duration::from_secs(1))
            .garbage(None, Duration::from_secs(3_600));
        Self { nx: blocking::connect(config).expect("it boots"), store, rows }
    }

    /// The hashes of all that is kept, as text.
    fn kept(&self) -> BTreeSet<String> {
        let small = self.rows.scan(Table::Contents).into_iter().map(|(key, _)| {
            let hash = <[u8; 32]>::try_from(&*key.bytes).expect("it is a hash");
            ContentId::Blake3(hash).to_string()
        });
        self.store.blobs().into_keys().chain(small).collect()
    }

    /// All that tells what is where.
    fn names(&self) -> Vec<(RowKey, Bytes)> {
        [self.rows.scan(Table::Inodes), self.rows.scan(Table::Dentries)].concat()
    }

    /// The row of the metadata of an entry.
    fn inode(&self, path: &str) -> (RowKey, Bytes) {
        let key = inode_key(self.nx.stat(path).expect("it is there").file_id.0);
        self.rows.scan(Table::Inodes).into_iter().find(|(found, _)| *found == key).expect("it has a row")
    }

    /// With `damage` nothing is removed, and it is told; without it `rows` rows are.
    #[track_caller]
    fn leaves_alone(&self, damage: Vec<Change>, whole: Vec<Change>, rows: u64) {
        self.rows.change(damage);
        let before = (self.names(), self.kept());
        for dry_run in [true, false] {
            let left = done(collect(&self.nx, dry_run, 0));
            assert_eq!((left.rows, left.freed.objects, left.left_alone.len()), (0, 0, 1), "{left:?}");
        }
        assert_eq!((self.names(), self.kept()), before);
        self.rows.change(whole);
        let after = done(collect(&self.nx, false, 0));
        assert_eq!((after.rows, after.left_alone), (rows, Vec::new()));
    }
}

/// The byte of a row of metadata that says what type the entry has, and what it is for the root of a mount.
const TYPE: usize = 1;
const MOUNT: u8 = 2;

fn entry(nx: &Nexus) -> GarbageEntry {
    serde_json::from_slice(&nx.read("/__sys__/store/garbage").expect("it is shown")).expect("it is JSON")
}

/// Begins a collection; none when one runs, or the collector is just being restarted.
fn begin(nx: &Nexus, order: CollectOrder) -> bool {
    let path = VPath::parse("/__sys__/store/garbage").expect("it is one");
    match nx.send(SysWrite::at(path, serde_json::to_vec(&order).expect("it is plain"))) {
        Ok(_) => true,
        Err(error) => {
            let usual = matches!(error.kind(), ErrorKind::Busy | ErrorKind::Crashed | ErrorKind::Down);
            assert!(usual, "{error}");
            false
        }
    }
}

/// Collects, and waits for the end.
fn collect(nx: &Nexus, dry_run: bool, grace_ms: u64) -> Collection {
    let before = entry(nx).latest.map_or(0, |latest| latest.number);
    let mut order = CollectOrder::default();
    (order.dry_run, order.grace_ms) = (dry_run, Some(grace_ms));
    while !begin(nx, order) {
        thread::yield_now();
    }
    loop {
        let latest = entry(nx).latest.expect("it began");
        if latest.number > before && latest.is_over() {
            return latest;
        }
        thread::yield_now();
    }
}

#[track_caller]
fn done(collection: Collection) -> Collection {
    assert_eq!(collection.state, CollectionState::Done, "{collection:?}");
    collection
}

/// Bytes that look random and are the same everywhere.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("it is small") % bound
    }

    /// One of few contents, small, middle or large, so that what was let go comes again.
    fn content(&mut self) -> Vec<u8> {
        let length = match self.below(8) {
            0..4 => 1 + self.below(3) * 5_000,
            4..7 => 20_000 + self.below(3) * 90_000,
            _ => WHOLE_MAX + 1 + self.below(2) * 700_000,
        };
        noise(self.below(3) as u64, length)
    }
}

/// What is to be kept of this content: its hash, or those of its chunks and lists, which are looked up by hand.
fn kept_of(nx: &Nexus, path: &str, content: &[u8], blobs: &BTreeMap<String, Bytes>) -> BTreeSet<String> {
    if content.len() <= WHOLE_MAX {
        let own = (!content.is_empty()).then(|| blake3::hash(content).to_string());
        return own.into_iter().collect();
    }
    let id = nx.stat(path).expect("it is there").content_id.clone().expect("it has content");
    let root = ContentId::Blake3(*id.chunks().expect("it is in chunks")).to_string();
    let (mut kept, mut waiting) = (BTreeSet::new(), vec![root]);
    while let Some(list) = waiting.pop() {
        let blob = &blobs[&list];
        assert_eq!(&blob[..4], b"nxcl");
        for entry in blob[24..].chunks_exact(40) {
            let hash = ContentId::Blake3(entry[..32].try_into().expect("it is a hash")).to_string();
            if blob[6] == 0 {
                kept.insert(hash);
            } else {
                waiting.push(hash);
            }
        }
        kept.insert(list);
    }
    kept
}

/// Does random things with files of its own, and checks each time that what is read is what was written.
fn meddle(nx: &Nexus, own: usize, calls: usize) -> BTreeMap<String, Vec<u8>> {
    let (mut random, mut model) = (Random(own as u64), BTreeMap::<String, Vec<u8>>::new());
    for _ in 0..calls {
        let path = format!("/{own}/{}", random.below(4));
        match random.below(10) {
            0..3 => {
                let content = random.content();
                nx.write(&path, content.clone()).expect("it writes");
                model.insert(path, content);
            }
            3 => {
                let content = random.content();
                let pieces: Vec<_> =
                    content.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                nx.write_stream(&path, pieces).expect("it writes");
                model.insert(path, content);
            }
            4 => {
                if let Some(content) = model.get_mut(&path) {
                    nx.append(&path, "more").expect("it appends");
                    content.extend_from_slice(b"more");
                }
            }
            5 | 6 if model.remove(&path).is_some() => {
                nx.unlink(&path).expect("it is there");
            }
            5 | 6 => {}
            7 => {
                let to = format!("/{own}/{}", random.below(4));
                if let Some(content) = model.get(&path).cloned().filter(|_| to != path) {
                    nx.copy(&path, &to).expect("it copies");
                    model.insert(to, content);
                }
            }
            8 => {
                if let Some(content) = model.remove(&path) {
                    let stream = nx.stream(&path).expect("it opens");
                    nx.unlink(&path).expect("it is there");
                    let read: Vec<Bytes> = stream.collect::<Result<_, _>>().expect("what is held stays");
                    assert!(read.concat() == content, "a stream of {path} has another content");
                }
            }
            _ => {}
        }
        for (path, content) in &model {
            if random.below(3) == 0 {
                let read = nx.read(path).unwrap_or_else(|error| panic!("{error}"));
                assert!(read == *content, "{path} has another content");
            }
        }
    }
    model
}

#[test]
fn whatever_is_done_meanwhile_what_is_reachable_stays_and_in_the_end_nothing_else() {
    let bench = Bench::new();
    let over = AtomicBool::new(false);
    let mut collections = 0;
    let models: Vec<_> = thread::scope(|scope| {
        let working: Vec<_> = (0..3)
            .map(|own| {
                scope.spawn({
                    let nx = &bench.nx;
                    move || meddle(nx, own, 120)
                })
            })
            .collect();
        let collecting = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::SeqCst) {
                rounds += 1;
                if rounds % 4 == 0 {
                    // Cut short, wherever it is.
                    begin(&bench.nx, CollectOrder { grace_ms: Some(0), ..CollectOrder::default() });
                    let tree = bench.nx.kernel().expect("it runs").supervised().expect("it runs");
                    tree.kill("nexus/garbage", "brutal".parse().expect("it is a word"));
                } else {
                    collect(&bench.nx, false, 0);
                }
            }
            rounds
        });
        let ended: Vec<_> = working.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        collections = collecting.join().expect("collections go on");
        ended.into_iter().map(|model| model.expect("a thread failed")).collect()
    });
    assert!(collections > 3, "{collections} collections tell nothing");

    done(collect(&bench.nx, false, 0));
    let blobs = bench.store.blobs();
    let mut reachable = BTreeSet::new();
    for (path, content) in models.iter().flatten() {
        assert!(bench.nx.read(path).expect("it is there") == *content);
        reachable.append(&mut kept_of(&bench.nx, path, content, &blobs));
    }
    assert_eq!(bench.kept(), reachable);

    for path in models.iter().flat_map(BTreeMap::keys) {
        bench.nx.unlink(path).expect("it is there");
    }
    done(collect(&bench.nx, false, 0));
    assert_eq!(bench.kept(), BTreeSet::new());
}

#[test]
fn a_dry_run_says_what_the_next_run_frees_and_takes_nothing_away() {
    let bench = Bench::new();
    let sizes = [10, INLINE_MAX, INLINE_MAX + 1, 300_000];
    for (n, size) in sizes.into_iter().enumerate() {
        bench.nx.write(format!("/{n}"), noise(n as u64, size)).unwrap();
    }
    bench.nx.write("/kept", noise(9, 40_000)).unwrap();
    for n in 0..sizes.len() {
        bench.nx.unlink(format!("/{n}")).unwrap();
    }
    let before = bench.kept();
    let dry = done(collect(&bench.nx, true, 0));
    assert_eq!(bench.kept(), before);
    let wet = done(collect(&bench.nx, false, 0));
    assert_eq!(dry.freed, wet.freed);
    assert_eq!((wet.freed.objects, wet.freed.bytes), (4, sizes.iter().sum::<usize>() as u64));
    assert_eq!((wet.reachable, bench.kept().len()), (1, 1));
}

#[test]
fn content_goes_when_its_grace_is_over_and_not_before() {
    let bench = Bench::new();
    bench.nx.write("/a", "small").unwrap();
    bench.nx.write("/b", noise(1, 50_000)).unwrap();
    bench.nx.unlink("/a").unwrap();
    bench.nx.unlink("/b").unwrap();
    for _ in 0..2 {
        let kept = done(collect(&bench.nx, false, 3_600_000));
        assert_eq!(
            (kept.freed.objects, kept.kept_by_grace.objects, kept.kept_by_grace.bytes),
            (0, 2, 50_005)
        );
    }
    // What comes back meanwhile is no garbage.
    bench.nx.write("/b", noise(1, 50_000)).unwrap();
    let freed = done(collect(&bench.nx, false, 0));
    assert_eq!((freed.freed.objects, freed.freed.bytes), (1, 5));
    assert_eq!(bench.nx.read("/b").unwrap(), noise(1, 50_000));
}

#[test]
fn an_open_stream_keeps_what_it_reads() {
    let bench = Bench::new();
    let content = noise(7, 3 << 20);
    bench.nx.write("/large", content.clone()).unwrap();
    let mut stream = bench.nx.stream("/large").unwrap();
    let first = stream.next().unwrap().unwrap();
    bench.nx.unlink("/large").unwrap();
    assert_eq!(done(collect(&bench.nx, false, 0)).freed.objects, 0);
    let rest: Vec<Bytes> = stream.by_ref().collect::<Result<_, _>>().unwrap();
    assert!([first.to_vec(), rest.concat()].concat() == content);
    drop(stream);
    assert!(done(collect(&bench.nx, false, 0)).freed.objects > 2);
    assert_eq!(bench.kept(), BTreeSet::new());
}

#[test]
fn a_stream_that_comes_in_keeps_what_it_has_stored_and_what_was_stored_before_it() {
    let bench = Bench::new();
    let content = noise(8, 3 << 20);
    // Stored already, and named by nothing.
    bench.nx.write("/before", content.clone()).unwrap();
    bench.nx.unlink("/before").unwrap();
    let nx = bench.nx.clone();
    let pieces: Vec<Vec<u8>> = content.chunks(400_000).map(<[u8]>::to_vec).collect();
    let coming = pieces.into_iter().map(move |piece| {
        done(collect(&nx, false, 0));
        Ok(Bytes::from(piece))
    });
    bench.nx.write_stream("/large", coming).unwrap();
    done(collect(&bench.nx, false, 0));
    assert!(bench.nx.read("/large").unwrap() == content);
}

#[test]
fn rows_of_a_mount_in_memory_that_is_gone_go_too() {
    let bench = Bench::new();
    bench.nx.mount("/volatile", MountSpec::new("memory")).unwrap();
    for n in 0..300 {
        bench.nx.write(format!("/volatile/{}/{n}", n % 7), format!("{n}")).unwrap();
    }
    bench.nx.write("/volatile/large", noise(3, 2 << 20)).unwrap();
    bench.nx.write("/stays", "stays").unwrap();
    bench.nx.unmount("/volatile").unwrap();
    let buried = done(collect(&bench.nx, false, 0));
    // Each file and directory has a dentry and an inode; the root of the mount has an inode.
    assert_eq!((buried.rows, buried.freed.objects), (2 * (300 + 7 + 1) + 1, 300));
    assert_eq!(bench.nx.read("/stays").unwrap(), "stays");
    assert_eq!(bench.kept().len(), 1);
}

#[test]
fn rows_of_a_scratch_mount_go_when_the_process_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let connect = || blocking::connect(Config::new(folder.path())).unwrap();
    let nx = connect();
    nx.mount("/scratch", MountSpec::new("cas-local").option("class", "scratch")).unwrap();
    nx.write("/scratch/d/file", "gone with the process").unwrap();
    nx.write("/stays", "stays").unwrap();
    nx.shutdown().unwrap();
    let nx = connect();
    // What is there now is another one, and stays.
    nx.write("/scratch/file", "new").unwrap();
    let buried = done(collect(&nx, false, 0));
    assert_eq!((buried.rows, buried.freed.objects, buried.left_alone), (2 * 2 + 1, 1, Vec::new()));
    assert_eq!(
        (nx.read("/stays").unwrap(), nx.read("/scratch/file").unwrap()),
        ("stays".into(), "new".into())
    );
    nx.shutdown().unwrap();
}

#[test]
fn a_dry_run_counts_what_a_mount_that_is_gone_would_take_along() {
    let bench = Bench::new();
    bench.nx.mount("/volatile", MountSpec::new("memory")).unwrap();
    for n in 0..3 {
        bench.nx.write(format!("/volatile/d/{n}"), format!("{n}")).unwrap();
    }
    bench.nx.write("/stays", "stays").unwrap();
    bench.nx.unmount("/volatile").unwrap();
    let before = (bench.names(), bench.kept());
    let dry = done(collect(&bench.nx, true, 0));
    assert_eq!((bench.names(), bench.kept()), before);
    let wet = done(collect(&bench.nx, false, 0));
    assert_eq!((dry.rows, dry.freed, dry.reachable), (wet.rows, wet.freed, wet.reachable));
    assert_eq!((wet.rows, wet.freed.objects, wet.reachable), (2 * (3 + 1) + 1, 3, 1));
}

#[test]
fn a_file_that_is_told_to_be_the_root_of_a_mount_is_no_garbage() {
    let bench = Bench::new();
    bench.nx.write("/file", "content").unwrap();
    bench.nx.write("/empty", "").unwrap();
    bench.nx.write("/d/below", "content").unwrap();
    for path in ["/file", "/empty", "/d"] {
        let (key, row) = bench.inode(path);
        let damaged = with_byte(&row, TYPE, MOUNT);
        bench.leaves_alone(vec![Change::Put(key.clone(), damaged)], vec![Change::Put(key, row)], 0);
    }
    assert_eq!(bench.nx.read("/file").unwrap(), "content");
    assert_eq!(bench.nx.read("/d/below").unwrap(), "content");
}

#[test]
fn a_name_on_a_mount_that_is_gone_takes_nothing_along_that_lives() {
    for (name, living) in [("directory", "/lives"), ("file", "/lives/too"), ("directory", "/lives/too")] {
        let bench = Bench::new();
        bench.nx.mount("/volatile", MountSpec::new("memory")).unwrap();
        bench.nx.write("/volatile/file", "dead").unwrap();
        bench.nx.write("/volatile/directory/file-below", "dead").unwrap();
        bench.nx.write("/lives/too", "content").unwrap();
        bench.nx.unmount("/volatile").unwrap();
        let (key, row) = bench.rows.dentry(name);
        let living = bench.nx.stat(living).unwrap().file_id.0;
        assert!(living < 128, "an identity is one byte of the row");
        let damaged = with_byte(&row, 1, u8::try_from(living).unwrap());
        bench.leaves_alone(vec![Change::Put(key.clone(), damaged)], vec![Change::Put(key, row)], 2 * 3 + 1);
        assert_eq!(bench.nx.read("/lives/too").unwrap(), "content");
    }
}

#[test]
fn a_mount_whose_row_is_lost_is_not_taken_for_one_that_is_gone() {
    let bench = Bench::new();
    bench.nx.write("/file", "content").unwrap();
    let other = || bench.nx.mount("/other", MountSpec::new("looked-into").option("history_count", "0"));
    let lost = |point: &str| {
        let mut rows = bench.rows.scan(Table::Mounts);
        rows.retain(|(_, row)| row.windows(point.len()).any(|window| window == point.as_bytes()));
        let (deleted, put) =
            rows.into_iter().map(|(key, row)| (Change::Delete(key.clone()), Change::Put(key, row))).unzip();
        (deleted, put)
    };
    other().unwrap();
    bench.nx.write("/other/file", "content").unwrap();
    // One that serves, and one that may be mounted again.
    for attached in [true, false] {
        if !attached {
            bench.nx.unmount("/other").unwrap();
        }
        let (deleted, put): (Vec<_>, Vec<_>) = lost("/other");
        assert_eq!(deleted.len(), 1);
        bench.leaves_alone(deleted, put, 0);
    }
    other().unwrap();
    assert_eq!(bench.nx.read("/other/file").unwrap(), "content");
}

#[test]
fn while_a_row_says_two_things_of_where_its_content_is_nothing_goes() {
    let bench = Bench::new();
    bench.nx.write("/large", noise(4, 2 << 20)).unwrap();
    let hash = *bench.nx.stat("/large").unwrap().content_id.as_ref().unwrap().chunks().unwrap();
    let (key, row) = bench.inode("/large");
    let tag = row.windows(32).position(|window| window == hash).unwrap() - 1;
    assert_eq!(row[tag], 2, "it says that the hash is that of a list");
    // Then it is that of the content itself, and nothing would name the chunks.
    bench.rows.change(vec![Change::Put(key.clone(), with_byte(&row, tag, 0))]);
    let before = bench.kept();
    let failed = collect(&bench.nx, false, 0);
    let CollectionState::Failed { cause } = &failed.state else { panic!("{failed:?}") };
    assert!(cause.contains("Chunked content"), "{cause}");
    assert_eq!(bench.kept(), before);
    bench.rows.change(vec![Change::Put(key, row)]);
    assert_eq!(done(collect(&bench.nx, false, 0)).freed.objects, 0);
    assert!(bench.nx.read("/large").unwrap() == noise(4, 2 << 20));
}

#[test]
fn while_a_chunk_list_is_damaged_no_chunk_goes() {
    let bench = Bench::new();
    bench.nx.write("/large", noise(4, 2 << 20)).unwrap();
    bench.nx.write("/gone", noise(5, 50_000)).unwrap();
    bench.nx.unlink("/gone").unwrap();
    let root = *bench.nx.stat("/large").unwrap().content_id.as_ref().unwrap().chunks().unwrap();
    let key = Cas::<MemoryTransport>::key(&ContentId::Blake3(root)).unwrap();
    let transport = bench.store.0.transport();
    let list = wait(transport.get(&key, ByteRange::ALL)).unwrap();
    wait(transport.put(&key, &[Bytes::from_static(b"nxcl and no more")])).unwrap();
    let before = bench.kept();
    let failed = collect(&bench.nx, false, 0);
    let CollectionState::Failed { cause } = &failed.state else { panic!("{failed:?}") };
    assert!(cause.contains(&ContentId::Blake3(root).to_string()), "{cause}");
    assert_eq!(bench.kept(), before);
    wait(transport.put(&key, &[list])).unwrap();
    assert_eq!(done(collect(&bench.nx, false, 0)).freed.objects, 1);
}

#[test]
fn only_an_administrator_collects() {
    let bench = Bench::new();
    let agent = bench.nx.agent("somebody").unwrap();
    let path = VPath::parse("/__sys__/store/garbage").unwrap();
    let error = agent.send(SysWrite::at(path, "{}")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(entry(&bench.nx).latest, None);
}

#[test]
fn a_store_that_fails_is_left_out_and_the_others_are_collected() {
    let faults = Faults::new();
    let memory = nexus_drivers::catalogue().get("memory").expect("built in");
    let faulty = Arc::new(FaultyFactory::new("faulty", memory, faults.clone()));
    let config = Config::in_memory().driver(faulty).garbage(None, Duration::from_secs(3_600));
    let nx = blocking::connect(config.content_cache_bytes(0)).expect("it boots");
    nx.mount("/f", MountSpec::new("faulty").option("history_count", "0")).expect("it mounts");
    nx.mount("/m", MountSpec::new("memory").option("history_count", "0")).expect("it mounts");
    for folder in ["/f", "/m"] {
        // Of one that stays there is a list to be read, and of one that goes a blob.
        nx.write(format!("{folder}/large"), noise(4, 2 << 20)).unwrap();
        nx.write(format!("{folder}/gone"), noise(5, 50_000)).unwrap();
        nx.unlink(format!("{folder}/gone")).unwrap();
    }
    faults.always(Where::Look, Fault::Error);
    let left = done(collect(&nx, false, 0));
    assert_eq!((left.freed.objects, left.failed.len()), (1, 1), "{left:?}");
    assert!(left.failed[0].starts_with("/f: "), "{left:?}");
    faults.clear();
    // The breaker may spare it for a moment.
    while done(collect(&nx, false, 0)).freed.objects == 0 {
        thread::yield_now();
    }
    for folder in ["/f", "/m"] {
        assert!(nx.read(format!("{folder}/large")).unwrap() == noise(4, 2 << 20));
    }
}
