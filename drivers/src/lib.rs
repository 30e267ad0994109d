//! Storage drivers for the Nexus kernel.

pub mod cache;
pub mod cas;
mod catalogue;
mod entries;
#[cfg(all(feature = "local", unix))]
pub mod local;
pub mod memory;
mod path;
#[cfg(all(feature = "local", unix))]
mod pooled;
#[cfg(feature = "redb")]
pub mod redb;

pub use catalogue::catalogue;
