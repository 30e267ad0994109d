//! Consumer groups: the records of a stream, shared among those who work on them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Record, StreamStart};
use crate::path::VPath;
use crate::time::Timestamp;

/// How long the name of a group is at most, in bytes.
pub const GROUP_NAME_MAX: usize = 64;

/// How many records one call takes or names at most.
pub const GROUP_RECORDS_MAX: usize = 256;

/// How a group shares its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupSettings {
    /// For how long a record is its taker's before it is given to another, if the take says nothing else.
    pub deadline: Duration,
    /// How often a record is given before it is set aside as dead; at least once.
    pub deliveries_max: u32,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(60), deliveries_max: 5 }
    }
}

impl GroupSettings {
    /// The shortest time for which a record can be somebody's.
    pub const DEADLINE_MIN: Duration = Duration::from_millis(1);
    /// The longest time for which a record can be somebody's who does not extend it, or be kept back before it is given again.
    pub const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// Sets for how long a record is its taker's.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how often a record is given.
    #[must_use]
    pub fn deliveries_max(mut self, deliveries: u32) -> Self {
        self.deliveries_max = deliveries;
        self
    }

    /// Whether a record can be somebody's for so long.
    pub fn is_deadline(deadline: Duration) -> bool {
        (Self::DEADLINE_MIN..=Self::DEADLINE_MAX).contains(&deadline)
    }
}

/// Takes records of the stream at `path` for its consumer group `group`: each record is given to one taker at a time, until it is acknowledged. It is given again when
/// its taker gives it back, lets its time pass, or, if the take is [tied](Self::tied), ends his life: then it is another's. So each is given at least once. First come those
/// that were given before, then new ones, each in their order. That a record was given is as durable as its stream is.
///
/// Dropping the call's future gives back what it was given, and does not count as a delivery.
///
/// # Errors
/// `ENOENT` when there is no such group, or the stream is removed, also meanwhile; `ETIMEDOUT` when it waited in vain; `EAGAIN` when it does not wait and as many records
/// are with takers as may be; `EINVAL` for a name that no group has, and for a time out of bounds; `EOPNOTSUPP` for what is no stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysTake {
    /// The stream.
    pub path: VPath,
    /// The group.
    pub group: Arc<str>,
    /// How many records at most; 0 counts as 1, and more than [`GROUP_RECORDS_MAX`] as that.
    pub records_max: u32,
    /// How many bytes at most, by their content and four bytes each; the first one always may.
    pub bytes_max: u64,
    /// How long to wait for the first one; none not to wait.
    pub wait: Option<Duration>,
    /// For how long they are the taker's; none for as long as the group says.
    pub hold: Option<Duration>,
    /// Whether they go back with the life of who takes them: with the handle, the service, or the connection. Otherwise they are whoever's who calls under the same name, until
    /// their time is over, also over the end of the process.
    pub tied: bool,
    /// A number by which all that this take was given can be named; 0 for one that nobody names so.
    pub number: u64,
}

/// A record that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delivered {
    /// The record.
    pub record: Record,
    /// How often it was given, this time included.
    pub deliveries: u32,
}

impl Delivered {
    /// This record, given so often.
    pub fn new(record: Record, deliveries: u32) -> Self {
        Self { record, deliveries }
    }
}

/// What [`SysTake`] gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Taken {
    /// The records, in the order of their offsets but for those that were given before. None: there was nothing.
    pub records: Vec<Delivered>,
    /// How many records the stream has let go of, since the group is there, before anybody acknowledged them.
    pub lost: u64,
}

impl Taken {
    /// These records.
    pub fn new(records: Vec<Delivered>, lost: u64) -> Self {
        Self { records, lost }
    }
}

/// Makes, settles, shows or removes consumer groups of the stream at `path`.
///
/// A group keeps which records are acknowledged as durably as its stream keeps them, and goes with it.
///
/// # Errors
/// `ENOENT` when there is no such group; `EPERM` when a record is not the caller's, or not any more: nothing is settled then; `EINVAL` for a name that no group has, for more than
/// [`GROUP_RECORDS_MAX`] records at once, and for a time out of bounds; `ENOSPC` when the stream has as many groups as may be; `EOPNOTSUPP` for what is no stream. `EACCES`: changing
/// and removing a group needs the right to write the stream, and all else to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysGroup {
    /// The stream.
    pub path: VPath,
    /// The group. Of no matter when all are listed.
    pub group: Arc<str>,
    /// What is to be done.
    pub action: GroupAction,
}

/// What [`SysGroup`] does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GroupAction {
    /// Makes the group, which gives records from `start` on; nothing happens when there is one, however it was made.
    Join {
        /// Where it begins.
        start: StreamStart,
        /// How it shares its stream.
        settings: GroupSettings,
    },
    /// Lets the group share its stream like this from now on.
    Configure(GroupSettings),
    /// The caller is done with these: they are not given again.
    Acknowledge(Chosen),
    /// Gives these back: they are given again after `delay`, or are set aside as dead when they were given too often.
    GiveBack {
        /// Chosen.
        which: Chosen,
        /// How long nobody is given them.
        delay: Duration,
    },
    /// Gives all back that the take with this [number](SysTake::number) was given, as if it had not been.
    Untake(u64),
    /// Keeps these for as long from now on; none for as long as the group says.
    Extend {
        /// Chosen.
        which: Chosen,
        /// For how long.
        hold: Option<Duration>,
    },
    /// Lists these dead records no more.
    Bury(Vec<u64>),
    /// Gives these dead records again, as if they had never been given.
    Revive(Vec<u64>),
    /// Tells who has which records, which are to be given again, and which are dead.
    Inspect,
    /// Tells how far each group of the stream is.
    List,
    /// Removes the group. Who waits is told. Nothing happens when there is none.
    Remove,
}

