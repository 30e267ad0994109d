//! Attaching at boot what the metastore remembers.

use std::sync::Arc;

use nexus_messages::{Error, ErrorKind, MountContext, Op};

use super::attach::{ROUTER_MAX, remembered, start};
use super::mount::Mount;
use crate::hal::TreeId;
use crate::kernel::Kernel;
use crate::router;

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
