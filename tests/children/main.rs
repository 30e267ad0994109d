//! Child processes whose standard input and output are paths: real programs, that every Debian has.
#![cfg(target_os = "linux")]

mod attached;
mod bench;
mod deaths;
mod ends;
mod entries;
mod framing;
mod given_up;
mod restarts;
mod starting;
