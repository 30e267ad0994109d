//! What the audit log is configured with, what it declares, and what it is asked. Reading this file is reading all it can do.

use std::sync::Arc;
use std::time::Duration;

use nexus_kernel::service::Declaration;
use nexus_messages::{Lsn, Message, Result, Timestamp, VPath, ZoneId};
use nexus_supervisors::Backoff;
use serde::{Deserialize, Serialize};

use super::service::Audit;
use super::state::{Broken, Entry, Gap, Log, Record};
use super::{hooks, state};

/// How large a segment grows unless something else is said. An append rewrites the segment's content, and what it was before stays on disk: half a
/// segment with each append. A smaller one would cost more files than it saves bytes.
const SEGMENT_BYTES: u64 = 4 * 1024;

/// The longest wait before a restart: what is not logged meanwhile waits in the kernel's log, which is not endless.
const RESTART_WAIT_MAX: Duration = Duration::from_millis(250);

/// The settings of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Where its files are, in the root zone.
    pub directory: VPath,
    /// A segment that has grown to so many bytes is sealed, and the next one begun. Each append leaves a copy of its segment on disk, so this times
    /// half the appends is what the log costs.
    pub segment_bytes: u64,
    /// Whether refused and failed changes are logged too.
    pub refusals: bool,
    /// Whether administrators may change its files. What they change there is logged, and found by [`Verify`].
    pub open_to_administrators: bool,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            directory: VPath::root().join("audit").unwrap_or_else(|_| VPath::root()),
            segment_bytes: SEGMENT_BYTES,
            refusals: true,
            open_to_administrators: false,
        }
    }
}

/// Waits until every change of `zone` up to and including `lsn` is in the log; gives how far the log is. Wait-free when it is already. May be
/// repeated.
///
/// Refused with `EINVAL` when nothing was committed with that LSN, or a later one, yet; with what keeps the log from going on, while something
/// does; with `ETIMEDOUT` after 30 seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtUp {
    /// The zone in whose log the commit stands.
    pub zone: ZoneId,
    /// From a receipt.
    pub lsn: Lsn,
}

impl CaughtUp {
    /// Up to `lsn` of the root zone.
    pub fn root(lsn: Lsn) -> Self {
        Self { zone: ZoneId::root(), lsn }
    }
}

impl Message for CaughtUp {
    type Reply = Result<Lsn>;
    const NAME: &'static str = "audit.caught_up";
}

/// Looks for records. Those of one zone and log, in their order, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// Whose log.
    pub zone: ZoneId,
    /// Which of the zone's logs.
    pub log: Log,
    /// Only records with a path at this one or below it.
    pub below: Option<VPath>,
    /// Only what this agent did.
    pub agent: Option<Arc<str>>,
    /// Not before this time.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Where to go on: from the previous page.
    pub after: Option<u64>,
    /// How many records at most; [`Query::RECORDS_MAX`] in any case.
    pub limit: usize,
}

/// Some of the records that were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The records, in their order.
    pub records: Vec<Record>,
    /// Where to go on; none at the end of the log. A page may be short of its limit, even empty, and not be the last.
    pub next: Option<u64>,
}

impl Query {
    /// How many records a page has at most.
    pub const RECORDS_MAX: usize = 1_000;

    /// The changes of the root zone, from the first on.
    pub fn root() -> Self {
        Self::zone(ZoneId::root())
    }

    /// The changes of `zone`, from the first on.
    pub fn zone(zone: ZoneId) -> Self {
        Self {
            zone,
            log: Log::Changes,
            below: None,
            agent: None,
            from: None,
            until: None,
            after: None,
            limit: Self::RECORDS_MAX,
        }
    }

    /// What was refused or failed, rather than what was changed.
    #[must_use]
    pub fn refusals(mut self) -> Self {
        self.log = Log::Refusals;
        self
    }

    /// Only records with a path at `base` or below it.
    #[must_use]
    pub fn below(mut self, base: VPath) -> Self {
        self.below = Some(base);
        self
    }

    /// Only what `agent` did, or was refused.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<Arc<str>>) -> Self {
        self.agent = Some(agent.into());
        self
    }

    /// Only what happened at `from` or later, and before `until`.
    #[must_use]
    pub fn between(mut self, from: Timestamp, until: Timestamp) -> Self {
        (self.from, self.until) = (Some(from), Some(until));
        self
    }

    /// At most `limit` records in one page.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on where a page ended.
    #[must_use]
    pub fn after(mut self, next: u64) -> Self {
        self.after = Some(next);
        self
    }
}

impl Message for Query {
    type Reply = Result<Page>;
    const NAME: &'static str = "audit.query";
}

/// Checks the whole chain of one log, and the changes against the kernel's own log as far as that goes back. Reads all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// Whose log.
    pub zone: ZoneId,
    /// Which of the zone's logs.
    pub log: Log,
}

/// What was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many segments were read.
    pub segments: u64,
    /// How many records are in order, from the first on.
    pub records: u64,
    /// Where the log is not what was written; none when all of it is.
    pub broken: Option<Broken>,
    /// What the log says it does not have, up to there; [`Verified::GAPS_MAX`] at most.
    pub gaps: Vec<Gap>,
    /// How many changes, or refusals, the log says it does not have, up to there.
    pub missing: u64,
}

impl Verified {
    /// How many gaps are told one by one.
    pub const GAPS_MAX: usize = 1_000;

    /// Takes note of what `record` says is not in the log.
    pub(super) fn note_missing(&mut self, record: &Record) {
        match record.entry {
            Entry::Gap { from, to } => {
                self.missing = self.missing.saturating_add(to.0.saturating_sub(from.0).saturating_add(1));
                if self.gaps.len() < Self::GAPS_MAX {
                    self.gaps.push(Gap { n: record.n, from, to });
                }
            }
            Entry::Missed { refusals } => self.missing = self.missing.saturating_add(refusals),
            _ => {}
        }
    }
}

impl Verify {
    /// The changes of the root zone.
    pub fn root() -> Self {
        Self { zone: ZoneId::root(), log: Log::Changes }
    }

    /// What was refused or failed in the root zone.
    pub fn refusals() -> Self {
        Self { zone: ZoneId::root(), log: Log::Refusals }
    }
}

impl Message for Verify {
    type Reply = Result<Verified>;
    const NAME: &'static str = "audit.verify";
}

/// Overlap is safe although both versions append: an append names the generation of the file that it knows, so only one of two succeeds,
/// and the other reads again how far the log is.
pub(super) fn declare(config: &AuditConfig) -> Declaration<Audit> {
    assert!(
        !config.directory.is_root(),
        "its directory cannot be the root: nobody else could change anything"
    );
    let declared = Declaration::new()
        .backoff(Backoff { max: RESTART_WAIT_MAX, ..Backoff::default() })
        .mailbox(state::REFUSALS_MAX)
        .exports::<CaughtUp>()
        .exports::<Query>()
        .exports::<Verify>()
        .hook(hooks::protect());
    if config.refusals { declared.hook(hooks::refusals()) } else { declared }
}
