//! Segments as files: their names, reading what is in them, and a bounded number of them open.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;
use parking_lot::Mutex;

use super::record::{RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, checksum};
use crate::disk::{DiskFile, Folder};

/// Each batch begins at a multiple of this, so that a write never touches a page that was flushed before.
pub(super) const ALIGN: u64 = 4_096;

const SUFFIX: &str = ".pack";

/// The next place where a batch may begin.
pub(super) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGN)
}

pub(super) fn name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number in a segment's name; none when it is no segment's.
pub(super) fn number(name: &str) -> Option<u64> {
    let hex = name.strip_suffix(SUFFIX)?;
    u64::from_str_radix(hex, 16).ok().filter(|number| self::name(*number) == name)
}

/// Where a segment's header is: twice, in sectors far from each other, because without it nothing in the segment can be read.
pub(super) const HEADERS_AT: [u64; 2] = [0, ALIGN / 2];

/// What the segment in `file` says of itself; none when it does not say it whole.
pub(super) fn header(file: &dyn DiskFile) -> io::Result<Option<SegmentHeader>> {
    let len = file.len()?;
    for at in HEADERS_AT {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        if at + bytes.len() as u64 > len {
            break;
        }
        file.read_at(at, &mut bytes)?;
        if let Some(header) = SegmentHeader::decode(&bytes) {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// The record at `offset`, if there is one and it ends by `end`. Its content is not looked at.
fn record_at(file: &dyn DiskFile, salt: &Salt, offset: u64, end: u64) -> io::Result<Option<Record>> {
    let mut header = [0; RECORD_HEADER_BYTES];
    let key_at = offset + RECORD_HEADER_BYTES as u64;
    if key_at > end {
        return Ok(None);
    }
    file.read_at(offset, &mut header)?;
    let Some(key_len) = Record::key_len(&header).filter(|len| key_at + *len as u64 <= end) else {
        return Ok(None);
    };
    let mut key = vec![0; key_len];
    file.read_at(key_at, &mut key)?;
    let record = Record::decode(&header, &key, salt, offset);
    Ok(record.filter(|record| offset + record.size() <= end))
}

/// The content of `record` at `offset`; none when it is not what was written.
pub(super) fn content(file: &dyn DiskFile, record: &Record, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let mut content = vec![0; record.len as usize];
    file.read_at(offset + record.size() - u64::from(record.len), &mut content)?;
    Ok((checksum(&[&content]) == record.content).then_some(content))
}

/// Hands all records from `from` up to `to` to `visit`, in order. Gives the parts in which there is something else.
pub(super) fn walk(
    file: &dyn DiskFile,
    salt: &Salt,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, Record) -> Result<(), StoreError>,
) -> Result<Vec<Range<u64>>, StoreError> {
    let failed = |e| StoreError::io("looking through a segment", e);
    let end = file.len().map_err(failed)?.min(to);
    let (mut at, mut damage) = (from, Vec::new());
    while at < end {
        if let Some(record) = record_at(file, salt, at, end).map_err(failed)? {
            let next = at + record.size();
            visit(at, record)?;
            at = next;
            continue;
        }
        let mut next = align(at).max(at + u64::from(at % ALIGN == 0) * ALIGN);
        while next < end && record_at(file, salt, next, end).map_err(failed)?.is_none() {
            next += ALIGN;
        }
        let next = next.min(end);
        // After the last record of a batch there is nothing up to where the next one begins.
        let is_gap = next == align(at).min(end) && is_zero(file, at, next).map_err(failed)?;
        if !is_gap {
            damage.push(at..next);
        }
        at = next;
    }
    if to != u64::MAX && end < to && from < to {
        damage.push(end.max(from)..to);
    }
    Ok(damage)
}

/// Up to where the segment is known to have been flushed, by what its records say.
pub(super) fn proven(file: &dyn DiskFile, salt: &Salt, from: u64) -> Result<u64, StoreError> {
    let mut proven = from;
    walk(file, salt, from, u64::MAX, |_, record| {
        proven = proven.max(u64::from(record.proven));
        Ok(())
    })?;
    Ok(proven)
}

fn is_zero(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<bool> {
    // It is less than a page long.
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
    file.read_at(from, &mut bytes)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// Open segments, at most so many; the one that was not used for longest is closed.
#[derive(Debug)]
pub(super) struct OpenFiles {
    folder: Arc<dyn Folder>,
    max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<u64, (Arc<dyn DiskFile>, u64)>,
    uses: u64,
    /// How often one was forgotten.
    forgotten: u64,
}

impl OpenFiles {
    pub(super) fn new(folder: Arc<dyn Folder>, max: usize) -> Self {
        Self { folder, max, open: Mutex::default() }
    }

    pub(super) fn get(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        let forgotten = {
            let mut open = self.open.lock();
            if let Some(file) = open.used(number) {
                return Ok(file);
            }
            open.forgotten
        };
        // Not under the lock: opening may wait for the disk.
        let file = self.folder.open(&name(number), false)?;
        let mut open = self.open.lock();
        // One that was removed meanwhile would stay open, and keep its space, for as long as nobody needs its place.
        if open.forgotten == forgotten {
            self.keep(&mut open, number, file.clone());
        }
        Ok(file)
    }

    /// The file, if it is open.
    pub(super) fn at_hand(&self, number: u64) -> Option<Arc<dyn DiskFile>> {
        self.open.lock().used(number)
    }

    pub(super) fn put(&self, number: u64, file: Arc<dyn DiskFile>) {
        self.keep(&mut self.open.lock(), number, file);
    }

    fn keep(&self, open: &mut Open, number: u64, file: Arc<dyn DiskFile>) {
        if open.files.len() >= self.max && !open.files.contains_key(&number) {
            let oldest = open.files.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
            oldest.and_then(|oldest| open.files.remove(&oldest));
        }
        open.uses += 1;
        let used = open.uses;
        open.files.insert(number, (file, used));
    }

    pub(super) fn forget(&self, number: u64) {
        let mut open = self.open.lock();
        open.forgotten += 1;
        open.files.remove(&number);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.lock().files.len()
    }
}

impl Open {
    fn used(&mut self, number: u64) -> Option<Arc<dyn DiskFile>> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(&number)?;
        *used = self.uses;
        Some(file.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::disk::sim::SimDisk;

    /// A folder in which a segment is removed, and forgotten, right after it was opened.
    #[derive(Debug)]
    struct Compacting {
        inner: Arc<dyn Folder>,
        files: OnceLock<Arc<OpenFiles>>,
    }

    impl Folder for Compacting {
        fn open(&self, name: &str, make: bool) -> io::Result<Arc<dyn DiskFile>> {
            let file = self.inner.open(name, make)?;
            if let (Some(files), Some(number)) = (self.files.get(), number(name)) {
                self.inner.remove(name)?;
                files.forget(number);
            }
            Ok(file)
        }

        fn list(&self) -> io::Result<Vec<String>> {
            self.inner.list()
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.inner.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.inner.remove(name)
        }

        fn sync(&self) -> io::Result<()> {
            self.inner.sync()
        }

        fn folder(&self, name: &str) -> io::Result<Arc<dyn Folder>> {
            self.inner.folder(name)
        }

        fn free_bytes(&self) -> io::Result<Option<u64>> {
            self.inner.free_bytes()
        }
    }

    #[test]
    fn a_segment_that_is_removed_while_it_is_opened_does_not_stay_open() {
        let disk = SimDisk::new(1);
        disk.folder().open(&name(7), true).unwrap();
        let folder = Arc::new(Compacting { inner: disk.folder(), files: OnceLock::new() });
        let files = Arc::new(OpenFiles::new(folder.clone(), 4));
        folder.files.set(files.clone()).unwrap();
        files.get(7).unwrap();
        assert_eq!(files.len(), 0);
        assert_eq!(files.get(7).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
