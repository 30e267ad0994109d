//! One store, and who waits for something about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nexus_kernel::hal::{CacheFigures, StoreError};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::FILES_MAX;
use super::pace::Pace;
use super::rows::PlaceId;
use super::table::Table;
use super::vault::Vault;

/// One store, shared by all that have it mounted.
#[derive(Debug)]
pub(super) struct Place {
    table: Mutex<Table>,
    pub(super) pace: Mutex<Pace>,
    /// How many bytes are about to be pending.
    coming: AtomicU64,
    /// Something is pending that was not, or may go on.
    pub(super) due: Notify,
    /// No mount writes back any more.
    pub(super) left_alone: Notify,
    /// A path is not busy any more, or not pending.
    pub(super) settled: Notify,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) last_failure: Mutex<Option<String>>,
    /// How many bytes each of its mounts may keep.
    pub(super) mounts: Mutex<Vec<u64>>,
    /// How many of them write back.
    pub(super) writers_back: AtomicUsize,
    /// When the last of them has ended, by the clock of the vault.
    pub(super) left: AtomicU64,
}

impl Place {
    pub(super) fn new(id: PlaceId) -> Self {
        Self {
            table: Mutex::new(Table::new(id)),
            pace: Mutex::default(),
            coming: AtomicU64::new(0),
            due: Notify::new(),
            left_alone: Notify::new(),
            settled: Notify::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_failure: Mutex::default(),
            mounts: Mutex::default(),
            writers_back: AtomicUsize::new(0),
            left: AtomicU64::new(0),
        }
    }

    pub(super) fn id(&self) -> PlaceId {
        self.table().id()
    }

    /// How many bytes may be kept of it; none while it is not mounted.
    pub(super) fn bound(&self) -> Option<u64> {
        self.mounts.lock().iter().max().copied()
    }

