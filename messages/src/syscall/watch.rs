//! Waits for changes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventMask};
use crate::ident::Lsn;
use crate::path::VPath;

/// Waits for changes at `path` and below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysWatch {
    /// What is watched. It need not exist.
    pub path: VPath,
    /// Whether changes below it are told.
    pub recursive: bool,
    /// Which kinds of change are told.
    pub mask: EventMask,
    /// Tells changes after this commit, also past ones; none for those from now on.
    pub since: Option<Lsn>,
    /// How long to wait for the first one.
    pub wait: Duration,
}

/// What [`SysWatch`] gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Watched {
    /// The changes, in the order of their commits; empty when none came in time.
    pub events: Vec<Event>,
    /// Where to go on.
    pub next: Lsn,
}

impl SysWatch {
    /// Every kind of change at `path` and below it, without waiting.
    pub fn at(path: impl Into<VPath>) -> Self {
        let path = path.into();
        Self { path, recursive: true, mask: EventMask::ALL, since: None, wait: Duration::ZERO }
    }

    /// Only these kinds.
    #[must_use]
    pub fn mask(mut self, mask: impl Into<EventMask>) -> Self {
        self.mask = mask.into();
        self
    }

    /// Waits for up to `wait`.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Goes on after the commit `since`.
    #[must_use]
    pub fn since(mut self, since: Lsn) -> Self {
        self.since = Some(since);
        self
    }
}
