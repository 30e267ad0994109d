//! Content by its hash: the rows that name it stay, so only the contents themselves are copied.
//!
//! All that the store has is copied, whatever names it: history, chunks, lists, what is written and not named yet. A content never changes, and
//! one that the collector takes from the old store meanwhile is collected from the new one later.

use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, Timestamp};

use super::journal::{CopyRow, Of, PAGE};
use super::view::Progress;
use super::{Attempts, Failed, Run, Side, tried};
use crate::content::length;
use crate::hal::{Addressing, ContentStore, ObjectStore, StoreError};

/// How many contents are copied at once.
const AT_ONCE: usize = 8;

pub(super) fn contents(store: &dyn ObjectStore) -> Result<&dyn ContentStore, StoreError> {
    match store.addressing() {
        Addressing::Content(store) => Ok(store),
        Addressing::Path(_) => Err(StoreError::NotSupported { what: "content by its hash" }),
    }
}

/// What the journal calls a content.
pub(super) fn name_of(id: &ContentId) -> Option<String> {
    id.blake3().map(|hash| blake3::Hash::from_bytes(*hash).to_hex().to_string())
}

/// The content that the journal calls so.
pub(super) fn id_of(name: &str) -> Option<ContentId> {
    blake3::Hash::from_hex(name).ok().map(|hash| ContentId::Blake3(*hash.as_bytes()))
}

impl Run {
    /// Copies all contents that were not copied before.
    pub(super) async fn copy_contents(&self, first: bool) -> Result<(), Failed> {
        let mut after: Option<ContentId> = None;
        loop {
            let page = tried!(self, Side::Old, async {
                let driver = self.mount.lease().await;
                contents(&**driver)?.list(after.as_ref(), PAGE).await
            })?;
            let Some(last) = page.last().cloned() else { break };
            if first {
                Progress::count(&self.progress.found, page.len() as u64);
            }
            self.copy_these(&page).await?;
            after = Some(last);
        }
        self.journal.flush(true).await
    }

    /// Copies these contents, unless they were copied before.
    pub(super) async fn copy_these(&self, ids: &[ContentId]) -> Result<(), Failed> {
        let names: Vec<_> = ids.iter().filter_map(name_of).collect();
        debug_assert_eq!(names.len(), ids.len(), "a store of contents knows hashes alone");
        let mut known = self.journal.copies(&names)?;
        if self.resumed && self.progress.looks.load(Ordering::Relaxed) == 0 {
            self.forget_missing(ids, &mut known).await?;
        }
        let is_known = |row: &Option<CopyRow>| row.as_ref().is_some_and(|row| row.of.is_some());
        Progress::count(&self.progress.kept, known.iter().filter(|row| is_known(row)).count() as u64);
        // What the new store has already is not ours, unless it was announced.
        let mut wanted = Vec::new();
        for ((id, name), row) in ids.iter().zip(names).zip(known).filter(|(_, row)| !is_known(row)) {
            let there = tried!(self, Side::New, async { contents(&*self.target)?.contains(id).await })?;
            wanted.push((id.clone(), name, there, row.is_some() || !there));
        }
        let new =
            wanted.iter().filter(|(_, _, there, _)| !there).map(|(_, name, _, _)| (name.clone(), false));
        self.journal.begin(new).await?;
        let copies = stream::iter(wanted).map(|(id, name, there, ours)| async move {
            let copied = self.try_content(&id, there).await?;
            if let Some(size) = copied {
                let at = Timestamp(self.kernel.env().wall());
                let of = Of { tag: id, size, mode: 0, at };
                self.journal.confirm(&name, CopyRow { ours, folder: false, of: Some(of), tag: None });
            }
            Ok::<_, Failed>(())
        });
        copies.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        self.journal.flush(false).await
    }

    /// Lets no row speak for a content that is not in the new store: what became of it between two processes nobody knows.
    async fn forget_missing(&self, ids: &[ContentId], known: &mut [Option<CopyRow>]) -> Result<(), Failed> {
        let looks = ids.iter().cloned().enumerate().filter(|(n, _)| known[*n].is_some());
        let looks: Vec<_> = looks.collect();
        let looks = stream::iter(looks).map(|(n, id)| async move {
            let there = tried!(self, Side::New, async { contents(&*self.target)?.contains(&id).await })?;
            Ok::<_, Failed>((n, there))
        });
        let found: Vec<_> = looks.buffer_unordered(AT_ONCE).try_collect().await?;
        for (n, _) in found.into_iter().filter(|(_, there)| !there) {
            if let Some(row) = &mut known[n] {
                row.of = None;
            }
        }
        Ok(())
    }

    /// Copies one content, again when that fails and may succeed later.
    async fn try_content(&self, id: &ContentId, there: bool) -> Result<Option<u64>, Failed> {
        let mut attempts = Attempts::default();
        loop {
            match self.copy_content(id, there).await {
                Ok(copied) => return Ok(copied),
                Err((side, error)) => {
                    if !self.again(side, error, &mut attempts).await {
                        return Err(self.failed(&attempts));
                    }
                }
            }
        }
    }

    /// Copies one content; none when it is gone meanwhile.
    async fn copy_content(&self, id: &ContentId, there: bool) -> Result<Option<u64>, (Side, StoreError)> {
        let (of_old, of_new) = (|error| (Side::Old, error), |error| (Side::New, error));
        let (old, new) = (self.mount.lease().await, contents(&*self.target).map_err(of_new)?);
        if !there {
            let data = match contents(&**old).map_err(of_old)?.read(id, ByteRange::ALL).await {
                Ok(data) => [data],
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(of_old(error)),
            };
            self.is_content(id, &data).await.map_err(of_old)?;
            new.write(id, &data).await.map_err(of_new)?;
            Progress::count(&self.progress.bytes, length(&data));
        }
        let back = [new.examine(id, ByteRange::ALL).await.map_err(of_new)?];
        self.is_content(id, &back).await.map_err(of_new)?;
        Progress::count(&self.progress.copied, 1);
        Ok(Some(length(&back)))
    }

    async fn is_content(&self, id: &ContentId, data: &[bytes::Bytes]) -> Result<(), StoreError> {
        let found = self.kernel.address(data).await?;
        if found == *id {
            return Ok(());
        }
        let what = format!("content {id}");
        Err(StoreError::Corrupt { what, found: format!("content with the hash {found}") })
    }
}
