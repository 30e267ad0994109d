//! What was there before: where a call leads that looks as of then.

use std::sync::Arc;

use nexus_messages::syscall::AsOf;
use nexus_messages::{Caller, ContentId, Error, ErrorKind, Lsn, Op, Result, VPath};

use super::admit::{Admissible, Which, allow};
use super::locate::{ATTEMPTS_MAX, Located, NO_PAST, locate_as_of};
use crate::garbage::Hold;
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
            has_versions::<S>(now)?;
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

/// As [`then`], with its content held: that stays until the hold goes, whatever is pruned and collected meanwhile.
pub(super) async fn then_held<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
    now: &Located,
    as_of: AsOf,
) -> Result<(Located, Hold)> {
    let hold = kernel.garbage().hold();
    let mut found = then(kernel, caller, call, now, as_of).await?;
    for _ in 0..ATTEMPTS_MAX {
        match found.node.as_ref().and_then(|node| node.metadata.content_id.as_ref()) {
            Some(ContentId::Blake3(hash)) => hold.content(hash).await,
            Some(ContentId::Chunks(root)) => hold.list(root).await,
            _ => {}
        }
        // What is kept now was kept when it was held, and no collection takes what either of the two is true of.
        let again = then(kernel, caller, call, now, as_of).await?;
        if again.has_same_content(&found) {
            return Ok((again, hold));
        }
        found = again;
    }
    let error = Error::new(S::OP, call.path(), ErrorKind::Busy);
    Err(error.because(format!("what was as of {as_of} changed {ATTEMPTS_MAX} times in a row")))
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
        _ => Err(no_versions(S::OP, call.path())),
    }
}

/// Refuses a directory, where versions are asked for.
pub(super) fn has_versions<S: Admissible>(located: &Located) -> Result<()> {
    match &located.node {
        Some(node) if node.metadata.is_directory() => Err(no_versions(S::OP, &located.site.path)),
        _ => Ok(()),
    }
}

fn no_versions(op: Op, path: &VPath) -> Error {
    let error = Error::new(op, path, ErrorKind::InvalidArgument);
    error.because("a directory has no versions: give a place in the log, or a time")
}
