//! What is wrong with what is stored is found, exactly, and nothing else is told; what can be repaired without a loss is.

#[path = "common/only.rs"]
mod only;
#[path = "common/rows.rs"]
mod rows;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nexus::blocking::{self, Nexus};
use nexus::hal::{
    Addressing, Applied, Batch, Change, ContentStore, LogRecord, Metastore, ObjectStore, Reader, RowKey,
    StoreError, StoreFuture, Table, Transport, TreeId,
};
use nexus::sys::{CheckOrder, CollectOrder, FsckEntry, ScrubEntry};
use nexus::{
    ByteRange, Bytes, Check, CheckState, Config, ContentId, EntryType, Env, ErrorKind, Fault, Lsn, MountSpec,
    Op, OpId, Remedy, SysWrite, VPath,
};
use nexus_drivers::cas::Cas;
use nexus_drivers::memory::{MemoryMetastore, MemoryTransport};
use only::only;
use rows::{Rows, inode_key, with_byte};

/// Content above so many bytes is a blob of the store.
const MIDDLE: usize = 40_000;

/// Content of several chunks.
const LARGE: usize = 5 << 20;

/// Where checks are begun and shown.
const FSCK: &str = "/__sys__/store/fsck";

/// Where scrubs are.
const SCRUB: &str = "/__sys__/store/scrub";

/// A store in memory that the test looks into, and can hold up.
#[derive(Debug, Clone, Default)]
struct Looked(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    cas: Cas<MemoryTransport>,
    reads: AtomicUsize,
    /// From this read on nobody comes further until it is let go.
    held_from: AtomicUsize,
    is_held: AtomicBool,
    let_go: tokio::sync::Notify,
}

impl Default for Inside {
    fn default() -> Self {
        Self {
            cas: Cas::new(MemoryTransport::new()),
            reads: AtomicUsize::new(0),
            held_from: AtomicUsize::new(usize::MAX),
            is_held: AtomicBool::new(false),
            let_go: tokio::sync::Notify::new(),
        }
    }
}

impl Looked {
    fn key(hash: [u8; 32]) -> String {
        Cas::<MemoryTransport>::key(&ContentId::Blake3(hash)).expect("it is a hash")
    }

    fn blob(&self, hash: [u8; 32]) -> Vec<u8> {
        wait(self.0.cas.transport().get(&Self::key(hash), ByteRange::ALL)).expect("it is there").to_vec()
    }

    /// Turns one bit of the blob.
    fn damage(&self, hash: [u8; 32]) {
        let mut blob = self.blob(hash);
        let middle = blob.len() / 2;
        blob[middle] ^= 1;
        wait(self.0.cas.transport().put(&Self::key(hash), &[blob.into()])).expect("it is written");
    }

    fn remove(&self, hash: [u8; 32]) {
        wait(self.0.cas.transport().delete(&Self::key(hash))).expect("it was there");
    }
}

impl ObjectStore for Looked {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.0.cas.probe()
    }
}

impl Looked {
    /// Counts a look at content, and waits when it is to be held.
    async fn look(&self) {
        if self.0.reads.fetch_add(1, Ordering::SeqCst) >= self.0.held_from.load(Ordering::SeqCst) {
            let let_go = self.0.let_go.notified();
            self.0.is_held.store(true, Ordering::SeqCst);
            let_go.await;
        }
    }
}

impl ContentStore for Looked {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        self.0.cas.write(id, data)
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            self.look().await;
            self.0.cas.read(id, range).await
        })
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            self.look().await;
            self.0.cas.examine(id, range).await
        })
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        self.0.cas.contains(id)
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        self.0.cas.delete(id)
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.0.cas.length(id)
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.0.cas.list(after, limit)
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    nexus::actors::block_on(future)
}

/// A metastore whose log loses a record, or tells two in the wrong order.
#[derive(Debug, Default)]
struct Holey {
    inner: MemoryMetastore,
    lost: AtomicUsize,
    swapped: AtomicUsize,
}

impl Metastore for Holey {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        self.inner.apply(batch)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.inner.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        let mut found = self.inner.changes(tree, since, limit)?;
        let at = |records: &[LogRecord], lsn: &AtomicUsize| {
            let lsn = lsn.load(Ordering::SeqCst) as u64;
            records.iter().position(|record| record.lsn.0 == lsn)
        };
        if let Some(lost) = at(&found, &self.lost) {
            found.remove(lost);
        }
        if let Some(swapped) = at(&found, &self.swapped).filter(|at| at + 1 < found.len()) {
            found.swap(swapped, swapped + 1);
        }
        Ok(found)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.inner.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.inner.next_file_id()
    }
}

/// A kernel whose rows and blobs the test looks into.
struct Bench {
    nx: Nexus,
    store: Looked,
    rows: Arc<Holey>,
}

impl Bench {
    /// Nothing is cached and no version is kept, so that what is read and what is named is what is there.
    fn new() -> Self {
        Self::with(0, 0)
    }

    fn with(history: u32, cache_bytes: u64) -> Self {
        let (store, rows) = (Looked::default(), Arc::new(Holey::default()));
        let config = Config::in_memory()
            .metastore(rows.clone())
            .driver(only("looked-into", Arc::new(store.clone())))
            .root(MountSpec::new("looked-into").option("history_count", history.to_string()))
            .content_cache_bytes(cache_bytes)
            .restarts(100_000, Duration::from_secs(1))
            .garbage(None, Duration::from_secs(3_600))
            .scrub(0, Duration::from_secs(3_600));
        Self { nx: blocking::connect(config).expect("it boots"), store, rows }
    }

