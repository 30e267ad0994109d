//! The pipes that are open: by the identity of their entries, and by the paths that lead to them.
//!
//! A path that was followed to a pipe is noted here, with the place of the routes and of the namespace that it was followed in. As long as
//! those are the same it leads there still: so a warm read or write is one look into a small snapshot, under an epoch pin, and costs
//! neither a route nor a look into the metadata cache. A filter of counters tells most other paths apart with one load.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use nexus_actors::{Env, Snap};
use nexus_messages::syscall::IoProfile;
use nexus_messages::{FileId, FileMetadata, LifeId, VPath, ZoneId};
use parking_lot::Mutex;

use super::end::OpenEnd;
use super::messages::OpenPipe;
use super::once::Remembered;
use super::pipe::{Holder, Pipe, Refusal, Side, Totals};
use super::shared::SharedPlace;
use super::view::{PipeEntry, PipeStatistics};
use super::{PIPES_BYTES_MAX, PIPES_MAX};
use crate::metrics::Lines;

/// Snapshots of paths. Noting a path copies one of them.
const SHARDS: usize = 64;

/// The bits of a path's hash from here on choose its shard; the table in the shard uses the lowest and the highest.
const SHARD_BITS_FROM: u32 = 40;

/// Counters of the filter.
const FILTER: usize = 4_096;

/// The bits of a path's hash from here on choose its counter.
const FILTER_BITS_FROM: u32 = 34;

/// How many paths of one pipe are noted: it has one in each zone that sees it.
const PATHS_MAX: usize = 8;

const _: () = assert!(SHARDS.is_power_of_two() && FILTER.is_power_of_two());

/// The open pipes. Cloning gives another handle on the same table.
///
/// Nothing here waits longer than a few instructions under a mutex, and a copy of a shard when a path is noted or forgotten.
#[derive(Clone)]
pub(crate) struct PipeTable(Arc<Inner>);

struct Inner {
    pipes: Mutex<Pipes>,
    paths: Box<[Snap<HashTable<Arc<Known>>>]>,
    /// The paths that are noted of each pipe, the oldest first. Invariant: `paths` and `filter` are changed under this lock alone.
    noted: Mutex<HashMap<FileId, Vec<Arc<Known>>>>,
    filter: Box<[AtomicU32]>,
    /// The ends that go with a life.
    lives: Mutex<HashMap<LifeId, Ends>>,
    totals: Arc<Totals>,
    remembered: Remembered,
    /// How often something that was noted was forgotten because it changed. Changed under the lock of `noted`.
    changes: AtomicU64,
    ended: AtomicBool,
    /// Where those are that processes share.
    shared: OnceLock<SharedPlace>,
}

/// Ends of pipes, by their numbers.
type Ends = Vec<(Arc<Pipe>, u64)>;

#[derive(Default)]
struct Pipes {
    open: HashMap<FileId, Arc<Pipe>>,
    /// What those hold together that are in memory of this process.
    capacity: u64,
}

/// A path that leads to a pipe.
#[derive(Debug)]
pub(crate) struct Known {
    zone: ZoneId,
    path: VPath,
    pub(crate) pipe: Arc<Pipe>,
    /// The entry, as a reply to a reader tells of it.
    pub(crate) metadata: Arc<FileMetadata>,
    /// The same for writers: so that the two sides of a pipe do not count their references in one place.
    pub(crate) for_writers: Arc<FileMetadata>,
    /// The namespace generation of the mount, and which it was.
    generation: (Arc<AtomicU64>, u64),
    /// The version of the routes.
    routes: u64,
}

impl Known {
    /// That `path`, as `zone` sees it, leads to `pipe` while neither the routes nor the namespace generation of the mount has changed: they are as they were
    /// before the path was followed.
    pub(crate) fn new(
        zone: ZoneId,
        path: VPath,
        pipe: Arc<Pipe>,
        metadata: Arc<FileMetadata>,
        generation: (Arc<AtomicU64>, u64),
        routes: u64,
    ) -> Self {
        let for_writers = Arc::new((*metadata).clone());
        Self { zone, path, pipe, metadata, for_writers, generation, routes }
    }

    #[inline]
    fn holds(&self, routes: u64) -> bool {
        // Acquire pairs with the release that raises it: who sees the old one comes before the change.
        self.routes == routes && self.generation.0.load(Ordering::Acquire) == self.generation.1
    }
}

