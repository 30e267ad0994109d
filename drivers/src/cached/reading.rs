//! What is read: from here, or from the store, of which it is kept.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nexus_kernel::hal::{ObjectInfo, StoreError};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, EntryType};

use super::PIECE_BYTES;
use super::paths::{CachedPaths, count};
use super::place::Place;
use super::table::{Held, Piece, Table, parent};
use super::vault::Vault;
use crate::path::components;

/// How many pieces of one file are read at once.
const PIECES_AT_ONCE: usize = 4;

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
            if !held.is_current && !self.never_changes {
                let info = self.ask(path).await?;
                if info.entry_type == EntryType::Dir {
                    return Err(StoreError::IsADirectory { what: path.into() });
                }
                if info.tag != held.info.tag || !info.told_apart {
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

    /// All of the file at `path`, if it is here, whatever the store has by now. What is pending must be.
    pub(super) async fn read_here(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let Some(held) = self.place.table().held(path, self.age()) else { return Ok(None) };
        let mut whole = BytesMut::with_capacity(count(held.info.size));
        for index in 0..held.info.size.div_ceil(PIECE_BYTES) {
            let length = (held.info.size - index * PIECE_BYTES).min(PIECE_BYTES);
            let Some(bytes) = self.piece(path, &held, index, length, ByteRange::ALL).await? else {
                return Ok(None);
            };
            if length == held.info.size {
                return Ok(Some(bytes));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(Some(whole.freeze()))
    }

    /// The bytes of `range`, from what is here and what the store gives for the rest; none when the store has another state by now.
    async fn gather(&self, path: &str, held: &Held, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let (start, end) = range.within(held.info.size);
        if start == end {
            return Ok(Some(Bytes::new()));
        }
        let bounds = |index: u64| (index * PIECE_BYTES, ((index + 1) * PIECE_BYTES).min(held.info.size));
        let indices = start / PIECE_BYTES..=(end - 1) / PIECE_BYTES;
        let looks = indices.clone().map(|index| {
            let (from, to) = bounds(index);
            let within = ByteRange::new(start.saturating_sub(from), end.min(to) - start.max(from));
            self.piece(path, held, index, to - from, within)
        });
        let pieces: Vec<Option<Bytes>> = stream::iter(looks).buffered(PIECES_AT_ONCE).try_collect().await?;
        let mut is_hit = true;
        let mut parts = Vec::new();
        let mut missing: Option<(u64, u64)> = None;
        for (index, piece) in indices.zip(pieces) {
            if let Some(bytes) = piece {
                if let Some((from, to)) = missing.take() {
                    let Some(bytes) = self.fetch(path, held, from, to).await? else { return Ok(None) };
                    parts.push(cut(&bytes, from, start, end));
                }
                parts.push(bytes);
            } else {
                is_hit = false;
                let (from, to) = bounds(index);
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
        let asking = self.place.ask(parent(path));
        let now = self.now();
        let (bytes, info) = self.store()?.read(path, ByteRange::new(from, to - from)).await?;
        let is_same = info.told_apart && held.remote.as_ref() == Some(&info.tag);
        if !is_same || bytes.len() as u64 != to - from {
            let mut table = self.place.table();
            if asking.holds(&table) {
                self.learn_read(&mut table, path, &info, now);
            }
            return Ok(None);
        }
        self.keep(path, &info, from, &bytes);
        Ok(Some(bytes))
    }

    /// What the store has, of which nothing is here: whole pieces, if they are to be kept.
    async fn read_new(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        self.place.count(false);
        let wide = match self.caching.bytes_max {
            0 => range,
            // It takes all of it to verify a part.
            _ if self.never_changes => ByteRange::ALL,
            _ => widened(range),
        };
        let asking = self.place.ask(parent(path));
        let now = self.now();
        let (bytes, info) = self.store()?.read(path, wide).await?;
        let (shown, is_true) = {
            let mut table = self.place.table();
            match asking.holds(&table) {
                true => (self.learn_read(&mut table, path, &info, now), true),
                false => (table.shown(path, &info), false),
            }
        };
        if is_true {
            self.keep(path, &info, wide.offset, &bytes);
        }
        Ok((within(&bytes, wide, range, info.size), shown))
    }

    /// Takes what the store said with content that it was asked for at `now`.
    pub(super) fn learn_read(
        &self,
        table: &mut Table,
        path: &str,
        info: &ObjectInfo,
        now: u64,
    ) -> ObjectInfo {
        let keep = self.caching.bytes_max > 0 || self.remembers();
        table.learn(&self.vault, path, info, now, keep)
    }

    /// Keeps what of `bytes`, which begin at `from`, is whole pieces. Small ones at once, the others beside what else happens, or not at all.
    pub(super) fn keep(&self, path: &str, info: &ObjectInfo, from: u64, bytes: &Bytes) {
        if self.caching.bytes_max == 0 || info.size > self.caching.bytes_max / 2 || self.vault.is_behind() {
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
            if piece.len() <= self.place.table().inline_max() {
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
