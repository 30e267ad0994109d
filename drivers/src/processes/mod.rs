//! Child processes of this one, on Linux.
//!
//! `host.rs` finds and starts programs, on one thread that lives as long as they may: the host kills them with it. `birth.rs` is what a new process does before it becomes
//! the program. `process.rs` is one that runs: its end is waited for without its being forgotten, so a signal never meets another process of the same number, and waits for nobody.
//! (`watched.rs`: when it is ready). `ends.rs` are this process's ends of the descriptors.

mod birth;
mod ends;
mod host;
mod process;
mod watched;

pub use host::HostProcesses;
