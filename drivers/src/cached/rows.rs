//! The rows of the index: of each store, its files and the pieces of their content.

use bytes::Bytes;
use nexus_kernel::hal::{ObjectInfo, RowKey, StoreError, Table};
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version with which each row begins.
const VERSION: u8 = 1;

/// Which store it is: a hash of what the options say of where it is.
pub(super) type PlaceId = [u8; 16];

/// A file as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRow {
    pub(super) size: u64,
    pub(super) inode: u64,
    /// The tag that callers see.
    pub(super) tag: ContentId,
    /// The tag that the store has given it; none as long as nothing of it has reached the store.
    pub(super) remote: Option<ContentId>,
    pub(super) mode: u32,
    pub(super) modified: Timestamp,
    pub(super) created: Timestamp,
    /// When the store was last asked, in nanoseconds of the wall's clock; of what is pending since when it is.
    pub(super) seen: u64,
    /// What the store has yet to be told.
    pub(super) pending: Option<Attributes>,
}

impl FileRow {
    pub(super) fn info(&self) -> ObjectInfo {
        let mut info = ObjectInfo::new(EntryType::Reg, self.size, self.tag.clone(), self.modified);
        (info.mode, info.created, info.inode) = (self.mode, self.created, self.inode);
        info
    }

    pub(super) fn of(
        info: &ObjectInfo,
        remote: Option<ContentId>,
        seen: u64,
        pending: Option<Attributes>,
    ) -> Self {
        Self {
            size: info.size,
            inode: info.inode,
            tag: info.tag.clone(),
            remote,
            mode: info.mode,
            modified: info.modified,
            created: info.created,
            seen,
            pending,
        }
    }
}

/// The tag of a state that is written here at `at`, in nanoseconds of the wall's clock.
pub(super) fn tag_at(at: u64, random: u64) -> ContentId {
    ContentId::Tag(format!("{}{random:016x}", tags_at(at)).into())
}

/// Whether [`tag_at`] gave that tag for this time.
pub(super) fn was_tagged_at(tag: &ContentId, at: u64) -> bool {
    matches!(tag, ContentId::Tag(tag) if tag.starts_with(&tags_at(at)))
}

fn tags_at(at: u64) -> String {
    format!("local-{at:016x}")
}

/// A piece of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PieceRow {
    /// The bytes themselves.
    Inline(Bytes),
    /// A blob with this hash.
    Blob { hash: [u8; 32], length: u32 },
}

pub(super) fn encode<T: Serialize>(row: &T) -> Result<Bytes, StoreError> {
    let encoded = postcard::to_extend(row, vec![VERSION]);
    encoded.map(Bytes::from).map_err(|error| StoreError::Backend {
        what: "writing a row of the cache".into(),
        cause: error.to_string(),
    })
}

pub(super) fn decode<T: DeserializeOwned>(key: &RowKey, row: &[u8]) -> Result<T, StoreError> {
    let corrupt =
        |found: String| StoreError::Corrupt { what: format!("the row {key:?} of the cache"), found };
    match row.split_first() {
        Some((&VERSION, row)) => postcard::from_bytes(row).map_err(|error| corrupt(error.to_string())),
        Some((version, _)) => Err(corrupt(format!("version {version}"))),
        None => Err(corrupt("nothing".into())),
    }
}

/// The key of the file at `path`.
pub(super) fn file_key(place: &PlaceId, path: &str) -> RowKey {
    RowKey::new(Table::Inodes, [&place[..], path.as_bytes()].concat())
}

/// The key of what says that a call to the store may be under way at `path`.
pub(super) fn call_key(place: &PlaceId, path: &str) -> RowKey {
    RowKey::new(Table::Dentries, [&place[..], path.as_bytes()].concat())
}

/// The place and the path of the key of a file, or of a call.
pub(super) fn of_path_key(key: &RowKey) -> Option<(PlaceId, &str)> {
    let (place, path) = key.bytes.split_first_chunk::<16>()?;
    Some((*place, std::str::from_utf8(path).ok()?))
}

/// The key of a piece of the file at `path` whose tag is `tag`. A file's states have different keys: what is done about one does not meet another.
pub(super) fn piece_key(place: &PlaceId, path: &str, tag: &ContentId, index: u32) -> RowKey {
    RowKey::new(Table::Contents, [&place[..], &state_of(path, tag), &index.to_be_bytes()].concat())
}

/// The place, the state and the index of a piece's key.
pub(super) fn of_piece_key(key: &RowKey) -> Option<(PlaceId, [u8; 16], u32)> {
    let (place, rest) = key.bytes.split_first_chunk::<16>()?;
    let (state, index) = rest.split_first_chunk::<16>()?;
    Some((*place, *state, u32::from_be_bytes(index.try_into().ok()?)))
}

/// What the state of a file is known by among pieces.
pub(super) fn state_of(path: &str, tag: &ContentId) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_bytes()).update(&[0]).update(tag.to_string().as_bytes());
    short(&hasher.finalize())
}

/// The first half of a hash.
pub(super) fn short(hash: &blake3::Hash) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_keys_come_back_as_they_were() {
        let place = [7; 16];
        let tag = ContentId::Tag("t".into());
        let info = ObjectInfo::new(EntryType::Reg, 3, tag.clone(), Timestamp(5));
        let row = FileRow::of(&info, None, 9, Some(Attributes::none().mode(0o600)));
        let key = file_key(&place, "a/b");
        assert_eq!(of_path_key(&key), Some((place, "a/b")));
        let encoded = encode(&row).unwrap();
        assert_eq!(decode::<FileRow>(&key, &encoded).unwrap(), row);
        assert_eq!(row.info(), info);
        let piece = piece_key(&place, "a/b", &tag, 3);
        assert_eq!(of_piece_key(&piece), Some((place, state_of("a/b", &tag), 3)));
        assert_ne!(state_of("a", &ContentId::Tag("bc".into())), state_of("ab", &ContentId::Tag("c".into())));
    }

    #[test]
    fn a_row_of_another_version_or_a_broken_one_is_told() {
        let key = file_key(&[0; 16], "x");
        for broken in [&[][..], &[9, 0], &[VERSION, 0xff, 0xff]] {
            assert!(matches!(decode::<FileRow>(&key, broken), Err(StoreError::Corrupt { .. })), "{broken:?}");
        }
    }
}
