//! The hook table: who is registered for what. Pure; changed by the dispatch actor alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::VPath;
use serde::{Deserialize, Serialize};

use super::counts::{HookCounts, Running};
use super::hook::{Hook, HookId, HookKind, Registration};
use super::services::Covered;
use super::view::DispatchView;
use crate::registry::Enlisted;
use crate::service::{HookKey, Shape};

/// The most hooks that one kernel has, of all kinds together.
pub const HOOKS_MAX: usize = 4_096;

/// Why the dispatch said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// Another resolver has the same pattern.
    #[error("the pattern {pattern} is taken by {by:?}")]
    PatternTaken {
        /// The pattern.
        pattern: String,
        /// The name of the resolver that has it.
        by: Arc<str>,
    },
    /// There is no such hook, or not any more.
    #[error("there is no hook {}", .id.0)]
    Unknown {
        /// The hook as it was called.
        id: HookId,
    },
    /// The table is full.
    #[error("there are {max} hooks already, and no more are possible")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// The actor that was asked has been replaced by a newer incarnation, which knows nothing of this.
    #[error("the dispatch was superseded while it served the call")]
    Superseded,
}

/// A hook as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookInfo {
    /// Its identity. The hooks of a service share one: the place of the service among the hooks.
    pub id: HookId,
    /// Which of its service's hooks it is, from 1; none when it is not a service's.
    pub nth: Option<usize>,
    /// What it is called.
    pub name: Arc<str>,
    /// What it is.
    pub kind: HookKind,
    /// An interceptor's order.
    pub order: Option<i32>,
    /// The agent whose calls pass it by.
    pub owner: Option<Arc<str>>,
    /// A resolver's pattern, or the path to which an interceptor is limited.
    pub at: Option<String>,
}

/// A hook and what it did so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookStatus {
    /// What it is.
    #[serde(flatten)]
    pub info: HookInfo,
    /// What it did.
    #[serde(flatten)]
    pub counts: HookCounts,
}

/// The hooks as their owner changes them. [`freeze`](Self::freeze) makes of it what calls look at.
#[derive(Clone)]
pub struct HookTable {
    /// Invariant: in the order of registration, because ids only grow; at most `max`; no two resolvers of one pattern.
    hooks: BTreeMap<HookId, Registration>,
    /// The services with hooks, each at the place that it was first given.
    services: BTreeMap<HookId, Covered>,
    next: u64,
    max: usize,
}

impl HookTable {
    /// No hooks, and room for [`HOOKS_MAX`].
    pub fn new() -> Self {
        Self::bounded(HOOKS_MAX)
    }

    fn bounded(max: usize) -> Self {
        Self { hooks: BTreeMap::new(), services: BTreeMap::new(), next: 1, max }
    }

    /// The table that `view` was frozen from. Ids that were given are not given again.
    pub fn thaw(view: &DispatchView) -> Self {
        Self {
            hooks: view.registered().iter().cloned().collect(),
            services: view.covered_at().iter().cloned().collect(),
            next: view.next(),
            max: HOOKS_MAX,
        }
    }

    /// Adds a hook.
    pub fn register(&mut self, hook: Registration) -> Result<HookId, HookError> {
        if self.len() >= self.max {
            return Err(HookError::TooMany { max: self.max });
        }
        if let Hook::Resolver { pattern, .. } = &hook.hook
            && let Some(by) = self.resolver_of(pattern.as_str())
        {
            return Err(HookError::PatternTaken { pattern: pattern.to_string(), by });
        }
        let id = HookId(self.next);
        self.next += 1;
        self.hooks.insert(id, hook);
        Ok(id)
    }

    /// Removes a hook.
    pub fn unregister(&mut self, id: HookId) -> Result<HookInfo, HookError> {
        let hook = self.hooks.remove(&id).ok_or(HookError::Unknown { id })?;
        Ok(info(id, &hook))
    }

    /// Removes some hooks and adds others, all of it or nothing. So a service swaps its hooks with no call in between that sees
    /// none of them, and the new ones may take the patterns of the old.
    pub fn replace(&mut self, old: &[HookId], new: Vec<Registration>) -> Result<Vec<HookId>, HookError> {
        let mut changed = self.clone();
        for id in old {
            changed.unregister(*id)?;
        }
        let ids = new.into_iter().map(|hook| changed.register(hook)).collect::<Result<_, _>>()?;
        *self = changed;
        Ok(ids)
    }

