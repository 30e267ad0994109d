//! What can be seen of the watches.

use std::sync::Arc;

use nexus_messages::{EventKind, Lsn, Timestamp, VPath, ZoneId};
use serde::{Deserialize, Serialize};

use super::scope::Scope;
use super::subscription::Subscription;

/// One watch that somebody waits on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchInfo {
    /// Its number, never given again by this kernel.
    pub id: u64,
    /// The agent that watches.
    pub agent: Arc<str>,
    /// The agent's zone.
    pub zone: ZoneId,
    /// The path that is watched, links followed.
    pub path: VPath,
    /// Whether what is below it is watched, too.
    pub recursive: bool,
    /// The pattern that paths below it must match, if there is one.
    pub glob: Option<String>,
    /// The names of the events that it waits for.
    pub mask: Vec<String>,
    /// Where its owner asked to be told from; none for from then on.
    pub since: Option<Lsn>,
    /// When it began.
    pub at: Timestamp,
    /// Events that wait for its owner.
    pub queued: usize,
    /// Whether something did not fit, which the owner has not seen yet.
    pub overflowed: bool,
    /// Events that were queued for it so far.
    pub delivered: u64,
    /// How often something did not fit.
    pub overflows: u64,
}

impl WatchInfo {
    pub(crate) fn of(one: &Subscription) -> Self {
        let (queued, overflowed) = one.queued();
        let (delivered, overflows) = one.counts();
        let mask = EventKind::ALL.iter().filter(|kind| one.mask.contains(**kind));
        Self {
            id: one.id,
            agent: one.caller.agent.clone(),
            zone: one.caller.zone.clone(),
            path: one.base.clone(),
            recursive: !matches!(one.scope, Scope::Entry),
            glob: match &one.scope {
                Scope::Glob(pattern) => Some(pattern.text().to_owned()),
                Scope::Entry | Scope::Subtree => None,
            },
            mask: mask.map(|kind| kind.name().to_owned()).collect(),
            since: one.since,
            at: one.at,
            queued,
            overflowed,
            delivered,
            overflows,
        }
    }
}

/// What was counted of the watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatistics {
    /// Watches that somebody waits on.
    pub watches: usize,
    /// Events that were queued for watches, each as often as it was.
    pub delivered: u64,
    /// How often a queue was full, and its owner had to go on from the log.
    pub overflows: u64,
    /// Commits that somebody is to be told of and that are not on disk, or whose locks are not gone.
    pub waiting: usize,
}
