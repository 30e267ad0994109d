//! Calls against a file system that is too simple to be wrong.
//!
//! `random`: random calls, with the kernel stopped, killed and opened again among them; answers, and all that can be seen, are compared after each.
//! `crashes`: on a disk that loses what was not flushed, each point at which a crash can come.
//! `streams`: on such a disk, what is appended to streams, what members of their groups are done with, and what a watch is told that goes on from a place in the log.
//! `faults`: on a disk that fails, each operation that can fail.

#![expect(clippy::print_stdout, reason = "a campaign says how much it looked at")]

mod calls;
mod client;
mod crashes;
mod disk;
mod faults;
mod random;
mod streams;
mod tree;
