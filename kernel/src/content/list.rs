//! Chunk lists: what large content is made of, as blobs that are stored beside its chunks.
//!
//! ```text
//! list  = "nxcl" · format (u8) · chunker (u8) · level (u8) · fan (u8) · min, avg, max (u32) · entries (u32) · entry..
//! entry = BLAKE3 of a chunk, or of a list of the level below (32 bytes) · where it ends, counted from where the list begins (u64)
//! ```
//!
//! All numbers are little-endian. A list of level 0 tells chunks, one of level n lists of level n - 1. Where a list ends is decided by what
//! it holds, as with chunks: at an entry whose hash ends its list (one in 2^fan does), but not at the first, and at the latest after
//! [`ENTRIES_PER_FAN`] times 2^fan entries. So the same content has the same lists however it was written, a change makes
//! one new list a level, and no list is larger than a chunk. The one list that tells all of it is the root, and its BLAKE3 is the content's address.

use bytes::{BufMut, Bytes, BytesMut};

use super::CONTENT_MAX;
use super::chunker::Sizes;

/// A BLAKE3 hash.
pub(crate) type Hash = [u8; 32];

const MAGIC: &[u8; 4] = b"nxcl";

/// The version of what is described above.
const FORMAT: u8 = 1;

/// How chunks are cut: FastCDC as of 2020, normalisation level 1, gear table without a seed.
const FASTCDC_2020: u8 = 1;

/// A list has at most so many times 2^fan entries.
const ENTRIES_PER_FAN: usize = 6;

/// Levels that lists may have, the chunks not counted: more than [`CONTENT_MAX`] takes.
const LEVELS_MAX: u8 = 8;

/// A list is ended by at most so many bits of a hash.
const FAN_MAX: u8 = 16;

const HEADER: usize = 4 + 4 + 3 * 4 + 4;
const ENTRY: usize = 32 + 8;

/// How content is divided: what its address depends on beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) sizes: Sizes,
    /// One entry in 2^fan ends its list.
    pub(crate) fan: u8,
}

impl Shape {
    /// That of all content that is written today.
    pub(crate) const TODAY: Self = Self { sizes: Sizes::TODAY, fan: 10 };

    const fn entries_max(self) -> usize {
        ENTRIES_PER_FAN << self.fan
    }

    fn ends(self, hash: &Hash, entries: usize) -> bool {
        let [.., low, high] = *hash;
        let bits = u16::from_le_bytes([low, high]);
        entries >= self.entries_max() || (entries > 1 && bits.trailing_zeros() >= self.fan.into())
    }
}

const _: () = assert!(HEADER + Shape::TODAY.entries_max() * ENTRY <= Sizes::TODAY.max as usize);

/// A chunk, or all that a list tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) hash: Hash,
    pub(crate) length: u64,
}

/// A list, read where it lies.
#[derive(Debug, Clone)]
pub(crate) struct List(Bytes);