/// Records that the caller has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Chosen {
    /// Those at these offsets; all have to be the caller's.
    Records(Vec<u64>),
    /// All of the caller's up to this offset, and this one.
    UpTo(u64),
    /// All of the caller's.
    All,
}

impl From<u64> for Chosen {
    fn from(offset: u64) -> Self {
        Self::Records(vec![offset])
    }
}

impl From<Vec<u64>> for Chosen {
    fn from(offsets: Vec<u64>) -> Self {
        Self::Records(offsets)
    }
}

/// What [`SysGroup`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GroupDone {
    /// The group is there; whether it was made.
    Joined(bool),
    /// So many records were settled, or so many groups changed or removed.
    Settled(u64),
    /// The group, and its records.
    Inspected(GroupDetail),
    /// The groups, by their names.
    Listed(Vec<GroupInfo>),
}

/// How far a group is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Its name.
    pub name: Arc<str>,
    /// How it shares its stream.
    pub settings: GroupSettings,
    /// The first record that was never given.
    pub next: u64,
    /// All records before this one are acknowledged, dead or lost.
    pub finished: u64,
    /// How many records are neither: those that were not given yet, and the two that follow.
    pub lag: u64,
    /// How many are with somebody.
    pub held: u64,
    /// How many are to be given again.
    pub waiting: u64,
    /// How many were given too often.
    pub dead: u64,
    /// How many the stream has let go of before anybody acknowledged them.
    pub lost: u64,
}

/// A group, and its records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupDetail {
    /// How far it is.
    pub info: GroupInfo,
    /// The records that somebody has, by their offsets.
    pub held: Vec<HeldRecord>,
    /// The records that are to be given again, by their offsets.
    pub waiting: Vec<LooseRecord>,
    /// The dead ones, by their offsets; the oldest are not listed when there are too many. They are where they were: read them from the stream.
    pub dead: Vec<LooseRecord>,
}

impl GroupDetail {
    /// A group that is so far, with no records listed.
    pub fn new(info: GroupInfo) -> Self {
        Self { info, ..Self::default() }
    }
}

/// A record that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeldRecord {
    /// Its offset.
    pub offset: u64,
    /// Who has it.
    pub agent: Arc<str>,
    /// Since when.
    pub since: Timestamp,
    /// Until when, if he does not extend it.
    pub until: Timestamp,
    /// How often it was given.
    pub deliveries: u32,
}

impl HeldRecord {
    /// The record at `offset`, which `agent` has from `since` until `until`.
    pub fn new(offset: u64, agent: Arc<str>, since: Timestamp, until: Timestamp, deliveries: u32) -> Self {
        Self { offset, agent, since, until, deliveries }
    }
}

/// A record that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LooseRecord {
    /// Its offset.
    pub offset: u64,
    /// How often it was given.
    pub deliveries: u32,
}

impl LooseRecord {
    /// The record at `offset`, given so often.
    pub fn new(offset: u64, deliveries: u32) -> Self {
        Self { offset, deliveries }
    }
}

impl SysTake {
    /// Takes as many records as one call gives, without waiting, for as long as the group says. They go with the life of who takes them.
    pub fn new(path: impl Into<VPath>, group: impl Into<Arc<str>>) -> Self {
        Self {
            path: path.into(),
            group: group.into(),
            records_max: u32::MAX,
            bytes_max: u64::MAX,
            wait: None,
            hold: None,
            tied: true,
            number: 0,
        }
    }

    /// At most so many records.
    #[must_use]
    pub fn records_max(mut self, records: u32) -> Self {
        self.records_max = records;
        self
    }

    /// At most so many bytes.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Waits for up to `wait`.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Keeps them for so long.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Keeps them over the end of the caller's life; see [`tied`](Self::tied).
    #[must_use]
    pub fn untied(mut self) -> Self {
        self.tied = false;
        self
    }
}

impl SysGroup {
    /// Does this to the group.
    pub fn new(path: impl Into<VPath>, group: impl Into<Arc<str>>, action: GroupAction) -> Self {
        Self { path: path.into(), group: group.into(), action }
    }

    /// Makes the group if it is missing.
    pub fn join(
        path: impl Into<VPath>,
        group: impl Into<Arc<str>>,
        start: impl Into<StreamStart>,
        settings: GroupSettings,
    ) -> Self {
        Self::new(path, group, GroupAction::Join { start: start.into(), settings })
    }

    /// Lists the groups of the stream.
    pub fn list(path: impl Into<VPath>) -> Self {
        Self::new(path, "", GroupAction::List)
    }
}
