//! What a group is, and what changes it: as it is stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the format that every stored record begins with.
const FORMAT: u8 = 1;

/// How a group shares its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupSettings {
    /// For how long a record is a member's before it is given to another.
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
    /// Sets for how long a record is a member's.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how often a record is given.
    #[must_use]
    pub fn deliveries_max(mut self, deliveries: u32) -> Self {
        self.deliveries_max = deliveries.max(1);
        self
    }
}

/// A record that a member has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its offset.
    pub offset: u64,
    /// Who has it.
    pub member: Arc<str>,
    /// Until when.
    pub until: Timestamp,
    /// How often it was given, this time included.
    pub deliveries: u32,
}

/// A record that was given, and that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loose {
    /// Its offset.
    pub offset: u64,
    /// How often it was given.
    pub deliveries: u32,
}

/// All that a group is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// How it shares its stream.
    pub settings: GroupSettings,
    /// The first record that was never given.
    pub next: u64,
    /// Those that members have, by their offsets.
    pub held: Vec<Held>,
    /// Those that are to be given again, by their offsets.
    pub waiting: Vec<Loose>,
    /// Those that were given too often, by their offsets.
    pub dead: Vec<Loose>,
    /// How many dead ones are no longer listed, because there were too many.
    pub dead_unlisted: u64,
    /// How many were let go of by the stream before anybody was done with them.
    pub lost: u64,
}

/// A change of a group. Decided by [`Group`](super::Group), with all that it depends on, so applying it is the same at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GroupRecord {
    /// The group is this: what it begins with, and what stands for all records before it.
    Snapshot(GroupState),
    /// It shares its stream like this from now on.
    Settings(GroupSettings),
    /// A member has these records.
    Taken {
        /// Who.
        member: Arc<str>,
        /// Which, in the order of their offsets.
        offsets: Vec<u64>,
        /// Until when.
        until: Timestamp,
    },
    /// Members are done with these.
    Done {
        /// Which.
        offsets: Vec<u64>,
    },
    /// These are to be given again.
    Freed {
        /// Which.
        offsets: Vec<u64>,
    },
    /// These were given too often.
    Died {
        /// Which.
        offsets: Vec<u64>,
    },
    /// A member has these for longer.
    Extended {
        /// Which.
        offsets: Vec<u64>,
        /// Until when.
        until: Timestamp,
    },
    /// Dead records were looked at, and are listed no more.
    Buried {
        /// Which.
        offsets: Vec<u64>,
    },
    /// The stream begins here now.
    Head {
        /// The oldest record that is there.
        head: u64,
    },
}

impl GroupRecord {
    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let stored = postcard::to_extend(self, vec![FORMAT]);
        // Into memory, and all of it can be written.
        stored.unwrap_or_default().into()
    }

    /// What was stored.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => match postcard::take_from_bytes(rest) {
                Ok((record, [])) => Ok(record),
                Ok((_, behind)) => Err(format!("{} bytes behind it", behind.len())),
                Err(error) => Err(error.to_string()),
            },
            Some((other, _)) => Err(format!("format {other}, which this version does not know")),
            None => Err("it is empty".into()),
        }
    }
}
