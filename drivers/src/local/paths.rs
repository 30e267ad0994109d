//! An existing folder on the local disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nexus_actors::{Env, Pool};
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, OutsideChanges, PathCapabilities, PathStore, PathUpload,
    PathWrite, StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, EntryType};
use parking_lot::Mutex;

use super::folder::Folder;
use super::outside::{Heard, Told, Watching};
use super::upload::LocalUpload;
use crate::pooled::{self, Wanted};

/// A folder of the user's, as it is. Whatever it contains, nothing outside of it is read or written: no component of a path is followed
/// when it is a link, also when it becomes one meanwhile.
///
/// A link on the way to a path is told as `NotADirectory`, and one at its end cannot be read or written (`NotSupported`): the kernel follows
/// links. Entries that are neither file, directory nor link (pipes, sockets, devices) are told as `Pipe`. A whole write keeps the permissions of the
/// file that it replaces, and its owner and group where this process may give files away; extended attributes and further hard links stay with the old one.
#[derive(Debug)]
pub struct PathLocal {
    folder: Arc<Folder>,
    pool: Pool,
    /// What is heard of others who change it, when somebody is to be told.
    heard: Option<Arc<Heard>>,
    /// From when on they are told.
    watching: Mutex<Option<Watching>>,
}

impl PathLocal {
    /// Serves `folder`, which must exist. All blocking is done on `pool`.
    pub async fn open(folder: impl AsRef<Path>, pool: Pool) -> Result<Self, StoreError> {
        let folder: PathBuf = folder.as_ref().into();
        let folder = pooled::look(&pool, "opening a folder", move || Folder::open(&folder)).await?;
        Ok(Self { folder: Arc::new(folder), pool, heard: None, watching: Mutex::default() })
    }

    /// As [`open`](Self::open), and tells [what others change](PathStore::outside). For that the system is asked to tell of each folder in it, one by one:
    /// it has bounds on how many those are, and a large tree takes it a while.
    pub async fn open_noticing(folder: impl AsRef<Path>, pool: Pool, env: Env) -> Result<Self, StoreError> {
        let opened = Self::open(folder, pool).await?;
        Ok(Self { heard: Some(Heard::new(env)), ..opened })
    }

    /// Serves all but what is at `path` in the folder: it is not listed, no path may name it, and what holds it is not renamed. The first such path counts.
    #[must_use]
    pub fn without(self, path: impl Into<String>) -> Self {
        self.folder.leave_out(path.into());
        self
    }

    fn look<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let folder = self.folder.clone();
        Box::pin(pooled::look(&self.pool, what, move || folder.told(job(&folder))))
    }

    /// Changes what is at `path`.
    fn change<T: Left + Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        job: impl FnOnce(&Folder, &str, &Wanted) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let (folder, heard, path) = (self.folder.clone(), self.heard.clone(), path.to_owned());
        Box::pin(pooled::change(&self.pool, what, move |wanted| {
            told_own(heard, &path, || folder.told(job(&folder, &path, wanted)))
        }))
    }
}

/// Makes a change at `path` that is not to be told as one of others.
pub(super) fn told_own<T: Left>(
    heard: Option<Arc<Heard>>,
    path: &str,
    job: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut own = heard.map(|heard| heard.own(path));
    let done = job();
    if let (Some(own), Ok(done)) = (&mut own, &done) {
        own.made(done.at_path());
    }
    done
}

/// What a change leaves at its path.
pub(super) trait Left {
    fn at_path(&self) -> Option<&ObjectInfo>;
}

impl Left for ObjectInfo {
    fn at_path(&self) -> Option<&ObjectInfo> {
        Some(self)
    }
}

/// A deletion.
impl Left for () {
    fn at_path(&self) -> Option<&ObjectInfo> {
        None
    }
}

impl ObjectStore for PathLocal {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.look("probing a folder", Folder::probe)
    }

    fn trouble(&self) -> Option<String> {
        self.heard.as_ref().and_then(|heard| heard.trouble())
    }
}

impl PathStore for PathLocal {
    fn capabilities(&self) -> PathCapabilities {
        let mut can = PathCapabilities::POSIX;
        can.copy = true;
        can.upload = true;
        can
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let path = path.to_owned();
        self.look("looking at a file", move |folder| folder.stat(&path))
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(async move {
            if let Some(read) = self.folder.read_at_hand(path, range) {
                return Ok(read);
            }
            let path = path.to_owned();
            self.look("reading a file", move |folder| folder.read(&path, range)).await
        })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let (data, attributes) = (data.to_vec(), attributes.clone());
        self.change("writing a file", path, move |folder, path, wanted| {
            folder.write(path, &data, how, &attributes, wanted)
        })
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        Box::pin(async move {
            let at = path.to_owned();
            let part = self.look("beginning an upload", move |folder| folder.begin(&at)).await?;
            let (folder, pool, heard) = (self.folder.clone(), self.pool.clone(), self.heard.clone());
            Ok(Box::new(LocalUpload::new(folder, pool, heard, path, part)) as Box<dyn PathUpload>)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        self.change("deleting a file", path, |folder, path, _| folder.delete(path))
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
        let attributes = attributes.clone();
        self.change("making a folder", path, move |folder, path, _| folder.make_directory(path, &attributes))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let (heard, left) = (self.heard.clone(), from.to_owned());
        self.change("renaming a file", to, move |folder, to, _| {
            let mut own = heard.as_ref().map(|heard| heard.own(&left));
            let moved = folder.rename(&left, to)?;
            if let (Some(own), Some(heard)) = (&mut own, &heard) {
                own.made(None);
                if moved.entry_type == EntryType::Dir {
                    heard.moved(&left);
                    heard.moved(to);
                }
            }
            Ok(moved)
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let from = from.to_owned();
        self.change("copying a file", to, move |folder, to, wanted| folder.copy(&from, to, false, wanted))
    }

    fn copy_new<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let from = from.to_owned();
        self.change("copying a file", to, move |folder, to, wanted| folder.copy(&from, to, true, wanted))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let target = target.to_owned();
        self.change("making a link", path, move |folder, path, _| folder.make_link(path, &target))
    }

    fn outside(&self) -> StoreFuture<'_, Option<Box<dyn OutsideChanges>>> {
        Box::pin(async move {
            let Some(heard) = self.heard.clone().filter(|_| self.watching.lock().is_none()) else {
                return Ok(None);
            };
            let told =
                Told { heard: heard.clone(), folder: Arc::downgrade(&self.folder), pool: self.pool.clone() };
            let root = self.folder.path().to_owned();
            let left_out = self.folder.left_out().map(str::to_owned);
            let watching = pooled::look(&self.pool, "asking the system for changes", move || {
                Watching::begin(root, left_out, heard)
            });
            *self.watching.lock() = Some(watching.await?);
            Ok(Some(Box::new(told) as Box<dyn OutsideChanges>))
        })
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let attributes = attributes.clone();
        self.change("setting attributes", path, move |folder, path, _| {
            folder.set_attributes(path, &attributes)
        })
    }
}
