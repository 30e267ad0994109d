//! The store: opening, committing, folding.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nexus_kernel::hal::{
    Applied, Batch, Damage, Entry, EntryOutcome, LogRecord, Metastore, Reader, RowKey, StoreError, TreeId,
};
use nexus_messages::{Lsn, OpId};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::config::WalConfig;
use super::frame::{Done, Payload};
use super::journal::{self, Journal};
use super::layer::Layer;
use super::recent::Recent;
use super::segment::Unwritten;
use super::state::{State, View};
use crate::disk::{Folder, LocalFolder};
use crate::entries::{self, Transaction};
use crate::redb::{Disk, FileDisk, Fold, RedbMetastore, make_whole};

/// The database's file.
pub(super) const DATABASE: &str = "meta.redb";

/// The folder of the log's segments.
pub(super) const LOG: &str = "wal";

/// A layer that took more than so many times what makes one ready to be folded is not kept for another one.
const SPARE_SHARE: u64 = 2;

/// A metastore in a folder: a log, and a database of redb that it is folded into. See the [module](super) for what it promises when the disk fails.
#[derive(Debug)]
pub struct WalMetastore {
    config: WalConfig,
    database: RedbMetastore,
    /// Held for the length of a batch that is applied, and of one that is appended: who appends does not wait for it.
    writer: Mutex<Writer>,
    /// Held by whoever flushes the log; taken before `writer`.
    flush: Mutex<()>,
    /// Held for the length of a fold; taken before `flush`. The layer that was folded last, emptied: the next one but one.
    fold: Mutex<Option<Layer>>,
    // Invariant: replaced with the writer's lock held.
    state: RwLock<Arc<State>>,
    numbers: RwLock<Numbers>,
    // Invariant: never ahead of what is on disk; changed with the writer's lock held.
    durable: RwLock<Durable>,
    /// How many bytes of the log are not on disk. A hint for when to flush; nothing is ordered by it.
    unsynced: AtomicU64,
    /// Operations that may come again, and of which only opening the store tells whether they are in the log.
    doubtful: Mutex<BTreeSet<OpId>>,
}

#[derive(Debug)]
struct Writer {
    journal: Journal,
    /// Why no batch is taken.
    closed: Option<String>,
    /// What was read again on opening is not in the database yet, and nothing is appended before it is.
    unfolded: bool,
}

/// The last place in the log of each tree that has one, in the order of the trees. Mostly there are few, and each batch copies all of it.
#[derive(Debug, Clone, Default)]
struct Lasts(SmallVec<[(TreeId, Lsn); 4]>);

impl Lasts {
    fn of(&self, tree: TreeId) -> Lsn {
        match self.0.binary_search_by_key(&tree, |(tree, _)| *tree) {
            Ok(found) => self.0[found].1,
            Err(_) => Lsn::default(),
        }
    }

    /// Gives what it was before.
    fn set(&mut self, tree: TreeId, lsn: Lsn) -> Lsn {
        match self.0.binary_search_by_key(&tree, |(tree, _)| *tree) {
            Ok(found) => std::mem::replace(&mut self.0[found].1, lsn),
            Err(place) => {
                self.0.insert(place, (tree, lsn));
                Lsn::default()
            }
        }
    }
}

/// The numbers of the last batch.
#[derive(Debug, Clone)]
struct Numbers {
    last: Lasts,
    next_file_id: u64,
}

/// Up to where all is on disk.
#[derive(Debug, Clone)]
struct Durable {
    /// The last frame.
    seq: u64,
    /// The last places of its trees.
    last: Lasts,
}

/// What a batch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Visible,
    Durable,
}

impl WalMetastore {
    /// Opens the store in `folder`, or makes it there. The folder is made when it is missing. Blocks: on disk, for as long as it takes to
    /// read what the log holds and the database does not.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another process or another handle has it, [`StoreError::Corrupt`] when something that was on disk is not
    /// there any more, and [`StoreError::Backend`] when it is of a format that this version does not know.
    pub fn open(folder: impl AsRef<Path>, config: WalConfig) -> Result<Self, StoreError> {
        let path = folder.as_ref();
        let failed = |e| StoreError::io(format!("opening {}", path.display()), e);
        let folder = LocalFolder::open(path).map_err(failed)?;
        let open = |name: &str| FileDisk::open(&path.join(name));
        make_whole(&folder, DATABASE, |making| {
            RedbMetastore::open_on(open(making)?, config.database.clone()).map(drop)
        })?;
        // The database first: its lock keeps others out of the log, too.
        Self::open_on(open(DATABASE)?, || folder.folder(LOG).map_err(failed), config)
    }

