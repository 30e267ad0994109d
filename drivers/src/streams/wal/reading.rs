//! One segment, as it is read: the append at a place, checked.

use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::StoreError;
use nexus_messages::FileId;

use super::index::Extent;
use super::record;
use crate::disk::{DiskFile, Folder};
use crate::frames::frame::{self, HEADER_BYTES, Seed};
use crate::frames::segment::{failed, name_of};

/// A segment that is read.
pub(super) struct Opened {
    pub(super) number: u64,
    seed: Seed,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// What was read last, and where it begins.
    window: (u64, Bytes),
}

impl Opened {
    pub(super) fn new(folder: &dyn Folder, salt: u64, number: u64) -> Result<Self, StoreError> {
        let failed = failed("opening a segment of the streams' log");
        let file = folder.open(&name_of(number), false).map_err(&failed)?;
        let length = file.len().map_err(&failed)?;
        Ok(Self { number, seed: Seed::of(salt, number), file, length, window: (0, Bytes::new()) })
    }

    /// The append of a stream at its place.
    pub(super) fn item(&self, extent: &Extent, stream: FileId) -> Result<record::Item, StoreError> {
        let bytes =
            self.read(extent.place, extent.length).map_err(|found| self.corrupt(extent, stream, found))?;
        self.decode(&bytes, extent, stream)
    }

    /// As [`item`](Self::item), and reads up to so many bytes along with it, for the next ones.
    pub(super) fn item_ahead(
        &mut self,
        extent: &Extent,
        stream: FileId,
        ahead: u64,
    ) -> Result<record::Item, StoreError> {
        let (begin, window) = &self.window;
        let until = extent.place.saturating_add(extent.length);
        if extent.place < *begin || until > begin + window.len() as u64 {
            let length = extent.length.max(ahead.min(self.length.saturating_sub(extent.place)));
            let read = self.read(extent.place, length);
            self.window = (extent.place, read.map_err(|found| self.corrupt(extent, stream, found))?);
        }
        let (begin, window) = &self.window;
        let from = usize::try_from(extent.place - begin).unwrap_or(usize::MAX).min(window.len());
        self.decode(&window.slice(from..), extent, stream)
    }

    fn read(&self, at: u64, length: u64) -> Result<Bytes, String> {
        if at.checked_add(length).is_none_or(|until| until > self.length) {
            return Err("the segment ends before it".into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
        match self.file.read_at(at, &mut bytes) {
            Ok(()) => Ok(bytes.into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn decode(&self, bytes: &Bytes, extent: &Extent, stream: FileId) -> Result<record::Item, StoreError> {
        let found = frame::read(self.seed, bytes).map(|(header, _)| header.payload_bytes());
        let length = found.ok_or_else(|| self.corrupt(extent, stream, "no whole frame".into()))?;
        let items = record::decode(&bytes.slice(HEADER_BYTES..HEADER_BYTES + length));
        let items = items.map_err(|found| self.corrupt(extent, stream, found))?;
        let is_it = |item: &record::Item| {
            item.entry.records().is_some_and(|(of, first, _)| of == stream && first == extent.first)
                && item.entry.lengths().len() == extent.count as usize
        };
        // The last one: what a frame carries over of a stream that was removed and made again has its first life before it.
        let found = items.into_iter().rfind(is_it);
        found.ok_or_else(|| self.corrupt(extent, stream, "a frame of other records".into()))
    }

    fn corrupt(&self, extent: &Extent, stream: FileId, found: String) -> StoreError {
        let Extent { first, place, .. } = extent;
        let what = format!("the append at {first} of stream {stream} (segment {}, at {place})", self.number);
        StoreError::Corrupt { what, found }
    }
}