    /// Lets calls meet the hooks of the versions of a service that may serve now, and no longer those of others.
    pub(crate) fn cover(&mut self, enlisted: Arc<Enlisted>) -> Result<(), HookError> {
        let versions = enlisted.versions();
        if enlisted.is_leaving() || versions.iter().all(|version| version.facts.hooks.is_empty()) {
            // Another one may have taken its name since.
            self.services.retain(|_, covered| !Arc::ptr_eq(&covered.enlisted, &enlisted));
            return Ok(());
        }
        let place = self.place_of(&enlisted.name);
        let before = place.and_then(|place| self.services.get(&place));
        let covered = Covered::new(enlisted, &versions, before);
        let others = self.len() - place.map_or(0, |place| self.services[&place].keys.len());
        if others + covered.keys.len() > self.max {
            return Err(HookError::TooMany { max: self.max });
        }
        for key in &covered.keys {
            if let Shape::Resolver { pattern } = &key.shape
                && let Some(by) = self.resolver_of(pattern.as_str()).filter(|by| **by != **covered.name())
            {
                return Err(HookError::PatternTaken { pattern: pattern.to_string(), by });
            }
        }
        let place = place.unwrap_or_else(|| {
            self.next += 1;
            HookId(self.next - 1)
        });
        self.services.insert(place, covered);
        Ok(())
    }

    fn place_of(&self, service: &str) -> Option<HookId> {
        self.services.iter().find(|(_, covered)| **covered.name() == *service).map(|(place, _)| *place)
    }

    fn len(&self) -> usize {
        self.hooks.len() + self.services.values().map(|covered| covered.keys.len()).sum::<usize>()
    }

    /// All hooks, in the order of registration.
    pub fn list(&self) -> Vec<HookInfo> {
        let mut all: Vec<_> = self.hooks.iter().map(|(id, hook)| info(*id, hook)).collect();
        for (id, covered) in &self.services {
            let keys = (1..).zip(&covered.keys);
            all.extend(keys.map(|(nth, key)| info_of(*id, nth, key, &covered.owner)));
        }
        all.sort_by_key(|hook| hook.id);
        all
    }

    /// All hooks with what they did so far, in the order of registration.
    pub fn statuses(&self) -> Vec<HookStatus> {
        let counts = |running: Option<&Arc<Running>>| running.map(|one| one.counts()).unwrap_or_default();
        let status = |info: HookInfo| {
            let of_service = |nth: usize| self.services.get(&info.id)?.running.get(nth.checked_sub(1)?);
            let running = match info.nth {
                Some(nth) => of_service(nth),
                None => self.hooks.get(&info.id).and_then(|hook| hook.running.as_ref()),
            };
            HookStatus { counts: counts(running), info }
        };
        self.list().into_iter().map(status).collect()
    }

    /// The table that calls look at. Costs one pass over the hooks.
    pub fn freeze(&self) -> DispatchView {
        let hooks = self.hooks.iter().map(|(id, hook)| (*id, hook.clone())).collect();
        let services = self.services.iter().map(|(id, covered)| (*id, covered.clone())).collect();
        DispatchView::build(hooks, services, self.next)
    }

    fn resolver_of(&self, text: &str) -> Option<Arc<str>> {
        let of_modules = self.hooks.values().find_map(|hook| match &hook.hook {
            Hook::Resolver { pattern, .. } if pattern.as_str() == text => Some(hook.name.clone()),
            _ => None,
        });
        of_modules.or_else(|| {
            let resolves =
                |key: &HookKey| matches!(&key.shape, Shape::Resolver { pattern } if pattern.as_str() == text);
            let covered = self.services.values().find(|covered| covered.keys.iter().any(resolves))?;
            Some(covered.name().clone())
        })
    }
}

impl Default for HookTable {
    fn default() -> Self {
        Self::new()
    }
}

