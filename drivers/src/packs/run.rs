//! A run: a part of the index in a file that is written once, flushed, and never changed.
//!
//! Entries are sorted by their keys, in blocks. The first key of each block is held in memory, and a Bloom filter (Bloom, 1970) that answers most
//! questions after what is not there: together about 2 bytes an entry. So a lookup reads one block of one run.
//!
//! ```text
//! block    entries | checksum 16
//! entry    key length 2 | key | segment 8 | offset 4 | length 4        segment 0: deleted
//! tail     fences (block offset 8 | block length 4 | key length 2 | key) | filter
//! footer   magic 8 | entries 8 | fences 8 | tail offset 8 | tail length 8 | through segment 8 | through offset 8 | tail's checksum 16 | checksum 16
//! ```

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;
use quick_cache::sync::Cache;

use super::record::{Checksum, checksum, take};
use crate::disk::{DiskFile, Folder};

/// How large a block grows before the next one begins.
const BLOCK_BYTES: usize = 16 << 10;

/// How many blocks of a run are held in memory: those of some hundred megabytes of large content, or a megabyte.
const LATELY_MAX: usize = 64;

/// How much is written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Runs up to this size are looked through when they are opened. What is damaged in a larger one shows when it is read, and then it is opened no more.
const LOOKED_THROUGH_MAX: u64 = 16 << 20;

const FOOTER_BYTES: usize = 88;
const MAGIC: [u8; 8] = *b"nxrun\x01\0\0";
const SUFFIX: &str = ".index";
const MAKING: &str = "making";

const FILTER_BITS_PER_ENTRY: u64 = 10;
const FILTER_PROBES: u64 = 7;

/// Where a blob's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// How long a look takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// As long as the disk does.
    ForDisk,
    /// Not at all: what is not in memory is told as an error.
    Never,
}

impl Wait {
    pub(super) fn read(self, file: &dyn DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::ForDisk => file.read_at(offset, out),
            Self::Never => file.read_at_hand(offset, out),
        }
    }
}

/// A key, and where its blob is; none when it was deleted.
pub(super) type Entry = (String, Option<Place>);

