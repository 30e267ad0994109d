//! Many threads on a few paths at once. Whatever the order was: nothing hangs, no error is one that makes no sense, what is left is a
//! tree, and nobody lost what he was told is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use nexus::blocking::{self, Nexus};
use nexus::gate::{Decision, Permission};
use nexus::{
    Caller, Config, DirEntry, EntryType, ErrorKind, MountSpec, Result, Right, SysSetattr, SysUnlink,
    SysWrite, VPath,
};
use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::hal::{Metastore, RowKey, Table};

/// A call that takes longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Runs each piece of work on a thread of its own, and fails when one of them fails, or does not come to an end.
#[track_caller]
fn at_once<T: Send + 'static>(work: Vec<Box<dyn FnOnce() -> T + Send>>) -> Vec<T> {
    let (done, ended) = mpsc::channel();
    let started: Vec<_> = work
        .into_iter()
        .map(|work| {
            let done = done.clone();
            thread::Builder::new()
                .spawn(move || {
                    let made = work();
                    drop(done);
                    made
                })
                .expect("threads can be started")
        })
        .collect();
    drop(done);
    // Nothing is ever sent: the channel ends with the last thread that has a share in it.
    let hangs = ended.recv_timeout(HANGS_AFTER) == Err::<(), _>(mpsc::RecvTimeoutError::Timeout);
    assert!(!hangs, "a call hangs");
    started.into_iter().map(|thread| thread.join().expect("a thread failed")).collect()
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("it is small") % bound
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| ["/a", "/b"][self.below(2)]).collect()
    }
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("it is one")
}

/// A failure that another thread's call explains.
#[track_caller]
fn makes_sense<T>(done: Result<T>) -> Option<T> {
    use ErrorKind::*;
    match done {
        Ok(done) => Some(done),
        Err(error) => {
            let usual = matches!(
                error.kind(),
                NotFound
                    | NotADirectory
                    | IsADirectory
                    | NotEmpty
                    | AlreadyExists
                    | InvalidArgument
                    | TooManyLinks
            );
            assert!(usual, "{error}");
            None
        }
    }
}

/// Does `calls` random things on a few paths. What is written tells by itself whether it is whole.
fn meddle(nx: &Nexus, seed: u64, calls: usize) {
    let mut random = Random(seed);
    for n in 0..calls {
        let at = random.path();
        let content = format!("{seed}.{n};").repeat(1 + random.below(20));
        match random.below(16) {
            0..3 => drop(makes_sense(nx.write(&at, content))),
            3 => drop(makes_sense(nx.send(SysWrite::at(path(&at), content).create_exclusive()))),
            4 => drop(makes_sense(nx.mkdir(&at))),
            5 => drop(makes_sense(nx.mkdir_new(&at))),
            6 => drop(makes_sense(nx.unlink(&at))),
            7 => drop(makes_sense(nx.rmdir(&at))),
            8 => drop(makes_sense(nx.remove_all(&at))),
            9..12 => drop(makes_sense(nx.rename(&at, random.path()))),
            12 => drop(makes_sense(nx.copy(&at, random.path()))),
            13 => drop(makes_sense(nx.link(&at, random.path()))),
            14 => {
                if let Some(read) = makes_sense(nx.read(&at)) {
                    is_whole(&read);
                }
            }
            _ => {
                let listed: Result<Vec<DirEntry>> = nx.walk(&at).collect();
                if let Some(listed) = makes_sense(listed) {
                    let paths: BTreeSet<_> = listed.iter().map(|entry| &entry.path).collect();
                    assert_eq!(paths.len(), listed.len(), "an entry is listed twice");
                }
            }
        }
    }
}

/// Content is one text over and over; of two writes there is never a part of each.
fn is_whole(content: &[u8]) {
    let Some(end) = content.iter().position(|&byte| byte == b';') else {
        assert!(content.is_empty(), "a part of a write");
        return;
    };
    let text = &content[..=end];
    assert!(
        content.len().is_multiple_of(text.len()) && content.chunks(text.len()).all(|part| part == text),
        "torn"
    );
}

