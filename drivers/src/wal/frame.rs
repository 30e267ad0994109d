//! A frame: one batch, as it stands in a segment of the log. Pure.
//!
//! Each frame is checked as a whole, and holds the checksum of the one before it: so what a crash left behind of a batch that nobody was told of
//! can never follow a frame that was written later in its place. Decoding never panics: what cannot be read is no frame.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{LogRecord, RowKey, Told, TreeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3;

/// What every frame begins with.
const MAGIC: [u8; 4] = *b"NXWL";

/// The version of the format that follows. 1 had nothing behind the entries.
const FORMAT: u8 = 2;

/// The oldest version that can be read.
const FORMAT_MIN: u8 = 1;

/// Frames begin at multiples of this, so that what follows a damaged one can be looked for.
pub(super) const ALIGNMENT: u64 = 8;

/// The length of a frame before its payload.
pub(super) const HEADER_BYTES: usize = 56;

/// How much of the header its own checksum covers: all before it.
const HEAD_BYTES: usize = 48;

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

/// What a batch did. Behind it stands what is told of each entry, which the records are written without.
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
    pub(super) rows: Cow<'a, [(RowKey, Option<Bytes>)]>,
}

/// What one entry did, until its frame is written.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) tree: TreeId,
    pub(super) repeatable: bool,
    pub(super) record: Arc<LogRecord>,
    pub(super) rows: Vec<(RowKey, Option<Bytes>)>,
}

impl Done {
    /// As it stands in the frame.
    pub(super) fn as_frame(&self) -> FrameEntry<'_> {
        FrameEntry {
            tree: self.tree,
            repeatable: self.repeatable,
            record: Cow::Borrowed(&self.record),
            rows: Cow::Borrowed(&self.rows),
        }
    }

    /// About how many bytes it takes in a frame.
    pub(super) fn bytes(&self) -> u64 {
        let row = |(key, value): &(RowKey, Option<Bytes>)| {
            (key.bytes.len() + value.as_ref().map_or(0, Bytes::len)) as u64
        };
        self.record.bytes() + self.rows.iter().map(row).sum::<u64>()
    }
}

/// What the checksums of a segment begin with. A frame is bound to its segment, because a file that is used again holds frames of the segment that it
/// was, and to its store, so that nobody can put into a file's content what looks like a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u64);

impl Seed {
    /// Of segment `number` in the store of this salt.
    pub(super) fn of(salt: u64, number: u64) -> Self {
        // An odd constant, so that no two segments of a store have the same.
        Self(salt.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn checksum(self, parts: &[&[u8]]) -> u64 {
        let mut hash = Xxh3::with_seed(self.0);
        parts.iter().for_each(|part| hash.update(part));
        hash.digest()
    }
}

/// Writes the frame behind what is in `out`, and gives its header. None when it would be too large; what is in `out` then is nothing.
pub(super) fn encode(
    out: &mut Vec<u8>,
    seed: Seed,
    seq: u64,
    durable: u64,
    previous: u64,
    payload: &Payload<'_>,
) -> Option<Header> {
    let begin = out.len();
    out.resize(begin + HEADER_BYTES, 0);
    // It grows in place. What the kernel puts into a batch can always be written.
    *out = postcard::to_extend(payload, std::mem::take(out)).ok()?;
    let told: SmallVec<[_; 1]> = payload.entries.iter().map(|entry| entry.record.told.as_deref()).collect();
    *out = postcard::to_extend(&told, std::mem::take(out)).ok()?;
    let length = u32::try_from(out.len() - begin - HEADER_BYTES).ok();
    let length = length.filter(|length| *length <= PAYLOAD_MAX)?;
    out.resize(out.len().next_multiple_of(8), 0);
    let written = &mut out[begin..];
    written[..4].copy_from_slice(&MAGIC);
    written[4] = FORMAT;
    written[8..12].copy_from_slice(&length.to_be_bytes());
    written[16..24].copy_from_slice(&seq.to_be_bytes());
    written[24..32].copy_from_slice(&durable.to_be_bytes());
    written[32..40].copy_from_slice(&previous.to_be_bytes());
    let end = HEADER_BYTES + length as usize;
    let checksum = seed.checksum(&[&written[..40], &written[HEADER_BYTES..end]]);
    written[40..48].copy_from_slice(&checksum.to_be_bytes());
    let head = seed.checksum(&[&written[..HEAD_BYTES]]);
    written[HEAD_BYTES..HEADER_BYTES].copy_from_slice(&head.to_be_bytes());
    Some(Header { seq, durable, previous, checksum, payload: length })
}

/// Whether a frame may begin with `bytes`; only a look, for what is worth a second one.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// What stands at the beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A header. Whether its payload is whole was not looked at.
    Known(Header),
    /// One of a format that this version does not know.
    Newer(u8),
}

/// The header in `bytes`, unless they are none of a segment with this seed.
pub(super) fn head(seed: Seed, bytes: &[u8; HEADER_BYTES]) -> Option<Head> {
    let number = |at: usize| bytes[at..].first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight));
    if !begins(bytes) || seed.checksum(&[&bytes[..HEAD_BYTES]]) != number(HEAD_BYTES) {
        return None;
    }
    if !(FORMAT_MIN..=FORMAT).contains(&bytes[4]) {
        return Some(Head::Newer(bytes[4]));
    }
    let payload = bytes[8..].first_chunk().map_or(0, |four| u32::from_be_bytes(*four));
    let header =
        Header { seq: number(16), durable: number(24), previous: number(32), checksum: number(40), payload };
    (payload <= PAYLOAD_MAX).then_some(Head::Known(header))
}

