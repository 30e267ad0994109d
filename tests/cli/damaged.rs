//! What commands print of what is damaged.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use nexus::blocking;
use nexus::hal::Change;
use nexus::{Config, Serving};
use nexus_drivers::memory::MemoryMetastore;
use serde_json::Value;

use crate::fixture::Nexus;
use crate::rows::{Rows, inode_key};
use crate::serving;

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

/// The file of the log that holds these bytes: its name, its content, where they are, and where the frame around them begins.
fn in_the_log(nexus: &Nexus, part: &[u8]) -> (PathBuf, Vec<u8>, usize, usize) {
    for file in fs::read_dir(nexus.data().join("wal")).expect("there is a log") {
        let file = file.expect("it is listed").path();
        let content = fs::read(&file).expect("it can be read");
        let Some(at) = content.windows(part.len()).position(|here| here == part) else { continue };
        let frame = (0..at).step_by(8).rfind(|begin| content[*begin..].starts_with(b"NXWL"));
        return (file, content, at, frame.expect("it is in a frame"));
    }
    panic!("it is not in the log");
}

#[test]
fn a_log_that_is_damaged_is_told_of_and_cut_where_the_user_agrees_and_nowhere_else() {
    let nexus = Nexus::new();
    // So that all that is written later is in the log alone.
    nexus.good("mkdir -p /kept");
    let serving = serving::Serving::start(&nexus, &["serve"]);
    let lsns: Vec<u64> = (0..9)
        .map(|nth| {
            let ended = nexus.feed(&format!("--json write /kept/f{nth}"), &format!("content {nth}"));
            let told: Value = serde_json::from_str(&ended.out).expect("it is JSON");
            told["lsn"].as_u64().expect("it is a place")
        })
        .collect();
    let served = nexus.run(&format!("fsck --repair --give-up-after {}", lsns[4]));
    assert!(served.status == 1 && served.err.contains("(EBUSY)"), "somebody has it open: {served:?}");
    // With SIGKILL.
    drop(serving);
    let (file, mut damaged, hit, frame) = in_the_log(&nexus, b"/kept/f5");
    damaged[hit + 1] ^= 1;
    fs::write(&file, &damaged).expect("it can be written");

    let refused = nexus.run("cat /kept/f0");
    assert!(refused.status == 1 && refused.err.contains("of the log (segment "), "{refused:?}");
    let name = file.file_name().expect("it has a name").to_str().expect("it is text");
    let (kept, after) = (lsns[4], lsns[4].to_string());
    let told = nexus.run("fsck");
    assert_eq!(told.status, 1, "{told:?}");
    let begins = format!("wal/{name}, at byte {frame}: frame ");
    assert!(told.out.starts_with(&begins), "{told:?}");
    for part in [
        format!("kept: all up to LSN {kept}\n"),
        "3 operations that can be read".into(),
        format!(
            "lost: LSN {} to {} at least, {} to {} unreadable\n",
            kept + 1,
            lsns[8],
            lsns[5],
            lsns[6] - 1
        ),
        format!("  {} write /kept/f7 ", lsns[7]),
        format!("nothing was changed; to give that up: fsck --repair --give-up-after {after}\n"),
    ] {
        assert!(told.out.contains(&part), "{part:?} is not in {}", told.out);
    }
    assert_eq!(told.err, "nexus: fsck: the log is damaged, and the folder cannot be opened\n");
    let described = nexus.run("--json fsck --repair");
    let described: Value = serde_json::from_str(&described.out).expect("it is JSON");
    assert_eq!((&described["damaged"], &described["repaired"]), (&true.into(), &false.into()));
    assert_eq!((&described["segment"], &described["offset"]), (&name.into(), &frame.into()));
    assert_eq!(described["give_up_after"], after);
    let lost: Vec<_> = described["lost"]["listed"].as_array().expect("a list").clone();
    let paths: Vec<_> = lost.iter().map(|lost| lost["path"].as_str().expect("a path")).collect();
    assert_eq!(paths, ["/kept/f6", "/kept/f7", "/kept/f8"]);
    let damage = nexus::offline::damage(nexus.data()).expect("it is read").expect("it is damaged");
    assert_eq!((damage.offset, damage.lost.unreadable), (frame as u64, 1));

    for wrong in [kept - 1, kept + 1, 0] {
        let refused = nexus.run(&format!("fsck --repair --give-up-after {wrong}"));
        assert!(refused.status == 1 && refused.err.contains("(EINVAL)"), "{refused:?}");
        assert!(refused.err.contains(&format!("all after {after} is to be given up")), "{refused:?}");
    }
    assert_eq!(nexus.run(&format!("fsck --give-up-after {after}")).status, 2, "it is a repair");
    assert_eq!(nexus.run("fsck --repair --give-up-after all").status, 2);
    assert!(fs::read(&file).expect("it can be read") == damaged, "nothing was changed");

    let cut = nexus.run(&format!("--json fsck --repair --give-up-after {after}"));
    assert_eq!((cut.status, &*cut.err), (0, ""));
    let cut: Value = serde_json::from_str(&cut.out).expect("it is JSON");
    assert_eq!((&cut["repaired"], &cut["lost"]), (&true.into(), &described["lost"]));
    let aside = cut["aside"][0].as_str().expect("a name");
    let aside = fs::read(nexus.data().join("wal").join(aside)).expect("it is there");
    assert!(damaged[frame..].starts_with(&aside) && damaged[frame + aside.len()..].iter().all(|b| *b == 0));

    for nth in 0..5 {
        assert_eq!(nexus.good(&format!("cat /kept/f{nth}")), format!("content {nth}"));
    }
    assert_eq!(nexus.good("ls /kept").lines().count(), 5);
    assert!(nexus.good("fsck").contains("all is well"));
    nexus.feed("write /kept/after", "it goes on");
    assert_eq!(nexus.good("cat /kept/after"), "it goes on");
    let again = nexus.run(&format!("fsck --repair --give-up-after {after}"));
    assert!(again.status == 1 && again.err.contains("the log is not damaged"), "{again:?}");
    let nowhere = nexus::offline::damage(nexus.host("nowhere")).expect_err("there is none");
    assert_eq!(nowhere.kind(), nexus::ErrorKind::NotFound);
    assert!(!nexus.host("nowhere").exists(), "none was made");
}
