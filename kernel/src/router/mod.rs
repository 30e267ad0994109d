//! Decides which mount serves a path.

mod routes;
mod table;

#[cfg(test)]
mod fixture;

pub use routes::{RouteTable, Routed};
pub use table::{AsMount, MOUNTS_MAX, MountId, MountTable, RouteError};
