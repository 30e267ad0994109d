//! A frame: what is written at once, as it stands in a segment of a log. Pure.
//!
//! Each frame is checked as a whole, and holds the checksum of the one before it: so what a crash left behind of one that nobody was told of
//! can never follow a frame that was written later in its place. Decoding never panics: what cannot be read is no frame.

use xxhash_rust::xxh3::Xxh3;

/// What every frame begins with.
const MAGIC: [u8; 4] = *b"NXWL";

/// The version of the format that follows. Of batches of the metastore, 1 had nothing behind the entries.
const FORMAT: u8 = 2;

/// The oldest version that can be read.
const FORMAT_MIN: u8 = 1;

/// Frames begin at multiples of this, so that what follows a damaged one can be looked for.
pub(crate) const ALIGNMENT: u64 = 8;

/// The length of a frame before its payload.
pub(crate) const HEADER_BYTES: usize = 56;

/// How much of the header its own checksum covers: all before it.
const HEAD_BYTES: usize = 48;

/// The largest payload, in bytes.
pub(crate) const PAYLOAD_MAX: u32 = 1 << 30;

/// The checksum that the first frame of all follows.
pub(crate) const CHAIN_START: u64 = 0;

/// What a frame is, beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its number: one more than that of the frame before it.
    pub(crate) seq: u64,
    /// The frame up to which all was durable when this one was written.
    pub(crate) durable: u64,
    /// The checksum of the frame before it.
    pub(crate) previous: u64,
    /// Its own checksum.
    pub(crate) checksum: u64,
    payload: u32,
}

impl Header {
    /// The length of the whole frame, with what fills it up.
    pub(crate) fn frame_bytes(&self) -> u64 {
        padded(HEADER_BYTES as u64 + u64::from(self.payload))
    }

    /// The length of the payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload as usize
    }
}

/// The length of what is `bytes` long when it is filled up.
fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

/// What the checksums of a segment begin with. A frame is bound to its segment, because a file that is used again holds frames of the segment that it
/// was, and to its store, so that nobody can put into a file's content what looks like a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    /// Of segment `number` in the store of this salt.
    pub(crate) fn of(salt: u64, number: u64) -> Self {
        // An odd constant, so that no two segments of a store have the same.
        Self(salt.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// The checksum of the parts, one behind the other.
    pub(crate) fn checksum(self, parts: &[&[u8]]) -> u64 {
        let mut hash = Xxh3::with_seed(self.0);
        parts.iter().for_each(|part| hash.update(part));
        hash.digest()
    }
}

/// Writes the frame behind what is in `out`, with what `write` puts behind that as its payload, and gives its header. None when `write` says that it
/// cannot, or when it would be too large; what is in `out` then is nothing.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    seed: Seed,
    seq: u64,
    durable: u64,
    previous: u64,
    write: impl FnOnce(&mut Vec<u8>) -> bool,
) -> Option<Header> {
    let begin = out.len();
    out.resize(begin + HEADER_BYTES, 0);
    if !write(out) {
        return None;
    }
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
pub(crate) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// What stands at the beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// A header. Whether its payload is whole was not looked at.
    Known(Header),
    /// One of a format that this version does not know.
    Newer(u8),
}

/// The header in `bytes`, unless they are none of a segment with this seed.
pub(crate) fn head(seed: Seed, bytes: &[u8; HEADER_BYTES]) -> Option<Head> {
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
pub(crate) fn is_whole(seed: Seed, head: &[u8; HEADER_BYTES], header: &Header, payload: &[u8]) -> bool {
    seed.checksum(&[&head[..40], payload]) == header.checksum
}

/// The frame that `bytes` begin with, and its payload; none when there is no whole one.
#[cfg(any(test, feature = "local"))]
pub(crate) fn read(seed: Seed, bytes: &[u8]) -> Option<(Header, &[u8])> {
    let first = bytes.first_chunk::<HEADER_BYTES>()?;
    let Head::Known(header) = head(seed, first)? else { return None };
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.payload_bytes())?;
    is_whole(seed, first, &header, payload).then_some((header, payload))
}