/// Up to where the log of segments is known to a part of the index: a segment and a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Through {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// Which flushes of the index a run holds: their numbers, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Span {
    pub(super) fn name(self) -> String {
        format!("{:016x}-{:016x}{SUFFIX}", self.first, self.last)
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let (first, last) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        let span = Self { first: number(first)?, last: number(last)? };
        (span.first <= span.last && span.name() == name).then_some(span)
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// A run that is whole.
pub(super) struct Run {
    pub(super) span: Span,
    pub(super) through: Through,
    pub(super) entries: u64,
    file: Arc<dyn DiskFile>,
    fences: Vec<Fence>,
    filter: Filter,
    /// Blocks that were looked into lately, checked, by their numbers.
    lately: Cache<usize, Arc<Vec<u8>>>,
}

struct Fence {
    offset: u64,
    len: u32,
    first: String,
}

impl Run {
    /// Writes a run of the sorted `entries`, of which there are at most `entries_max`. It has its name, durably, when this returns.
    pub(super) fn write(
        folder: &dyn Folder,
        span: Span,
        through: Through,
        entries_max: u64,
        entries: impl Iterator<Item = Result<Entry, StoreError>>,
    ) -> Result<Self, StoreError> {
        let failed = |e| StoreError::io("writing the index", e);
        let made = (|| {
            // Never a file whose flush may have failed before.
            Self::clean(folder).map_err(failed)?;
            let file = folder.open(MAKING, true).map_err(failed)?;
            let mut writer = Writer::new(file, entries_max);
            for entry in entries {
                let (key, place) = entry?;
                writer.push(&key, place).map_err(failed)?;
            }
            writer.finish(span, through).map_err(failed)
        })();
        let run = made?;
        folder.rename(MAKING, &span.name()).and_then(|()| folder.sync()).map_err(failed)?;
        Ok(run)
    }

    /// Removes what a crash or a failure left in the making.
    pub(super) fn clean(folder: &dyn Folder) -> io::Result<()> {
        match folder.remove(MAKING) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens the run that the folder has for `span`. None when it is damaged.
    pub(super) fn open(folder: &dyn Folder, span: Span) -> io::Result<Option<Self>> {
        let file = folder.open(&span.name(), false)?;
        let len = file.len()?;
        let mut footer = [0; FOOTER_BYTES];
        let Some(footer_at) = len.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
        file.read_at(footer_at, &mut footer)?;
        let Some(footer) = Footer::decode(&footer) else { return Ok(None) };
        if footer.tail_offset.checked_add(footer.tail_len) != Some(footer_at) {
            return Ok(None);
        }
        let mut tail = vec![0; usize::try_from(footer.tail_len).unwrap_or_default()];
        file.read_at(footer.tail_offset, &mut tail)?;
        if checksum(&[&tail]) != footer.tail_sum {
            return Ok(None);
        }
        let mut rest = tail.as_slice();
        let fences: Option<Vec<Fence>> = (0..footer.fences).map(|_| Fence::decode(&mut rest)).collect();
        let Some(fences) = fences else { return Ok(None) };
        let filter = Filter { bits: rest.to_vec() };
        let (through, entries) = (footer.through, footer.entries);
        let run = Self { span, through, entries, file, fences, filter, lately: lately() };
        let is_small = footer.tail_offset <= LOOKED_THROUGH_MAX;
        Ok((!is_small || run.is_whole()?).then_some(run))
    }

    /// Whether each block is as it was written.
    fn is_whole(&self) -> io::Result<bool> {
        for number in 0..self.fences.len() {
            match self.block(number, Wait::ForDisk) {
                Ok(_) => {}
                Err(StoreError::Corrupt { .. }) => return Ok(false),
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        Ok(true)
    }

    /// What the run says of `key`: nothing, that it was deleted, or where it is.
    pub(super) fn get(&self, key: &str, wait: Wait) -> Result<Option<Option<Place>>, StoreError> {
        if !self.filter.may_hold(key) {
            return Ok(None);
        }
        let after = self.fences.partition_point(|fence| *fence.first <= *key);
        let Some(fence) = after.checked_sub(1) else { return Ok(None) };
        let block = match self.lately.get(&fence) {
            Some(block) => block,
            None => {
                let block = Arc::new(self.checked(fence, wait)?);
                self.lately.insert(fence, block.clone());
                block
            }
        };
        find(&block, key).ok_or_else(|| self.corrupt(fence))
    }

    /// The entries with keys from `from` on.
    pub(super) fn from(
        self: Arc<Self>,
        from: &str,
    ) -> impl Iterator<Item = Result<Entry, StoreError>> + use<> {
        let mut block = self.fences.partition_point(|fence| *fence.first <= *from).saturating_sub(1);
        let from = from.to_owned();
        let mut entries = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = entries.next() {
                    return Some(Ok(entry));
                }
                if block == self.fences.len() {
                    return None;
                }
                match self.block(block, Wait::ForDisk) {
                    Ok(read) => {
                        let skipped = read.partition_point(|(key, _)| *key < from);
                        entries = read.into_iter();
                        entries.by_ref().take(skipped).for_each(drop);
                        block += 1;
                    }
                    Err(error) => {
                        block = self.fences.len();
                        return Some(Err(error));
                    }
                }
            }
        })
    }

    /// What errors call it.
    pub(super) fn what(&self) -> String {
        format!("the index {}", self.span.name())
    }

    fn corrupt(&self, block: usize) -> StoreError {
        let found = format!("a damaged block at {}", self.fences[block].offset);
        StoreError::Corrupt { what: self.what(), found }
    }

    /// The entries of a block as they are written, checked.
    fn checked(&self, number: usize, wait: Wait) -> Result<Vec<u8>, StoreError> {
        let fence = &self.fences[number];
        let mut block = vec![0; fence.len as usize];
        let read = wait.read(&*self.file, fence.offset, &mut block);
        read.map_err(|e| StoreError::io("reading the index", e))?;
        let whole = block.split_last_chunk::<16>().filter(|(entries, sum)| checksum(&[entries]) == **sum);
        let length = whole.map(|(entries, _)| entries.len()).ok_or_else(|| self.corrupt(number))?;
        block.truncate(length);
        Ok(block)
    }

    fn block(&self, number: usize, wait: Wait) -> Result<Vec<Entry>, StoreError> {
        let entries = self.checked(number, wait)?;
        let (mut rest, mut read) = (&*entries, Vec::new());
        while !rest.is_empty() {
            let (key, place) = decode_entry(&mut rest).ok_or_else(|| self.corrupt(number))?;
            read.push((key.to_owned(), place));
        }
        Ok(read)
    }
}

fn lately() -> Cache<usize, Arc<Vec<u8>>> {
    Cache::new(LATELY_MAX)
}

/// What the entries of a block say of `key`: nothing, that it was deleted, or where it is. None when they cannot be read.
#[expect(clippy::option_option, reason = "whether it can be read, and what it says")]
fn find(mut entries: &[u8], key: &str) -> Option<Option<Option<Place>>> {
    while !entries.is_empty() {
        let (there, place) = decode_entry(&mut entries)?;
        match there.cmp(key) {
            Ordering::Less => {}
            Ordering::Equal => return Some(Some(place)),
            Ordering::Greater => break,
        }
    }
    Some(None)
}

/// Writes blocks, and remembers what goes after them.
struct Writer {
    file: Arc<dyn DiskFile>,
    written: u64,
    waiting: Vec<u8>,
    block: Vec<u8>,
    first: String,
    entries: u64,
    fences: Vec<Fence>,
    filter: Filter,
}

impl Writer {
    fn new(file: Arc<dyn DiskFile>, entries_max: u64) -> Self {
        Self {
            file,
            written: 0,
            waiting: Vec::new(),
            block: Vec::new(),
            first: String::new(),
            entries: 0,
            fences: Vec::new(),
            filter: Filter::new(entries_max),
        }
    }

    fn push(&mut self, key: &str, place: Option<Place>) -> io::Result<()> {
        if self.block.is_empty() {
            self.first = key.into();
        }
        self.filter.add(key);
        let place = place.unwrap_or(Place { segment: 0, offset: 0, len: 0 });
        self.block.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.block.extend_from_slice(key.as_bytes());
        self.block.extend_from_slice(&place.segment.to_le_bytes());
        self.block.extend_from_slice(&place.offset.to_le_bytes());
        self.block.extend_from_slice(&place.len.to_le_bytes());
        self.entries += 1;
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let sum = checksum(&[&self.block]);
        self.block.extend_from_slice(&sum);
        self.fences.push(Fence {
            offset: self.written + self.waiting.len() as u64,
            // Little more than a block.
            len: u32::try_from(self.block.len()).unwrap_or(u32::MAX),
            first: std::mem::take(&mut self.first),
        });
        self.waiting.append(&mut self.block);
        if self.waiting.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.waiting)?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    fn finish(mut self, span: Span, through: Through) -> io::Result<Run> {
        self.end_block()?;
        self.write()?;
        let tail_offset = self.written;
        let mut tail = Vec::new();
        self.fences.iter().for_each(|fence| fence.encode(&mut tail));
        tail.extend_from_slice(&self.filter.bits);
        let footer = Footer {
            entries: self.entries,
            fences: self.fences.len() as u64,
            tail_offset,
            tail_len: tail.len() as u64,
            through,
            tail_sum: checksum(&[&tail]),
        };
        self.waiting = tail;
        self.waiting.extend_from_slice(&footer.encode());
        self.write()?;
        self.file.sync()?;
        let Self { file, fences, filter, entries, .. } = self;
        Ok(Run { span, through, entries, file, fences, filter, lately: lately() })
    }
}

impl Fence {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&u16::try_from(self.first.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(self.first.as_bytes());
    }

    fn decode(rest: &mut &[u8]) -> Option<Self> {
        let offset = u64::from_le_bytes(take(rest)?);
        let len = u32::from_le_bytes(take(rest)?);
        Some(Self { offset, len, first: decode_key(rest)?.to_owned() })
    }
}

fn decode_key<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::from(u16::from_le_bytes(take(rest)?));
    let (key, left) = rest.split_at_checked(len)?;
    *rest = left;
    std::str::from_utf8(key).ok()
}

