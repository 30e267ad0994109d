//! Consumer groups: the records of a stream are shared among members, each given to one of them until it is done with it, or its time is over, or it is gone.
//!
//! A group decides and applies. What it decides is a [`GroupRecord`], which changes nothing; [`Group::apply`] takes it in. [`GroupLog`] makes durable what was decided, in a
//! stream beside the one that is shared, for all of its groups. So a group is what its records make it, after a crash as before. `desk.rs` is where callers come: what they ask for is decided and
//! applied at once, on their own tasks, and told when it is durable; what came meanwhile is made so together. When that fails, the groups are read again.
//!
//! A record of the stream is given at least once, and again only when nobody says that he is done with it before his deadline; what was given too often is set aside as dead, and kept where it is.
//! No actor is needed: whoever waits for records sees to those whose time is over.

mod desk;
mod log;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub(super) use desk::GroupTotals;
pub(crate) use desk::{Ask, Deciding, Desk, Given};
pub use log::{GroupChange, GroupLog, GroupLogError, Groups, SNAPSHOT_EVERY, apply, log_of, stream_of};
pub use record::{GroupRecord, GroupState, Held, Loose, Member};
pub use table::{DEAD_MAX, Delivery, Group, GroupError, OUTSTANDING_MAX, TAKE_MAX, Wish};

/// The most groups that one stream has.
pub const GROUPS_MAX: usize = 64;
