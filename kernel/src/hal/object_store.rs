//! Content: by what it is, or by where it is.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp, hash_of};
use serde::{Deserialize, Serialize};

use super::{CacheFigures, OutsideChanges, StoreError, StoreFuture};

/// A store of content, mounted at a path. Whether content is found by its hash or by its path is the store's addressing.
///
/// The caller holds the path's lock in the kernel when it writes. Nothing here blocks the thread that polls: a driver whose
/// backend blocks runs it on the pool of its mount. A driver is done when `hal::conformance::object_store` passes.
///
/// The kernel makes every call under a deadline, catches its panics, and stops calling a backend that fails again and again. A future that is
/// late is dropped; what it had begun may be done or not, and may be done later still. A call that blocks the thread that polls it cannot be
/// interrupted by anybody: it holds its caller, and its deadline passes unheard until it comes back.
pub trait ObjectStore: fmt::Debug + Send + Sync + 'static {
    /// How content is found.
    fn addressing(&self) -> Addressing<'_>;

    /// Whether changes are refused.
    fn read_only(&self) -> bool {
        false
    }

    /// Of a connector what kind of one it is; none for a store of content.
    fn connector(&self) -> Option<ConnectorCategory> {
        None
    }

    /// Says whether the backend answers. Cheap; repeat: safe.
    fn probe(&self) -> StoreFuture<'_, ()>;

    /// Waits until all that was acknowledged is at the backend, for a driver that acknowledges what lies on this machine alone. The caller sets the limit: what
    /// is not there by then stays where it is, and goes there later. Repeat: safe.
    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether some changes are acknowledged before they are at the backend: [`flush`](Self::flush) waits for those.
    fn acknowledges_early(&self) -> bool {
        false
    }

    /// How what is kept of it on this machine is doing; none when the driver keeps nothing. Neither blocks nor asks the backend: it is called for listings of
    /// mounts, also while the backend is down.
    fn cache(&self) -> Option<CacheFigures> {
        None
    }

    /// What keeps it from some of what it is for, while it does the rest, in words for who looks at the mount; none when nothing is known to. As
    /// [`cache`](Self::cache) it neither blocks nor asks the backend.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// What a connector speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectorCategory {
    /// An API, with a key or without any.
    Api,
    /// An API in the name of a user who has allowed it, by tokens that are renewed.
    #[serde(rename = "oauth")]
    OAuth,
    /// A program.
    Cli,
}

impl ConnectorCategory {
    /// The name in listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::OAuth => "oauth",
            Self::Cli => "cli",
        }
    }
}

