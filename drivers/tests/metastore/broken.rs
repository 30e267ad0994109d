//! The suite rejects stores that are wrong in one way each.

use std::sync::atomic::{AtomicU64, Ordering};

use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::hal::conformance::metastore::{Subject, check};
use nexus_kernel::hal::{
    Applied, Batch, Change, Entry, EntryOutcome, LogRecord, Metastore, Precondition, Reader, RowKey,
    StoreError, TreeId,
};
use nexus_messages::{Lsn, OpId};
use parking_lot::Mutex;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// A refused entry makes its first change all the same.
    HalfOfARefusedEntry,
    /// A batch's outcomes count from the place of the batch before.
    PlaceGivenTwice,
    /// A scan leaves out the row at its limit when it goes on.
    BoundarySkipped,
    /// A scan gives the row it was to go on after once more.
    BoundaryRepeated,
    /// Entries are applied as batches of their own, each visible alone.
    BatchTorn,
    /// Preconditions are checked against the rows as they were before the batch.
    StalePreconditions,
    /// An operation that comes again is done again.
    RepeatExecuted,
    /// A row that belongs at its entry's place is put at the one before.
    PutAtAnotherPlace,
    /// What a removal is to keep is kept although nothing is removed.
    KeptInAnyCase,
    /// All is forgotten when the store is opened again.
    ForgetsAll,
    /// What is appended is seen only after the next batch.
    AppendedLater,
    /// The log tells what is not on disk.
    ToldTooEarly,
    /// A flush is told as done, and nothing is.
    SyncDoesNothing,
    /// What comes again is answered at once, on disk or not.
    RepeatNotFlushed,
}

#[derive(Debug)]
struct Broken {
    store: MemoryMetastore,
    fault: Fault,
    before: Mutex<Vec<EntryOutcome>>,
    readers: AtomicU64,
    /// What was appended and is not seen yet.
    late: Mutex<Vec<Entry>>,
    /// Up to where all is durable, in the stores whose appends are wrong.
    durable: AtomicU64,
}

fn reject(fault: Fault, claim: &str) {
    let open = move || Broken {
        store: MemoryMetastore::new(),
        fault,
        before: Mutex::default(),
        readers: AtomicU64::new(0),
        late: Mutex::default(),
        durable: AtomicU64::new(0),
    };
    let make = move || {
        let subject = Subject::new(open());
        match fault {
            Fault::ForgetsAll => subject.reopen(move |_| Box::new(open())),
            _ => subject,
        }
    };
    check(&make).assert_rejected_by(claim);
}

#[test]
fn a_store_that_applies_half_a_refused_entry_is_rejected() {
    reject(Fault::HalfOfARefusedEntry, "a_refused_entry_changes_nothing");
}

#[test]
fn a_store_that_gives_a_place_twice_is_rejected() {
    reject(Fault::PlaceGivenTwice, "places_are_dense_and_given_once");
}

#[test]
fn a_store_whose_scan_skips_a_row_at_its_limit_is_rejected() {
    reject(Fault::BoundarySkipped, "scans_stop_at_their_limit_and_go_on_after_it");
}

#[test]
fn a_store_whose_scan_repeats_a_row_is_rejected() {
    reject(Fault::BoundaryRepeated, "scans_stop_at_their_limit_and_go_on_after_it");
}

#[test]
fn a_store_that_shows_half_a_batch_is_rejected() {
    reject(Fault::BatchTorn, "no_reader_sees_half_a_batch");
}

#[test]
fn a_store_whose_preconditions_are_stale_is_rejected() {
    reject(Fault::StalePreconditions, "entries_see_those_before_them");
}

#[test]
fn a_store_that_does_an_operation_twice_is_rejected() {
    reject(Fault::RepeatExecuted, "a_repeatable_operation_is_done_once");
}

#[test]
fn a_store_that_puts_rows_at_another_place_is_rejected() {
    reject(Fault::PutAtAnotherPlace, "a_row_is_put_at_the_place_of_its_entry");
}

