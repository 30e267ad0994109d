//! What makes a type a message.

/// A request to an actor, together with what it answers.
///
/// Messages are plain values: they hold no handle to a running thing, so that each could travel to another process.
/// Those that stay inside a crate stay beside their actor; those in this crate cross a boundary.
pub trait Message: Send + 'static {
    /// What the receiver answers with. `()` for a message that needs no answer.
    type Reply: Send + 'static;

    /// The name that logs, metrics and exit reasons show, such as `router.mount`.
    const NAME: &'static str;
}
