//! Which mounts there are, and how they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use nexus_actors::Env;
use nexus_messages::{FileId, Timestamp, VPath, ZoneId};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::driver::actor_name;
use super::health::{DriverCalls, DriverFailure, Standing};
use super::mount::Mount;

/// Which mounts there are, by the identity of their roots: each from the commit that attaches it on, until the commit that puts it away.
///
/// Who holds the lock of the mount point changes it, right after the commit. It belongs to no incarnation of the lifecycle's actor, for what is committed is
/// finished without it, too.
#[derive(Debug, Default)]
pub(crate) struct MountsView(RwLock<BTreeMap<FileId, Arc<Mount>>>);

impl MountsView {
    pub(super) fn list(&self, mount: &Arc<Mount>) {
        self.0.write().insert(mount.root, mount.clone());
    }

    pub(super) fn unlist(&self, mount: &Mount) {
        self.0.write().remove(&mount.root);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Mount>> {
        self.0.read().values().cloned().collect()
    }

    /// The state of each mount, in the order of their points.
    pub(crate) fn statuses(&self, env: &Env) -> Vec<MountStatus> {
        let mut statuses: Vec<_> = self.all().iter().map(|mount| MountStatus::of(mount, env)).collect();
        statuses.sort_by(|a: &MountStatus, b| (&a.zone, &a.point).cmp(&(&b.zone, &b.point)));
        statuses
    }
}

/// A mount, as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MountStatus {
    /// The zone.
    pub zone: ZoneId,
    /// Where.
    pub point: VPath,
    /// The driver's name in the catalogue.
    pub driver: String,
    /// The options of the mount and of its driver.
    pub options: BTreeMap<String, String>,
    /// Whether changes are refused.
    pub read_only: bool,
    /// How it is.
    pub state: MountState,
    /// How often the driver was replaced, by a restart or a swap.
    pub generation: u64,
    /// The driver's actor, as a path of the supervision tree.
    pub actor: String,
    /// How many calls are inside the driver now.
    pub in_flight: usize,
    /// How the calls of the driver went.
    pub calls: DriverCalls,
    /// The latest failure, of a call or of an attempt to open the driver. It stays when all is well again.
    pub last_failure: Option<DriverFailure>,
}

/// How a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountState {
    /// It serves.
    Serving,
    /// Its driver failed too often in a row. Calls that need the driver are refused; what is cached and what is in the metastore is served.
    Degraded {
        /// The latest failure.
        cause: String,
        /// When the next call is let pass, to see.
        retry_at: Timestamp,
    },
    /// Its driver is being opened anew. Until then the old one serves, if there is one.
    Restarting {
        /// Why.
        cause: String,
    },
    /// Its driver could not be opened.
    Failed {
        /// Why.
        cause: String,
        /// When it is tried again.
        retry_at: Timestamp,
    },
}

impl MountState {
    fn of(mount: &Mount, env: &Env) -> Self {
        let (now, health) = (env.now(), mount.health());
        let at = |until: Instant| {
            let nanos = until.saturating_duration_since(now).as_nanos();
            Timestamp(env.wall().saturating_add(u64::try_from(nanos).unwrap_or(u64::MAX)))
        };
        match (health.standing(), health.refuses_until(now)) {
            (Standing::Failed { cause, until }, _) => {
                Self::Failed { cause: cause.to_string(), retry_at: at(until) }
            }
            (Standing::Opening { cause }, _) => Self::Restarting { cause: cause.to_string() },
            (Standing::Good, Some(until)) => {
                Self::Degraded { cause: health.cause().to_string(), retry_at: at(until) }
            }
            (Standing::Good, None) => Self::Serving,
        }
    }
}

impl MountStatus {
    fn of(mount: &Mount, env: &Env) -> Self {
        let spec = mount.spec();
        Self {
            zone: mount.zone.clone(),
            point: mount.point.clone(),
            driver: spec.driver.clone(),
            options: spec.options.clone(),
            read_only: mount.is_read_only(),
            state: MountState::of(mount, env),
            generation: mount.driver_generation(),
            actor: format!("nexus/drivers/{}", actor_name(mount)),
            in_flight: mount.in_flight(),
            calls: mount.health().calls(),
            last_failure: mount.health().latest(),
        }
    }
}
