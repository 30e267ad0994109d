//! Storage drivers for the Nexus kernel.

mod entries;
pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;