    fn id(&self, path: &str) -> u64 {
        self.nx.stat(path).expect("it is there").file_id.0
    }

    fn inode(&self, path: &str) -> (RowKey, Bytes) {
        let key = inode_key(self.id(path));
        let row = self.rows.reader().expect("it is open").get(&key).expect("it reads").expect("it is there");
        (key, row)
    }

    /// What hash the content, or the list of the chunks, of the file has.
    fn hash(&self, path: &str) -> [u8; 32] {
        let id = self.nx.stat(path).expect("it is there").content_id.clone().expect("it has content");
        *id.blake3().or(id.chunks()).expect("it is addressed by its hash")
    }

    fn chunk(&self, path: &str, nth: usize) -> [u8; 32] {
        let list = self.store.blob(self.hash(path));
        assert_eq!((&list[..4], list[6]), (&b"nxcl"[..], 0), "one list tells the chunks");
        list[24 + nth * 40..][..32].try_into().expect("it is a hash")
    }

    fn check(&self, repair: bool) -> Check {
        check(&self.nx, repair)
    }

    /// What is found without a repair: where, and what.
    #[track_caller]
    fn finds(&self, expected: &[(Option<&str>, Fault)]) -> Check {
        let found = self.check(false);
        assert_eq!(told(&found), owned(expected), "{found:#?}");
        assert_eq!(found.left(), expected.len() as u64);
        found
    }

    /// What is found is repaired, and a second check finds nothing.
    #[track_caller]
    fn repairs(&self, expected: &[(Option<&str>, Fault)]) -> Vec<String> {
        self.finds(expected);
        let repaired = self.check(true);
        assert_eq!(told(&repaired), owned(expected), "{repaired:#?}");
        let how = repaired.findings.iter().map(|finding| match &finding.remedy {
            Remedy::Repaired { how } => how.clone(),
            other => panic!("{other:?}"),
        });
        let how = how.collect();
        assert_eq!(repaired.left(), 0);
        self.finds(&[]);
        how
    }

    /// What is found cannot be repaired, and is left as it is.
    #[track_caller]
    fn leaves(&self, expected: &[(Option<&str>, Fault)]) {
        self.finds(expected);
        let tried = self.check(true);
        assert!(
            tried.findings.iter().all(|finding| matches!(finding.remedy, Remedy::Left { .. })),
            "{tried:#?}"
        );
        self.finds(expected);
    }
}

fn told(check: &Check) -> Vec<(Option<String>, Fault)> {
    check.findings.iter().map(|finding| (finding.path.clone(), finding.fault.clone())).collect()
}

fn owned(expected: &[(Option<&str>, Fault)]) -> Vec<(Option<String>, Fault)> {
    expected.iter().map(|(path, fault)| (path.map(str::to_owned), fault.clone())).collect()
}

fn dentry_key(parent: u64, name: &str) -> RowKey {
    let bytes = [&0u32.to_be_bytes()[..], &parent.to_be_bytes(), name.as_bytes()].concat();
    RowKey::new(Table::Dentries, bytes)
}

fn latest(nx: &Nexus) -> Option<Check> {
    let entry: FsckEntry = serde_json::from_slice(&nx.read(FSCK).expect("it is shown")).expect("it is JSON");
    entry.latest
}

fn scrub(nx: &Nexus) -> ScrubEntry {
    serde_json::from_slice(&nx.read(SCRUB).expect("it is shown")).expect("it is JSON")
}

/// Writes an order; tries again while the kernel is busy, or the actor is being restarted.
fn order(nx: &Nexus, file: &str, order: &[u8]) {
    loop {
        match nx.send(SysWrite::at(VPath::parse(file).expect("it is one"), order.to_vec())) {
            Ok(_) => return,
            Err(error) => {
                let usual = matches!(error.kind(), ErrorKind::Busy | ErrorKind::Crashed | ErrorKind::Down);
                assert!(usual, "{error}");
                thread::yield_now();
            }
        }
    }
}

