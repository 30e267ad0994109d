//! `SysRename`: an entry, with all below it, to another path.

use std::sync::Arc;

use nexus_messages::syscall::{Fence, Renamed, SysRename};
use nexus_messages::{Caller, Consistency, Error, ErrorKind, Event, EventKind, OpId, Receipt, Result, VPath};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, two_paths};
use super::locate::Located;
use super::mutate::{Mutation, mutate};
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::locks::Scope;
use crate::volume::{Intent, Stop, Volume};

impl Admissible for SysRename {
    two_paths!();

    fn follows(&self, _: Which) -> bool {
        false
    }

    fn right(&self, which: Which, exists: bool) -> Right {
        match which {
            Which::First => Right::Delete,
            Which::Second if exists => Right::Write,
            Which::Second => Right::Create,
        }
    }
}

impl Mutation for SysRename {
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
            _ => Scope::Entry,
        }
    }

    async fn run(kernel: &Arc<Kernel>, intent: &Intent, admitted: &Admitted<Self>) -> Result<Renamed, Stop> {
        let from = &admitted.first.site;
        let Some(second) = &admitted.second else { return Err(Stop::Again) };
        let to = &second.site;
        let Some(node) = &admitted.first.node else {
            return Err(intent.fail(&from.path, ErrorKind::NotFound));
        };
        // The same path twice: nothing happens, whatever is there.
        for site in [from, to].into_iter().filter(|_| from.path != to.path) {
            if site.is_root() || kernel.has_mounts_below(&intent.caller.zone, &site.path) {
                let error = Error::new(intent.op, &site.path, ErrorKind::Busy);
                return Err(error.because("it is a mount point, or one lies below it").into());
            }
        }
        if from.mount.root != to.mount.root {
            return Err(intent.fail(&from.path, ErrorKind::CrossMount));
        }
        if node.metadata.is_directory() && to.path != from.path && to.path.is_within(&from.path) {
            let error = Error::new(intent.op, &from.path, ErrorKind::InvalidArgument);
            return Err(error.because(format!("{} lies within it", to.path)).into());
        }
        let subtrees = admitted.call.scope(admitted) == Scope::Subtree;
        Volume::to_change(kernel, from, intent).rename(from, to, intent, &admitted.call, subtrees).await
    }

    fn repeated(&self, _: &Located, second: Option<&Located>, receipt: Receipt) -> Option<Renamed> {
        Some(Renamed::new(false, second?.node.as_ref()?.metadata.clone(), receipt))
    }

    fn receipt(done: &Renamed) -> Receipt {
        done.receipt
    }

    fn event(intent: &Intent, admitted: &Admitted<Self>, done: &Renamed) -> Option<Event> {
        let (from, to) = (&admitted.first.site.path, &admitted.second.as_ref()?.site.path);
        if from == to {
            return None;
        }
        let mut event = intent.event(EventKind::Renamed, from, &done.metadata, done.receipt);
        event.other = Some(to.clone());
        Some(event)
    }
}

impl Serve for SysRename {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Renamed> {
        mutate(kernel, caller, self).await
    }
}
