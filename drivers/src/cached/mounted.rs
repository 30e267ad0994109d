//! Which stores are mounted, and what becomes of what the others left.
//!
//! What is kept of a store stays when it is unmounted: its next mount finds it. All stores together may keep what those may that are mounted. When there is more,
//! what of the others is here goes first, the longest unmounted before the rest, as much of it as comes into the caches of those that are mounted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::options::Caching;
use super::place::Place;
use super::rows::PlaceId;
use super::vault::Vault;

/// What of the stores that are not mounted goes at once: an eighth at least. One by one, each look would search for the oldest.
const SHARE: u64 = 8;

/// A mount of a store, as long as it lives.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) vault: Arc<Vault>,
    pub(super) place: Arc<Place>,
    /// Tells who brings to the store what is pending that it has ended.
    pub(super) ended: Arc<Notify>,
    bytes_max: u64,
    writes_back: bool,
}

impl Mounted {
    pub(super) fn of(vault: Arc<Vault>, id: PlaceId, caching: &Caching) -> Self {
        let place = vault.place(id);
        place.mounts.lock().push(caching.bytes_max);
        if caching.write_back {
            place.writers_back.fetch_add(1, Ordering::AcqRel);
        }
        let ended = Arc::new(Notify::new());
        Self { vault, place, ended, bytes_max: caching.bytes_max, writes_back: caching.write_back }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        {
            let mut mounts = self.place.mounts.lock();
            if let Some(at) = mounts.iter().position(|bytes| *bytes == self.bytes_max) {
                mounts.swap_remove(at);
            }
        }
        self.place.left.store(self.vault.uptime(), Ordering::Relaxed);
        if self.writes_back {
            if self.place.writers_back.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.place.left_alone.notify_waiters();
            }
            self.vault.unmark(&self.place);
        }
        self.ended.notify_one();
    }
}

impl Vault {
    /// So many bytes have come into the cache of a store that is mounted: those of others make room for them, if there is too much.
    pub(super) fn came(self: &Arc<Self>, bytes: u64) {
        let (mut idle, mut kept, mut may) = (Vec::new(), 0_u64, 0_u64);
        for place in self.all_places() {
            let bytes = place.table().bytes();
            match place.bound() {
                Some(bound) => (kept, may) = (kept + bytes, may.saturating_add(bound)),
                None if bytes > 0 => idle.push((place.left.load(Ordering::Relaxed), place, bytes)),
                None => {}
            }
        }
        let left: u64 = idle.iter().map(|(_, _, bytes)| bytes).sum();
        let owed = self.owed.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if owed <= left / SHARE {
            return;
        }
        self.owed.store(0, Ordering::Relaxed);
        let mut too_much = (kept + left).saturating_sub(may).min(owed);
        idle.sort_by_key(|(since, ..)| *since);
        for (_, place, bytes) in idle {
            let goes = bytes.min(too_much);
            if goes > 0 {
                too_much -= goes;
                place.let_go(self, bytes - goes);
            }
        }
    }
}