/// Checks, and waits for the end.
fn check(nx: &Nexus, repair: bool) -> Check {
    let before = latest(nx).map_or(0, |latest| latest.number);
    let asked = CheckOrder { repair };
    order(nx, FSCK, &serde_json::to_vec(&asked).expect("it is plain"));
    loop {
        if let Some(check) = latest(nx).filter(|latest| latest.number > before && latest.is_over()) {
            assert_eq!(check.state, CheckState::Done, "{check:?}");
            return check;
        }
        thread::yield_now();
    }
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

fn content(hash: [u8; 32]) -> String {
    ContentId::Blake3(hash).to_string()
}

#[test]
fn of_a_store_in_order_nothing_is_told_but_what_was_looked_at() {
    let bench = Bench::with(10, 1 << 20);
    let nx = &bench.nx;
    nx.mount("/other", MountSpec::new("memory")).unwrap();
    for (n, size) in [0, 10, 16 * 1_024, 16 * 1_024 + 1, MIDDLE, LARGE].into_iter().enumerate() {
        nx.write(format!("/a/{n}"), noise(n as u64, size)).unwrap();
        nx.write(format!("/other/{n}"), noise(n as u64, size)).unwrap();
    }
    nx.write("/a/1", "another version").unwrap();
    nx.copy("/a/4", "/copy").unwrap();
    nx.link("/link", "a/1").unwrap();
    nx.mkdir("/empty").unwrap();
    nx.rename("/a", "/b").unwrap();
    nx.unlink("/b/3").unwrap();
    let well = bench.finds(&[]);
    assert_eq!((well.left_out.clone(), well.untold, well.repair), (Vec::new(), 0, false));
    // Two roots; on the one a directory with five files, a file, a link and a directory, on the other six files.
    assert_eq!((well.entries, well.names, well.files), (2 + 9 + 6, 9 + 6, 6 + 6));
    assert!(well.versions > 4 && well.records >= 19, "{well:?}");
    let read = (10 + 15 + 16 * 1_024 + MIDDLE + LARGE) as u64;
    assert!(well.bytes > 2 * read - 20, "{well:?}");
}

#[test]
fn a_name_that_leads_to_nothing_goes() {
    let bench = Bench::new();
    bench.nx.write("/a/f", "content").unwrap();
    bench.nx.write("/a/stays", "content").unwrap();
    let (key, _) = bench.inode("/a/f");
    bench.rows.change(vec![Change::Delete(key)]);
    bench.repairs(&[(Some("/a/f"), Fault::NameWithoutInode)]);
    assert_eq!(bench.nx.stat("/a/f").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.nx.read("/a/stays").unwrap(), "content");

    // And the log says so.
    let log = bench.rows.changes(TreeId::ROOT, Lsn(0), usize::MAX).unwrap();
    let repairs: Vec<_> = log.iter().filter(|record| record.op == Op::Repair).collect();
    assert_eq!(repairs.len(), 1);
    assert_eq!(repairs[0].path.as_str(), "/a/f");
}

#[test]
fn what_no_name_leads_to_is_named_again() {
    let bench = Bench::new();
    bench.nx.write("/a/small", "content").unwrap();
    bench.nx.write("/d/below", noise(1, MIDDLE)).unwrap();
    let (small, d) = (bench.id("/a/small"), bench.id("/d"));
    let (first, second) = (bench.rows.dentry("small").0, bench.rows.dentry("d").0);
    bench.rows.change(vec![Change::Delete(first), Change::Delete(second)]);
    let how = bench.repairs(&[(None, Fault::InodeWithoutName), (None, Fault::InodeWithoutName)]);
    let there = [format!("/lost+found/{small}"), format!("/lost+found/{d}")];
    assert_eq!(how, there.clone().map(|path| format!("it is {path} now")));
    assert_eq!(bench.nx.read(&there[0]).unwrap(), "content");
    assert_eq!(bench.nx.read(format!("{}/below", there[1])).unwrap(), noise(1, MIDDLE));
}

#[test]
fn what_is_named_again_while_names_become_files_is_a_file_too() {
    let (bench, host) = (Bench::new(), tempfile::tempdir().unwrap());
    let at = |folder: &str| host.path().join(folder).display().to_string();
    let spec = |driver: &str, folder: &str| {
        MountSpec::new(driver).option("folder", at(folder)).option("history_count", "0")
    };
    bench.nx.mount("/m", spec("cas-local", "old")).unwrap();
    bench.nx.write("/m/middle", noise(1, MIDDLE)).unwrap();
    bench.nx.write("/m/other", "other").unwrap();
    let middle = bench.id("/m/middle");
    bench.rows.change(vec![Change::Delete(bench.rows.dentry("middle").0)]);
    // What comes as a stream keeps the migration from its end.
    let (pieces, coming) = std::sync::mpsc::channel::<Bytes>();
    thread::scope(|scope| {
        let writer = scope.spawn(|| bench.nx.write_stream("/m/stream", coming.into_iter().map(Ok)));
        pieces.send("first".into()).unwrap();
        fs::create_dir(at("new")).unwrap();
        bench.nx.migrate("/m", spec("local", "new"), false).unwrap();
        let status = || bench.nx.migrations().unwrap().pop().unwrap();
        while !host.path().join("new/other").exists() || status().noted > 0 {
            assert!(!status().state.is_over(), "{:?}", status());
            thread::yield_now();
        }
        let repaired = bench.check(true);
        assert_eq!(told(&repaired), owned(&[(None, Fault::InodeWithoutName)]));
        assert_eq!(repaired.left(), 0, "{repaired:#?}");
        drop(pieces);
        writer.join().unwrap().unwrap();
        while !status().state.is_over() {
            thread::yield_now();
        }
        assert_eq!(status().state, nexus::MigrationState::Done);
    });
    let named = host.path().join("new/lost+found").join(middle.to_string());
    assert!(fs::read(named).unwrap() == noise(1, MIDDLE), "it is a file with what it had");
    assert_eq!(bench.nx.read("/m/stream").unwrap(), "first");
}

#[test]
fn a_directory_that_is_gone_is_made_for_what_lies_in_it() {
    let bench = Bench::new();
    bench.nx.write("/a/f", "content").unwrap();
    let (a, (inode, _), (dentry, _)) = (bench.id("/a"), bench.inode("/a"), bench.rows.dentry("a"));
    bench.rows.change(vec![Change::Delete(inode.clone())]);
    // One thing is wrong, and told once.
    bench.repairs(&[(Some("/a"), Fault::NameWithoutInode)]);
    assert_eq!(bench.nx.read("/a/f").unwrap(), "content");

    bench.rows.change(vec![Change::Delete(inode), Change::Delete(dentry)]);
    bench.repairs(&[(None, Fault::NamesInNothing)]);
    assert_eq!(bench.nx.read(format!("/lost+found/{a}/f")).unwrap(), "content");
}

#[test]
fn directories_that_lie_in_each_other_are_taken_apart() {
    let bench = Bench::new();
    bench.nx.write("/a/b/f", "content").unwrap();
    let (a, b, (key, row)) = (bench.id("/a"), bench.id("/a/b"), bench.rows.dentry("a"));
    bench.rows.change(vec![Change::Delete(key), Change::Put(dentry_key(b, "a"), row)]);
    bench.repairs(&[(None, Fault::Circle { directories: 2 })]);
    let first = if a < b { format!("{a}/b") } else { format!("{b}") };
    assert_eq!(bench.nx.read(format!("/lost+found/{first}/f")).unwrap(), "content");
}

#[test]
fn a_name_that_says_another_type_is_corrected() {
    let bench = Bench::new();
    bench.nx.write("/f", "content").unwrap();
    let (key, row) = bench.rows.dentry("f");
    let link = with_byte(&row, row.len() - 1, 6);
    bench.rows.change(vec![Change::Put(key.clone(), link)]);
    bench.repairs(&[(Some("/f"), Fault::WrongType { named: EntryType::Link, is: EntryType::Reg })]);
    assert_eq!(bench.rows.dentry("f"), (key, row));
}

#[test]
fn a_type_that_metadata_with_this_name_or_content_cannot_have_is_corrected() {
    let bench = Bench::new();
    bench.nx.write("/f", "content").unwrap();
    bench.nx.write("/empty", "").unwrap();
    for (path, is) in [("/f", EntryType::Mount), ("/f", EntryType::Dir), ("/empty", EntryType::Mount)] {
        let (key, row) = bench.inode(path);
        bench.rows.change(vec![Change::Put(key.clone(), with_byte(&row, 1, is.number()))]);
        bench.repairs(&[(Some(path), Fault::WrongType { named: EntryType::Reg, is })]);
        assert_eq!(bench.inode(path), (key, row));
    }
    assert_eq!(bench.nx.read("/f").unwrap(), "content");
}

#[test]
fn a_size_that_the_content_does_not_have_is_corrected() {
    let bench = Bench::with(10, 0);
    bench.nx.write("/f", "12345").unwrap();
    bench.nx.write("/large", noise(1, LARGE)).unwrap();
    let (key, row) = bench.inode("/f");
    assert_eq!(row[2], 5);
    bench.rows.change(vec![Change::Put(key, with_byte(&row, 2, 7))]);
    bench.repairs(&[(Some("/f"), Fault::WrongSize { told: 7, found: 5 })]);
    assert_eq!(bench.nx.stat("/f").unwrap().size, 5);

    // A list that does not add up to the size: the last bits of the number, which stands in five or four bytes.
    let (key, row) = bench.inode("/large");
    bench.rows.change(vec![Change::Put(key, with_byte(&row, 2, row[2] ^ 1))]);
    let told = LARGE as u64 ^ 1;
    bench.repairs(&[(Some("/large"), Fault::WrongSize { told, found: LARGE as u64 })]);
    assert!(bench.nx.read("/large").unwrap() == noise(1, LARGE));
}

#[test]
fn what_nothing_tells_of_is_left_as_it_is() {
    let bench = Bench::new();
    let row_of = |key: &RowKey| Fault::UndecodableRow { row: format!("{key:?}") };
    for name in ["f", "g", "h"] {
        bench.nx.write(format!("/{name}"), "content").unwrap();
    }

    let (key, row) = bench.inode("/f");
    bench.rows.change(vec![Change::Put(key.clone(), row.slice(..row.len() - 1))]);
    bench.leaves(&[(Some("/f"), row_of(&key))]);
    bench.rows.change(vec![Change::Put(key, row)]);

    let (key, row) = bench.rows.dentry("g");
    let id = bench.inode("/g").0;
    bench.rows.change(vec![Change::Put(key.clone(), with_byte(&row, 0, 9)), Change::Delete(id.clone())]);
    bench.leaves(&[(Some("/g"), row_of(&key))]);
    bench.rows.change(vec![Change::Delete(key)]);

    let (key, row) = bench.rows.dentry("h");
    let root = u64::from_be_bytes(key.bytes[4..12].try_into().unwrap());
    bench.rows.change(vec![Change::Put(dentry_key(root, "i"), row)]);
    bench.leaves(&[(Some("/i"), Fault::SecondName { other: "h".into() })]);
    bench.rows.change(vec![Change::Delete(dentry_key(root, "i"))]);

    // A name in a file.
    let (id, row) = (bench.id("/h"), bench.rows.dentry("f").1);
    let f = bench.rows.dentry("f").0;
    bench.rows.change(vec![Change::Delete(f.clone()), Change::Put(dentry_key(id, "f"), row.clone())]);
    bench.leaves(&[(Some("/h"), Fault::NamesInAFile)]);
    bench.rows.change(vec![Change::Delete(dentry_key(id, "f")), Change::Put(f, row)]);

    // An identity beyond all that were given.
    let next = bench.rows.next_file_id().unwrap();
    assert!(next < 127, "it stands in one byte");
    let (id, dentry) = (inode_key(127), Bytes::from(vec![1, 127, 0]));
    let row = bench.inode("/f").1;
    bench.rows.change(vec![Change::Put(id.clone(), row), Change::Put(dentry_key(root, "j"), dentry)]);
    bench.leaves(&[(Some("/j"), Fault::IdentityAhead { next })]);
    bench.rows.change(vec![Change::Delete(id), Change::Delete(dentry_key(root, "j"))]);
    bench.finds(&[]);
}

#[test]
fn content_that_is_missing_or_damaged_is_told_by_each_file_that_has_it() {
    let bench = Bench::new();
    bench.nx.write("/small", "content").unwrap();
    bench.nx.write("/middle", noise(1, MIDDLE)).unwrap();
    bench.nx.copy("/middle", "/same").unwrap();
    bench.nx.write("/large", noise(2, LARGE)).unwrap();
    bench.nx.write("/well", noise(3, LARGE)).unwrap();
    let (small, middle) = (bench.hash("/small"), bench.hash("/middle"));
    let (list, chunk) = (bench.hash("/large"), bench.chunk("/large", 1));

    bench.store.damage(chunk);
    bench.leaves(&[(Some("/large"), Fault::DamagedContent { content: content(chunk) })]);
    bench.store.remove(chunk);
    bench.leaves(&[(Some("/large"), Fault::MissingContent { content: content(chunk) })]);
    bench.store.damage(list);
    bench.leaves(&[(Some("/large"), Fault::DamagedContent { content: content(list) })]);
    bench.nx.write("/large", noise(2, LARGE)).unwrap();
    bench.finds(&[]);

    let damaged = || Fault::DamagedContent { content: content(middle) };
    bench.store.damage(middle);
    bench.leaves(&[(Some("/middle"), damaged()), (Some("/same"), damaged())]);
    bench.store.remove(middle);
    let missing = || Fault::MissingContent { content: content(middle) };
    bench.leaves(&[(Some("/middle"), missing()), (Some("/same"), missing())]);
    bench.nx.write("/same", noise(1, MIDDLE)).unwrap();
    bench.finds(&[]);

    let key = RowKey::new(Table::Contents, small);
    bench.rows.change(vec![Change::Put(key.clone(), Bytes::from_static(b"Content"))]);
    bench.leaves(&[(Some("/small"), Fault::DamagedContent { content: content(small) })]);
    bench.rows.change(vec![Change::Delete(key)]);
    bench.leaves(&[(Some("/small"), Fault::MissingContent { content: content(small) })]);
}

#[test]
fn damaged_content_is_written_again_from_wherever_it_is_whole() {
    let bench = Bench::new();
    bench.nx.mount("/other", MountSpec::new("memory")).unwrap();
    for point in ["", "/other"] {
        bench.nx.write(format!("{point}/middle"), noise(1, MIDDLE)).unwrap();
        bench.nx.write(format!("{point}/large"), noise(2, LARGE)).unwrap();
    }
    let (middle, list, chunk) = (bench.hash("/middle"), bench.hash("/large"), bench.chunk("/large", 0));
    let damaged = |path, hash| (Some(path), Fault::DamagedContent { content: content(hash) });
    bench.store.damage(chunk);
    let how = bench.repairs(&[damaged("/large", chunk)]);
    assert_eq!(how, ["written again from the store of /other"]);
    bench.store.damage(middle);
    bench.store.damage(list);
    bench.repairs(&[damaged("/large", list), damaged("/middle", middle)]);
    assert!(bench.nx.read("/large").unwrap() == noise(2, LARGE));

    // What is in memory was verified when it came there.
    let bench = Bench::with(0, 8 << 20);
    bench.nx.write("/middle", noise(1, MIDDLE)).unwrap();
    bench.nx.write("/small", "content").unwrap();
    let (middle, small) = (bench.hash("/middle"), bench.hash("/small"));
    bench.store.remove(middle);
    bench.rows.change(vec![Change::Delete(RowKey::new(Table::Contents, small))]);
    let missing = |path, hash| (Some(path), Fault::MissingContent { content: content(hash) });
    let how = bench.repairs(&[missing("/middle", middle), missing("/small", small)]);
    assert_eq!(how, ["written again from memory"; 2]);
}

#[test]
fn a_version_that_is_lost_is_told() {
    let bench = Bench::with(10, 0);
    let kept = bench.nx.write("/f", noise(1, MIDDLE)).unwrap();
    let hash = bench.hash("/f");
    let until = bench.nx.write("/f", noise(2, MIDDLE)).unwrap().receipt.lsn;
    assert!(kept.receipt.lsn < until);
    bench.store.remove(hash);
    bench.leaves(&[(Some("/f"), Fault::LostVersion { until, content: content(hash) })]);
    bench.nx.write("/g", noise(1, MIDDLE)).unwrap();
    bench.finds(&[]);
}

#[test]
fn rows_of_the_history_that_cannot_be_are_told() {
    let bench = Bench::with(10, 0);
    bench.nx.write("/f", "one").unwrap();
    bench.nx.write("/f", "two").unwrap();
    let (key, row) = bench.rows.scan(Table::History).pop().unwrap();
    let lsn = Lsn(1_000_000);
    let ahead =
        RowKey::new(Table::History, [&key.bytes[..key.bytes.len() - 8], &lsn.0.to_be_bytes()].concat());
    bench.rows.change(vec![Change::Put(ahead.clone(), row.clone())]);
    let last = bench.rows.last_lsn(TreeId::ROOT).unwrap();
    let found = bench.finds(&[(None, Fault::AheadOfLog { lsn, last })]);
    assert!(found.findings[0].cause.contains("History"), "{found:?}");
    bench.rows.change(vec![Change::Delete(ahead)]);

    bench.rows.change(vec![Change::Put(key.clone(), row.slice(..row.len() - 1))]);
    bench.leaves(&[(None, Fault::UndecodableRow { row: format!("{key:?}") })]);
    bench.rows.change(vec![Change::Put(key, row)]);
    bench.finds(&[]);
}

#[test]
fn a_gap_and_a_disorder_of_the_log_are_told() {
    let bench = Bench::new();
    for n in 0..5 {
        bench.nx.write(format!("/{n}"), "content").unwrap();
    }
    let last = bench.rows.last_lsn(TreeId::ROOT).unwrap();
    bench.rows.lost.store(usize::try_from(last.0 - 2).unwrap(), Ordering::SeqCst);
    bench.leaves(&[(None, Fault::LogGap { after: Lsn(last.0 - 3), next: Lsn(last.0 - 1) })]);
    // What was on disk is to be told to the end.
    bench.nx.write("/end", "content").unwrap();
    let last = bench.rows.last_lsn(TreeId::ROOT).unwrap();
    bench.rows.lost.store(usize::try_from(last.0).unwrap(), Ordering::SeqCst);
    // The check itself commits nothing, so it is the last one.
    bench.finds(&[(None, Fault::LogGap { after: Lsn(last.0 - 1), next: last })]);
    bench.rows.lost.store(0, Ordering::SeqCst);
    bench.rows.swapped.store(usize::try_from(last.0 - 2).unwrap(), Ordering::SeqCst);
    let found = bench.check(false);
    let disorder = Fault::LogDisorder { after: Lsn(last.0 - 1), next: Lsn(last.0 - 2) };
    assert!(found.findings.iter().any(|finding| finding.fault == disorder), "{found:?}");
}

#[test]
fn content_that_nothing_names_is_counted_and_is_no_fault() {
    let bench = Bench::new();
    bench.nx.write("/gone", noise(1, MIDDLE)).unwrap();
    bench.nx.write("/small", "content").unwrap();
    bench.nx.unlink("/gone").unwrap();
    bench.nx.unlink("/small").unwrap();
    let garbage = bench.finds(&[]).garbage.unwrap();
    assert_eq!((garbage.objects, garbage.bytes), (2, MIDDLE as u64 + 7));
}

#[test]
fn beside_writers_nothing_is_told() {
    let bench = Bench::with(3, 0);
    // What is moved from before these names to behind them is seen twice by who looks at them one after the other, and not at all on its way back.
    (0..3).for_each(|own| drop(bench.nx.write(format!("/{own}/stays"), "x").expect("it writes")));
    (0..2_500).for_each(|n| drop(bench.nx.write(format!("/between/{n}"), "x").expect("it writes")));
    (0..3).for_each(|own| drop(bench.nx.write(format!("/z{own}/stays"), "x").expect("it writes")));
    let over = AtomicBool::new(false);
    let checks = thread::scope(|scope| {
        let writing: Vec<_> = (0..3u64)
            .map(|own| {
                let nx = &bench.nx;
                scope.spawn(move || {
                    for n in 0..150u64 {
                        let sized = usize::try_from(n % 4).expect("it is small");
                        let (a, b) = (format!("/{own}/a{}", n % 3), format!("/z{own}/b{}", n % 2));
                        nx.write(format!("{a}/f{}", n % 5), noise(n % 7, [1, 15_001, 30_001, 45_001][sized]))
                            .expect("it writes");
                        if n % 4 == 0 {
                            nx.write(format!("{a}/large"), noise(n % 3, (1 << 20) + 50_000))
                                .expect("it writes");
                        }
                        // Forth and back, over all names that lie between.
                        nx.rename(&a, &b).expect("it moves");
                        nx.rename(&b, &a).expect("it moves");
                        if n % 3 == 2 {
                            nx.unlink(format!("{a}/f{}", n % 5)).expect("it is there");
                        }
                    }
                })
            })
            .collect();
        let collecting = scope.spawn(|| {
            let take = CollectOrder { grace_ms: Some(0), ..CollectOrder::default() };
            let take = serde_json::to_vec(&take).expect("it is plain");
            // One with each check, which has the collector count, too.
            let mut seen = 0;
            while !over.load(Ordering::SeqCst) {
                let now = latest(&bench.nx).map_or(0, |check| check.number);
                if now > seen {
                    seen = now;
                    order(&bench.nx, "/__sys__/store/garbage", &take);
                }
                thread::yield_now();
            }
        });
        let checking = scope.spawn(|| {
            let mut checks = 0;
            while !over.load(Ordering::SeqCst) {
                let found = check(&bench.nx, false);
                assert_eq!((told(&found), found.untold), (Vec::new(), 0), "{found:#?}");
                checks += 1;
            }
            checks
        });
        let ended: Vec<_> = writing.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        collecting.join().expect("it collects");
        ended.into_iter().for_each(|ended| ended.expect("a writer failed"));
        checking.join().expect("nothing is found")
    });
    assert!(checks > 2, "{checks} checks tell nothing");
    bench.finds(&[]);
}

#[test]
fn a_byte_that_changed_on_disk_while_the_kernel_was_down_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let connect = || blocking::connect(Config::new(folder.path())).expect("it boots");
    let nx = connect();
    let marked = [noise(1, MIDDLE), b"here".to_vec(), noise(2, MIDDLE)].concat();
    nx.write("/well", noise(3, MIDDLE)).unwrap();
    nx.write("/marked", marked.clone()).unwrap();
    nx.write("/large", noise(4, LARGE)).unwrap();
    let hash = *nx.stat("/marked").unwrap().content_id.as_ref().unwrap().blake3().unwrap();
    assert_eq!(told(&check(&nx, false)), Vec::new());
    nx.shutdown().unwrap();

    let mut turned = 0;
    let mut folders = vec![folder.path().to_owned()];
    while let Some(of) = folders.pop() {
        for entry in fs::read_dir(of).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let mut bytes = fs::read(&path).unwrap();
                if let Some(at) = bytes.windows(marked.len()).position(|window| window == marked) {
                    bytes[at + MIDDLE] ^= 1;
                    fs::write(&path, bytes).unwrap();
                    turned += 1;
                }
            }
        }
    }
    assert_eq!(turned, 1);

    let nx = connect();
    let found = check(&nx, true);
    let (parts, content): (Vec<_>, Vec<_>) =
        found.findings.iter().partition(|finding| matches!(finding.fault, Fault::DamagedStore { .. }));
    // The segment was read when it was opened, or not: what the index knew of it was not looked at.
    assert!(parts.len() <= 1, "{found:#?}");
    assert_eq!(content.len(), 1, "{found:#?}");
    assert_eq!(content[0].path.as_deref(), Some("/marked"));
    assert_eq!(content[0].fault, Fault::DamagedContent { content: self::content(hash) });
    assert!(content[0].is_left());
    assert_eq!(found.left(), found.findings.len() as u64);
    nx.write("/marked", marked).unwrap();
    let found = check(&nx, false);
    assert!(
        found.findings.iter().all(|finding| matches!(finding.fault, Fault::DamagedStore { .. })),
        "{found:#?}"
    );
    nx.shutdown().unwrap();
}

