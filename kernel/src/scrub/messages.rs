//! What the scrubber is asked.

use nexus_actors::Message;

/// Begins a check of all that is stored, unless one runs. What becomes of it is published. Repeat: safe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BeginCheck {
    /// Repairs what can be repaired without a loss.
    pub(crate) repair: bool,
}

impl Message for BeginCheck {
    /// The number of the check; none when another one runs.
    type Reply = Option<u64>;
    const NAME: &'static str = "scrub.check";
}

/// Begins a scrub, unless one runs. What becomes of it is published. Repeat: safe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BeginScrub;

impl Message for BeginScrub {
    /// The number of the scrub; none when another one runs.
    type Reply = Option<u64>;
    const NAME: &'static str = "scrub.scrub";
}

/// Begins the waiting for the next scrub, or goes on with the one that an earlier incarnation had begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin;

impl Message for Begin {
    type Reply = ();
    const NAME: &'static str = "scrub.begin";
}
