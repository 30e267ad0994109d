//! Mounts whose files move to another driver while they are used: what callers see of it, what is there in the end, and what is left when it does not come
//! to its end.

#![expect(clippy::disallowed_methods, reason = "the callers are threads of a program around the kernel")]

mod bench;
mod load;
mod odd;

#[cfg(target_os = "linux")]
mod closed;
mod contents;
mod crashes;
mod crossing;
mod early;
mod ends;
mod failing;
mod files;
mod gone;
mod killed;
#[cfg(target_os = "linux")]
mod names;
mod refused;
mod uploads;
