//! Keys as they are: a mount that other tools share.

use bytes::Bytes;
use futures_util::future::{join, join_all};
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathUpload, PathWrite,
    StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};
use object_store::path::Path;
use object_store::{ObjectMeta, PutResult, UpdateVersion};

use super::client::Client;
use super::conditions::Conditions;
use super::doubts::Change;
use super::listing::{self, At, RESERVED};
use super::multipart::{PARTS_AT_ONCE, Upload};
use super::rename;
use super::requests::{Condition, as_said, is_in_doubt};
use super::upload::RemoteUpload;
use crate::path::{components, split_last};

/// No more is copied by the server: S3 copies no more in one request. What is larger is for whoever can copy it piece by piece.
pub(super) const COPY_MAX: u64 = 5 << 30;

/// How often something new is asked for again that met another writer, and found nothing of it.
const CONFLICTS_MAX: usize = 3;

/// Files under their own keys, below the mount's prefix.
///
/// A folder is there for as long as a key lies below it. Where a name is a file and a folder too, which only other tools can bring about, the file is shown, and
/// what lies in the folder is reached by its path: listings count it as left out. Keys that are no paths (an empty name, `.`, `..`, a control character) are not served: listings leave them out,
/// and count them.
///
/// Some tools make a key for a folder itself, with a slash at its end. Such a folder is there when nothing else is in it, and can be removed then; not on Azure, where
/// those keys cannot be named.
///
/// What keeps a file and a folder from having one name, and a deletion from missing what it names, is looked at before the change, in a request of its own:
/// the kernel's locks make that one step for all who come through it, and for others it is not one. What is written back was looked at when it was acknowledged, and is not
/// again when that was a moment ago. The content of a file is replaced in one step for all.
///
/// While a change of a key may be carried out yet that was given up, or repeated, the next one of that key waits, to come after it: what was acknowledged last is what stays. Reads do not
/// wait. Nothing is known of a change that was under way when the process ended.
///
/// A file's tag is its ETag: what other tools change is seen by the next look, without any notice of theirs.
///
/// A write holds all of its content in memory, and goes in parts from there when that is large; an upload holds a few parts. Reads hold what they are asked for, and
/// ask for a few parts of it at once.
#[derive(Debug, Clone)]
pub struct RemotePaths {
    pub(super) client: Client,
    conditions: Conditions,
}

impl RemotePaths {
    pub(super) fn new(client: Client, conditions: Conditions) -> Self {
        Self { client, conditions }
    }

    fn is_read_only(&self) -> bool {
        self.client.settings.read_only
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.is_read_only() {
            true => {
                Err(StoreError::ReadOnly { cause: "it is mounted so, or its server takes no changes".into() })
            }
            false => Ok(()),
        }
    }

    pub(super) fn key(&self, path: &str) -> Result<Path, StoreError> {
        components(path)?;
        self.client.key(path)
    }

    /// What the keys in the folder at `path` begin with.
    pub(super) fn folder(&self, path: &str) -> String {
        let slash = if path.is_empty() { "" } else { "/" };
        [&self.client.settings.prefix, path, slash].concat()
    }

