//! Attaching at boot what the metastore remembers.

use std::sync::Arc;

use nexus_messages::{Caller, EntryType, Error, ErrorKind, FileId, MountContext, Op, Timestamp};

use super::attach::{ROUTER_MAX, commit, remembered, start};
use super::mount::Mount;
use crate::hal::{Change, Entry, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{InodeRow, MountRow, encode, inode_key, mount_key};
use crate::router;

/// Gives a mount whose content is gone with the last process a new, empty root.
async fn begin_empty(kernel: &Kernel, old: FileId, row: &MountRow) -> Result<FileId, Error> {
    let root = kernel.store().new_file_id();
    let at = Timestamp(kernel.env().wall());
    let inode = InodeRow::new(EntryType::Mount, Caller::KERNEL.into(), at);
    let entry = Entry {
        tree: row.tree,
        op_id: kernel.new_op_id(),
        repeatable: false,
        caller: Caller::KERNEL.into(),
        op: Op::Mount,
        path: row.point.clone(),
        other: None,
        at,
        preconditions: Vec::new(),
        changes: vec![
            Change::Delete(mount_key(old)),
            Change::Put(mount_key(root), encode(row)),
            Change::Put(inode_key(row.tree, root), encode(&inode)),
        ],
    };
    commit(kernel, entry).await?;
    Ok(root)
}

pub(super) async fn remount(kernel: Arc<Kernel>) -> Result<Vec<Arc<Mount>>, Error> {
    let failed = |error: crate::hal::StoreError| Error::global(Op::Mount, error.kind()).because(error);
    let rows = kernel.store().rows(TreeId::ROOT).map_err(failed)?;
    let known = remembered(&rows).map_err(failed)?;
    drop(rows);
    let mut mounts = Vec::new();
    for (root, row) in known.into_iter().filter(|(_, row)| row.attached) {
        if kernel.mount_at(&row.zone, &row.point).is_some() {
            continue;
        }
        let volatile = kernel.catalogue().get(&row.spec.driver).is_some_and(|factory| factory.volatile());
        let root = if volatile { begin_empty(&kernel, root, &row).await? } else { root };
        let make = || Mount::new(root, row.zone.clone(), row.tree, row.point.clone(), row.spec.clone());
        let mut mount = Arc::new(make());
        if let Err((_, cause)) = start(&kernel, &mount).await {
            tracing::error!(point = %row.point, driver = row.spec.driver, cause, "a mount could not be started");
            mount = Arc::new(make().failed(cause));
        }
        let routed = kernel.router().call(router::Mount(mount.clone()), ROUTER_MAX).await;
        match routed {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Error::new(Op::Mount, &row.point, ErrorKind::Busy).because(error)),
            Err(error) => return Err(Error::new(Op::Mount, &row.point, ErrorKind::Crashed).because(error)),
        }
        if let Some(hooks) = kernel.dispatch().get() {
            hooks.mounted(&MountContext::new(row.point.clone(), row.spec.driver.clone(), None)).await;
        }
        mounts.push(mount);
    }
    Ok(mounts)
}
