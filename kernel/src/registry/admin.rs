//! What the kernel offers of its services: to administrators, to callers, and to the services themselves.

use std::sync::Arc;
use std::time::Duration;

use nexus_actors::CallError;
use nexus_messages::syscall::{Create, SetattrDone, SysSetattr, Unlinked};
use nexus_messages::{
    Caller, EntryType, Error, ErrorKind, FileId, FileMetadata, Lsn, Op, Result, Timestamp, VPath, ZoneId,
};

use super::{Delist, Enlist, Enlistment, Gone, How, ServiceStatus, StartAll, StopAll, lost, path_of};
use crate::hal::{StoreError, TreeId};
use crate::kernel::{Kernel, call_kind, down};
use crate::service::{Commits, Service, ServiceRef};

/// How often the services of the boot are started again, when the registry dies over it.
const START_ATTEMPTS: usize = 8;

impl Kernel {
    /// Registers and starts the services that the metastore remembers; says how many those were. To be called once, after
    /// [`remount`](Self::remount).
    ///
    /// # Errors
    /// What the metastore says. A service that does not start is no error: it is listed with the cause.
    pub async fn start_services(&self) -> Result<usize> {
        let mut attempts = 1;
        loop {
            match self.registry().call(StartAll, Duration::MAX).await {
                Ok(done) => return done,
                // Its next incarnation goes on where it ended.
                Err(CallError::Crashed { .. }) if attempts < START_ATTEMPTS => attempts += 1,
                Err(error) => return Err(down(Error::global(Op::Service, call_kind(error)), error)),
            }
        }
    }

    /// Stops all services, each before what it needs; they stay registered. At most for `limit`. To be called before the tree is stopped.
    pub async fn stop_services(&self, limit: Duration) {
        if let Err(error) = self.registry().call(StopAll, limit).await {
            tracing::warn!(%error, "the services are stopped by their supervisor, in the reverse order of their start");
        }
    }

    /// A handle to the service called `name`. Sends no mail, and does not look whether there is one.
    pub fn service<S: Service>(&self, name: &str) -> ServiceRef<S> {
        ServiceRef::new(self.services().clone(), name)
    }

    /// Registers a service as `call` says, or swaps the one that is there; what a swap did comes with the answer. A swap is given up when `gone`
    /// says that nobody waits for it any more before it is published.
    ///
    /// # Errors
    /// `EACCES` without the administrator's handle; `EINVAL` for a factory or configuration that makes no sense, or needs that are not met;
    /// `EEXIST` for a name that is taken; `EBUSY` while another change of it is under way; whatever keeps it from starting.
    pub(crate) async fn enlist(
        &self,
        caller: &Arc<Caller>,
        call: &SysSetattr,
        gone: Gone,
    ) -> Result<SetattrDone> {
        let fail = |kind| Error::new(Op::Service, &call.path, kind);
        let name = self.service_name(caller, &call.path)?;
        let spec = call.service.clone();
        let spec = spec.ok_or_else(|| fail(ErrorKind::InvalidArgument).because("it needs a factory"))?;
        let how = match call.create {
            Create::Exclusive => How::New,
            Create::IfMissing => How::Either,
            Create::Never => How::Swap,
        };
        let enlist = Enlist { name: name.into(), spec, caller: caller.clone(), how, gone };
        let done: Enlistment = match self.registry().call(enlist, Duration::MAX).await {
            Ok(done) => done?,
            Err(error) => return Err(lost(name, error)),
        };
        let at = Timestamp(self.env().wall());
        let id = FileId(call.path.hash64());
        let metadata = FileMetadata::new(call.path.clone(), ZoneId::root(), id, EntryType::Reg, at);
        let mut reply = SetattrDone::new(done.created, Vec::new(), Arc::new(metadata), done.receipt);
        reply.service_swapped = done.swapped.map(Box::new);
        Ok(reply)
    }

    /// Removes the service at `path`, which no other may need: its hooks go, its calls end, and it is not started again.
    ///
    /// # Errors
    /// `EACCES` without the administrator's handle; `ENOENT`; `EBUSY` when another service needs it, or a change of it is under way.
    pub async fn delist(&self, caller: &Arc<Caller>, path: &VPath) -> Result<Unlinked> {
        let name = self.service_name(caller, path)?;
        match self.registry().call(Delist { name: name.into(), caller: caller.clone() }, Duration::MAX).await
        {
            Ok(done) => done.map(|receipt| Unlinked::new(EntryType::Reg, 1, receipt)),
            Err(error) => Err(lost(name, error)),
        }
    }

    /// The services and how they are. Sends no mail.
    pub fn service_statuses(&self) -> Vec<ServiceStatus> {
        self.services().statuses()
    }

    /// The service called `name`. Sends no mail.
    pub fn service_status(&self, name: &str) -> Option<ServiceStatus> {
        self.services().status(name)
    }

    fn service_name<'p>(&self, caller: &Caller, path: &'p VPath) -> Result<&'p str> {
        let fail = |kind| Error::new(Op::Service, path, kind);
        if !caller.admin {
            let error = fail(ErrorKind::PermissionDenied);
            return Err(error.because("managing services needs the administrator's handle"));
        }
        let name = path.name().unwrap_or_default();
        if path_of(name).as_ref() != Some(path) {
            let error = fail(ErrorKind::InvalidArgument);
            return Err(error.because("services are at /__sys__/services/NAME"));
        }
        Ok(name)
    }

    /// The zones that there are.
    pub(crate) fn all_zones(&self) -> Result<Vec<ZoneId>> {
        let failed = |error: StoreError| Error::global(Op::Service, error.kind()).because(error);
        let rows = self.store().rows(TreeId::ROOT).map_err(failed)?;
        let others = crate::namespace::zones(&*rows.reader).map_err(failed)?;
        Ok([ZoneId::root()].into_iter().chain(others.into_iter().map(|(zone, _)| zone)).collect())
    }

    pub(crate) fn commits(&self, zone: &ZoneId, since: Lsn, limit: usize) -> Result<Commits> {
        let failed = |error: StoreError| Error::global(Op::Service, error.kind()).because(error);
        let Some(tree) = self.tree_of(zone).map_err(failed)? else {
            return Ok(Commits { records: Vec::new(), next: since });
        };
        let records = self.store().metastore().changes(tree, since, limit).map_err(failed)?;
        let next = records.last().map_or(since, |last| last.lsn);
        Ok(Commits { records, next })
    }

    /// The tree of `zone`; none before something was mounted there.
    pub(crate) fn tree_of(&self, zone: &ZoneId) -> std::result::Result<Option<TreeId>, StoreError> {
        if zone.is_root() {
            return Ok(Some(TreeId::ROOT));
        }
        let zones = crate::namespace::zones(&*self.store().rows(TreeId::ROOT)?.reader)?;
        Ok(zones.into_iter().find(|(other, _)| other == zone).map(|(_, tree)| tree))
    }

    /// Waits until something became durable more than `seen` times, at most for `limit`.
    pub(crate) async fn committed(&self, seen: u64, limit: Duration) {
        self.store().committed(seen, limit).await;
    }
}
