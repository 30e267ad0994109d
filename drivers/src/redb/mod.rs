//! The metastore on disk: rows, log and state in one file of redb.
//!
//! One redb commit a batch, durable on return. Each table of the kernel is a table of redb, and there are three more, for the log, the
//! operations that may come again, and the numbers. Several of them in one table would save nothing: a commit pays for the leaves it touches.
//!
//! Failure: what fails before the commit record was written changed nothing; the store goes on, or tries again with the next batch. What
//! fails later has an unknown outcome, and the store takes no more batches. In both cases reading goes on, on what was durable before.

mod codec;
mod config;
mod disk;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guard;
mod opened;
mod reader;
mod seal;
mod store;
mod transaction;
mod view;

pub use config::RedbConfig;
#[cfg(unix)]
pub(crate) use disk::make_whole;
pub use disk::{Disk, FileDisk};
pub(crate) use reader::Snapshot;
pub(crate) use store::Fold;
pub use store::RedbMetastore;
