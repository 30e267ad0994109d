//! Pipes, through the front door: what a reader and a writer may rely on, the ends, the entry, and many at once.
//!
//! The ring itself is held to a model and to loom in `actors`.

mod attached;
mod bench;
mod crowds;
mod ends;
mod entries;
mod given_up;
mod messages;
mod simulated;
mod watched;