    /// Opens the store in `folder`, which nobody else opens: no lock is taken.
    pub fn open_in(folder: &Arc<dyn Folder>, config: WalConfig) -> Result<Self, StoreError> {
        make_whole(&**folder, DATABASE, |making| {
            RedbMetastore::open_on(Disk::in_folder(folder, making)?, config.database.clone()).map(drop)
        })?;
        let log = || folder.folder(LOG).map_err(|e| StoreError::io("opening the log", e));
        Self::open_on(Disk::in_folder(folder, DATABASE)?, log, config)
    }

    /// Opens the store on a database's disk, and on the folder that `log` gives once that is locked.
    fn open_on(
        database: Disk,
        log: impl FnOnce() -> Result<Arc<dyn Folder>, StoreError>,
        config: WalConfig,
    ) -> Result<Self, StoreError> {
        let database = RedbMetastore::open_on(database, config.database.clone())?;
        let applied = database.applied();
        let mut numbers = Numbers {
            last: Lasts(database.last_lsns().into_iter().collect()),
            next_file_id: database.next_file_id()?,
        };
        let active = Arc::new(Layer::after(applied));
        let durable = Durable { seq: applied, last: numbers.last.clone() };
        let mut frames = 0_u64;
        let journal = Journal::open(log()?, database.salt(), applied, config.ahead_bytes, |seq, payload| {
            frames += 1;
            replay(&active, &mut numbers, seq, payload)
        })?;
        if frames > 0 {
            tracing::info!(frames, bytes = active.bytes(), "read the log again");
        }
        if frames > 0 {
            active.publish(journal.last_seq());
        }
        let state = state(&database, active, None)?;
        let store = Self {
            config,
            database,
            writer: Mutex::new(Writer { journal, closed: None, unfolded: frames > 0 }),
            flush: Mutex::new(()),
            fold: Mutex::default(),
            state: RwLock::new(Arc::new(state)),
            numbers: RwLock::new(numbers),
            durable: RwLock::new(durable),
            unsynced: AtomicU64::new(0),
            doubtful: Mutex::default(),
        };
        // What was read may be in memory alone, also after a flush: one before may have failed. It is written anew, in another file.
        match store.fold() {
            Err(StoreError::Full) => {
                tracing::warn!("there is no room to fold the log that was read again: it goes on behind it");
                store.go_on_behind_the_log()?;
            }
            folded => folded?,
        }
        Ok(store)
    }

    /// Brings what was read of the log to the disk where it stands. Then changes are taken, as far as there is room in the log, which let go of something, say.
    fn go_on_behind_the_log(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        writer.journal.write_again()?;
        writer.unfolded = false;
        self.is_durable(&writer, writer.journal.last_seq(), self.numbers.read().last.clone());
        Ok(())
    }

    fn view(&self) -> Result<View, StoreError> {
        let state = self.state.read().clone();
        if self.database.reads_in(state.epoch) {
            return Ok(View::of(&state));
        }
        let _writing = self.writer.lock();
        Ok(View::of(&self.read_anew()?))
    }

    /// What is read now. The database through a new snapshot, if the old one met a failure of the disk. The writer's lock is held.
    fn read_anew(&self) -> Result<Arc<State>, StoreError> {
        let old = self.state.read().clone();
        if self.database.reads_in(old.epoch) {
            return Ok(old);
        }
        let new = Arc::new(state(&self.database, old.active.clone(), old.folding.clone())?);
        *self.state.write() = new.clone();
        Ok(new)
    }

    fn must_fold(&self) -> bool {
        self.is_full() || self.writer.lock().unfolded
    }

    fn is_full(&self) -> bool {
        self.is_filled(&self.state.read().active)
    }

