//! Content against what names it: whether it is there, is what was written, and is as long as is told.
//!
//! Everything is read from where it lies, past the cache, and leaves nothing there: what is in memory tells nothing of what is on disk, and a look at
//! all content would push out what is in use.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, EntryType};

use super::pace::Pace;
use super::run::{Course, Halt};
use crate::content::{self, Hash, List, WHOLE_MAX};
use crate::hal::{Addressing, ContentStore, ObjectStore, Reader, StoreError};
use crate::mounts::{Guarded, Mount};
use crate::namespace::{InodeRow, Placement, content_key};

/// How many blobs that were found whole are remembered, at 24 bytes each, so that what several files share is read once. When there are more, some are
/// read again.
const WHOLE_REMEMBERED_MAX: usize = 1 << 18;

/// What was found of the content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// It is as it is to be.
    Whole,
    /// Blobs of it are not.
    Bad(Vec<BadBlob>),
    /// It has so many bytes.
    Size(u64),
    /// Its row contradicts itself.
    NoAddress,
    /// Its store could not be asked.
    Unasked(String),
}

/// A blob that is not there, or not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadBlob {
    pub(super) hash: Hash,
    pub(super) missing: bool,
    pub(super) cause: String,
}

/// What reading a blob came to.
#[derive(Debug)]
pub(super) enum Blob {
    Whole(Bytes),
    Bad(BadBlob),
    Unasked(String),
}

/// Small content, as `reader` has it: its length, or what is wrong with it.
pub(super) fn inline(reader: &dyn Reader, hash: &Hash) -> Result<Result<Bytes, BadBlob>, StoreError> {
    let id = ContentId::Blake3(*hash);
    let Some(key) = content_key(&id) else { return Ok(Ok(Bytes::new())) };
    let bad = |missing, cause| Ok(Err(BadBlob { hash: *hash, missing, cause }));
    let Some(found) = reader.get(&key)? else { return bad(true, format!("row {key:?} is not there")) };
    match content::address(std::slice::from_ref(&found)) {
        its if its == id => Ok(Ok(found)),
        other => bad(false, format!("{} bytes with the hash {other}", found.len())),
    }
}

/// What a row says of its content, as far as no store has to be asked.
pub(super) enum Named {
    /// It has none, or what is to be found was found.
    Known(Found),
    /// One blob of the store.
    Blob(Hash),
    /// A chunk list of the store, and what it tells.
    Chunks(Hash),
}

/// Looks at what `row` says, and at small content.
pub(super) fn named(reader: &dyn Reader, row: &InodeRow) -> Result<Named, StoreError> {
    if row.entry_type != EntryType::Reg {
        return Ok(Named::Known(Found::Whole));
    }
    let sized = |length: u64| if length == row.size { Found::Whole } else { Found::Size(length) };
    Ok(match (row.placement, &row.content_id) {
        (Placement::None, _) => Named::Known(sized(0)),
        (Placement::Inline, Some(ContentId::Blake3(hash))) => Named::Known(match inline(reader, hash)? {
            Ok(content) => sized(content.len() as u64),
            Err(bad) => Found::Bad(vec![bad]),
        }),
        (Placement::Store, Some(ContentId::Blake3(hash))) => Named::Blob(*hash),
        (Placement::Chunked, Some(ContentId::Chunks(root))) => Named::Chunks(*root),
        _ => Named::Known(Found::NoAddress),
    })
}

/// Reads content of stores.
pub(super) struct Inspector {
    course: Course,
    pace: Option<Pace>,
    /// By mount and half a hash.
    whole: BTreeSet<(u64, [u8; 16])>,
    /// What was read since it was last asked for: blobs, and their bytes.
    read: (u64, u64),
}

impl Inspector {
    pub(super) fn new(course: Course, pace: Option<Pace>) -> Self {
        Self { course, pace, whole: BTreeSet::new(), read: (0, 0) }
    }

