//! Nexus: an operating-system kernel for AI agents, as a library.
pub mod blocking;
mod boot;
mod closing;
mod config;
mod folder;
mod handle;
mod profile;
mod tier2;

pub use bytes::Bytes;
pub use config::Config;
pub use handle::{Nexus, connect};
pub use nexus_actors::{Env, ExitReason, HostConfig, Simulation};
pub use nexus_kernel::gate::Right;
pub use nexus_kernel::{Kernel, MountState, MountStatus, StoreStats, dispatch, gate, hal};
pub use nexus_messages::syscall::*;
pub use nexus_messages::*;
pub use nexus_supervisors::{Kill, TreeStatus};
pub use profile::{Profile, UnknownProfile};
pub use tier2::{FileMatches, Grep, GrepReport, GrepStats, GrepStream, Line, Walk};
