//! The store: opening, committing, and what is left when the disk fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nexus_actors::guard;
use nexus_kernel::hal::{
    Applied, Batch, DAMAGE_MAX, Damage, Entry, LogRecord, Metastore, Reader, RowKey, StoreError, Table,
    TreeId,
};
use nexus_messages::{Lsn, OpId};
use parking_lot::{Mutex, RwLock};
use redb::{Builder, Database, Durability, ReadableDatabase, TableHandle, WriteTransaction};

use super::config::RedbConfig;
#[cfg(unix)]
use super::disk::make_whole;
use super::disk::{Disk, FileDisk};
use super::guard::{Guard, Guarded};
use super::opened::Opened;
use super::reader::{self, Snapshot};
use super::seal::{self, Place};
use super::transaction::{LOG, OPS, RedbTransaction, STATE, rows_table};
use super::view::View;
use super::{codec, error};
#[cfg(unix)]
use crate::disk::LocalFolder;
use crate::entries::{self, Transaction};

/// How many bytes a batch may take on disk for each byte of its rows: copied pages of the trees among them.
const WRITE_AMPLIFICATION: u64 = 4;

/// How many bytes an entry may take on disk, beside its rows: a page of each table and of what leads to it.
const ENTRY_BYTES: u64 = 32 << 10;

/// How much of the file is cached while all of it is verified.
const VERIFY_CACHE_BYTES: usize = 1 << 20;

/// The identity that the first entry of an empty store may take.
const FIRST_FILE_ID: u64 = 1;

/// A metastore in one file of redb. See the [module](super) for what it promises when the disk fails.
#[derive(Debug)]
pub struct RedbMetastore {
    name: String,
    config: RedbConfig,
    disk: Arc<Guarded>,
    free_bytes: FreeBytes,
    /// Held for the length of a batch; batches come from one committer, so nobody waits.
    writer: Mutex<()>,
    engine: RwLock<Engine>,
    epoch: AtomicU64,
    numbers: RwLock<Numbers>,
}

/// How many bytes may still be taken.
struct FreeBytes(Box<dyn Fn() -> std::io::Result<Option<u64>> + Send + Sync>);

impl std::fmt::Debug for FreeBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FreeBytes")
    }
}

#[derive(Debug)]
struct Engine {
    /// What is read: the store, or after a failure its last durable state.
    database: Arc<Opened>,
    health: Health,
}

#[derive(Debug, Clone)]
enum Health {
    Good,
    /// A batch failed and changed nothing; the next one tries to open the database anew.
    Interrupted,
    /// A batch failed with an unknown outcome; only opening the store again tells.
    Latched {
        cause: String,
    },
}

/// The numbers of the last commit.
#[derive(Debug, Default)]
struct Numbers {
    last: BTreeMap<TreeId, Lsn>,
    next_file_id: u64,
    /// The last frame of a write-ahead log that is in the rows; 0 when there was none.
    applied: u64,
    /// What the checksums of a write-ahead log begin with.
    salt: u64,
}

/// What a write-ahead log has collected, for the database.
pub(crate) struct Fold<'a> {
    /// Rows in the order of their tables and keys; none for one that is gone.
    pub(crate) rows: &'a mut dyn Iterator<Item = (RowKey, Option<Bytes>)>,
    /// Records in the order of the trees and places, and whether their operations may come again.
    pub(crate) records: &'a mut dyn Iterator<Item = (TreeId, Arc<LogRecord>, bool)>,
    pub(crate) next_file_id: u64,
    /// The last frame.
    pub(crate) applied: u64,
    /// About how many bytes it has.
    pub(crate) bytes: u64,
}

impl RedbMetastore {
    /// Opens the database at `path`, or makes it in a folder that exists. Blocks: on disk; after a crash for as long as the repair takes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another process or another handle has it, [`StoreError::Corrupt`] when the file is something else, and
    /// [`StoreError::Backend`] when it is of a format that this version does not know.
    pub fn open(path: impl AsRef<Path>, config: RedbConfig) -> Result<Self, StoreError> {
        let path = path.as_ref();
        #[cfg(unix)]
        make_whole_file(path, &config)?;
        Self::open_on(FileDisk::open(path)?, config)
    }

