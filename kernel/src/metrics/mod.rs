//! What the kernel counts. Anybody may count, on whatever thread; reading adds up.
//!
//! Numbers belong to the kernel and not to an actor, so they outlive every crash. A call that is answered from memory is counted and
//! not timed: reading the clock twice would cost as much as the call.

mod exposition;
mod histogram;
mod shard;
mod syscalls;

pub(crate) use exposition::{Exposition, Kind, MIME};
pub use histogram::Bucket;
pub(crate) use histogram::{DURATIONS, Histogram, Measured};
pub(crate) use shard::{Counter, Lines};
pub use syscalls::SyscallEntry;
pub(crate) use syscalls::Syscalls;
