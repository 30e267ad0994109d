//! The kernel of Nexus: its primitives as actors, the syscalls, and the traits that drivers implement.

pub mod hal;
pub mod locks;
pub mod router;
