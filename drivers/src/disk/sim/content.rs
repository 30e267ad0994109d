//! The bytes of a simulated file: those on disk, those that its readers see, and what lies between them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::chance::Chance;

const PAGE_BYTES: usize = 4_096;

/// What a disk writes as one. A torn write keeps some of these and not the others.
const SECTOR_BYTES: u64 = 512;

/// Bytes in pages that copies share. What was never written is zeros, and takes no room.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

#[derive(Debug, Clone)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    // Invariant: of the bytes as they are. A page that many copies of a disk share is hashed once.
    hash: OnceLock<blake3::Hash>,
}

impl Page {
    fn zeros() -> Self {
        Self { bytes: [0; PAGE_BYTES], hash: OnceLock::new() }
    }

    fn bytes_mut(self: &mut Arc<Self>) -> &mut [u8; PAGE_BYTES] {
        let page = Arc::make_mut(self);
        page.hash.take();
        &mut page.bytes
    }
}

impl Pages {
    /// Tells `hasher` all that is in them.
    pub(super) fn fingerprint(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.len.to_le_bytes());
        for (number, page) in &self.pages {
            let hash = page.hash.get_or_init(|| blake3::hash(&page.bytes));
            // Whether zeros were written or never were is nothing that anybody can read.
            if page.bytes != [0; PAGE_BYTES] {
                hasher.update(&number.to_le_bytes()).update(hash.as_bytes());
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, part) in spans(offset, out.len()) {
            match self.pages.get(&page) {
                Some(page) => out[part].copy_from_slice(&page.bytes[within]),
                None => out[part].fill(0),
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, within, part) in spans(offset, data.len()) {
            let page = self.pages.entry(page).or_insert_with(|| Arc::new(Page::zeros()));
            page.bytes_mut()[within].copy_from_slice(&data[part]);
        }
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let kept = len.div_ceil(PAGE_BYTES as u64);
            self.pages.retain(|page, _| *page < kept);
            let (page, end) = place(len);
            if let Some(page) = self.pages.get_mut(&page) {
                page.bytes_mut()[end..].fill(0);
            }
        }
        self.len = len;
    }
}

/// The page of a byte, and its place there.
#[expect(clippy::cast_possible_truncation, reason = "the rest is less than a page")]
fn place(offset: u64) -> (u64, usize) {
    (offset / PAGE_BYTES as u64, (offset % PAGE_BYTES as u64) as usize)
}

/// The pages that `len` bytes from `offset` on lie in: each with the range within it, and the range of the bytes.
fn spans(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let (page, start) = place(offset + done as u64);
        let count = (PAGE_BYTES - start).min(len - done);
        let part = done..done + count;
        done += count;
        Some((page, start..start + count, part))
    })
}

/// What was done to a file and not flushed.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Data {
        offset: u64,
        data: Arc<[u8]>,
    },
    /// A write beyond the end: the length may get to the disk without the bytes.
    Grown {
        len: u64,
    },
    Length {
        len: u64,
    },
}

/// What becomes of something that was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is on disk.
    All,
    /// It is not.
    Nothing,
    /// Some of its sectors are on disk, chosen by this number. As `All` for what has no parts.
    Torn(u64),
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What readers see.
    pub(super) seen: Pages,
    // Invariant: what a crash leaves when nothing of `pending` is kept.
    pub(super) durable: Pages,
    pub(super) pending: Vec<Pending>,
}

impl Inode {
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        if end > self.seen.len() && !data.is_empty() {
            self.pending.push(Pending::Grown { len: end });
        }
        self.seen.write(offset, data);
        self.pending.push(Pending::Data { offset, data: data.into() });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.seen.set_len(len);
        self.pending.push(Pending::Length { len });
    }

    /// Brings to the disk what `keep` says. What readers see stays as it is: they are served from memory.
    pub(super) fn settle(&mut self, mut keep: impl FnMut(&Pending) -> Kept) {
        for pending in std::mem::take(&mut self.pending) {
            let kept = keep(&pending);
            self.durable.keep(&pending, kept);
        }
    }
}

impl Pages {
    fn keep(&mut self, pending: &Pending, kept: Kept) {
        match (pending, kept) {
            (_, Kept::Nothing) => {}
            (Pending::Grown { len }, _) => self.set_len(self.len.max(*len)),
            (Pending::Length { len }, _) => self.set_len(*len),
            (Pending::Data { offset, data }, Kept::All) => self.write(*offset, data),
            (Pending::Data { offset, data }, Kept::Torn(seed)) => self.write_torn(*offset, data, seed),
        }
    }

    fn write_torn(&mut self, offset: u64, data: &[u8], seed: u64) {
        let mut chance = Chance::new(seed);
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let left = SECTOR_BYTES - at % SECTOR_BYTES;
            let count = usize::try_from(left).map_or(data.len() - done, |left| left.min(data.len() - done));
            match chance.below(8) {
                // Even a sector may be cut: nothing here counts on more than a byte.
                0 => self.write(at, &data[done..done + chance.index(count)]),
                1..=3 => {}
                _ => self.write(at, &data[done..done + count]),
            }
            done += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pages: &Pages) -> Vec<u8> {
        let mut out = vec![1; usize::try_from(pages.len()).unwrap()];
        pages.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn pages_behave_like_one_row_of_bytes() {
        let mut chance = Chance::new(7);
        let (mut pages, mut plain) = (Pages::default(), Vec::new());
        for n in 0..2_000_u32 {
            let offset = chance.index(20_000);
            if chance.below(8) == 0 {
                pages.set_len(offset as u64);
                plain.resize(offset, 0);
            } else {
                let data = vec![n.to_le_bytes()[0]; chance.index(9_000)];
                pages.write(offset as u64, &data);
                if !data.is_empty() {
                    plain.resize(plain.len().max(offset + data.len()), 0);
                    plain[offset..offset + data.len()].copy_from_slice(&data);
                }
            }
            assert!(all(&pages) == plain, "step {n}");
        }
        assert!(pages.read(pages.len(), &mut [0]).is_err());
    }

    #[test]
    fn a_torn_write_keeps_some_of_it_and_invents_nothing() {
        let mut whole = 0;
        for seed in 0..200 {
            let mut pages = Pages::default();
            pages.write(0, &[7; 5_000]);
            pages.write_torn(100, &[9; 4_000], seed);
            let bytes = all(&pages);
            assert_eq!(bytes.len(), 5_000);
            assert!(bytes.iter().all(|byte| [7, 9].contains(byte)));
            assert!(bytes[..100].iter().chain(&bytes[4_100..]).all(|byte| *byte == 7));
            whole += usize::from(bytes[100..4_100].iter().all(|byte| *byte == 9));
        }
        assert!(whole < 10);
    }
}
