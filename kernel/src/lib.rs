//! The kernel of Nexus: its primitives as actors, the syscalls, and the traits that drivers implement.

pub mod advisory;
pub mod cache;
mod caught;
pub mod children;
mod content;
pub mod dispatch;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod garbage;
pub mod gate;
pub mod hal;
mod kernel;
mod lives;
pub mod locks;
mod metrics;
mod mounts;
mod namespace;
mod owned;
pub mod pipes;
mod pruning;
mod registry;
pub mod router;
mod scrub;
mod semaphore;
pub mod service;
mod store;
pub mod streams;
pub mod sys;
mod syscalls;
mod underway;
mod volume;
pub mod watcher;

pub use content::{CALL_MAX, CONTENT_MAX};
pub use garbage::{Collection, CollectionState, Freed, GarbageConfig};
pub use kernel::{CacheStats, Kernel, KernelConfig};
pub use lives::Life;
pub use mounts::{
    CallTimes, DriverCalls, DriverFailure, DriverTimes, MigrateOrder, MigrationState, MigrationStatus,
    MountState, MountStatus,
};
pub use pipes::{GivenMessage, MappedPipe, SharedRegion};
pub use registry::{ServiceState, ServiceStatus};
pub use scrub::{Check, CheckState, Fault, Finding, Remedy, ScrubConfig};
pub use semaphore::{Permit, PermitInfo, Semaphore, SemaphoreInfo};
pub use store::StoreStats;
pub use syscalls::{ContentReader, PipeReader, PipeWriter, Serve};
