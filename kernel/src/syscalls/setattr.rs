//! `SysSetattr`: entries of every type, and their attributes.

use std::sync::Arc;

use nexus_messages::syscall::{Fence, IoProfile, PIPE_CAPACITY_MAX, SetattrDone, StreamSpec, SysSetattr};
use nexus_messages::{
    Attributes, Caller, Consistency, EntryType, Error, ErrorKind, Event, Message, Op, OpId, PATH_MAX,
    Receipt, Result, VPath,
};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, admit, admit_unrouted, one_path};
use super::locate::{Located, locate};
use super::mutate::{Mutation, mutate};
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::locks::Scope;
use crate::owned::Owned;
use crate::registry::{Gone, presence};
use crate::sys;
use crate::volume::{Intent, Stop, Volume, kind_of_set};

impl Admissible for SysSetattr {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        // What makes an entry makes it at this very path; attributes are those of what a link leads to.
        self.entry_type.is_none()
    }

    fn right(&self, _: Which, exists: bool) -> Right {
        match self.entry_type {
            Some(EntryType::Mount) => Right::Admin,
            _ if exists => Right::Write,
            _ => Right::Create,
        }
    }

    fn ends(&self) -> Option<&str> {
        self.service.as_ref().and_then(|_| self.path.name())
    }

    fn validate(&self) -> Result<()> {
        let invalid =
            |why: &str| Err(Error::new(Self::OP, &self.path, ErrorKind::InvalidArgument).because(why));
        match (self.entry_type, &self.link_target, &self.mount) {
            (Some(EntryType::Link), None, _) => return invalid("a link needs a target"),
            (Some(EntryType::Link), Some(target), _) if target.is_empty() => {
                return invalid("a link needs a target");
            }
            (Some(EntryType::Link), Some(target), _) if target.contains('\0') => {
                return invalid("a link's target cannot contain NUL");
            }
            (Some(EntryType::Link), Some(target), _) if target.len() > PATH_MAX => {
                return Err(Error::new(Self::OP, &self.path, ErrorKind::NameTooLong));
            }
            (Some(EntryType::Link), Some(target), _) if **target == *self.path.as_str() => {
                return Err(Error::new(Self::OP, &self.path, ErrorKind::TooManyLinks)
                    .because("the link would lead to itself"));
            }
            (other, Some(_), _) if other != Some(EntryType::Link) => {
                return invalid("only a link has a target");
            }
            (Some(EntryType::Mount), _, None) => return invalid("a mount needs a driver"),
            (other, _, _) if self.pipe.is_some() && other != Some(EntryType::Pipe) => {
                return invalid("only a pipe has a capacity");
            }
            (other, _, _) if self.stream.is_some() && other != Some(EntryType::Stream) => {
                return invalid("only a stream keeps records");
            }
            (other, _, Some(_)) if other != Some(EntryType::Mount) => {
                return invalid("only a mount has a driver");
            }
            (other, _, _) if self.replace && other != Some(EntryType::Mount) => {
                return invalid("only the driver of a mount is replaced");
            }
            _ => {}
        }
        if self.service.is_some() && !crate::registry::is_service_path(&self.path) {
            return invalid("a service is at /__sys__/services/NAME");
        }
        if self.service.is_some() && (self.entry_type.is_some() || self.attributes != Attributes::none()) {
            return invalid("a service has neither a type nor attributes");
        }
        match self.entry_type {
            Some(EntryType::Pipe) if self.pipe.is_some_and(|pipe| pipe.io_profile == IoProfile::Durable) => {
                let error = Error::new(Self::OP, &self.path, ErrorKind::NotSupported);
                Err(error.because("a pipe is in memory"))
            }
            Some(EntryType::Pipe) => match self.pipe.unwrap_or_default().capacity {
                1..=PIPE_CAPACITY_MAX => Ok(()),
                other => invalid(&format!("a pipe holds 1 to {PIPE_CAPACITY_MAX} bytes, and not {other}")),
            },
            Some(EntryType::Stream) => match keeps_nothing(self.stream.unwrap_or_default()) {
                Some(why) => invalid(why),
                None => Ok(()),
            },
            None | Some(EntryType::Reg | EntryType::Dir | EntryType::Mount | EntryType::Link) => Ok(()),
            Some(other) => {
                let error = Error::new(Self::OP, &self.path, ErrorKind::NotSupported);
                Err(error.because(format!("this kernel does not make a {other}")))
            }
        }
    }
}

/// Why a stream that is made so could never have a record, or its limits cannot be kept; none when it can.
fn keeps_nothing(spec: StreamSpec) -> Option<&'static str> {
    if spec.bytes_max == Some(0) {
        return Some("a stream that keeps no bytes takes no record");
    }
    match spec.age_max.map(|age| u64::try_from(age.as_millis())) {
        Some(Ok(0)) => Some("a stream keeps a record for a millisecond at least"),
        Some(Err(_)) => Some("that is longer than can be counted in milliseconds"),
        _ => None,
    }
}

impl Mutation for SysSetattr {
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

