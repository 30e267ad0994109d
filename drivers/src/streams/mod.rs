//! Streams: in memory, and as a log on disk.

mod memory;
mod rules;
#[cfg(all(feature = "local", unix))]
pub mod wal;

pub use memory::{MemoryStreams, MemoryStreamsConfig};
