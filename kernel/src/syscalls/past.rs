//! What was there before: where a call leads that looks as of then.

use std::sync::Arc;

use nexus_messages::syscall::AsOf;
use nexus_messages::{Caller, Error, ErrorKind, Lsn, Result};

use super::admit::{Admissible, Which, allow};
use super::locate::{Located, NO_PAST, locate_as_of};
use crate::kernel::Kernel;
use crate::volume::{Volume, store_error};

/// Where the first path of `call` led as of then. `now` is where it leads now, which the caller may see; what it led to elsewhere is asked of the gate too.
pub(super) async fn then<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
    now: &Located,
    as_of: AsOf,
) -> Result<Located> {
    match as_of {
        AsOf::Lsn(_) | AsOf::Time(_) => {
            let lsn = place(kernel, call, now, as_of)?;
            let follow = call.follows(Which::First);
            let then = locate_as_of(kernel, S::OP, &caller.zone, call.path(), follow, Some(lsn)).await?;
            if then.site.path != now.site.path {
                allow(kernel, caller, S::OP, call.right(Which::First, then.node.is_some()), &then).await?;
            }
            Ok(then)
        }
        AsOf::Version(version) => {
            let found = match Volume::of(kernel, &now.site) {
                Volume::Rows(volume) => volume.version(&now.site, version),
                Volume::Paths(_) | Volume::Sys(_) => Err(NO_PAST),
            };
            let node = found.map_err(|error| store_error(S::OP, &now.site.path, &error))?;
            Ok(Located { node, ..now.clone() })
        }
        _ => Err(Error::new(S::OP, call.path(), ErrorKind::NotSupported)),
    }
}

/// The place in the log as of which `call` looks at what has no versions. `now` is where it leads now.
pub(super) fn place<S: Admissible>(
    kernel: &Arc<Kernel>,
    call: &S,
    now: &Located,
    as_of: AsOf,
) -> Result<Lsn> {
    match as_of {
        AsOf::Lsn(lsn) => Ok(lsn),
        AsOf::Time(time) => {
            let found = match Volume::of(kernel, &now.site) {
                Volume::Rows(volume) => volume.moment(time),
                Volume::Paths(_) | Volume::Sys(_) => Err(NO_PAST),
            };
            found.map_err(|error| store_error(S::OP, call.path(), &error))
        }
        _ => {
            let error = Error::new(S::OP, call.path(), ErrorKind::InvalidArgument);
            Err(error.because("a directory has no versions: give a place in the log, or a time"))
        }
    }
}
