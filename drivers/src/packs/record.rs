//! What is written into segments: a header each, twice, and records.
//!
//! ```text
//! segment   magic 8 | number 8 | salt 16 | previous 8 | previous end 8 | copied 8 | checksum 16
//! record    magic 4 | kind 1 | 0 | key length 2 | content length 4 | proven 4 | content's checksum 16 | checksum 16 | key | content
//! ```
//!
//! All numbers are little-endian, and checksums the first half of a BLAKE3 hash. A record's checksum binds it to its segment, by the salt, and to
//! its place: what looks like a record within somebody's content is none.

use bytes::Bytes;

pub(super) const SEGMENT_HEADER_BYTES: usize = 72;
pub(super) const RECORD_HEADER_BYTES: usize = 48;

/// The longest key that a record can have.
pub(super) const KEY_BYTES_MAX: usize = 1_024;

const SEGMENT_MAGIC: [u8; 8] = *b"nxpack\x01\0";
const RECORD_MAGIC: [u8; 4] = *b"nxr\x01";

const BLOB: u8 = 1;
const DELETED: u8 = 2;
const FLUSHED: u8 = 3;

pub(super) type Salt = [u8; 16];
pub(super) type Checksum = [u8; 16];

/// What a segment says of itself and of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) salt: Salt,
    /// The segment that was written to before; 0 when there was none. What lies between the two is void.
    pub(super) previous: u64,
    /// Where that one ends: what it has after this was never flushed, or was copied.
    pub(super) previous_end: u64,
    /// How many records, its first, were copied from beyond that end. Until all of them are here, the previous segment does not end there.
    pub(super) copied: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&self.copied.to_le_bytes());
        out.extend_from_slice(&checksum(&[&out]));
        let mut header = [0; SEGMENT_HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<Self> {
        let (said, sum) = bytes.split_at(SEGMENT_HEADER_BYTES - 16);
        let mut rest = said.strip_prefix(&SEGMENT_MAGIC)?;
        let header = Self {
            number: u64::from_le_bytes(take(&mut rest)?),
            salt: take(&mut rest)?,
            previous: u64::from_le_bytes(take(&mut rest)?),
            previous_end: u64::from_le_bytes(take(&mut rest)?),
            copied: u64::from_le_bytes(take(&mut rest)?),
        };
        (checksum(&[said]) == *sum).then_some(header)
    }
}

/// What a record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Blob,
    Deleted,
    /// Nothing: it only says that what is before it was flushed.
    Flushed,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Blob => BLOB,
            Self::Deleted => DELETED,
            Self::Flushed => FLUSHED,
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        [Self::Blob, Self::Deleted, Self::Flushed].into_iter().find(|kind| kind.code() == code)
    }
}

/// A record without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) key: String,
    pub(super) len: u32,
    /// Up to where its segment had been flushed when it was written.
    pub(super) proven: u32,
    pub(super) content: Checksum,
}

impl Record {
    pub(super) fn new(kind: Kind, key: &str, data: &[Bytes], proven: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        data.iter().for_each(|part| {
            hasher.update(part);
        });
        let len = data.iter().map(Bytes::len).sum::<usize>();
        Self {
            kind,
            key: key.into(),
            // The store keeps larger ones elsewhere.
            len: u32::try_from(len).unwrap_or(u32::MAX),
            proven,
            content: half(&hasher.finalize()),
        }
    }

    /// How many bytes it takes, with its content.
    pub(super) fn size(&self) -> u64 {
        size(&self.key, self.len)
    }

