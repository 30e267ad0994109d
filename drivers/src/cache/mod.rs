//! An ephemeral store in memory.

mod config;
mod entries;
mod store;
mod topics;

pub use config::CacheConfig;
pub use store::{Clock, MemoryCache};
