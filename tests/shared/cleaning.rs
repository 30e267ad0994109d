//! Nothing is left of what is gone; and what somebody writes into the memory harms nothing else.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nexus::{Config, ErrorKind, PipeSpec, RecordRange};
use nexus_actors::block_on;

use crate::child::{LONG, PIPE, Role, STREAM, furnish, own};

/// The folder of the regions of the kernel on this data folder.
pub(crate) fn regions(data: &Path) -> PathBuf {
    let identity = fs::read_to_string(data.join("shared")).expect("it has one");
    let identity = identity.split_whitespace().next().expect("it has one");
    let name = format!("nexus-{}-{identity}", rustix::process::geteuid().as_raw());
    [Path::new("/dev/shm"), data]
        .iter()
        .map(|root| root.join(&name))
        .find(|folder| folder.is_dir())
        .expect("it is there")
}

pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there").path());
    files.filter(|file| file.extension().is_some_and(|found| found == extension)).collect()
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

pub(crate) fn memory_goes_with_its_entry_and_with_its_kernel() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    block_on(nx.append_record(STREAM, "x")).expect("it is there");
    block_on(nx.write(PIPE, "x")).expect("there is room");
    let regions = regions(folder.path());
    assert_eq!((files(&regions, "pipe").len(), files(&regions, "stream").len()), (1, 1));
    drop(block_on(nx.shutdown()));
    // An orderly end keeps both: the entries are there still.
    let nx = own(folder.path());
    assert_eq!(block_on(nx.read(PIPE)).expect("it is there"), "x");
    block_on(nx.unlink(PIPE)).expect("it is there");
    block_on(nx.unlink(STREAM)).expect("it is there");
    until("their memory goes", || files(&regions, "pipe").is_empty() && files(&regions, "stream").is_empty());
    // What a crash left between the two is found at the next boot.
    furnish(&nx);
    block_on(nx.append_record(STREAM, "x")).expect("it is there");
    block_on(nx.write(PIPE, "x")).expect("there is room");
    let left: Vec<PathBuf> = ["pipe", "stream"]
        .into_iter()
        .flat_map(|extension| {
            let file = files(&regions, extension).pop().expect("it is there");
            let left = regions.join(format!("{:016x}.{extension}", 0x7777));
            fs::copy(&file, &left).expect("there is room");
            [left, file]
        })
        .collect();
    drop(block_on(nx.shutdown()));
    let nx = own(folder.path());
    until("what is left goes", || !left[0].exists() && !left[2].exists());
    assert!(left[1].exists() && left[3].exists(), "those with entries stay");
    drop(block_on(nx.shutdown()));

    // A kernel without a data folder ends with all of it, also when it is killed: then the next kernel finds it.
    let beside = || {
        let prefix = format!("nexus-{}-", rustix::process::geteuid().as_raw());
        let all =
            fs::read_dir("/dev/shm").expect("it is there").map(|entry| entry.expect("it is there").path());
        all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
            .filter(|path| fs::read_to_string(path.join("home")).is_ok_and(|home| home.contains(" process ")))
            .collect::<Vec<_>>()
    };
    let of = |role: &Role| {
        let found = beside().into_iter().filter(|path| {
            let home = fs::read_to_string(path.join("home")).unwrap_or_default();
            let process: u64 = home.split(" process ").last().and_then(|id| id.parse().ok()).unwrap_or(0);
            process & ((1 << 22) - 1) == u64::from(role.id())
        });
        found.collect::<Vec<_>>()
    };
    let killed = Role::start("memory", folder.path());
    let left = of(&killed);
    assert_eq!(left.len(), 1);
    killed.kill();
    assert!(left[0].exists());
    let nx = block_on(nexus::connect(Config::in_memory())).expect("it boots");
    until("what is left goes", || !left[0].exists());
    block_on(nx.make_pipe_with(PIPE, PipeSpec::shared(100))).expect("it is made");
    block_on(nx.write(PIPE, "x")).expect("there is room");
    let mine = || {
        beside().into_iter().any(|path| {
            let home = fs::read_to_string(path.join("home")).unwrap_or_default();
            let process: u64 = home.split(" process ").last().and_then(|id| id.parse().ok()).unwrap_or(0);
            process & ((1 << 22) - 1) == u64::from(std::process::id())
        })
    };
    assert!(mine());
    drop(block_on(nx.shutdown()));
    assert!(!mine());
}