#[test]
fn a_byte_of_the_rows_that_changed_on_disk_is_told_and_nothing_is_repaired_by_them() {
    const NAME: &[u8] = b"a-name-like-no-other";
    let folder = tempfile::tempdir().unwrap();
    let connect = || blocking::connect(Config::new(folder.path())).expect("it boots");
    let nx = connect();
    for n in 0..100 {
        nx.write(format!("/files/{n}"), "x").unwrap();
    }
    nx.write(format!("/files/{}", std::str::from_utf8(NAME).unwrap()), "x").unwrap();
    nx.shutdown().unwrap();
    // What the log holds goes into the database when it is opened.
    connect().shutdown().unwrap();

    let database = folder.path().join("meta.redb");
    let mut bytes = fs::read(&database).unwrap();
    let places: Vec<_> = bytes
        .windows(NAME.len())
        .enumerate()
        .filter(|(_, window)| *window == NAME)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 2;
    }
    fs::write(&database, bytes).unwrap();

    let nx = connect();
    for repair in [false, true] {
        let found = check(&nx, repair);
        // The page, and each row in it whose name is another one.
        assert!(told(&found).iter().all(|(_, fault)| *fault == Fault::DamagedRows), "{found:#?}");
        assert!(found.findings.iter().any(|finding| finding.cause.starts_with("row ")), "{found:#?}");
        let left = found.findings.iter().all(|finding| matches!(finding.remedy, Remedy::Left { .. }));
        assert_eq!(left, repair, "{found:#?}");
        assert_eq!(found.left(), found.findings.len() as u64);
    }
    nx.shutdown().unwrap();
}

