//! The streams that are open, by the identity of their entries; the stores that keep their records; and what is to be removed there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::{DashMap, Entry};
use foldhash::fast::FixedState;
use nexus_actors::Env;
use nexus_messages::syscall::{GroupInfo, IoProfile};
use nexus_messages::{FileId, FileMetadata, LifeId, Timestamp};
use parking_lot::Mutex;

use super::STREAMS_MAX;
use super::ages::Ages;
use super::groups::{Desk, GroupTotals, Groups, log_of};
use super::stream::{Refusal, Stream, Totals};
use super::view::{GroupEntry, StreamEntry, StreamStatistics};
use crate::hal::{StreamError, StreamStore, TreeId};
use crate::syscalls::group::info;

/// The open streams. Cloning gives another handle on the same table.
///
/// Nothing here waits longer than a few instructions under a mutex.
#[derive(Clone, Default)]
pub(crate) struct StreamTable(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stores: OnceLock<Stores>,
    open: DashMap<FileId, Arc<Stream>, FixedState>,
    /// How many are open, or about to be.
    open_count: AtomicUsize,
    /// Streams whose entries are gone, and in which tree these were. No more than the stores have streams.
    dropped: Mutex<BTreeMap<FileId, TreeId>>,
    totals: Arc<Totals>,
    /// Where the groups of open streams are asked, by the streams.
    desks: Mutex<HashMap<FileId, Arc<Desk>>>,
    /// Of which streams a life may have records. Of those lives alone that have not ended.
    holders: Mutex<HashMap<LifeId, BTreeSet<FileId>>>,
    group_totals: Arc<GroupTotals>,
    ages: Ages,
    ended: AtomicBool,
}

struct Stores {
    memory: Arc<dyn StreamStore>,
    durable: Option<Arc<dyn StreamStore>>,
    shared: OnceLock<Arc<dyn StreamStore>>,
}

impl StreamTable {
    pub(super) fn set_stores(&self, memory: Arc<dyn StreamStore>, durable: Option<Arc<dyn StreamStore>>) {
        let set = self.0.stores.set(Stores { memory, durable, shared: OnceLock::new() });
        debug_assert!(set.is_ok(), "a kernel gets its stores of streams once");
    }

    pub(super) fn set_shared_store(&self, shared: Arc<dyn StreamStore>) {
        let set = self.0.stores.get().map(|stores| stores.shared.set(shared).is_ok());
        debug_assert_eq!(
            set,
            Some(true),
            "a kernel gets its stores of streams once, and this one after the others"
        );
    }

    /// The store for streams of this kind, if there is one.
    pub(super) fn store(&self, io_profile: IoProfile) -> Option<Arc<dyn StreamStore>> {
        let stores = self.0.stores.get()?;
        match io_profile {
            IoProfile::Memory => Some(stores.memory.clone()),
            IoProfile::Durable => stores.durable.clone(),
            IoProfile::Shared => stores.shared.get().cloned(),
            _ => None,
        }
    }

    /// When records are too old.
    pub(super) fn ages(&self) -> &Ages {
        &self.0.ages
    }

    /// Records were appended at this time; says whether the actor has to hear of it, because they are the first of their stream that will be too old.
    pub(crate) fn note_age(&self, stream: &Stream, at: Timestamp) -> bool {
        let due = stream.first_due(at);
        if let Some(due) = due {
            self.0.ages.note(stream.id, due);
        }
        due.is_some()
    }

    /// The open stream with this identity.
    pub(crate) fn get(&self, id: FileId) -> Option<Arc<Stream>> {
        self.0.open.get(&id).map(|open| open.clone())
    }

    /// Lists the stream as open; gives the one that is open already, if one is.
    pub(super) fn open(&self, stream: Stream) -> Result<Arc<Stream>, Refusal> {
        let place = self.0.open.entry(stream.id);
        // Under the lock of its place, under which it is ended: who ends all comes to it later, or has said so before.
        if self.0.ended.load(Ordering::SeqCst) {
            return Err(Refusal::Down);
        }
        match place {
            Entry::Occupied(there) => Ok(there.get().clone()),
            Entry::Vacant(place) => {
                let more = |count: usize| (count < STREAMS_MAX).then_some(count + 1);
                let counted = self.0.open_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
                counted.map_err(|_| Refusal::TooManyStreams)?;
                let stream = Arc::new(stream);
                place.insert(stream.clone());
                Ok(stream)
            }
        }
    }

