//! Who needs whom. Pure; changed by the registry alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nexus_messages::ErrorKind;

use crate::service::Facts;

/// The most services of one kernel.
pub(super) const SERVICES_MAX: usize = 1_024;

/// Why the registry said no. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RegistryError {
    #[error("there is a service of this name, made by {factory:?}: swap it to change it")]
    Taken { factory: String },
    #[error("no service is called {name:?}")]
    Unknown { name: Arc<str> },
    #[error(
        "{name:?} does not name a service: 1 to 64 lower-case letters, digits, '-' or '_', a letter first"
    )]
    BadName { name: Arc<str> },
    #[error("it needs the service {need:?}, which is not registered")]
    Missing { need: Arc<str> },
    #[error("it needs {export} of the service {need:?}, which does not answer that")]
    MissingExport { need: Arc<str>, export: &'static str },
    #[error("what it needs needs it: {}", .circle.join(" → "))]
    Circle { circle: Vec<String> },
    #[error("the service {by:?} needs it")]
    Needed { by: Arc<str> },
    #[error("it would no longer answer {export}, which the service {by:?} needs")]
    ExportNeeded { export: &'static str, by: Arc<str> },
    #[error("another change of the service {name:?} is under way")]
    Changing { name: Arc<str> },
    #[error("there are {SERVICES_MAX} services already, and no more are possible")]
    TooMany,
}

impl RegistryError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Taken { .. } => ErrorKind::AlreadyExists,
            Self::Unknown { .. } => ErrorKind::NotFound,
            Self::Needed { .. } | Self::ExportNeeded { .. } | Self::Changing { .. } => ErrorKind::Busy,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// The services by name, with what each declares. Those whose change is under way are in it as they will be.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// Invariant: what a service needs is in the table and no circle leads through it, unless it is one that could not be started.
    services: BTreeMap<Arc<str>, Facts>,
    changing: BTreeSet<Arc<str>>,
}

impl Table {
    pub(super) fn of(services: impl IntoIterator<Item = (Arc<str>, Facts)>) -> Self {
        Self { services: services.into_iter().collect(), changing: BTreeSet::new() }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.services.contains_key(name)
    }

    /// Enters a service, or its next version, whose change begins now. What it was before is returned, for [`undo`](Self::undo).
    pub(super) fn begin(&mut self, name: &Arc<str>, facts: Facts) -> Result<Option<Facts>, RegistryError> {
        self.check_name(name)?;
        self.check_idle(name)?;
        if !self.contains(name) && self.services.len() >= SERVICES_MAX {
            return Err(RegistryError::TooMany);
        }
        for need in &facts.needs {
            self.check_idle(&need.service)?;
            let Some(needed) = self.services.get(&need.service) else {
                return Err(if need.service == *name {
                    RegistryError::Circle { circle: vec![name.to_string(), name.to_string()] }
                } else {
                    RegistryError::Missing { need: need.service.clone() }
                });
            };
            if let Some(export) = need.export.filter(|export| !needed.exports.contains(export)) {
                return Err(RegistryError::MissingExport { need: need.service.clone(), export });
            }
        }
        for (by, other) in &self.services {
            let relied =
                other.needs.iter().filter(|need| need.service == *name).filter_map(|need| need.export);
            if let Some(export) = relied.into_iter().find(|export| !facts.exports.contains(export)) {
                return Err(RegistryError::ExportNeeded { export, by: by.clone() });
            }
        }
        let before = self.services.insert(name.clone(), facts);
        if let Some(circle) = self.circle(name) {
            self.put_back(name, before);
            return Err(RegistryError::Circle { circle });
        }
        self.changing.insert(name.clone());
        Ok(before)
    }

    /// Begins to remove a service.
    pub(super) fn begin_removal(&mut self, name: &Arc<str>) -> Result<(), RegistryError> {
        if !self.contains(name) {
            return Err(RegistryError::Unknown { name: name.clone() });
        }
        self.check_idle(name)?;
        let needed =
            self.services.iter().find(|(_, other)| other.needs.iter().any(|need| need.service == *name));
        if let Some((by, _)) = needed {
            return Err(RegistryError::Needed { by: by.clone() });
        }
        self.changing.insert(name.clone());
        Ok(())
    }

