//! Everything in memory: for tests, for simulations, and for what may be gone with the process.

mod metastore;

pub use metastore::MemoryMetastore;
