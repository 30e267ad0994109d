//! What commands print of what is damaged.

use std::sync::Arc;

use nexus::blocking;
use nexus::hal::Change;
use nexus::{Config, Serving};
use nexus_drivers::memory::MemoryMetastore;
use serde_json::Value;

use crate::fixture::Nexus;
use crate::rows::{Rows, inode_key};

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
    rows.change(vec![Change::Put(inode_key(id), b"\x01and no row".as_slice().into())]);
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

#[test]
fn a_directory_that_cannot_be_read_hides_none_beside_it() {
    let nexus = Nexus::new();
    let rows = Arc::new(MemoryMetastore::new());
    let config = Config::new(nexus.data()).metastore(rows.clone()).serve(Serving::administrator());
    let nx = blocking::connect(config).expect("it boots");
    for path in ["/a/x", "/b/y", "/c/z"] {
        nx.write(path, "content").expect("it writes");
    }
    nx.mkdir("/b").expect("it is made");
    let id = nx.stat("/b").expect("it is there").file_id.0;
    rows.change(vec![Change::Put(inode_key(id), b"\x01and no row".as_slice().into())]);
    nx.mkdir("/d").expect("it is made");
    nx.rename("/d", "/e").expect("it moves");

    let listed = nexus.run("ls -R /");
    assert_eq!((listed.status, &*listed.out), (1, "/a\n/a/x\n/b\n/c\n/c/z\n/e\n"), "{listed:?}");
    let told = "nexus: readdir /b: ";
    assert!(listed.err.starts_with(told) && listed.err.ends_with("(EIO)\n"), "{}", listed.err);
    let drawn = nexus.run("tree /");
    assert!(drawn.out.contains("├── b\n") && drawn.out.contains("└── z\n"), "{}", drawn.out);
    assert!(drawn.status == 1 && drawn.err.starts_with(told), "{drawn:?}");
    nx.shutdown().expect("it stops");
}