/// What is listed can be looked at and read, from wherever it is known; every directory that exists by implication has a child.
fn is_a_tree(nx: &Nexus) -> Vec<DirEntry> {
    let listed: Vec<DirEntry> = nx.walk("/").with_metadata().collect::<Result<_>>().expect("it lists");
    let parents: BTreeSet<_> = listed.iter().filter_map(|entry| entry.path.parent()).collect();
    let mut paths = BTreeSet::new();
    for entry in &listed {
        assert!(paths.insert(entry.path.clone()), "{} is listed twice", entry.path);
        let stat = nx.lstat(&entry.path).expect("it was listed");
        assert_eq!(entry.metadata.as_ref(), Some(&stat), "what is cached is what is stored");
        assert!(!stat.implicit || parents.contains(&entry.path), "{} is implied by nothing", entry.path);
        if stat.entry_type == EntryType::Reg {
            is_whole(&nx.read(&entry.path).expect("it was listed"));
        }
    }
    for at in ["/a", "/b"] {
        for below in ["", "/a", "/b", "/a/a", "/a/b", "/b/a", "/b/b"] {
            let at = path(&format!("{at}{below}"));
            // By way of a link there may be something that is not listed here.
            let found = nx.lstat(&at).is_ok_and(|found| found.path == at);
            assert_eq!(found, paths.contains(&at), "{at}");
        }
    }
    listed
}

fn hammer(nx: &Nexus, threads: u64, calls: usize) {
    let work = (0..threads).map(|seed| {
        let nx = nx.clone();
        Box::new(move || meddle(&nx, seed + 1, calls)) as Box<dyn FnOnce() + Send>
    });
    at_once(work.collect());
}

/// The number at the end of a key: an identity.
fn identity(key: &RowKey, from: usize) -> u64 {
    u64::from_be_bytes(key.bytes[from..from + 8].try_into().expect("a key has its parts"))
}

#[test]
fn whatever_threads_do_at_once_leaves_a_tree_without_orphans() {
    let rows = Arc::new(MemoryMetastore::new());
    let nx = blocking::connect(Config::in_memory().metastore(rows.clone())).expect("it boots");
    hammer(&nx, 6, 1_500);
    let listed = is_a_tree(&nx);

    let root = nx.stat("/").expect("it is there").file_id.0;
    let reachable: BTreeSet<u64> =
        listed.iter().map(|entry| entry.file_id.0).chain(std::iter::once(root)).collect();
    let all = |table| {
        let reader = rows.reader().expect("it is open");
        reader.scan(&RowKey::new(table, Vec::new()), None, usize::MAX).expect("it scans")
    };
    let inodes: BTreeSet<u64> = all(Table::Inodes).iter().map(|(key, _)| identity(key, 4)).collect();
    assert_eq!(inodes, reachable, "an entry that nobody sees, or a name of nothing");
    let dentries = all(Table::Dentries);
    assert_eq!(dentries.len(), listed.len());
    assert!(dentries.iter().all(|(key, _)| reachable.contains(&identity(key, 4))));
    nx.shutdown().expect("it stops");
}

#[test]
fn the_same_on_disk_and_after_a_new_start() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = blocking::connect(folder.path()).expect("it boots");
    hammer(&nx, 6, 100);
    let before = is_a_tree(&nx);
    nx.shutdown().expect("it stops");
    let nx = blocking::connect(folder.path()).expect("it boots");
    assert_eq!(is_a_tree(&nx), before);
}

#[test]
fn the_same_where_the_backend_has_the_names() {
    let files = tempfile::tempdir().expect("there is room");
    let plain = MountSpec::new("path-local").option("folder", files.path().display().to_string());
    for (root, calls) in [(MountSpec::new("memory-path"), 1_000), (plain, 200)] {
        let nx = blocking::connect(Config::in_memory().root(root)).expect("it boots");
        hammer(&nx, 6, calls);
        is_a_tree(&nx);
        nx.shutdown().expect("it stops");
    }
}

/// How many threads have files of their own, and how often each does what it does.
const OWNERS: usize = 4;
const ROUNDS: usize = 300;

