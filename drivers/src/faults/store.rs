//! The driver: the other one's calls, each past the switches.

use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{
    Addressing, CacheFigures, ConnectorCategory, ContentStore, ListPage, ObjectInfo, ObjectStore,
    PathCapabilities, PathStore, PathUpload, PathWrite, StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId};

use super::switches::{Faults, Where};

#[derive(Debug)]
pub(super) struct Faulty {
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) faults: Faults,
}

fn no<'a, T: Send + 'a>(what: &'static str) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::NotSupported { what })))
}

impl Faulty {
    fn content<'a, T: Send + 'a>(
        &'a self,
        at: Where,
        what: &'static str,
        call: impl FnOnce(&'a dyn ContentStore) -> StoreFuture<'a, T> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        self.faults.over(at, what, move || match self.inner.addressing() {
            Addressing::Content(store) => call(store),
            Addressing::Path(_) => no("content by its hash"),
        })
    }

    fn path<'a, T: Send + 'a>(
        &'a self,
        at: Where,
        what: &'static str,
        call: impl FnOnce(&'a dyn PathStore) -> StoreFuture<'a, T> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        self.faults.over(at, what, move || match self.inner.addressing() {
            Addressing::Path(store) => call(store),
            Addressing::Content(_) => no("content by its path"),
        })
    }
}

impl ObjectStore for Faulty {
    fn addressing(&self) -> Addressing<'_> {
        match self.inner.addressing() {
            Addressing::Content(_) => Addressing::Content(self),
            Addressing::Path(_) => Addressing::Path(self),
        }
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn connector(&self) -> Option<ConnectorCategory> {
        self.inner.connector()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.faults.over(Where::Probe, "probing", || self.inner.probe())
    }

    fn acknowledges_early(&self) -> bool {
        self.inner.acknowledges_early()
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        self.faults.over(Where::Change, "flushing", || self.inner.flush())
    }

    fn cache(&self) -> Option<CacheFigures> {
        self.inner.cache()
    }

    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }
}

impl ContentStore for Faulty {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        self.content(Where::Change, "writing content", move |store| store.write(id, data))
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        self.content(Where::Look, "reading content", move |store| store.read(id, range))
    }

    fn read_many<'a>(&'a self, ids: &'a [ContentId]) -> StoreFuture<'a, Vec<Bytes>> {
        self.content(Where::Look, "reading contents", move |store| store.read_many(ids))
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        self.content(Where::Look, "examining content", move |store| store.examine(id, range))
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        self.content(Where::Look, "looking for content", move |store| store.contains(id))
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        self.content(Where::Change, "deleting content", move |store| store.delete(id))
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.content(Where::Look, "looking for content", move |store| store.length(id))
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.content(Where::Look, "listing contents", move |store| store.list(after, limit))
    }

    fn reclaim(&self) -> StoreFuture<'_, u64> {
        self.content(Where::Change, "reclaiming space", ContentStore::reclaim)
    }

    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        self.content(Where::Look, "asking for damage", ContentStore::damage)
    }
}

impl PathStore for Faulty {
    fn can_name(&self, path: &str) -> Result<(), StoreError> {
        match self.inner.addressing() {
            Addressing::Path(store) => store.can_name(path),
            Addressing::Content(_) => Ok(()),
        }
    }

    fn capabilities(&self) -> PathCapabilities {
        match self.inner.addressing() {
            Addressing::Path(store) => store.capabilities(),
            Addressing::Content(_) => PathCapabilities::default(),
        }
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Look, "looking at a file", move |store| store.stat(path))
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        self.path(Where::Look, "reading a file", move |store| store.read(path, range))
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Change, "writing a file", move |store| store.write(path, data, how, attributes))
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        let begun = self.path(Where::Look, "beginning an upload", move |store| store.upload(path));
        Box::pin(async move {
            let inner = begun.await?;
            Ok(Box::new(FaultyUpload { inner, faults: self.faults.clone() }) as Box<dyn PathUpload>)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        self.path(Where::Change, "deleting a file", move |store| store.delete(path))
    }

    fn delete_many<'a>(&'a self, paths: &'a [String]) -> StoreFuture<'a, Vec<Result<(), StoreError>>> {
        self.path(Where::Change, "deleting files", move |store| store.delete_many(paths))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        self.path(Where::Look, "listing a folder", move |store| store.list(path, after, limit))
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Change, "making a folder", move |store| store.make_directory(path, attributes))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Change, "renaming a file", move |store| store.rename(from, to))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Change, "copying a file", move |store| store.copy(from, to))
    }

    fn copy_new<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Change, "copying a file", move |store| store.copy_new(from, to))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Change, "making a link", move |store| store.make_link(path, target))
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.path(Where::Change, "setting attributes", move |store| store.set_attributes(path, attributes))
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn PathUpload>,
    faults: Faults,
}

impl PathUpload for FaultyUpload {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        let Self { inner, faults } = self;
        faults.over(Where::Change, "uploading a part of a file", move || inner.push(data))
    }

    fn settle(&mut self) -> StoreFuture<'_, ()> {
        let Self { inner, faults } = self;
        faults.over(Where::Change, "uploading the rest of a file", move || inner.settle())
    }

    fn finish<'a>(
        self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let Self { inner, faults } = *self;
        faults.over(Where::Change, "finishing an upload", move || inner.finish(path, how, attributes))
    }
}
