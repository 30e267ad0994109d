//! What the actor of streams is asked. Appending, reading and listing are not among it: they happen on the caller's task.

use nexus_messages::Message;

/// Removes the records of the streams that were dropped.
#[derive(Debug, Clone)]
pub(crate) struct Reap;

impl Message for Reap {
    type Reply = ();
    const NAME: &'static str = "streams.reap";
}

/// Looks for streams on disk whose entries are gone, and removes them. Asked when all mounts are known.
#[derive(Debug, Clone)]
pub(crate) struct Sweep;

impl Message for Sweep {
    type Reply = ();
    const NAME: &'static str = "streams.sweep";
}

/// Lets go of what is too old, and comes again in time.
#[derive(Debug, Clone)]
pub(crate) struct Age;

impl Message for Age {
    type Reply = ();
    const NAME: &'static str = "streams.age";
}
