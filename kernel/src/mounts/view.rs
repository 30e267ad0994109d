//! What the driver lifecycle publishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_actors::{Snap, Superseded};
use nexus_messages::{VPath, ZoneId};
use serde::{Deserialize, Serialize};

use super::mount::Mount;

/// The mounts, as they were last changed.
#[derive(Debug, Default)]
pub(crate) struct MountsView(Snap<Vec<Arc<Mount>>>);

impl MountsView {
    pub(super) fn publish(&self, generation: u64, mounts: Vec<Arc<Mount>>) -> Result<(), Superseded> {
        self.0.publish(generation, mounts)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Mount>> {
        self.0.read(Clone::clone)
    }

    /// The state of each mount, in the order of their points.
    pub(crate) fn statuses(&self) -> Vec<MountStatus> {
        let mut statuses: Vec<_> =
            self.0.read(|mounts| mounts.iter().map(|mount| MountStatus::of(mount)).collect());
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
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Whether changes are refused.
    pub read_only: bool,
    /// How it is.
    pub state: MountState,
    /// How often the driver was replaced, by a restart or a swap.
    pub generation: u64,
    /// How many calls are inside the driver now.
    pub in_flight: usize,
}

/// How a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountState {
    /// It serves.
    Serving,
    /// Its driver could not be started.
    Failed {
        /// Why.
        cause: String,
    },
}

impl MountStatus {
    fn of(mount: &Mount) -> Self {
        Self {
            zone: mount.zone.clone(),
            point: mount.point.clone(),
            driver: mount.spec.driver.clone(),
            options: mount.spec.options.clone(),
            read_only: mount.is_read_only(),
            state: match &mount.failure {
                None => MountState::Serving,
                Some(cause) => MountState::Failed { cause: cause.clone() },
            },
            generation: mount.driver.generation(),
            in_flight: mount.driver.in_flight(),
        }
    }
}
