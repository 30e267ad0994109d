//! Which route serves a path.

use std::collections::BTreeSet;

use super::pattern::{Pattern, Vars};

/// The most routes of a description.
pub(super) const ROUTES_MAX: usize = 256;

/// Routes, and what each of them asks.
#[derive(Debug)]
pub(super) struct Routes<T> {
    // Invariant: those that say more come first.
    routes: Vec<Route<T>>,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route<T> {
    pub(super) pattern: Pattern,
    pub(super) asks: T,
}

impl<T> Routes<T> {
    pub(super) fn new(mut routes: Vec<Route<T>>) -> Self {
        routes.sort_by_key(|route| route.pattern.rank());
        Self { routes }
    }

    /// The route that serves the path of these names, and what its variables stand for there.
    pub(super) fn find(&self, names: &[&str]) -> Option<(&Route<T>, Vars)> {
        self.routes.iter().find_map(|route| Some((route, route.pattern.matched(names)?)))
    }

    /// Whether a route names something below the path of these names: then it is a directory.
    pub(super) fn leads_on(&self, names: &[&str]) -> bool {
        names.is_empty() || self.routes.iter().any(|route| route.pattern.below(names).is_some())
    }

    /// The names directly below that path that routes name.
    pub(super) fn children(&self, names: &[&str]) -> BTreeSet<&str> {
        self.routes.iter().filter_map(|route| route.pattern.below(names).flatten()).collect()
    }

    pub(super) fn any(&self, does: impl Fn(&T) -> bool) -> bool {
        self.routes.iter().any(|route| does(&route.asks))
    }
}
