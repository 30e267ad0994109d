//! Content on its way to a file, piece by piece: into a hidden file in the folder that it is for.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use nexus_actors::Pool;
use nexus_kernel::hal::{ObjectInfo, PathUpload, PathWrite, StoreError, StoreFuture};
use nexus_messages::Attributes;

use super::folder::Folder;
use super::outside::Heard;
use super::part::Part;
use super::paths::told_own;
use crate::pooled;

/// An upload into a folder. Its file lies in that of the parents which are there already; what is missing of them is made when it finishes.
#[derive(Debug)]
pub(super) struct LocalUpload {
    folder: Arc<Folder>,
    pool: Pool,
    heard: Option<Arc<Heard>>,
    /// What errors call it.
    path: Arc<str>,
    /// Held by the job that writes, too: it is removed by whoever is the last.
    ///
    /// Invariant: some until it is finished or dropped.
    part: Option<Arc<Part>>,
}

impl LocalUpload {
    pub(super) fn new(
        folder: Arc<Folder>,
        pool: Pool,
        heard: Option<Arc<Heard>>,
        path: &str,
        part: Part,
    ) -> Self {
        Self { folder, pool, heard, path: path.into(), part: Some(Arc::new(part)) }
    }

    /// Runs `job` with the hidden file.
    fn with(
        &self,
        what: &'static str,
        job: impl FnOnce(&Part, &str) -> Result<(), StoreError> + Send + 'static,
    ) -> StoreFuture<'_, ()> {
        let (part, path) = (self.part.clone(), self.path.clone());
        Box::pin(pooled::look(&self.pool, what, move || match part {
            Some(part) => job(&part, &path),
            None => Err(StoreError::Closed),
        }))
    }
}

impl Drop for LocalUpload {
    fn drop(&mut self) {
        let Some(part) = self.part.take() else { return };
        // To remove a large file takes its time. The job is queued at the first look, or removes it here when there is no room.
        let removing = pin!(self.pool.run(move || drop(part)));
        let _ = removing.poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl PathUpload for LocalUpload {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        self.with("writing a part of a file", move |part, path| part.write(&[data], path))
    }

    fn settle(&mut self) -> StoreFuture<'_, ()> {
        self.with("flushing a file", Part::sync)
    }

    fn finish<'a>(
        mut self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let (path, attributes) = (path.to_owned(), attributes.clone());
        Box::pin(async move {
            let part = self.part.take().and_then(Arc::into_inner);
            let Some(part) = part else {
                let cause = "a call before was given up".into();
                return Err(StoreError::Backend { what: "uploading a file".into(), cause });
            };
            let (folder, heard) = (self.folder.clone(), self.heard.clone());
            let finishing = pooled::change(&self.pool, "finishing an upload", move |wanted| {
                let finish = || folder.finish(part, &path, &how, &attributes, wanted);
                told_own(heard, &path, || folder.told(finish()))
            });
            finishing.await
        })
    }
}
