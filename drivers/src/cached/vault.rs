//! The folder in which what is cached and what is pending lies: an index and blobs, of all mounts of one data folder.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_actors::{Env, Pool, PoolError};
use nexus_kernel::hal::{
    Batch, Change, ContentStore, Entry, EntryOutcome, Metastore, Precondition, RowKey, StoreError,
    Table as Rows, TreeId,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, Op, OpId, Timestamp, VPath};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::calls::outlive;
use super::damage::put_aside;
use super::marks::Marks;
use super::place::Place;
use super::rows::{FileRow, PieceRow, PlaceId, decode, of_path_key, of_piece_key, state_of};
use super::table::Piece;
use crate::cas::Cas;
use crate::memory::{MemoryMetastore, MemoryTransport};
use crate::packs::Packs;
use crate::wal::{WalConfig, WalMetastore};

/// Where the index is in the folder.
pub(super) const INDEX: &str = "index";

/// Where the blobs are in the folder.
const BLOBS: &str = "blobs";

/// How many threads do what blocks.
const THREADS: usize = 4;

/// How many such jobs wait.
const JOBS_MAX: usize = 256;

/// How many entries may wait for the index before what need not be kept is not.
const WAITING_MAX: usize = 1_024;

/// How many rows are read at once when the folder is opened, and how many blobs are looked at.
const PAGE: usize = 1_024;

/// How long opening waits for who is about to close the folder, and between two looks.
const CLOSING_MAX: Duration = Duration::from_secs(5);
const CLOSING_STEP: Duration = Duration::from_millis(10);

/// The index and the blobs, opened once in a process for each folder.
pub struct Vault {
    env: Env,
    opened: Instant,
    pool: Pool,
    index: Arc<dyn Metastore>,
    blobs: Arc<dyn ContentStore>,
    /// Whether it is all gone with the process.
    volatile: bool,
    queue: Mutex<Queue>,
    is_folding: AtomicBool,
    /// What was to be done with entries of which nobody knows whether they are on disk: their blobs stay. All are of one batch: behind it the index takes no more.
    undecided: Mutex<Vec<Box<dyn Any + Send>>>,
    holdings: Mutex<Holdings>,
    /// A blob that was to be removed is.
    removed: Notify,
    places: Mutex<BTreeMap<PlaceId, Arc<Place>>>,
    /// Which stores may have something pending; none when no folder of the file system tells.
    marks: Option<Marks>,
    /// How many bytes came since stores that are not mounted made room.
    pub(super) owed: AtomicU64,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("volatile", &self.volatile).finish_non_exhaustive()
    }
}

/// Entries on their way to the index.
#[derive(Default)]
struct Queue {
    waiting: Vec<Job>,
    is_driven: bool,
}

struct Job {
    preconditions: Vec<Precondition>,
    changes: Vec<Change>,
    /// Whether it need not be on disk.
    lazy: bool,
    then: Then,
}

/// What is done when an entry was applied, in the order of entries: whether its preconditions held.
type Then = Box<dyn FnOnce(Result<bool, StoreError>) + Send>;

/// Which blobs somebody has.
#[derive(Debug, Default)]
struct Holdings {
    counts: HashMap<[u8; 32], u64>,
    /// Those that are being removed.
    dying: HashSet<[u8; 32]>,
}

/// A blob that is there as long as somebody has it, and while its vault is open goes with the last who does.
#[derive(Debug)]
pub(super) struct Blob {
    hash: [u8; 32],
    vault: Weak<Vault>,
}

impl Blob {
    pub(super) fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Some(vault) = self.vault.upgrade() {
            vault.let_go(self.hash);
        }
    }
}

/// The folders that this process has open.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Vault>>>> = LazyLock::new(Mutex::default);