/// How a store finds content.
#[derive(Debug, Clone, Copy)]
pub enum Addressing<'a> {
    /// By its hash: names and metadata are rows of the metastore.
    Content(&'a dyn ContentStore),
    /// By its path: the backend is the truth about what exists.
    Path(&'a dyn PathStore),
}

/// Content by its BLAKE3 hash.
pub trait ContentStore: fmt::Debug + Send + Sync {
    /// Keeps the buffers, one after the other, as one content whose hash is `id`. Durable on return. Content that is there, and is known to
    /// be durable and whole, is not written again; content that is there and damaged is replaced. Repeat: safe.
    ///
    /// The driver may trust `id`: the kernel computed it from these buffers.
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()>;

    /// The part `range` of the content `id`, with whole and unchanged content behind it: what does not match its hash is told as
    /// [`Corrupt`](StoreError::Corrupt), never returned. What lies beyond the end is left out. Repeat: safe.
    ///
    /// A driver whose content nobody else changes may count what it has verified once as whole for as long as it is open, and read no more than the range then.
    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes>;

    /// All of each of these contents, in their order, as [`read`](Self::read) gives them one by one: a driver that finds them side by side reads them at
    /// once. All of them are held in memory. The first that cannot be read is told. Repeat: safe.
    fn read_many<'a>(&'a self, ids: &'a [ContentId]) -> StoreFuture<'a, Vec<Bytes>> {
        Box::pin(async move {
            let mut contents = Vec::with_capacity(ids.len());
            for id in ids {
                contents.push(self.read(id, ByteRange::ALL).await?);
            }
            Ok(contents)
        })
    }

    /// As [`read`](Self::read), but what was verified before counts for nothing: all of the content is looked at where it lies. For checks of what is stored.
    /// Repeat: safe.
    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes>;

    /// Whether the content is there and known to be durable. Does not verify it.
    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool>;

    /// How long the content is, when it is there and known to be durable; none when it is not. Does not verify it. Repeat: safe.
    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>>;

    /// Forgets the content. What is not there is told as [`NotFound`](StoreError::NotFound).
    ///
    /// Calls about one content take effect one after the other: a write that is asked for when a deletion has returned, or was given up, is not
    /// undone by it, and does not count what the deletion took away as there.
    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()>;

    /// The contents that are there, in the order of their hashes, whose hash is greater than that of `after`; at most `limit`, and none only
    /// when there are no more. What is written or deleted meanwhile is in it or not. Does not verify them. Repeat: safe.
    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>>;

    /// Gives back some of the space that deleted content still takes, and says how many bytes that were; 0 when there is nothing more to be gained.
    /// Reads and writes go on meanwhile. Repeat: safe.
    fn reclaim(&self) -> StoreFuture<'_, u64> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// The parts of the store's own files that it found damaged, each in words that name it; nothing when it has none or found none. What is known,
    /// without looking for more. Repeat: safe.
    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// Content by its path below the mount point. Paths are relative, without leading slash; `""` is the mount point itself.
/// Nothing ever leads out of the folder, symbolic links included.
///
/// What a driver does not declare in its capabilities it answers with [`NotSupported`](StoreError::NotSupported).
pub trait PathStore: fmt::Debug + Send + Sync {
    /// What the driver can do beside reading, writing, deleting and listing.
    fn capabilities(&self) -> PathCapabilities;

    /// What is at `path`, links not followed. Repeat: safe.
    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo>;

    /// The part `range` of the file at `path`, and what the file was when it was read. What lies beyond the end is left out. Repeat: safe.
    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)>;

    /// Writes the file at `path`, and makes it, with its parents, when it is missing. Durable on return. All but [`PathWrite::At`] and [`PathWrite::Append`] are atomic: a
    /// reader, and a crash, sees the old content or the new one. All of `data` is in memory meanwhile; what is larger comes as an [`upload`](Self::upload).
    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo>;

    /// As [`write`](Self::write) of the whole content, for who needs nothing of the file but the tag that it has then. `looked` says that the caller looked at `path` a moment ago,
    /// at a file or at nothing: a driver that would look in requests of its own spares them, and what came in between is as if it had come just after.
    fn put<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        attributes: &'a Attributes,
        looked: bool,
    ) -> StoreFuture<'a, ContentId> {
        let _ = looked;
        Box::pin(async move { Ok(self.write(path, data, PathWrite::Whole, attributes).await?.tag) })
    }

    /// Begins to take content for the file at `path` piece by piece, in bounded memory. Nothing is to be seen of it before it is finished, and when it is dropped
    /// nothing is left and nothing has changed. What is in the way is told now or when it finishes. Needs `upload`.
    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        let _ = path;
        Box::pin(std::future::ready(Err(StoreError::NotSupported { what: "content piece by piece" })))
    }

    /// Removes a file, a link, or an empty directory. Durable on return.
    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()>;

    /// Removes these files and links, at most as many as the capability `deletes_at_once` says, in whichever order, and says of each what became of it, in theirs. The
    /// caller saw each a moment ago: a driver that would look at it in a request of its own spares that, and one that is not there any more counts as removed. An
    /// error of the call itself leaves open which are. Durable on return. Repeat: safe.
    fn delete_many<'a>(&'a self, paths: &'a [String]) -> StoreFuture<'a, Vec<Result<(), StoreError>>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(paths.len());
            for path in paths {
                all.push(match self.delete(path).await {
                    Err(StoreError::NotFound { .. }) => Ok(()),
                    Err(error) if error.is_backend_failure() => return Err(error),
                    deleted => deleted,
                });
            }
            Ok(all)
        })
    }

    /// The children of the directory at `path` whose names are greater than `after`, ordered by the bytes of the names, at most `limit`.
    /// Names that are not UTF-8 are left out and counted. Repeat: safe.
    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage>;

    /// Makes a directory, with its parents. What is there is told as [`Exists`](StoreError::Exists). Needs `directories`.
    fn make_directory<'a>(&'a self, path: &'a str, attributes: &'a Attributes)
    -> StoreFuture<'a, ObjectInfo>;

    /// Moves what is at `from` to `to`, atomically, replacing what POSIX would replace. Durable on return. Needs `rename`.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo>;

    /// Makes the file at `to` a copy of that at `from`, which stays; attributes that the backend has go with it. Atomic for who reads `to`, and durable on
    /// return; what was at `to` is replaced. Needs `copy`; a driver that would have to move the content itself may say [`NotSupported`](StoreError::NotSupported)
    /// to one that is large all the same.
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        let _ = (from, to);
        Box::pin(std::future::ready(Err(StoreError::NotSupported { what: "copying within the store" })))
    }

    /// As [`copy`](Self::copy), to where nothing is: a driver that can say so in the same step tells what is there as [`Exists`](StoreError::Exists), others
    /// replace it.
    fn copy_new<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.copy(from, to)
    }

    /// Makes a symbolic link whose target is `target`, verbatim. Needs `links`.
    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo>;

    /// Whether the backend can have something with this path. Nothing is asked of it.
    ///
    /// # Errors
    /// Why it cannot.
    fn can_name(&self, path: &str) -> Result<(), StoreError> {
        let _ = path;
        Ok(())
    }

    /// What others change here from now on; none when the driver cannot tell, or was told not to look. Asked once of a driver, by the kernel, which tells its watchers.
    fn outside(&self) -> StoreFuture<'_, Option<Box<dyn OutsideChanges>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Sets the attributes that the backend has. Needs `attributes`.
    fn set_attributes<'a>(&'a self, path: &'a str, attributes: &'a Attributes)
    -> StoreFuture<'a, ObjectInfo>;
}