fn decode_entry<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, Option<Place>)> {
    let key = decode_key(rest)?;
    let segment = u64::from_le_bytes(take(rest)?);
    let place =
        Place { segment, offset: u32::from_le_bytes(take(rest)?), len: u32::from_le_bytes(take(rest)?) };
    Some((key, (segment != 0).then_some(place)))
}

struct Footer {
    entries: u64,
    fences: u64,
    tail_offset: u64,
    tail_len: u64,
    through: Through,
    tail_sum: Checksum,
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&MAGIC);
        let numbers = [self.entries, self.fences, self.tail_offset, self.tail_len];
        for number in numbers.into_iter().chain([self.through.segment, self.through.offset]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.tail_sum);
        let sum = checksum(&[&out]);
        out.extend_from_slice(&sum);
        out
    }

    fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let (said, sum) = bytes.split_at(FOOTER_BYTES - 16);
        if checksum(&[said]) != *sum {
            return None;
        }
        let mut rest = said.strip_prefix(&MAGIC)?;
        let mut number = || Some(u64::from_le_bytes(take(&mut rest)?));
        let (entries, fences, tail_offset, tail_len) = (number()?, number()?, number()?, number()?);
        let through = Through { segment: number()?, offset: number()? };
        Some(Self { entries, fences, tail_offset, tail_len, through, tail_sum: take(&mut rest)? })
    }
}

/// Says of most keys that are not there that they are not.
struct Filter {
    bits: Vec<u8>,
}

impl Filter {
    fn new(entries: u64) -> Self {
        let bytes = (entries.max(1) * FILTER_BITS_PER_ENTRY).div_ceil(8);
        Self { bits: vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)] }
    }

    fn add(&mut self, key: &str) {
        for (byte, bit) in self.places(key) {
            self.bits[byte] |= bit;
        }
    }

    fn may_hold(&self, key: &str) -> bool {
        self.bits.is_empty() || self.places(key).all(|(byte, bit)| self.bits[byte] & bit != 0)
    }

    fn places(&self, key: &str) -> impl Iterator<Item = (usize, u8)> + use<> {
        let sum = u128::from_le_bytes(checksum(&[key.as_bytes()]));
        #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
        let (start, step) = (sum as u64, (sum >> 64) as u64);
        let count = self.bits.len() as u64 * 8;
        (0..FILTER_PROBES).map(move |probe| {
            let place = start.wrapping_add(step.wrapping_mul(probe)) % count;
            let byte = usize::try_from(place / 8).unwrap_or_default();
            (byte, 1 << (place % 8))
        })
    }
}
