//! `SysCopy`: the content of one file into another, also across mounts.

use std::sync::Arc;

use nexus_messages::syscall::{Copied, Fence, SysCopy};
use nexus_messages::{
    Caller, Consistency, EntryType, Error, ErrorKind, Event, EventKind, OpId, Receipt, Result, VPath,
};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, two_paths};
use super::locate::Located;
use super::mutate::{Mutation, mutate};
use super::past::then_held;
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::locks::{Mode, Scope};
use crate::namespace::Node;
use crate::volume::{Intent, Memory, Site, Stop, Volume, store_error};

impl Admissible for SysCopy {
    two_paths!();

    fn is_of_the_past(&self, which: Which) -> bool {
        which == Which::First && self.as_of.is_some()
    }

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, which: Which, exists: bool) -> Right {
        match which {
            Which::First => Right::Read,
            Which::Second if exists => Right::Write,
            Which::Second => Right::Create,
        }
    }
}

impl Mutation for SysCopy {
    fn op_id(&self) -> Option<OpId> {
        self.op_id
    }

    fn consistency(&self) -> Option<Consistency> {
        self.consistency
    }

    fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    fn scope(&self, _: &Admitted<Self>) -> Scope {
        Scope::Entry
    }

    fn first_mode(&self) -> Mode {
        Mode::Read
    }

    async fn run(kernel: &Arc<Kernel>, intent: &Intent, admitted: &Admitted<Self>) -> Result<Copied, Stop> {
        let from = &admitted.first.site;
        let Some(second) = &admitted.second else { return Err(Stop::Again) };
        let to = &second.site;
        // What was there before the lock may be another file by now.
        let ((from, source), _held) = match admitted.call.as_of {
            None => ((from.clone(), look(kernel, intent, from).await?), None),
            Some(as_of) => {
                // No lock keeps what was.
                let (then, held) =
                    then_held(kernel, &intent.caller, &admitted.call, &admitted.first, as_of).await?;
                (then.existing(intent.op)?, Some(held))
            }
        };
        let from = &from;
        must_be_regular(intent, &from.path, &source, "source")?;
        if from.path == to.path && admitted.call.as_of.is_none() {
            let receipt = intent.unchanged(kernel.store(), &to.mount, &to.path).await?;
            return Ok(Copied::new(false, source.metadata, receipt));
        }
        // Where nothing may be replaced, whatever is there is in the way.
        if let Some(target) = second.node.as_ref().filter(|_| admitted.call.replace) {
            must_be_regular(intent, &to.path, target, "destination")?;
        }
        Volume::of(kernel, to).copy(from, &source, to, intent, &admitted.call).await
    }

    fn repeated(&self, _: &Located, second: Option<&Located>, receipt: Receipt) -> Option<Copied> {
        Some(Copied::new(false, second?.node.as_ref()?.metadata.clone(), receipt))
    }

    fn receipt(done: &Copied) -> Receipt {
        done.receipt
    }

    fn event(intent: &Intent, admitted: &Admitted<Self>, done: &Copied) -> Option<Event> {
        let (from, to) = (&admitted.first.site.path, &admitted.second.as_ref()?.site.path);
        if from == to && admitted.call.as_of.is_none() {
            return None;
        }
        let mut event = intent.event(EventKind::FileCopied, to, &done.metadata, done.receipt);
        event.other = Some(from.clone());
        event.is_new = done.created;
        Some(event)
    }
}

async fn look(kernel: &Arc<Kernel>, intent: &Intent, site: &Site) -> Result<Node, Stop> {
    let found = match Volume::of(kernel, site) {
        Volume::Rows(volume) => volume.look(site, true, Memory::Passed),
        Volume::Paths(volume) => volume.find(site).await.map(Some),
        Volume::Sys(volume) => volume.find(&intent.caller.zone, &site.path).map(Some),
    };
    // A link has come in between: resolve again.
    let Some(found) = found.transpose() else { return Err(Stop::Again) };
    match found {
        Ok(Some(node)) if node.metadata.entry_type == EntryType::Link => Err(Stop::Again),
        Ok(Some(node)) => Ok(node),
        Ok(None) => Err(intent.fail(&site.path, ErrorKind::NotFound)),
        Err(error) => Err(store_error(intent.op, &site.path, &error).into()),
    }
}

fn must_be_regular(intent: &Intent, path: &VPath, node: &Node, which: &str) -> Result<(), Stop> {
    match node.metadata.entry_type {
        EntryType::Reg => Ok(()),
        there => {
            let error = Error::new(intent.op, path, ErrorKind::InvalidArgument);
            Err(error.because(format!("the {which} is no regular file but a {there}")).into())
        }
    }
}

impl Serve for SysCopy {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Copied> {
        mutate(kernel, caller, self).await
    }
}