/// An entry of a list: where it begins and ends, counted from where the list begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) hash: Hash,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl List {
    /// The list in `bytes`; what is wrong with them when they are none.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, String> {
        let list = Self(bytes);
        let Some(header) = list.0.get(..HEADER) else { return Err(format!("{} bytes", list.0.len())) };
        if header[..4] != *MAGIC
            || header[4..6] != [FORMAT, FASTCDC_2020]
            || header[6] >= LEVELS_MAX
            || header[7] > FAN_MAX
        {
            return Err(format!("a head that says {:02x?}", &header[..8]));
        }
        let told = list.u32(HEADER - 4) as usize;
        if told == 0 || list.0.len() != HEADER + told * ENTRY {
            return Err(format!("{} bytes that tell {told} entries", list.0.len()));
        }
        let largest = if list.level() == 0 { list.shape().sizes.max.into() } else { CONTENT_MAX };
        let mut before = 0;
        for index in 0..told {
            let end = list.end(index);
            if end <= before || end - before > largest || end > CONTENT_MAX {
                return Err(format!("an entry from {before} to {end}"));
            }
            before = end;
        }
        Ok(list)
    }

    /// A list that was parsed before.
    pub(crate) fn known(bytes: Bytes) -> Option<Self> {
        let list = Self(bytes);
        (list.0.len() > HEADER && list.0.starts_with(MAGIC)).then_some(list)
    }

    /// How many levels of lists lie below.
    pub(crate) fn level(&self) -> u8 {
        self.0.get(6).copied().unwrap_or_default()
    }

    /// How its content was divided.
    pub(crate) fn shape(&self) -> Shape {
        let sizes = Sizes { min: self.u32(8), avg: self.u32(12), max: self.u32(16) };
        Shape { sizes, fan: self.0.get(7).copied().unwrap_or_default() }
    }

    pub(crate) fn entries(&self) -> usize {
        self.0.len().saturating_sub(HEADER) / ENTRY
    }

    /// How many bytes of content it tells.
    pub(crate) fn length(&self) -> u64 {
        self.entries().checked_sub(1).map_or(0, |last| self.end(last))
    }

    pub(crate) fn entry(&self, index: usize) -> Option<Entry> {
        let hash = *self.0.get(HEADER + index * ENTRY..)?.first_chunk()?;
        let start = index.checked_sub(1).map_or(0, |before| self.end(before));
        Some(Entry { hash, start, end: self.end(index) })
    }

    /// Which entry has the byte at `offset`.
    pub(crate) fn find(&self, offset: u64) -> usize {
        let (mut from, mut to) = (0, self.entries());
        while from < to {
            let middle = usize::midpoint(from, to);
            if self.end(middle) <= offset { from = middle + 1 } else { to = middle }
        }
        from
    }

    fn end(&self, index: usize) -> u64 {
        let at = HEADER + index * ENTRY + 32;
        self.0.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

/// Lists in the making.
#[derive(Debug)]
pub(crate) struct Lists {
    shape: Shape,
    /// The last list of each level, which may get more entries.
    open: Vec<Open>,
}

#[derive(Debug, Default)]
struct Open {
    entries: BytesMut,
    last: Option<Hash>,
    length: u64,
}

/// A blob that is to be stored.
pub(crate) type Blob = (Hash, Bytes);

impl Lists {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, open: Vec::new() }
    }

    /// Whether all lists below `level` are complete, so that a whole list of that level can follow.
    pub(crate) fn is_level_with(&self, level: u8) -> bool {
        self.open.iter().take(level.into()).all(|open| open.entries.is_empty())
    }

    /// Adds a chunk, at level 0, or a complete list of the level below `level`. Lists that are complete with it go to `complete`.
    pub(crate) fn push(&mut self, level: u8, part: Part, complete: &mut Vec<Blob>) {
        let at = usize::from(level);
        if self.open.len() <= at {
            self.open.resize_with(at + 1, Open::default);
        }
        let open = &mut self.open[at];
        open.length += part.length;
        open.last = Some(part.hash);
        open.entries.put_slice(&part.hash);
        open.entries.put_u64_le(open.length);
        if self.shape.ends(&part.hash, open.entries.len() / ENTRY) {
            self.close(level, complete);
        }
    }

    /// Completes all lists, and gives the root; none when nothing was added.
    pub(crate) fn finish(mut self, complete: &mut Vec<Blob>) -> Option<Part> {
        let mut level = 0;
        loop {
            let at = usize::from(level);
            let above = self.open.iter().skip(at + 1).any(|open| !open.entries.is_empty());
            let open = self.open.get(at)?;
            match (open.last, open.entries.len() / ENTRY) {
                // What is alone at the top has nothing to be told with.
                (Some(hash), 1) if !above && level > 0 => return Some(Part { hash, length: open.length }),
                (_, 0) if !above => return None,
                (_, 0) => {}
                _ => self.close(level, complete),
            }
            level += 1;
        }
    }

    fn close(&mut self, level: u8, complete: &mut Vec<Blob>) {
        let open = std::mem::take(&mut self.open[usize::from(level)]);
        let Shape { sizes: Sizes { min, avg, max }, fan } = self.shape;
        let mut list = BytesMut::with_capacity(HEADER + open.entries.len());
        list.put_slice(MAGIC);
        list.put_slice(&[FORMAT, FASTCDC_2020, level, fan]);
        [min, avg, max].into_iter().for_each(|size| list.put_u32_le(size));
        list.put_u32_le(u32::try_from(open.entries.len() / ENTRY).unwrap_or(u32::MAX));
        list.put_slice(&open.entries);
        let list = list.freeze();
        let hash = *blake3::hash(&list).as_bytes();
        complete.push((hash, list));
        self.push(level + 1, Part { hash, length: open.length }, complete);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Shape = Shape { sizes: Sizes { min: 64, avg: 256, max: 1_024 }, fan: 2 };

    fn parts(count: u64) -> Vec<Part> {
        (0..count)
            .map(|n| Part { hash: *blake3::hash(&n.to_le_bytes()).as_bytes(), length: n % 90 + 1 })
            .collect()
    }

    fn lists(parts: &[Part]) -> (Part, Vec<Blob>) {
        let (mut lists, mut complete) = (Lists::new(SMALL), Vec::new());
        parts.iter().for_each(|part| lists.push(0, *part, &mut complete));
        (lists.finish(&mut complete).unwrap(), complete)
    }

    #[test]
    fn all_that_was_added_is_told_in_order() {
        for count in [1, 2, 7, 24, 300] {
            let parts = parts(count);
            let (root, blobs) = lists(&parts);
            let list =
                |hash: &Hash| List::parse(blobs.iter().find(|blob| blob.0 == *hash).unwrap().1.clone());
            let mut told = vec![(root, true)];
            while told.iter().any(|(_, is_list)| *is_list) {
                let expand = |(part, is_list): (Part, bool)| {
                    if !is_list {
                        return vec![(part, false)];
                    }
                    let list = list(&part.hash).unwrap();
                    assert_eq!((list.length(), list.shape()), (part.length, SMALL));
                    let entry = |index| {
                        let Entry { hash, start, end } = list.entry(index).unwrap();
                        assert!((start..end).all(|offset| list.find(offset) == index));
                        (Part { hash, length: end - start }, list.level() > 0)
                    };
                    (0..list.entries()).map(entry).collect()
                };
                told = told.into_iter().flat_map(expand).collect();
            }
            let told: Vec<_> = told.into_iter().map(|(part, _)| part).collect();
            assert_eq!(told, parts);
        }
    }

    #[test]
    fn the_same_chunk_over_and_over_makes_no_endless_lists() {
        // Whatever its hash says: one list holds two entries at least.
        for n in 0..64u64 {
            let same = Part { hash: *blake3::hash(&n.to_le_bytes()).as_bytes(), length: 5 };
            let (root, blobs) = lists(&vec![same; 1_000]);
            assert_eq!(root.length, 5_000);
            assert!(blobs.len() < 1_000 && blobs.iter().all(|blob| List::parse(blob.1.clone()).is_ok()));
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_list_are_told_and_never_panic(
            count in 1u64..40,
            at in any::<prop::sample::Index>(),
            with in 1u8..,
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = lists(&parts(count)).1.swap_remove(0).1;
            let cut = cut.index(whole.len());
            prop_assert!(List::parse(whole.slice(..cut)).is_err());
            let mut changed = whole.to_vec();
            changed[at.index(whole.len())] ^= with;
            let changed = Bytes::from(changed);
            for list in List::parse(changed.clone()).ok().into_iter().chain(List::known(changed)) {
                let _ = (list.length(), list.shape(), list.level(), list.find(7));
                prop_assert!(list.entry(list.entries()).is_none());
            }
        }
    }
}
