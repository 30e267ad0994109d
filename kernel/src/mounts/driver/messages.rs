//! What the driver of a mount is asked.

use std::sync::Arc;

use nexus_actors::Message;
use nexus_messages::syscall::{DriverSwapped, MountSpec};

use super::opening::Opened;
use crate::hal::StoreError;

/// Opens the driver as the mount's spec says and publishes it. When that fails it is tried again, with back-off, until it succeeds or the
/// actor is stopped. May be repeated.
#[derive(Debug, Clone, Copy)]
pub(in crate::mounts) struct Open {
    /// Whether it was mounted before, and nobody asks for it just now.
    pub(in crate::mounts) is_again: bool,
}

impl Message for Open {
    type Reply = Result<(), StoreError>;
    const NAME: &'static str = "driver.open";
}

/// Opens and probes a driver beside the one that serves, and publishes nothing. May be repeated.
#[derive(Debug, Clone)]
pub(in crate::mounts) struct Prepare(pub(in crate::mounts) Arc<MountSpec>);

impl Message for Prepare {
    type Reply = Result<Opened, StoreError>;
    const NAME: &'static str = "driver.prepare";
}

/// Publishes what was prepared, and waits for the calls in the old one to end, within a limit. Answers when the mount's spec is the one that it was
/// prepared for. May be repeated.
#[derive(Debug, Clone)]
pub(in crate::mounts) struct Adopt(pub(in crate::mounts) Opened);

impl Message for Adopt {
    type Reply = Result<DriverSwapped, StoreError>;
    const NAME: &'static str = "driver.adopt";
}

/// Asks the driver whether its backend answers; one that does not is opened anew. May be repeated.
#[derive(Debug, Clone, Copy)]
pub(in crate::mounts) struct Probe;

impl Message for Probe {
    type Reply = Result<(), StoreError>;
    const NAME: &'static str = "driver.probe";
}

/// The driver failed too often: open it anew.
#[derive(Debug, Clone, Copy)]
pub(in crate::mounts) struct Recover;

impl Message for Recover {
    type Reply = ();
    const NAME: &'static str = "driver.recover";
}
