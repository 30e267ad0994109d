//! What the driver lifecycle is asked.

use std::sync::Arc;

use nexus_actors::Message;
use nexus_messages::syscall::{Create, DriverSwapped, MountSpec};
use nexus_messages::{Caller, Error, Receipt, VPath, ZoneId};

use super::mount::Mount;

/// Attaches a mount, which is remembered and attached again at boot. The same mount at the same point: nothing happens. Another one there: refused, or
/// its driver is replaced.
#[derive(Debug, Clone)]
pub(crate) struct Attach {
    pub(crate) zone: ZoneId,
    pub(crate) point: VPath,
    pub(crate) spec: MountSpec,
    /// Whether something must be mounted there, or nothing may be.
    pub(crate) create: Create,
    /// Whether the driver of a mount that is there is replaced.
    pub(crate) replace: bool,
    pub(crate) caller: Arc<Caller>,
}

/// A mount that is attached.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) mount: Arc<Mount>,
    /// Whether it was attached by this very call.
    pub(crate) created: bool,
    /// How its driver was replaced by this very call.
    pub(crate) swapped: Option<DriverSwapped>,
    pub(crate) receipt: Receipt,
}

impl Message for Attach {
    type Reply = Result<Attached, Error>;
    const NAME: &'static str = "lifecycle.attach";
}

/// Detaches a mount, once the calls in it have ended. What it holds is kept, and is there when the same is mounted there again.
#[derive(Debug, Clone)]
pub(crate) struct Detach {
    pub(crate) zone: ZoneId,
    pub(crate) point: VPath,
    pub(crate) caller: Arc<Caller>,
}

/// A mount that is detached.
#[derive(Debug, Clone)]
pub(crate) struct Detached {
    pub(crate) receipt: Receipt,
}

impl Message for Detach {
    type Reply = Result<Detached, Error>;
    const NAME: &'static str = "lifecycle.detach";
}

/// Attaches what the metastore remembers; says how many mounts that were. A mount whose driver does not start is attached all the same, and
/// answers with the cause: calls must not fall through to what lies under it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remount;

impl Message for Remount {
    type Reply = Result<usize, Error>;
    const NAME: &'static str = "lifecycle.remount";
}
