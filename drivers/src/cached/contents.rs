//! The same in front of a store that is addressed by content. What has a hash for its name never changes, so what is here of it need not be asked about; whether
//! the store still has it, it is always asked.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nexus_kernel::hal::{
    Addressing, CacheFigures, ContentStore, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore,
    PathWrite, StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};

use super::mounted::Mounted;
use super::options::Caching;
use super::paths::{CachedPaths, count};
use super::place::Asking;
use super::rows::short;
use super::table::{Age, Piece};
use super::vault::Vault;

/// The one folder that contents are files of.
const FOLDER: &str = "";

/// A content-addressed store with a cache in front of it.
#[derive(Debug)]
pub struct CachedContents {
    inner: Arc<dyn ObjectStore>,
    /// The contents as files of one folder.
    files: CachedPaths,
}

impl CachedContents {
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
        if !caching.age.is_zero() {
            let why = "cache_age_ms is for content that changes, and addressing is \"content\"";
            return Err(StoreError::BadOption { why: why.into() });
        }
        let files = Arc::new(AsFiles(inner.clone()));
        Ok(Self { inner, files: CachedPaths::of_place(files, mounted, caching)?.never_changing() })
    }

    fn store(&self) -> Result<&dyn ContentStore, StoreError> {
        contents(&*self.inner)
    }

    /// The pieces of a content that is here alone, and how long it is.
    fn pending(&self, name: &str) -> Option<(u64, Vec<Piece>)> {
        let held = self.files.place.table().held(name, Age::NONE).filter(|held| held.is_pending)?;
        Some((held.info.size, held.pieces.into_values().collect()))
    }

    async fn write_one(&self, id: &ContentId, data: &[Bytes]) -> Result<(), StoreError> {
        let name = name_of(id)?;
        let size = data.iter().map(|buffer| buffer.len() as u64).sum();
        let attributes = Attributes::none();
        match self.files.room(size) {
            // Whether it is there already, who brings it there finds out.
            Some(room) => self.files.write_back(&name, data, room, &attributes, None, None).await.map(drop),
            None => self.files.write_through(&name, data, PathWrite::Whole, &attributes).await.map(drop),
        }
    }

    async fn read_one(&self, id: &ContentId, range: ByteRange) -> Result<Bytes, StoreError> {
        let name = name_of(id)?;
        if self.files.caching.bytes_max == 0 && !self.files.place.table().is_pending(&name) {
            return self.store()?.read(id, range).await;
        }
        self.files.read_at(&name, range).await.map(|(bytes, _)| bytes)
    }

    /// What is here is read here; all else is asked for at once.
    async fn read_several(&self, ids: &[ContentId]) -> Result<Vec<Bytes>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            let here = self.files.read_here(&name_of(id)?).await?;
            self.files.place.count(here.is_some());
            if here.is_none() {
                missing.push(id.clone());
            }
            found.push(here);
        }
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        let asking = self.files.place.ask(FOLDER);
        let mut came = self.store()?.read_many(&missing).await?.into_iter();
        let mut all = Vec::with_capacity(ids.len());
        for (id, here) in ids.iter().zip(found) {
            all.push(match here {
                Some(bytes) => bytes,
                None => {
                    let short =
                        || StoreError::Corrupt { what: format!("content {id}"), found: "nothing".into() };
                    let bytes = came.next().ok_or_else(short)?;
                    self.take(id, &bytes, &asking)?;
                    bytes
                }
            });
        }
        Ok(all)
    }

    /// Keeps what the store gave, unless something went meanwhile: it may be that.
    fn take(&self, id: &ContentId, bytes: &Bytes, asking: &Asking) -> Result<(), StoreError> {
        let (name, info) = (name_of(id)?, info_of(id, bytes.len() as u64));
        let now = self.files.now();
        let is_true = {
            let mut table = self.files.place.table();
            let is_true = asking.holds(&table);
            if is_true {
                self.files.learn_read(&mut table, &name, &info, now);
            }
            is_true
        };
        if is_true {
            self.files.keep(&name, &info, 0, bytes);
        }
        Ok(())
    }

    async fn examine_one(&self, id: &ContentId, range: ByteRange) -> Result<Bytes, StoreError> {
        let Some((size, pieces)) = self.pending(&name_of(id)?) else {
            return self.store()?.examine(id, range).await;
        };
        let mut whole = BytesMut::with_capacity(count(size));
        for piece in pieces {
            match piece {
                Piece::Inline(bytes) => whole.extend_from_slice(&bytes),
                Piece::Blob(blob, _) => whole.extend_from_slice(&self.files.vault.examine(&blob).await?),
            }
        }
        if id.blake3() != Some(blake3::hash(&whole).as_bytes()) {
            let found = format!("{} bytes with another hash on the local disk", whole.len());
            return Err(StoreError::Corrupt { what: format!("content {id}"), found });
        }
        let (from, to) = range.within(size);
        Ok(whole.freeze().slice(count(from)..count(to)))
    }

    async fn length_of(&self, id: &ContentId) -> Result<Option<u64>, StoreError> {
        let name = name_of(id)?;
        match self.pending(&name) {
            Some((size, _)) => Ok(Some(size)),
            None => {
                let length = self.store()?.length(id).await?;
                // It may have come here meanwhile, and not be there yet.
                Ok(length.or_else(|| self.pending(&name).map(|(size, _)| size)))
            }
        }
    }
}

