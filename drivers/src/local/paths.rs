//! An existing folder on the local disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nexus_actors::Pool;
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathWrite, StoreError,
    StoreFuture,
};
use nexus_messages::Attributes;
use nexus_messages::syscall::ByteRange;

use super::folder::Folder;
use crate::pooled::{self, Wanted};

/// A folder of the user's, as it is. Whatever it contains, nothing outside of it is read or written: no component of a path is followed
/// when it is a link, also when it becomes one meanwhile.
///
/// A link on the way to a path is told as `NotADirectory`, and one at its end cannot be read or written (`NotSupported`): the kernel follows
/// links. Entries that are neither file, directory nor link are told as `ExternalStorage`. A whole write keeps the permissions of the
/// file that it replaces; extended attributes and further hard links stay with the old one.
#[derive(Debug)]
pub struct PathLocal {
    folder: Arc<Folder>,
    pool: Pool,
}

impl PathLocal {
    /// Serves `folder`, which must exist. All blocking is done on `pool`.
    pub async fn open(folder: impl AsRef<Path>, pool: Pool) -> Result<Self, StoreError> {
        let folder: PathBuf = folder.as_ref().into();
        let folder = pooled::look(&pool, "opening a folder", move || Folder::open(&folder)).await?;
        Ok(Self { folder: Arc::new(folder), pool })
    }

    fn look<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let folder = self.folder.clone();
        Box::pin(pooled::look(&self.pool, what, move || job(&folder)))
    }

    fn change<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&Folder, &Wanted) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let folder = self.folder.clone();
        Box::pin(pooled::change(&self.pool, what, move |wanted| job(&folder, wanted)))
    }
}

impl ObjectStore for PathLocal {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.look("probing a folder", Folder::probe)
    }
}

impl PathStore for PathLocal {
    fn capabilities(&self) -> PathCapabilities {
        PathCapabilities::POSIX
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let path = path.to_owned();
        self.look("looking at a file", move |folder| folder.stat(&path))
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        let path = path.to_owned();
        self.look("reading a file", move |folder| folder.read(&path, range))
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let (path, data, attributes) = (path.to_owned(), data.to_vec(), attributes.clone());
        self.change("writing a file", move |folder, wanted| {
            folder.write(&path, &data, how, &attributes, wanted)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        let path = path.to_owned();
        self.change("deleting a file", move |folder, _| folder.delete(&path))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        let (path, after) = (path.to_owned(), after.map(str::to_owned));
        self.look("listing a folder", move |folder| folder.list(&path, after.as_deref(), limit))
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let (path, attributes) = (path.to_owned(), attributes.clone());
        self.change("making a folder", move |folder, _| folder.make_directory(&path, &attributes))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.change("renaming a file", move |folder, _| folder.rename(&from, &to))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let (path, target) = (path.to_owned(), target.to_owned());
        self.change("making a link", move |folder, _| folder.make_link(&path, &target))
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let (path, attributes) = (path.to_owned(), attributes.clone());
        self.change("setting attributes", move |folder, _| folder.set_attributes(&path, &attributes))
    }
}
