//! Services that register with a Nexus kernel at run time.
//!
//! Each is a folder of one shape behind a feature of its own: `spec.rs` what it is configured with and declares, `service.rs` the actor,
//! `state.rs` its pure core, `hooks.rs` where it stands in the way of calls.

#[cfg(feature = "audit")]
pub mod audit;
#[cfg(feature = "quota")]
pub mod quota;
