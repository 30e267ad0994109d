//! What the committer and the upkeep are told. Work reaches them through the [`Store`](super::Store), not by mail.

use nexus_actors::{ExitReason, Message};

/// The actor's thread ended.
#[derive(Debug, Clone)]
pub(crate) struct ThreadEnded {
    /// The incarnation whose thread it was.
    pub(crate) generation: u64,
    /// Why it ended.
    pub(crate) reason: ExitReason,
}

impl Message for ThreadEnded {
    type Reply = ();
    const NAME: &'static str = "store.thread_ended";
}