    /// Opens the database on `disk`, or makes it on an empty one.
    pub fn open_on(disk: Disk, config: RedbConfig) -> Result<Self, StoreError> {
        let Disk { name, backend, free_bytes } = disk;
        let disk = Guarded::new(backend).map_err(|e| StoreError::io(format!("opening {name}"), e))?;
        let (database, numbers) = open_database(&name, &config, &disk)?;
        let database = Opened::new(database);
        let engine = Engine { database: Arc::new(database), health: Health::Good };
        Ok(Self {
            name,
            config,
            disk,
            free_bytes: FreeBytes(free_bytes),
            writer: Mutex::new(()),
            engine: RwLock::new(engine),
            epoch: AtomicU64::new(0),
            numbers: RwLock::new(numbers),
        })
    }

    /// The database to write to; opened anew after a failure that changed nothing.
    fn writable(&self) -> Result<Arc<Opened>, StoreError> {
        self.recover_reading();
        let health = self.engine.read().health.clone();
        match health {
            Health::Good => {}
            Health::Latched { cause } => return Err(StoreError::ReadOnly { cause }),
            Health::Interrupted => {
                self.disk.set_stuck(false);
                let (database, numbers) = match open_database(&self.name, &self.config, &self.disk) {
                    Ok(opened) => opened,
                    Err(error) => {
                        self.show_last_durable_state(Health::Interrupted);
                        return Err(error);
                    }
                };
                *self.numbers.write() = numbers;
                // The view ends here. Opening has written beside what it shows, and only batches write over that.
                self.replace(Opened::new(database), Health::Good);
                tracing::info!(store = %self.name, "the metastore takes changes again");
            }
        }
        Ok(self.engine.read().database.clone())
    }

