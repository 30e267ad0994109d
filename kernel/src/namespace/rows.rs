//! How entries are stored: the layout of rows and keys.
//!
//! A dentry maps (tree, parent, name) to an identity, an inode maps (tree, identity) to metadata. So a listing costs the children, and
//! renaming a directory moves one dentry whatever lies below. Every value begins with [`FORMAT`].

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use nexus_messages::syscall::{IoProfile, MountSpec};
use nexus_messages::{ContentId, EntryType, FileId, FileMetadata, Timestamp, VPath, ZoneId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hal::{Reader, RowKey, StoreError, Table, TreeId};

/// The version of the rows below. A row with another one is refused, not guessed at.
pub(crate) const FORMAT: u8 = 1;

/// What a dentry says of a child, so that a listing needs no inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DentryRow {
    pub(crate) id: FileId,
    pub(crate) entry_type: EntryType,
}

/// Everything about an entry but its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InodeRow {
    pub(crate) entry_type: EntryType,
    /// Of a file the length of its content, of a link that of its target; of a pipe how many bytes it holds; of a stream how many it keeps, 0 for no bound.
    pub(crate) size: u64,
    pub(crate) content_id: Option<ContentId>,
    pub(crate) placement: Placement,
    pub(crate) version: u64,
    pub(crate) generation: u64,
    pub(crate) owner: Arc<str>,
    pub(crate) mode: u32,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) changed: Timestamp,
    pub(crate) mime_type: Option<Arc<str>>,
    pub(crate) link_target: Option<Arc<str>>,
    pub(crate) implicit: bool,
}

/// Where content is kept.
// What tells the variants fills a word: beside a byte the rest would be moved in pieces that lie across words, which stalls each warm call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u64)]
pub(crate) enum Placement {
    /// There is none, or it is empty.
    None,
    /// In the metastore, in the same commit as the row.
    Inline,
    /// In the mount's store, as one blob.
    Store,
    /// In the mount's store, as a chunk list and what it tells.
    Chunked,
    /// Of a stream: its records are in the kernel's store of streams, by the identity of the entry. How many bytes it keeps is the row's size; 0 for no bound.
    Records {
        /// Whether they are on disk.
        durable: bool,
        /// For how many milliseconds they are kept; 0 for ever.
        age_max_ms: u64,
    },
    /// Of a pipe or a stream on whose other side a child process is: as of one in memory, or as [`Records`](Self::Records).
    Stdio {
        /// Whether the records are on disk.
        durable: bool,
        /// For how many milliseconds they are kept; 0 for ever.
        age_max_ms: u64,
    },
    /// Of a pipe or a stream: in memory that processes share, in a file by the identity of the entry. Otherwise as [`Records`](Self::Records).
    Shared {
        /// Of a stream, for how many milliseconds records are kept; 0 for ever.
        age_max_ms: u64,
    },
}

impl Placement {
    /// Of a stream for how many milliseconds its records are kept.
    pub(crate) fn age_max_ms(self) -> Option<u64> {
        match self {
            Self::Records { age_max_ms, .. }
            | Self::Stdio { age_max_ms, .. }
            | Self::Shared { age_max_ms } => Some(age_max_ms),
            _ => None,
        }
    }

    /// Where the records of a stream are that is placed so.
    pub(crate) fn kept(self) -> IoProfile {
        match self {
            Self::Stdio { durable: true, .. } => IoProfile::Durable,
            Self::Stdio { durable: false, .. } => IoProfile::Memory,
            other => other.io_profile(),
        }
    }

    /// The kind of a pipe or a stream that is placed so.
    pub(crate) fn io_profile(self) -> IoProfile {
        match self {
            Self::Stdio { .. } => IoProfile::Stdio,
            Self::Shared { .. } => IoProfile::Shared,
            Self::Records { durable: true, .. } => IoProfile::Durable,
            _ => IoProfile::Memory,
        }
    }
}

/// What the kernel remembers of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRow {
    pub(crate) zone: ZoneId,
    pub(crate) tree: TreeId,
    pub(crate) point: VPath,
    pub(crate) spec: MountSpec,
    /// Whether it is mounted, or was and may be again with what it held.
    pub(crate) attached: bool,
}

