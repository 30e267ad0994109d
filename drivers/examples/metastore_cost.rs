//! What a commit costs on this disk, with the log and without it, beside a raw append with one flush: `cargo run --release -p nexus-drivers --example metastore_cost`.
//!
//! A typical entry makes a file: a dentry in one of a thousand folders, an inode, and 1 KiB of content under its hash. The folder to write in
//! can be given as the first argument, and the number of files that are there before as the second.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures, and tells")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nexus_drivers::redb::{RedbConfig, RedbMetastore};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{
    Batch, Change, Entry, EntryOutcome, Metastore, Precondition, RowKey, StoreError, Table, TreeId,
};
use nexus_messages::{Op, OpId, Timestamp, VPath};

const SIZES: [u64; 3] = [1, 64, 256];
const CONTENT_BYTES: usize = 1_024;
const FOLDERS: u64 = 1_000;
const READS: u64 = 100_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("nexus-metastore-cost");
    let files = arguments.next().map_or(Ok(100_000), |files| files.parse())?;
    fs::create_dir_all(&folder)?;
    println!("in {}, with {files} files there before; medians", folder.display());
    raw(&folder.join("raw"))?;
    for sequential in [false, true] {
        let spread = if sequential { "one folder" } else { "any folder" };
        let database = RedbConfig::default().cache_bytes(64 << 20);
        let config = WalConfig::default().database(database.clone());
        let path = folder.join("log");
        let open = |path: &Path| WalMetastore::open(path, config.clone());
        println!("with a log, {spread}: {}", measure(&path, open, files, sequential)?);
        fs::remove_dir_all(&path)?;
        for (name, from) in [("one flush", u64::MAX), ("quick repair", 0)] {
            let path = folder.join("redb");
            fs::create_dir_all(&path)?;
            let config = database.clone().quick_repair_from_bytes(from);
            let open = |path: &Path| RedbMetastore::open(path.join("meta.redb"), config.clone());
            println!("{name}, {spread}: {}", measure(&path, open, files, sequential)?);
            fs::remove_dir_all(&path)?;
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn raw(path: &Path) -> Outcome<()> {
    let mut file = File::create(path)?;
    for entries in SIZES {
        let data = vec![7; usize::try_from(entries)? * (CONTENT_BYTES + 300)];
        let took = median(100, || {
            file.write_all(&data)?;
            Ok(file.sync_data()?)
        })?;
        println!("raw append and flush of {entries} entries: {took:.0} us");
    }
    Ok(())
}

fn measure<M: Metastore>(
    path: &Path,
    open: impl Fn(&Path) -> Result<M, StoreError>,
    files: u64,
    sequential: bool,
) -> Outcome<String> {
    let store = open(path)?;
    let mut next = 0;
    while next < files {
        commit(&store, &mut next, 1_000, false)?;
        if store.wants_upkeep() {
            store.upkeep()?;
        }
    }
    store.upkeep()?;
    let mut told = String::new();
    for entries in SIZES {
        let took = median(100, || commit(&store, &mut next, entries, sequential))?;
        told += &format!("commit of {entries}: {took:.0} us, ");
    }
    let before = Instant::now();
    let reader = store.reader()?;
    for number in 0..READS {
        let there = reader.get(&inode(number * 7_919 % next))?.is_some();
        assert!(there, "a benchmark that measures an error is a defect");
    }
    told += &format!("get {:.0} ns, ", nanos_each(before));
    let before = Instant::now();
    for number in 0..READS {
        let there = store.reader()?.get(&inode(number % 100))?.is_some();
        assert!(there, "a benchmark that measures an error is a defect");
    }
    told += &format!("reader and get {:.0} ns, ", nanos_each(before));
    drop(reader);
    // As a crash leaves it: copied while it is open.
    let copied = path.with_extension("copy");
    let bytes = copy(path, &copied)?;
    told += &format!("{} MiB, ", bytes >> 20);
    let before = Instant::now();
    drop(open(&copied)?);
    told += &format!("opening after a crash {:.1} ms, ", before.elapsed().as_secs_f64() * 1e3);
    fs::remove_dir_all(&copied)?;
    drop(store);
    let before = Instant::now();
    drop(open(path)?);
    told += &format!("opening {:.1} ms", before.elapsed().as_secs_f64() * 1e3);
    Ok(told)
}

/// Copies a folder; gives how many bytes were in it.
fn copy(from: &Path, to: &Path) -> Outcome<u64> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        bytes += match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => fs::copy(entry.path(), to)?,
        };
    }
    Ok(bytes)
}

/// The median of the microseconds that `job` takes.
fn median(times: usize, mut job: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let before = Instant::now();
        job()?;
        took.push(before.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[times / 2])
}

fn nanos_each(since: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a mean for reading")]
    let mean = since.elapsed().as_nanos() as f64 / READS as f64;
    mean
}

fn inode(number: u64) -> RowKey {
    RowKey::new(Table::Inodes, [&[0; 4][..], &number.to_be_bytes()].concat())
}

fn commit(store: &impl Metastore, next: &mut u64, entries: u64, sequential: bool) -> Outcome<()> {
    let numbers = *next..*next + entries;
    *next += entries;
    let entries = numbers.map(|number| make_file(number, sequential)).collect::<Outcome<Vec<_>>>()?;
    let applied = store.apply(&Batch { entries, next_file_id: *next + 1 })?;
    let all = applied.outcomes.iter().all(|outcome| matches!(outcome, EntryOutcome::Committed(_)));
    assert!(all, "a benchmark that measures an error is a defect");
    Ok(())
}

fn make_file(number: u64, sequential: bool) -> Outcome<Entry> {
    let folder = if sequential { 0 } else { number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 } % FOLDERS;
    let name = format!("file-{number:012}");
    let dentry = [&[0; 4][..], &folder.to_be_bytes(), name.as_bytes()].concat();
    let dentry = RowKey::new(Table::Dentries, dentry);
    let hash = blake3::hash(&number.to_le_bytes());
    Ok(Entry {
        tree: TreeId::ROOT,
        op_id: OpId(number.into()),
        repeatable: false,
        caller: Arc::from("bench"),
        op: Op::Write,
        path: VPath::parse(&format!("/folder-{folder}/{name}"))?,
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(number),
        preconditions: vec![Precondition::Absent(dentry.clone())],
        changes: vec![
            Change::Put(dentry, Bytes::from_static(&[1; 12])),
            Change::Put(inode(number), Bytes::from_static(&[2; 120])),
            Change::PutIfAbsent(
                RowKey::new(Table::Contents, hash.as_bytes()),
                Bytes::from_static(&[3; CONTENT_BYTES]),
            ),
        ],
    })
}
