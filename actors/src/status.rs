//! What an actor shows of itself.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::ExitReason;
use crate::fault::Strike;

/// Where an actor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorState {
    /// Its `init` runs.
    Starting,
    /// It serves messages.
    Running,
    /// It serves control only; messages wait.
    Suspended,
    /// It has ended, or has not begun; messages wait for its next incarnation.
    Waiting,
    /// It is closed; callers see `Down`.
    Stopped,
}

/// One look at an actor. Taking it sends no mail.
#[derive(Debug, Clone, Serialize)]
pub struct ActorStatus {
    /// The name given to its `Ref`.
    pub name: Arc<str>,
    /// The behaviour's name.
    pub kind: &'static str,
    /// Where it is in its life.
    pub state: ActorState,
    /// Counts incarnations; 0 before the first.
    pub generation: u64,
    /// How many of its incarnations replaced one that had ended.
    pub restarts: u64,
    /// Messages in the mailbox.
    pub queued: usize,
    /// Most messages the mailbox holds.
    pub bound: usize,
    /// Callers that wait for room in the mailbox.
    pub callers_waiting: usize,
    /// Messages begun and not finished.
    pub in_flight: usize,
    /// Messages begun since it was made.
    pub served: u64,
    /// Messages sent and forgotten that were in the mailbox, not begun, when it was closed: nobody heard of their end.
    pub lost: u64,
    /// What it works on now.
    pub running: Option<Busy>,
    /// How its last incarnation ended.
    pub last_exit: Option<ExitReason>,
    /// How many of its incarnations ended, not in order, while a message was begun.
    pub struck: u64,
    /// That message, the last time it happened.
    pub last_struck: Option<&'static str>,
    /// A fault that waits for a message.
    pub armed: Option<Strike>,
    /// How long this incarnation has been running.
    pub up_for: Option<Duration>,
}

/// What holds an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Busy {
    /// The incarnation.
    pub generation: u64,
    /// The message, or the part of its life.
    pub message: &'static str,
    /// For how long it has been seen there: counted from the first look at it, so that serving costs no clock.
    pub held: Duration,
    /// Whether it holds its thread as well, rather than waiting for a future.
    pub on_thread: bool,
}
