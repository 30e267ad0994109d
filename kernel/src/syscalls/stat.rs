//! `SysStat`: metadata of one entry.

use std::sync::Arc;

use nexus_messages::syscall::{LockState, SysStat};
use nexus_messages::{Caller, FileMetadata, Result, VPath};

use super::Serve;
use super::admit::{Admissible, Which, admit, one_path};
use super::past::then;
use crate::gate::Right;
use crate::kernel::Kernel;

impl Admissible for SysStat {
    one_path!();

    fn is_of_the_past(&self, _: Which) -> bool {
        self.as_of.is_some()
    }

    fn follows(&self, _: Which) -> bool {
        self.follow
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::Read
    }
}

impl Serve for SysStat {
    #[inline]
    fn warm(&mut self, kernel: &Kernel, caller: &Caller) -> Option<Arc<FileMetadata>> {
        if self.as_of.is_some() || self.include_lock {
            return None;
        }
        kernel.warm(caller, &self.path, self.follow, |node| Some(node.metadata))
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Arc<FileMetadata>> {
        Box::pin(cold(kernel, caller, self)).await
    }
}

fn with_lock(metadata: Arc<FileMetadata>, lock: Option<LockState>) -> Arc<FileMetadata> {
    let Some(lock) = lock else { return metadata };
    let mut metadata = (*metadata).clone();
    metadata.lock = Some(Arc::new(lock));
    Arc::new(metadata)
}

async fn cold(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysStat) -> Result<Arc<FileMetadata>> {
    let admitted = admit(kernel, caller, call, None).await?;
    let located = match admitted.call.as_of {
        None => Ok(admitted.first.clone()),
        Some(as_of) => then(kernel, caller, &admitted.call, &admitted.first, as_of).await,
    };
    let found = match located.and_then(|located| located.existing(SysStat::OP)) {
        Ok((site, node)) if admitted.call.include_lock => {
            let zone = &site.mount.zone;
            let lock = kernel.keeper(zone).state(zone, &site.path).await;
            lock.map(|lock| with_lock(node.metadata, lock))
        }
        found => found.map(|(_, node)| node.metadata),
    };
    admitted.after(&found).await;
    found
}
