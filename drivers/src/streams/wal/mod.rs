//! Streams as a log on disk.
//!
//! ```text
//! appends of many writers → frames, one each → one write and one flush → memory, for readers that follow → answers
//! ```
//!
//! All streams of a folder share one log: a flush costs as much as hundreds of appends, and flushes of several files at once do not get faster, so what
//! came for any stream while one flush went on shares the next. The price is that the records of a stream lie between those of others. So beside
//! each segment stands an index, `index`, that tells for each stream where its appends are; and space comes back by whole segments, so what little is alive in one that is mostly dead is moved to the
//! end of the log.
//!
//! Each segment begins with what all streams are, `record`; opening reads the last segment and the tables of the indexes of the others, whatever the number of records, `recovery`.
//!
//! Failure: what could not be written is not executed, and that is told when the disk is full, too. After a flush that failed nothing is known of the batch, and no further one is taken:
//! the streams are read-only until they are opened again. A disk that is full keeps nothing from being read and let go of: to open takes no room then, `recovery`, what lets go has
//! its own, `store`, and so has the segment that is begun to give space back, `spare`. What is damaged is told by reads of it, and by opening when it is in the last segment.

mod config;
mod cut;
mod draft;
mod driver;
#[cfg(all(any(test, feature = "fuzzing"), feature = "redb"))]
pub(crate) mod fuzzing;
mod index;
mod late;
mod proof;
mod reading;
mod record;
mod recovery;
mod salt;
mod spare;
mod store;
mod table;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod full;
#[cfg(test)]
mod model;

pub use config::WalStreamsConfig;
pub use cut::{DamagedStreams, LostRecords, StreamsCut, StreamsDamage, StreamsPlace};
pub use driver::WalStreams;
pub use late::LateStreams;