#[test]
fn a_parent_that_others_empty_and_remove_holds_what_was_written_into_it() {
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let work = (0..OWNERS).map(|owner| {
        let nx = nx.clone();
        Box::new(move || {
            let mine = format!("/a/b/own{owner}");
            for round in 0..ROUNDS {
                let content = format!("{owner}.{round};");
                nx.write(&mine, content.clone()).expect("nothing is in its way");
                assert_eq!(nx.read(&mine).expect("it was written"), content.as_str());
                match round % 3 {
                    // Never with anything below it, and never without: the others see to that.
                    0 => drop(makes_sense(nx.rmdir("/a/b"))),
                    1 => drop(makes_sense(nx.mkdir("/a/b"))),
                    _ => drop(makes_sense(nx.send(SysSetattr::at(path("/a/b")).mode(0o700)))),
                }
                assert_eq!(nx.read(&mine).expect("it was written"), content.as_str());
                nx.unlink(&mine).expect("it is there");
                assert_eq!(nx.read(&mine).expect_err("it is gone").kind(), ErrorKind::NotFound);
            }
        }) as Box<dyn FnOnce() + Send>
    });
    at_once(work.collect());
    is_a_tree(&nx);
}

#[test]
fn what_is_written_below_a_directory_that_moves_is_in_one_of_its_places() {
    for root in [MountSpec::new("memory"), MountSpec::new("memory-path")] {
        let nx = blocking::connect(Config::in_memory().root(root)).expect("it boots");
        let stop = Arc::new(AtomicBool::new(false));
        let mut work: Vec<Box<dyn FnOnce() -> Vec<String> + Send>> = Vec::new();
        for owner in 0..OWNERS {
            let nx = nx.clone();
            work.push(Box::new(move || {
                let name = |round: usize| format!("{owner}-{round}");
                let content = |round| format!("{};", name(round));
                let write = |round| makes_sense(nx.write(format!("/x/{}", name(round)), content(round)));
                (0..ROUNDS).filter(|round| write(*round).is_some()).map(name).collect()
            }));
        }
        let (moved, until) = (nx.clone(), stop.clone());
        let mover = thread::Builder::new()
            .spawn(move || {
                let mut moves = 0;
                while !until.load(Ordering::Relaxed) {
                    moves += usize::from(makes_sense(moved.rename("/x", "/y")).is_some());
                    makes_sense(moved.rename("/y", "/x"));
                }
                moves
            })
            .expect("threads can be started");
        let written: Vec<String> = at_once(work).concat();
        stop.store(true, Ordering::Relaxed);
        mover.join().expect("the mover failed");

        let mut found = BTreeMap::new();
        for entry in is_a_tree(&nx).iter().filter(|entry| entry.entry_type == EntryType::Reg) {
            assert_eq!(nx.read(&entry.path).expect("it was listed"), format!("{};", entry.name()));
            assert!(found.insert(entry.name().to_owned(), entry.path.clone()).is_none(), "{}", entry.path);
        }
        assert_eq!(found.len(), OWNERS * ROUNDS);
        for name in written {
            assert!(found.contains_key(&name), "{name} was acknowledged, and is gone");
        }
    }
}

#[test]
fn what_is_a_link_now_and_a_directory_then_is_never_a_file() {
    for root in [MountSpec::new("memory"), MountSpec::new("memory-path")] {
        let nx = blocking::connect(Config::in_memory().root(root)).expect("it boots");
        nx.write("/dir/f", "x").expect("it writes");
        nx.write("/real/f", "x").expect("it writes");
        nx.link("/link", "real").expect("it links");
        let stop = Arc::new(AtomicBool::new(false));
        let mut work: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for _ in 0..OWNERS {
            let nx = nx.clone();
            work.push(Box::new(move || {
                for _ in 0..ROUNDS * 60 {
                    match nx.read("/x/f").map_err(|error| error.kind()) {
                        Ok(content) => assert_eq!(content, "x"),
                        Err(kind) => assert_eq!(kind, ErrorKind::NotFound),
                    }
                }
            }));
        }
        let (moving, until) = (nx.clone(), stop.clone());
        let mover = thread::Builder::new()
            .spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    for from in ["/dir", "/link"] {
                        moving.rename(from, "/x").expect("nothing is there");
                        moving.rename("/x", from).expect("it is there");
                    }
                }
            })
            .expect("threads can be started");
        at_once(work);
        stop.store(true, Ordering::Relaxed);
        mover.join().expect("the mover failed");
    }
}

