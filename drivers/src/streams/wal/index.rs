//! Where the records of a segment are that is no longer appended to: a file beside it, from which a part is read for each stream.
//!
//! ```text
//! magic 8 | segment 8 | last frame 8 | its checksum 8 | end 8 | runs 8 | table: runs | checksum 8 | appends of each run, one run after the other
//! run      stream 8 | first 8 | end 8 | bytes 8 | where its appends are 8 | how many 8 | their checksum 8
//! append   first 8 | time 8 | place 8 | records 4 | cost 4 | frame's length 8
//! ```
//!
//! All numbers are little-endian. It is made of the segment, so it is never flushed: one that a crash tore, or that is damaged, is made again. What is read through it is
//! checked against the frame itself.

use std::collections::BTreeMap;

use nexus_messages::{FileId, Timestamp};

use crate::frames::frame::Seed;
use crate::frames::segment::Last;
use crate::streams::rules::Kept;

const MAGIC: [u8; 8] = *b"NXSTIX\x01\0";

const HEAD_BYTES: usize = 48;
const RUN_BYTES: usize = 56;
const EXTENT_BYTES: usize = 40;

/// How many runs a segment has at most: far more than it can hold. What says otherwise is damaged.
const RUNS_MAX: u64 = 1 << 24;

/// An append: which records it has, and where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: u64,
    pub(super) count: u32,
    /// What the records cost.
    pub(super) bytes: u32,
    pub(super) at: Timestamp,
    /// Where its frame begins.
    pub(super) place: u64,
    /// How long that is.
    pub(super) length: u64,
}

impl Extent {
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(super) fn kept(&self) -> Kept {
        Kept { end: self.end(), bytes: self.bytes.into(), at: self.at }
    }
}

/// Records of a stream that stand side by side in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredRun {
    pub(super) stream: FileId,
    pub(super) first: u64,
    pub(super) end: u64,
    /// How long its frames are together.
    pub(super) bytes: u64,
    pub(super) part: Part,
}

/// Where the appends of a run are in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) count: u64,
    pub(super) sum: u64,
}

impl Part {
    /// How many bytes it takes; none when that cannot be.
    pub(super) fn bytes(&self) -> Option<usize> {
        usize::try_from(self.count).ok()?.checked_mul(EXTENT_BYTES)
    }

    /// The appends in `bytes`; none when they are not those that were written.
    pub(super) fn decode(&self, seed: Seed, bytes: &[u8]) -> Option<Vec<Extent>> {
        if Some(bytes.len()) != self.bytes() || seed.checksum(&[bytes]) != self.sum {
            return None;
        }
        Some(bytes.chunks_exact(EXTENT_BYTES).map(decode_extent).collect())
    }
}

/// What an index says of its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) segment: u64,
    pub(super) last: Last,
    /// Where the segment's last frame ends.
    pub(super) end: u64,
    pub(super) runs: Vec<StoredRun>,
}

/// The name of a segment's index.
pub(super) fn name_of(segment: u64) -> String {
    format!("{segment:020}.idx")
}

/// The segment whose index has this name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".idx").filter(|digits| digits.len() == 20)?.parse().ok()
}

/// Appends by stream, as runs: those of a stream are in the order of their offsets, and each begins at or behind the end of the one before it.
pub(super) fn runs_of(
    extents: &BTreeMap<FileId, Vec<Extent>>,
) -> impl Iterator<Item = (FileId, &[Extent])> + '_ {
    extents.iter().flat_map(|(stream, extents)| {
        extents.chunk_by(|one, next| one.end() == next.first).map(|run| (*stream, run))
    })
}

