//! The last durable state of a disk that failed, for reading.
//!
//! Opening a database writes a few pages. They stay in memory here, so nothing more is written to the disk. A view ends with the database
//! that was opened on it, which is before the disk is written to again: redb then reads nothing more from it, also for its old readers.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::guard::Guarded;

/// The unit in which a view keeps what was written to it.
const PAGE_BYTES: usize = 4_096;
const PAGE: u64 = PAGE_BYTES as u64;

/// The last durable state of a disk that failed. What is written to it stays in memory: the few pages that opening a database writes.
#[derive(Debug)]
pub(super) struct View {
    under: Arc<Guarded>,
    over: Mutex<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl View {
    pub(super) fn of(under: Arc<Guarded>) -> io::Result<Self> {
        let len = under.disk().len()?;
        let mut view = Self { under, over: Mutex::new(Overlay { len, pages: BTreeMap::new() }) };
        let header = view.under.durable_header();
        let there = usize::try_from(len).map_or(header.len(), |len| len.min(header.len()));
        view.over.get_mut().write(view.under.disk(), 0, &header[..there])?;
        Ok(view)
    }
}

impl Overlay {
    /// The page as it is now, for writing into it.
    fn page(&mut self, disk: &dyn StorageBackend, number: u64) -> io::Result<&mut Vec<u8>> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.pages.entry(number) {
            Occupied(page) => Ok(page.into_mut()),
            Vacant(place) => {
                let mut page = vec![0; PAGE_BYTES];
                read_or_zero(disk, number * PAGE, &mut page)?;
                Ok(place.insert(page))
            }
        }
    }

    fn write(&mut self, disk: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (number, within) = (at / PAGE, small(at % PAGE));
            let count = (PAGE_BYTES - within).min(data.len() - done);
            self.page(disk, number)?[within..within + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
        self.len = self.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn read(&self, disk: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        read_or_zero(disk, offset, out)?;
        let end = offset + out.len() as u64;
        for (number, page) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = number * PAGE;
            let (from, to) = (start.max(offset), (start + PAGE).min(end));
            out[small(from - offset)..small(to - offset)]
                .copy_from_slice(&page[small(from - start)..small(to - start)]);
        }
        Ok(())
    }
}

/// What lies beyond the end of the disk is zero.
fn read_or_zero(disk: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let there = small(disk.len()?.saturating_sub(offset).min(out.len() as u64));
    out[there..].fill(0);
    match there {
        0 => Ok(()),
        _ => disk.read(offset, &mut out[..there]),
    }
}

impl StorageBackend for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let result = self.over.lock().read(self.under.disk(), offset, out);
        result.inspect_err(|_| self.under.set_stuck(true))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over.lock();
        if len < over.len {
            drop(over.pages.split_off(&len.div_ceil(PAGE)));
        }
        over.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.over.lock().write(self.under.disk(), offset, data)
    }
}

/// A distance within a buffer.
fn small(distance: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "it is at most the length of a buffer")]
    let distance = distance as usize;
    distance
}
