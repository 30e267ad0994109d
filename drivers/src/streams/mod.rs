//! Streams: in memory, in memory that processes share, and as a log on disk.

mod memory;
#[cfg(test)]
mod model;
mod rules;
#[cfg(unix)]
mod shared;
#[cfg(all(test, target_os = "linux"))]
mod shared_tests;
#[cfg(all(feature = "local", unix))]
pub mod wal;

pub use memory::{MemoryStreams, MemoryStreamsConfig};
#[cfg(unix)]
pub use shared::{SharedStream, SharedStreams, SharedStreamsConfig};
