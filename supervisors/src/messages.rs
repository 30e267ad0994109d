//! What a supervisor is asked and told. It asks nobody.

use std::sync::Arc;

use nexus_actors::{ExitReason, Message};

use crate::spec::ChildSpec;

/// A child has ended.
#[derive(Debug, Clone)]
pub(crate) struct Exited {
    pub(crate) id: Arc<str>,
    pub(crate) generation: u64,
    pub(crate) reason: ExitReason,
}

impl Message for Exited {
    type Reply = ();
    const NAME: &'static str = "supervisor.exited";
}

/// The supervisor has started: children that failed in its start are tried again, and the watchdog begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin;

impl Message for Begin {
    type Reply = ();
    const NAME: &'static str = "supervisor.begin";
}

/// An order about one child; the reply is its generation.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Adds a child and starts it.
    Start(Box<ChildSpec>),
    /// Stops a child and closes its mailbox; its spec stays, unless it is temporary.
    Terminate(Arc<str>),
    /// Starts a child that is down.
    Restart(Arc<str>),
    /// Forgets a child that is down.
    Delete(Arc<str>),
}

impl Message for Order {
    type Reply = Result<u64, OrderError>;
    const NAME: &'static str = "supervisor.order";
}

/// Why a supervisor did not do as told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// There is a child of this id.
    #[error("there is a child {0}")]
    Exists(Arc<str>),
    /// There is no child of this id.
    #[error("there is no child {0}")]
    Unknown(Arc<str>),
    /// The child runs.
    #[error("the child {0} runs")]
    Runs(Arc<str>),
    /// The child did not start.
    #[error("it did not start: {0}")]
    Start(ExitReason),
    /// The supervisor did not answer.
    #[error("the supervisor: {0}")]
    Call(#[from] nexus_actors::CallError),
}
