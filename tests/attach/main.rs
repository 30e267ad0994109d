//! Kernels that are called from elsewhere: agreement with the one at hand, rights, large content, owners that end, restart and are killed.
//!
//! Clients that do not keep to the protocol are in `src/attach/tests.rs`; every claim of the front door is also checked attached.

mod bench;

mod calls;
mod ends;
mod lives;
#[cfg(feature = "cli")]
mod processes;
mod rights;
mod watches;
