//! Everything in memory: for tests, for simulations, and for what may be gone with the process.

mod metastore;
mod nodes;
mod paths;
mod transport;

pub use metastore::MemoryMetastore;
pub use paths::{MemoryPaths, WallClock};
pub use transport::MemoryTransport;