/// Content on its way to a file: see [`PathStore::upload`].
///
/// It stands by itself: it needs no reference to the store that began it, and goes on when that is opened anew. One of which a call failed, or was given up, is to be
/// dropped; it may then take a moment until the backend has nothing of it any more. What is left of one whose process was killed is the driver's to remove, or the
/// backend's.
pub trait PathUpload: fmt::Debug + Send + Sync {
    /// Takes the next bytes, and waits while more of them are on their way than may be held.
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()>;

    /// All has been pushed: waits until as much of it is where it will be as can be before it is seen, so that finishing is short. Repeat: safe.
    fn settle(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Makes all that was pushed the whole content of the file at `path`, as [`PathStore::write`] would, with its parents. Durable on return. `how` is any but
    /// [`PathWrite::At`]. `path` is the one that it was begun for; a driver whose backend has bound what came so far to that one answers
    /// [`NotSupported`](StoreError::NotSupported) for another.
    fn finish<'a>(
        self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo>;
}

/// What a path-addressed driver can do beside reading, writing, deleting and listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PathCapabilities {
    /// It has directories of its own, also empty ones.
    pub directories: bool,
    /// It moves files and directories atomically.
    pub rename: bool,
    /// It writes in the middle of a file, and behind its end, without writing the rest.
    pub write_at: bool,
    /// It has symbolic links.
    pub links: bool,
    /// It keeps permission bits and times.
    pub attributes: bool,
    /// An exclusive write has one winner also among those that do not come through this kernel: the backend itself decides. Without it, something that
    /// another writer makes at the same moment may be replaced.
    pub exclusive: bool,
    /// So it is with a write that replaces one state of a file only, [`PathWrite::IfMatch`]: nothing that another writer made in between is replaced. Without it the
    /// state is looked at just before.
    pub if_match: bool,
    /// It takes content piece by piece.
    pub upload: bool,
    /// So it is, with both, also for content that came piece by piece.
    pub conditional_upload: bool,
    /// How many reads of one file are worth being under way at once, because each waits longer than it works. 0 and 1 both say that none is.
    pub reads_at_once: u8,
    /// It copies a file without its content passing through the kernel.
    pub copy: bool,
    /// How many files are worth being deleted in one call, because that asks its backend less often than their deletions would. 0 and 1 both say that none are.
    pub deletes_at_once: u16,
}

