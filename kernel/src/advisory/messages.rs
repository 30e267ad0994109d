//! What the advisory locks' actor is asked. Acquiring and releasing are not among it: those happen on the caller's task.

use nexus_messages::Message;

/// Looks after those who wait: takes back what is held by those whose time is over, tells those who wait for each other, and comes again in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look;

impl Message for Look {
    type Reply = ();
    const NAME: &'static str = "advisory.look";
}