#[test]
fn a_scrub_finds_a_byte_that_changed_and_leaves_the_cache_alone() {
    let bench = Bench::with(0, 1 << 20);
    for n in 0..4 {
        bench.nx.write(format!("/{n}"), noise(n, 30_000)).unwrap();
    }
    bench.nx.write("/large", noise(9, LARGE)).unwrap();
    let (hash, chunk) = (bench.hash("/2"), bench.chunk("/large", 2));
    bench.store.damage(hash);
    bench.store.damage(chunk);
    let caches = || bench.nx.read("/__sys__/store/caches").unwrap();
    let before = caches();
    order(&bench.nx, SCRUB, b"{}");
    let done = loop {
        if let Some(done) = scrub(&bench.nx).latest.filter(Check::is_over) {
            break done;
        }
        thread::yield_now();
    };
    let held = |caches: &[u8]| {
        let caches: serde_json::Value = serde_json::from_slice(caches).unwrap();
        caches["content"].clone()
    };
    assert_eq!(held(&caches()), held(&before));
    assert_eq!(done.state, CheckState::Done);
    let damaged =
        |path: &str, hash| (Some(path.to_owned()), Fault::DamagedContent { content: content(hash) });
    assert_eq!(told(&done), [damaged("/2", hash), damaged("/large", chunk)]);
    assert!(done.files == 5 && done.bytes > 4_000_000, "{done:?}");
    assert_eq!(scrub(&bench.nx).bytes, done.bytes);
    let metrics = String::from_utf8(bench.nx.read("/__sys__/metrics").unwrap().to_vec()).unwrap();
    assert!(metrics.contains(&format!("nexus_scrub_bytes_total {}", done.bytes)), "{metrics}");
    assert!(metrics.contains("nexus_store_faults{by=\"scrub\"} 2"), "{metrics}");
}