impl PipeTable {
    pub(crate) fn new() -> Self {
        let paths = std::iter::repeat_with(|| Snap::new(HashTable::new())).take(SHARDS).collect();
        let filter = std::iter::repeat_with(AtomicU32::default).take(FILTER).collect();
        let totals = Arc::new(Lines::new(Default::default));
        Self(Arc::new(Inner {
            pipes: Mutex::default(),
            paths,
            noted: Mutex::default(),
            filter,
            lives: Mutex::default(),
            totals,
            remembered: Remembered::default(),
            changes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            shared: OnceLock::new(),
        }))
    }

    pub(super) fn set_shared(&self, place: SharedPlace) {
        let set = self.0.shared.set(place);
        debug_assert!(set.is_ok(), "a kernel gets its shared memory once");
    }

    /// Where pipes are that processes share, if there is a place for them.
    pub(crate) fn shared(&self) -> Option<&SharedPlace> {
        self.0.shared.get()
    }

    /// Whether another pipe may be opened, as things are, if there is memory for it.
    pub(crate) fn has_place(&self) -> bool {
        self.0.pipes.lock().open.len() < PIPES_MAX
    }

    /// Whether `path` may be one that is noted. One load.
    #[inline]
    pub(crate) fn may_know(&self, path: &VPath) -> bool {
        // Orders nothing: who notes a path does so for those who come later.
        self.0.counter(path).load(Ordering::Relaxed) != 0
    }

    /// Shows `look` what `path` leads to, when it is noted and leads there still. `look` must not block.
    #[inline]
    pub(crate) fn known<R>(
        &self,
        routes: u64,
        zone: &ZoneId,
        path: &VPath,
        look: impl FnOnce(&Arc<Known>) -> R,
    ) -> Option<R> {
        self.0.shard(path).read(|paths| {
            let known = paths.find(path.hash64(), |known| known.path == *path && known.zone == *zone)?;
            known.holds(routes).then(|| look(known))
        })
    }

    /// How often pipes and their entries have changed: to be read before a path is followed that is to be [noted](Self::note).
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// Notes a path, unless some pipe has changed since `changes` was read: then what was found may be old. What was noted of the path before, or of the pipe
    /// too often, is forgotten.
    pub(crate) fn note(&self, known: Known, changes: u64) {
        let known = Arc::new(known);
        known.pipe.see(&known.metadata);
        let mut noted = self.0.noted.lock();
        // A pipe that is removed meanwhile is taken out under this lock, after its state has changed.
        if !known.pipe.is_open() || self.changes() != changes {
            return;
        }
        let same = |other: &Known| other.path == known.path && other.zone == known.zone;
        let before = self
            .0
            .shard(&known.path)
            .read(|paths| paths.find(known.path.hash64(), |other| same(other)).cloned());
        if let Some(before) = before {
            self.0.forget(&mut noted, &before);
        }
        let of_pipe = noted.entry(known.pipe.id).or_default();
        let oldest = (of_pipe.len() >= PATHS_MAX).then(|| of_pipe[0].clone());
        if let Some(oldest) = oldest {
            self.0.forget(&mut noted, &oldest);
        }
        noted.entry(known.pipe.id).or_default().push(known.clone());
        self.0.counter(&known.path).fetch_add(1, Ordering::Relaxed);
        self.0.change(&known.path, |paths| {
            paths.insert_unique(known.path.hash64(), known.clone(), |known| known.path.hash64());
        });
    }

    /// What is noted of the pipe `id` is no longer so: something of its entry has changed.
    pub(crate) fn forget(&self, id: FileId) {
        let mut noted = self.0.noted.lock();
        // Releases what was published before to who reads it, and then finds that.
        self.0.changes.fetch_add(1, Ordering::Release);
        for known in noted.remove(&id).unwrap_or_default() {
            self.0.forget(&mut noted, &known);
        }
    }

    /// The open pipe with this identity.
    pub(crate) fn get(&self, id: FileId) -> Option<Arc<Pipe>> {
        self.0.pipes.lock().open.get(&id).cloned()
    }