    /// All that is committed, as one view.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::new(self.begin_read()?))
    }

    /// The last frame of a write-ahead log that is in the rows.
    pub(crate) fn applied(&self) -> u64 {
        self.numbers.read().applied
    }

    /// What the checksums of a write-ahead log begin with.
    pub(crate) fn salt(&self) -> u64 {
        self.numbers.read().salt
    }

    /// The last places of all logs.
    pub(crate) fn last_lsns(&self) -> BTreeMap<TreeId, Lsn> {
        self.numbers.read().last.clone()
    }

    /// Whether a snapshot that was made in this epoch can be read: if not, a new one may be.
    pub(crate) fn reads_in(&self, epoch: u64) -> bool {
        self.epoch() == epoch && !self.disk.is_stuck()
    }

    /// Rises when what is read is opened anew, which ends the snapshots of before. To be looked at before a snapshot is made.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn replace(&self, database: Opened, health: Health) {
        let mut engine = self.engine.write();
        let old = std::mem::replace(&mut *engine, Engine { database: Arc::new(database), health });
        self.epoch.fetch_add(1, Ordering::Release);
        drop(engine);
        // Closing it may write.
        drop(old);
    }

    /// Takes over what a write-ahead log has collected, as one durable unit, after which opening needs no repair. Repeat: safe.
    ///
    /// After an error the rows are those of before; after [`StoreError::Unknown`] no fold is taken until the database is opened again.
    pub(crate) fn fold(&self, fold: Fold<'_>) -> Result<(), StoreError> {
        let _alone = self.writer.lock();
        let database = self.writable()?;
        self.check_room_for(fold.bytes * WRITE_AMPLIFICATION)?;
        self.disk.begin();
        self.written(|| self.commit_fold(&database, fold)).map_err(|failed| self.after_failure(failed))
    }

    fn commit_fold(&self, database: &Database, fold: Fold<'_>) -> Result<(), Failed> {
        let before = Failed::before_commit;
        let transaction = begin(database, true).map_err(before)?;
        let last_before = |tree| self.numbers.read().last.get(&tree).copied().unwrap_or_default();
        let next_file_id = Some(fold.next_file_id).filter(|next| *next > self.numbers.read().next_file_id);
        let mut work = RedbTransaction::new(&transaction, &last_before);
        for (key, value) in fold.rows {
            match value {
                Some(value) => work.put(&key, &value),
                None => work.delete(&key),
            }
            .map_err(before)?;
        }
        for (tree, record, repeatable) in fold.records {
            work.record(tree, &record, repeatable).map_err(before)?;
        }
        let last = work.last.clone();
        for (tree, last) in &last {
            if let Some(through) = last.0.checked_sub(entries::LOG_RETENTION) {
                work.prune(*tree, Lsn(through)).map_err(before)?;
            }
        }
        work.finish(next_file_id, Some(fold.applied)).map_err(before)?;
        transaction.commit().map_err(Failed::committing)?;
        let mut numbers = self.numbers.write();
        numbers.last.extend(last);
        numbers.next_file_id = next_file_id.unwrap_or(numbers.next_file_id);
        numbers.applied = fold.applied;
        Ok(())
    }

    fn check_room(&self, batch: &Batch) -> Result<(), StoreError> {
        let rows: u64 = batch.entries.iter().map(Entry::bytes).sum();
        self.check_room_for(rows * WRITE_AMPLIFICATION + batch.entries.len() as u64 * ENTRY_BYTES)
    }

    fn check_room_for(&self, need: u64) -> Result<(), StoreError> {
        let free = (self.free_bytes.0)().map_err(|e| StoreError::io("measuring the free space", e))?;
        match free {
            Some(free) if free < self.config.reserve_bytes.saturating_add(need) => Err(StoreError::Full),
            _ => Ok(()),
        }
    }

    fn commit(&self, database: &Database, batch: &Batch) -> Result<Applied, Failed> {
        let before = Failed::before_commit;
        let quick_repair = self.disk.len_bytes() >= self.config.quick_repair_from_bytes;
        let transaction = begin(database, quick_repair).map_err(before)?;
        let last_before = |tree| self.numbers.read().last.get(&tree).copied().unwrap_or_default();
        let next_file_id = Some(batch.next_file_id).filter(|next| *next > self.numbers.read().next_file_id);
        let mut work = RedbTransaction::new(&transaction, &last_before);
        let outcomes = entries::apply(&mut work, batch).map_err(before)?;
        let last = work.last.clone();
        work.finish(next_file_id, None).map_err(before)?;
        if last.is_empty() && next_file_id.is_none() {
            transaction.abort().map_err(|e| before(error::storage("ending a batch", e)))?;
            return Ok(Applied { outcomes });
        }
        transaction.commit().map_err(Failed::committing)?;
        let mut numbers = self.numbers.write();
        numbers.last.extend(last);
        numbers.next_file_id = next_file_id.unwrap_or(numbers.next_file_id);
        Ok(Applied { outcomes })
    }

    /// Writes, as [`reader::sound`] reads. How far it had come when it met damage is known only after the database is opened again.
    fn written<T>(&self, write: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
        guard(write).unwrap_or_else(|panicked| {
            self.engine.read().database.leave();
            let error = StoreError::Corrupt { what: self.name.clone(), found: panicked.to_string() };
            Err(Failed { error, committing: true })
        })
    }

    /// Says what a failed batch means, and leaves the store readable.
    fn after_failure(&self, Failed { error, committing }: Failed) -> StoreError {
        let (told, health) = match self.disk.failure() {
            // The disk is well, the batch was not: redb has undone it.
            None if !committing => return error,
            Some(failure) if !failure.outcome_unknown => {
                let told = if failure.full { StoreError::Full } else { error };
                (told, Health::Interrupted)
            }
            failure => {
                let cause = failure.map_or_else(|| error.to_string(), |failure| failure.cause);
                let told = StoreError::Unknown { what: "committing a batch".into(), cause: cause.clone() };
                (told, Health::Latched { cause: format!("an earlier commit failed: {cause}") })
            }
        };
        tracing::error!(store = %self.name, error = %told, "the metastore takes no changes");
        self.disk.keep_locks();
        self.show_last_durable_state(health);
        told
    }

    fn show_last_durable_state(&self, health: Health) {
        self.disk.set_stuck(false);
        match self.last_durable_state() {
            Ok(view) => self.replace(view, health),
            Err(error) => {
                tracing::error!(store = %self.name, %error, "the last durable state cannot be read");
                self.engine.write().health = health;
            }
        }
    }

    /// Opens what is read from anew, if it met a failure. The writer's lock is held: no batch is on its way.
    fn recover_reading(&self) {
        if !self.disk.is_stuck() {
            return;
        }
        let health = match self.engine.read().health.clone() {
            Health::Good => Health::Interrupted,
            other => other,
        };
        self.disk.keep_locks();
        self.show_last_durable_state(health);
    }

    fn last_durable_state(&self) -> Result<Opened, StoreError> {
        reader::sound(&self.name, || self.durable_state(&self.config))
    }

    /// A database of its own, on what is on disk. It ends before the disk is written to again.
    fn durable_state(&self, config: &RedbConfig) -> Result<Opened, StoreError> {
        let view =
            View::of(self.disk.clone()).map_err(|e| StoreError::io(format!("reading {}", self.name), e))?;
        let database =
            builder(config).create_with_backend(view).map_err(|e| error::database(&self.name, e))?;
        Ok(Opened::view(database))
    }

    /// Checks all pages against their checksums, and each value against its own, as they are on disk. Folds and batches wait.
    fn verify_all(&self) -> Result<Vec<Damage>, StoreError> {
        let _alone = self.writer.lock();
        self.recover_reading();
        // Each page is looked at once, and once more for its values.
        let config = self.config.clone().cache_bytes(VERIFY_CACHE_BYTES);
        let pages = reader::sound(&self.name, || {
            let mut database = self.durable_state(&config)?;
            match database.check_integrity().map_err(|e| error::database(&self.name, e))? {
                true => Ok(()),
                false => Err(StoreError::Corrupt {
                    what: self.name.clone(),
                    found: "pages that are not as they were written".into(),
                }),
            }
        });
        let values = reader::sound(&self.name, || {
            let database = self.durable_state(&config)?;
            let reading = database.begin_read().map_err(|e| error::transaction("beginning to read", e))?;
            Snapshot::new(reading).damage(DAMAGE_MAX)
        });
        let mut found = match values {
            Ok(found) => found,
            // What cannot be walked through has pages that are damaged.
            Err(StoreError::Corrupt { .. }) if pages.is_err() => Vec::new(),
            Err(StoreError::Corrupt { what, found }) => vec![Damage { what, found }],
            Err(error) => return Err(error),
        };
        match pages {
            Ok(()) => {}
            Err(StoreError::Corrupt { what, found: cause }) => found.insert(0, Damage { what, found: cause }),
            Err(error) => return Err(error),
        }
        if !found.is_empty() {
            self.engine.read().database.leave();
        }
        Ok(found)
    }

    fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        if self.disk.is_stuck() {
            let _alone = self.writer.lock();
            self.recover_reading();
        }
        self.engine.read().database.begin_read().map_err(|e| error::transaction("beginning to read", e))
    }
}