pub(crate) fn garbage_in_the_memory_is_an_error_and_harms_nothing_else() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    let mut random = 7u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..30 {
        block_on(nx.write("/beside", "unharmed")).expect("there is room");
        block_on(nx.append_record(STREAM, "x")).expect("it is there");
        block_on(nx.write(PIPE, "x")).expect("there is room");
        let mapped = block_on(nx.map_stream(STREAM)).expect("it is there");
        let regions = regions(folder.path());
        for extension in ["pipe", "stream"] {
            let file = files(&regions, extension).pop().expect("it is there");
            let file = fs::OpenOptions::new().write(true).open(file).expect("it is ours");
            let words = file.metadata().expect("it is there").len() / 8;
            for _ in 0..50 {
                // Mostly where it hurts.
                let at = if next() % 2 == 0 { 7 + next() % 120 } else { 7 + next() % (words - 7) };
                let word = if round % 2 == 0 { next() } else { next() % 5_000 };
                file.write_all_at(&word.to_le_bytes(), at * 8).expect("it is ours");
            }
        }
        // An error, or something; nothing is waited for for ever, and nobody panics.
        for _ in 0..3 {
            let _ = block_on(nx.read(PIPE));
            let _ = block_on(nx.write(PIPE, "y"));
            let _ = block_on(nx.append_record(STREAM, "y"));
            let _ = block_on(mapped.read(RecordRange::from(0), None));
        }
        assert_eq!(block_on(nx.read("/beside")).expect("it is there"), "unharmed");
        for path in [PIPE, STREAM] {
            match block_on(nx.unlink(path)) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
        }
        furnish(&nx);
    }
    block_on(nx.write(PIPE, "whole")).expect("it was made anew");
    assert_eq!(block_on(nx.read(PIPE)).expect("it is there"), "whole");
    drop(block_on(nx.shutdown()));
}

pub(crate) fn a_copy_of_a_data_folder_has_memory_of_its_own() {
    let folder = tempfile::tempdir().expect("there is room");
    let (first, copy) = (folder.path().join("first"), folder.path().join("copy"));
    let nx = own(&first);
    furnish(&nx);
    block_on(nx.write(PIPE, "of the first")).expect("there is room");
    drop(block_on(nx.shutdown()));
    let copied = std::process::Command::new("cp").arg("-r").args([&first, &copy]).status();
    assert!(copied.expect("it runs").success());
    let (nx, other) = (own(&first), own(&copy));
    block_on(other.write(PIPE, "of the copy")).expect("there is room");
    block_on(other.append_record(STREAM, "x")).expect("it is there");
    assert_eq!(block_on(nx.read(PIPE)).expect("it is there"), "of the first");
    assert_eq!(block_on(other.read(PIPE)).expect("it is there"), "of the copy");
    assert_eq!(block_on(nx.append_record(STREAM, "x")).expect("it is there"), 0);
    block_on(other.unlink(STREAM)).expect("it is there");
    assert_eq!(block_on(nx.append_record(STREAM, "x")).expect("it is there"), 1);
    drop(block_on(other.shutdown()));
    drop(block_on(nx.shutdown()));
}

pub(crate) fn pipes_from_before_the_start_take_room_until_they_go() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    block_on(nx.write(PIPE, "x")).expect("there is room");
    let file = files(&regions(folder.path()), "pipe").pop().expect("it is there");
    drop(block_on(nx.shutdown()));
    // As if it had all that pipes may have together, of which nothing is filled.
    let grown = fs::OpenOptions::new().write(true).open(file).expect("it is ours");
    grown.set_len(nexus_kernel::pipes::PIPES_BYTES_MAX).expect("nothing is filled");
    let nx = own(folder.path());
    block_on(nx.make_pipe_with("/another", PipeSpec::shared(100))).expect("it is a row");
    let refused = block_on(nx.write("/another", "x")).expect_err("there is no room for it");
    assert_eq!(refused.kind(), ErrorKind::StoreFull, "{refused}");
    assert_eq!(block_on(nx.read(PIPE)).expect("it is opened all the same"), "x");
    block_on(nx.unlink(PIPE)).expect("it is there");
    until("what went gives its room back", || block_on(nx.write("/another", "x")).is_ok());
    drop(block_on(nx.shutdown()));
}
