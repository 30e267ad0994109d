//! What the collector is asked.

use std::time::Duration;

use nexus_actors::Message;

/// Begins a collection, unless one runs. What becomes of it is published. Repeat: safe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Collect {
    /// Looks, counts, and takes nothing away.
    pub(crate) dry_run: bool,
    /// How long content must have been unreachable; none for what is set.
    pub(crate) grace: Option<Duration>,
}

impl Message for Collect {
    /// The number of the collection; none when another one runs.
    type Reply = Option<u64>;
    const NAME: &'static str = "garbage.collect";
}

/// Begins the waiting for the next collection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin;

impl Message for Begin {
    type Reply = ();
    const NAME: &'static str = "garbage.begin";
}
