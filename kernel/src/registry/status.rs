//! How services are, as administrators see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nexus_actors::{ActorState, ActorStatus};
use nexus_messages::syscall::{ServiceSpec, ServiceSwapped, ServiceVersion};
use serde::Serialize;

use super::view::{Enlisted, Services};
use crate::service::{Generation, Startup};

/// A service, as administrators see it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its name.
    pub name: Arc<str>,
    /// How it is.
    pub state: ServiceState,
    /// The factory of the version that serves, or that is to.
    pub factory: String,
    /// The configuration, as JSON.
    pub config: String,
    /// The version that serves; none when none does.
    pub serving: Option<ServiceVersion>,
    /// When it is started.
    pub startup: Option<Startup>,
    /// The services that it needs.
    pub needs: Vec<Arc<str>>,
    /// The messages that it answers.
    pub exports: Vec<&'static str>,
    /// The names of its hooks.
    pub hooks: Vec<&'static str>,
    /// The path of its actor in the supervision tree.
    pub path: Option<String>,
    /// Its actor.
    pub actor: Option<ActorStatus>,
    /// Calls, leases and hooks inside the version that serves.
    pub in_flight: usize,
    /// Mails of its hooks that did not reach it, and messages sent and forgotten that waited for a version which ended before it came to them: of
    /// all its versions since the kernel booted.
    pub missed: u64,
    /// How many swaps succeeded.
    pub swaps: u64,
    /// How many swaps failed, and left the version before serving.
    pub failed_swaps: u64,
    /// How often a version on probation crashed and the one before came back.
    pub swap_backs: u64,
    /// How many answers have agreed in the trial that is under way.
    pub trial_agreed: Option<u64>,
    /// What the last swap did.
    pub last_swap: Option<ServiceSwapped>,
    /// Why the last swap that failed did, or the last version that was swapped back.
    pub last_failure: Option<String>,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServiceState {
    /// It serves.
    Serving,
    /// It serves, and a crash brings the version before back.
    OnProbation,
    /// It serves no call now: its actor has ended and is being restarted. Calls wait, within their deadlines.
    Restarting {
        /// How it ended.
        cause: String,
    },
    /// Its actor has ended for good. Calls are refused.
    Down {
        /// How it ended.
        cause: String,
    },
    /// It waits for its first call.
    Dormant,
    /// It could not be started.
    Failed {
        /// Why.
        cause: String,
    },
}

impl Services {
    /// All services, by name.
    pub(crate) fn statuses(&self) -> Vec<ServiceStatus> {
        let listed = self.listed();
        let mut statuses: Vec<_> = listed.enlisted.values().map(|enlisted| enlisted.status()).collect();
        statuses.extend(listed.absent.iter().map(|(name, (spec, cause))| absent(name, spec, cause)));
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        statuses
    }

    /// The service of this name.
    pub(crate) fn status(&self, name: &str) -> Option<ServiceStatus> {
        let listed = self.listed();
        let enlisted = listed.enlisted.get(name).map(|enlisted| enlisted.status());
        enlisted
            .or_else(|| listed.absent.get_key_value(name).map(|(name, (spec, why))| absent(name, spec, why)))
    }
}

impl Enlisted {
    fn status(&self) -> ServiceStatus {
        let generation = self.serving();
        let standing = self.standing.lock();
        let (facts, actor) = (&generation.facts, generation.status());
        let cause =
            || actor.last_exit.as_ref().map_or_else(|| "it has not begun".into(), ToString::to_string);
        let mut needs: Vec<_> = facts.needs.iter().map(|need| need.service.clone()).collect();
        needs.dedup();
        ServiceStatus {
            name: self.name.clone(),
            state: match (actor.state, &standing.reserve) {
                _ if !generation.is_started() => ServiceState::Dormant,
                (ActorState::Starting | ActorState::Waiting, _) => {
                    ServiceState::Restarting { cause: cause() }
                }
                (ActorState::Stopped, _) => ServiceState::Down { cause: cause() },
                (_, Some(reserve)) if reserve.of == generation.number && generation.is_on_probation() => {
                    ServiceState::OnProbation
                }
                _ => ServiceState::Serving,
            },
            factory: generation.spec.factory.clone(),
            config: generation.spec.config.clone(),
            serving: Some(version_of(&generation)),
            startup: Some(facts.startup),
            needs,
            exports: facts.exports.clone(),
            hooks: facts.hooks.iter().map(|hook| hook.name).collect(),
            path: Some(format!("nexus/services/{}", generation.child_id)),
            actor: Some(actor),
            in_flight: self.slot.in_flight(),
            missed: self.missed() + generation.lost(),
            swaps: self.swaps.load(Ordering::Relaxed),
            failed_swaps: self.failed_swaps.load(Ordering::Relaxed),
            swap_backs: self.swap_backs.load(Ordering::Relaxed),
            trial_agreed: standing.trial.as_ref().map(|trial| trial.agreed()),
            last_swap: standing.last_swap.clone(),
            last_failure: standing.last_failure.clone(),
        }
    }
}

/// `generation`, as it is told.
pub(super) fn version_of(generation: &Generation) -> ServiceVersion {
    ServiceVersion::new(generation.number, generation.factory.clone(), generation.version)
}

/// A service that could not be started.
fn absent(name: &Arc<str>, spec: &ServiceSpec, cause: &str) -> ServiceStatus {
    ServiceStatus {
        name: name.clone(),
        state: ServiceState::Failed { cause: cause.into() },
        factory: spec.factory.clone(),
        config: spec.config.clone(),
        serving: None,
        startup: None,
        needs: Vec::new(),
        exports: Vec::new(),
        hooks: Vec::new(),
        path: None,
        actor: None,
        in_flight: 0,
        missed: 0,
        swaps: 0,
        failed_swaps: 0,
        swap_backs: 0,
        trial_agreed: None,
        last_swap: None,
        last_failure: None,
    }
}
