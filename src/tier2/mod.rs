//! Tier 2: what a caller wants most of the time, each on top of one syscall.
//!
//! Every method takes a path as a [`VPath`](crate::VPath) or as text, and names itself in its errors.

mod batch;
mod children;
mod content;
mod entries;
mod glob;
mod grep;
mod group;
pub(crate) mod locks;
mod mapped;
mod mounts;
mod pipe;
mod records;
mod stream;
mod sys;
mod tx;
mod walk;
mod watch;

pub use children::ChildHandle;
pub use grep::{FileMatches, Grep, GrepReport, GrepStats, GrepStream, Line};
pub use group::Consumer;
pub use locks::LockGuard;
pub use mapped::MappedStream;
pub use pipe::{PipeReader, PipeWriter};
pub use records::StreamReader;
pub use stream::ContentStream;
pub use tx::Tx;
pub use walk::Walk;
pub use watch::{EventStream, WatchBuilder, WatchItem};