#[test]
fn a_scrub_that_is_killed_goes_on_behind_what_it_had_read() {
    let bench = Bench::new();
    let files = 8;
    for n in 0..files {
        bench.nx.write(format!("/{n}"), noise(n, MIDDLE)).unwrap();
    }
    let hash = bench.hash("/1");
    bench.store.damage(hash);
    let inside = &bench.store.0;
    let before = inside.reads.load(Ordering::SeqCst);
    // What is damaged is read twice when it is found, and once more before it is told.
    let told_after = 1 + 3;
    inside.held_from.store(before + told_after + 3, Ordering::SeqCst);
    order(&bench.nx, SCRUB, b"{}");
    while !inside.is_held.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    let midway = scrub(&bench.nx).latest.unwrap();
    assert_eq!((midway.files, midway.resumed, midway.is_over()), (6, 0, false));
    inside.held_from.store(usize::MAX, Ordering::SeqCst);
    let tree = bench.nx.kernel().unwrap().supervised().unwrap();
    tree.kill("nexus/scrub", "brutal".parse().unwrap());
    let done = loop {
        if let Some(done) = scrub(&bench.nx).latest.filter(Check::is_over) {
            break done;
        }
        thread::yield_now();
    };
    inside.let_go.notify_waiters();
    assert_eq!((&done.state, done.resumed, done.number), (&CheckState::Done, 1, midway.number));
    // The one that it was killed at is begun anew, and no other.
    assert_eq!(inside.reads.load(Ordering::SeqCst) - before, told_after + 3 + 1 + 3);
    assert_eq!(done.files, files + 1);
    assert_eq!(told(&done), [(Some("/1".into()), Fault::DamagedContent { content: content(hash) })]);
}