/// Whether header and payload are what was written.
pub(super) fn is_whole(seed: Seed, head: &[u8; HEADER_BYTES], header: &Header, payload: &[u8]) -> bool {
    seed.checksum(&[&head[..40], payload]) == header.checksum
}

/// The payload in `bytes`, whose checksum is right.
pub(super) fn decode(bytes: &[u8]) -> Result<Payload<'static>, String> {
    let (mut payload, told): (Payload<'static>, _) = take(bytes)?;
    if told.is_empty() {
        // Of the format that had no more.
        return Ok(payload);
    }
    let (told, rest): (Vec<Option<Arc<Told>>>, _) = take(told)?;
    if !rest.is_empty() || told.len() != payload.entries.len() {
        return Err(format!("{} bytes behind what is told of {} entries", rest.len(), told.len()));
    }
    for (entry, told) in payload.entries.iter_mut().zip(told) {
        entry.record.to_mut().told = told;
    }
    Ok(payload)
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
    postcard::take_from_bytes(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use nexus_kernel::hal::{Table, ToldEvent};
    use nexus_messages::{ContentId, EntryType, EventKind, Lsn, Op, OpId, Timestamp, VPath, ZoneId};
    use proptest::prelude::*;

    use super::*;

    fn told() -> Told {
        let event = ToldEvent {
            kind: EventKind::FileWritten,
            entry_type: EntryType::Reg,
            size: 5,
            content_id: Some(ContentId::Blake3([7; 32])),
            version: 2,
            generation: 3,
            is_new: true,
            owner: Arc::from("coder-7"),
        };
        Told { zone: ZoneId::root(), admin: false, events: smallvec::smallvec![Some(event)] }
    }

    fn payload(rows: &[(&'static str, Option<&'static [u8]>)]) -> Payload<'static> {
        let record = LogRecord {
            lsn: Lsn(4),
            op_id: OpId(1 << 100),
            caller: Arc::from("coder-7"),
            op: Op::Write,
            path: VPath::parse("/a/b").unwrap(),
            other: None,
            items: Vec::new(),
            told: Some(Arc::new(told())),
            at: Timestamp(9),
        };
        let key = |name: &str| RowKey::new(Table::Inodes, name.as_bytes());
        let rows = rows.iter().map(|(name, value)| (key(name), value.map(Bytes::from_static))).collect();
        let entry = FrameEntry { tree: TreeId::ROOT, repeatable: true, record: Cow::Owned(record), rows };
        Payload { next_file_id: 77, entries: vec![entry] }
    }

    /// The frame in `bytes`, if it is one of segment 3.
    fn read(bytes: &[u8]) -> Option<(Header, Payload<'static>)> {
        let first = bytes.first_chunk::<HEADER_BYTES>()?;
        let Head::Known(header) = head(Seed::of(9, 3), first)? else { return None };
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.payload_bytes())?;
        is_whole(Seed::of(9, 3), first, &header, payload).then_some(())?;
        Some((header, decode(payload).ok()?))
    }

    fn frame() -> (Vec<u8>, Header) {
        let before = [1; 8];
        let mut out = before.to_vec();
        let payload = payload(&[("x", Some(b"value")), ("y", None)]);
        let header = encode(&mut out, Seed::of(9, 3), 12, 11, 5, &payload).unwrap();
        (out.strip_prefix(&before).unwrap().to_vec(), header)
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let (bytes, header) = frame();
        assert_eq!(bytes.len() as u64, header.frame_bytes());
        assert_eq!(read(&bytes), Some((header, payload(&[("x", Some(b"value")), ("y", None)]))));
        assert_eq!((header.seq, header.durable, header.previous), (12, 11, 5));
    }

    #[test]
    fn a_payload_with_bytes_behind_it_is_none() {
        let old = postcard::to_allocvec(&payload(&[("x", Some(b"value"))])).unwrap();
        for behind in [&[0][..], &[1, 0, 0], &[2, 0, 0], &[1]] {
            assert!(decode(&[&old, behind].concat()).is_err(), "{behind:?}");
        }
    }

    #[test]
    fn what_was_written_before_anything_was_told_can_be_read() {
        let mut expected = payload(&[("x", Some(b"value"))]);
        let old = postcard::to_allocvec(&expected).unwrap();
        expected.entries[0].record.to_mut().told = None;
        assert_eq!(decode(&old), Ok(expected));
        let (mut bytes, header) = frame();
        bytes[4] = FORMAT_MIN;
        let checksum = Seed::of(9, 3)
            .checksum(&[&bytes[..40], &bytes[HEADER_BYTES..HEADER_BYTES + header.payload_bytes()]]);
        bytes[40..48].copy_from_slice(&checksum.to_be_bytes());
        let head_checksum = Seed::of(9, 3).checksum(&[&bytes[..HEAD_BYTES]]);
        bytes[HEAD_BYTES..HEADER_BYTES].copy_from_slice(&head_checksum.to_be_bytes());
        assert!(matches!(head(Seed::of(9, 3), bytes.first_chunk().unwrap()), Some(Head::Known(_))));
    }

    #[test]
    fn a_frame_of_another_segment_or_store_is_none() {
        for other in [Seed::of(9, 2), Seed::of(8, 3)] {
            let mut out = Vec::new();
            encode(&mut out, other, 12, 11, 5, &payload(&[])).unwrap();
            assert_eq!(read(&out), None);
        }
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
