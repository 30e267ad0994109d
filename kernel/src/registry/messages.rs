//! What the service registry is asked. Reading this file is reading all it can do.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::Shared;
use nexus_actors::{ExitReason, Message};
use nexus_messages::syscall::{ServiceSpec, ServiceSwapped};
use nexus_messages::{Caller, Receipt, Result};
use tokio::sync::oneshot;

use super::view::Enlisted;

/// Registers a service, or swaps the one that is there; the same one there is no matter. It is remembered, and started again at boot.
#[derive(Debug)]
pub(crate) struct Enlist {
    pub(crate) name: Arc<str>,
    pub(crate) spec: ServiceSpec,
    pub(crate) caller: Arc<Caller>,
    pub(crate) how: How,
    /// Closed when nobody waits for the answer any more: what was not published by then is not.
    pub(crate) gone: Gone,
}

/// Hears of it when whoever asked for a change goes away.
pub(crate) type Gone = Shared<oneshot::Receiver<()>>;

/// What tells that whoever asked for a change has gone: when the first is dropped, the second hears of it.
pub(crate) fn presence() -> (oneshot::Sender<()>, Gone) {
    let (here, gone) = oneshot::channel();
    (here, gone.shared())
}

/// Whether there may, or must, be a service of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// There must be none, but one of the same factory and configuration.
    New,
    /// There must be one.
    Swap,
    /// There may be one.
    Either,
}

/// What [`Enlist`] did.
#[derive(Debug, Clone)]
pub(crate) struct Enlistment {
    /// Whether it was registered by this very call.
    pub(crate) created: bool,
    /// What the swap did, if it was one.
    pub(crate) swapped: Option<ServiceSwapped>,
    pub(crate) receipt: Receipt,
}

impl Message for Enlist {
    type Reply = Result<Enlistment>;
    const NAME: &'static str = "registry.enlist";
}

/// Removes a service that no other needs: its hooks go, its calls end, then it is stopped and forgotten.
#[derive(Debug, Clone)]
pub(crate) struct Delist {
    pub(crate) name: Arc<str>,
    pub(crate) caller: Arc<Caller>,
}

impl Message for Delist {
    type Reply = Result<Receipt>;
    const NAME: &'static str = "registry.delist";
}

/// Starts a service that waits for its first call, after what it needs. Repeating it does nothing.
#[derive(Debug, Clone)]
pub(crate) struct StartOnDemand {
    pub(crate) name: Arc<str>,
}

impl Message for StartOnDemand {
    type Reply = Result<()>;
    const NAME: &'static str = "registry.start";
}

/// Registers and starts what the metastore remembers, each after what it needs; says how many that were. One that cannot be started is
/// listed with the cause, and those that need it are, too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartAll;

impl Message for StartAll {
    type Reply = Result<usize>;
    const NAME: &'static str = "registry.start_all";
}

/// Stops all services, each before what it needs. They stay registered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StopAll;

impl Message for StopAll {
    type Reply = ();
    const NAME: &'static str = "registry.stop_all";
}

/// A service whose removal was under way when the registry died has ended. Nothing, when another one has its name by now.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) enlisted: Arc<Enlisted>,
}

impl Message for Left {
    type Reply = ();
    const NAME: &'static str = "registry.left";
}

/// An incarnation of a version has ended.
#[derive(Debug, Clone)]
pub(crate) struct Exited {
    pub(crate) name: Arc<str>,
    pub(crate) number: u64,
    pub(crate) reason: ExitReason,
}

impl Message for Exited {
    type Reply = ();
    const NAME: &'static str = "registry.exited";
}
