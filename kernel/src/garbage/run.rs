//! One collection: rows of mounts that are gone, marks, sweep, space.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Caller, ContentId, FileId, Op, Timestamp, VPath};

use super::dead::{self, Dead};
use super::pins::Leaving;
use super::table::{Condemned, Key, MARKS_MAX, Marks};
use super::view::{Collection, CollectionState, Garbage};
use crate::content::{Hash, List};
use crate::hal::{Addressing, Change, ContentStore, Entry, ObjectStore, RowKey, StoreError, Table, TreeId};
use crate::kernel::Kernel;
use crate::mounts::{Guarded, Mount};
use crate::namespace::{InodeRow, MountRow, Placement, decode, encode, mount_root, root_of};
use crate::owned::Owned;
use crate::store::{CommitError, Store};

/// How many rows are read at once.
const PAGE: usize = 1_024;

/// How many rows with small content are read at once.
const CONTENTS_PAGE: usize = 256;

/// How many rows are removed by one entry.
pub(super) const REMOVED_MAX: usize = 128;

/// How many blobs are deleted at once: they share flushes.
const DELETIONS_MAX: usize = 64;

/// How many lists that were walked are remembered, so that copies are not walked again.
const WALKED_MAX: usize = 65_536;

/// How many contents of [`Condemned`] a row has.
const CONDEMNED_PAGE: usize = 4_096;

/// How often a store is asked to give back space.
const RECLAIMS_MAX: usize = 4_096;

/// What a row names, if it names content.
type Names = fn(&RowKey, &[u8]) -> Result<Option<Named>, StoreError>;

/// Content that a row names, and of a row of the history the root of the mount that keeps it.
type Named = (ContentId, Option<FileId>);

/// The tables whose rows name content. One to which rows are moved from another, in one entry, comes after it: a row that moves meanwhile is then
/// read in one of them.
const ROOTS: &[(Table, Names)] = &[(Table::Inodes, inode_names), (Table::History, past_names)];

fn inode_names(key: &RowKey, value: &[u8]) -> Result<Option<Named>, StoreError> {
    let row = decode::<InodeRow>(key, value)?;
    Ok(named(key, row.content_id, row.placement)?.map(|id| (id, None)))
}

fn past_names(key: &RowKey, value: &[u8]) -> Result<Option<Named>, StoreError> {
    let Some((id, placement, mount)) = root_of(key, value)? else { return Ok(None) };
    Ok(named(key, Some(id), placement)?.map(|id| (id, Some(mount))))
}

/// The content that the row at `key` names, which says twice how it is addressed. One that does not say the same both times is damaged, and nobody
/// knows what it names.
fn named(key: &RowKey, id: Option<ContentId>, placement: Placement) -> Result<Option<ContentId>, StoreError> {
    let fits = match placement {
        Placement::None => true,
        Placement::Records { .. } | Placement::Stdio { .. } | Placement::Shared { .. } => id.is_none(),
        Placement::Inline | Placement::Store => matches!(id, Some(ContentId::Blake3(_))),
        Placement::Chunked => matches!(id, Some(ContentId::Chunks(_))),
    };
    if fits {
        return Ok(id);
    }
    Err(StoreError::Corrupt {
        what: format!("row {key:?}"),
        found: format!(
            "{placement:?} content at {}; nothing is collected until the file that has it is written again or removed",
            id.map_or("no address".into(), |id| id.to_string())
        ),
    })
}

/// Why a collection goes no further.
#[derive(Debug)]
pub(super) enum Halt {
    /// Its collector is gone.
    Superseded,
    Failed(String),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Failed(format!("{error} ({})", error.kind().errno()))
    }
}

