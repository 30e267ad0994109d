//! `SysSync` and `SysReceipt`: what is on disk.

use std::sync::Arc;

use nexus_messages::syscall::{Kept, Synced, SysReceipt, SysSync};
use nexus_messages::{Caller, Durability, Error, ErrorKind, Receipt, Result, VPath};

use super::Serve;
use super::admit::{Admissible, Which, admit, one_path};
use super::locate::Located;
use crate::gate::Right;
use crate::hal::{StoreError, TreeId};
use crate::kernel::Kernel;
use crate::volume::{commit_error, store_error};

impl Admissible for SysSync {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::Read
    }
}

impl Serve for SysSync {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Synced> {
        let admitted = Box::pin(admit(kernel, caller, self, None)).await?;
        let synced = sync(kernel, &admitted.first).await;
        admitted.after(&synced).await;
        synced
    }
}

async fn sync(kernel: &Kernel, located: &Located) -> Result<Synced> {
    let (site, store) = (&located.site, kernel.store());
    if located.node.is_none() {
        return Err(Error::new(SysSync::OP, &site.path, ErrorKind::NotFound));
    }
    let tree = site.mount.tree;
    let failed = |error: StoreError| store_error(SysSync::OP, &site.path, &error);
    let lsn = store.last_lsn(tree).map_err(failed)?;
    if let Err(error) = store.make_durable(tree, lsn).await {
        let error = commit_error(SysSync::OP, &site.path, &error).failed();
        return Err(error.unwrap_or_else(|| Error::new(SysSync::OP, &site.path, ErrorKind::Busy)));
    }
    Ok(Synced::new(store.metastore().durable_lsn(tree).map_err(failed)?))
}

impl Serve for SysReceipt {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Kept> {
        let failed = |error: StoreError| store_error(Self::OP, &VPath::root(), &error);
        match kernel.tree_of(&caller.zone).map_err(failed)? {
            Some(tree) => kept(kernel, tree, &self.receipt).map_err(failed),
            // Nothing was ever committed there.
            None => Ok(Kept::Lost),
        }
    }
}

fn kept(kernel: &Kernel, tree: TreeId, receipt: &Receipt) -> Result<Kept, StoreError> {
    if !receipt.changed {
        return Ok(Kept::Nothing);
    }
    let (store, metastore) = (kernel.store(), kernel.store().metastore());
    if receipt.durability == Durability::Volatile {
        let lives = receipt.lsn > store.begun_at(tree) && receipt.lsn <= metastore.last_lsn(tree)?;
        return Ok(if lives { Kept::InMemory } else { Kept::Lost });
    }
    match metastore.record(tree, receipt.lsn)? {
        Some(record) if record.op_id != receipt.op_id => Ok(Kept::Lost),
        Some(_) if metastore.durable_lsn(tree)? >= receipt.lsn => Ok(Kept::OnDisk),
        Some(_) => Ok(Kept::InMemory),
        None if receipt.lsn > metastore.last_lsn(tree)? => Ok(Kept::Lost),
        // It was on disk before anybody had the receipt.
        None if receipt.durability == Durability::Strong => Ok(Kept::OnDisk),
        None => Ok(Kept::Forgotten),
    }
}