#[test]
fn a_scrub_begins_by_itself_and_reads_no_faster_than_it_may() {
    async fn latest(nx: &nexus::Nexus) -> Option<Check> {
        let shown = nx.read(SCRUB).await.expect("it is shown");
        serde_json::from_slice::<ScrubEntry>(&shown).expect("it is JSON").latest
    }
    let (env, simulation) = Env::seeded(3);
    let world = env.clone();
    simulation.block_on(async move {
        let (second, interval) = (Duration::from_secs(1), Duration::from_secs(600));
        let config = Config::in_memory().env(world.clone()).scrub(10_000, interval);
        let nx = nexus::connect(config).await.expect("it boots");
        for n in 0..5 {
            nx.write(format!("/{n}"), noise(n, MIDDLE)).await.expect("it writes");
        }
        let mut over = Vec::new();
        while over.len() < 2 {
            world.sleep(second).await;
            let done =
                latest(&nx).await.filter(|latest| latest.is_over() && latest.number > over.len() as u64);
            over.extend(done);
        }
        for scrub in &over {
            assert_eq!((&scrub.state, scrub.bytes), (&CheckState::Done, 5 * MIDDLE as u64));
            let took = Duration::from_nanos(scrub.ended.expect("it is over").0 - scrub.began.0);
            assert!((second * 20..second * 21).contains(&took), "{took:?}");
        }
        let between = Duration::from_nanos(over[1].began.0 - over[0].began.0);
        assert!((interval..interval + second).contains(&between), "{between:?}");
        nx.shutdown().await.expect("it stops");
    });
}