    fn is_filled(&self, active: &Layer) -> bool {
        active.bytes() >= self.config.pending_max_bytes && !active.is_empty()
    }

    /// Refuses a batch with an operation that came before, and of which it is not known whether it is in the log.
    fn check_doubt(&self, batch: &Batch) -> Result<(), StoreError> {
        let doubtful = self.doubtful.lock();
        let mut again = batch.entries.iter().filter(|entry| entry.repeatable);
        match again.find(|entry| doubtful.contains(&entry.op_id)) {
            Some(entry) => Err(in_doubt(entry.op_id)),
            None => Ok(()),
        }
    }

    /// Of a batch that is to be durable, the caller holds the lock of flushes, too.
    fn commit(&self, writer: &mut Writer, batch: &Batch, until: Until) -> Result<Applied, StoreError> {
        let state = self.read_anew()?;
        let seq = writer.journal.last_seq() + 1;
        let numbers = self.numbers.read().clone();
        let next_file_id = numbers.next_file_id.max(batch.next_file_id);
        let raised = next_file_id > numbers.next_file_id;
        let mut work = Work::new(View::within(&state, seq), seq, numbers.last);
        let outcomes = match entries::apply(&mut work, batch) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                work.undo();
                return Err(error);
            }
        };
        if work.entries.is_empty() && !raised {
            let came_before = outcomes.iter().any(|outcome| matches!(outcome, EntryOutcome::Repeated(_)));
            if until == Until::Durable && came_before && writer.journal.durable() < writer.journal.last_seq()
            {
                // What it repeats was only appended.
                self.flush_as(writer, &work.last)?;
            }
            return Ok(Applied { outcomes });
        }
        let written = match until {
            Until::Visible => self.append_soon(writer, &mut work, next_file_id),
            Until::Durable => {
                append(writer, &work, next_file_id, None).and_then(|()| self.flush_as(writer, &work.last))
            }
        };
        if let Err(error) = written {
            if error.is_unknown() {
                let begun = work.entries.iter().filter(|entry| entry.repeatable);
                self.doubtful.lock().extend(begun.map(|entry| entry.record.op_id));
            }
            work.undo();
            return Err(error);
        }
        // First what is seen, then how far it goes: whoever knows a place finds what is there.
        state.active.publish(seq);
        *self.numbers.write() = Numbers { last: work.last, next_file_id };
        self.count_unsynced(writer);
        Ok(Applied { outcomes })
    }

    /// Appends the frame of `work`, or puts it off.
    fn append_soon(&self, writer: &mut Writer, work: &mut Work, next_file_id: u64) -> Result<(), StoreError> {
        let bytes = work.entries.iter().map(Done::bytes).sum();
        if writer.journal.may_put_off(bytes)? {
            writer.journal.put_off(next_file_id, std::mem::take(&mut work.entries), bytes);
            return Ok(());
        }
        append(writer, work, next_file_id, Some(&self.flush))
    }

    /// Flushes the log, whose last records are those at `last`.
    fn flush_as(&self, writer: &mut Writer, last: &Lasts) -> Result<(), StoreError> {
        writer.journal.hand_over()?;
        if let Err(error) = writer.journal.sync() {
            writer.close(&error);
            return Err(unknown("committing a batch", &error));
        }
        self.is_durable(writer, writer.journal.last_seq(), last.clone());
        Ok(())
    }

    /// All up to the frame `seq` is on disk, and with it the records up to those at `last`.
    fn is_durable(&self, writer: &Writer, seq: u64, last: Lasts) {
        let mut durable = self.durable.write();
        if seq > durable.seq {
            *durable = Durable { seq, last };
        }
        drop(durable);
        self.count_unsynced(writer);
    }

    fn count_unsynced(&self, writer: &Writer) {
        self.unsynced.store(writer.journal.unsynced_bytes(), Ordering::Relaxed);
    }

    /// Puts what is in memory into the database, and lets go of the log that held it.
    fn fold(&self) -> Result<(), StoreError> {
        let mut spare = self.fold.lock();
        let (layer, ended, applied) = {
            // The end of a segment is flushed.
            let _flushing = self.flush.lock();
            let mut writer = self.writer.lock();
            let old = self.read_anew()?;
            match &old.folding {
                // One that failed before.
                Some(folding) => (folding.clone(), writer.journal.segment() - 1, folding.published()),
                None if old.active.is_empty() => return Ok(()),
                None => {
                    writer.check()?;
                    writer.journal.prepare()?;
                    let ended = writer.journal.rotate().inspect_err(|error| writer.close(error))?;
                    let applied = writer.journal.last_seq();
                    if !writer.unfolded {
                        self.is_durable(&writer, applied, self.numbers.read().last.clone());
                    }
                    let active = match spare.take() {
                        Some(layer) => layer.begin(applied),
                        None => old.active.next(applied),
                    };
                    let active = Arc::new(active);
                    let new = state(&self.database, active, Some(old.active.clone()))?;
                    *self.state.write() = Arc::new(new);
                    (old.active.clone(), ended, applied)
                }
            }
        };
        let numbers = self.numbers.read().clone();
        let rows = layer.newest();
        let size =
            |(key, value): &(RowKey, Option<Bytes>)| key.bytes.len() + value.as_ref().map_or(0, Bytes::len);
        let size: usize = rows.iter().map(size).sum();
        let log = layer.records();
        let records: u64 = log.iter().map(|(_, logged)| logged.record.bytes()).sum();
        let folded = self.database.fold(Fold {
            rows: &mut rows.into_iter(),
            records: &mut log.into_iter().map(|(tree, logged)| (tree, logged.record, logged.repeatable)),
            next_file_id: numbers.next_file_id,
            applied,
            bytes: size as u64 + records,
        });
        let (folder, salt, next) = {
            let mut writer = self.writer.lock();
            if let Err(error) = folded {
                // The failure may have ended what is read.
                self.read_anew()?;
                return Err(error);
            }
            // What was read again on opening is known to be on disk only now.
            if std::mem::take(&mut writer.unfolded) {
                self.is_durable(&writer, applied, numbers.last);
            }
            let active = self.state.read().active.clone();
            let new = state(&self.database, active, None)?;
            *self.state.write() = Arc::new(new);
            let next = (!writer.journal.is_ready()).then(|| writer.journal.segment() + 1);
            (writer.journal.folder().clone(), writer.journal.salt(), next)
        };
        // Nobody else has it, unless somebody reads for longer than a fold takes.
        if layer.bytes() <= SPARE_SHARE * self.config.fold_from_bytes {
            *spare = Arc::into_inner(layer).map(Layer::emptied);
        }
        if let Some(next) = journal::release(&folder, salt, ended, next)? {
            self.writer.lock().journal.make_ready(next);
        }
        Ok(())
    }
}

