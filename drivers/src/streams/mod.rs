//! Streams: in memory, and as a log on disk.

mod memory;
#[cfg(test)]
mod model;
mod rules;
#[cfg(all(feature = "local", unix))]
pub mod wal;

pub use memory::{MemoryStreams, MemoryStreamsConfig};
