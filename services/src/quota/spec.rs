//! What quotas are configured with, what the service declares, and what it is asked. Reading this file is reading all it can do.

use std::time::Duration;

use nexus_kernel::service::Declaration;
use nexus_messages::{Message, Result};
use serde::{Deserialize, Serialize};

use super::hooks;
use super::service::Quota;
use super::state::{ACCOUNTS_MAX, Drift, Limits, Subject, Usage};

/// How often it is counted anew unless something else is said.
const RECOUNT_S: u64 = 300;
/// How long the first count may take.
const START_MAX: Duration = Duration::from_secs(600);

/// The settings of the quota service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// Who may use how much; at most 1,024.
    pub limits: Vec<(Subject, Limits)>,
    /// Whether reads and listings are calls too, for the limit of calls a second.
    pub reads: bool,
    /// After how many seconds it is counted anew; 0 for never.
    pub recount_s: u64,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self { limits: Vec::new(), reads: false, recount_s: RECOUNT_S }
    }
}

impl QuotaConfig {
    /// Limits `subject`.
    #[must_use]
    pub fn limit(mut self, subject: Subject, limits: Limits) -> Self {
        self.limits.retain(|(other, _)| *other != subject);
        self.limits.push((subject, limits));
        self
    }
}

/// Sets the limits of `subject`, or ends them; in force when it is answered. May be repeated.
///
/// Restarts keep what was set, and so does a swap to a version that is configured with the same limits as the one before. A version that is
/// configured with others begins with those: what a configuration says anew wins. So does a boot, which knows the configuration alone; swap to one
/// with these limits to keep them over a boot.
///
/// On a path-addressed mount only calls are limited; limits of bytes and files there are set, stand for nothing, and are warned of in the log.
///
/// When it fails the limits are set, but stand for nothing before the account was counted, which is tried again. Refused with `EINVAL` when there are 1,024 accounts already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetLimits {
    /// Whose.
    pub subject: Subject,
    /// The limits; none to end them.
    pub limits: Option<Limits>,
}

impl Message for SetLimits {
    type Reply = Result<()>;
    const NAME: &'static str = "quota.set_limits";
}

/// What a subject uses, and may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Whose.
    pub subject: Subject,
    /// What it uses: what is committed and was heard of.
    pub used: Usage,
    /// What it may use.
    pub limits: Limits,
}

/// Asks for one account; `ENOENT` when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetUsage(pub Subject);

impl Message for GetUsage {
    type Reply = Result<Account>;
    const NAME: &'static str = "quota.get_usage";
}

/// Asks for all accounts, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListUsage;

impl Message for ListUsage {
    type Reply = Vec<Account>;
    const NAME: &'static str = "quota.list_usage";
}

/// Counts anew, and says by how much the accounts were off so far. They are right when it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recount;

impl Message for Recount {
    type Reply = Result<Drift>;
    const NAME: &'static str = "quota.recount";
}

/// Both versions count on the same accounts during a swap, each by its own limits unless they are configured with the same. One on trial has
/// accounts of its own, as they were when it was started: where calls are refused for their number, it may decide otherwise.
pub(super) fn declare(config: &QuotaConfig) -> Declaration<Quota> {
    let accounts = config.limits.len();
    assert!(accounts <= ACCOUNTS_MAX, "{accounts} limits are more than {ACCOUNTS_MAX}");
    let declared = Declaration::new()
        .start_within(START_MAX)
        .exports::<SetLimits>()
        .exports::<GetUsage>()
        .exports::<ListUsage>()
        .exports::<Recount>()
        .hook(hooks::changes());
    if config.reads { declared.hook(hooks::reads()) } else { declared }
}