impl InodeRow {
    pub(crate) fn new(entry_type: EntryType, owner: Arc<str>, at: Timestamp) -> Self {
        Self {
            entry_type,
            size: 0,
            content_id: None,
            placement: Placement::None,
            version: 0,
            generation: 0,
            owner,
            mode: entry_type.default_mode(),
            created: at,
            modified: at,
            changed: at,
            mime_type: None,
            link_target: None,
            implicit: false,
        }
    }

    /// The row as a caller sees it, at `path`.
    pub(crate) fn metadata(&self, path: VPath, zone: ZoneId, id: FileId) -> FileMetadata {
        let owner = self.owner.clone();
        let mut metadata = FileMetadata::owned_by(owner, path, zone, id, self.entry_type, self.created);
        metadata.size = self.size;
        metadata.content_id.clone_from(&self.content_id);
        metadata.version = self.version;
        metadata.generation = self.generation;
        metadata.mode = self.mode;
        metadata.modified = self.modified;
        metadata.changed = self.changed;
        metadata.mime_type.clone_from(&self.mime_type);
        metadata.link_target.clone_from(&self.link_target);
        metadata.implicit = self.implicit;
        metadata.io_profile = matches!(self.entry_type, EntryType::Pipe | EntryType::Stream)
            .then(|| self.placement.io_profile());
        metadata
    }
}

/// How much memory a thread takes at once for rows, in bytes: those of a hundred changes. It goes when the last of them does.
const ROWS_ROOM: usize = 32 << 10;

/// With less room than this a new piece is taken, in bytes: most rows are shorter.
const ROW_ROOM: usize = 384;

thread_local! {
    /// Where this thread writes rows, one behind the other.
    static ROOM: RefCell<BytesMut> = RefCell::default();
}

/// The value of a row, in memory that it shares with others: for one that is let go about when they are.
pub(crate) fn encode_among_others<T: Serialize>(row: &T) -> Bytes {
    // Who writes a row while another one is written, or while the thread ends, takes memory for it alone.
    let shared = ROOM.try_with(|room| {
        let mut room = room.try_borrow_mut().ok()?;
        if room.capacity() < ROW_ROOM {
            *room = BytesMut::with_capacity(ROWS_ROOM);
        }
        Some(write(&mut room, row))
    });
    shared.ok().flatten().unwrap_or_else(|| write(&mut BytesMut::new(), row))
}

fn write<T: Serialize>(room: &mut BytesMut, row: &T) -> Bytes {
    // Of one that panicked something may be left.
    room.clear();
    room.put_u8(FORMAT);
    match postcard::serialize_with_flavor(row, Onto(room)) {
        Ok(()) => room.split().freeze(),
        // Rows are plain data of known types: no map with unknown length, nothing that refuses to be written.
        Err(error) => unreachable!("a row cannot be encoded: {error}"),
    }
}

struct Onto<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Onto<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The value of a row that is written by itself.
pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    Bytes::copy_from_slice(&encode_among_others(row))
}

/// The row in `value`, which was found at `key`.
pub(crate) fn decode<T: DeserializeOwned>(key: &RowKey, value: &[u8]) -> Result<T, StoreError> {
    let corrupt = |found: String| StoreError::Corrupt { what: format!("row {key:?}"), found };
    match value.split_first() {
        Some((&FORMAT, row)) => match postcard::take_from_bytes(row) {
            Ok((row, [])) => Ok(row),
            Ok((_, rest)) => Err(corrupt(format!("{} bytes behind it", rest.len()))),
            Err(error) => Err(corrupt(error.to_string())),
        },
        Some((other, _)) => Err(corrupt(format!("format {other}, not {FORMAT}"))),
        None => Err(corrupt("no bytes".into())),
    }
}

/// The length of a dentry's key before the name.
const DENTRY_PREFIX: usize = 4 + 8;

/// The key of the child `name` of `parent`.
pub(crate) fn dentry_key(tree: TreeId, parent: FileId, name: &str) -> RowKey {
    let mut key = children_key(tree, parent);
    key.bytes.extend_from_slice(name.as_bytes());
    key
}

/// The prefix of the keys of all children of `parent`.
pub(crate) fn children_key(tree: TreeId, parent: FileId) -> RowKey {
    key_within(Table::Dentries, tree, parent)
}