impl Vault {
    /// The vault in `folder`, which is made when it is missing: the one that this process has open, or it is opened.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it; [`StoreError::Corrupt`] when it is damaged, and may hold what is nowhere else. One that holds nothing of
    /// the kind is put aside, and another is begun.
    pub async fn open(env: &Env, folder: &Path) -> Result<Arc<Self>, StoreError> {
        let pool = env.pool("cached", THREADS, JOBS_MAX);
        let failed = |e| StoreError::io(format!("opening {}", folder.display()), e);
        let made = folder.to_owned();
        let folder =
            in_pool(&pool, move || std::fs::create_dir_all(&made).and_then(|()| made.canonicalize()))
                .await?
                .map_err(failed)?;
        let (mut waited, mut is_mended) = (Duration::ZERO, false);
        loop {
            let open = OPEN.lock().get(&folder).and_then(Weak::upgrade);
            // One whose kernel has ended serves nobody: it is waited for as one of another process.
            if let Some(open) = open
                && in_pool(&open.pool, || ()).await.is_ok()
            {
                return Ok(open);
            }
            match Self::open_here(env, &pool, &folder).await {
                Ok(vault) => {
                    let mut open = OPEN.lock();
                    open.retain(|_, vault| vault.strong_count() > 0);
                    open.insert(folder, Arc::downgrade(&vault));
                    return Ok(vault);
                }
                // Somebody is about to open it here, or to close it.
                Err(StoreError::Locked { .. }) if waited < CLOSING_MAX => {
                    env.sleep(CLOSING_STEP).await;
                    waited += CLOSING_STEP;
                }
                Err(found @ StoreError::Corrupt { .. }) if !is_mended => {
                    let folder = folder.clone();
                    in_pool(&pool, move || put_aside(&folder, &found)).await??;
                    is_mended = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn open_here(env: &Env, pool: &Pool, folder: &Path) -> Result<Arc<Self>, StoreError> {
        let index = folder.join(INDEX);
        let index = in_pool(pool, move || WalMetastore::open(index, WalConfig::default())).await??;
        let blobs = Packs::open(folder.join(BLOBS), pool.clone(), env.random()).await?;
        let (index, blobs) = (Arc::new(index), Arc::new(Cas::new(blobs)));
        Self::of(env, pool.clone(), index, blobs, false, Some(folder.into())).await
    }

    /// A vault in memory, for who has no folder.
    ///
    /// # Errors
    /// None that is expected.
    pub async fn in_memory(env: &Env) -> Result<Arc<Self>, StoreError> {
        let pool = env.pool("cached", THREADS, JOBS_MAX);
        let blobs = Arc::new(Cas::new(MemoryTransport::new()));
        Self::on(env, pool, Arc::new(MemoryMetastore::new()), blobs, true).await
    }

    /// A vault of this index and these blobs, which nobody else uses. `volatile`: they are gone with the process.
    ///
    /// # Errors
    /// What cannot be read of them.
    pub async fn on(
        env: &Env,
        pool: Pool,
        index: Arc<dyn Metastore>,
        blobs: Arc<dyn ContentStore>,
        volatile: bool,
    ) -> Result<Arc<Self>, StoreError> {
        Self::of(env, pool, index, blobs, volatile, None).await
    }

    async fn of(
        env: &Env,
        pool: Pool,
        index: Arc<dyn Metastore>,
        blobs: Arc<dyn ContentStore>,
        volatile: bool,
        folder: Option<PathBuf>,
    ) -> Result<Arc<Self>, StoreError> {
        let rows = index.clone();
        let rows = in_pool(&pool, move || read_rows(&*rows)).await??;
        let pending = rows.files.iter().filter(|(_, _, row, _)| row.pending.is_some());
        let pending: BTreeSet<PlaceId> = pending.map(|(place, ..)| *place).collect();
        let marks = match folder {
            Some(folder) => {
                let begun = in_pool(&pool, move || Marks::begin(&folder, &pending)).await?;
                Some(begun.map_err(|e| StoreError::io("marking what is pending", e))?)
            }
            None => None,
        };
        let vault = Arc::new(Self {
            env: env.clone(),
            opened: env.now(),
            pool,
            index,
            blobs,
            volatile,
            queue: Mutex::default(),
            is_folding: AtomicBool::new(false),
            undecided: Mutex::default(),
            holdings: Mutex::default(),
            removed: Notify::new(),
            places: Mutex::default(),
            marks,
            owed: AtomicU64::new(0),
        });
        vault.take_up(rows);
        let sweeping = Arc::downgrade(&vault);
        env.spawn("cached.sweep", async move { sweep(&sweeping).await });
        Ok(vault)
    }

    /// Whether what it holds is gone with the process.
    pub(super) fn is_volatile(&self) -> bool {
        self.volatile
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// For how long it is open, in nanoseconds: a clock that nobody sets.
    pub(super) fn uptime(&self) -> u64 {
        let open = self.env.now().saturating_duration_since(self.opened);
        u64::try_from(open.as_nanos()).unwrap_or(u64::MAX)
    }

    /// What is known of the store `id`.
    pub(super) fn place(&self, id: PlaceId) -> Arc<Place> {
        self.places.lock().entry(id).or_insert_with(|| Arc::new(Place::new(id))).clone()
    }

    /// Whether something is pending for the store `id`.
    pub(super) fn has_pending(&self, id: PlaceId) -> bool {
        self.places.lock().get(&id).is_some_and(|place| place.table().pending_files() > 0)
    }

    /// All stores of which something is known, or was.
    pub(super) fn all_places(&self) -> Vec<Arc<Place>> {
        self.places.lock().values().cloned().collect()
    }

    /// Says beside the index that something may be pending for the store `id`, before anything is.
    pub(super) async fn mark(self: &Arc<Self>, id: PlaceId) -> Result<(), StoreError> {
        let vault = self.clone();
        let marked = in_pool(&self.pool, move || match &vault.marks {
            Some(marks) => marks.set(&id),
            None => Ok(()),
        });
        marked.await?.map_err(|e| StoreError::io("marking that something may be pending", e))
    }

    /// Takes that back, when the last mount of the store has ended with nothing pending.
    pub(super) fn unmark(self: &Arc<Self>, place: &Arc<Place>) {
        if self.marks.is_none() {
            return;
        }
        let (vault, place) = (self.clone(), place.clone());
        self.env.spawn("cached.unmark", async move {
            let pool = vault.pool.clone();
            let cleared = in_pool(&pool, move || match &vault.marks {
                Some(marks) => {
                    marks.clear(&place.id(), || place.bound().is_some() || place.table().pending_files() > 0)
                }
                None => Ok(()),
            });
            // It stays, then, until the folder is opened again.
            if let Ok(Err(error)) = cleared.await {
                tracing::warn!(%error, "a mark that something may be pending cannot be taken away");
            }
        });
    }

    /// Gives each store its files, with what there is of their content.
    fn take_up(self: &Arc<Self>, rows: Found) {
        let Found { files, mut pieces, calls } = rows;
        for (place, path, row, encoded) in files {
            let state = state_of(&path, &row.tag);
            let mut found = BTreeMap::new();
            for (index, piece) in pieces.remove(&(place, state)).unwrap_or_default() {
                let piece = match piece {
                    PieceRow::Inline(bytes) => Piece::Inline(bytes),
                    PieceRow::Blob { hash, length } => Piece::Blob(Arc::new(self.hold(hash)), length),
                };
                found.insert(index, piece);
            }
            self.place(place).table().restore(&path, &row, encoded, found);
        }
        for (place, path) in calls {
            self.place(place).table().restore_call(&path);
        }
        self.all_places().iter().for_each(|place| outlive(self, place));
        // What a crash left behind of files that have become others.
        let left = pieces.into_iter().flat_map(|((place, state), pieces)| {
            pieces.into_iter().map(move |(index, _)| {
                let key = [&place[..], &state, &index.to_be_bytes()].concat();
                Change::Delete(RowKey::new(Rows::Contents, key))
            })
        });
        let left: Vec<Change> = left.collect();
        for some in left.chunks(PAGE) {
            self.enter(Vec::new(), some.to_vec(), true, |_| {});
        }
    }

    /// Counts one more who has the blob, which is not being removed.
    fn hold(self: &Arc<Self>, hash: [u8; 32]) -> Blob {
        *self.holdings.lock().counts.entry(hash).or_default() += 1;
        Blob { hash, vault: Arc::downgrade(self) }
    }

    /// Makes `data` a blob. It is on disk when this returns.
    pub(super) async fn keep(self: &Arc<Self>, data: Bytes) -> Result<Arc<Blob>, StoreError> {
        let hash = *blake3::hash(&data).as_bytes();
        let blob = loop {
            let removed = self.removed.notified();
            {
                let mut holdings = self.holdings.lock();
                if !holdings.dying.contains(&hash) {
                    *holdings.counts.entry(hash).or_default() += 1;
                    break Blob { hash, vault: Arc::downgrade(self) };
                }
            }
            removed.await;
        };
        self.blobs.write(&ContentId::Blake3(hash), &[data]).await?;
        Ok(Arc::new(blob))
    }

    /// The part `range` of a blob, verified.
    pub(super) async fn read(&self, blob: &Blob, range: ByteRange) -> Result<Bytes, StoreError> {
        self.blobs.read(&ContentId::Blake3(blob.hash), range).await
    }

    /// All of a blob, looked at where it lies, whatever was verified before.
    pub(super) async fn examine(&self, blob: &Blob) -> Result<Bytes, StoreError> {
        self.blobs.examine(&ContentId::Blake3(blob.hash), ByteRange::ALL).await
    }

    /// One less has the blob. With the last one it is removed.
    fn let_go(self: Arc<Self>, hash: [u8; 32]) {
        let mut holdings = self.holdings.lock();
        let Some(count) = holdings.counts.get_mut(&hash) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        holdings.counts.remove(&hash);
        holdings.dying.insert(hash);
        drop(holdings);
        let vault = self.clone();
        self.env.spawn("cached.remove", async move { vault.remove(hash).await });
    }

    /// Removes a blob that is marked as dying.
    async fn remove(&self, hash: [u8; 32]) {
        match self.blobs.delete(&ContentId::Blake3(hash)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            // It takes space, and is swept when the folder is opened again.
            Err(error) => tracing::warn!(%error, "a blob of the cache cannot be removed"),
        }
        self.holdings.lock().dying.remove(&hash);
        self.removed.notify_waiters();
    }

    /// Whether so many entries wait for the index that what need not be kept is not.
    pub(super) fn is_behind(&self) -> bool {
        self.queue.lock().waiting.len() >= WAITING_MAX
    }

    /// Puts an entry in the queue. `then` is called when it was applied, in the order of entries: with whether the preconditions held. A `lazy` one need not be on
    /// disk for that.
    pub(super) fn enter(
        self: &Arc<Self>,
        preconditions: Vec<Precondition>,
        changes: Vec<Change>,
        lazy: bool,
        then: impl FnOnce(Result<bool, StoreError>) + Send + 'static,
    ) {
        let mut queue = self.queue.lock();
        queue.waiting.push(Job { preconditions, changes, lazy, then: Box::new(then) });
        if !std::mem::replace(&mut queue.is_driven, true) {
            let vault = self.clone();
            self.env.spawn("cached.commit", async move { vault.drive().await });
        }
    }

    /// As [`enter`](Self::enter), and gives what to wait for.
    pub(super) fn enter_and_wait<F: FnOnce(bool) + Send + 'static>(
        self: &Arc<Self>,
        preconditions: Vec<Precondition>,
        changes: Vec<Change>,
        then: F,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + use<F> {
        let (done, wait) = oneshot::channel();
        let vault = Arc::downgrade(self);
        self.enter(preconditions, changes, false, move |applied| {
            match (&applied, vault.upgrade()) {
                (Ok(held), _) => then(*held),
                // It may be on disk: what its rows name must stay. The next life knows.
                (Err(error), Some(vault)) if error.is_unknown() => {
                    vault.undecided.lock().push(Box::new(then));
                }
                _ => {}
            }
            // Nobody may be waiting any more.
            let _ = done.send(applied);
        });
        async move { wait.await.unwrap_or(Err(StoreError::Closed)) }
    }

    /// Applies what is in the queue, all that came meanwhile at once, until nothing is.
    async fn drive(self: Arc<Self>) {
        loop {
            let jobs = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.is_driven = false;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            let vault = self.clone();
            if let Err(error) = in_pool(&self.pool, move || vault.apply(jobs)).await {
                // Who waited for one of them is told that the store is closed.
                tracing::error!(%error, "entries of the cache were not applied");
            }
            self.fold();
        }
    }

    fn apply(&self, jobs: Vec<Job>) {
        let is_lazy = jobs.iter().all(|job| job.lazy);
        let mut batch = Batch::default();
        let mut thens = Vec::with_capacity(jobs.len());
        for job in jobs {
            batch.entries.push(self.entry(job.preconditions, job.changes));
            thens.push(job.then);
        }
        let appended = if is_lazy { self.index.append(&batch) } else { Ok(None) };
        let applied = match appended {
            Ok(Some(applied)) => Ok(applied),
            Ok(None) => self.index.apply(&batch),
            Err(error) => Err(error),
        };
        match applied {
            Ok(applied) => {
                for (then, outcome) in thens.into_iter().zip(applied.outcomes) {
                    then(Ok(!matches!(outcome, EntryOutcome::Refused { .. })));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the index of the cache takes no changes");
                thens.into_iter().for_each(|then| then(Err(error.clone())));
            }
        }
    }

    fn entry(&self, preconditions: Vec<Precondition>, changes: Vec<Change>) -> Entry {
        let (high, low) = (u128::from(self.env.random()), u128::from(self.env.random()));
        Entry {
            tree: TreeId::ROOT,
            op_id: OpId(high << 64 | low),
            repeatable: false,
            caller: Arc::from(""),
            op: Op::Write,
            path: VPath::root(),
            other: None,
            items: Vec::new(),
            at: Timestamp(self.env.wall()),
            told: None,
            preconditions,
            changes,
        }
    }

    /// Does what the index asks for beside its batches.
    fn fold(self: &Arc<Self>) {
        if !self.index.wants_upkeep() || self.is_folding.swap(true, Ordering::AcqRel) {
            return;
        }
        let vault = self.clone();
        self.env.spawn("cached.fold", async move {
            let index = vault.index.clone();
            let folded = in_pool(&vault.pool, move || index.upkeep()).await;
            if let Err(error) = folded.and_then(|folded| folded) {
                tracing::warn!(%error, "the index of the cache cannot be folded");
            }
            vault.is_folding.store(false, Ordering::Release);
        });
    }
}

/// What the state of a file is known by among pieces.
type State = [u8; 16];

/// Rows as they were found.
pub(super) struct Found {
    files: Vec<(PlaceId, String, FileRow, Bytes)>,
    pieces: BTreeMap<(PlaceId, State), Vec<(u32, PieceRow)>>,
    /// Where something may have been on its way to a store.
    calls: Vec<(PlaceId, String)>,
}

pub(super) fn read_rows(index: &dyn Metastore) -> Result<Found, StoreError> {
    let reader = index.reader()?;
    let mut found = Found { files: Vec::new(), pieces: BTreeMap::new(), calls: Vec::new() };
    for table in [Rows::Inodes, Rows::Contents, Rows::Dentries] {
        let all = RowKey::new(table, []);
        let mut after: Option<RowKey> = None;
        loop {
            let rows = reader.scan(&all, after.as_ref(), PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (key, row) in rows {
                if table == Rows::Dentries {
                    found.calls.extend(of_path_key(&key).map(|(place, path)| (place, path.to_owned())));
                } else if table == Rows::Inodes {
                    let Some((place, path)) = of_path_key(&key) else { continue };
                    found.files.push((place, path.to_owned(), decode(&key, &row)?, row));
                } else if let Some((place, state, index)) = of_piece_key(&key) {
                    found.pieces.entry((place, state)).or_default().push((index, decode(&key, &row)?));
                }
            }
        }
    }
    Ok(found)
}

/// Removes what a crash left of blobs that no row names, and gives their space back.
async fn sweep(vault: &Weak<Vault>) {
    let mut after: Option<ContentId> = None;
    let mut removed = false;
    loop {
        let Some(vault) = vault.upgrade() else { return };
        let page = match vault.blobs.list(after.as_ref(), PAGE).await {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "the blobs of the cache cannot be listed"),
        };
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        for id in &page {
            let Some(hash) = id.blake3() else { continue };
            let is_left = {
                let mut holdings = vault.holdings.lock();
                !holdings.counts.contains_key(hash) && holdings.dying.insert(*hash)
            };
            if is_left {
                vault.remove(*hash).await;
                removed = true;
            }
        }
    }
    if let Some(vault) = vault.upgrade().filter(|_| removed) {
        vault.reclaim().await;
    }
}

impl Vault {
    /// Gives back the space of what was removed.
    pub(super) async fn reclaim(&self) {
        loop {
            match self.blobs.reclaim().await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::warn!(%error, "space of the cache cannot be given back"),
            }
        }
    }
}

/// Runs what blocks.
async fn in_pool<T: Send + 'static>(
    pool: &Pool,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    pool.run(job).await.map_err(|error| match error {
        PoolError::Closed => StoreError::Closed,
        panicked => StoreError::Backend { what: "the cache".into(), cause: panicked.to_string() },
    })
}