    /// As [`OpenPipe`], whether its entry is there or not; says whether the pipe was opened just now.
    pub(super) fn open(&self, m: OpenPipe) -> Result<(Arc<Pipe>, bool), Refusal> {
        let id = m.metadata.file_id;
        let mut pipes = self.0.pipes.lock();
        if let Some(open) = pipes.open.get(&id) {
            return Ok((open.clone(), false));
        }
        // Under the lock under which all are ended.
        if self.0.ended.load(Ordering::Relaxed) {
            return Err(Refusal::Down);
        }
        let spec = m.metadata.pipe().ok_or(Refusal::Unknown)?;
        let capacity = if spec.io_profile == IoProfile::Shared { 0 } else { u64::from(spec.capacity) };
        if pipes.open.len() >= PIPES_MAX || pipes.capacity.saturating_add(capacity) > PIPES_BYTES_MAX {
            return Err(Refusal::TooManyPipes);
        }
        let shared = match spec.io_profile {
            IoProfile::Memory | IoProfile::Stdio => None,
            IoProfile::Shared => {
                let pipe = m.shared.and_then(|shared| shared.lock().take()).ok_or(Refusal::Unknown)?;
                // Who had opened it before, and what had become of it then, is no more.
                pipe.change_flags(0, u64::MAX);
                Some((pipe, self.shared().ok_or(Refusal::Unknown)?.sleepers.clone()))
            }
            _ => return Err(Refusal::Unknown),
        };
        let pipe = Arc::new(Pipe::new(
            m.mount,
            m.metadata,
            shared,
            self.0.totals.clone(),
            self.0.remembered.clone(),
        )?);
        pipes.capacity += capacity;
        pipes.open.insert(id, pipe.clone());
        Ok((pipe, true))
    }

    /// The entries of these pipes are removed: who waits for one is told, by a task of its own, because the caller may hold what a waker needs.
    pub(crate) fn remove(&self, env: &Env, ids: impl IntoIterator<Item = FileId>) {
        self.close(env, ids.into_iter().collect(), true);
    }

    /// Closes pipes, and lets go of what is in memory that processes share, if that is to be.
    fn close(&self, env: &Env, mut ids: Vec<FileId>, lets_go: bool) {
        let removed: Vec<Arc<Pipe>> = {
            let mut pipes = self.0.pipes.lock();
            ids.iter().filter_map(|id| pipes.take(*id)).collect()
        };
        // Most are in memory alone, and nothing is left of them.
        ids.retain(|id| !removed.iter().any(|pipe| pipe.id == *id && !pipe.is_shared()));
        // Of one that was not opened since the start there may be memory, too.
        let shared = self.shared().filter(|_| lets_go && !ids.is_empty()).cloned();
        if removed.is_empty() && shared.is_none() {
            return;
        }
        for pipe in &removed {
            pipe.remove();
            self.forget(pipe.id);
        }
        env.spawn("pipes.removed", async move {
            removed.iter().for_each(|pipe| pipe.wake_all());
            if let Some(shared) = shared {
                shared.remove(ids).await;
            }
        });
    }

    /// The mount with this root is detached, and its pipes with it.
    pub(crate) fn close_mount(&self, env: &Env, mount: FileId) {
        let ids: Vec<FileId> = {
            let pipes = self.0.pipes.lock();
            pipes.open.values().filter(|pipe| pipe.mount == mount).map(|pipe| pipe.id).collect()
        };
        // The mount may come again, and with it what they hold there.
        self.close(env, ids, false);
    }

    /// The kernel has ended: nobody waits any longer, and nothing is opened. May be repeated.
    pub(crate) fn end(&self) {
        let open: Vec<Arc<Pipe>> = {
            let pipes = self.0.pipes.lock();
            self.0.ended.store(true, Ordering::Relaxed);
            pipes.open.values().cloned().collect()
        };
        open.iter().for_each(|pipe| pipe.end());
    }

    /// Opens an end of `pipe` for `agent`, which is closed at the latest with this life.
    pub(crate) fn open_end(
        &self,
        pipe: &Arc<Pipe>,
        side: Side,
        holder: Holder,
        agent: &Arc<str>,
        life: LifeId,
    ) -> Result<OpenEnd, Refusal> {
        let end = pipe.open_end(side, holder, agent, life)?;
        // The kernel's own life ends with all pipes.
        if life != LifeId::KERNEL {
            self.0.lives.lock().entry(life).or_default().push((pipe.clone(), end.number));
        }
        Ok(end)
    }