#[test]
fn what_is_written_while_a_mount_comes_and_goes_is_on_one_side_of_it() {
    let (files, blobs) =
        (tempfile::tempdir().expect("there is room"), tempfile::tempdir().expect("there is room"));
    let plain = MountSpec::new("path-local").option("folder", files.path().display().to_string());
    let content = MountSpec::new("cas-local").option("folder", blobs.path().display().to_string());
    for spec in [plain, content] {
        let nx = blocking::connect(Config::in_memory()).expect("it boots");
        nx.write("/m/kept", "kept").expect("it writes");
        nx.mount("/m", spec.clone()).expect("it mounts");
        nx.write("/m/kept", "kept").expect("it writes");
        nx.unmount("/m").expect("it unmounts");
        let stop = Arc::new(AtomicBool::new(false));
        let mut work: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for owner in 0..OWNERS {
            let nx = nx.clone();
            work.push(Box::new(move || {
                for round in 0..ROUNDS / 3 {
                    nx.write(format!("/m/{owner}-{round}"), "x").expect("one or the other takes it");
                    assert_eq!(nx.read("/m/kept").expect("it is on both sides"), "kept");
                    assert_eq!(nx.stat("/m/kept").expect("it is on both sides").size, 4);
                    assert!(!nx.readdir("/m").expect("there is one").is_empty());
                }
            }));
        }
        let (mounting, until, what) = (nx.clone(), stop.clone(), spec.clone());
        let mounter = thread::Builder::new()
            .spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    mounting.mount("/m", what.clone()).expect("it mounts");
                    mounting.send(SysUnlink::at(path("/m"))).expect("it unmounts");
                }
            })
            .expect("threads can be started");
        at_once(work);
        stop.store(true, Ordering::Relaxed);
        mounter.join().expect("the mounter failed");

        let names = |nx: &Nexus| -> BTreeSet<String> {
            nx.readdir("/m").expect("it is there").iter().map(|entry| entry.name().to_owned()).collect()
        };
        let under = names(&nx);
        nx.mount("/m", spec).expect("it mounts");
        let over = names(&nx);
        assert_eq!(under.intersection(&over).collect::<Vec<_>>(), ["kept"]);
        assert_eq!(under.len() + over.len(), OWNERS * (ROUNDS / 3) + 2);
    }
}

/// Puts a link to `/d` in the place of `/a`, when a listing has come to what is in there.
struct Swaps {
    nx: nexus::Nexus,
    done: AtomicBool,
}

impl Permission for Swaps {
    fn check(&self, _: &Caller, right: Right, at: &VPath) -> Decision {
        if right != Right::Read || at.as_str() != "/a/b" || self.done.swap(true, Ordering::Relaxed) {
            return Decision::Allow;
        }
        let nx = self.nx.clone();
        let swap = async move {
            nx.rename("/a", "/c").await.expect("it moves");
            nx.link("/a", "/d").await.expect("its name is free");
            Ok(())
        };
        Decision::Slow(swap.boxed())
    }
}

#[test]
fn what_a_link_leads_to_that_comes_while_it_is_listed_is_listed_once() {
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.write("/a/b/x", "").expect("it writes");
    nx.write("/d/b/y", "").expect("it writes");
    let swaps = Swaps { nx: nx.as_async().clone(), done: AtomicBool::new(false) };
    nx.set_permission(Some(Arc::new(swaps))).expect("it is the administrator's");
    // Who owns what is listed is not asked.
    let reader = nx.agent("reader").expect("a name");
    let listed: Vec<DirEntry> = reader.walk("/").collect::<Result<_>>().expect("it lists");
    let listed: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(listed, ["/a", "/a/b", "/d", "/d/b", "/d/b/y"]);
    nx.set_permission(None).expect("it is the administrator's");
    nx.shutdown().expect("it stops");
}
