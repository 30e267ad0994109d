//! Trees of supervisors, with actors that fail in every way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod last_word;
mod replay;
mod restarts;
mod strikes;
mod wedge;