/// Makes the database at `path`, in a folder that exists, unless it is there.
#[cfg(unix)]
fn make_whole_file(path: &Path, config: &RedbConfig) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| !path.exists()) else {
        return Ok(());
    };
    if !parent.is_dir() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(StoreError::io(format!("opening {}", path.display()), missing));
    }
    let folder =
        LocalFolder::open(parent).map_err(|e| StoreError::io(format!("opening {}", path.display()), e))?;
    make_whole(&folder, name, |making| {
        RedbMetastore::open_on(FileDisk::open(&parent.join(making))?, config.clone()).map(drop)
    })
}

/// Why a batch was not committed, and whether the commit itself had begun.
struct Failed {
    error: StoreError,
    committing: bool,
}

impl Failed {
    fn before_commit(error: StoreError) -> Self {
        Self { error, committing: false }
    }

    fn committing(error: redb::CommitError) -> Self {
        Self { error: error::commit("committing a batch", error), committing: true }
    }
}

/// Begins a transaction that is durable when it is committed. With `quick_repair`, opening after a crash then needs no walk.
fn begin(database: &Database, quick_repair: bool) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(|e| error::transaction("beginning a batch", e))?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| StoreError::Backend { what: "beginning a batch".into(), cause: e.to_string() })?;
    transaction.set_quick_repair(quick_repair);
    Ok(transaction)
}

