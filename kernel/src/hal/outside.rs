//! What others change in what a driver serves by its paths.

use std::fmt;

use super::{ObjectInfo, StoreFuture};

/// What somebody else did, beside the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutsideChange {
    /// Something was made, changed, moved or removed at a path; several changes of one path may be told as one.
    At {
        /// The path below the mount point.
        path: String,
        /// What is there now; nothing when it is gone.
        now: Option<ObjectInfo>,
    },
    /// More changed than could be told: anything may be different.
    Missed,
}

/// Changes that others make, from the moment on at which this was asked for. It does not keep its store alive.
pub trait OutsideChanges: fmt::Debug + Send {
    /// The next change; none when the store is gone. Dropping the future loses none.
    fn next(&mut self) -> StoreFuture<'_, Option<OutsideChange>>;
}
