//! Whose a store is: one is the aim of one migration, and of no mount until that has ended.

use nexus_messages::syscall::MountSpec;
use nexus_messages::{ErrorKind, FileId, VPath};

use super::{Failed, journal};
use crate::hal::TreeId;
use crate::kernel::Kernel;
use crate::mounts::attach::remembered;
use crate::mounts::mount::Mount;
use crate::mounts::options::stores_the_same;

/// Whether no other mount has what `spec` names, nor had when it was detached, nor comes to it by a migration.
pub(super) fn not_taken(kernel: &Kernel, mount: &Mount, spec: &MountSpec) -> Result<(), Failed> {
    let rows = kernel.store().rows(mount.tree)?;
    let known = remembered(&rows)?;
    let mut successors = Vec::new();
    for (root, _) in &known {
        successors.extend(journal::state_of(&rows, *root)?.and_then(|state| state.successor));
    }
    // A successor is no mount: whose migration it is of is told below.
    for (root, row) in known.into_iter().filter(|(root, _)| !successors.contains(root)) {
        if !stores_the_same(&kernel.catalogue().remembered(row.spec.clone()), spec) {
            continue;
        }
        let why = match (root == mount.root, row.attached) {
            (true, true) => {
                "it is there already: options of every mount are changed by `mount --replace`".into()
            }
            (true, false) => continue,
            (false, true) => format!("it is the store of the mount {}", row.point),
            (false, false) => format!(
                "it is the store of the mount {point}, which is not mounted any more and is remembered: mount it again at {point} and migrate that, or take \
                 another place for this one",
                point = row.point
            ),
        };
        return Err(Failed { kind: ErrorKind::InvalidArgument, why });
    }
    drop(rows);
    not_aimed_at(kernel, mount.tree, mount.root, spec)
}

/// Whether no migration of another mount than the one with `root` goes to what `spec` names: it takes what is there for its own copies, and an abort removes it.
pub(in crate::mounts) fn not_aimed_at(
    kernel: &Kernel,
    tree: TreeId,
    root: FileId,
    spec: &MountSpec,
) -> Result<(), Failed> {
    if let Some(point) = kernel.migrations().going_to(root, spec) {
        return Err(aimed_at(&point));
    }
    let rows = kernel.store().rows(tree)?;
    for (other, row) in remembered(&rows)?.into_iter().filter(|(other, _)| *other != root) {
        let state = journal::state_of(&rows, other)?.filter(|state| !state.over);
        if state.is_some_and(|state| stores_the_same(&kernel.catalogue().remembered(state.spec), spec)) {
            return Err(aimed_at(&row.point));
        }
    }
    Ok(())
}

pub(super) fn aimed_at(point: &VPath) -> Failed {
    let why = format!(
        "a migration of the mount {point} goes to this store, and did not end: go on with that one, or abort it (where {point} is not mounted any more, mount it again \
         for that), or take another place for this one"
    );
    Failed { kind: ErrorKind::InvalidArgument, why }
}
