//! The store in front: what callers are given, and what they write.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathWrite, StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};
use tokio::sync::Semaphore;

use super::options::Caching;
use super::rows::{PlaceId, short};
use super::table::{Asking, Held, Known, Piece, Place, parent};
use super::upload;
use super::vault::Vault;
use super::{INLINE_MAX, KEEPING_MAX, NAMES_MAX, PIECE_BYTES, WRITTEN_BACK_MAX};
use crate::path::components;

/// How often content is asked for again that changed while it was read.
const CHANGES_MAX: usize = 3;

/// A path-addressed store with a cache in front of it.
#[derive(Debug)]
pub struct CachedPaths {
    inner: Arc<dyn ObjectStore>,
    vault: Arc<Vault>,
    place: Arc<Place>,
    caching: Caching,
    keeping: Arc<Semaphore>,
    /// Uploads end with it.
    _alive: Arc<()>,
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
        Self::of_place(inner, vault, short(&blake3::hash(name.as_bytes())), caching)
    }

    pub(super) fn of_place(
        inner: Arc<dyn ObjectStore>,
        vault: Arc<Vault>,
        id: PlaceId,
        caching: Caching,
    ) -> Result<Self, StoreError> {
        let bad = |why: &str| Err(StoreError::BadOption { why: why.into() });
        if let Addressing::Content(_) = inner.addressing() {
            return bad("cache_bytes, cache_age_ms and write_back are for content by its path, and addressing is \"content\"");
        }
        if caching.write_back && inner.read_only() {
            return bad("write_back is \"yes\", and the mount takes no changes");
        }
        if caching.write_back && vault.is_volatile() {
            return bad("write_back is \"yes\", and this kernel has no data folder in which what is pending could lie");
        }
        let place = vault.place(id);
        let alive = Arc::new(());
        upload::begin(&vault, &place, &inner, Arc::downgrade(&alive), caching);
        let keeping = Arc::new(Semaphore::new(KEEPING_MAX));
        Ok(Self { inner, vault, place, caching, keeping, _alive: alive })
    }

    fn store(&self) -> Result<&dyn PathStore, StoreError> {
        match self.inner.addressing() {
            Addressing::Path(store) => Ok(store),
            Addressing::Content(_) => Err(StoreError::NotSupported { what: "content by its path" }),
        }
    }

    fn now(&self) -> u64 {
        self.vault.env().wall()
    }

    /// What was seen later than this need not be asked about again.
    fn since(&self) -> u64 {
        let age = u64::try_from(self.caching.age.as_nanos()).unwrap_or(u64::MAX);
        // With no age nothing is later.
        if age == 0 { u64::MAX } else { self.now().saturating_sub(age) }
    }

    fn remembers(&self) -> bool {
        !self.caching.age.is_zero()
    }

    fn known(&self, path: &str) -> Option<Result<ObjectInfo, StoreError>> {
        match self.place.table().known(path, self.since()) {
            Known::Is(info) => Some(Ok(info)),
            Known::Absent => Some(Err(StoreError::NotFound { what: path.into() })),
            Known::Below(file) => Some(Err(StoreError::NotADirectory { what: file })),
            Known::Unknown => None,
        }
    }

    async fn look(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        components(path)?;
        if let Some(known) = self.known(path) {
            return known;
        }
        if self.remembers() && !path.is_empty() {
            let folder = parent(path);
            let is_large = self.place.table().is_large(folder, self.since());
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
            Err(error) => return Err(error),
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
        let children = is_whole.then(|| page.entries.iter().cloned().collect::<BTreeMap<_, _>>());
        table.learn_folder(folder, children, now);
    }

    async fn ask(&self, path: &str) -> Result<ObjectInfo, StoreError> {
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
                }
                Err(error)
            }
        }
    }

    async fn read_at(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        components(path)?;
        for _ in 0..CHANGES_MAX {
            let held = self.place.table().held(path, self.since());
            let Some(held) = held else {
                if let Some(known) = self.known(path) {
                    known.and_then(|info| match info.entry_type {
                        EntryType::Dir => Err(StoreError::IsADirectory { what: path.into() }),
                        _ => Ok(()),
                    })?;
                }
                return self.read_new(path, range).await;
            };
            if held.pieces.is_empty() && !held.is_pending && held.info.size > 0 {
                return self.read_new(path, range).await;
            }
            if !held.is_current {
                let info = self.ask(path).await?;
                if info.entry_type == EntryType::Dir {
                    return Err(StoreError::IsADirectory { what: path.into() });
                }
                if info.tag != held.info.tag {
                    continue;
                }
            }
            if let Some(bytes) = self.from_pieces(path, &held, range).await? {
                return Ok((bytes, held.info));
            }
        }
        // It changes all the time: as it is just now.
        let (bytes, info) = self.store()?.read(path, range).await?;
        let shown = self.place.table().shown(path, &info);
        Ok((bytes, shown))
    }

    /// The bytes of `range`, from what is here and what the store gives for the rest; none when the store has another state by now.
    async fn from_pieces(&self, path: &str, held: &Held, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let (start, end) = range.within(held.info.size);
        if start == end {
            return Ok(Some(Bytes::new()));
        }
        let pieces = start / PIECE_BYTES..=(end - 1) / PIECE_BYTES;
        let mut is_hit = true;
        let mut parts = Vec::new();
        let mut missing: Option<(u64, u64)> = None;
        for index in pieces {
            let (from, to) = (index * PIECE_BYTES, ((index + 1) * PIECE_BYTES).min(held.info.size));
            let within = ByteRange::new(start.saturating_sub(from), end.min(to) - start.max(from));
            if let Some(bytes) = self.piece(path, held, index, to - from, within).await? {
                if let Some((from, to)) = missing.take() {
                    let Some(bytes) = self.fetch(path, held, from, to).await? else { return Ok(None) };
                    parts.push(cut(&bytes, from, start, end));
                }
                parts.push(bytes);
            } else {
                is_hit = false;
                missing = Some((missing.map_or(from, |(from, _)| from), to));
            }
        }
        if let Some((from, to)) = missing {
            let Some(bytes) = self.fetch(path, held, from, to).await? else { return Ok(None) };
            parts.push(cut(&bytes, from, start, end));
        }
        self.place.count(is_hit);
        if let [bytes] = &parts[..] {
            return Ok(Some(bytes.clone()));
        }
        let mut whole = BytesMut::with_capacity(count(end - start));
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(Some(whole.freeze()))
    }

    /// A part of a piece, if it is here and whole. What is pending must be.
    async fn piece(
        &self,
        path: &str,
        held: &Held,
        index: u64,
        length: u64,
        within: ByteRange,
    ) -> Result<Option<Bytes>, StoreError> {
        let lost = |found: String| StoreError::Corrupt { what: path.into(), found };
        let piece = u32::try_from(index).ok().and_then(|index| held.pieces.get(&index));
        let read = match piece.filter(|piece| piece.len() == length) {
            Some(Piece::Inline(bytes)) => {
                let (start, end) = within.within(length);
                Ok(bytes.slice(count(start)..count(end)))
            }
            Some(Piece::Blob(blob, _)) => self.vault.read(blob, within).await,
            None => Err(StoreError::NotFound { what: format!("piece {index} of {path}") }),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if held.is_pending => {
                Err(lost(format!("what is pending is not on the local disk as it was written: {error}")))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => {
                tracing::warn!(path, %error, "what is cached is not what was kept, and is read again");
                let mut table = self.place.table();
                if !table.is_pending(path) {
                    table.forget(&self.vault, path);
                }
                Ok(None)
            }
        }
    }

    /// The bytes between `from` and `to`, from the store; none when it has another state by now.
    async fn fetch(&self, path: &str, held: &Held, from: u64, to: u64) -> Result<Option<Bytes>, StoreError> {
        let (bytes, info) = self.store()?.read(path, ByteRange::new(from, to - from)).await?;
        if held.remote.as_ref() != Some(&info.tag) || bytes.len() as u64 != to - from {
            self.learn_read(path, &info);
            return Ok(None);
        }
        self.keep(path, &info, from, &bytes);
        Ok(Some(bytes))
    }

    /// What the store has, of which nothing is here: whole pieces, if they are to be kept.
    async fn read_new(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        self.place.count(false);
        let wide = if self.caching.bytes_max > 0 { widened(range) } else { range };
        let asking = self.place.ask(parent(path));
        let (bytes, info) = self.store()?.read(path, wide).await?;
        if !asking.holds(&self.place.table()) {
            let shown = self.place.table().shown(path, &info);
            return Ok((within(&bytes, wide, range, info.size), shown));
        }
        let shown = self.learn_read(path, &info);
        if shown.tag == info.tag {
            self.keep(path, &info, wide.offset, &bytes);
        }
        Ok((within(&bytes, wide, range, info.size), shown))
    }

    /// Takes what the store said with content.
    fn learn_read(&self, path: &str, info: &ObjectInfo) -> ObjectInfo {
        let keep = self.caching.bytes_max > 0 || self.remembers();
        self.place.table().learn(&self.vault, path, info, self.now(), keep)
    }

    /// Keeps what of `bytes`, which begin at `from`, is whole pieces. Small ones at once, the others beside what else happens, or not at all.
    fn keep(&self, path: &str, info: &ObjectInfo, from: u64, bytes: &Bytes) {
        if self.caching.bytes_max == 0 || info.size > self.caching.bytes_max / 2 {
            return;
        }
        let end = from + bytes.len() as u64;
        for index in from.div_ceil(PIECE_BYTES)..info.size.div_ceil(PIECE_BYTES) {
            let (start, stop) = (index * PIECE_BYTES, ((index + 1) * PIECE_BYTES).min(info.size));
            if stop > end {
                return;
            }
            let Ok(number) = u32::try_from(index) else { return };
            let piece = bytes.slice(count(start - from)..count(stop - from));
            // It does not hold what it is a part of in memory.
            let piece = if piece.len() < bytes.len() { Bytes::copy_from_slice(&piece) } else { piece };
            if piece.len() <= INLINE_MAX {
                self.kept(path, &info.tag, number, &Piece::Inline(piece));
                continue;
            }
            let Ok(permit) = self.keeping.clone().try_acquire_owned() else { return };
            let keeper = Keeper {
                vault: self.vault.clone(),
                place: self.place.clone(),
                bytes_max: self.caching.bytes_max,
            };
            let (path, tag) = (path.to_owned(), info.tag.clone());
            self.vault.env().spawn("cached.keep", async move {
                let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                match keeper.vault.keep(piece).await {
                    Ok(blob) => keeper.kept(&path, &tag, number, &Piece::Blob(blob, length)),
                    Err(error) => tracing::warn!(%error, "the cache keeps nothing"),
                }
                drop(permit);
            });
        }
    }

    fn kept(&self, path: &str, tag: &ContentId, index: u32, piece: &Piece) {
        let keeper =
            Keeper { vault: self.vault.clone(), place: self.place.clone(), bytes_max: self.caching.bytes_max };
        keeper.kept(path, tag, index, piece);
    }

    async fn write_at(
        &self,
        path: &str,
        data: &[Bytes],
        how: PathWrite,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        components(path)?;
        let size: u64 = data.iter().map(|buffer| buffer.len() as u64).sum();
        let is_whole = matches!(how, PathWrite::Whole | PathWrite::Exclusive);
        let fits = self.place.table().pending_bytes() + size <= self.caching.pending_max;
        // Names of its own a driver may refuse, and must be asked.
        let is_plain = !path.split('/').any(|name| name.starts_with(".nexus"));
        if !self.caching.write_back || !is_whole || size > WRITTEN_BACK_MAX || !fits || !is_plain {
            return self.write_through(path, data, how, attributes).await;
        }
        match self.look(path).await {
            Ok(_) if how == PathWrite::Exclusive => return Err(StoreError::Exists { what: path.into() }),
            Ok(info) if info.entry_type == EntryType::Dir => {
                return Err(StoreError::IsADirectory { what: path.into() });
            }
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.write_back(path, data, size, attributes).await
    }

    /// Puts content on the local disk, from where it goes to the store.
    async fn write_back(
        &self,
        path: &str,
        data: &[Bytes],
        size: u64,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        let env = self.vault.env();
        let now = self.now();
        let tag = ContentId::Tag(format!("local-{now:016x}{:016x}", env.random()).into());
        let mut info = ObjectInfo::new(EntryType::Reg, size, tag, attributes.modified.unwrap_or(Timestamp(now)));
        if let Some(created) = attributes.created {
            info.created = created;
        }
        if let Some(mode) = attributes.mode.filter(|_| self.store().is_ok_and(|store| store.capabilities().attributes)) {
            info.mode = mode;
        }
        let pieces = pieces_of(data, size).into_iter().zip(0_u32..).map(async |(piece, index)| {
            let piece = match u32::try_from(piece.len()) {
                Ok(length) if piece.len() > INLINE_MAX => Piece::Blob(self.vault.keep(piece).await?, length),
                _ => Piece::Inline(piece),
            };
            Ok::<_, StoreError>((index, piece))
        });
        let pieces: BTreeMap<u32, Piece> = try_join_all(pieces).await?.into_iter().collect();
        let written = {
            let table = self.place.table();
            let (changes, row) = table.written(path, &info, attributes, &pieces)?;
            let (place, path) = (self.place.clone(), path.to_owned());
            let (info, attributes) = (info.clone(), attributes.clone());
            self.vault.enter_and_wait(Vec::new(), changes, move |_| {
                place.table().settle_write(&path, &info, attributes, pieces, row);
                place.due.notify_one();
            })
        };
        written.await?;
        Ok(info)
    }

    async fn write_through(
        &self,
        path: &str,
        data: &[Bytes],
        how: PathWrite,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        match how {
            PathWrite::Whole => {}
            PathWrite::Exclusive if self.place.table().is_pending(path) => {
                return Err(StoreError::Exists { what: path.into() });
            }
            // What is pending is a part of what comes out.
            _ => self.place.drain(path).await,
        }
        if self.place.table().is_pending_below(path) {
            return Err(StoreError::IsADirectory { what: path.into() });
        }
        let held = self.place.hold(path).await;
        let info = self.store()?.write(path, data, how, attributes).await?;
        self.gone(path).await?;
        let keep = self.remembers();
        self.place.table().note_written(&self.vault, path, &info, self.now(), keep);
        drop(held);
        Ok(info)
    }

    /// Takes the file at `path` out of the index, and waits until that is on disk if it may be pending there.
    async fn gone(&self, path: &str) -> Result<(), StoreError> {
        let removed = {
            let mut table = self.place.table();
            let Some(changes) = table.removed(path) else {
                table.take(path);
                return Ok(());
            };
            let (place, path) = (self.place.clone(), path.to_owned());
            self.vault.enter_and_wait(Vec::new(), changes, move |_| {
                place.table().take(&path);
                place.settled.notify_waiters();
            })
        };
        removed.await.map(drop)
    }

    async fn delete_at(&self, path: &str) -> Result<(), StoreError> {
        components(path)?;
        let held = self.place.hold(path).await;
        let (is_pending, has_below) = {
            let table = self.place.table();
            (table.is_pending(path), table.is_pending_below(path))
        };
        if has_below {
            return Err(StoreError::NotEmpty { what: path.into() });
        }
        match self.store()?.delete(path).await {
            Ok(()) => {}
            // Nothing of it has come there.
            Err(StoreError::NotFound { .. }) if is_pending => {}
            Err(error) => return Err(error),
        }
        self.gone(path).await?;
        self.place.table().note_gone(path);
        drop(held);
        Ok(())
    }

    async fn list_at(&self, path: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        components(path)?;
        let before = {
            let table = self.place.table();
            if table.is_pending(path) {
                return Err(StoreError::NotADirectory { what: path.into() });
            }
            table.pending_in(path, after)
        };
        let seen = self.place.table().listing(path, after, limit, self.since());
        let mut page = match seen {
            Some(page) => page,
            None => match self.list_new(path, after, limit).await {
                Ok(page) => page,
                Err(StoreError::NotFound { .. }) if !before.is_empty() => ListPage::default(),
                Err(error) => return Err(error),
            },
        };
        let table = self.place.table();
        let full = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        // What has come to the store since the page was made is not pending any more.
        let mut pending = before;
        pending.retain(|name, info| info.entry_type == EntryType::Dir || table.is_file(&full(name)));
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

    /// Has nothing pending at these paths and below, calls the store, and forgets what was known of them.
    async fn beside<T>(
        &self,
        paths: &[&str],
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        for path in paths {
            components(path)?;
            self.place.drain(path).await;
        }
        let done = call.await;
        // Also of a failed call some may be done.
        let mut table = self.place.table();
        for path in paths {
            table.forget_within(&self.vault, path);
        }
        done
    }
}

/// Puts pieces into the table, and lets others go for them.
struct Keeper {
    vault: Arc<Vault>,
    place: Arc<Place>,
    bytes_max: u64,
}

impl Keeper {
    fn kept(&self, path: &str, tag: &ContentId, index: u32, piece: &Piece) {
        let mut table = self.place.table();
        if let Err(error) = table.keep(&self.vault, path, tag, index, piece) {
            tracing::warn!(%error, "the cache keeps nothing");
        }
        if table.make_room(&self.vault, self.bytes_max) {
            let vault = self.vault.clone();
            self.vault.env().spawn("cached.reclaim", async move { vault.reclaim().await });
        }
    }
}

/// `range`, from the beginning of a piece to the end of one.
fn widened(range: ByteRange) -> ByteRange {
    let start = range.offset / PIECE_BYTES * PIECE_BYTES;
    let count = range.count.map(|count| {
        let end = range.offset.saturating_add(count);
        end.checked_next_multiple_of(PIECE_BYTES).unwrap_or(u64::MAX) - start
    });
    ByteRange { offset: start, count }
}

/// The part `range` of `bytes`, which are the part `wide` of a content of `size` bytes.
fn within(bytes: &Bytes, wide: ByteRange, range: ByteRange, size: u64) -> Bytes {
    let (start, end) = range.within(size);
    cut(bytes, wide.offset.min(size), start, end)
}

/// What of `bytes`, which begin at `from`, lies between `start` and `end`.
fn cut(bytes: &Bytes, from: u64, start: u64, end: u64) -> Bytes {
    let length = bytes.len() as u64;
    let first = start.saturating_sub(from).min(length);
    let last = end.saturating_sub(from).clamp(first, length);
    bytes.slice(count(first)..count(last))
}

/// A length of bytes that are in memory.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The pieces of a content that is given in buffers.
fn pieces_of(data: &[Bytes], size: u64) -> Vec<Bytes> {
    let whole = match data {
        [bytes] => bytes.clone(),
        buffers => {
            let mut whole = BytesMut::with_capacity(count(size));
            buffers.iter().for_each(|buffer| whole.extend_from_slice(buffer));
            whole.freeze()
        }
    };
    let piece = count(PIECE_BYTES);
    let starts = (0..whole.len()).step_by(piece);
    starts.map(|start| whole.slice(start..(start + piece).min(whole.len()))).collect()
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

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.place.drain("").await;
            Ok(())
        })
    }
}

impl PathStore for CachedPaths {
    fn capabilities(&self) -> PathCapabilities {
        let mut can = self.store().map(PathStore::capabilities).unwrap_or_default();
        can.exclusive &= !self.caching.write_back;
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
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.write_at(path, data, how, attributes))
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.delete_at(path))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(self.list_at(path, after, limit))
    }

    fn make_directory<'a>(&'a self, path: &'a str, attributes: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            if self.place.table().is_pending_below(path) {
                return Err(StoreError::Exists { what: path.into() });
            }
            self.beside(&[path], async { self.store()?.make_directory(path, attributes).await }).await
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside(&[from, to], async move { self.store()?.rename(from, to).await }))
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside(&[from, to], async move { self.store()?.copy(from, to).await }))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside(&[path], async move { self.store()?.make_link(path, target).await }))
    }

    fn set_attributes<'a>(&'a self, path: &'a str, attributes: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.beside(&[path], async move { self.store()?.set_attributes(path, attributes).await }))
    }
}
