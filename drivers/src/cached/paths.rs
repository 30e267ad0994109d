//! The store in front: what callers are given, and what they write.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nexus_kernel::hal::{
    Addressing, CacheFigures, ConnectorCategory, ListPage, ObjectInfo, ObjectStore, PathCapabilities,
    PathStore, PathUpload, PathWrite, StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, EntryType};
use tokio::sync::Semaphore;

use super::mounted::Mounted;
use super::options::Caching;
use super::place::{Asking, Place};
use super::rows::short;
use super::table::{Age, Known, parent};
use super::upload;
use super::vault::Vault;
use super::writing::Through;
use super::{KEEPING_MAX, NAMES_MAX};
use crate::path::components;

/// How many files are asked about at once that went out of sight while a folder was listed.
const LOOKS_AT_ONCE: usize = 16;

/// A path-addressed store with a cache in front of it.
#[derive(Debug, Clone)]
pub struct CachedPaths {
    inner: Arc<dyn ObjectStore>,
    pub(super) vault: Arc<Vault>,
    pub(super) place: Arc<Place>,
    pub(super) caching: Caching,
    pub(super) keeping: Arc<Semaphore>,
    /// Whether a file has one content for ever, so that what is here of it need not be asked about.
    pub(super) never_changes: bool,
    /// Uploads end with it.
    _alive: Arc<Mounted>,
}