impl ObjectStore for CachedContents {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.inner.probe()
    }

    fn cache(&self) -> Option<CacheFigures> {
        self.files.cache()
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        self.files.flush()
    }
}

impl ContentStore for CachedContents {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(self.write_one(id, data))
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(self.read_one(id, range))
    }

    fn read_many<'a>(&'a self, ids: &'a [ContentId]) -> StoreFuture<'a, Vec<Bytes>> {
        Box::pin(self.read_several(ids))
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(self.examine_one(id, range))
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        Box::pin(async move { Ok(self.length_of(id).await?.is_some()) })
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        Box::pin(self.length_of(id))
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        Box::pin(async move { self.files.delete_at(&name_of(id)?).await })
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        Box::pin(async move {
            let after = after.map(name_of).transpose()?;
            let page = self.files.list_at(FOLDER, after.as_deref(), limit).await?;
            Ok(page.entries.iter().filter_map(|(name, _)| ContentId::parse_hex(name)).collect())
        })
    }

    fn reclaim(&self) -> StoreFuture<'_, u64> {
        Box::pin(async { self.store()?.reclaim().await })
    }

    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        Box::pin(async { self.store()?.damage().await })
    }
}

fn contents(store: &dyn ObjectStore) -> Result<&dyn ContentStore, StoreError> {
    match store.addressing() {
        Addressing::Content(contents) => Ok(contents),
        Addressing::Path(_) => Err(StoreError::NotSupported { what: "content by its hash" }),
    }
}

fn name_of(id: &ContentId) -> Result<String, StoreError> {
    let not_a_hash = StoreError::NotSupported { what: "content that is not addressed by its hash" };
    id.blake3().map(|_| id.to_string()).ok_or(not_a_hash)
}

fn id_of(name: &str) -> Result<ContentId, StoreError> {
    ContentId::parse_hex(name).ok_or_else(|| StoreError::NotFound { what: name.into() })
}

fn info_of(id: &ContentId, size: u64) -> ObjectInfo {
    ObjectInfo::new(EntryType::Reg, size, id.clone(), Timestamp(0))
}

/// Contents as files of one folder, whose names and tags are hashes. As much as the cache asks of a store.
#[derive(Debug)]
struct AsFiles(Arc<dyn ObjectStore>);

const ONLY_WHOLE: StoreError = StoreError::NotSupported { what: "anything but whole contents" };

impl ObjectStore for AsFiles {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.0.probe()
    }
}

impl PathStore for AsFiles {
    fn capabilities(&self) -> PathCapabilities {
        PathCapabilities::default()
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let id = id_of(path)?;
            match contents(&*self.0)?.length(&id).await? {
                Some(size) => Ok(info_of(&id, size)),
                None => Err(StoreError::NotFound { what: format!("content {id}") }),
            }
        })
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(async move {
            let id = id_of(path)?;
            let bytes = contents(&*self.0)?.read(&id, range).await?;
            let info = match range {
                ByteRange { offset: 0, count: None } => info_of(&id, bytes.len() as u64),
                _ => self.stat(path).await?,
            };
            Ok((bytes, info))
        })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        _: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let id = id_of(path)?;
            if how != PathWrite::Whole {
                return Err(ONLY_WHOLE);
            }
            contents(&*self.0)?.write(&id, data).await?;
            Ok(info_of(&id, data.iter().map(|buffer| buffer.len() as u64).sum()))
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move { contents(&*self.0)?.delete(&id_of(path)?).await })
    }

    /// The names alone: lengths are not asked for.
    fn list<'a>(&'a self, _: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(async move {
            let after = after.map(id_of).transpose()?;
            let ids = contents(&*self.0)?.list(after.as_ref(), limit).await?;
            // There are no more only when there are none.
            let more = !ids.is_empty();
            let entries = ids.iter().map(|id| (id.to_string(), info_of(id, 0))).collect();
            Ok(ListPage::new(entries, more, 0))
        })
    }

    fn make_directory<'a>(&'a self, _: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(std::future::ready(Err(ONLY_WHOLE)))
    }

    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(std::future::ready(Err(ONLY_WHOLE)))
    }

    fn make_link<'a>(&'a self, _: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(std::future::ready(Err(ONLY_WHOLE)))
    }

    fn set_attributes<'a>(&'a self, _: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(std::future::ready(Err(ONLY_WHOLE)))
    }
}