impl PathCapabilities {
    /// All of them: a POSIX file system.
    pub const POSIX: Self = Self {
        directories: true,
        rename: true,
        write_at: true,
        links: true,
        attributes: true,
        exclusive: true,
        if_match: false,
        upload: false,
        conditional_upload: false,
        reads_at_once: 1,
        copy: false,
        deletes_at_once: 1,
    };
}

/// How a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathWrite {
    /// The bytes become the whole content, atomically.
    Whole,
    /// As `Whole`, and refused with [`Exists`](StoreError::Exists) when there is something.
    Exclusive,
    /// As `Whole`, and refused with [`Changed`](StoreError::Changed) unless there is a file whose tag is this one. Who decides that says the capability `if_match`;
    /// a driver that cannot even look answers with [`NotSupported`](StoreError::NotSupported).
    IfMatch(ContentId),
    /// The bytes go to this offset; a gap is filled with zeros; the content ends after them when `truncate`. Needs `write_at`.
    At {
        /// The first byte.
        offset: u64,
        /// Whether the content ends after the written bytes.
        truncate: bool,
    },
    /// The bytes go behind what is there by then: what others append meanwhile, also past this kernel where the backend can tell, stays. Needs `write_at`.
    Append,
}

/// What is at a path of a path-addressed store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// A file, a directory or a link.
    pub entry_type: EntryType,
    /// The content's length in bytes; 0 for directories.
    pub size: u64,
    /// An identity that the backend keeps over renames (an inode number); 0 when it has none.
    pub inode: u64,
    /// How many names the backend has for it; 1 where that is not said. Who changes a file by one of them changes it for all.
    pub names: u64,
    /// What changes whenever the content does.
    pub tag: ContentId,
    /// Whether `tag` is of this content alone. A server that tells of a state no more than the second in which it was made cannot say so of one that is as young as that: who keeps
    /// content by its tag keeps none of it.
    pub told_apart: bool,
    /// The permission bits.
    pub mode: u32,
    /// When the content last changed; 0 where nobody keeps that, and what is at the epoch or before it is [`Timestamp::EARLIEST`].
    pub modified: Timestamp,
    /// When it was made, as far as the backend knows.
    pub created: Timestamp,
    /// Where a link points, verbatim.
    pub link_target: Option<Arc<str>>,
}

impl ObjectInfo {
    /// An object of `entry_type` whose content is `tag`. The rest is filled in field by field.
    pub fn new(entry_type: EntryType, size: u64, tag: ContentId, modified: Timestamp) -> Self {
        Self {
            entry_type,
            size,
            inode: 0,
            names: 1,
            tag,
            told_apart: true,
            mode: entry_type.default_mode(),
            modified,
            created: modified,
            link_target: None,
        }
    }

    /// A number that is another one for each state of a file, and mostly a greater one for a later state. Most object stores tell times in whole seconds: what was
    /// written twice in one is told apart by its tag.
    pub(crate) fn version(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let nanos = self.modified.nanos();
        if nanos.is_multiple_of(SECOND) {
            nanos.saturating_add(hash_of(&self.tag.to_string()) % SECOND)
        } else {
            nanos
        }
    }
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPage {
    /// Names and what they are, in order.
    pub entries: Vec<(String, ObjectInfo)>,
    /// Whether there may be more after the last one.
    pub more: bool,
    /// How many names were left out, because no path can hold them, or what lies below them is hidden by a file of the same name, which is shown.
    pub unnameable: usize,
}

impl ListPage {
    /// A page.
    pub fn new(entries: Vec<(String, ObjectInfo)>, more: bool, unnameable: usize) -> Self {
        Self { entries, more, unnameable }
    }
}