impl CachedPaths {
    /// A cache in `vault` in front of `inner`, which is the store of this name: what is pending for that goes to `inner` from now on.
    ///
    /// # Errors
    /// [`StoreError::BadOption`] when something is asked for that cannot be.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        vault: Arc<Vault>,
        name: &str,
        caching: Caching,
    ) -> Result<Self, StoreError> {
        let id = short(&blake3::hash(name.as_bytes()));
        Self::of_place(inner, Mounted::of(vault, id, &caching), caching)
    }

    pub(super) fn of_place(
        inner: Arc<dyn ObjectStore>,
        mounted: Mounted,
        caching: Caching,
    ) -> Result<Self, StoreError> {
        let bad = |why: &str| Err(StoreError::BadOption { why: why.into() });
        if caching.write_back && inner.connector().is_some() {
            // What it takes, and what becomes of it, is known when it has answered, and not before.
            return bad("write_back is \"yes\", and a connector takes what its description has a route for");
        }
        if caching.write_back && inner.read_only() {
            return bad("write_back is \"yes\", and the mount takes no changes");
        }
        let vault = mounted.vault.clone();
        if caching.write_back && vault.is_volatile() {
            return bad(
                "write_back is \"yes\", and this kernel has no data folder in which what is pending could lie",
            );
        }
        let place = mounted.place.clone();
        // It may have been allowed more before.
        place.make_room(&vault, caching.bytes_max);
        let alive = Arc::new(mounted);
        upload::begin(&inner, &alive, caching);
        let keeping = Arc::new(Semaphore::new(KEEPING_MAX));
        Ok(Self { inner, vault, place, caching, keeping, never_changes: false, _alive: alive })
    }

    /// The same, of files of which each has one content for ever.
    pub(super) fn never_changing(mut self) -> Self {
        self.never_changes = true;
        self
    }

    pub(super) fn store(&self) -> Result<&dyn PathStore, StoreError> {
        match self.inner.addressing() {
            Addressing::Path(store) => Ok(store),
            Addressing::Content(_) => Err(StoreError::NotSupported { what: "content by its path" }),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.vault.env().wall()
    }

    /// What was seen in it need not be asked about again.
    pub(super) fn age(&self) -> Age {
        let now = self.now();
        let age = u64::try_from(self.caching.age.as_nanos()).unwrap_or(u64::MAX);
        // With no age nothing is later.
        let since = if age == 0 { u64::MAX } else { now.saturating_sub(age) };
        Age { since, now }
    }

    pub(super) fn remembers(&self) -> bool {
        !self.caching.age.is_zero()
    }

    /// Whether a listing says of each file what a look at it says, and names all that are there. Those of a connector need not: a service lists some of what it has, and without its size.
    fn learns_from_listings(&self) -> bool {
        self.remembers() && self.inner.connector().is_none()
    }

    /// What callers are told: an identity only where each file has one from its first moment on.
    pub(super) fn plain(&self, mut info: ObjectInfo) -> ObjectInfo {
        if self.caching.write_back {
            info.inode = 0;
        }
        info
    }

    pub(super) fn known(&self, path: &str) -> Option<Result<ObjectInfo, StoreError>> {
        match self.place.table().known(path, self.age()) {
            Known::Is(info) => Some(Ok(info)),
            Known::Absent => Some(Err(StoreError::NotFound { what: path.into() })),
            Known::Below(file) => Some(Err(StoreError::NotADirectory { what: file })),
            Known::Unknown => None,
        }
    }

    pub(super) async fn look(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        components(path)?;
        if let Some(known) = self.known(path) {
            return known;
        }
        if self.learns_from_listings() && !path.is_empty() {
            let folder = parent(path);
            let is_large = self.place.table().is_large(folder, self.age());
            if !is_large {
                self.look_around(folder).await?;
                if let Some(known) = self.known(path) {
                    return known;
                }
            }
        }
        self.ask(path).await
    }

    /// Asks the store for all that is in `folder`, if that is not too much.
    async fn look_around(&self, folder: &str) -> Result<(), StoreError> {
        let asking = self.place.ask(folder);
        let now = self.now();
        let page = match self.store()?.list(folder, None, NAMES_MAX).await {
            Ok(page) => page,
            Err(StoreError::NotFound { .. }) => ListPage::default(),
            Err(error) if error.is_backend_failure() || matches!(error, StoreError::Unavailable { .. }) => {
                return Err(error);
            }
            // It cannot be listed, by us or by anybody: what is in it is asked for by its path, as if it were too much.
            Err(_) => {
                self.place.table().learn_folder(folder, None, now);
                return Ok(());
            }
        };
        self.learn_page(&asking, folder, &page, now);
        Ok(())
    }

    /// Takes a page that begins a folder.
    fn learn_page(&self, asking: &Asking, folder: &str, page: &ListPage, now: u64) {
        let mut table = self.place.table();
        if !asking.holds(&table) {
            return;
        }
        let is_whole = !page.more && page.unnameable == 0;
        let children = (is_whole && self.learns_from_listings())
            .then(|| page.entries.iter().cloned().collect::<BTreeMap<_, _>>());
        table.learn_folder(folder, children, now);
    }

    pub(super) async fn ask(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        let asking = self.place.ask(parent(path));
        let now = self.now();
        let found = self.store()?.stat(path).await;
        let mut table = self.place.table();
        let is_true = asking.holds(&table);
        match found {
            Ok(info) if is_true => Ok(table.learn(&self.vault, path, &info, now, self.remembers())),
            Ok(info) => Ok(table.shown(path, &info)),
            Err(error) => {
                if is_true && matches!(error, StoreError::NotFound { .. }) && !table.is_pending(path) {
                    table.forget(&self.vault, path);
                    table.note_missing(path);
                }
                Err(error)
            }
        }
    }

    pub(super) async fn list_at(
        &self,
        path: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        components(path)?;
        let (is_here, before) = {
            let table = self.place.table();
            if table.is_pending(path) {
                return Err(StoreError::NotADirectory { what: path.into() });
            }
            // Also when all that is here of it comes before the page.
            (table.is_pending_below(path), table.pending_in(path, after))
        };
        let seen = self.place.table().listing(path, after, limit, self.age());
        let mut page = match seen {
            Some(page) => page,
            None => match self.list_new(path, after, limit).await {
                Ok(page) => page,
                Err(StoreError::NotFound { .. }) if is_here => ListPage::default(),
                Err(error) => return Err(error),
            },
        };
        let full = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        // What has come to the store since the page was made is not pending any more; nor is what is gone.
        let looks = before.into_iter().map(|(name, info)| {
            let path = full(&name);
            async move {
                if info.entry_type == EntryType::Dir || self.place.table().is_file(&path) {
                    return Ok(Some((name, info)));
                }
                match self.ask(&path).await {
                    Ok(info) => Ok(Some((name, info))),
                    Err(StoreError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        });
        let came: Vec<_> = stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await?;
        let came: BTreeMap<String, ObjectInfo> = came.into_iter().flatten().collect();
        let table = self.place.table();
        let mut pending = came;
        pending.extend(table.pending_in(path, after));
        let last = page.entries.last().map(|(name, _)| name.clone()).filter(|_| page.more);
        let mut entries: BTreeMap<String, ObjectInfo> = BTreeMap::new();
        for (name, info) in page.entries {
            let shown = table.shown(&full(&name), &info);
            entries.insert(name, shown);
        }
        drop(table);
        let in_page = |name: &String| last.as_ref().is_none_or(|last| name <= last);
        entries.extend(pending.into_iter().filter(|(name, _)| in_page(name)));
        page.more |= entries.len() > limit;
        page.entries = entries.into_iter().take(limit).collect();
        Ok(page)
    }

    async fn list_new(&self, path: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let asking = self.place.ask(path);
        let now = self.now();
        let page = self.store()?.list(path, after, limit).await?;
        if after.is_none() && self.remembers() && page.entries.len() <= NAMES_MAX {
            self.learn_page(&asking, path, &page, now);
        }
        Ok(page)
    }
}

/// A length of bytes that are in memory.
pub(super) fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl ObjectStore for CachedPaths {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.inner.probe()
    }

    fn connector(&self) -> Option<ConnectorCategory> {
        self.inner.connector()
    }

    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }

    fn cache(&self) -> Option<CacheFigures> {
        let mut figures = self.place.figures();
        figures.bytes_max = self.caching.bytes_max;
        Some(figures)
    }

    fn acknowledges_early(&self) -> bool {
        self.caching.write_back
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.place.drain_all())
    }
}

