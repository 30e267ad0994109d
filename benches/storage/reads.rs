//! Reads of 4 KiB that the caches answer, beside the same file in the page cache; and what one row costs to look up, with its checksum, beside redb without.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nexus::{Bytes, Config, Nexus, Op, OpId, SysRead, Timestamp, VPath};
use nexus_drivers::redb::{RedbConfig, RedbMetastore};
use nexus_kernel::hal::{Batch, Change, Entry, EntryOutcome, Metastore, Precondition, RowKey, Table, TreeId};
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::report::{compare, median, time};
use crate::{boot, runtime};

/// What a file holds, and how many there are.
const CONTENT_BYTES: usize = 4_096;
const FILES: u64 = 64;

/// Rows of the size of a file's, and how many of them one commit makes.
const ROWS: u64 = 100_000;
const IN_COMMIT: u64 = 1_000;
const ROW: [u8; 120] = [7; 120];

/// Turns that everybody takes, with so many calls each.
const TURNS: usize = 50;
const CALLS: u64 = 2_000;

/// Enough for all rows, and for no page of them.
const ALL_PAGES: usize = 256 << 20;
const NO_PAGE: usize = 0;

pub(crate) fn run(folder: &Path) {
    files(folder);
    rows(folder);
}

fn files(folder: &Path) {
    let runtime = runtime();
    let nx = boot(&runtime, Config::new(folder.join("nexus")));
    let plain: Vec<PathBuf> = (0..FILES).map(|number| folder.join(format!("plain-{number}"))).collect();
    let paths: Vec<VPath> = (0..FILES).map(path).collect();
    for (number, (plain, path)) in (0..).zip(plain.iter().zip(&paths)) {
        std::fs::write(plain, content(number)).expect("the folder can be written");
        runtime.block_on(nx.write(path, content(number))).expect("it writes");
    }
    let took = by_turns([&mut || runtime.block_on(read_hot(&nx, &paths)), &mut || {
        for call in 0..CALLS {
            let number = nth(call, FILES);
            let read = std::fs::read(&plain[place(number)]).expect("it is there");
            assert_is(number, &read);
        }
    }]);
    for (number, path) in (0..).zip(&paths) {
        assert_eq!(runtime.block_on(nx.read(path)).expect("it is there"), content(number));
    }
    runtime.block_on(nx.shutdown()).expect("it stops in order");
    let [nexus, plain] = took;
    compare("4 KiB, hot", nexus, "open and read from the page cache", plain);
}

async fn read_hot(nx: &Nexus, paths: &[VPath]) {
    for call in 0..CALLS {
        let number = nth(call, FILES);
        let read = nx.send(SysRead::at(&paths[place(number)])).await.expect("it is there");
        assert_is(number, &read.data);
    }
}

fn rows(folder: &Path) {
    let (sealed, bare) = (folder.join("rows.redb"), folder.join("bare.redb"));
    make_rows(&sealed);
    make_bare_rows(&bare);
    for (cache_bytes, what) in [(NO_PAGE, "each page read anew"), (ALL_PAGES, "its pages at hand")] {
        let store = RedbMetastore::open(&sealed, RedbConfig::default().cache_bytes(cache_bytes));
        let store = store.expect("it opens");
        let reader = store.reader().expect("it can be read");
        let database = Database::builder().set_cache_size(cache_bytes).open(&bare).expect("it opens");
        let view = database.begin_read().expect("it can be read");
        let table = view.open_table(BARE).expect("the table is there");
        let [sealed, bare] = by_turns([
            &mut || {
                for call in 0..CALLS {
                    let row = reader.get(&key(nth(call, ROWS))).expect("it can be read");
                    assert_eq!(row.expect("it is there"), &ROW[..]);
                }
            },
            &mut || {
                for call in 0..CALLS {
                    let row = table.get(&*key_bytes(nth(call, ROWS))).expect("it can be read");
                    assert_eq!(row.expect("it is there").value(), &ROW[..]);
                }
            },
        ]);
        compare(&format!("a row and its checksum, {what}"), sealed, "bare redb", bare);
    }
}

/// The medians of what one call of each of the jobs takes, of which each makes `CALLS`.
fn by_turns<const N: usize>(mut jobs: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut took = [const { Vec::new() }; N];
    for turn in 0..=TURNS {
        for (job, took) in jobs.iter_mut().zip(&mut took) {
            let each = time(job) / u32::try_from(CALLS).expect("there are few");
            // The first turn warms up.
            if turn > 0 {
                took.push(each);
            }
        }
    }
    took.map(median)
}

/// The one that a call is about, in an order without order.
fn nth(call: u64, of: u64) -> u64 {
    call.wrapping_mul(7_919) % of
}

fn place(number: u64) -> usize {
    usize::try_from(number).expect("there are few")
}

fn path(number: u64) -> VPath {
    VPath::parse(&format!("/reads/{number}")).expect("it is a path")
}

fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(CONTENT_BYTES / size_of::<u64>())
}

/// Whether it is all of the right file, by its ends: to compare all of it takes longer than to read it.
fn assert_is(number: u64, read: &[u8]) {
    let own = number.to_le_bytes();
    assert!(read.len() == CONTENT_BYTES && read.starts_with(&own) && read.ends_with(&own), "not {number}");
}

const BARE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

fn key_bytes(number: u64) -> Vec<u8> {
    [&[0; 4][..], &number.to_be_bytes()].concat()
}

fn key(number: u64) -> RowKey {
    RowKey::new(Table::Inodes, key_bytes(number))
}

/// Rows in the metastore, as the kernel has it.
fn make_rows(file: &Path) {
    let store = RedbMetastore::open(file, RedbConfig::default()).expect("it opens");
    for from in (0..ROWS).step_by(place(IN_COMMIT)) {
        let batch = Batch { entries: vec![entry(from)], next_file_id: ROWS + 1 };
        let applied = store.apply(&batch).expect("the disk takes it");
        assert!(matches!(applied.outcomes[..], [EntryOutcome::Committed(_)]));
    }
    store.upkeep().expect("the disk takes it");
}

fn entry(from: u64) -> Entry {
    let keys = (from..from + IN_COMMIT).map(key);
    Entry {
        tree: TreeId::ROOT,
        op_id: OpId(u128::from(from) + 1),
        repeatable: false,
        caller: Arc::from("bench"),
        op: Op::Write,
        path: path(from),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(from),
        preconditions: keys.clone().map(Precondition::Absent).collect(),
        changes: keys.map(|key| Change::Put(key, Bytes::from_static(&ROW))).collect(),
    }
}

/// The same without checksums.
fn make_bare_rows(file: &Path) {
    let db = Database::create(file).expect("it opens");
    for from in (0..ROWS).step_by(place(IN_COMMIT)) {
        let tx = db.begin_write().expect("nobody else writes");
        {
            let mut rows = tx.open_table(BARE).expect("the table is there");
            for number in from..from + IN_COMMIT {
                rows.insert(&*key_bytes(number), &ROW[..]).expect("it is put");
            }
        }
        tx.commit().expect("the disk takes it");
    }
}
