//! A frame: one batch, as it stands in a segment of the log. Pure.
//!
//! Each frame is checked as a whole, and holds the checksum of the one before it: so what a crash left behind of a batch that nobody was told of
//! can never follow a frame that was written later in its place. Decoding never panics: what cannot be read is no frame.

use std::borrow::Cow;

use bytes::Bytes;
use nexus_kernel::hal::{LogRecord, RowKey, TreeId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// What every frame begins with.
const MAGIC: [u8; 4] = *b"NXWL";

/// The version of the format that follows.
const FORMAT: u8 = 1;

/// Frames begin at multiples of this, so that what follows a damaged one can be looked for.
pub(super) const ALIGNMENT: u64 = 8;

/// The length of a frame before its payload.
pub(super) const HEADER_BYTES: usize = 48;

/// The largest payload, in bytes.
pub(super) const PAYLOAD_MAX: u32 = 1 << 30;

/// The checksum that the first frame of all follows.
pub(super) const CHAIN_START: u64 = 0;

/// What a frame is, beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Its number: one more than that of the frame before it.
    pub(super) seq: u64,
    /// The frame up to which all was durable when this one was written.
    pub(super) durable: u64,
    /// The checksum of the frame before it.
    pub(super) previous: u64,
    /// Its own checksum.
    pub(super) checksum: u64,
    payload: u32,
}

impl Header {
    /// The length of the whole frame, with what fills it up.
    pub(super) fn frame_bytes(&self) -> u64 {
        padded(HEADER_BYTES as u64 + u64::from(self.payload))
    }

    /// The length of the payload.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload as usize
    }
}

/// The length of what is `bytes` long when it is filled up.
fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

/// What a batch did.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload<'a> {
    /// A number above every identity that was used.
    pub(super) next_file_id: u64,
    pub(super) entries: Vec<FrameEntry<'a>>,
}

/// What one entry did: the rows as it left them. Preconditions are checked and conditions decided, so replaying needs neither.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FrameEntry<'a> {
    pub(super) tree: TreeId,
    pub(super) repeatable: bool,
    pub(super) record: Cow<'a, LogRecord>,
    /// Rows in the order of the changes; none for one that was removed.
    pub(super) rows: Vec<(Cow<'a, RowKey>, Option<Bytes>)>,
}

/// Writes the frame to `out`, whose content is replaced, and gives its header. None when it would be too large.
pub(super) fn encode(
    out: &mut Vec<u8>,
    segment: u64,
    seq: u64,
    durable: u64,
    previous: u64,
    payload: &Payload<'_>,
) -> Option<Header> {
    out.clear();
    out.resize(HEADER_BYTES, 0);
    // It grows in place. What the kernel puts into a batch can always be written.
    let mut written = postcard::to_extend(payload, std::mem::take(out)).ok()?;
    let length = u32::try_from(written.len() - HEADER_BYTES).ok().filter(|length| *length <= PAYLOAD_MAX)?;
    written.resize(written.len().next_multiple_of(8), 0);
    written[..4].copy_from_slice(&MAGIC);
    written[4] = FORMAT;
    written[8..12].copy_from_slice(&length.to_be_bytes());
    written[16..24].copy_from_slice(&seq.to_be_bytes());
    written[24..32].copy_from_slice(&durable.to_be_bytes());
    written[32..40].copy_from_slice(&previous.to_be_bytes());
    let end = HEADER_BYTES + length as usize;
    let checksum = checksum_of(segment, &written[..40], &written[HEADER_BYTES..end]);
    written[40..48].copy_from_slice(&checksum.to_be_bytes());
    *out = written;
    Some(Header { seq, durable, previous, checksum, payload: length })
}

