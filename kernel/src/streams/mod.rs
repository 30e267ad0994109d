//! Keeps records that agents append through a path, for any number of readers.
//!
//! A stream's entry is a row as any other, and says where its records are: on disk or in memory, each kind in a [store](crate::hal::StreamStore) of its own. There they are
//! found by the identity of the entry, so a stream goes along when its entry is renamed. `stream.rs` is one stream: its place in the store, and who waits at
//! its tail. Appending and reading happen on the callers' tasks, in the shared table, `table.rs`. What stands on streams, whatever keeps their records, is in [`groups`].
//!
//! Owns:       the records of entries that are gone, until they are removed from the stores; when records are too old, `ages.rs`.
//! Asks:       nobody; looks at rows, and calls the stores.
//! On restart: the table goes on, and so do those who append and read; what was to be removed is taken up with the next one, or at boot. What came due meanwhile is done first.
//! Bounds:     `STREAMS_MAX` open streams, `LIST_MAX` in a listing, the messages of any primitive.

mod ages;
pub mod groups;
mod messages;
mod stream;
mod table;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use ages::age;
use futures_util::future::{AbortHandle, abortable};
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Reply, SharedKind, Start};
use nexus_messages::syscall::{IoProfile, StreamSpec};
use nexus_messages::{FileId, FileMetadata, Timestamp};

use groups::stream_of;
pub(crate) use messages::{Age, Reap, Sweep};
pub(crate) use stream::{Refusal, Stream};
pub(crate) use table::StreamTable;
pub use view::{GroupEntry, StreamEntry, StreamStatistics};

use crate::hal::{RowKey, StoreError, StreamError, StreamLimits, StreamStore, Table, TreeId};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{MountRow, Placement, decode, inode_key};

/// The most streams that may be open at once. A stream is opened by its first use, and closed when it is removed, or its mount is detached.
pub const STREAMS_MAX: usize = 1 << 17;

/// The most bytes that a stream in shared memory can be asked to keep: the room for them is taken at once.
pub const SHARED_BYTES_MAX: u64 = 256 << 20;

/// The most streams that one listing shows.
pub const LIST_MAX: usize = 10_000;

/// Streams, and rows of mounts, that are looked at in one step when those are searched whose entries are gone.
const PAGE: usize = 1_024;

/// The actor that removes the records of entries that are gone.
pub(crate) struct Streams {
    table: StreamTable,
    kernel: Weak<Kernel>,
    /// What wakes it when records are too old.
    timer: Option<AbortHandle>,
    /// Whether it looks for those now, and whether it is to do so once more.
    ageing: Option<bool>,
}

impl Behaviour for Streams {
    type Args = (StreamTable, Weak<Kernel>);
    const NAME: &'static str = "streams";

    fn init(
        (table, kernel): Self::Args,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let begun = start.me().signal(Age).map_err(ExitReason::error);
        let made = begun.map(|()| Self { table, kernel, timer: None, ageing: None });
        Box::pin(std::future::ready(made))
    }
}

impl Streams {
    fn age(&mut self, cx: &mut Cx<'_, Self>) {
        if let Some(again) = &mut self.ageing {
            *again = true;
            return;
        }
        self.ageing = Some(false);
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let (table, kernel) = (self.table.clone(), self.kernel.clone());
        let aged = async move { age(&*kernel.upgrade()?, &table).await };
        cx.spawn(aged, |me: &mut Self, cx, after| {
            if me.ageing.take() == Some(true) {
                return me.age(cx);
            }
            let Some(after) = after else { return };
            let (sleep, timer) = abortable(cx.env().sleep(after));
            me.timer = Some(timer);
            cx.spawn(sleep, |me: &mut Self, cx, slept| {
                if slept.is_ok() {
                    me.age(cx);
                }
            });
        });
    }
}

impl Handle<Age> for Streams {
    fn handle(&mut self, _: Age, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.age(cx);
        Reply::Now(())
    }
}

impl Handle<Reap> for Streams {
    fn handle(&mut self, _: Reap, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let (table, kernel) = (self.table.clone(), self.kernel.clone());
        Reply::later(async move {
            if let Some(kernel) = kernel.upgrade() {
                reap(&kernel, &table).await;
            }
        })
    }
}

impl Handle<Sweep> for Streams {
    fn handle(&mut self, _: Sweep, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let (table, kernel) = (self.table.clone(), self.kernel.clone());
        Reply::later(async move {
            let Some(kernel) = kernel.upgrade() else { return };
            if let Err(error) = sweep(&kernel, &table).await {
                tracing::warn!(%error, "streams whose entries are gone could not be looked for");
            }
            reap(&kernel, &table).await;
            let _ = kernel.streams_actor().signal(Age);
        })
    }
}

