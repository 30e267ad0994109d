//! Choices that a number decides: the same number, the same choices.

/// Random numbers: SplitMix64, by Steele, Lea and Flood (2014).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// An index below `len`, or 0.
    #[expect(clippy::cast_possible_truncation, reason = "it is less than `len`")]
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len.max(1) as u64) as usize
    }
}