    /// Writes it, without its content, as it is at `offset` of the segment with this salt.
    pub(super) fn encode(&self, out: &mut Vec<u8>, salt: &Salt, offset: u64) {
        let start = out.len();
        out.extend_from_slice(&RECORD_MAGIC);
        out.push(self.kind.code());
        out.push(0);
        out.extend_from_slice(&u16::try_from(self.key.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.proven.to_le_bytes());
        out.extend_from_slice(&self.content);
        let sum = checksum(&[salt, &offset.to_le_bytes(), &out[start..], self.key.as_bytes()]);
        out.extend_from_slice(&sum);
        out.extend_from_slice(self.key.as_bytes());
    }

    /// How many bytes of key follow a header; none when it is no header.
    pub(super) fn key_len(header: &[u8; RECORD_HEADER_BYTES]) -> Option<usize> {
        let mut rest = header.strip_prefix(&RECORD_MAGIC)?;
        let [code, 0] = take(&mut rest)? else { return None };
        Kind::of_code(code)?;
        let len = usize::from(u16::from_le_bytes(take(&mut rest)?));
        (1..=KEY_BYTES_MAX).contains(&len).then_some(len)
    }

    /// The record with this header and key at `offset`; none when it was not written there like that.
    pub(super) fn decode(
        header: &[u8; RECORD_HEADER_BYTES],
        key: &[u8],
        salt: &Salt,
        offset: u64,
    ) -> Option<Self> {
        let (said, sum) = header.split_at(RECORD_HEADER_BYTES - 16);
        if checksum(&[salt, &offset.to_le_bytes(), said, key]) != *sum {
            return None;
        }
        let kind = Kind::of_code(said[4])?;
        let mut rest = said.get(8..)?;
        Some(Self {
            kind,
            key: String::from_utf8(key.into()).ok()?,
            len: u32::from_le_bytes(take(&mut rest)?),
            proven: u32::from_le_bytes(take(&mut rest)?),
            content: take(&mut rest)?,
        })
    }
}

/// How many bytes a record takes.
pub(super) fn size(key: &str, len: u32) -> u64 {
    RECORD_HEADER_BYTES as u64 + key.len() as u64 + u64::from(len)
}

pub(super) fn checksum(parts: &[&[u8]]) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    half(&hasher.finalize())
}

fn half(hash: &blake3::Hash) -> Checksum {
    let mut half = Checksum::default();
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

/// Takes as many bytes as are asked for off the front.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_was_written_in_its_place_and_nothing_else() {
        let record =
            Record::new(Kind::Blob, "cas/ab", &[Bytes::from_static(b"on"), Bytes::from_static(b"e")], 77);
        assert_eq!((record.len, record.content), (3, checksum(&[b"one"])));
        let (salt, mut bytes) = ([3; 16], vec![9, 9]);
        record.encode(&mut bytes, &salt, 4_096);
        let header: [u8; RECORD_HEADER_BYTES] = bytes[2..2 + RECORD_HEADER_BYTES].try_into().unwrap();
        let key = &bytes[2 + RECORD_HEADER_BYTES..];
        assert_eq!(Record::key_len(&header), Some(6));
        assert_eq!(Record::decode(&header, key, &salt, 4_096), Some(record.clone()));
        assert_eq!(Record::decode(&header, key, &salt, 8_192), None, "another place");
        assert_eq!(Record::decode(&header, key, &[4; 16], 4_096), None, "another segment");
        for byte in 0..RECORD_HEADER_BYTES {
            let mut header = header;
            header[byte] ^= 1;
            let decoded = Record::key_len(&header).and_then(|_| Record::decode(&header, key, &salt, 4_096));
            assert_eq!(decoded, None, "byte {byte}");
        }
        assert_eq!(record.size(), 48 + 6 + 3);
    }

    #[test]
    fn a_segment_header_with_a_changed_byte_is_none() {
        let header = SegmentHeader { number: 7, salt: [1; 16], previous: 5, previous_end: 99, copied: 3 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for byte in 0..SEGMENT_HEADER_BYTES {
            let mut bytes = bytes;
            bytes[byte] ^= 0x80;
            assert_eq!(SegmentHeader::decode(&bytes), None, "byte {byte}");
        }
    }
}
