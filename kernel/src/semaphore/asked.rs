//! Who asks for a place, and what for.

use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::LockKind;
use nexus_messages::{EntryType, LifeId, ZoneId};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The agent's name, for listings.
    pub(crate) agent: Arc<str>,
    /// The zone whose paths it asks by, where that is not the zone of what it asks for.
    pub(crate) zone: Option<ZoneId>,
    pub(crate) admin: bool,
    /// For whom it asks, if that was said.
    pub(crate) user: Option<Arc<str>>,
    /// The life and the activity in it: who waits for itself is found by these.
    pub(crate) life: LifeId,
    pub(crate) session: u64,
}

impl Owner {
    /// The agent of this name, where it asks by paths of the zone that it asks for, without the administrator's capability.
    pub(crate) fn new(agent: Arc<str>, life: LifeId, session: u64) -> Self {
        Self { agent, zone: None, admin: false, user: None, life, session }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) kind: LockKind,
    pub(crate) ttl: Duration,
    pub(crate) owner: Owner,
    /// What was there when it was asked for.
    pub(crate) entry_type: EntryType,
    /// Whether it goes with the life of its owner.
    pub(crate) tied: bool,
    /// Whether it is to outlive the process.
    pub(crate) durable: bool,
}
