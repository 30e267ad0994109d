//! Consumer groups: the records of a stream are shared among members, each given to one of them until it is done with it, or its time is over, or it is gone.
//!
//! A group decides and applies. What it decides is a [`GroupRecord`], which changes nothing; [`Group::apply`] takes it in. Between the two [`GroupLog`] makes it durable, in a
//! stream of the group's own. So a group is what its records make it, after a crash as before.
//!
//! A record of the stream is given at least once, and again only when nobody says that he is done with it before his deadline; what was given too often is set aside as dead, and kept where it is.

mod log;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub use log::{GroupLog, GroupLogError, SNAPSHOT_EVERY};
pub use record::{GroupRecord, GroupSettings, GroupState, Held, Loose};
pub use table::{DEAD_MAX, Delivery, Group, GroupError, MEMBER_BYTES_MAX, OUTSTANDING_MAX, TAKE_MAX};
