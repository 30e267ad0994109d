//! The kernel of Nexus: its primitives as actors, the syscalls, and the traits that drivers implement.

mod caught;
mod content;
pub mod dispatch;
pub mod gate;
pub mod hal;
mod kernel;
pub mod locks;
mod mounts;
mod namespace;
pub mod router;
mod store;
pub mod sys;
mod syscalls;
mod volume;

pub use content::CONTENT_MAX;
pub use kernel::{CacheStats, Kernel, KernelConfig};
pub use mounts::{MountState, MountStatus};
pub use store::StoreStats;
pub use syscalls::Serve;
