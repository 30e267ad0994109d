//! A kernel, and what the tests ask of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nexus::{Bytes, ChildSpec, Config, Errno, Error, SysRead, VPath, blocking};

/// Longer than anything takes here.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

pub(crate) fn in_memory() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

pub(crate) fn on_disk(folder: &Path) -> blocking::Nexus {
    blocking::connect(Config::new(folder)).expect("it boots")
}

/// A shell that runs a script, which is a file.
pub(crate) fn script(folder: &Path, text: &str) -> ChildSpec {
    let file: PathBuf = folder.join(format!("script-{}.sh", nexus::hash_of(text)));
    std::fs::write(&file, text).expect("there is room");
    ChildSpec::new("sh", [file.to_str().expect("it is text")])
}

/// The next message of the pipe, by its path; no bytes at the end.
pub(crate) fn next(nx: &blocking::Nexus, at: &str) -> Bytes {
    nx.send(SysRead::at(path(at)).wait(LONG)).expect("a message comes").data
}

/// All messages of the pipe up to its end.
pub(crate) fn rest(nx: &blocking::Nexus, at: &str) -> Vec<Bytes> {
    std::iter::repeat_with(|| next(nx, at)).take_while(|message| !message.is_empty()).collect()
}

/// All records of the stream.
pub(crate) fn records(nx: &blocking::Nexus, at: &str) -> Vec<Bytes> {
    let mut reader = nx.stream_reader(at, nexus::StreamStart::Oldest).expect("it is a path");
    let mut all = Vec::new();
    while let Some(record) = reader.next(None).expect("it is a stream") {
        all.push(record.data);
    }
    all
}

/// These numbers, each as a line.
pub(crate) fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<Bytes> {
    range.map(|number| number.to_string().into()).collect()
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(done: Result<T, Error>, errno: Errno) -> Error {
    let error = done.expect_err("it is refused");
    assert_eq!(error.errno(), errno, "{error}");
    error
}

/// Waits until it is so, and looks again and again meanwhile.
#[track_caller]
pub(crate) fn until(nx: &blocking::Nexus, what: &str, mut is_so: impl FnMut() -> bool) {
    let env = nx.env();
    let begun: Instant = env.now();
    while !is_so() {
        assert!(env.now() - begun < LONG, "not within {LONG:?}: {what}");
        env.blocking_wait(env.sleep(Duration::from_millis(1)));
    }
}

/// Whether the host runs a process of this number; one that has ended, and whose parent has not heard of it, does not run.
pub(crate) fn runs(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => false,
    }
}

/// Whether the host knows the process, also as one that has ended and that nobody has waited for.
pub(crate) fn is_known(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
