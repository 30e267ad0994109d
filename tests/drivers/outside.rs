//! What others change in a mounted folder: told to whoever watches, and what the kernel itself does there is not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nexus::blocking::EventStream;
use nexus::{Config, EntryType, Event, EventKind, MountSpec, WatchItem, blocking};
use tempfile::TempDir;

use crate::bench::until;

/// How long to wait for what must come.
const SOON: Duration = Duration::from_secs(30);

/// How long to wait for what may come.
const SETTLED: Duration = Duration::from_millis(300);

struct Bench {
    nx: blocking::Nexus,
    folder: TempDir,
    heard: EventStream,
    marks: usize,
}

impl Bench {
    /// A folder that is mounted at `/m`, of which the system tells.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let nx = blocking::connect(Config::in_memory()).expect("it boots");
        nx.mount("/m", MountSpec::new("path-local").option("folder", shown(folder.path())))
            .expect("it mounts");
        let heard = nx.watch("/").mask(EventKind::ChangedOutside | EventKind::GoneOutside).stream();
        let heard = heard.expect("it watches");
        let mut bench = Self { nx, folder, heard, marks: 0 };
        // The system begins to tell a moment after the mount is there.
        while bench.mark(SETTLED).is_none() {}
        bench
    }

    fn there(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    fn next(&mut self, within: Duration) -> Option<Event> {
        match self.heard.next_for(within)?.expect("it is watched") {
            WatchItem::Event(event) => Some(event),
            other => panic!("{other:?}"),
        }
    }

    /// All that is told up to a mark that is made now; none when the mark does not come in time.
    fn mark(&mut self, within: Duration) -> Option<Vec<Event>> {
        self.marks += 1;
        let name = format!("mark-{}", self.marks);
        fs::write(self.there(&name), "").expect("it is ours");
        let mut told = Vec::new();
        loop {
            let event = self.next(within)?;
            if event.path.as_str() == format!("/m/{name}") {
                return Some(told);
            }
            if !event.path.as_str().starts_with("/m/mark-") {
                told.push(event);
            }
        }
    }

    /// What is told by now, as kind and path.
    fn told(&mut self) -> Vec<(EventKind, String)> {
        let told = self.mark(SOON).expect("it is told in time");
        told.into_iter().map(|event| (event.kind, event.path.as_str().to_owned())).collect()
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn changed(path: &str) -> (EventKind, String) {
    (EventKind::ChangedOutside, path.into())
}

fn gone(path: &str) -> (EventKind, String) {
    (EventKind::GoneOutside, path.into())
}

#[test]
fn what_others_make_change_move_and_remove_is_told() {
    let mut bench = Bench::new();
    fs::write(bench.there("a.txt"), "one").unwrap();
    let told = bench.mark(SOON).unwrap();
    let [event] = &told[..] else { panic!("{told:#?}") };
    let found = bench.nx.stat("/m/a.txt").unwrap();
    assert_eq!((event.kind, event.path.as_str()), (EventKind::ChangedOutside, "/m/a.txt"));
    assert_eq!((event.size, event.entry_type), (3, EntryType::Reg));
    assert_eq!(event.content_id, found.content_id, "it is what can be read there");

    fs::write(bench.there("a.txt"), "three").unwrap();
    assert_eq!(bench.told(), [changed("/m/a.txt")]);
    fs::rename(bench.there("a.txt"), bench.there("b.txt")).unwrap();
    let mut moved = bench.told();
    moved.sort();
    assert_eq!(moved, [changed("/m/b.txt"), gone("/m/a.txt")]);
    fs::create_dir(bench.there("d")).unwrap();
    assert_eq!(bench.told(), [changed("/m/d")]);
    // It is told of by now, and what is in it too.
    fs::write(bench.there("d/x"), "x").unwrap();
    std::os::unix::fs::symlink("x", bench.there("d/link")).unwrap();
    assert_eq!(bench.told(), [changed("/m/d/x"), changed("/m/d/link")]);
    fs::remove_file(bench.there("b.txt")).unwrap();
    fs::remove_dir_all(bench.there("d")).unwrap();
    let mut left = bench.told();
    left.sort();
    left.dedup();
    assert_eq!(left, [gone("/m/b.txt"), gone("/m/d"), gone("/m/d/link"), gone("/m/d/x")]);
}

#[test]
fn what_the_kernel_does_there_is_told_as_its_own_alone() {
    let mut bench = Bench::new();
    let nx = bench.nx.clone();
    nx.write("/m/own/deep/a", "one").unwrap();
    nx.write("/m/own/deep/a", "two").unwrap();
    nx.append("/m/own/deep/a", "more").unwrap();
    nx.mkdir("/m/other").unwrap();
    nx.rename("/m/own/deep/a", "/m/other/b").unwrap();
    nx.copy("/m/other/b", "/m/other/c").unwrap();
    nx.unlink("/m/other/c").unwrap();
    assert_eq!(bench.told(), []);
    // What others do to the same files is.
    fs::write(bench.there("other/b"), "theirs").unwrap();
    fs::remove_dir(bench.there("own/deep")).unwrap();
    let mut told = bench.told();
    told.sort();
    assert_eq!(told, [changed("/m/other/b"), gone("/m/own/deep")]);
    assert_eq!(&*nx.read("/m/other/b").unwrap(), b"theirs");
    nx.write("/m/other/b", "ours again").unwrap();
    assert_eq!(bench.told(), []);
}

#[test]
fn a_mount_that_is_not_to_notice_says_nothing_and_one_that_is_gone_neither() {
    let mut bench = Bench::new();
    let spec = MountSpec::new("path-local").option("folder", shown(bench.folder.path()));
    bench.nx.mount("/silent", spec.clone().option("notice", "no")).unwrap();
    let error = bench.nx.mount("/x", spec.clone().option("notice", "maybe")).unwrap_err().to_string();
    assert!(error.contains("notice is \"maybe\""), "{error}");
    fs::write(bench.there("a"), "a").unwrap();
    assert_eq!(bench.told(), [changed("/m/a")]);
    bench.nx.unmount("/m").unwrap();
    fs::write(bench.there("b"), "b").unwrap();
    // Only the new mount tells, of what is done when it is there.
    bench.nx.mount("/m", spec.option("probe_ms", "0")).unwrap();
    while bench.mark(SETTLED).is_none() {}
    fs::write(bench.there("c"), "c").unwrap();
    assert_eq!(bench.told(), [changed("/m/c")]);
}

#[test]
fn a_folder_that_was_removed_fails_and_serves_again_when_it_is_there_again() {
    let above = tempfile::tempdir().expect("there is room");
    let folder = above.path().join("folder");
    let fill = |content: &str| {
        fs::create_dir(&folder).expect("there is room");
        fs::write(folder.join("f"), content).expect("it is ours");
    };
    fill("one");
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/m", MountSpec::new("local").option("folder", shown(&folder))).expect("it mounts");
    assert_eq!(nx.readdir("/m").expect("it is there").len(), 1);
    fs::remove_dir_all(&folder).expect("it is ours");
    for _ in 0..3 {
        nx.readdir("/m").expect_err("it is no empty folder");
    }
    fill("two");
    // Calls that fail, or a probe, have it opened anew.
    let read = || nx.read("/m/f").ok().filter(|_| nx.readdir("/m").is_ok());
    assert_eq!(until("opened anew", read), "two");
}

/// More than the driver itself copies where the file system does not share content.
const LARGE: u64 = 80 << 20;

#[test]
fn a_large_file_is_copied_also_where_the_file_system_does_not_help() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/m", MountSpec::new("path-local").option("folder", shown(folder.path()))).expect("it mounts");
    let file = fs::File::create(folder.path().join("f")).expect("it is ours");
    file.set_len(LARGE).expect("there is room");
    nx.copy("/m/f", "/m/g").expect("it is copied");
    assert_eq!(fs::metadata(folder.path().join("g")).expect("it is there").len(), LARGE);
}