impl Drop for WalMetastore {
    fn drop(&mut self) {
        let writer = self.writer.get_mut();
        if writer.closed.is_some() || writer.unfolded || writer.journal.last_seq() <= self.database.applied()
        {
            return;
        }
        if let Err(error) = writer.journal.hand_over() {
            tracing::warn!(%error, "changes that were acknowledged before they are on disk are lost");
            return;
        }
        if let Err(error) = writer.journal.mark(self.numbers.get_mut().next_file_id) {
            tracing::debug!(?error, "the log does not say that its last batch was flushed");
        }
    }
}

/// What readers see of `database` as it is now, under these layers.
fn state(
    database: &RedbMetastore,
    active: Arc<Layer>,
    folding: Option<Arc<Layer>>,
) -> Result<State, StoreError> {
    let epoch = database.epoch();
    Ok(State { active, folding, base: database.snapshot()?, recent: Recent::new(), epoch })
}

impl Writer {
    fn check(&self) -> Result<(), StoreError> {
        match &self.closed {
            Some(cause) => Err(StoreError::ReadOnly { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Nothing is written any more: what is on disk and what is not cannot be told apart.
    fn close(&mut self, error: &StoreError) {
        tracing::error!(%error, "the metastore takes no changes");
        self.closed = Some(format!("an earlier flush failed: {error}"));
    }
}

/// Appends the frame of `work`, while those with the lock `others` may be flushing.
fn append(
    writer: &mut Writer,
    work: &Work,
    next_file_id: u64,
    others: Option<&Mutex<()>>,
) -> Result<(), StoreError> {
    let entries = work.entries.iter().map(Done::as_frame).collect();
    match writer.journal.append(&Payload { next_file_id, entries }, others) {
        Ok(_) => Ok(()),
        Err(Unwritten::Not(error)) => Err(error),
        Err(Unwritten::Unknown(error)) => {
            writer.close(&error);
            Err(unknown("committing a batch", &error))
        }
    }
}

fn unknown(what: &str, error: &StoreError) -> StoreError {
    StoreError::Unknown { what: what.into(), cause: error.to_string() }
}

fn replay(
    active: &Layer,
    numbers: &mut Numbers,
    seq: u64,
    payload: Payload<'static>,
) -> Result<(), StoreError> {
    for entry in payload.entries {
        for (key, value) in entry.rows.into_owned() {
            active.put(&key, value, seq);
        }
        let record = Arc::new(entry.record.into_owned());
        let Lsn(before) = numbers.last.set(entry.tree, record.lsn);
        if record.lsn.0 != before + 1 {
            return Err(StoreError::Corrupt {
                what: format!("the log of tree {}", entry.tree.0),
                found: format!("record {} after record {before}", record.lsn),
            });
        }
        active.log(entry.tree, record, entry.repeatable, seq);
    }
    numbers.next_file_id = numbers.next_file_id.max(payload.next_file_id);
    Ok(())
}

/// A batch in the making: its rows are in the layer already, under a number that nobody sees yet.
struct Work {
    view: View,
    seq: u64,
    last: Lasts,
    /// The rows of the entry that is being applied.
    rows: Vec<(RowKey, Option<Bytes>)>,
    entries: Vec<Done>,
    /// What the layer took before.
    bytes: u64,
}

impl Work {
    fn new(view: View, seq: u64, last: Lasts) -> Self {
        let bytes = view.active().bytes();
        Self { view, seq, last, rows: Vec::new(), entries: Vec::new(), bytes }
    }

    fn set(&mut self, key: &RowKey, value: Option<Bytes>) {
        self.view.active().put(key, value.clone(), self.seq);
        self.rows.push((key.clone(), value));
    }

    /// Takes all of it out of the layer again.
    fn undo(self) {
        let layer = self.view.active();
        for entry in &self.entries {
            layer.unlog(entry.tree, &entry.record, entry.repeatable);
        }
        for (key, _) in self.entries.iter().flat_map(|entry| &entry.rows).chain(&self.rows).rev() {
            layer.take_back(key, self.seq);
        }
        layer.set_bytes(self.bytes);
    }
}

impl Transaction for Work {
    fn holds(&mut self, key: &RowKey, expected: Option<&[u8]>) -> Result<bool, StoreError> {
        let row = self.view.get(key)?;
        Ok(row.is_some_and(|row| expected.is_none_or(|expected| row == expected)))
    }

    fn vacant(&mut self, prefix: &RowKey) -> Result<bool, StoreError> {
        Ok(self.view.scan(prefix, None, 1)?.is_empty())
    }

    fn put(&mut self, key: &RowKey, value: &Bytes) -> Result<(), StoreError> {
        self.set(key, Some(value.clone()));
        Ok(())
    }

    fn delete(&mut self, key: &RowKey) -> Result<(), StoreError> {
        self.set(key, None);
        Ok(())
    }

    fn committed(&mut self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.view.outcome(op_id)
    }

    fn last_lsn(&mut self, tree: TreeId) -> Result<Lsn, StoreError> {
        Ok(self.last.of(tree))
    }

    fn log(&mut self, entry: &Entry, lsn: Lsn) -> Result<(), StoreError> {
        let record = Arc::new(LogRecord::of(entry, lsn));
        self.view.active().log(entry.tree, record.clone(), entry.repeatable, self.seq);
        self.last.set(entry.tree, lsn);
        let rows = std::mem::take(&mut self.rows);
        self.entries.push(Done { tree: entry.tree, repeatable: entry.repeatable, record, rows });
        Ok(())
    }

    fn prune(&mut self, _: TreeId, _: Lsn) -> Result<(), StoreError> {
        // Records are let go where they are kept, with the next fold.
        Ok(())
    }
}

/// A fold failed before a batch was begun: whatever became of it, the batch was not executed.
fn before_the_batch(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown { what, cause } => {
            StoreError::ReadOnly { cause: format!("{what}, which makes room for more: {cause}") }
        }
        other => other,
    }
}

fn in_doubt(op_id: OpId) -> StoreError {
    StoreError::Unknown {
        what: format!("operation {op_id}"),
        cause: "its commit failed, and only opening the store again tells whether it is kept".into(),
    }
}

impl Metastore for WalMetastore {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        self.check_doubt(batch)?;
        while self.must_fold() {
            self.fold().map_err(before_the_batch)?;
        }
        let _flushing = self.flush.lock();
        let mut writer = self.writer.lock();
        self.check_doubt(batch)?;
        writer.check()?;
        self.commit(&mut writer, batch, Until::Durable)
    }

    fn append(&self, batch: &Batch) -> Result<Option<Applied>, StoreError> {
        // Who holds it may be waiting for the disk.
        let Some(mut writer) = self.writer.try_lock() else { return Ok(None) };
        let may = {
            let state = self.state.read();
            self.database.reads_in(state.epoch) && !self.is_filled(&state.active)
        };
        if !may || writer.unfolded {
            return Ok(None);
        }
        self.check_doubt(batch)?;
        writer.check()?;
        self.commit(&mut writer, batch, Until::Visible).map(Some)
    }

    fn sync(&self) -> Result<(), StoreError> {
        while self.writer.lock().unfolded {
            self.fold().map_err(before_the_batch)?;
        }
        let _flushing = self.flush.lock();
        let (unflushed, last) = {
            let mut writer = self.writer.lock();
            if self.state.read().active.published() <= self.durable.read().seq {
                return Ok(());
            }
            // What is to be on disk was acknowledged before.
            let of_before = |error| unknown("flushing what was acknowledged before", &error);
            writer.check().map_err(of_before)?;
            writer.journal.hand_over().map_err(of_before)?;
            (writer.journal.to_flush(), self.numbers.read().last.clone())
        };
        let flushed = unflushed.flush();
        let mut writer = self.writer.lock();
        if let Err(error) = flushed {
            writer.close(&error);
            return Err(unknown("flushing what was acknowledged before", &error));
        }
        // An append that failed meanwhile may have heard of what this flush did not get to the disk.
        writer.check().map_err(|error| unknown("flushing what was acknowledged before", &error))?;
        writer.journal.take_flushed(&unflushed);
        self.is_durable(&writer, unflushed.seq(), last);
        Ok(())
    }

    fn unsynced_bytes(&self) -> u64 {
        self.unsynced.load(Ordering::Relaxed)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.view()?))
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        Ok(self.numbers.read().last.of(tree))
    }

    fn durable_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        Ok(self.durable.read().last.of(tree))
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        // Before the view, which has at least all of it.
        let durable = self.durable.read().seq;
        self.view()?.changes(tree, since, durable, limit)
    }

    fn record(&self, tree: TreeId, lsn: Lsn) -> Result<Option<LogRecord>, StoreError> {
        let Some(before) = lsn.0.checked_sub(1) else { return Ok(None) };
        let mut found = self.view()?.changes(tree, Lsn(before), u64::MAX, 1)?;
        Ok(found.pop().filter(|record| record.lsn == lsn))
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        if self.doubtful.lock().contains(&op_id) {
            return Err(in_doubt(op_id));
        }
        let place = self.view()?.outcome(op_id)?;
        let numbers = self.numbers.read();
        Ok(place.filter(|(tree, lsn)| entries::is_remembered(*lsn, numbers.last.of(*tree))))
    }

    fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        self.database.verify()
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        Ok(self.numbers.read().next_file_id)
    }

    fn wants_upkeep(&self) -> bool {
        let state = self.state.read();
        state.folding.is_some() || state.active.bytes() >= self.config.fold_from_bytes
    }

    fn upkeep(&self) -> Result<(), StoreError> {
        self.fold()
    }
}
