//! Large content that was written before there were chunks: one blob.

use std::sync::Arc;

use nexus::hal::{Batch, Change, ContentStore, Entry, Metastore, RowKey, Table, TreeId};
use nexus::{Bytes, ContentId, Op, OpId, SysWrite, Timestamp, VPath};
use nexus_drivers::memory::MemoryMetastore;

use crate::bench::{Bench, KIB, noise};

const NEW: usize = 900 * KIB;
const OLD: usize = 2_000_000;

/// As rows have numbers in them.
fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

fn replace(row: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = row.windows(from.len()).position(|window| window == from).expect("it is in the row");
    [&row[..at], to, &row[at + from.len()..]].concat()
}

#[test]
fn one_large_blob_is_read_and_becomes_chunks_when_it_changes() {
    let rows = Arc::new(MemoryMetastore::new());
    let bench = Bench::with(|config| config.metastore(rows.clone()));
    let (small, mut large) = (noise(1, NEW), noise(2, OLD));
    let written = bench.nx.write("/f", small).unwrap();
    let old = ContentId::Blake3(*blake3::hash(&large).as_bytes());
    let data = [Bytes::from(large.clone())];
    nexus::actors::block_on(bench.store.write(&old, &data)).unwrap();

    // The row as it was written then.
    let inodes = RowKey::new(Table::Inodes, []);
    let found = rows.reader().unwrap().scan(&inodes, None, 100).unwrap();
    let new = *written.metadata.content_id.as_ref().unwrap().blake3().unwrap();
    let (key, row) = found.into_iter().find(|(_, row)| row.windows(32).any(|window| window == new)).unwrap();
    let row = replace(&replace(&row, &new, old.blake3().unwrap()), &varint(NEW), &varint(OLD));
    let entry = Entry {
        tree: TreeId::ROOT,
        op_id: OpId(7),
        repeatable: false,
        caller: "test".into(),
        op: Op::Write,
        path: VPath::parse("/f").unwrap(),
        other: None,
        at: Timestamp(1),
        preconditions: Vec::new(),
        changes: vec![Change::Put(key, row.into())],
        items: Vec::new(),
        told: None,
    };
    let store = bench.store.clone();
    bench.nx.shutdown().unwrap();
    let next_file_id = rows.next_file_id().unwrap();
    rows.apply(&Batch { entries: vec![entry], next_file_id }).unwrap();

    let Bench { nx, .. } = Bench::over(store, |config| config.metastore(rows).content_cache_bytes(0));
    let stat = nx.stat("/f").unwrap();
    assert_eq!((stat.size, stat.content_id.as_ref()), (OLD as u64, Some(&old)));
    assert!(nx.read("/f").unwrap() == large);
    assert!(nx.read_range("/f", 1_500_000, 1_000).unwrap() == large[1_500_000..1_501_000]);
    nx.copy("/f", "/copied").unwrap();
    nx.send(SysWrite::at(VPath::parse("/f").unwrap(), "new").offset(1_000_000)).unwrap();
    assert!(nx.read("/copied").unwrap() == large);
    large[1_000_000..1_000_003].copy_from_slice(b"new");
    assert!(nx.read("/f").unwrap() == large);
    assert!(nx.stat("/f").unwrap().content_id.as_ref().unwrap().chunks().is_some());
}
