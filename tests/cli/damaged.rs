//! What commands print of what is damaged.

use std::sync::Arc;

use nexus::blocking;
use nexus::hal::{Batch, Change, Entry, Metastore, RowKey, Table, TreeId};
use nexus::{Config, Op, OpId, Serving, Timestamp, VPath};
use nexus_drivers::memory::MemoryMetastore;
use serde_json::Value;

use crate::fixture::Nexus;

#[test]
fn one_damaged_entry_hides_none_of_the_others() {
    let nexus = Nexus::new();
    let rows = Arc::new(MemoryMetastore::new());
    let config = Config::new(nexus.data()).metastore(rows.clone()).serve(Serving::administrator());
    let nx = blocking::connect(config).expect("it boots");
    for path in ["/a", "/b", "/c"] {
        nx.write(path, "content").expect("it writes");
    }
    let id = nx.stat("/b").expect("it is there").file_id.0;
    let damaged = RowKey::new(Table::Inodes, [&0u32.to_be_bytes()[..], &id.to_be_bytes()].concat());
    let entry = Entry {
        tree: TreeId::ROOT,
        op_id: OpId(u128::MAX),
        repeatable: false,
        caller: "damage".into(),
        op: Op::Write,
        path: VPath::root(),
        other: None,
        items: Vec::new(),
        at: Timestamp(1),
        preconditions: Vec::new(),
        changes: vec![Change::Put(damaged, b"\x01and no row".as_slice().into())],
    };
    rows.apply(&Batch { entries: vec![entry], next_file_id: 0 }).expect("it is applied");
    // What is remembered of /b is forgotten with its directory's generation.
    nx.mkdir("/d").expect("it is made");
    nx.rename("/d", "/e").expect("it moves");

    assert_eq!(nexus.good("ls /"), "a\nb\nc\ne\n");
    let long = nexus.run("ls -l /");
    let names: Vec<_> = long.out.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!((long.status, &names[..]), (1, &["a", "b", "c", "e"][..]), "{long:?}");
    assert!(long.out.contains("\n-????????? ?"), "{}", long.out);
    assert!(long.err.starts_with("nexus: readdir /b: ") && long.err.ends_with("(EIO)\n"), "{}", long.err);
    let listed = nexus.run("--json ls /");
    let listed: Vec<Value> =
        listed.out.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    assert_eq!(listed.len(), 4);
    let told = (&listed[1]["path"], &listed[1]["type"], &listed[1]["error"]["errno"]);
    assert_eq!(told, (&"/b".into(), &"file".into(), &"EIO".into()));
    assert_eq!(nexus.good("cat /a /c"), "contentcontent");
    nx.shutdown().expect("it stops");
}