/// The part of a dentry's key that is the prefix of all children of its parent.
pub(crate) fn parent_of(dentry: &RowKey) -> &[u8] {
    &dentry.bytes[..dentry.bytes.len().min(DENTRY_PREFIX)]
}

/// The name in a dentry's key.
pub(crate) fn dentry_name(key: &RowKey) -> Result<&str, StoreError> {
    let name = key.bytes.get(DENTRY_PREFIX..).and_then(|name| std::str::from_utf8(name).ok());
    name.filter(|name| !name.is_empty()).ok_or_else(|| StoreError::Corrupt {
        what: format!("row {key:?}"),
        found: "a key without a name".into(),
    })
}

/// The key of an inode.
pub(crate) fn inode_key(tree: TreeId, id: FileId) -> RowKey {
    key_within(Table::Inodes, tree, id)
}

fn key_within(table: Table, tree: TreeId, id: FileId) -> RowKey {
    let mut key = RowKey::new(table, tree.0.to_be_bytes());
    key.bytes.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// The key of small content.
pub(crate) fn content_key(id: &ContentId) -> Option<RowKey> {
    id.blake3().map(|hash| RowKey::new(Table::Contents, hash.as_slice()))
}

/// The key of a mount, by the identity of its root.
pub(crate) fn mount_key(root: FileId) -> RowKey {
    RowKey::new(Table::Mounts, root.0.to_be_bytes())
}

/// The identity in a mount's key.
pub(crate) fn mount_root(key: &RowKey) -> Result<FileId, StoreError> {
    match <[u8; 8]>::try_from(key.bytes.as_slice()) {
        Ok(bytes) => Ok(FileId(u64::from_be_bytes(bytes))),
        Err(_) => Err(StoreError::Corrupt {
            what: format!("row {key:?}"),
            found: "a key that is no identity".into(),
        }),
    }
}

/// The key of how the mount of this identity finds its files: whether by their paths.
pub(crate) fn addressing_key(root: FileId) -> RowKey {
    RowKey::new(Table::Settings, format!("by-path/{root}"))
}

/// The key of the number of a zone's tree.
pub(crate) fn zone_key(zone: &ZoneId) -> RowKey {
    RowKey::new(Table::Settings, format!("zone/{zone}"))
}

/// How many rows of zones are read at once.
const ZONES_PAGE: usize = 1_024;

/// The zones that have a tree of their own, with its number.
pub(crate) fn zones(reader: &dyn Reader) -> Result<Vec<(ZoneId, TreeId)>, StoreError> {
    let prefix = RowKey::new(Table::Settings, *b"zone/");
    let mut zones = Vec::new();
    let mut after = None;
    loop {
        let page = reader.scan(&prefix, after.as_ref(), ZONES_PAGE)?;
        let last = page.len() < ZONES_PAGE;
        for (key, value) in &page {
            let name = String::from_utf8_lossy(&key.bytes[prefix.bytes.len()..]).into_owned();
            let zone = ZoneId::parse(&name).map_err(|why| StoreError::Corrupt {
                what: format!("row {key:?}"),
                found: why.to_string(),
            })?;
            zones.push((zone, decode(key, value)?));
        }
        if last {
            return Ok(zones);
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_siblings_are_ordered_by_name_and_lie_together() {
        let key = |parent, name| dentry_key(TreeId(1), FileId(parent), name);
        let mut keys = vec![key(2, "a"), key(1, "b"), key(1, "a"), key(256, "a"), key(1, "ab")];
        keys.sort();
        assert_eq!(keys, [key(1, "a"), key(1, "ab"), key(1, "b"), key(2, "a"), key(256, "a")]);
        assert!(key(1, "a").bytes.starts_with(&children_key(TreeId(1), FileId(1)).bytes));
        assert_eq!(dentry_name(&key(1, "ab")).unwrap(), "ab");
    }

    #[test]
    fn a_row_of_another_format_is_refused() {
        let key = inode_key(TreeId::ROOT, FileId(7));
        let row = InodeRow::new(EntryType::Reg, "me".into(), Timestamp(5));
        let value = encode(&row);
        assert_eq!(decode::<InodeRow>(&key, &value).unwrap(), row);
        let mut other = value.to_vec();
        other[0] = FORMAT + 1;
        for damaged in [&other[..], &value[..value.len() - 1], &[]] {
            let error = decode::<InodeRow>(&key, damaged).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        }
    }
}
