//! The kernel of Nexus: its primitives as actors, the syscalls, and the traits that drivers implement.

mod caught;
pub mod dispatch;
pub mod gate;
pub mod hal;
pub mod locks;
pub mod router;
