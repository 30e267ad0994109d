//! One look at the kernel: all that is shown, as it was at one moment, or nearly. The parts are read one after the other.

use std::time::Instant;

use nexus::MountStatus;
use nexus::sys::{ActorEntry, CachesEntry, CommitterEntry, SyscallEntry};
use serde::Serialize;

use crate::failure::Outcome;
use crate::session::Session;
use crate::sys;

#[derive(Debug, Clone, Serialize)]
pub(super) struct Look {
    #[serde(skip)]
    pub(super) at: Instant,
    pub(super) actors: ActorEntry,
    pub(super) syscalls: Vec<SyscallEntry>,
    pub(super) mounts: Vec<MountStatus>,
    pub(super) committer: CommitterEntry,
    pub(super) caches: CachesEntry,
}

impl Look {
    pub(super) async fn take(session: &Session) -> Outcome<Self> {
        Ok(Self {
            at: session.env().now(),
            actors: sys::actors(session).await?,
            syscalls: sys::syscalls(session).await?,
            mounts: sys::mounts(session).await?,
            committer: sys::committer(session).await?,
            caches: sys::caches(session).await?,
        })
    }
}
