//! Faults that are put into an actor from outside, to see what becomes of it.

use serde::Serialize;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inject {
    /// A panic on its thread.
    Panic,
    /// An exit with an error.
    Error,
    /// A brutal kill.
    Kill,
    /// Its thread is blocked until the watchdog writes it off; without a watchdog, for a minute. What it was about to do,
    /// it does then.
    Wedge,
}

/// When it goes wrong while a message is being handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// The message has begun, and its handler has not run.
    Before,
    /// Its handler has run, its future too if it answers later, and the reply has not gone out.
    After,
}

/// A fault that strikes the next message that is begun. Whatever it does, that message's caller hears that the outcome
/// is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Strike {
    /// What goes wrong.
    pub fault: Inject,
    /// When.
    pub moment: Moment,
}

/// A strike that waits in the cell.
pub(crate) struct Armed {
    pub(crate) strike: Strike,
    /// A begun message carries it.
    pub(crate) carried: bool,
}