fn builder(config: &RedbConfig) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(config.cache_bytes);
    builder
}

fn open_database(
    name: &str,
    config: &RedbConfig,
    disk: &Arc<Guarded>,
) -> Result<(Database, Numbers), StoreError> {
    reader::sound(name, || open_believing(name, config, disk))
}

/// As [`open_database`]; a panic where the database is not what was written.
fn open_believing(
    name: &str,
    config: &RedbConfig,
    disk: &Arc<Guarded>,
) -> Result<(Database, Numbers), StoreError> {
    let mut builder = builder(config);
    let repaired = name.to_owned();
    builder.set_repair_callback(move |session| {
        tracing::warn!(store = %repaired, progress = session.progress(), "repairing after a crash");
    });
    let database = builder.create_with_backend(Guard(disk.clone())).map_err(|e| error::database(name, e))?;
    if is_new(name, &database)? {
        disk.begin();
        lay_out(&database, config.salt)
            .map_err(|e| disk.failure().filter(|f| f.full).map_or(e, |_| StoreError::Full))?;
    }
    match read_format(name, &database)? {
        codec::STORE_FORMAT => {}
        other => {
            let cause =
                format!("its format {other} is not {}, which this version knows", codec::STORE_FORMAT);
            return Err(StoreError::Backend { what: format!("opening {name}"), cause });
        }
    }
    let numbers = read_numbers(name, &database)?;
    Ok((database, numbers))
}

/// Whether the database has no table at all; refuses one whose tables are somebody else's.
fn is_new(name: &str, database: &Database) -> Result<bool, StoreError> {
    let read = database.begin_read().map_err(|e| error::transaction("beginning to read", e))?;
    let mut tables = read.list_tables().map_err(|e| error::storage("listing the tables", e))?.peekable();
    if tables.peek().is_none() {
        return Ok(true);
    }
    match tables.any(|table| table.name() == STATE.name()) {
        true => Ok(false),
        false => Err(foreign(name, "a database of something else")),
    }
}

fn foreign(name: &str, found: &str) -> StoreError {
    StoreError::Corrupt { what: format!("the metastore {name}"), found: found.into() }
}

/// Makes every table, so that readers find them, and writes the format.
fn lay_out(database: &Database, salt: u64) -> Result<(), StoreError> {
    let opening = |e| error::table("making a table", e);
    let write: WriteTransaction =
        database.begin_write().map_err(|e| error::transaction("making the tables", e))?;
    for table in Table::ALL {
        write.open_table(rows_table(table)?).map_err(opening)?;
    }
    write.open_table(LOG).map_err(opening)?;
    write.open_table(OPS).map_err(opening)?;
    let numbers =
        [(codec::FORMAT, codec::STORE_FORMAT), (codec::NEXT_FILE_ID, FIRST_FILE_ID), (codec::SALT, salt)];
    for (number, value) in numbers {
        let mut state = write.open_table(STATE).map_err(opening)?;
        let mut stored = codec::encode_number(value).to_vec();
        if number != codec::FORMAT {
            stored = seal::seal(Place::Number(number), &stored);
        }
        state.insert(number, stored.as_slice()).map_err(|e| error::storage("writing the format", e))?;
    }
    write.commit().map_err(|e| error::commit("making the tables", e))
}

fn read_format(name: &str, database: &Database) -> Result<u64, StoreError> {
    let read = database.begin_read().map_err(|e| error::transaction("beginning to read", e))?;
    let state = read.open_table(STATE).map_err(|_| foreign(name, "a database of something else"))?;
    let row = state.get(codec::FORMAT).map_err(|e| error::storage("reading the format", e))?;
    let row = row.ok_or_else(|| foreign(name, "a database without a format"))?;
    codec::decode_number(codec::FORMAT, row.value())
}

