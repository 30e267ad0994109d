//! `SysStat`: metadata of one entry.

use std::sync::Arc;

use nexus_messages::syscall::SysStat;
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
        kernel.warm(caller, &self.path, self.follow).map(|node| node.metadata)
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Arc<FileMetadata>> {
        Box::pin(cold(kernel, caller, self)).await
    }
}

async fn cold(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysStat) -> Result<Arc<FileMetadata>> {
    let admitted = admit(kernel, caller, call, None).await?;
    let located = match admitted.call.as_of {
        None => Ok(admitted.first.clone()),
        Some(as_of) => then(kernel, caller, &admitted.call, &admitted.first, as_of).await,
    };
    let include_lock = admitted.call.include_lock;
    let found = located.and_then(|located| located.existing(SysStat::OP)).map(|(site, node)| {
        let lock = include_lock.then(|| kernel.advisory().state(&site.mount.zone, &site.path)).flatten();
        match lock {
            Some(lock) => {
                let mut metadata = (*node.metadata).clone();
                metadata.lock = Some(Arc::new(lock));
                Arc::new(metadata)
            }
            None => node.metadata,
        }
    });
    admitted.after(&found).await;
    found
}
