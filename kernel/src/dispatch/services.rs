//! The hooks of services in the dispatch's table: which versions may serve, and where each hook of each stands.

use std::fmt;
use std::sync::Arc;

use nexus_messages::EventMask;

use super::counts::Running;
use super::hook::OpSet;
use crate::registry::Enlisted;
use crate::service::{Generation, HookKey, agent_of};

/// One service's hooks: those of every version that may serve while this is published.
#[derive(Clone)]
pub(crate) struct Covered {
    pub(crate) enlisted: Arc<Enlisted>,
    /// The agent as which the service calls; its calls pass its hooks by.
    pub(crate) owner: Arc<str>,
    /// The numbers of the versions.
    pub(crate) versions: Vec<u64>,
    /// The hooks of all of them; what two versions have in common is one.
    pub(crate) keys: Vec<HookKey>,
    /// For each hook, where it is in each version that has it.
    pub(crate) indices: Vec<Vec<(u64, usize)>>,
    /// For each hook what it has beside itself, over all versions.
    pub(crate) running: Vec<Arc<Running>>,
    ops: OpSet,
    events: EventMask,
    resolves: bool,
}

impl Covered {
    /// What stays of `before`, which is the same service, goes on counting.
    pub(crate) fn new(enlisted: Arc<Enlisted>, versions: &[Arc<Generation>], before: Option<&Self>) -> Self {
        let mut covered = Self {
            owner: agent_of(&enlisted.name).into(),
            enlisted,
            versions: versions.iter().map(|version| version.number).collect(),
            keys: Vec::new(),
            indices: Vec::new(),
            running: Vec::new(),
            ops: OpSet::NONE,
            events: EventMask::NONE,
            resolves: false,
        };
        for version in versions {
            let (ops, events, resolves) = version.facts.interest();
            covered.ops = covered.ops.union(ops);
            covered.events |= events;
            covered.resolves |= resolves;
            for key in &version.facts.hooks {
                if !covered.keys.iter().any(|other| other.is(key)) {
                    covered.keys.push(key.clone());
                }
            }
        }
        let places = |key: &HookKey| {
            let place = |version: &Arc<Generation>| Some((version.number, version.find_hook(key)?));
            versions.iter().filter_map(place).collect()
        };
        covered.indices = covered.keys.iter().map(places).collect();
        let counted = |key: &HookKey| {
            let before = before.and_then(|before| {
                let place = before.keys.iter().position(|other| other.is(key))?;
                before.running.get(place).cloned()
            });
            before.unwrap_or_else(|| Arc::new(Running::new(&covered.enlisted.env, None)))
        };
        covered.running = covered.keys.iter().map(counted).collect();
        covered
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.enlisted.name
    }

    /// Whether a call of `op` can meet any of its hooks.
    pub(crate) fn wants(&self, ops: OpSet, resolves: bool, observes: bool) -> bool {
        self.ops.meets(ops) || resolves && self.resolves || observes && !self.events.is_empty()
    }
}

impl fmt::Debug for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Covered")
            .field("service", self.name())
            .field("versions", &self.versions)
            .finish_non_exhaustive()
    }
}