    /// Lists the stream as open no more.
    fn close(&self, id: FileId) -> Option<Arc<Stream>> {
        let (_, closed) = self.0.open.remove(&id)?;
        self.0.open_count.fetch_sub(1, Ordering::Relaxed);
        Some(closed)
    }

    /// What is counted of all streams.
    pub(super) fn totals(&self) -> &Arc<Totals> {
        &self.0.totals
    }

    /// Notes what the entry of a stream is now, if it is open.
    pub(crate) fn see(&self, metadata: &Arc<FileMetadata>) {
        if let Some(stream) = self.get(metadata.file_id) {
            stream.see(metadata);
        }
    }

    /// Where the groups of this stream are asked.
    pub(crate) fn desk(&self, env: &Env, stream: &Stream) -> Result<Arc<Desk>, Refusal> {
        let desk = stream.desk.get_or_init(|| {
            let desk = Desk::new(env, stream.store().clone(), stream.id, self.0.group_totals.clone());
            self.0.desks.lock().insert(stream.id, desk.clone());
            desk
        });
        // It may have been closed meanwhile, and nobody would take it out of the list again.
        stream.check().inspect_err(|_| self.forget_desk(stream.id, desk))?;
        Ok(desk.clone())
    }

    fn forget_desk(&self, id: FileId, desk: &Arc<Desk>) {
        let mut desks = self.0.desks.lock();
        if desks.get(&id).is_some_and(|there| Arc::ptr_eq(there, desk)) {
            desks.remove(&id);
        }
    }

    /// From now on this life may have records of the stream.
    pub(crate) fn note_holder(&self, life: LifeId, id: FileId) {
        // The kernel's own life ends with the kernel, and with that all.
        if life != LifeId::KERNEL {
            self.0.holders.lock().entry(life).or_default().insert(id);
        }
    }

    /// A life is over: the records that are tied to it are given to others. Does not wait.
    pub(crate) fn end_life(&self, life: LifeId) {
        let held = self.0.holders.lock().remove(&life);
        for id in held.into_iter().flatten() {
            let desk = self.0.desks.lock().get(&id).cloned();
            if let Some(desk) = desk {
                desk.leave(life);
            }
        }
    }

    /// The streams whose groups were asked since the start, with their desks.
    pub(crate) fn shared(&self) -> Vec<(FileId, Arc<Desk>)> {
        let mut desks: Vec<_> = self.0.desks.lock().iter().map(|(id, desk)| (*id, desk.clone())).collect();
        desks.sort_by_key(|(id, _)| *id);
        desks
    }

    /// The entry of this stream is gone. Who waits is told by a task of its own, because the caller may hold what a waker needs.
    pub(super) fn drop_stream(&self, env: &Env, tree: TreeId, id: FileId) {
        self.note_dropped(tree, id);
        let open = self.close(id);
        self.0.desks.lock().remove(&id);
        if let Some(stream) = open {
            env.spawn("streams.removed", async move { stream.remove() });
        }
    }

    /// The records of this stream are to be removed, whose entry was in `tree`.
    pub(super) fn note_dropped(&self, tree: TreeId, id: FileId) {
        self.0.dropped.lock().insert(id, tree);
    }

    /// The mount with this root is detached. Its streams on disk are there when it comes back, those in memory are not.
    pub(super) fn close_mount(&self, env: &Env, mount: FileId) {
        // Who opens one meanwhile finds behind that that its mount is gone.
        let of_it = self.all().into_iter().filter(|stream| stream.mount == mount);
        let closed = of_it.filter_map(|stream| self.close(stream.id)).collect();
        self.put_away(env, closed);
    }

    /// As [`close_mount`](Self::close_mount), of one stream of it.
    pub(super) fn close_stream(&self, env: &Env, id: FileId) {
        self.put_away(env, self.close(id).into_iter().collect());
    }

