//! Where large content is cut: FastCDC, so that a change moves only the cuts around it.
//!
//! Whether there is a cut is decided by the bytes since the one before and by the first byte behind it, and by nothing else. So
//! content that is written in pieces is cut as content that is written at once, and a cut that was found before is found again.

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::{Normalization, cut, select_masks};

/// How large chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// No chunk but the last is smaller.
    pub(crate) min: u32,
    /// How large they are on average. A power of two.
    pub(crate) avg: u32,
    /// No chunk is larger.
    pub(crate) max: u32,
}

impl Sizes {
    /// Those of all content that is written today.
    pub(crate) const TODAY: Self = Self { min: 16 * 1024, avg: 64 * 1024, max: 256 * 1024 };
}

const _: () = assert!(
    Sizes::TODAY.min < Sizes::TODAY.avg
        && Sizes::TODAY.avg < Sizes::TODAY.max
        && Sizes::TODAY.avg.is_power_of_two()
        && Sizes::TODAY.min.is_multiple_of(2)
        && Sizes::TODAY.max.is_multiple_of(2)
);

/// How closely chunks keep to the average. With [`Sizes`] it decides about each cut; part of the format of chunk lists.
const LEVEL: Normalization = Normalization::Level1;

/// What is known of the bytes that follow those at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// They are soon at hand: a cut is looked for once the largest chunk is.
    More,
    /// They are dear: a cut is looked for in what is at hand, and found if no further byte can change it.
    Unread,
    /// There are none.
    Nothing,
}

/// Cuts content that comes in pieces.
#[derive(Debug)]
pub(crate) struct Chunker {
    sizes: Sizes,
    masks: (u64, u64),
    /// The bytes since the last cut.
    pending: BytesMut,
}

impl Chunker {
    pub(crate) fn new(sizes: Sizes) -> Self {
        Self { sizes, masks: select_masks(sizes.avg as usize, LEVEL), pending: BytesMut::new() }
    }

    /// Takes the next bytes of the content. They are copied: a chunk keeps no larger buffer of its writer alive.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        if self.pending.is_empty() && self.pending.capacity() < data.len() {
            self.pending = BytesMut::with_capacity(data.len().max(2 * self.sizes.max as usize));
        }
        self.pending.extend_from_slice(data);
    }

    /// The next chunk, when its end is certain.
    pub(crate) fn next(&mut self, behind: Behind) -> Option<Bytes> {
        let max = self.sizes.max as usize;
        let there = self.pending.len();
        if there == 0 || (there < max && behind == Behind::More) {
            return None;
        }
        let end = self.end(&self.pending);
        // One that ends with what is at hand may end elsewhere once more is.
        (end < there || end == max || behind == Behind::Nothing).then(|| self.pending.split_to(end).freeze())
    }

    /// How many bytes are since the last cut.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Forgets the bytes since the last cut.
    pub(crate) fn forget(&mut self) {
        self.pending.clear();
    }

    fn end(&self, content: &[u8]) -> usize {
        let Sizes { min, avg, max } = self.sizes;
        let (small, large) = self.masks;
        let window = &content[..content.len().min(max as usize)];
        let sizes = (min as usize, avg as usize, max as usize);
        cut(window, sizes.0, sizes.1, sizes.2, small, large, small << 1, large << 1).1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look random and are the same everywhere.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let key = blake3::hash(&seed.to_le_bytes());
        blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn lengths(sizes: Sizes, content: &[u8]) -> Vec<usize> {
        let mut chunker = Chunker::new(sizes);
        chunker.feed(content);
        std::iter::from_fn(|| chunker.next(Behind::Nothing)).map(|chunk| chunk.len()).collect()
    }

    /// Content that was cut elsewhere would have another address: these lengths never change.
    #[test]
    fn the_cuts_are_where_they_always_were() {
        let cuts = |content: &[u8]| lengths(Sizes::TODAY, content);
        assert_eq!(cuts(&vec![0; 600_000]), [262_144, 262_144, 75_712]);
        assert_eq!(cuts(&noise(1, 600_000)), RECORDED_1);
        assert_eq!(cuts(&noise(2, 600_001)), RECORDED_2);
        let lines: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(cuts(lines.as_bytes()), RECORDED_LINES);
    }

    const RECORDED_1: &[usize] = &[93_072, 79_270, 55_346, 96_374, 163_239, 76_964, 35_735];
    const RECORDED_2: &[usize] = &[29_149, 38_783, 21_751, 47_524, 71_866, 242_204, 50_467, 75_400, 22_857];
    const RECORDED_LINES: &[usize] = &[107_116, 43_311, 38_302, 88_683, 85_024, 51_794, 14_660];

    const SMALL: Sizes = Sizes { min: 64, avg: 256, max: 1_024 };

    proptest! {
        #[test]
        fn pieces_are_cut_as_the_whole(
            seed: u64,
            pieces in prop::collection::vec((0usize..3_000, prop::bool::ANY), 0..8),
        ) {
            let whole = noise(seed, pieces.iter().map(|(length, _)| length).sum());
            let mut chunker = Chunker::new(SMALL);
            let mut found = Vec::new();
            let mut rest = &whole[..];
            for (length, dear) in pieces {
                let (piece, after) = rest.split_at(length);
                rest = after;
                chunker.feed(piece);
                let behind = if dear { Behind::Unread } else { Behind::More };
                found.extend(std::iter::from_fn(|| chunker.next(behind)).map(|chunk| chunk.len()));
            }
            found.extend(std::iter::from_fn(|| chunker.next(Behind::Nothing)).map(|chunk| chunk.len()));
            prop_assert_eq!(found, lengths(SMALL, &whole));
        }
    }
}