#[test]
fn a_check_that_is_killed_is_told_as_cut_short() {
    let bench = Bench::new();
    bench.nx.write("/f", noise(1, MIDDLE)).unwrap();
    let inside = &bench.store.0;
    inside.held_from.store(0, Ordering::SeqCst);
    order(&bench.nx, FSCK, b"{}");
    while !inside.is_held.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    bench.nx.kernel().unwrap().supervised().unwrap().kill("nexus/scrub", "panic".parse().unwrap());
    let cut_short = loop {
        if let Some(over) = latest(&bench.nx).filter(Check::is_over) {
            break over;
        }
        thread::yield_now();
    };
    assert!(matches!(cut_short.state, CheckState::Failed { .. }), "{cut_short:?}");
    inside.held_from.store(usize::MAX, Ordering::SeqCst);
    inside.let_go.notify_waiters();
    bench.finds(&[]);
}

#[test]
fn only_an_administrator_checks() {
    let bench = Bench::new();
    let agent = bench.nx.agent("somebody").unwrap();
    for file in [FSCK, SCRUB] {
        let error = agent.send(SysWrite::at(VPath::parse(file).unwrap(), "{}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
    let wrong = bench.nx.send(SysWrite::at(VPath::parse(FSCK).unwrap(), r#"{"repairs":true}"#)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidArgument);
    assert_eq!((latest(&bench.nx), scrub(&bench.nx).latest), (None, None));
}