    fn put_away(&self, env: &Env, closed: Vec<Arc<Stream>>) {
        if closed.is_empty() {
            return;
        }
        for stream in &closed {
            self.0.desks.lock().remove(&stream.id);
        }
        // Those in memory alone: others wait for the mount to come again.
        for stream in closed.iter().filter(|stream| stream.io_profile == IoProfile::Memory) {
            self.note_dropped(TreeId::ROOT, stream.id);
        }
        env.spawn("streams.removed", async move { closed.iter().for_each(|stream| stream.remove()) });
    }

    /// Streams whose records are to be removed.
    pub(super) fn dropped(&self) -> Vec<(FileId, TreeId)> {
        self.0.dropped.lock().iter().map(|(id, tree)| (*id, *tree)).collect()
    }

    /// Removes the records of a stream, wherever they are, and its groups. May be repeated.
    pub(super) async fn remove_records(&self, id: FileId) -> Result<(), StreamError> {
        for io_profile in [IoProfile::Memory, IoProfile::Shared, IoProfile::Durable] {
            if let Some(store) = self.store(io_profile) {
                store.remove(id).await?;
                store.remove(log_of(id)).await?;
            }
        }
        Ok(())
    }

    /// The records of this stream are removed.
    pub(super) fn is_reaped(&self, id: FileId) {
        self.0.dropped.lock().remove(&id);
    }

    /// The kernel has ended: nobody waits any longer, and nothing is opened. May be repeated.
    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
        self.all().iter().for_each(|stream| stream.end());
    }

    /// The open streams, by zone and path, at most `limit`.
    pub(crate) fn list(&self, limit: usize) -> Vec<StreamEntry> {
        let mut entries: Vec<StreamEntry> = self.all().iter().map(|stream| stream.entry()).collect();
        entries.sort_by(|a, b| (&a.zone, &a.path, a.id).cmp(&(&b.zone, &b.path, b.id)));
        entries.truncate(limit);
        entries
    }

    /// The open stream with this identity, as a listing tells of it.
    pub(crate) fn entry(&self, id: FileId) -> Option<StreamEntry> {
        self.get(id).map(|stream| stream.entry())
    }

    /// The groups of open streams that were asked since the start, at most `limit`.
    pub(crate) fn groups(&self, limit: usize) -> Vec<GroupEntry> {
        let mut found = Vec::new();
        for (id, desk) in self.shared() {
            let Some(entry) = self.entry(id) else { continue };
            let state = entry.state.unwrap_or_default();
            let infos = |groups: &Groups| -> Vec<GroupInfo> {
                groups.iter().map(|(name, group)| info(name, group, &state)).collect()
            };
            for group in desk.peek(infos).unwrap_or_default() {
                let (zone, path) = (entry.zone.clone(), entry.path.clone());
                found.push(GroupEntry { stream: id, zone, path, group });
            }
            if found.len() >= limit {
                found.truncate(limit);
                break;
            }
        }
        found
    }

    /// What was counted. Visits each stream.
    pub(crate) fn statistics(&self) -> StreamStatistics {
        let Totals { appends, appended, read } = &*self.0.totals;
        let dropped = self.0.dropped.lock().len();
        let [taken, taken_again, acknowledged, dead] =
            [0, 1, 2, 3].map(|n: usize| self.0.group_totals[n].load(Ordering::Relaxed));
        let mut counted = StreamStatistics {
            dropped,
            appends: appends.sum(),
            appended: appended.sum(),
            read: read.sum(),
            aged: self.0.ages.gone(),
            taken,
            taken_again,
            acknowledged,
            dead,
            ..StreamStatistics::default()
        };
        for (_, desk) in self.shared() {
            counted.groups += desk.peek(Groups::len).unwrap_or_default();
        }
        for stream in self.all() {
            counted.open += 1;
            counted.bytes += stream.state().map_or(0, |state| state.bytes);
            counted.readers_waiting += stream.readers_waiting();
        }
        counted
    }

    fn all(&self) -> Vec<Arc<Stream>> {
        self.0.open.iter().map(|open| open.clone()).collect()
    }
}

impl fmt::Debug for StreamTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTable").field("open", &self.0.open_count).finish_non_exhaustive()
    }
}
