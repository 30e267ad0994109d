//! `SysUnlink`: removes entries, and detaches mounts.

use std::sync::Arc;

use nexus_messages::syscall::{Expect, Fence, SysUnlink, Unlinked};
use nexus_messages::{
    Caller, Consistency, EntryType, Error, ErrorKind, Event, FileMetadata, Message, OpId, Receipt, Result,
    VPath,
};

use super::Serve;
use super::admit::{Admissible, Admitted, Hooked, Which, admit_unrouted, one_path};
use super::locate::Located;
use super::mutate::{Mutation, begin, carry_out};
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::locks::Scope;
use crate::mounts::Mount;
use crate::owned::Owned;
use crate::registry::is_service_path;
use crate::sys;
use crate::volume::{Intent, Stop, Volume, kind_of_removal};

impl Admissible for SysUnlink {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        false
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::Delete
    }

    fn ends(&self) -> Option<&str> {
        self.path.name().filter(|_| is_service_path(&self.path))
    }
}

impl Mutation for SysUnlink {
    fn op_id(&self) -> Option<OpId> {
        self.op_id
    }

    fn consistency(&self) -> Option<Consistency> {
        self.consistency
    }

    fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    fn scope(&self, admitted: &Admitted<Self>) -> Scope {
        match &admitted.first.node {
            Some(node) if node.metadata.is_directory() => Scope::Subtree,
            _ if admitted.call.recursive => Scope::Subtree,
            _ => Scope::Entry,
        }
    }

    async fn run(kernel: &Arc<Kernel>, intent: &Intent, admitted: &Admitted<Self>) -> Result<Unlinked, Stop> {
        let site = &admitted.first.site;
        if !sys::serves(&site.path)
            && (site.is_root() || kernel.has_mounts_below(&intent.caller.zone, &site.path))
        {
            let error = Error::new(intent.op, &site.path, ErrorKind::Busy);
            return Err(error.because("a mount lies below it").into());
        }
        Volume::to_change(kernel, site, intent).unlink(site, intent, &admitted.call).await
    }

    fn repeated(&self, first: &Located, _: Option<&Located>, receipt: Receipt) -> Option<Unlinked> {
        let entry_type = first.node.as_ref().map_or(EntryType::Reg, |node| node.metadata.entry_type);
        Some(Unlinked::new(entry_type, 0, receipt))
    }

    fn receipt(done: &Unlinked) -> Receipt {
        done.receipt
    }

    fn event(intent: &Intent, admitted: &Admitted<Self>, done: &Unlinked) -> Option<Event> {
        let kind = kind_of_removal(done.entry_type);
        let site = &admitted.first.site;
        let gone = admitted.first.node.as_ref().map(|node| node.metadata.clone());
        let gone = gone.unwrap_or_else(|| {
            // It came into being after the call was resolved; of what it was, only the type is known.
            let id = nexus_messages::FileId(site.path.hash64());
            let zone = site.mount.zone.clone();
            Arc::new(FileMetadata::new(site.path.clone(), zone, id, done.entry_type, intent.at))
        });
        Some(intent.event(kind, &site.path, &gone, done.receipt))
    }
}

impl Serve for SysUnlink {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Unlinked> {
        // A mount whose driver is in trouble may serve nothing, not even a look at what is there; it is detached all the same.
        if let Some(mount) = kernel.failed_mount(&caller.zone, &self.path) {
            may_detach(caller, &self)?;
            let hooked = admit_unrouted(kernel, caller, &self).await?;
            return detach(kernel, caller, mount, hooked).await;
        }
        let (intent, passing, admitted) = begin(kernel, caller, self).await?;
        let site = &admitted.first.site;
        if !site.is_root() || sys::serves(&site.path) {
            return carry_out(kernel, intent, passing, admitted).await;
        }
        may_detach(caller, &admitted.call)?;
        let mount = admitted.first.site.mount.clone();
        detach(kernel, caller, mount, admitted.into_hooked()).await
    }
}

/// Whether this call, whose path is a mount point, may detach the mount.
fn may_detach(caller: &Caller, call: &SysUnlink) -> Result<()> {
    let refused = match call.expect {
        Expect::File => Some(ErrorKind::IsADirectory),
        // As with `rm -r` and `rmdir`: only who means the mount detaches it.
        Expect::Directory => Some(ErrorKind::Busy),
        Expect::Any | Expect::Mount => call.recursive.then_some(ErrorKind::Busy),
    };
    if let Some(kind) = refused {
        return Err(Error::new(SysUnlink::OP, &call.path, kind).because("it is a mount point"));
    }
    if !caller.admin {
        let error = Error::new(SysUnlink::OP, &call.path, ErrorKind::PermissionDenied);
        return Err(error.because("unmounting needs the administrator's handle"));
    }
    Ok(())
}

async fn detach(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    mount: Arc<Mount>,
    hooked: Hooked,
) -> Result<Unlinked> {
    let (env, kernel, caller) = (kernel.env().clone(), kernel.clone(), caller.clone());
    let detached = async move {
        let done = kernel.unmount(&caller, &mount).await;
        hooked.after(&done).await;
        done
    };
    Owned::from_start(&env, <SysUnlink as Message>::NAME, detached).await
}