    /// How many blobs and bytes were read since this was last asked.
    pub(super) fn take_read(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.read)
    }

    /// Counts what was read elsewhere, and waits until it is paid for.
    pub(super) async fn count(&mut self, blobs: u64, bytes: u64) -> Result<(), Halt> {
        (self.read.0, self.read.1) = (self.read.0 + blobs, self.read.1 + bytes);
        let env = self.course.env().clone();
        let Some(pace) = &mut self.pace else { return Ok(()) };
        pace.took(bytes, env.now());
        let wait = pace.wait(env.now());
        if !wait.is_zero() {
            env.sleep(wait).await;
        }
        self.course.check()
    }

    /// Reads what `named` says of a file of `mount` that is told to have `size` bytes.
    pub(super) async fn content(
        &mut self,
        mount: &Arc<Mount>,
        named: Named,
        size: u64,
    ) -> Result<Found, Halt> {
        match named {
            Named::Known(found) => Ok(found),
            Named::Blob(hash) => self.one(mount, &hash, size).await,
            Named::Chunks(root) => self.chunks(mount, root, size).await,
        }
    }

    async fn one(&mut self, mount: &Arc<Mount>, hash: &Hash, size: u64) -> Result<Found, Halt> {
        let length = if size <= WHOLE_MAX {
            match self.blob(mount, hash).await? {
                Blob::Whole(content) => content.len() as u64,
                Blob::Bad(bad) => return Ok(Found::Bad(vec![bad])),
                Blob::Unasked(why) => return Ok(Found::Unasked(why)),
            }
        } else {
            // Of an earlier version: verified as a whole by the store, piece by piece, and not held in memory.
            match self.ask(mount, hash, ByteRange::new(0, 1), size).await? {
                Blob::Whole(_) => {}
                Blob::Bad(bad) => return Ok(Found::Bad(vec![bad])),
                Blob::Unasked(why) => return Ok(Found::Unasked(why)),
            }
            let driver = mount.lease().await;
            match contents(&driver) {
                Ok(store) => match store.length(&ContentId::Blake3(*hash)).await {
                    Ok(length) => length.unwrap_or_default(),
                    Err(error) => return Ok(Found::Unasked(error.to_string())),
                },
                Err(error) => return Ok(Found::Unasked(error.to_string())),
            }
        };
        Ok(if length == size { Found::Whole } else { Found::Size(length) })
    }

    async fn chunks(&mut self, mount: &Arc<Mount>, root: Hash, size: u64) -> Result<Found, Halt> {
        let (mut bad, mut total) = (Vec::new(), None);
        // The level of a list is known but for the root's; a chunk has none. And how many bytes it is to tell, or to have.
        let mut waiting: Vec<(Hash, Option<u8>, Option<u64>)> = vec![(root, None, None)];
        let is_list = |level: Option<u8>, length: Option<u64>| level.is_some() || length.is_none();
        while let Some((hash, level, length)) = waiting.pop() {
            let lists = is_list(level, length);
            if !lists && self.whole.contains(&(mount.root.0, half(&hash))) {
                continue;
            }
            let blob = match self.blob(mount, &hash).await? {
                Blob::Whole(blob) => blob,
                Blob::Bad(found) => {
                    bad.push(found);
                    continue;
                }
                Blob::Unasked(why) => return Ok(Found::Unasked(why)),
            };
            let mut wrong = |cause: String| bad.push(BadBlob { hash, missing: false, cause });
            if !lists {
                if length.is_some_and(|length| length != blob.len() as u64) {
                    wrong(format!("a chunk of {} bytes", blob.len()));
                } else {
                    self.remember(mount, &hash);
                }
                continue;
            }
            let list = match List::parse(blob) {
                Ok(list) => list,
                Err(found) => {
                    wrong(format!("no chunk list: {found}"));
                    continue;
                }
            };
            let agrees = level.is_none_or(|level| level == list.level())
                && length.is_none_or(|length| length == list.length());
            if !agrees {
                wrong(format!("a list of level {} that tells {} bytes", list.level(), list.length()));
                continue;
            }
            if length.is_none() {
                total = Some(list.length());
            }
            let below = list.level().checked_sub(1);
            let entries = (0..list.entries()).rev().filter_map(|index| list.entry(index));
            waiting.extend(entries.map(|entry| (entry.hash, below, Some(entry.end - entry.start))));
        }
        Ok(match (bad.is_empty(), total) {
            (false, _) => Found::Bad(bad),
            (true, Some(total)) if total != size => Found::Size(total),
            (true, _) => Found::Whole,
        })
    }

    /// The blob, read and verified by the store of `mount`.
    pub(super) async fn blob(&mut self, mount: &Arc<Mount>, hash: &Hash) -> Result<Blob, Halt> {
        self.ask(mount, hash, ByteRange::ALL, 0).await
    }

    /// As [`blob`](Self::blob), of which `range` is given. `size` counts when more is read than given.
    async fn ask(
        &mut self,
        mount: &Arc<Mount>,
        hash: &Hash,
        range: ByteRange,
        size: u64,
    ) -> Result<Blob, Halt> {
        self.course.check()?;
        let id = ContentId::Blake3(*hash);
        let read = {
            let driver = mount.lease().await;
            match contents(&driver) {
                Ok(store) => store.examine(&id, range).await,
                Err(error) => Err(error),
            }
        };
        let bad = |missing, cause| Blob::Bad(BadBlob { hash: *hash, missing, cause });
        Ok(match read {
            Ok(content) => {
                self.count(1, size.max(content.len() as u64)).await?;
                Blob::Whole(content)
            }
            Err(StoreError::NotFound { .. }) => {
                bad(true, format!("the store of {} does not have it", mount.point))
            }
            Err(StoreError::Corrupt { found, .. }) => bad(false, found),
            Err(error @ StoreError::Io { .. }) => bad(false, error.to_string()),
            Err(error) => Blob::Unasked(format!("{}: {error}", mount.point)),
        })
    }

    fn remember(&mut self, mount: &Mount, hash: &Hash) {
        if self.whole.len() >= WHOLE_REMEMBERED_MAX {
            self.whole.clear();
        }
        self.whole.insert((mount.root.0, half(hash)));
    }
}

fn half(hash: &Hash) -> [u8; 16] {
    std::array::from_fn(|at| hash[at])
}

/// The store behind the door, which finds content by its hash.
pub(super) fn contents(driver: &Arc<Guarded>) -> Result<&dyn ContentStore, StoreError> {
    match driver.addressing() {
        Addressing::Content(store) => Ok(store),
        Addressing::Path(_) => Err(StoreError::NotSupported { what: "content by its hash" }),
    }
}