/// The index of a segment with these runs, as bytes and as it is read again.
pub(super) fn encode<'e>(
    seed: Seed,
    segment: u64,
    last: Last,
    end: u64,
    runs: impl IntoIterator<Item = (FileId, &'e [Extent])>,
) -> (Vec<u8>, Index) {
    let runs: Vec<_> = runs.into_iter().collect();
    let mut at = (HEAD_BYTES + runs.len() * RUN_BYTES + 8) as u64;
    let (mut stored, mut parts) = (Vec::with_capacity(runs.len()), Vec::new());
    for (stream, extents) in runs {
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else { continue };
        let begin = parts.len();
        extents.iter().for_each(|extent| encode_extent(&mut parts, extent));
        let part = Part { at, count: extents.len() as u64, sum: seed.checksum(&[&parts[begin..]]) };
        at += (parts.len() - begin) as u64;
        let bytes = extents.iter().map(|extent| extent.length).sum();
        stored.push(StoredRun { stream, first: first.first, end: last.end(), bytes, part });
    }
    let mut out = Vec::with_capacity(parts.len() + HEAD_BYTES + stored.len() * RUN_BYTES + 8);
    out.extend_from_slice(&MAGIC);
    for number in [segment, last.seq, last.checksum, end, stored.len() as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for StoredRun { stream: FileId(stream), first, end, bytes, part } in &stored {
        for number in [*stream, *first, *end, *bytes, part.at, part.count, part.sum] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    let sum = seed.checksum(&[&out]);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&parts);
    (out, Index { segment, last, end, runs: stored })
}

/// How long what [`decode`] wants is, by an index's first [`HEAD`] bytes; none when they are not its own.
pub(super) fn table_bytes(head: &[u8; HEAD]) -> Option<usize> {
    let mut rest = head.strip_prefix(&MAGIC)?;
    for _ in 0..4 {
        number(&mut rest)?;
    }
    let runs = number(&mut rest).filter(|runs| *runs <= RUNS_MAX)?;
    usize::try_from(runs).ok()?.checked_mul(RUN_BYTES)?.checked_add(HEAD + 8)
}

/// How many bytes tell how long the table is.
pub(super) const HEAD: usize = HEAD_BYTES;

/// The index whose head and table are in `bytes`; none when they are not what was written for a segment with this seed.
pub(super) fn decode(seed: Seed, bytes: &[u8]) -> Option<Index> {
    let (said, sum) = bytes.split_last_chunk::<8>()?;
    if seed.checksum(&[said]) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = said.strip_prefix(&MAGIC)?;
    let rest = &mut rest;
    let (segment, seq, checksum, end) = (number(rest)?, number(rest)?, number(rest)?, number(rest)?);
    let count = number(rest)?;
    let mut runs = Vec::new();
    for _ in 0..count {
        let (stream, first, end, bytes) =
            (FileId(number(rest)?), number(rest)?, number(rest)?, number(rest)?);
        let part = Part { at: number(rest)?, count: number(rest)?, sum: number(rest)? };
        runs.push(StoredRun { stream, first, end, bytes, part });
    }
    rest.is_empty().then_some(Index { segment, last: Last { seq, checksum }, end, runs })
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (first, left) = rest.split_first_chunk::<8>()?;
    *rest = left;
    Some(u64::from_le_bytes(*first))
}

fn encode_extent(out: &mut Vec<u8>, extent: &Extent) {
    let Extent { first, count, bytes, at: Timestamp(at), place, length } = *extent;
    for number in [first, at, place] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
}

/// The append in so many bytes.
fn decode_extent(bytes: &[u8]) -> Extent {
    let long = |at: usize| bytes[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    let short = |at: usize| bytes[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
    Extent {
        first: long(0),
        at: Timestamp(long(8)),
        place: long(16),
        count: short(24),
        bytes: short(28),
        length: long(32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u64, count: u32) -> Extent {
        Extent { first, count, bytes: 9, at: Timestamp(first), place: 100 * first, length: 64 }
    }

    #[test]
    fn an_index_comes_back_as_it_was_and_with_a_changed_byte_not_at_all() {
        let seed = Seed::of(1, 2);
        let extents = BTreeMap::from([
            (FileId(3), vec![extent(0, 2), extent(2, 1), extent(7, 1)]),
            (FileId(9), vec![extent(40, 5)]),
        ]);
        let last = Last { seq: 70, checksum: 5 };
        let (bytes, index) = encode(seed, 2, last, 4_096, runs_of(&extents));
        assert_eq!(index.runs.len(), 3, "a gap makes another run");
        let length = table_bytes(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(decode(seed, &bytes[..length]), Some(index.clone()));
        for run in &index.runs {
            let at = usize::try_from(run.part.at).unwrap();
            let part = &bytes[at..at + run.part.bytes().unwrap()];
            let extents = run.part.decode(seed, part).unwrap();
            assert_eq!((extents[0].first, extents.last().unwrap().end()), (run.first, run.end));
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            if at < length {
                let other = table_bytes(bytes.first_chunk().unwrap());
                let read = other.and_then(|length| decode(seed, bytes.get(..length)?));
                assert_eq!(read, None, "byte {at}");
            } else {
                let whole = |run: &StoredRun| {
                    let from = usize::try_from(run.part.at).unwrap();
                    run.part.decode(seed, &bytes[from..from + run.part.bytes().unwrap()]).is_some()
                };
                assert!(!index.runs.iter().all(whole), "byte {at}");
            }
        }
        assert_eq!(decode(Seed::of(1, 3), &bytes[..length]), None, "another segment");
    }
}
