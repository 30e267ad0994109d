//! How one file or link becomes one of the new store.

use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType, ErrorKind, Timestamp};

use super::journal::{CopyRow, Of};
use super::view::Progress;
use super::{Attempts, Failed, Run, Side};
use crate::hal::{ObjectInfo, PathWrite, StoreError};

/// How many files are copied at once.
const AT_ONCE: usize = 8;

/// Files up to this size are in memory while they are copied; larger ones go piece by piece, where the new store takes content so.
const HELD_MAX: u64 = 4 << 20;

/// The pieces.
const PIECE: u64 = 4 << 20;

/// A file that was read so soon after it was changed may have been changed again without a sign: the clocks of disks are coarse.
const SOON_NANOS: u64 = 100_000_000;

/// Why a file was not copied.
enum Missed {
    /// It changed, or went, while it was read: it is looked at again.
    Changed,
    Store(Side, StoreError),
}

impl Missed {
    /// What the old store has said.
    fn of_old(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. }
            | StoreError::IsADirectory { .. }
            | StoreError::NotADirectory { .. } => Self::Changed,
            error => Self::Store(Side::Old, error),
        }
    }

    /// What the new store has said.
    fn of_new(error: StoreError) -> Self {
        Self::Store(Side::New, error)
    }
}

/// What is known of the copy of a file that was found, beside its row.
pub(super) enum Known {
    /// That it is one of an older state: the file was changed.
    Changed,
    /// Nothing, but that this process knows what becomes of copies.
    Trusted,
    /// The tag that it has now, if it is there.
    As(Option<ContentId>),
}

impl Known {
    /// Whether the row may speak for it.
    fn is_of(&self, row: &CopyRow) -> bool {
        match self {
            Self::Changed => false,
            Self::Trusted => true,
            Self::As(tag) => tag.is_some() && *tag == row.tag,
        }
    }
}

/// Whether the row is of a verified copy of what is there.
fn is_copied(row: &CopyRow, info: &ObjectInfo) -> bool {
    let is_soon = |of: &Of| of.at.nanos().saturating_sub(info.modified.nanos()) < SOON_NANOS;
    row.of
        .as_ref()
        .is_some_and(|of| (&of.tag, of.size, of.mode) == (&info.tag, info.size, info.mode) && !is_soon(of))
}

