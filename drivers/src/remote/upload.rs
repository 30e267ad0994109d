//! Content on its way to a key, as the kernel pushes it.

use bytes::Bytes;
use nexus_kernel::hal::{ObjectInfo, PathUpload, PathWrite, StoreFuture};
use nexus_messages::Attributes;

use super::multipart::Upload;
use super::paths::RemotePaths;

/// An upload to a bucket. What is less than a part is held until it finishes, and may end anywhere; parts belong to the key that they were begun for.
#[derive(Debug)]
pub(super) struct RemoteUpload {
    paths: RemotePaths,
    upload: Upload,
}

impl RemoteUpload {
    pub(super) fn new(paths: RemotePaths, upload: Upload) -> Self {
        Self { paths, upload }
    }
}

impl PathUpload for RemoteUpload {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        Box::pin(self.upload.push(data))
    }

    fn settle(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(self.upload.settle())
    }

    fn finish<'a>(
        self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        _: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.paths.finish(self.upload, path, how).await })
    }
}
