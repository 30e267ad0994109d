//! Whether a call would pass the gate, without making it.

use std::sync::Arc;

use nexus_messages::syscall::SysStat;
use nexus_messages::{Caller, ErrorKind, Op, Result, VPath};

use super::admit::{allow, resolve};
use super::locate::locate;
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::sys;

impl Kernel {
    /// Whether `caller` may do this at `path`, as things are now: something is there, the gate lets it pass, and the mount takes changes, if
    /// it is one. Links are followed. No promise for a later call. Changes nothing, may be repeated.
    ///
    /// # Errors
    /// What keeps the question from being answered: `ENODEV`, `ELOOP`, `EIO`.
    pub async fn access(self: &Arc<Self>, caller: &Arc<Caller>, path: &VPath, right: Right) -> Result<bool> {
        let refused = |kind| {
            matches!(
                kind,
                ErrorKind::NotFound
                    | ErrorKind::NotADirectory
                    | ErrorKind::PermissionDenied
                    | ErrorKind::Refused
            )
        };
        match allowed(self, caller, path, right).await {
            Err(error) if refused(error.kind()) => Ok(false),
            answered => answered.map_err(|error| error.during(Op::Access)),
        }
    }
}

async fn allowed(kernel: &Arc<Kernel>, caller: &Arc<Caller>, path: &VPath, right: Right) -> Result<bool> {
    let mut call = SysStat::at(path);
    resolve(kernel, caller, &mut call).await?;
    let located = locate(kernel, Op::Access, &caller.zone, &call.path, true).await?;
    allow(kernel, caller, Op::Access, right, &located).await?;
    let changes = !matches!(right, Right::Read | Right::List);
    let (site, node) = located.existing(Op::Access)?;
    let read_only = site.mount.is_read_only() || sys::serves(&site.path) && node.metadata.mode & 0o200 == 0;
    Ok(!(changes && read_only))
}
