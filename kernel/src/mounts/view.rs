//! How the mounts are, as administrators see it.

use std::collections::BTreeMap;
use std::time::Instant;

use nexus_actors::Env;
use nexus_messages::{Timestamp, VPath, ZoneId};
use serde::{Deserialize, Serialize};

use super::driver::actor_name;
use super::figures::{CallKind, DriverTimes};
use super::health::{DriverCalls, DriverFailure, Standing};
use super::mount::Mount;
use super::table::Mounts;
use crate::hal::{CacheFigures, Catalogue, ConnectorCategory, PathCapabilities};
use crate::metrics::Measured;

impl Mounts {
    /// The state of each mount, in the order of their points.
    pub(crate) fn statuses(&self, env: &Env, catalogue: &Catalogue) -> Vec<MountStatus> {
        let mut statuses: Vec<_> =
            self.all().iter().map(|mount| MountStatus::of(mount, env, catalogue)).collect();
        statuses.sort_by(|a: &MountStatus, b| (&a.zone, &a.point).cmp(&(&b.zone, &b.point)));
        statuses
    }

    /// How long the calls of each mount's driver took, range by range.
    pub(crate) fn measured(&self) -> Vec<MountTimes> {
        let all = self.all();
        let of = |mount: &Mount| MountTimes {
            zone: mount.zone.clone(),
            point: mount.point.clone(),
            driver: mount.spec().driver.clone(),
            kinds: CallKind::ALL.map(|kind| (kind, mount.health().figures().measured(kind))),
        };
        all.iter().map(|mount| of(mount)).collect()
    }
}

/// How long the calls of one mount's driver took.
pub(crate) struct MountTimes {
    pub(crate) zone: ZoneId,
    pub(crate) point: VPath,
    pub(crate) driver: String,
    pub(crate) kinds: [(CallKind, Measured); CallKind::ALL.len()],
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
    /// Of a connector that serves what kind of one it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<ConnectorCategory>,
    /// The options of the mount and of its driver, without what is secret.
    pub options: BTreeMap<String, String>,
    /// Whether changes are refused. Of a driver that was never opened, as far as that is known without.
    pub read_only: bool,
    /// What the driver can do, and with that what its backend was found to honour, where the backend and not the metastore says what exists; none while no driver is open.
    #[serde(default)]
    pub capabilities: Option<PathCapabilities>,
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
    /// How often calls answered with an error, by the names of the errors. Ordinary answers are among them, such as ENOENT for what is not there.
    #[serde(default)]
    pub errors: BTreeMap<String, u64>,
    /// How long the calls took.
    #[serde(default)]
    pub times: DriverTimes,
    /// Bytes of content that came from the driver.
    #[serde(default)]
    pub bytes_read: u64,
    /// Bytes of content that the driver was given, and took.
    #[serde(default)]
    pub bytes_written: u64,
    /// What is kept of the store on this machine, and how much it helped; none when the driver keeps nothing.
    #[serde(default)]
    pub cache: Option<CacheFigures>,
}

/// How a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountState {
    /// It serves.
    Serving,
    /// It serves what it can: its driver says what keeps it from the rest, as that its server does not know who asks.
    Limited {
        /// What the driver says.
        cause: String,
    },
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
        /// When it is tried again; it is being tried when that is over, unless the cause says that it stays shut.
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
            (Standing::Good, None) => match mount.trouble() {
                Some(cause) => Self::Limited { cause },
                None => Self::Serving,
            },
        }
    }
}

impl MountStatus {
    fn of(mount: &Mount, env: &Env, catalogue: &Catalogue) -> Self {
        let spec = mount.spec();
        let (bytes_read, bytes_written) = mount.health().figures().bytes();
        Self {
            zone: mount.zone.clone(),
            point: mount.point.clone(),
            driver: spec.driver.clone(),
            connector: mount.connector(),
            options: catalogue.shown(&spec),
            read_only: mount.is_read_only()
                || catalogue.get(&spec.driver).is_some_and(|factory| factory.read_only()),
            capabilities: mount.capabilities(),
            state: MountState::of(mount, env),
            generation: mount.driver_generation(),
            actor: format!("nexus/drivers/{}", actor_name(mount)),
            in_flight: mount.in_flight(),
            calls: mount.health().calls(),
            last_failure: mount.health().latest(),
            errors: mount.health().figures().errors(),
            times: mount.health().figures().times(),
            bytes_read,
            bytes_written,
            cache: mount.cache(),
        }
    }
}
