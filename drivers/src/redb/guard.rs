//! Stands between redb and its disk, so that a failure of the disk has a known meaning and reading can go on after it.
//!
//! redb writes whole pages that no durable commit uses, then the header that makes them the new state, then flushes. So a batch whose
//! header was never written did not happen, and the header as of the last flush still describes a whole database. After a failure redb
//! itself neither reads nor writes any more; a second instance of redb then reads that last durable state through a
//! [`View`](super::view::View).

use std::collections::HashSet;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

/// The bytes at the start of the file that say which pages are the database. redb's pages begin after them.
const HEADER_BYTES: usize = 4_096;

type Range = (Bound<u64>, Bound<u64>);

/// The disk, and what is known of its state.
#[derive(Debug)]
pub(super) struct Guarded {
    disk: Box<dyn StorageBackend>,
    len: AtomicU64,
    /// Whether the instance of redb that is read from has met a failure: it reads nothing more.
    stuck: AtomicBool,
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
            stuck: AtomicBool::new(false),
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

    /// Whether what is read from must be opened anew.
    pub(super) fn is_stuck(&self) -> bool {
        // Checked again under the writer's lock before anything is done about it.
        self.stuck.load(Ordering::Relaxed)
    }

    pub(super) fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    pub(super) fn disk(&self) -> &dyn StorageBackend {
        &*self.disk
    }

    pub(super) fn durable_header(&self) -> Vec<u8> {
        self.state.lock().durable_header.clone()
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.set_stuck(true);
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
