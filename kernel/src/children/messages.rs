//! What the actor of children is asked. Waiting, signals and listing are not among it: they happen on the caller's task.

use nexus_messages::{ChildEntry, ChildId, Message, Result};

/// Starts what was ordered at this place of the table, once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartChild(pub(crate) ChildId);

impl Message for StartChild {
    type Reply = Result<ChildEntry>;
    const NAME: &'static str = "children.start";
}
