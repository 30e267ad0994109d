//! What the kernel is asked about mounts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{SetattrDone, SysSetattr, Unlinked};
use nexus_messages::{
    Caller, EntryType, Error, ErrorKind, FileMetadata, Op, Result, Timestamp, VPath, ZoneId,
};

use super::{Kernel, call_kind, down};
use crate::mounts::{self, Attach, Detach, Mount, Remount};
use crate::router::RouteTable;
use crate::streams::Sweep;
use crate::volume::store_error;

/// How long attaching or detaching a mount may take, beside the opening of a driver that was given longer than that: it waits for calls to end and for a driver to start.
const LIFECYCLE_MAX: Duration = Duration::from_secs(60);

/// How long attaching all mounts at boot may take.
const REMOUNT_MAX: Duration = Duration::from_secs(120);

impl Kernel {
    /// Attaches what the metastore remembers, and holds the locks again that outlived the last process; says how many mounts that were. To be called once, when the tree runs.
    ///
    /// # Errors
    /// What the metastore says. A driver that does not start is no error: its mount answers with the cause.
    pub async fn remount(&self) -> Result<usize> {
        match self.lifecycle.call(Remount, REMOUNT_MAX).await {
            Ok(done) => {
                self.restore_locks().map_err(|error| store_error(Op::Lock, &VPath::root(), &error))?;
                // Nobody waits for it: without it, records take room that nobody reads.
                let _ = self.streams_actor.tell(Sweep);
                done
            }
            Err(error) => Err(down(Error::global(Op::Mount, call_kind(error)), error)),
        }
    }

    /// Asks the driver of the mount at just this point whether its backend answers. One that does not is opened anew, again and again, with
    /// back-off. May be repeated.
    ///
    /// # Errors
    /// What the driver says, `ENOENT` when nothing is mounted there, `ETIMEDOUT` when it does not answer in time.
    pub async fn probe_mount(&self, zone: &ZoneId, point: &VPath) -> Result<()> {
        mounts::probe(self, zone, point).await
    }

    /// The mount that is attached at just this point.
    pub(crate) fn mount_at(&self, zone: &ZoneId, point: &VPath) -> Option<Arc<Mount>> {
        self.routes.read(|routes| routes.at(zone, point).cloned())
    }

    /// The mount that `zone` sees at just this point.
    pub(crate) fn mount_seen_at(&self, zone: &ZoneId, point: &VPath) -> Option<Arc<Mount>> {
        self.routes.read(|routes| {
            routes
                .route(zone, point)
                .filter(|routed| routed.mount.point == *point)
                .map(|routed| routed.mount.clone())
        })
    }

    /// The mount at just this point, when its driver is in trouble.
    pub(crate) fn failed_mount(&self, zone: &ZoneId, point: &VPath) -> Option<Arc<Mount>> {
        self.mount_seen_at(zone, point).filter(|mount| mount.is_in_trouble())
    }

    /// Whether a mount is attached below `path`, as `zone` sees it.
    pub(crate) fn has_mounts_below(&self, zone: &ZoneId, path: &VPath) -> bool {
        self.routes.read(|routes| {
            // Most kernels have few mounts, and most paths none below them.
            routes.len() > 1 && routes.iter().any(|mount| below(routes, mount, zone, path).is_some())
        })
    }

    /// The names of the children of `path` that are mount points or lead to one, as `zone` sees them, in order.
    pub(crate) fn mounted_children(&self, zone: &ZoneId, path: &VPath) -> Vec<String> {
        self.routes.read(|routes| {
            if routes.len() <= 1 {
                return Vec::new();
            }
            let names = routes.iter().filter_map(|mount| below(routes, mount, zone, path));
            let first = names.filter_map(|relative| relative.split('/').next());
            first.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
        })
    }

    pub(crate) async fn mount(&self, caller: &Arc<Caller>, call: &SysSetattr) -> Result<SetattrDone> {
        let fail = |kind| Error::new(Op::Mount, &call.path, kind);
        let Some(spec) = call.mount.clone() else { return Err(fail(ErrorKind::InvalidArgument)) };
        let attach = Attach {
            zone: caller.zone.clone(),
            point: call.path.clone(),
            spec,
            create: call.create,
            replace: call.replace,
            caller: caller.clone(),
        };
        let limit = LIFECYCLE_MAX.saturating_add(mounts::opening_max(&attach.spec));
        let attached = match self.lifecycle.call(attach, limit).await {
            Ok(done) => done?,
            Err(error) => return Err(down(fail(call_kind(error)), error)),
        };
        if call.create == nexus_messages::syscall::Create::Exclusive && !attached.created {
            return Err(fail(ErrorKind::AlreadyExists));
        }
        let mount = &attached.mount;
        let at = Timestamp(self.env.wall());
        let entry_type = self.catalogue().mount_type(&mount.spec().driver);
        let metadata = FileMetadata::new(call.path.clone(), mount.zone.clone(), mount.root, entry_type, at);
        let mut done = SetattrDone::new(attached.created, Vec::new(), Arc::new(metadata), attached.receipt);
        done.swapped = attached.swapped;
        Ok(done)
    }

    pub(crate) async fn unmount(&self, caller: &Arc<Caller>, mount: &Mount) -> Result<Unlinked> {
        let detach = Detach { zone: mount.zone.clone(), point: mount.point.clone(), caller: caller.clone() };
        match self.lifecycle.call(detach, LIFECYCLE_MAX).await {
            Ok(done) => done.map(|detached| Unlinked::new(EntryType::Mount, 1, detached.receipt)),
            Err(error) => Err(down(Error::new(Op::Unmount, &mount.point, call_kind(error)), error)),
        }
    }
}

/// The path of `mount` relative to `path`, when it lies below it and `zone` sees it there: what the zone has mounted itself hides what the root zone
/// has there and below.
fn below<'m>(
    routes: &RouteTable<Arc<Mount>>,
    mount: &'m Arc<Mount>,
    zone: &ZoneId,
    path: &VPath,
) -> Option<&'m str> {
    let relative = mount.point.relative_to(path).filter(|relative| !relative.is_empty())?;
    let routed = routes.route(zone, &mount.point)?.mount;
    Arc::ptr_eq(routed, mount).then_some(relative)
}
