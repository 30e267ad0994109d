//! The metastore behind a write-ahead log of its own: one append and one flush a batch.
//!
//! ```text
//! batch → frame appended to the log → flushed → rows in memory → (aside) folded into the database → the log's segments used again
//! ```
//!
//! Reads see the rows in memory over those in the database. A fold is one commit of the database, after which opening it needs no walk; what
//! the log holds beyond it is read again on opening. Records of the log of changes, and the operations that may come again, go the same way.
//!
//! Failure: a frame that was not written is not executed. After a flush that failed nothing is known of the batch, and no further one is taken:
//! the store is read-only until it is opened again. A fold that fails is tried again, and meanwhile the log grows up to its bound.

mod config;
mod damage;
mod frame;
#[cfg(all(any(test, feature = "fuzzing"), feature = "local"))]
pub(crate) mod fuzzing;
mod journal;
mod layer;
mod recent;
mod segment;
mod state;
mod store;

pub use config::WalConfig;
pub use damage::{Cut, DamagedLog, LOST_MAX, LogDamage, Lost};
pub use store::WalMetastore;