/// Whether a frame may begin with `bytes`.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The header in `bytes`, unless they are none. Its checksum was not looked at.
pub(super) fn header(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
    let number = |at: usize| bytes[at..].first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight));
    let payload = bytes[8..].first_chunk().map_or(0, |four| u32::from_be_bytes(*four));
    let known = bytes[..4] == MAGIC && bytes[4] == FORMAT && payload <= PAYLOAD_MAX;
    let filled = bytes[5..8].iter().chain(&bytes[12..16]).all(|byte| *byte == 0);
    (known && filled).then(|| Header {
        seq: number(16),
        durable: number(24),
        previous: number(32),
        checksum: number(40),
        payload,
    })
}

/// Whether `bytes` look like the beginning of a frame of a format that this version does not know.
pub(super) fn newer_format(bytes: &[u8; HEADER_BYTES]) -> Option<u8> {
    (bytes[..4] == MAGIC && bytes[4] > FORMAT).then_some(bytes[4])
}

/// Whether header and payload are what was written to `segment`.
pub(super) fn is_whole(segment: u64, head: &[u8; HEADER_BYTES], header: &Header, payload: &[u8]) -> bool {
    checksum_of(segment, &head[..40], payload) == header.checksum
}

/// The payload in `bytes`, whose checksum is right.
pub(super) fn decode(bytes: &[u8]) -> Result<Payload<'static>, String> {
    postcard::from_bytes(bytes).map_err(|error| error.to_string())
}

/// A frame is bound to its segment: a file that is used again holds frames of the segment that it was.
fn checksum_of(segment: u64, head: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(segment);
    hash.update(head);
    hash.update(payload);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nexus_kernel::hal::Table;
    use nexus_messages::{Lsn, Op, OpId, Timestamp, VPath};
    use proptest::prelude::*;

    use super::*;

    fn payload(rows: &[(&'static str, Option<&'static [u8]>)]) -> Payload<'static> {
        let record = LogRecord {
            lsn: Lsn(4),
            op_id: OpId(1 << 100),
            caller: Arc::from("coder-7"),
            op: Op::Write,
            path: VPath::parse("/a/b").unwrap(),
            other: None,
            items: Vec::new(),
            at: Timestamp(9),
        };
        let key = |name: &str| Cow::Owned(RowKey::new(Table::Inodes, name.as_bytes()));
        let rows = rows.iter().map(|(name, value)| (key(name), value.map(Bytes::from_static))).collect();
        let entry = FrameEntry { tree: TreeId::ROOT, repeatable: true, record: Cow::Owned(record), rows };
        Payload { next_file_id: 77, entries: vec![entry] }
    }

    /// The frame in `bytes`, if it is one of segment 3.
    fn read(bytes: &[u8]) -> Option<(Header, Payload<'static>)> {
        let head = bytes.first_chunk::<HEADER_BYTES>()?;
        let header = header(head)?;
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.payload_bytes())?;
        is_whole(3, head, &header, payload).then_some(())?;
        Some((header, decode(payload).ok()?))
    }

    fn frame() -> (Vec<u8>, Header) {
        let mut out = vec![1, 2, 3];
        let payload = payload(&[("x", Some(b"value")), ("y", None)]);
        let header = encode(&mut out, 3, 12, 11, 5, &payload).unwrap();
        (out, header)
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let (bytes, header) = frame();
        assert_eq!(bytes.len() as u64, header.frame_bytes());
        assert_eq!(read(&bytes), Some((header, payload(&[("x", Some(b"value")), ("y", None)]))));
        assert_eq!((header.seq, header.durable, header.previous), (12, 11, 5));
    }

    #[test]
    fn a_frame_of_another_segment_is_none() {
        let mut out = Vec::new();
        encode(&mut out, 2, 12, 11, 5, &payload(&[])).unwrap();
        assert_eq!(read(&out), None);
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_seen_and_noise_is_no_frame(at in 0usize..4_096, bit in 0u32..8, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut bytes, header) = frame();
            let end = HEADER_BYTES + header.payload_bytes();
            let at = at % end;
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(read(&bytes), None);
            prop_assert_eq!(read(&noise), None);
            let _ = decode(&noise);
        }
    }
}