/// Removes the records of all streams that were dropped, each when it is on disk that its entry is gone.
async fn reap(kernel: &Kernel, table: &StreamTable) {
    let mut by_tree: BTreeMap<TreeId, Vec<FileId>> = BTreeMap::new();
    for (id, tree) in table.dropped() {
        by_tree.entry(tree).or_default().push(id);
    }
    for (tree, ids) in by_tree {
        // An entry that came back after a crash would have lost its records. At the next boot it is known which is so.
        let Ok(lsn) = kernel.store().last_lsn(tree) else { continue };
        if kernel.store().make_durable(tree, lsn).await.is_err() {
            continue;
        }
        for id in ids {
            match table.remove_records(id).await {
                Ok(()) => table.is_reaped(id),
                Err(error) => {
                    tracing::warn!(%id, %error, "the records of a stream that is gone are still there");
                }
            }
        }
    }
}

/// Drops the streams, and the pipes in shared memory, whose entries no tree has: what a crash left between the removal of the two. Has the others looked at that keep
/// records for a time.
async fn sweep(kernel: &Kernel, table: &StreamTable) -> Result<(), StreamError> {
    let trees = trees(kernel)?;
    for io_profile in [IoProfile::Durable, IoProfile::Shared] {
        if let Some(store) = table.store(io_profile) {
            sweep_store(kernel, table, &trees, &*store).await?;
        }
    }
    if let Some(place) = kernel.pipes().shared() {
        let mut gone = Vec::new();
        for id in
            place.folder.ids(SharedKind::Pipe).map_err(|error| StoreError::io("the shared memory", error))?
        {
            let id = FileId(id);
            if !has_row(kernel, &trees, id)? && kernel.pipes().get(id).is_none() {
                gone.push(id);
            }
        }
        kernel.pipes().remove(kernel.env(), gone);
    }
    Ok(())
}

