//! Blobs on the local disk, many to a file: what came while a batch was being flushed is the next batch, and has one flush.
//!
//! Blobs up to [`PACKED_BYTES_MAX`] are records at the end of a log of segment files, `record`; larger ones, and those of the layout before this
//! one, are files of their own. The log is the truth: a crash can only tear what was never acknowledged, and `recovery` tells that from damage.
//! An index says where each blob is, `index`, and is written in the background, in `run`s.
//!
//! After a flush that failed nothing more is done with that segment: what waits goes to a new one, which says where the old one ends. If that
//! fails, too, the outcome is told as unknown.
//!
//! In memory, whatever the number of blobs: at most some ten thousand entries of the index, 64 open files, 4 MiB of buffers, and about 2 bytes a blob
//! that make a look-up one read.

mod buffers;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod index;
mod record;
mod recovery;
mod run;
mod segment;
mod store;
mod together;
mod transport;

#[cfg(test)]
mod beside;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod model;

pub use recovery::Damage;
pub use store::Limits;
pub use transport::{PACKED_BYTES_MAX, Packs};
