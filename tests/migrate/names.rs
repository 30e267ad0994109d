//! What a folder of the host has beside files and their content: several names of one file, and a mode of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::thread;
use std::time::Duration;

use nexus::{SysWrite, VPath};

use crate::bench::{AT, Bench, ODD_FILES, content, read_host, until};

/// Files that are copied slowly beside the others.
const FILES: u64 = 20;

#[test]
fn what_is_written_by_one_name_is_copied_for_all() {
    let bench = Bench::of_files();
    let old = bench.host("old");
    fs::create_dir(old.join("d")).expect("there is room");
    fs::write(old.join("a"), "0").expect("there is room");
    for name in ["b", "d/c"] {
        fs::hard_link(old.join("a"), old.join(name)).expect("it is one file");
    }
    for number in 0..FILES {
        fs::write(old.join(format!("d/{number}")), content(number, 100)).expect("there is room");
    }
    bench.odd.slow(Duration::from_millis(10));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let at = VPath::parse(&format!("{AT}/a")).expect("it is one");
            for number in 0.. {
                let in_place = SysWrite::at(&at, format!("{number:09}")).offset(0);
                bench.nx.send(in_place).expect("it is written");
                if bench.status().is_some_and(|status| status.is_over()) {
                    return number;
                }
            }
            unreachable!("it has an end")
        });
        bench.done();
        assert!(writing.join().expect("it ends") > FILES, "it was written to all the while");
    });
    // The old store is as it was at the switch: one file.
    let (old, new) = (read_host(&old), read_host(&bench.host("new")));
    assert_eq!((&old["/b"], &old["/d/c"]), (&old["/a"], &old["/a"]));
    let shown = |name: &str| String::from_utf8_lossy(&new[name]).into_owned();
    let last = String::from_utf8_lossy(&old["/a"]).into_owned();
    assert_eq!((shown("/b"), shown("/d/c")), (last.clone(), last));
}

#[test]
fn the_folder_itself_keeps_its_mode() {
    let bench = Bench::of_files();
    bench.nx.write(format!("{AT}/a"), "a").expect("it writes");
    let mode = |name| fs::metadata(bench.host(name)).expect("it is there").mode() & 0o7777;
    fs::set_permissions(bench.host("old"), fs::Permissions::from_mode(0o710)).expect("it is ours");
    assert_ne!(mode("new"), 0o710);
    bench.begin(bench.spec("path-local", "new")).expect("it begins");
    bench.done();
    assert_eq!(mode("new"), 0o710);
    let shown = until("seen", || bench.nx.stat(AT).ok());
    assert_eq!(shown.mode & 0o777, 0o710);
}