impl From<CommitError> for Halt {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Failed(error) | CommitError::Unknown(error) => error.into(),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// A collection while it runs.
pub(super) struct Run {
    pub(super) kernel: Arc<Kernel>,
    pub(super) generation: u64,
    pub(super) number: u64,
    pub(super) dry_run: bool,
    grace: Duration,
    walked: BTreeSet<Hash>,
    /// Whether mounts are remembered whose stores are not open: what is in none that is may be in theirs.
    others: bool,
    /// The roots of all mounts that are remembered; none when that is not known.
    known: Option<BTreeSet<FileId>>,
    /// The roots of mounts whose stores failed meanwhile: as those that are not open, they are left out.
    failing: BTreeSet<FileId>,
    /// What a dry run would have removed before it marked.
    pub(super) dead: BTreeMap<TreeId, Dead>,
}

/// Ends what the pins remember for a collection, however that ends.
struct Round<'a>(&'a Garbage, u64);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.pins().end(self.1);
    }
}

/// What is done with content that nothing marks.
enum Verdict {
    Stays,
    /// It would go, and is only counted.
    Counts,
    Goes(Leaving),
}

impl Run {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        generation: u64,
        number: u64,
        dry_run: bool,
        grace: Duration,
    ) -> Self {
        Self {
            kernel,
            generation,
            number,
            dry_run,
            grace,
            walked: BTreeSet::new(),
            others: false,
            known: None,
            failing: BTreeSet::new(),
            dead: BTreeMap::new(),
        }
    }

    /// Collects, and tells how it went.
    pub(super) async fn collect(mut self) {
        let state = match self.all().await {
            Ok(()) => CollectionState::Done,
            Err(Halt::Superseded) => return,
            Err(Halt::Failed(cause)) => {
                tracing::error!(number = self.number, cause, "a collection of garbage was cut short");
                CollectionState::Failed { cause }
            }
        };
        let ended = Timestamp(self.kernel.env().wall());
        self.tell(|latest| (latest.state, latest.ended) = (state, Some(ended)));
        if let Some(done) = self.kernel.garbage().latest() {
            let (objects, bytes) = (done.freed.objects, done.freed.bytes);
            tracing::info!(
                number = self.number,
                objects,
                bytes,
                dry_run = self.dry_run,
                "garbage was collected"
            );
        }
    }

    async fn all(&mut self) -> Result<(), Halt> {
        self.bury_mounts().await?;
        let at = self.kernel.env().wall();
        let (mut condemned, pages) = self.condemned().await?;
        let kernel = self.kernel.clone();
        let pins = kernel.garbage().pins();
        let mut start = 0;
        let stores = loop {
            self.check()?;
            pins.begin(self.number);
            let round = Round(kernel.garbage(), self.number);
            self.state(CollectionState::Marking);
            self.walked.clear();
            let stores = self.stores().await?;
            let mut marks = Marks::new(start, MARKS_MAX);
            self.mark_rows(&mut marks, &stores).await?;
            if !self.dry_run {
                self.settle_commits(at).await?;
            }
            // After it: who began to hold a list later saw rows that are no older than the marks.
            for list in pins.lists() {
                self.mark_lists(&mut marks, &stores, list, true).await?;
            }
            let settle = move || {
                marks.settle();
                marks
            };
            let marks = self.aside(settle).await?;
            self.tell(|latest| latest.reachable += marks.len() as u64);
            self.state(CollectionState::Sweeping);
            self.sweep_rows(start, &marks, &mut condemned, at).await?;
            for mount in stores.iter().filter(|mount| !mount.is_read_only()) {
                if self.failing.contains(&mount.root) {
                    continue;
                }
                // All that can fail there is the store: the others go on.
                match self.sweep_store(mount, start, &marks, &mut condemned, at).await {
                    Err(Halt::Failed(cause)) => self.leave_out(mount, &cause),
                    swept => swept?,
                }
            }
            drop(round);
            match marks.last().checked_add(1) {
                Some(next) => start = next,
                None => break stores,
            }
        };
        if self.dry_run {
            return Ok(());
        }
        self.remember(condemned, pages).await?;
        self.state(CollectionState::Reclaiming);
        for mount in stores.iter().filter(|mount| !mount.is_read_only()) {
            if self.failing.contains(&mount.root) {
                continue;
            }
            match self.reclaim(mount).await {
                Err(Halt::Failed(cause)) => self.leave_out(mount, &cause),
                reclaimed => reclaimed?,
            }
        }
        Ok(())
    }

    /// Whether to go on.
    pub(super) fn check(&self) -> Result<(), Halt> {
        if self.kernel.garbage().is_current(self.generation) { Ok(()) } else { Err(Halt::Superseded) }
    }

    pub(super) fn tell(&self, change: impl FnOnce(&mut Collection)) {
        self.kernel.garbage().tell(self.number, change);
    }

    /// The store of the mount failed: from here on it is as one that is not open.
    fn leave_out(&mut self, mount: &Mount, cause: &dyn fmt::Display) {
        if self.failing.insert(mount.root) {
            tracing::warn!(mount = %mount.point, %cause, "a store failed, and is left out of the collection");
            self.tell(|latest| latest.failed.push(format!("{}: {cause}", mount.point)));
        }
    }

    fn state(&self, state: CollectionState) {
        self.tell(|latest| latest.state = state);
    }

    /// Runs what blocks or takes long where it holds up nobody.
    async fn aside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Halt> {
        let done = self.kernel.garbage().aside().run(job).await;
        done.map_err(|error| Halt::Failed(format!("reading rows: {error}")))
    }

    /// As [`aside`](Self::aside), for a look at the rows.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Halt> {
        self.check()?;
        let kernel = self.kernel.clone();
        Ok(self.aside(move || job(kernel.store())).await??)
    }

    /// An entry of the collection's own.
    pub(super) fn entry(&self, changes: Vec<Change>) -> Entry {
        Entry {
            tree: TreeId::ROOT,
            op_id: self.kernel.new_op_id(),
            repeatable: false,
            caller: Caller::KERNEL.into(),
            op: Op::Collect,
            path: VPath::root(),
            other: None,
            items: Vec::new(),
            told: None,
            at: Timestamp(self.kernel.env().wall()),
            preconditions: Vec::new(),
            changes,
        }
    }

    /// Commits `changes`, also when this collection ends meanwhile; until then `leaving` are not let go.
    async fn commit(&self, changes: Vec<Change>, leaving: Vec<Leaving>) -> Result<(), Halt> {
        Ok(self.commit_entry(self.entry(changes), leaving).await??)
    }

    /// As [`commit`](Self::commit).
    pub(super) async fn commit_entry(
        &self,
        entry: Entry,
        leaving: Vec<Leaving>,
    ) -> Result<Result<(), CommitError>, Halt> {
        self.check()?;
        let kernel = self.kernel.clone();
        let committed = Owned::from_start(self.kernel.env(), "garbage.commit", async move {
            kernel.store().commit(entry, Box::new(move |_| drop(leaving))).await
        });
        Ok(committed.await.map(drop))
    }

    /// Commits something, so that all that was committed before is on disk and published.
    async fn settle_commits(&self, at: u64) -> Result<(), Halt> {
        let key = RowKey::new(Table::Settings, *b"garbage/latest");
        self.commit(vec![Change::Put(key, encode(&at))], Vec::new()).await
    }

    /// The mounts whose stores are open, each store once.
    async fn stores(&mut self) -> Result<Vec<Arc<Mount>>, Halt> {
        let remembered = self.look(|store| {
            let found = page(store, &RowKey::new(Table::Mounts, Vec::new()), None, PAGE)?;
            let rows = found.iter().map(|(key, value)| decode::<MountRow>(key, value));
            let detached = rows.filter(|row| row.as_ref().map_or(true, |row| !row.attached)).count();
            // Of more than a page not all are known: then each is taken for one.
            let is_all = found.len() < PAGE;
            let roots: Result<BTreeSet<_>, _> = found.iter().map(|(key, _)| mount_root(key)).collect();
            Ok((detached, roots?, is_all))
        });
        let (detached, roots, is_all) = remembered.await?;
        let mounts = self.kernel.mounts().all();
        self.known = is_all.then(|| roots.into_iter().chain(mounts.iter().map(|mount| mount.root)).collect());
        let by_content = mounts.into_iter().filter(|mount| !mount.is_path_addressed());
        let (open, closed): (Vec<_>, Vec<_>) = by_content.partition(|mount| mount.has_driver());
        self.others = detached > 0 || !closed.is_empty();
        self.tell(|latest| latest.left_out = closed.iter().map(|mount| mount.point.to_string()).collect());
        let mut stores: Vec<Arc<Mount>> = Vec::new();
        for mount in open {
            if !stores.iter().any(|other| other.shares_store_with(&mount)) {
                stores.push(mount);
            }
        }
        Ok(stores)
    }

    /// Marks what the rows name.
    async fn mark_rows(&mut self, marks: &mut Marks, stores: &[Arc<Mount>]) -> Result<(), Halt> {
        for (table, names) in ROOTS {
            let mut after = None;
            loop {
                let (found, last) = self
                    .look(move |store| {
                        let rows = page(store, &RowKey::new(*table, Vec::new()), after.as_ref(), PAGE)?;
                        let last = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
                        let named = rows.into_iter().map(|(key, value)| Ok((names(&key, &value)?, key)));
                        Ok((named.collect::<Result<Vec<_>, StoreError>>()?, last))
                    })
                    .await?;
                let named =
                    found.into_iter().filter_map(|(id, key)| id.filter(|_| !self.would_be_gone(&key)));
                for (id, kept_by) in named.collect::<Vec<_>>() {
                    // Its store went with it, and nobody finds what was there by a path any more.
                    if kept_by
                        .is_some_and(|mount| self.known.as_ref().is_some_and(|known| !known.contains(&mount)))
                    {
                        continue;
                    }
                    match id {
                        ContentId::Blake3(hash) => marks.add(&hash),
                        ContentId::Chunks(root) => {
                            let lenient = self.others || self.dry_run;
                            self.mark_lists(marks, stores, root, lenient).await?;
                        }
                        _ => {}
                    }
                }
                match last {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Whether the row at `key` would be gone by now, were this no dry run.
    fn would_be_gone(&self, key: &RowKey) -> bool {
        if self.dead.is_empty() || key.table != Table::Inodes {
            return false;
        }
        let of = dead::place(key);
        of.is_some_and(|(tree, id)| self.dead.get(&tree).is_some_and(|dead| dead.has(id)))
    }

    /// Marks the list `root` with all that it tells. `lenient` says that it may be missing.
    async fn mark_lists(
        &mut self,
        marks: &mut Marks,
        stores: &[Arc<Mount>],
        root: Hash,
        lenient: bool,
    ) -> Result<(), Halt> {
        let mut waiting = vec![root];
        while let Some(hash) = waiting.pop() {
            marks.add(&hash);
            if !self.walked.insert(hash) {
                continue;
            }
            if self.walked.len() > WALKED_MAX {
                self.walked.clear();
            }
            self.check()?;
            let list = match self.list_in(stores, &hash).await? {
                Some(blob) => List::parse(blob),
                // It may be in a store that failed, of which nothing goes.
                None if lenient || !self.failing.is_empty() => continue,
                // Nobody knows which chunks it told: while that is so, none may go.
                None => Err("nothing".into()),
            };
            let list = list.map_err(|found| {
                let id = ContentId::Blake3(hash);
                Halt::Failed(format!("the chunk list {id} is damaged: {found}; nothing is collected until the file that has it is written again or removed"))
            })?;
            for entry in (0..list.entries()).filter_map(|index| list.entry(index)) {
                match list.level() {
                    0 => marks.add(&entry.hash),
                    _ => waiting.push(entry.hash),
                }
            }
        }
        Ok(())
    }

    async fn list_in(&mut self, stores: &[Arc<Mount>], hash: &Hash) -> Result<Option<Bytes>, Halt> {
        let id = ContentId::Blake3(*hash);
        if let Some(blob) = self.kernel.caches().content.get(&id) {
            return Ok(Some(blob));
        }
        for mount in stores {
            if self.failing.contains(&mount.root) {
                continue;
            }
            let driver = mount.lease().await;
            match contents(&driver)?.examine(&id, ByteRange::ALL).await {
                Ok(blob) => return Ok(Some(blob)),
                Err(StoreError::NotFound { .. }) => {}
                // What is damaged is there, and which chunks it tells is not known: while that is so, none may go.
                Err(error @ StoreError::Corrupt { .. }) => return Err(error.into()),
                Err(error) => self.leave_out(mount, &error),
            }
        }
        Ok(None)
    }

    fn judge(&self, hash: &Hash, size: u64, condemned: &mut Condemned, at: u64) -> Verdict {
        let since = condemned.since(hash, at);
        let grace = u64::try_from(self.grace.as_nanos()).unwrap_or(u64::MAX);
        if since.saturating_add(grace) > at {
            condemned.keep(hash, since);
            self.tell(|latest| latest.kept_by_grace.add(size));
            return Verdict::Stays;
        }
        match self.kernel.garbage().pins().take_away(self.number, hash) {
            None => {
                condemned.keep(hash, since);
                self.tell(|latest| latest.kept_by_pins.add(size));
                Verdict::Stays
            }
            Some(_) if self.dry_run => {
                self.tell(|latest| latest.freed.add(size));
                Verdict::Counts
            }
            Some(leaving) => Verdict::Goes(leaving),
        }
    }

    /// Removes rows of small content.
    async fn sweep_rows(
        &self,
        start: u64,
        marks: &Marks,
        condemned: &mut Condemned,
        at: u64,
    ) -> Result<(), Halt> {
        let mut after = before(start).map(|hash| RowKey::new(Table::Contents, hash));
        loop {
            let (found, last) = self
                .look(move |store| {
                    let all = RowKey::new(Table::Contents, Vec::new());
                    let rows = page(store, &all, after.as_ref(), CONTENTS_PAGE)?;
                    let last =
                        rows.last().filter(|_| rows.len() == CONTENTS_PAGE).map(|(key, _)| key.clone());
                    let sized = |(key, value): (RowKey, Bytes)| {
                        Some((Hash::try_from(&*key.bytes).ok()?, value.len() as u64))
                    };
                    Ok((rows.into_iter().filter_map(sized).collect::<Vec<_>>(), last))
                })
                .await?;
            let is_last = last.is_none() || found.last().is_some_and(|(hash, _)| !marks.covers(hash));
            let unmarked = found.into_iter().filter(|(hash, _)| marks.covers(hash) && !marks.has(hash));
            let unmarked: Vec<_> = unmarked.collect();
            for some in unmarked.chunks(REMOVED_MAX) {
                let (mut changes, mut leaving, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
                for (hash, size) in some {
                    if let Verdict::Goes(leaves) = self.judge(hash, *size, condemned, at) {
                        changes.push(Change::Delete(RowKey::new(Table::Contents, *hash)));
                        leaving.push(leaves);
                        sizes.push(*size);
                    }
                }
                if !changes.is_empty() {
                    self.commit(changes, leaving).await?;
                    self.tell(|latest| sizes.into_iter().for_each(|size| latest.freed.add(size)));
                }
            }
            if is_last {
                return Ok(());
            }
            after = last;
        }
    }

    /// Deletes blobs of the store of `mount`.
    async fn sweep_store(
        &self,
        mount: &Arc<Mount>,
        start: u64,
        marks: &Marks,
        condemned: &mut Condemned,
        at: u64,
    ) -> Result<(), Halt> {
        let mut after = before(start).map(ContentId::Blake3);
        loop {
            self.check()?;
            let found = {
                let driver = mount.lease().await;
                contents(&driver)?.list(after.as_ref(), PAGE).await?
            };
            let Some(last) = found.last().cloned() else { return Ok(()) };
            let is_last = last.blake3().is_none_or(|hash| !marks.covers(hash));
            let mut going = Vec::new();
            for id in found {
                let Some(hash) = id.blake3().filter(|hash| marks.covers(hash) && !marks.has(hash)) else {
                    continue;
                };
                // What is damaged has no length that is known.
                let size = {
                    let driver = mount.lease().await;
                    contents(&driver)?.length(&id).await?.unwrap_or_default()
                };
                if let Verdict::Goes(leaving) = self.judge(hash, size, condemned, at) {
                    going.push((id, size, leaving));
                }
            }
            while !going.is_empty() {
                self.check()?;
                let some = going.drain(..going.len().min(DELETIONS_MAX));
                let mut deleted: FuturesUnordered<_> =
                    some.map(|(id, size, leaving)| self.delete(mount, id, size, leaving)).collect();
                while let Some(deleted) = deleted.next().await {
                    if let Some(size) = deleted? {
                        self.tell(|latest| latest.freed.add(size));
                    }
                }
            }
            if is_last {
                return Ok(());
            }
            after = Some(last);
        }
    }

    /// Deletes one blob, also when this collection ends meanwhile; until then nobody holds it. Gives its size, unless it was gone.
    fn delete(
        &self,
        mount: &Arc<Mount>,
        id: ContentId,
        size: u64,
        leaving: Leaving,
    ) -> Owned<Result<Option<u64>, StoreError>> {
        let mount = mount.clone();
        Owned::from_start(self.kernel.env(), "garbage.delete", async move {
            let driver = mount.lease().await;
            let deleted = contents(&driver)?.delete(&id).await;
            drop(leaving);
            match deleted {
                Ok(()) => Ok(Some(size)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    async fn reclaim(&self, mount: &Arc<Mount>) -> Result<(), Halt> {
        for _ in 0..RECLAIMS_MAX {
            self.check()?;
            let driver = mount.lease().await;
            let bytes = contents(&driver)?.reclaim().await?;
            if bytes == 0 {
                break;
            }
            self.tell(|latest| latest.reclaimed_bytes += bytes);
        }
        Ok(())
    }

    /// What earlier collections condemned, and how many rows that takes.
    async fn condemned(&self) -> Result<(Condemned, usize), Halt> {
        let (mut all, mut rows, mut after) = (Vec::new(), 0, None);
        loop {
            let found = self
                .look(move |store| page(store, &condemned_key(None), after.as_ref(), CONTENTS_PAGE))
                .await?;
            let last = found.last().filter(|_| found.len() == CONTENTS_PAGE).map(|(key, _)| key.clone());
            rows += found.len();
            for (key, value) in found {
                // One that cannot be read costs grace, and nothing else.
                all.extend(decode::<Vec<(Key, u64)>>(&key, &value).unwrap_or_default());
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok((Condemned::of(all), rows)),
            }
        }
    }

    /// Leaves to the next collection what waits for the end of its grace. `before` rows are of the one before.
    async fn remember(&self, condemned: Condemned, before: usize) -> Result<(), Halt> {
        let next = condemned.into_next();
        let mut rows = 0;
        for some in next.chunks(CONDEMNED_PAGE) {
            self.commit(vec![Change::Put(condemned_key(Some(rows)), encode(&some))], Vec::new()).await?;
            rows += 1;
        }
        if rows < before {
            let gone = (rows..before).map(|row| Change::Delete(condemned_key(Some(row))));
            self.commit(gone.collect(), Vec::new()).await?;
        }
        Ok(())
    }
}

fn contents(driver: &Arc<Guarded>) -> Result<&dyn ContentStore, StoreError> {
    match driver.addressing() {
        Addressing::Content(store) => Ok(store),
        Addressing::Path(_) => Err(StoreError::NotSupported { what: "content by its hash" }),
    }
}

/// Some rows, by a view that is gone when this returns.
pub(super) fn page(
    store: &Store,
    prefix: &RowKey,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
    store.metastore().reader()?.scan(prefix, after, limit)
}

/// The last hash before those that begin at `start`.
fn before(start: u64) -> Option<Hash> {
    let mut hash = [0xff; 32];
    hash[..8].copy_from_slice(&start.checked_sub(1)?.to_be_bytes());
    Some(hash)
}

/// The key of a row of what is condemned, or what all of them begin with.
fn condemned_key(row: Option<usize>) -> RowKey {
    let row = row.map_or(String::new(), |row| format!("{row:08}"));
    RowKey::new(Table::Settings, format!("garbage/condemned/{row}"))
}
