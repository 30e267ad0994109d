//! Stands between redb and its disk, so that a failure of the disk has a known meaning and reading can go on after it.
//!
//! redb writes whole pages that no durable commit uses, then the header that makes them the new state, then flushes. So a batch whose
//! header was never written did not happen, and the header as of the last flush still describes a whole database. After a failure redb
//! itself neither reads nor writes any more; [`View`] then shows a second instance of redb that last durable state, and keeps
//! in memory what that instance writes while it opens.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

/// The bytes at the start of the file that say which pages are the database. redb's pages begin after them.
const HEADER_BYTES: usize = 4_096;

/// The unit in which [`View`] keeps what was written to it.
const PAGE_BYTES: u64 = 4_096;

type Range = (Bound<u64>, Bound<u64>);

/// The disk, and what is known of its state.
#[derive(Debug)]
pub(super) struct Guarded {
    disk: Box<dyn StorageBackend>,
    len: AtomicU64,
    /// Raised when the disk is about to be written to again: views made before it are over.
    epoch: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The header as it was written last.
    header: Vec<u8>,
    // Invariant: `header` as of the last flush that succeeded.
    durable_header: Vec<u8>,
    header_written: bool,
    failure: Option<Failure>,
    /// Whether the locks outlive the instance of redb that took them, for the next one on the same disk.
    keep_locks: bool,
    locks: HashSet<Range>,
}

/// The first failure of the disk since the batch began.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) full: bool,
    pub(super) cause: String,
    /// Whether the batch may have become durable all the same.
    pub(super) outcome_unknown: bool,
}

impl Guarded {
    pub(super) fn new(disk: Box<dyn StorageBackend>) -> io::Result<Arc<Self>> {
        let len = disk.len()?;
        let mut header = vec![0; HEADER_BYTES];
        let there = usize::try_from(len).map_or(HEADER_BYTES, |len| len.min(HEADER_BYTES));
        disk.read(0, &mut header[..there])?;
        let state = State {
            durable_header: header.clone(),
            header,
            header_written: false,
            failure: None,
            keep_locks: false,
            locks: HashSet::new(),
        };
        Ok(Arc::new(Self {
            disk,
            len: AtomicU64::new(len),
            epoch: AtomicU64::new(0),
            state: Mutex::new(state),
        }))
    }

    /// A batch begins: what is told as written and failed is from now on.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.header_written = false;
        state.failure = None;
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.state.lock().failure.clone()
    }

    /// The file's length in bytes.
    pub(super) fn len_bytes(&self) -> u64 {
        // A hint for settings; nothing is ordered by it.
        self.len.load(Ordering::Relaxed)
    }

    /// Keeps the locks when redb closes, until this value is dropped.
    pub(super) fn keep_locks(&self) {
        self.state.lock().keep_locks = true;
    }

    /// Ends all views: what lies under them is about to change.
    pub(super) fn retire_views(&self) {
        // Release, and acquire in `View::read`: a view that misses this change has read before any write that follows it.
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let mut state = self.state.lock();
            let outcome_unknown = state.header_written;
            state.failure.get_or_insert_with(|| Failure {
                full: matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
                cause: error.to_string(),
                outcome_unknown,
            });
        }
        result
    }

    fn lock(
        &self,
        range: Range,
        take: impl FnOnce(&dyn StorageBackend) -> Result<bool, BackendError>,
    ) -> Result<bool, BackendError> {
        if self.state.lock().locks.contains(&range) {
            return Ok(true);
        }
        let taken = take(&*self.disk)?;
        if taken {
            self.state.lock().locks.insert(range);
        }
        Ok(taken)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.state.get_mut().keep_locks {
            // Nobody is left to be told; the file is closed next, which lets go of its locks in any case.
            let _ = self.disk.close();
        }
    }
}

/// The disk as redb sees it.
#[derive(Debug)]
pub(super) struct Guard(pub(super) Arc<Guarded>);

impl StorageBackend for Guard {
    fn len(&self) -> io::Result<u64> {
        self.0.note(self.0.disk.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.note(self.0.disk.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.note(self.0.disk.set_len(len))?;
        self.0.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.note(self.0.disk.sync_data())?;
        let mut state = self.0.state.lock();
        state.durable_header = state.header.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(start) = usize::try_from(offset).ok().filter(|start| *start < HEADER_BYTES) {
            let mut state = self.0.state.lock();
            // Said before it is tried: a write that fails may have reached the disk.
            state.header_written = true;
            let end = (start + data.len()).min(HEADER_BYTES);
            state.header[start..end].copy_from_slice(&data[..end - start]);
        }
        self.0.note(self.0.disk.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        match self.0.state.lock().keep_locks {
            true => Ok(()),
            false => self.0.disk.close(),
        }
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.lock((start, end), |disk| disk.try_lock_range(start, end))
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.lock((start, end), |disk| disk.try_lock_shared_range(start, end))
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock((start, end), |disk| disk.lock_range(start, end).map(|()| true)).map(drop)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock((start, end), |disk| disk.lock_shared_range(start, end).map(|()| true)).map(drop)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.0.state.lock().keep_locks {
            return Ok(());
        }
        self.0.disk.unlock_range(start, end)?;
        self.0.state.lock().locks.remove(&(start, end));
        Ok(())
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.disk.query_lock_range(start, end)
    }
}

/// The last durable state of a disk that failed. What is written to it stays in memory: the few pages that opening a database writes.
#[derive(Debug)]
pub(super) struct View {
    under: Arc<Guarded>,
    epoch: u64,
    over: Mutex<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl View {
    pub(super) fn of(under: Arc<Guarded>) -> io::Result<Self> {
        let len = under.disk.len()?;
        let epoch = under.epoch.load(Ordering::Acquire);
        let mut view = Self { under, epoch, over: Mutex::new(Overlay { len, pages: BTreeMap::new() }) };
        let header = view.under.state.lock().durable_header.clone();
        let there = usize::try_from(len).map_or(HEADER_BYTES, |len| len.min(HEADER_BYTES));
        view.over.get_mut().write(&*view.under.disk, 0, &header[..there])?;
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
                let mut page = vec![0; PAGE_BYTES as usize];
                read_or_zero(disk, number * PAGE_BYTES, &mut page)?;
                Ok(place.insert(page))
            }
        }
    }

    fn write(&mut self, disk: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (number, within) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
            let count = (PAGE_BYTES as usize - within).min(data.len() - done);
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
        for (number, page) in self.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let start = number * PAGE_BYTES;
            let (from, to) = (start.max(offset), (start + PAGE_BYTES).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }
}

/// What lies beyond the end of the disk is zero.
fn read_or_zero(disk: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let there = disk.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
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
        self.over.lock().read(&*self.under.disk, offset, out)?;
        // Asked after reading: what was read before the disk changed is right.
        match self.under.epoch.load(Ordering::Acquire) == self.epoch {
            true => Ok(()),
            false => Err(io::Error::other("the store was opened anew; read from a new reader")),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over.lock();
        if len < over.len {
            drop(over.pages.split_off(&len.div_ceil(PAGE_BYTES)));
        }
        over.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.over.lock().write(&*self.under.disk, offset, data)
    }
}