    /// Closes an end. May be repeated.
    pub(crate) fn close_end(&self, pipe: &Arc<Pipe>, end: &OpenEnd) {
        if end.life != LifeId::KERNEL {
            let mut lives = self.0.lives.lock();
            if let Some(ends) = lives.get_mut(&end.life) {
                ends.retain(|(other, number)| !(Arc::ptr_eq(other, pipe) && *number == end.number));
                if ends.is_empty() {
                    lives.remove(&end.life);
                }
            }
        }
        pipe.close_end(end.number);
    }

    /// Closes all ends that are tied to this life, and ends the calls that wait through them. May be repeated.
    pub(crate) fn end_life(&self, life: LifeId) {
        let ends = self.0.lives.lock().remove(&life).unwrap_or_default();
        for (pipe, number) in ends {
            pipe.close_end(number);
        }
    }

    /// The open pipes, by zone and path, at most `limit`.
    pub(crate) fn list(&self, limit: usize) -> Vec<PipeEntry> {
        let mut entries: Vec<PipeEntry> = self.all().iter().map(|pipe| pipe.entry()).collect();
        entries.sort_by(|a, b| (&a.zone, &a.path, a.id).cmp(&(&b.zone, &b.path, b.id)));
        entries.truncate(limit);
        entries
    }

    /// The open pipe with this identity, as a listing tells of it.
    pub(crate) fn entry(&self, id: FileId) -> Option<PipeEntry> {
        self.get(id).map(|pipe| pipe.entry())
    }

    /// What was counted. Visits each pipe.
    pub(crate) fn statistics(&self) -> PipeStatistics {
        let mut statistics = PipeStatistics {
            written: self.0.totals.sum(|[written, _]| written),
            read: self.0.totals.sum(|[_, read]| read),
            ..PipeStatistics::default()
        };
        for pipe in self.all() {
            let ((messages, bytes), (readers, writers)) = pipe.load();
            statistics.open += 1;
            statistics.capacity += pipe.capacity();
            statistics.messages += messages;
            statistics.bytes += bytes;
            statistics.readers_waiting += readers;
            statistics.writers_waiting += writers;
        }
        statistics
    }

    fn all(&self) -> Vec<Arc<Pipe>> {
        self.0.pipes.lock().open.values().cloned().collect()
    }
}

impl Pipes {
    fn take(&mut self, id: FileId) -> Option<Arc<Pipe>> {
        let pipe = self.open.remove(&id)?;
        self.capacity -= if pipe.is_shared() { 0 } else { pipe.capacity() };
        Some(pipe)
    }
}

impl Inner {
    #[inline]
    fn shard(&self, path: &VPath) -> &Snap<HashTable<Arc<Known>>> {
        &self.paths[(path.hash64() >> SHARD_BITS_FROM) as usize & (SHARDS - 1)]
    }

    #[inline]
    fn counter(&self, path: &VPath) -> &AtomicU32 {
        &self.filter[(path.hash64() >> FILTER_BITS_FROM) as usize & (FILTER - 1)]
    }

    /// Takes `known` out of all but what its pipe itself had noted, if it is there.
    fn forget(&self, noted: &mut HashMap<FileId, Vec<Arc<Known>>>, known: &Arc<Known>) {
        if let Some(of_pipe) = noted.get_mut(&known.pipe.id) {
            of_pipe.retain(|other| !Arc::ptr_eq(other, known));
        }
        let was_there = self.change(&known.path, |paths| {
            let found = paths.find_entry(known.path.hash64(), |other| Arc::ptr_eq(other, known));
            found.map(|found| drop(found.remove())).is_ok()
        });
        if was_there {
            self.counter(&known.path).fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Publishes a changed copy of the shard of `path`. The caller has locked what is noted.
    fn change<R>(&self, path: &VPath, change: impl FnOnce(&mut HashTable<Arc<Known>>) -> R) -> R {
        let shard = self.shard(path);
        let mut paths = shard.read(HashTable::clone);
        let changed = change(&mut paths);
        // Whoever holds the lock is the only writer.
        let _ = shard.publish(0, paths);
        changed
    }
}

impl fmt::Debug for PipeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeTable").field("open", &self.0.pipes.lock().open.len()).finish_non_exhaustive()
    }
}