    /// Whether a key lies below `path`.
    async fn has_below(&self, path: &str) -> Result<bool, StoreError> {
        if self.client.has_pages() {
            return listing::has_below(&self.client, &self.folder(path)).await;
        }
        match self.client.folder(Some(self.client.key(path)?)).await {
            Ok(found) => Ok(!found.objects.is_empty() || !found.common_prefixes.is_empty()),
            Err(StoreError::NotFound { .. } | StoreError::NotSupported { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refuses when something on the way to `path` is a file.
    async fn no_file_above(&self, path: &str) -> Result<(), StoreError> {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let heads = join_all(above.map(async |above| {
            let found = self.client.head(&self.client.key(above)?).await?;
            Ok::<_, StoreError>((above, found.is_some()))
        }));
        for head in heads.await {
            if let (above, true) = head? {
                return Err(StoreError::NotADirectory { what: above.into() });
            }
        }
        Ok(())
    }

    /// What is at `path`, at which there is no file.
    async fn no_file(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        let (below, above) = join(self.has_below(path), self.no_file_above(path)).await;
        if below? {
            return Ok(directory());
        }
        above?;
        Err(StoreError::NotFound { what: path.into() })
    }

    pub(super) async fn look(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        if path.is_empty() {
            return Ok(directory());
        }
        match self.client.head(&self.key(path)?).await? {
            Some(meta) => Ok(file(&meta)),
            None => self.no_file(path).await,
        }
    }

    async fn read_at(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        if path.is_empty() {
            return Err(StoreError::IsADirectory { what: path.into() });
        }
        match self.client.get(&self.key(path)?, range).await {
            Ok((bytes, meta)) => Ok((bytes, file(&meta))),
            Err(StoreError::NotFound { .. }) => match self.no_file(path).await {
                Ok(_) => Err(StoreError::IsADirectory { what: path.into() }),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// The key of what is to be made at `path`.
    fn own_key(&self, path: &str) -> Result<Path, StoreError> {
        let key = self.key(path)?;
        if path.starts_with(RESERVED) {
            return Err(StoreError::BadOption { why: format!("{path:?}: such names are the driver's own") });
        }
        Ok(key)
    }

    /// Refuses to make a file where one cannot be, or where a folder is. Gives the key, at which nothing can be carried out any more that was asked for before.
    pub(super) async fn place_for(&self, path: &str) -> Result<Path, StoreError> {
        split_last(path)?;
        let key = self.own_key(path)?;
        self.client.settled(&key, None).await?;
        let (below, above) = join(self.has_below(path), self.no_file_above(path)).await;
        above?;
        // Both, and the file is what is shown.
        if below? && self.client.head(&key).await?.is_none() {
            return Err(StoreError::IsADirectory { what: path.into() });
        }
        Ok(key)
    }

    async fn write_at(&self, path: &str, data: &[Bytes], how: PathWrite) -> Result<ObjectInfo, StoreError> {
        self.writable()?;
        let key = self.place_as(path, &how).await?;
        let put = match how {
            PathWrite::Whole => self.client.put(&key, data).await?,
            PathWrite::Exclusive => self.make(path, &key, data).await?,
            PathWrite::IfMatch(tag) => self.replace(path, &key, data, &tag).await?,
            _ => return Err(in_the_middle()),
        };
        let size = data.iter().map(|buffer| buffer.len() as u64).sum();
        Ok(self.written(&key, size, put).await)
    }

    async fn put_at(&self, path: &str, data: &[Bytes], looked: bool) -> Result<ContentId, StoreError> {
        self.writable()?;
        let key = match looked {
            true => {
                split_last(path)?;
                let key = self.own_key(path)?;
                // As where it is looked: another mount of the store may have left something open there.
                self.client.settled(&key, None).await?;
                key
            }
            false => self.place_for(path).await?,
        };
        // Who brings it here tries again by itself, and knows then that an attempt before may arrive late.
        let put = self.client.put_unrepeated(&key, data.to_vec()).await?;
        let size = data.iter().map(|buffer| buffer.len() as u64).sum();
        if let Some(e_tag) = &put.e_tag {
            return Ok(tag(Some(e_tag), size, 0));
        }
        Ok(self.written(&key, size, put).await.tag)
    }

    /// The place for what is written `how`.
    async fn place_as(&self, path: &str, how: &PathWrite) -> Result<Path, StoreError> {
        self.place_for(path).await.map_err(|error| match (error, how) {
            (StoreError::IsADirectory { what }, PathWrite::Exclusive) => StoreError::Exists { what },
            (error, _) => error,
        })
    }

    /// Begins an upload: nothing is asked of the server yet.
    fn begin(&self, path: &str) -> Result<Upload, StoreError> {
        self.writable()?;
        split_last(path)?;
        let key = self.own_key(path)?;
        if !self.client.takes_parts() {
            return Err(StoreError::NotSupported { what: "content piece by piece" });
        }
        Ok(Upload::new(self.client.clone(), key, self.client.settings.part_bytes))
    }

    /// Makes what was uploaded the file at `path`.
    pub(super) async fn finish(
        &self,
        mut upload: Upload,
        path: &str,
        how: PathWrite,
    ) -> Result<ObjectInfo, StoreError> {
        if let Some(data) = upload.all_held() {
            return self.write_at(path, data, how).await;
        }
        let finished = self.put_together(&mut upload, path, how).await;
        if finished.as_ref().is_err_and(|error| !error.is_unknown()) {
            upload.abort().await;
        }
        finished
    }

    async fn put_together(
        &self,
        upload: &mut Upload,
        path: &str,
        how: PathWrite,
    ) -> Result<ObjectInfo, StoreError> {
        upload.settle().await?;
        let key = self.place_as(path, &how).await?;
        if key != *upload.key() {
            return Err(StoreError::NotSupported { what: "an upload that ends at another path" });
        }
        let condition = match &how {
            PathWrite::Whole => None,
            PathWrite::Exclusive if self.client.head(&key).await?.is_some() => {
                return Err(StoreError::Exists { what: path.into() });
            }
            PathWrite::Exclusive => Some(Condition::Absent),
            PathWrite::IfMatch(tag) => Some(Condition::State(self.in_state(path, &key, tag).await?)),
            _ => return Err(in_the_middle()),
        };
        let condition = condition.filter(|condition| match condition {
            Condition::Absent => self.conditions.parts_absent.is_honoured(),
            Condition::State(_) => self.conditions.parts_state.is_honoured(),
        });
        let put = match upload.complete(condition).await {
            // Somebody was quicker, or just as quick: a server may refuse both of these.
            Err(StoreError::Exists { .. } | StoreError::NotFound { .. }) => {
                let is_there = self.client.head(&key).await?;
                let is = |tag: &ContentId| is_there.as_ref().is_some_and(|meta| file(meta).tag == *tag);
                return Err(match how {
                    PathWrite::Exclusive if is_there.is_some() => StoreError::Exists { what: path.into() },
                    PathWrite::IfMatch(tag) if !is(&tag) => StoreError::Changed { what: path.into() },
                    _ => StoreError::Locked { what: path.into() },
                });
            }
            put => put?,
        };
        Ok(self.written(&key, upload.size(), put).await)
    }

    /// What the server calls the state of the file at `path`, if that has this tag.
    async fn in_state(&self, path: &str, key: &Path, tag: &ContentId) -> Result<UpdateVersion, StoreError> {
        match self.client.head(key).await? {
            Some(meta) if file(&meta).tag == *tag => {
                Ok(UpdateVersion { e_tag: meta.e_tag, version: meta.version })
            }
            _ => Err(StoreError::Changed { what: path.into() }),
        }
    }

    /// Replaces one state: by the server's own condition, when it has one.
    async fn replace(
        &self,
        path: &str,
        key: &Path,
        data: &[Bytes],
        tag: &ContentId,
    ) -> Result<PutResult, StoreError> {
        for _ in 0..CONFLICTS_MAX {
            let state = self.in_state(path, key, tag).await?;
            if !self.conditions.state.is_honoured() {
                return self.client.put(key, data).await;
            }
            match self.client.update(key, data, state).await {
                // The next look tells whether it is another state, or another writer was only just as quick.
                Err(StoreError::Exists { .. } | StoreError::NotFound { .. }) => {}
                replaced => return replaced,
            }
        }
        Err(StoreError::Locked { what: path.into() })
    }

    /// Writes what is not there yet: by the server's own condition, when it has one.
    async fn make(&self, path: &str, key: &Path, data: &[Bytes]) -> Result<PutResult, StoreError> {
        let exists = || StoreError::Exists { what: path.into() };
        if !self.conditions.absent.is_honoured() {
            return match self.client.head(key).await? {
                Some(_) => Err(exists()),
                None => self.client.put(key, data).await,
            };
        }
        for _ in 0..CONFLICTS_MAX {
            match self.client.create(key, data).await {
                Err(StoreError::Exists { .. }) => {}
                made => return made,
            }
            // Some servers say so when two ask at once, and neither may have come through.
            if self.client.head(key).await?.is_some() {
                return Err(exists());
            }
        }
        Err(StoreError::Locked { what: path.into() })
    }

    /// What was just written. When it was, only a look tells.
    async fn written(&self, key: &Path, size: u64, put: PutResult) -> ObjectInfo {
        // It is written, whatever becomes of this.
        let found = self.client.head(key).await.ok().flatten();
        let mut info = match &found {
            Some(meta) => file(meta),
            None => {
                let seconds = self.client.env().wall() / NANOS * NANOS;
                ObjectInfo::new(EntryType::Reg, size, tag(put.e_tag.as_deref(), size, 0), Timestamp(seconds))
            }
        };
        if put.e_tag.is_some() {
            (info.size, info.tag) = (size, tag(put.e_tag.as_deref(), size, 0));
        }
        info
    }

    async fn delete_at(&self, path: &str) -> Result<(), StoreError> {
        split_last(path)?;
        self.writable()?;
        let key = self.key(path)?;
        self.client.settled(&key, Some(Change::Deleted)).await?;
        if self.client.head(&key).await?.is_some() {
            return self.client.delete(&key).await;
        }
        self.no_file(path).await?;
        let folder = self.folder(path);
        let at = At { folder: &folder, after: None, hides: false };
        let found = listing::of(&self.client, at, 1).await?;
        let is_empty = found.names.is_empty() && found.no_paths.is_empty();
        match self.client.mark(&folder).filter(|_| is_empty && found.marked) {
            Some(mark) => {
                self.client.settled(&mark, Some(Change::Deleted)).await?;
                self.client.delete(&mark).await
            }
            None => Err(StoreError::NotEmpty { what: path.into() }),
        }
    }

    async fn delete_all(&self, paths: &[String]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.writable()?;
        let key = |path: &String| split_last(path).and_then(|_| self.key(path));
        let keys = paths.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        for key in &keys {
            self.client.settled(key, Some(Change::Deleted)).await?;
        }
        self.client.delete_many(&keys).await
    }

    async fn list_at(&self, path: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        components(path)?;
        if limit == 0 {
            return Ok(ListPage::new(Vec::new(), true, 0));
        }
        let found = if self.client.has_pages() {
            let at = At { folder: &self.folder(path), after, hides: path.is_empty() };
            listing::of(&self.client, at, limit).await?
        } else {
            self.whole_folder(path, after).await?
        };
        let is_empty = found.names.is_empty() && found.no_paths.is_empty();
        if is_empty && !found.marked && after.is_none() && !path.is_empty() {
            let is_file = self.look(path).await?.entry_type == EntryType::Reg;
            // It may have come into being since.
            if is_file {
                return Err(StoreError::NotADirectory { what: path.into() });
            }
        }
        let more = found.more || found.names.len() > limit;
        let described =
            |(name, meta): (String, Option<ObjectMeta>)| (name, meta.as_ref().map_or_else(directory, file));
        let entries: Vec<_> = found.names.into_iter().take(limit).map(described).collect();
        let more = more && !entries.is_empty();
        // Those beyond this page are counted on theirs.
        let last = entries.last().filter(|_| more).map(|(name, _)| name.as_str());
        let left_out = found.no_paths.iter().chain(&found.both);
        let left_out = left_out.filter(|key| last.is_none_or(|last| key.as_str() <= last));
        let left_out = left_out.count();
        Ok(ListPage::new(entries, more, left_out))
    }

    /// All of a folder on a server that lists at once, or not at all.
    async fn whole_folder(&self, path: &str, after: Option<&str>) -> Result<listing::Found, StoreError> {
        let folder = self.folder(path);
        let key = folder.strip_suffix('/').map(|key| self.client.whole_key(key)).transpose()?;
        let listed = self.client.folder(key).await?;
        let mut found = listing::Found { marked: true, ..listing::Found::default() };
        let name = |key: &Path| {
            let name = key.as_ref().strip_prefix(&folder)?;
            (!name.is_empty() && after.is_none_or(|after| name > after)).then(|| name.to_owned())
        };
        for prefix in &listed.common_prefixes {
            found.names.extend(name(prefix).map(|name| (name, None)));
        }
        for meta in listed.objects {
            found.names.extend(name(&meta.location).map(|name| (name, Some(meta.clone()))));
        }
        Ok(found)
    }

    async fn copy_at(&self, from: &str, to: &str) -> Result<ObjectInfo, StoreError> {
        self.writable()?;
        split_last(from)?;
        let source = self.look(from).await?;
        if source.entry_type != EntryType::Reg {
            return Err(StoreError::IsADirectory { what: from.into() });
        }
        if source.size > COPY_MAX {
            return Err(StoreError::NotSupported { what: "copying so much at once" });
        }
        let key = self.place_for(to).await?;
        Ok(file(&self.client.copy(&self.key(from)?, &key, source.size).await?))
    }
}

/// Nanoseconds of a second: as exact as all answers of a server are.
const NANOS: u64 = 1_000_000_000;

/// When an object was last changed, in whole seconds: some answers have no more.
pub(super) fn modified(meta: &ObjectMeta) -> Timestamp {
    Timestamp(u64::try_from(meta.last_modified.timestamp()).unwrap_or(0).saturating_mul(NANOS))
}

/// What changes when the content does, as far as the server tells.
fn tag(e_tag: Option<&str>, size: u64, modified: u64) -> ContentId {
    match e_tag.map(as_said).filter(|e_tag| !e_tag.is_empty()) {
        // Not all answers of a server have it in quotes.
        Some(e_tag) => ContentId::Tag(e_tag.trim_start_matches("W/").trim_matches('"').into()),
        None => ContentId::Tag(format!("{size}-{modified}").into()),
    }
}

pub(super) fn file(meta: &ObjectMeta) -> ObjectInfo {
    let modified = modified(meta);
    let tag = tag(meta.e_tag.as_deref(), meta.size, modified.nanos());
    let mut info = ObjectInfo::new(EntryType::Reg, meta.size, tag, modified);
    info.told_apart = !meta.e_tag.as_deref().is_some_and(is_in_doubt);
    info
}

fn in_the_middle() -> StoreError {
    StoreError::NotSupported { what: "writing in the middle of a file" }
}

fn directory() -> ObjectInfo {
    ObjectInfo::new(EntryType::Dir, 0, ContentId::Tag("directory".into()), Timestamp(0))
}

impl ObjectStore for RemotePaths {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn read_only(&self) -> bool {
        self.is_read_only()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            if self.client.has_pages() {
                return self.client.page_or_key(self.folder(""), None, 1, true, None).await.map(drop);
            }
            // Whatever it says of a name: it answers.
            self.client.head(&self.client.key("nexus-probe")?).await.map(drop)
        })
    }
}

impl PathStore for RemotePaths {
    fn can_name(&self, path: &str) -> Result<(), StoreError> {
        self.client.key(path).map(drop)
    }

    fn capabilities(&self) -> PathCapabilities {
        let mut can = PathCapabilities::default();
        can.exclusive = self.conditions.absent.is_honoured();
        can.if_match = self.conditions.state.is_honoured();
        can.upload = !self.is_read_only() && self.client.takes_parts();
        let parts = [self.conditions.parts_absent, self.conditions.parts_state];
        can.conditional_upload = can.upload && parts.iter().all(|verdict| verdict.is_honoured());
        can.reads_at_once = u8::try_from(PARTS_AT_ONCE.min(self.client.settings.concurrency)).unwrap_or(1);
        can.copy = !self.is_read_only();
        can.deletes_at_once = self.client.deletes_at_once();
        can.rename = self.client.settings.rename_by_copy && !self.is_read_only();
        can
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.look(path))
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(self.read_at(path, range))
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        _: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.write_at(path, data, how))
    }

    fn put<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        _: &'a Attributes,
        looked: bool,
    ) -> StoreFuture<'a, ContentId> {
        Box::pin(self.put_at(path, data, looked))
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        let begun = self.begin(path).map(|upload| RemoteUpload::new(self.clone(), upload));
        Box::pin(std::future::ready(begun.map(|upload| Box::new(upload) as Box<dyn PathUpload>)))
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.delete_at(path))
    }

    fn delete_many<'a>(&'a self, paths: &'a [String]) -> StoreFuture<'a, Vec<Result<(), StoreError>>> {
        Box::pin(self.delete_all(paths))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(self.list_at(path, after, limit))
    }

    fn make_directory<'a>(&'a self, path: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        let refused = components(path).and(Err(StoreError::NotSupported { what: "folders of their own" }));
        Box::pin(std::future::ready(refused))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            if !self.client.settings.rename_by_copy {
                return Err(StoreError::NotSupported { what: "renaming: the option rename is not \"copy\"" });
            }
            self.writable()?;
            rename::rename(self, from, to).await
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.copy_at(from, to))
    }

    fn make_link<'a>(&'a self, path: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let refused = components(path).and(Err(StoreError::NotSupported { what: "symbolic links" }));
        Box::pin(std::future::ready(refused))
    }

    fn set_attributes<'a>(&'a self, path: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        let refused = components(path).and(Err(StoreError::NotSupported { what: "attributes of files" }));
        Box::pin(std::future::ready(refused))
    }
}
