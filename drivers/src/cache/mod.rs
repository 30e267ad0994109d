//! Ephemeral stores: in memory, and in a server that speaks the Redis protocol.

mod config;
mod entries;
mod inbox;
#[cfg(feature = "redis")]
pub mod redis;
mod store;
mod topics;

pub use config::CacheConfig;
pub use store::{Clock, MemoryCache};