    /// A change came to its end.
    pub(super) fn done(&mut self, name: &str) {
        self.changing.remove(name);
    }

    /// A change did not happen: things are as they were.
    pub(super) fn undo(&mut self, name: &Arc<str>, before: Option<Facts>) {
        self.changing.remove(name);
        self.put_back(name, before);
    }

    /// Forgets a service.
    pub(super) fn remove(&mut self, name: &str) {
        self.changing.remove(name);
        self.services.remove(name);
    }

    /// What `name` declares.
    #[cfg(test)]
    pub(super) fn facts(&self, name: &str) -> Option<&Facts> {
        self.services.get(name)
    }

    /// All services, each after what it needs. Those that are in a circle come last, in the order of their names.
    pub(super) fn order(&self) -> Vec<Arc<str>> {
        let mut ordered: Vec<Arc<str>> = Vec::new();
        loop {
            let ready = |facts: &Facts| {
                let placed = |name: &Arc<str>| ordered.contains(name) || !self.services.contains_key(name);
                facts.needs.iter().all(|need| placed(&need.service))
            };
            let next: Vec<_> = self
                .services
                .iter()
                .filter(|(name, facts)| !ordered.contains(name) && ready(facts))
                .map(|(name, _)| name.clone())
                .collect();
            if next.is_empty() {
                break;
            }
            ordered.extend(next);
        }
        let rest: Vec<_> = self.services.keys().filter(|name| !ordered.contains(name)).cloned().collect();
        ordered.extend(rest);
        ordered
    }

    fn put_back(&mut self, name: &Arc<str>, before: Option<Facts>) {
        match before {
            Some(before) => self.services.insert(name.clone(), before),
            None => self.services.remove(name),
        };
    }