impl PathStore for CachedPaths {
    fn can_name(&self, path: &str) -> Result<(), StoreError> {
        self.store()?.can_name(path)
    }

    fn capabilities(&self) -> PathCapabilities {
        let mut can = self.store().map(PathStore::capabilities).unwrap_or_default();
        can.exclusive &= !self.caching.write_back;
        can
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.look(path).await.map(|info| self.plain(info)) })
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(async move {
            let (bytes, info) = self.read_at(path, range).await?;
            Ok((bytes, self.plain(info)))
        })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.write_at(path, data, how, attributes).await.map(|info| self.plain(info)) })
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        Box::pin(async move {
            components(path)?;
            let inner = self.store()?.upload(path).await?;
            Ok(Box::new(Through { near: self.clone(), inner }) as Box<dyn PathUpload>)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.delete_at(path))
    }

    fn delete_many<'a>(&'a self, paths: &'a [String]) -> StoreFuture<'a, Vec<Result<(), StoreError>>> {
        Box::pin(self.delete_all(paths))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(async move {
            let mut page = self.list_at(path, after, limit).await?;
            page.entries = page.entries.into_iter().map(|(name, info)| (name, self.plain(info))).collect();
            Ok(page)
        })
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            if self.place.table().is_pending_below(path) {
                return Err(StoreError::Exists { what: path.into() });
            }
            self.beside([path], async {
                self.store()?.make_directory(path, attributes).await.map(|info| self.plain(info))
            })
            .await
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside([from, to], async move {
            self.store()?.rename(from, to).await.map(|info| self.plain(info))
        }))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside([from, to], async move {
            self.store()?.copy(from, to).await.map(|info| self.plain(info))
        }))
    }

    fn copy_new<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside([from, to], async move {
            self.store()?.copy_new(from, to).await.map(|info| self.plain(info))
        }))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside([path], async move {
            self.store()?.make_link(path, target).await.map(|info| self.plain(info))
        }))
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside([path], async move {
            self.store()?.set_attributes(path, attributes).await.map(|info| self.plain(info))
        }))
    }
}
