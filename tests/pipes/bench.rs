//! What the tests stand on.

use std::time::Duration;

use nexus::{Config, Errno, Error, SysRead, SysSetattr, SysWrite, VPath, blocking};

/// Longer than anything takes here.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Long enough to be told apart from nothing.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

pub(crate) fn boot() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

pub(crate) fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// A kernel with a pipe at `/p`.
pub(crate) fn piped(capacity: u32) -> (blocking::Nexus, VPath) {
    let (nx, at) = (boot(), path("/p"));
    assert!(nx.send(SysSetattr::pipe(&at, capacity)).expect("it is made").created);
    // Opened by its first use.
    refused(read(&nx, &at), Errno::EAGAIN);
    (nx, at)
}

pub(crate) fn write(nx: &blocking::Nexus, at: &VPath, message: &str) -> Result<(), Error> {
    nx.send(SysWrite::at(at, message.to_owned())).map(drop)
}

pub(crate) fn read(nx: &blocking::Nexus, at: &VPath) -> Result<String, Error> {
    nx.send(SysRead::at(at)).map(|read| String::from_utf8(read.data.to_vec()).expect("it was text"))
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(done: Result<T, Error>, errno: Errno) -> Error {
    let error = done.expect_err("it is refused");
    assert_eq!(error.errno(), errno, "{error}");
    error
}
