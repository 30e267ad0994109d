//! What a service is registered as, and how one version takes the place of another.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A service: a factory of the process's catalogue, and what it is configured with.
///
/// Set at `/__sys__/services/NAME` it registers a service of that name, or swaps the one that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceSpec {
    /// The factory's name in the process's catalogue.
    pub factory: String,
    /// The configuration, as JSON; empty for the factory's own defaults.
    pub config: String,
    /// How it takes the place of a version that serves.
    pub swap: SwapOptions,
}

/// How a new version takes the place of the old one. What is not said is up to what the new version declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SwapOptions {
    /// Whether both may be called at once.
    pub mode: Option<SwapMode>,
    /// How long the calls inside the old version may take to end, and the state to be handed over.
    pub limit: Option<Duration>,
    /// For how long after the swap a crash of the new version brings the old one back, with the state that that one had: what the new one changed in
    /// its own is undone. Zero: no crash does.
    pub probation: Option<Duration>,
    /// The swap waits until the new version has answered this many copies of real calls as the old one did. Zero: no trial. Calls wait once more for
    /// it, also with overlap: while the state is copied for the trial, unless the service has inline hooks.
    pub shadow: Option<u32>,
}

/// Whether two versions of a service may be called at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapMode {
    /// They may: nobody waits. What has begun ends with the old version, what begins later goes to the new one.
    ///
    /// The old version answers on while a copy of its state is handed over: what it acknowledges after the copy is not in the new one. So this is
    /// for services that keep nothing, that keep it in files, or whose versions share it (see `Setup::predecessor`). One that keeps what it
    /// acknowledges swaps by [`Exclusive`](Self::Exclusive).
    Overlap,
    /// They may not: calls wait while the old version ends its own and hands its state over. Nothing that it acknowledged is lost.
    Exclusive,
}

impl ServiceSpec {
    /// A service made by `factory` with the configuration `config`, as JSON.
    pub fn new(factory: impl Into<String>, config: impl Into<String>) -> Self {
        Self { factory: factory.into(), config: config.into(), swap: SwapOptions::default() }
    }

    /// Says how it takes the place of a version that serves.
    #[must_use]
    pub fn swap(mut self, swap: SwapOptions) -> Self {
        self.swap = swap;
        self
    }
}

impl SwapOptions {
    /// Whatever the new version declares.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether both may be called at once.
    #[must_use]
    pub fn mode(mut self, mode: SwapMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// How long the calls inside the old version may take to end, and the state to be handed over.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// For how long after the swap a crash of the new version brings the old one back.
    #[must_use]
    pub fn probation(mut self, probation: Duration) -> Self {
        self.probation = Some(probation);
        self
    }

    /// Waits until the new version has answered `calls` copies of real calls as the old one did.
    #[must_use]
    pub fn shadow(mut self, calls: u32) -> Self {
        self.shadow = Some(calls);
        self
    }
}