/// Whether any of the trees has this entry.
fn has_row(kernel: &Kernel, trees: &[TreeId], id: FileId) -> Result<bool, StoreError> {
    for tree in trees {
        if kernel.store().rows(*tree)?.reader.get(&inode_key(*tree, id))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn sweep_store(
    kernel: &Kernel,
    table: &StreamTable,
    trees: &[TreeId],
    store: &dyn StreamStore,
) -> Result<(), StreamError> {
    let mut after = None;
    loop {
        let page = store.list(after, PAGE).await?;
        for id in page.iter().map(|id| stream_of(*id)).collect::<BTreeSet<_>>() {
            let is_there = has_row(kernel, trees, id)?;
            if is_there && store.state(id).await.is_ok_and(|state| state.limits.age_max.is_some()) {
                table.ages().note(id, Timestamp(kernel.env().wall()));
            }
            // Made meanwhile, its entry is older than it, and may be in a tree that is newer than the look at those.
            if !is_there && table.get(id).is_none() && !has_row(kernel, &self::trees(kernel)?, id)? {
                table.note_dropped(TreeId::ROOT, id);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(*last),
            _ => return Ok(()),
        }
    }
}

/// The trees that mounts have, or had and may have again.
fn trees(kernel: &Kernel) -> Result<Vec<TreeId>, StoreError> {
    let prefix = RowKey::new(Table::Mounts, Vec::new());
    let (mut trees, mut after) = (Vec::new(), None);
    loop {
        let page = kernel.store().metastore().reader()?.scan(&prefix, after.as_ref(), PAGE)?;
        for (key, value) in &page {
            trees.push(decode::<MountRow>(key, value)?.tree);
        }
        let is_last = page.len() < PAGE;
        after = page.into_iter().next_back().map(|(key, _)| key);
        if is_last {
            trees.sort_unstable();
            trees.dedup();
            return Ok(trees);
        }
    }
}

impl Kernel {
    /// Gives the kernel the stores that keep the records of streams: in memory, and on disk if there is one. To be called once, before the tree runs; a kernel
    /// without them makes no streams.
    pub fn set_stream_stores(&self, memory: Arc<dyn StreamStore>, durable: Option<Arc<dyn StreamStore>>) {
        self.streams().set_stores(memory, durable);
    }

    /// Gives the kernel the store of streams in memory that processes share. To be called once, after the others were given.
    pub fn set_shared_streams(&self, shared: Arc<dyn StreamStore>) {
        self.streams().set_shared_store(shared);
    }

    /// Where a new stream on `mount` has its records, and why it cannot be made so.
    pub(crate) fn place_stream(&self, mount: &Mount, spec: StreamSpec) -> Result<Placement, &'static str> {
        let lives_on = !mount.ends_with_process();
        let has_disk = self.streams().store(IoProfile::Durable).is_some();
        let age_max_ms = spec.age_max.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let asked = match spec.io_profile {
            None => mount.given_streams(),
            // What a child says is kept where the mount keeps records, but in no memory that others map.
            Some(IoProfile::Stdio) => mount.given_streams().filter(|kind| *kind != IoProfile::Shared),
            said => said,
        };
        let durable = match asked {
            Some(IoProfile::Shared) if self.streams().store(IoProfile::Shared).is_none() => {
                return Err("this kernel has no memory that processes share");
            }
            Some(IoProfile::Shared) if spec.bytes_max.is_some_and(|bytes| bytes > SHARED_BYTES_MAX) => {
                return Err("a stream in shared memory keeps 256 MiB at most");
            }
            Some(IoProfile::Shared) => return Ok(Placement::Shared { age_max_ms }),
            None => lives_on && has_disk,
            Some(IoProfile::Durable) if !has_disk => return Err("this kernel keeps no streams on disk"),
            Some(IoProfile::Durable) if !lives_on => return Err("the entry would not outlive the process"),
            Some(IoProfile::Durable) => true,
            Some(IoProfile::Memory) => false,
            Some(_) => return Err("this kernel does not know such streams"),
        };
        if self.streams().store(IoProfile::Memory).is_none() {
            return Err("this kernel keeps no streams");
        }
        Ok(match spec.io_profile {
            Some(IoProfile::Stdio) => Placement::Stdio { durable, age_max_ms },
            _ => Placement::Records { durable, age_max_ms },
        })
    }

    /// The stream whose entry this is, opened if it is not; made if it was never used.
    pub(crate) async fn open_records(
        &self,
        mount: &Mount,
        metadata: &Arc<FileMetadata>,
        placement: Placement,
    ) -> Result<Arc<Stream>, Refusal> {
        let (table, id) = (self.streams(), metadata.file_id);
        if let Some(open) = table.get(id) {
            return Ok(open);
        }
        let age_max_ms = placement.age_max_ms().ok_or(Refusal::Unknown)?;
        let io_profile = placement.kept();
        let store = table.store(io_profile).ok_or(Refusal::NoStore)?;
        if io_profile == IoProfile::Durable || (io_profile == IoProfile::Shared && !mount.ends_with_process())
        {
            // What is appended is there after a crash: so must be its entry.
            let lsn = self.store().last_lsn(mount.tree).map_err(StreamError::from)?;
            self.store().make_durable(mount.tree, lsn).await.map_err(|_| Refusal::NotSettled)?;
        }
        let mut limits = StreamLimits::NONE;
        if metadata.size > 0 {
            limits = limits.bytes_max(metadata.size);
        }
        if age_max_ms > 0 {
            limits = limits.age_max(std::time::Duration::from_millis(age_max_ms));
        }
        let state = match store.state(id).await {
            Err(StreamError::NoStream { .. }) => store.create(id, limits).await?,
            known => known?,
        };
        let totals = table.totals().clone();
        let stream = Stream::new(mount.root, io_profile, store, metadata.clone(), (state, totals));
        let stream = table.open(stream)?;
        // After it was opened: whoever detaches the mount closes what is open then. So either finds the other. Its entry may be there still, and what is kept goes with that alone.
        if !self.is_attached(mount) {
            table.close_stream(self.env(), id);
            let _ = self.streams_actor().tell(Reap);
            return Err(Refusal::Removed);
        }
        // And so with who removes the entry, and drops the stream when the row is gone.
        if !self.has_entry(mount, id) {
            self.drop_stream(mount.tree, id);
            return Err(Refusal::Removed);
        }
        Ok(stream)
    }

    fn is_attached(&self, mount: &Mount) -> bool {
        self.routes().read(|routes| routes.iter().any(|other| other.root == mount.root))
    }

    /// Whether the entry is there still. What cannot be read was there a moment ago.
    fn has_entry(&self, mount: &Mount, id: FileId) -> bool {
        let row = self.store().rows(mount.tree).and_then(|rows| rows.reader.get(&inode_key(mount.tree, id)));
        row.map_or(true, |row| row.is_some())
    }

    /// The entry of this stream, in this tree, is gone: who waits is told, and its records are removed.
    pub(crate) fn drop_stream(&self, tree: TreeId, id: FileId) {
        self.streams().drop_stream(self.env(), tree, id);
        // Told to nobody when the mailbox is full or its owner restarts: then the next one is for this, too.
        let _ = self.streams_actor().tell(Reap);
    }

    /// The mount with this root is detached: its streams are closed, and those in memory end.
    pub(crate) fn close_streams(&self, mount: FileId) {
        self.streams().close_mount(self.env(), mount);
        let _ = self.streams_actor().tell(Reap);
    }
}
