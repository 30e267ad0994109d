//! What a group is, and what changes it: as it is stored.

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::GroupSettings;
use nexus_messages::{LifeId, Timestamp};
use serde::{Deserialize, Serialize};

/// The version of the format that every stored record begins with.
const FORMAT: u8 = 1;

/// Who takes records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The agent.
    pub agent: Arc<str>,
    /// With whose life its records go back; none for those that stay the agent's until their time is over.
    pub life: Option<LifeId>,
}

impl Member {
    /// `agent`, in this life.
    pub fn new(agent: impl Into<Arc<str>>, life: Option<LifeId>) -> Self {
        Self { agent: agent.into(), life }
    }

    /// Whether what this one took is `who`'s.
    pub fn is(&self, who: &Self) -> bool {
        self.agent == who.agent && (self.life.is_none() || self.life == who.life)
    }
}

/// A record that a member has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its offset.
    pub offset: u64,
    /// Who has it.
    pub member: Member,
    /// By which take.
    pub take: u64,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// How often it was given, this time included.
    pub deliveries: u32,
}

/// A record that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loose {
    /// Its offset.
    pub offset: u64,
    /// How often it was given.
    pub deliveries: u32,
    /// From when on it may be given again.
    pub from: Timestamp,
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
        member: Member,
        /// By which take.
        take: u64,
        /// Which, in the order of their offsets.
        offsets: Vec<u64>,
        /// Since when.
        since: Timestamp,
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
        /// Not before.
        from: Timestamp,
    },
    /// These were not given after all.
    Untaken {
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
    /// Dead records are to be given again.
    Revived {
        /// Which.
        offsets: Vec<u64>,
    },
    /// The stream begins here now.
    Head {
        /// The oldest record that is there.
        head: u64,
    },
    /// The group is gone.
    Removed,
}

impl GroupRecord {
    /// As it is stored, of the group called `name`.
    pub fn encode(&self, name: &str) -> Bytes {
        let stored = postcard::to_extend(&(name, self), vec![FORMAT]);
        // Into memory, and all of it can be written.
        stored.unwrap_or_default().into()
    }

    /// What was stored, and of which group.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, in words.
    pub fn decode(bytes: &[u8]) -> Result<(Arc<str>, Self), String> {
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