    fn check_name(&self, name: &Arc<str>) -> Result<(), RegistryError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if first && name.len() <= 64 && name.bytes().all(good) {
            return Ok(());
        }
        Err(RegistryError::BadName { name: name.clone() })
    }

    fn check_idle(&self, name: &Arc<str>) -> Result<(), RegistryError> {
        if self.changing.contains(name) {
            return Err(RegistryError::Changing { name: name.clone() });
        }
        Ok(())
    }

    /// A way from `name` through needs back to it.
    fn circle(&self, name: &Arc<str>) -> Option<Vec<String>> {
        let mut ways = vec![vec![name.clone()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            let last = way.last()?;
            for need in self.services.get(last).into_iter().flat_map(|facts| &facts.needs) {
                let mut longer = way.clone();
                longer.push(need.service.clone());
                if need.service == *name {
                    return Some(longer.iter().map(ToString::to_string).collect());
                }
                if seen.insert(need.service.clone()) {
                    ways.push(longer);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nexus_messages::syscall::SwapMode;
    use proptest::prelude::*;

    use super::*;
    use crate::service::{Need, Startup, SwapPolicy};

    type Needs<'a> = &'a [(&'a str, Option<&'static str>)];

    fn facts(needs: Needs<'_>, exports: &[&'static str]) -> Facts {
        let need = |(service, export): &(&str, Option<&'static str>)| Need {
            service: (*service).into(),
            export: *export,
        };
        Facts {
            startup: Startup::Persistent,
            needs: needs.iter().map(need).collect(),
            exports: exports.to_vec(),
            hooks: Vec::new(),
            inline: false,
            swap: SwapPolicy { mode: SwapMode::Overlap, limit: Duration::ZERO, probation: Duration::ZERO },
        }
    }

    /// Registers them one after the other.
    fn table(services: &[(&str, Needs<'_>, &[&'static str])]) -> Table {
        let mut table = Table::default();
        for (name, needs, exports) in services {
            let name = (*name).into();
            table.begin(&name, facts(needs, exports)).unwrap();
            table.done(&name);
        }
        table
    }

    fn refused(table: &mut Table, name: &str, new: Facts) -> String {
        let before = format!("{table:?}");
        let error = table.begin(&name.into(), new).unwrap_err().to_string();
        assert_eq!(format!("{table:?}"), before, "a refusal changes nothing");
        error
    }

    #[test]
    fn what_is_needed_must_be_there() {
        let mut table = table(&[("store", &[], &["store.get"])]);
        let missing = refused(&mut table, "index", facts(&[("shop", None)], &[]));
        assert_eq!(missing, "it needs the service \"shop\", which is not registered");
        let missing = refused(&mut table, "index", facts(&[("store", Some("store.put"))], &[]));
        assert_eq!(missing, "it needs store.put of the service \"store\", which does not answer that");
        assert!(table.begin(&"index".into(), facts(&[("store", Some("store.get"))], &[])).is_ok());
    }

    #[test]
    fn what_needs_each_other_is_refused() {
        let mut table = table(&[("a", &[], &[]), ("b", &[("a", None)], &[]), ("c", &[("b", None)], &[])]);
        let circle = refused(&mut table, "a", facts(&[("c", None)], &[]));
        assert_eq!(circle, "what it needs needs it: a → c → b → a");
        let itself = refused(&mut table, "d", facts(&[("d", None)], &[]));
        assert_eq!(itself, "what it needs needs it: d → d");
    }

    #[test]
    fn what_others_need_stays() {
        let mut table = table(&[("store", &[], &["get", "put"]), ("index", &[("store", Some("get"))], &[])]);
        assert_eq!(table.begin_removal(&"store".into()), Err(RegistryError::Needed { by: "index".into() }));
        let dropped = refused(&mut table, "store", facts(&[], &["put"]));
        assert_eq!(dropped, "it would no longer answer get, which the service \"index\" needs");
        assert!(table.begin(&"store".into(), facts(&[], &["get"])).is_ok());
    }

    #[test]
    fn one_change_of_a_service_at_a_time() {
        let mut table = table(&[("a", &[], &[])]);
        let before = table.begin(&"a".into(), facts(&[], &["x"])).unwrap();
        assert!(matches!(table.begin_removal(&"a".into()), Err(RegistryError::Changing { .. })));
        assert!(matches!(
            table.begin(&"b".into(), facts(&[("a", None)], &[])),
            Err(RegistryError::Changing { .. })
        ));
        table.undo(&"a".into(), before);
        assert_eq!(table.facts("a"), Some(&facts(&[], &[])));
        table.begin_removal(&"a".into()).unwrap();
        table.remove("a");
        assert!(!table.contains("a"));
    }

    #[test]
    fn a_name_is_one_that_a_path_and_a_metric_can_hold() {
        let mut table = Table::default();
        for bad in ["", "A", "a/b", "a b", "7a", "-a", "ü", &"a".repeat(65)] {
            assert!(
                matches!(table.begin(&bad.into(), facts(&[], &[])), Err(RegistryError::BadName { .. })),
                "{bad}"
            );
        }
        assert!(table.begin(&"a-7_b".into(), facts(&[], &[])).is_ok());
    }

    proptest! {
        #[test]
        fn every_service_comes_after_what_it_needs(edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..40)) {
            let mut table = Table::default();
            for number in 0..12_usize {
                let needs: Vec<String> =
                    edges.iter().filter(|(from, to)| *from == number && to < from).map(|(_, to)| format!("s{to}")).collect();
                let needs: Vec<_> = needs.iter().map(|need| (need.as_str(), None)).collect();
                let name = format!("s{number}").as_str().into();
                table.begin(&name, facts(&needs, &[])).unwrap();
                table.done(&name);
            }
            let order = table.order();
            prop_assert_eq!(order.len(), 12);
            for (place, name) in order.iter().enumerate() {
                for need in &table.facts(name).unwrap().needs {
                    prop_assert!(order.iter().position(|other| *other == need.service).unwrap() < place);
                }
            }
        }
    }
}