    async fn run(
        kernel: &Arc<Kernel>,
        intent: &Intent,
        admitted: &Admitted<Self>,
    ) -> Result<SetattrDone, Stop> {
        let site = &admitted.first.site;
        if admitted.call.entry_type == Some(EntryType::Mount) {
            let error = Error::new(intent.op, &site.path, ErrorKind::Refused);
            return Err(error.because("a hook made it a mount").into());
        }
        Volume::to_change(kernel, site, intent).set(site, intent, &admitted.call).await
    }

    fn repeated(&self, first: &Located, _: Option<&Located>, receipt: Receipt) -> Option<SetattrDone> {
        Some(SetattrDone::new(false, Vec::new(), first.node.as_ref()?.metadata.clone(), receipt))
    }

    fn receipt(done: &SetattrDone) -> Receipt {
        done.receipt
    }

    fn event(intent: &Intent, admitted: &Admitted<Self>, done: &SetattrDone) -> Option<Event> {
        if !done.created && done.changed.is_empty() {
            return None;
        }
        let kind = kind_of_set(done.created, &done.metadata);
        let mut event = intent.event(kind, &admitted.first.site.path, &done.metadata, done.receipt);
        event.is_new = done.created;
        Some(event)
    }
}

impl Serve for SysSetattr {
    async fn serve(mut self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<SetattrDone> {
        mount_of_a_connector(kernel, &mut self)?;
        if self.service.is_some() {
            return set_service(kernel, caller, self).await;
        }
        if self.entry_type != Some(EntryType::Mount) {
            return mutate(kernel, caller, self).await;
        }
        self.validate()?;
        if !caller.admin {
            let error = Error::new(Self::OP, &self.path, ErrorKind::PermissionDenied);
            return Err(error.because("mounting needs the administrator's handle"));
        }
        let hooked = admit_unrouted(kernel, caller, &self).await?;
        let (env, kernel, caller) = (kernel.env().clone(), kernel.clone(), caller.clone());
        let attached = async move {
            let done = attach(&kernel, &caller, self).await;
            hooked.after(&done).await;
            done
        };
        Owned::from_start(&env, <Self as Message>::NAME, attached).await
    }
}

/// A mount that is asked for as external storage is one like any other, of a driver that makes connectors.
fn mount_of_a_connector(kernel: &Kernel, call: &mut SysSetattr) -> Result<()> {
    let (Some(EntryType::ExternalStorage), Some(spec)) = (call.entry_type, &call.mount) else {
        return Ok(());
    };
    let known = kernel.catalogue().get(&spec.driver);
    if known.is_some_and(|factory| !factory.is_connector()) {
        let error = Error::new(SysSetattr::OP, &call.path, ErrorKind::InvalidArgument);
        return Err(error.because(format!("the driver {:?} is no connector", spec.driver)));
    }
    // What there is no driver of, mounting says.
    call.entry_type = Some(EntryType::Mount);
    Ok(())
}

/// Registers or swaps a service. The registry lets one change of it be made at a time, and says so at once to whoever wants another: no path is
/// locked, which could be held for as long as a trial takes.
async fn set_service(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysSetattr) -> Result<SetattrDone> {
    call.validate()?;
    let op_id = call.op_id.unwrap_or_else(|| kernel.new_op_id());
    let mut admitted = admit(kernel, caller, call, Some(op_id)).await?;
    // Dropped with the caller's future, while the kernel goes on: a swap that is not published by then is given up.
    let (_here, gone) = presence();
    let (env, kernel, caller) = (kernel.env().clone(), kernel.clone(), caller.clone());
    let setting = async move {
        // A version whose hooks saw the call may be the one to end.
        admitted.step_aside();
        let done = enlist(&kernel, &caller, &admitted, gone).await;
        admitted.step_back();
        admitted.after(&done).await;
        done
    };
    Owned::from_start(&env, <SysSetattr as Message>::NAME, setting).await
}

async fn enlist(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    admitted: &Admitted<SysSetattr>,
    gone: Gone,
) -> Result<SetattrDone> {
    let (call, path) = (&admitted.call, &admitted.first.site.path);
    if call.service.is_none() || call.path != *path {
        return Err(
            Error::new(SysSetattr::OP, path, ErrorKind::Refused).because("a hook made it another call")
        );
    }
    kernel.enlist(caller, call, gone).await
}

async fn attach(kernel: &Arc<Kernel>, caller: &Arc<Caller>, mut call: SysSetattr) -> Result<SetattrDone> {
    let fail = |kind| Error::new(Op::Mount, &call.path, kind);
    match locate(kernel, Op::Mount, &caller.zone, &call.path, false).await {
        Ok(located) => {
            // A mount covers a directory, or nothing.
            if located.node.is_some_and(|node| !node.metadata.is_directory()) {
                return Err(fail(ErrorKind::NotADirectory));
            }
            // Routes know no links: the point is where they lead.
            call.path = located.site.path;
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::TooManyLinks) => {
            return Err(error);
        }
        // What should serve the path does not, or nothing does: that is no reason not to mount.
        Err(_) => {}
    }
    sys::not_to_be_covered(&call.path)?;
    kernel.mount(caller, &call).await
}