impl Run {
    /// Copies files and links, unless what is known of their copies is enough.
    pub(super) async fn copy_files(&self, found: Vec<(String, ObjectInfo, Known)>) -> Result<(), Failed> {
        let names: Vec<_> = found.iter().map(|(path, _, _)| path.clone()).collect();
        let known = self.journal.copies(&names)?;
        let mut wanted = Vec::new();
        for ((path, info, of_copy), row) in found.into_iter().zip(known) {
            if row.is_some_and(|row| of_copy.is_of(&row) && is_copied(&row, &info)) {
                // What a later look finds copied, this migration has copied.
                if self.progress.looks.load(Ordering::Relaxed) == 0 {
                    Progress::count(&self.progress.kept, 1);
                }
            } else {
                wanted.push((path, info));
            }
        }
        self.journal.begin(wanted.iter().map(|(path, _)| (path.clone(), false))).await?;
        let copies =
            stream::iter(wanted).map(|(path, info)| async move { self.copy_file(&path, &info).await });
        copies.buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    async fn copy_file(&self, path: &str, info: &ObjectInfo) -> Result<(), Failed> {
        let (mut attempts, mut cleared, mut refused) = (Attempts::default(), false, false);
        loop {
            let copied = match info.entry_type {
                EntryType::Link => self.copy_link(path, info).await,
                _ if info.size > HELD_MAX && self.can.upload => self.copy_pieces(path, info).await,
                _ => self.copy_whole(path).await,
            };
            match copied {
                Ok((of, tag)) => {
                    Progress::count(&self.progress.copied, 1);
                    Progress::count(&self.progress.bytes, of.size);
                    self.journal
                        .confirm(path, CopyRow { ours: true, folder: false, of: Some(of), tag: Some(tag) });
                    return self.journal.flush(false).await;
                }
                Err(Missed::Changed) => {
                    self.note_again(path, false);
                    return Ok(());
                }
                // Something else is in its place, or where a folder above it is to be.
                Err(Missed::Store(
                    Side::New,
                    StoreError::IsADirectory { .. } | StoreError::NotEmpty { .. } | StoreError::Exists { .. },
                )) if !cleared => {
                    cleared = true;
                    self.remove(path).await?;
                    self.journal.begin(std::iter::once((path.to_owned(), false))).await?;
                }
                Err(Missed::Store(side, error)) => {
                    let is_denied = side == Side::New && error.kind() == ErrorKind::PermissionDenied;
                    if is_denied && !std::mem::replace(&mut refused, true) && self.opens(path).await? {
                        continue;
                    }
                    if !self.again(side, error, &mut attempts).await {
                        return Err(self.not_copied(path, &attempts));
                    }
                }
            }
        }
    }

    fn attributes(&self, info: &ObjectInfo) -> Attributes {
        match self.can.attributes {
            true if self.had.attributes => Attributes::none().mode(info.mode).modified(info.modified),
            true => Attributes::none().modified(info.modified),
            false => Attributes::none(),
        }
    }

    fn of(&self, info: &ObjectInfo) -> Of {
        let at = Timestamp(self.kernel.env().wall());
        Of { tag: info.tag.clone(), size: info.size, mode: info.mode, at }
    }

    /// Copies a file at once. What it is when it is read counts, not what it was when it was listed.
    async fn copy_whole(&self, path: &str) -> Result<(Of, ContentId), Missed> {
        let (data, info) = {
            let old = self.old().await;
            let read = async { old.files()?.read(path, ByteRange::ALL).await };
            read.await.map_err(Missed::of_old)?
        };
        if info.entry_type != EntryType::Reg || data.len() as u64 != info.size {
            return Err(Missed::Changed);
        }
        let data = [data];
        let hash = self.kernel.address(&data).await.map_err(Missed::of_old)?;
        let new = self.new_files().map_err(Missed::of_new)?;
        let written = new.write(path, &data, PathWrite::Whole, &self.attributes(&info)).await;
        written.map_err(Missed::of_new)?;
        let (back, copy) = new.read(path, ByteRange::ALL).await.map_err(Missed::of_new)?;
        let found = self.kernel.address(&[back]).await.map_err(Missed::of_new)?;
        if found != hash {
            return Err(Missed::of_new(unlike(path, &found.to_string())));
        }
        Ok((self.of(&info), copy.tag))
    }

    /// Copies a large file piece by piece: the new store shows it when all of it is there.
    async fn copy_pieces(&self, path: &str, info: &ObjectInfo) -> Result<(Of, ContentId), Missed> {
        let new = self.new_files().map_err(Missed::of_new)?;
        let mut upload = new.upload(path).await.map_err(Missed::of_new)?;
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while offset < info.size {
            let range = ByteRange::new(offset, PIECE.min(info.size - offset));
            let (data, now) = {
                let old = self.old().await;
                let read = async { old.files()?.read(path, range).await };
                read.await.map_err(Missed::of_old)?
            };
            if now.tag != info.tag || data.is_empty() {
                return Err(Missed::Changed);
            }
            hasher.update(&data);
            offset += data.len() as u64;
            upload.push(data).await.map_err(Missed::of_new)?;
        }
        upload.settle().await.map_err(Missed::of_new)?;
        let finished = upload.finish(path, PathWrite::Whole, &self.attributes(info)).await;
        let copy = finished.map_err(Missed::of_new)?;
        let (mut back, mut offset) = (blake3::Hasher::new(), 0);
        while offset < info.size {
            let (data, _) = new.read(path, ByteRange::new(offset, PIECE)).await.map_err(Missed::of_new)?;
            if data.is_empty() {
                break;
            }
            offset += data.len() as u64;
            back.update(&data);
        }
        let found = back.finalize();
        if found != hasher.finalize() {
            return Err(Missed::of_new(unlike(path, &found.to_hex())));
        }
        Ok((self.of(info), copy.tag))
    }

    async fn copy_link(&self, path: &str, info: &ObjectInfo) -> Result<(Of, ContentId), Missed> {
        let new = self.new_files().map_err(Missed::of_new)?;
        let target = info.link_target.as_deref().unwrap_or_default();
        let made = new.make_link(path, target).await.map_err(Missed::of_new);
        let back = match made {
            Err(Missed::Store(_, StoreError::Exists { .. })) => {
                new.stat(path).await.map_err(Missed::of_new)?
            }
            made => {
                made?;
                new.stat(path).await.map_err(Missed::of_new)?
            }
        };
        if back.link_target.as_deref() == Some(target) {
            return Ok((self.of(info), back.tag));
        }
        // It is removed, and made again.
        Err(Missed::of_new(StoreError::Exists { what: path.to_owned() }))
    }
}

fn unlike(path: &str, found: &str) -> StoreError {
    StoreError::Corrupt {
        what: format!("the copy of {path}"),
        found: format!("content with the hash {found}"),
    }
}