#[test]
fn a_store_that_keeps_what_was_not_removed_is_rejected() {
    reject(Fault::KeptInAnyCase, "what_a_removal_keeps_is_kept_when_something_is_removed");
}

#[test]
fn a_store_that_forgets_when_it_is_opened_again_is_rejected() {
    reject(Fault::ForgetsAll, "what_was_committed_survives_reopening");
}

#[test]
fn a_store_that_shows_what_was_appended_too_late_is_rejected() {
    reject(Fault::AppendedLater, "what_was_appended_is_read_at_once");
}

#[test]
fn a_store_whose_log_tells_what_is_not_durable_is_rejected() {
    reject(Fault::ToldTooEarly, "the_log_tells_only_what_is_durable");
}

#[test]
fn a_store_whose_flush_does_nothing_is_rejected() {
    reject(Fault::SyncDoesNothing, "the_log_tells_only_what_is_durable");
}

#[test]
fn a_store_that_answers_a_repeat_before_it_is_durable_is_rejected() {
    reject(Fault::RepeatNotFlushed, "a_repeat_makes_what_it_repeats_durable");
}

impl Broken {
    /// Whether it puts flushes off.
    fn is_lazy(&self) -> bool {
        use Fault::{RepeatNotFlushed, SyncDoesNothing, ToldTooEarly};
        matches!(self.fault, ToldTooEarly | SyncDoesNothing | RepeatNotFlushed)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.durable.store(self.store.last_lsn(TreeId::ROOT)?.0, Ordering::SeqCst);
        Ok(())
    }