fn info(id: HookId, hook: &Registration) -> HookInfo {
    let (order, at) = match &hook.hook {
        Hook::Resolver { pattern, .. } => (None, Some(pattern.to_string())),
        Hook::Interceptor { order, below, .. } => (Some(*order), below.as_ref().map(VPath::to_string)),
        Hook::Observer { .. } | Hook::Mount(_) => (None, None),
    };
    let (name, kind, owner) = (hook.name.clone(), hook.kind(), hook.owner.clone());
    HookInfo { id, nth: None, name, kind, order, owner, at }
}

/// As it is listed for a hook of a service.
fn info_of(id: HookId, nth: usize, key: &HookKey, owner: &Arc<str>) -> HookInfo {
    let (kind, order, at) = match &key.shape {
        Shape::Resolver { pattern } => (HookKind::Resolver, None, Some(pattern.to_string())),
        Shape::Interceptor { order, below, .. } => {
            (HookKind::Interceptor, Some(*order), below.as_ref().map(VPath::to_string))
        }
        Shape::Observer { .. } => (HookKind::Observer, None, None),
    };
    let (name, owner) = (key.name.into(), Some(owner.clone()));
    HookInfo { id, nth: Some(nth), name, kind, order, owner, at }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Recorder, resolver};
    use super::*;

    fn names(table: &HookTable) -> Vec<String> {
        table.list().iter().map(|hook| hook.name.to_string()).collect()
    }

    #[test]
    fn hooks_are_listed_as_they_were_registered_and_found_by_id() {
        let log = Recorder::new();
        let mut table = HookTable::new();
        table.register(log.interceptor("audit").order(7).owned_by("auditor")).unwrap();
        let observer = table.register(log.observer("index")).unwrap();
        table.register(resolver("links", "/l/{}", "/x")).unwrap();
        let listed = table.list();
        assert_eq!(listed[0].order, Some(7));
        assert_eq!(listed[0].owner.as_deref(), Some("auditor"));
        assert_eq!((listed[1].kind, listed[2].kind), (HookKind::Observer, HookKind::Resolver));
        assert_eq!(listed[2].at.as_deref(), Some("/l/{}"));
        assert_eq!(&*table.unregister(observer).unwrap().name, "index");
        assert_eq!(table.unregister(observer), Err(HookError::Unknown { id: observer }));
        assert_eq!(names(&table), ["audit", "links"]);
    }

    #[test]
    fn a_pattern_has_one_resolver() {
        let mut table = HookTable::new();
        let first = table.register(resolver("first", "/a/{}", "/x")).unwrap();
        let taken = HookError::PatternTaken { pattern: "/a/{}".into(), by: "first".into() };
        assert_eq!(table.register(resolver("second", "/a//{}/", "/x")), Err(taken));
        assert!(table.register(resolver("other", "/a/b", "/x")).is_ok());
        table.unregister(first).unwrap();
        assert!(table.register(resolver("second", "/a/{}", "/x")).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let log = Recorder::new();
        let mut table = HookTable::bounded(1);
        table.register(log.observer("a")).unwrap();
        assert_eq!(table.register(log.observer("b")), Err(HookError::TooMany { max: 1 }));
    }

    #[test]
    fn hooks_are_replaced_all_together_or_not_at_all() {
        let log = Recorder::new();
        let mut table = HookTable::new();
        let old = table.register(resolver("old", "/a", "/x")).unwrap();
        let keep = table.register(log.observer("keep")).unwrap();
        let refused = table.replace(
            &[old],
            vec![log.observer("new"), resolver("bad", "/b", "/x"), resolver("bad", "/b", "/x")],
        );
        assert!(refused.is_err());
        assert_eq!(names(&table), ["old", "keep"]);
        let ids = table.replace(&[old], vec![resolver("new", "/a", "/x")]).unwrap();
        assert_eq!(names(&table), ["keep", "new"]);
        assert!(ids[0] > keep);
        assert_eq!(table.replace(&[old], vec![]), Err(HookError::Unknown { id: old }));
    }

    #[test]
    fn an_id_is_never_given_twice_even_after_a_thaw() {
        let log = Recorder::new();
        let mut table = HookTable::new();
        table.register(log.observer("a")).unwrap();
        let last = table.register(log.observer("b")).unwrap();
        table.unregister(last).unwrap();
        let mut thawed = HookTable::thaw(&table.freeze());
        assert_eq!(names(&thawed), ["a"]);
        assert!(thawed.register(log.observer("c")).unwrap() > last);
    }
}
