//! Drivers that fail, panic, hang and are replaced: what callers see of it, and what they do not.

#![expect(clippy::disallowed_methods, reason = "the callers are threads of a program around the kernel")]

mod bench;
mod breaker;
mod cached;
mod calls;
mod dying;
mod figures;
mod folders;
mod gate;
mod mounting;
mod options;
mod outside;
mod restarts;
mod simulated;
mod swaps;