/// Reads the numbers.
fn read_numbers(name: &str, database: &Database) -> Result<Numbers, StoreError> {
    let failed = |e| error::storage("reading the numbers", e);
    let read = database.begin_read().map_err(|e| error::transaction("beginning to read", e))?;
    let state = read.open_table(STATE).map_err(|_| foreign(name, "a database of something else"))?;
    let number = |name: &[u8]| -> Result<Option<u64>, StoreError> {
        let row = state.get(name).map_err(failed)?;
        row.map(|row| decode_number(name, row.value())).transpose()
    };
    let next_file_id = number(codec::NEXT_FILE_ID)?.unwrap_or(FIRST_FILE_ID);
    let applied = number(codec::APPLIED)?.unwrap_or(0);
    let salt = number(codec::SALT)?.unwrap_or(0);
    let mut last = BTreeMap::new();
    for row in state.range::<&[u8]>(codec::LAST_LSN..).map_err(failed)? {
        let (name, value) = row.map_err(failed)?;
        let Some(tree) = codec::tree_of_name(name.value()) else { break };
        last.insert(tree, Lsn(decode_number(name.value(), value.value())?));
    }
    Ok(Numbers { last, next_file_id, applied, salt })
}

fn decode_number(name: &[u8], stored: &[u8]) -> Result<u64, StoreError> {
    codec::decode_number(name, seal::open(Place::Number(name), stored)?)
}

impl Metastore for RedbMetastore {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let _alone = self.writer.lock();
        let database = self.writable()?;
        self.check_room(batch)?;
        self.disk.begin();
        self.written(|| self.commit(&database, batch)).map_err(|failed| self.after_failure(failed))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.snapshot()?))
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        Ok(self.numbers.read().last.get(&tree).copied().unwrap_or_default())
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.snapshot()?.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        let place = self.snapshot()?.outcome(op_id)?;
        let numbers = self.numbers.read();
        let last = |tree| numbers.last.get(&tree).copied().unwrap_or_default();
        Ok(place.filter(|(tree, lsn)| entries::is_remembered(*lsn, last(*tree))))
    }

    fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        self.verify_all()
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        Ok(self.numbers.read().next_file_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(
        store: &RedbMetastore,
        rows: &mut dyn Iterator<Item = (RowKey, Option<Bytes>)>,
    ) -> Result<(), StoreError> {
        store.fold(Fold { rows, records: &mut std::iter::empty(), next_file_id: 9, applied: 1, bytes: 1 })
    }

    fn row(name: &str) -> (RowKey, Option<Bytes>) {
        (RowKey::new(Table::Inodes, name.as_bytes()), Some(Bytes::from_static(b"there")))
    }

    /// As where a page of the database is not what was written.
    #[test]
    fn a_panic_in_a_fold_changes_nothing_and_is_told_until_the_store_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.redb");
        let open = || RedbMetastore::open(&path, RedbConfig::default()).unwrap();
        let has =
            |store: &RedbMetastore, name| store.snapshot().unwrap().get(&row(name).0).unwrap().is_some();
        let store = open();
        fold(&store, &mut [row("a")].into_iter()).unwrap();
        let panics = std::iter::from_fn(|| panic!("a page that is damaged"));
        let failed = fold(&store, &mut [row("b")].into_iter().chain(panics)).unwrap_err();
        assert!(
            matches!(&failed, StoreError::Unknown { cause, .. } if cause.contains("a page that is damaged")),
            "{failed}"
        );
        let refused = fold(&store, &mut [row("c")].into_iter()).unwrap_err();
        assert!(
            matches!(&refused, StoreError::ReadOnly { cause } if cause.contains("a page that is damaged")),
            "{refused}"
        );
        assert!(has(&store, "a") && !has(&store, "b"));
        drop(store);
        let store = open();
        fold(&store, &mut [row("b")].into_iter()).unwrap();
        assert!(has(&store, "a") && has(&store, "b"));
        assert_eq!(store.verify().unwrap(), []);
    }
}
