//! What is read: from here, or from the store, of which it is kept.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nexus_kernel::hal::{ObjectInfo, StoreError};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, EntryType};

use super::paths::{CachedPaths, count};
use super::place::Place;
use super::table::{Held, Piece, parent};
use super::vault::Vault;
use super::{INLINE_MAX, PIECE_BYTES};
use crate::path::components;

/// How often content is asked for again that changed while it was read.
const CHANGES_MAX: usize = 3;

impl CachedPaths {
    pub(super) async fn read_at(
        &self,
        path: &str,
        range: ByteRange,
    ) -> Result<(Bytes, ObjectInfo), StoreError> {
        components(path)?;
        for _ in 0..CHANGES_MAX {
            let held = self.place.table().held(path, self.age());
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
            if let Some(bytes) = self.gather(path, &held, range).await? {
                return Ok((bytes, held.info));
            }
        }
        // It changes all the time: as it is just now.
        let (bytes, info) = self.store()?.read(path, range).await?;
        let shown = self.place.table().shown(path, &info);
        Ok((bytes, shown))
    }

    /// The bytes of `range`, from what is here and what the store gives for the rest; none when the store has another state by now.
    async fn gather(&self, path: &str, held: &Held, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
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
    pub(super) fn learn_read(&self, path: &str, info: &ObjectInfo) -> ObjectInfo {
        let keep = self.caching.bytes_max > 0 || self.remembers();
        self.place.table().learn(&self.vault, path, info, self.now(), keep)
    }

    /// Keeps what of `bytes`, which begin at `from`, is whole pieces. Small ones at once, the others beside what else happens, or not at all.
    pub(super) fn keep(&self, path: &str, info: &ObjectInfo, from: u64, bytes: &Bytes) {
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
        let keeper = Keeper {
            vault: self.vault.clone(),
            place: self.place.clone(),
            bytes_max: self.caching.bytes_max,
        };
        keeper.kept(path, tag, index, piece);
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
        if let Err(error) = self.place.table().keep(&self.vault, path, tag, index, piece) {
            tracing::warn!(%error, "the cache keeps nothing");
        }
        self.place.make_room(&self.vault, self.bytes_max);
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