    /// Gives another thread the chance to look, if there is one.
    fn wait_for_a_reader(&self) {
        const YIELDS_MAX: usize = 2_000;
        let before = self.readers.load(Ordering::SeqCst);
        for _ in 0..YIELDS_MAX {
            if self.readers.load(Ordering::SeqCst) > before + 1 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn apply_rest(&self, batch: &Batch, entry: Entry) -> Result<Applied, StoreError> {
        self.store.apply(&Batch { entries: vec![entry], next_file_id: batch.next_file_id })
    }

    fn one_by_one(
        &self,
        batch: &Batch,
        mut each: impl FnMut(Entry) -> Result<EntryOutcome, StoreError>,
    ) -> Result<Applied, StoreError> {
        let outcomes = batch.entries.iter().cloned().map(&mut each).collect::<Result<_, _>>()?;
        Ok(Applied { outcomes })
    }
}

impl Metastore for Broken {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        match self.fault {
            Fault::HalfOfARefusedEntry => self.one_by_one(batch, |entry| {
                let outcome = self.apply_rest(batch, entry.clone())?.outcomes.remove(0);
                if matches!(outcome, EntryOutcome::Refused { .. }) {
                    let changes = entry.changes[..entry.changes.len().min(1)].to_vec();
                    let elsewhere = TreeId(u32::MAX);
                    self.apply_rest(
                        batch,
                        Entry { tree: elsewhere, preconditions: vec![], changes, ..entry },
                    )?;
                }
                Ok(outcome)
            }),
            Fault::PlaceGivenTwice => {
                let applied = self.store.apply(batch)?;
                Ok(Applied { outcomes: std::mem::replace(&mut *self.before.lock(), applied.outcomes) })
            }
            Fault::BatchTorn => self.one_by_one(batch, |entry| {
                let applied = self.apply_rest(batch, entry)?.outcomes.remove(0);
                self.wait_for_a_reader();
                Ok(applied)
            }),
            Fault::StalePreconditions => {
                let before = self.store.reader()?;
                self.one_by_one(batch, |mut entry| {
                    for (precondition, place) in std::mem::take(&mut entry.preconditions).iter().zip(0..) {
                        let Precondition::Absent(key) = precondition else { continue };
                        if before.get(key)?.is_some() {
                            return Ok(EntryOutcome::Refused { precondition: place });
                        }
                    }
                    Ok(self.apply_rest(batch, entry)?.outcomes.remove(0))
                })
            }
            Fault::PutAtAnotherPlace => self.one_by_one(batch, |mut entry| {
                let Lsn(last) = self.store.last_lsn(entry.tree)?;
                for change in &mut entry.changes {
                    if let Change::PutAtLsn { prefix, value } = change {
                        *change = Change::Put(prefix.at(Lsn(last)), value.clone());
                    }
                }
                Ok(self.apply_rest(batch, entry)?.outcomes.remove(0))
            }),
            Fault::KeptInAnyCase => self.one_by_one(batch, |mut entry| {
                let mut changes = Vec::new();
                for change in &mut entry.changes {
                    if let Change::DeleteIfVacant { kept, .. } = change {
                        let kept = std::mem::take(kept).into_iter();
                        changes.extend(kept.map(|(prefix, value)| Change::PutAtLsn { prefix, value }));
                    }
                }
                entry.changes.extend(changes);
                Ok(self.apply_rest(batch, entry)?.outcomes.remove(0))
            }),
            Fault::RepeatExecuted => self.one_by_one(batch, |entry| {
                Ok(self.apply_rest(batch, Entry { repeatable: false, ..entry })?.outcomes.remove(0))
            }),
            Fault::AppendedLater => {
                let entries = std::mem::take(&mut *self.late.lock());
                self.store.apply(&Batch { entries, next_file_id: 0 })?;
                self.store.apply(batch)
            }
            Fault::RepeatNotFlushed => {
                let applied = self.store.apply(batch)?;
                if applied.outcomes.iter().any(|outcome| matches!(outcome, EntryOutcome::Committed(_))) {
                    self.flush()?;
                }
                Ok(applied)
            }
            _ => {
                let applied = self.store.apply(batch)?;
                self.flush()?;
                Ok(applied)
            }
        }
    }

    fn append(&self, batch: &Batch) -> Result<Option<Applied>, StoreError> {
        if self.fault == Fault::AppendedLater {
            self.late.lock().extend(batch.entries.iter().cloned());
            let places = (1..).take(batch.entries.len()).map(|lsn| EntryOutcome::Committed(Lsn(lsn)));
            return Ok(Some(Applied { outcomes: places.collect() }));
        }
        if self.is_lazy() { self.store.apply(batch).map(Some) } else { Ok(None) }
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.fault == Fault::SyncDoesNothing { Ok(()) } else { self.flush() }
    }

    fn durable_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        if self.is_lazy() && tree == TreeId::ROOT {
            return Ok(Lsn(self.durable.load(Ordering::SeqCst)));
        }
        self.store.last_lsn(tree)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.readers.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(BrokenReader { reader: self.store.reader()?, fault: self.fault }))
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.store.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        let mut records = self.store.changes(tree, since, limit)?;
        if self.is_lazy() && self.fault != Fault::ToldTooEarly {
            let durable = self.durable_lsn(tree)?;
            records.retain(|record| record.lsn <= durable);
        }
        Ok(records)
    }

    fn record(&self, tree: TreeId, lsn: Lsn) -> Result<Option<LogRecord>, StoreError> {
        self.store.record(tree, lsn)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.store.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.store.next_file_id()
    }
}

struct BrokenReader {
    reader: Box<dyn Reader>,
    fault: Fault,
}

impl Reader for BrokenReader {
    fn get(&self, key: &RowKey) -> Result<Option<bytes::Bytes>, StoreError> {
        self.reader.get(key)
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, bytes::Bytes)>, StoreError> {
        let Some(after) = after else { return self.reader.scan(prefix, None, limit) };
        match self.fault {
            Fault::BoundarySkipped => {
                let rows = self.reader.scan(prefix, Some(after), limit.saturating_add(1))?;
                Ok(rows.into_iter().skip(1).collect())
            }
            Fault::BoundaryRepeated => {
                let mut rows = self.reader.scan(prefix, None, usize::MAX)?;
                rows.retain(|(key, _)| key.bytes >= after.bytes);
                rows.truncate(limit);
                Ok(rows)
            }
            _ => self.reader.scan(prefix, Some(after), limit),
        }
    }
}