    /// Whether one of its mounts does.
    pub(super) fn writes_back(&self) -> bool {
        self.writers_back.load(Ordering::Acquire) > 0
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Room for `size` bytes that are to be pending, if there is some within `pending_max`.
    pub(super) fn room(self: &Arc<Self>, size: u64, pending_max: u64) -> Option<Room> {
        // Under its lock: of two that come at once, one sees the other.
        let table = self.table();
        let coming = self.coming.load(Ordering::Relaxed);
        let fits = table.pending_bytes() + coming + size <= pending_max && table.pending_files() < FILES_MAX;
        fits.then(|| {
            self.coming.store(coming + size, Ordering::Relaxed);
            Room { place: self.clone(), size }
        })
    }

    /// Waits until nothing is on its way to the store at `path`, and keeps it so.
    pub(super) async fn hold(self: &Arc<Self>, path: &str) -> Hold {
        loop {
            let settled = self.settled.notified();
            if self.table().busy.insert(path.to_owned()) {
                return Hold { place: self.clone(), path: path.to_owned() };
            }
            settled.await;
        }
    }

    /// Waits until nothing is on its way to the store at `path` and below.
    pub(super) async fn still(&self, path: &str) {
        loop {
            let settled = self.settled.notified();
            if !self.table().is_busy_within(path) {
                return;
            }
            settled.await;
        }
    }

    /// Waits until nothing is pending at `path` and below. What was refused is tried once more.
    ///
    /// # Errors
    /// What the store said of something there that it refuses.
    pub(super) async fn drain(&self, path: &str) -> Result<(), StoreError> {
        self.try_again(path);
        loop {
            let settled = self.settled.notified();
            {
                let table = self.table();
                if !table.is_pending_within(path) {
                    return Ok(());
                }
                if let Some(refused) = table.refused_within(path) {
                    return Err(refused);
                }
            }
            settled.await;
        }
    }

    /// Waits until all that is pending is at the store, but for what that refuses. What was refused is tried once more.
    ///
    /// # Errors
    /// What the store said of a file that it refuses.
    pub(super) async fn drain_all(&self) -> Result<(), StoreError> {
        self.try_again("");
        loop {
            let settled = self.settled.notified();
            {
                let table = self.table();
                if table.pending_files() == table.refused_files() {
                    return table.refused_within("").map_or(Ok(()), Err);
                }
            }
            settled.await;
        }
    }

    /// Waits until nothing arrives any more, at `path`, above and below, that was given up on its way to the store.
    pub(super) async fn no_more_late(&self, vault: &Vault, path: &str) {
        loop {
            let (now, until) = (vault.uptime(), self.table().late_until(path));
            match until {
                Some(until) if until > now => vault.env().sleep(Duration::from_nanos(until - now)).await,
                _ => return,
            }
        }
    }

    fn try_again(&self, path: &str) {
        self.table().try_again(path);
        self.due.notify_one();
    }

    /// Begins to ask the store about what is in `folder`.
    pub(super) fn ask(self: &Arc<Self>, folder: &str) -> Asking {
        let mut table = self.table();
        let asked = table.asked.entry(folder.to_owned()).or_default();
        asked.0 += 1;
        Asking { place: self.clone(), folder: folder.to_owned(), changes: asked.1 }
    }

    /// Lets go what is too much, also of other stores, which are not mounted.
    pub(super) fn make_room(&self, vault: &Arc<Vault>, bytes_max: u64) {
        self.let_go(vault, bytes_max);
        let came = self.table().take_came();
        if came > 0 {
            vault.came(came);
        }
    }

    /// Lets go what is more than that, and gives its space back when that is worth the work.
    pub(super) fn let_go(&self, vault: &Arc<Vault>, bytes_max: u64) {
        if self.table().make_room(vault, bytes_max) {
            let reclaimed = vault.clone();
            vault.env().spawn("cached.reclaim", async move { reclaimed.reclaim().await });
        }
    }

    /// How it is doing, without a bound, which is its mount's.
    pub(super) fn figures(&self) -> CacheFigures {
        let mut figures = CacheFigures::default();
        figures.hits = self.hits.load(Ordering::Relaxed);
        figures.misses = self.misses.load(Ordering::Relaxed);
        figures.failed = self.failed.load(Ordering::Relaxed);
        figures.last_failure.clone_from(&self.last_failure.lock());
        let table = self.table();
        figures.bytes = table.bytes();
        figures.pending_files = table.pending_files() as u64;
        figures.pending_bytes = table.pending_bytes();
        figures.refused_files = table.refused_files() as u64;
        figures.stuck = table.stuck();
        figures
    }

    pub(super) fn count(&self, is_hit: bool) {
        if is_hit { &self.hits } else { &self.misses }.fetch_add(1, Ordering::Relaxed);
    }
}

/// Room for what is about to be pending, until it is.
#[derive(Debug)]
pub(super) struct Room {
    place: Arc<Place>,
    size: u64,
}

impl Room {
    /// For how many bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _table = self.place.table();
        self.place.coming.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A path to which nothing goes but what its holder sends.
#[derive(Debug)]
pub(super) struct Hold {
    place: Arc<Place>,
    path: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.place.table().busy.remove(&self.path);
        self.place.settled.notify_waiters();
        self.place.due.notify_one();
    }
}

/// A question to the store that is under way. What it says is not to be believed for long when something changed here meanwhile.
#[derive(Debug)]
pub(super) struct Asking {
    place: Arc<Place>,
    folder: String,
    changes: u64,
}

impl Asking {
    /// Whether nothing changed here in the folder since.
    pub(super) fn holds(&self, table: &Table) -> bool {
        table.asked.get(&self.folder).is_none_or(|asked| asked.1 == self.changes)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut table = self.place.table();
        if let Some(asked) = table.asked.get_mut(&self.folder) {
            asked.0 -= 1;
            if asked.0 == 0 {
                table.asked.remove(&self.folder);
            }
        }
    }
}
