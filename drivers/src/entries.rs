//! How a batch of entries becomes rows: the part of a metastore that every driver shares.
//!
//! Pure: the rows and the log are handed in, nothing here knows where they are kept.

use nexus_kernel::hal::{Batch, Change, Entry, EntryOutcome, Precondition, RowKey, StoreError, TreeId};
use nexus_messages::syscall::OPS_KEPT;
use nexus_messages::{Lsn, OpId};

/// How many records a tree's log keeps at least. An operation is remembered as long as its record is among them, and no longer.
pub(crate) const LOG_RETENTION: u64 = OPS_KEPT;

/// How many records are let go at once. One by one they would cost each commit a change at the log's other end.
const PRUNE_STEP: u64 = 64;

const _: () = assert!(PRUNE_STEP < LOG_RETENTION);

/// What a batch is applied to: one transaction of a driver. After an error the driver drops it whole.
pub(crate) trait Transaction {
    /// Whether there is a row at `key`, and with the value `expected` if one is given.
    fn holds(&mut self, key: &RowKey, expected: Option<&[u8]>) -> Result<bool, StoreError>;

    /// Whether no row has a key that starts with `prefix`.
    fn vacant(&mut self, prefix: &RowKey) -> Result<bool, StoreError>;

    fn put(&mut self, key: &RowKey, value: &bytes::Bytes) -> Result<(), StoreError>;

    fn delete(&mut self, key: &RowKey) -> Result<(), StoreError>;

    /// Where the operation was committed last, in this transaction or before; also one that [is not remembered](is_remembered) any more.
    fn committed(&mut self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError>;

    /// The last place in the log of `tree`.
    fn last_lsn(&mut self, tree: TreeId) -> Result<Lsn, StoreError>;

    /// Writes the record of `entry` at `lsn`, which is now the last of its tree, and remembers its identity when it is repeatable.
    fn log(&mut self, entry: &Entry, lsn: Lsn) -> Result<(), StoreError>;

    /// Forgets the records of `tree` up to and including `lsn`, with the identities of their operations, unless those were committed again since.
    fn prune(&mut self, tree: TreeId, lsn: Lsn) -> Result<(), StoreError>;
}

/// Applies the entries in their order; one outcome for each.
pub(crate) fn apply(
    transaction: &mut impl Transaction,
    batch: &Batch,
) -> Result<Vec<EntryOutcome>, StoreError> {
    batch.entries.iter().map(|entry| apply_entry(transaction, entry)).collect()
}

fn apply_entry(transaction: &mut impl Transaction, entry: &Entry) -> Result<EntryOutcome, StoreError> {
    if entry.repeatable
        && let Some((tree, lsn)) = transaction.committed(entry.op_id)?
        && is_remembered(lsn, transaction.last_lsn(tree)?)
    {
        return Ok(EntryOutcome::Repeated(lsn));
    }
    for (index, precondition) in entry.preconditions.iter().enumerate() {
        if !holds(transaction, precondition)? {
            return Ok(EntryOutcome::Refused { precondition: index });
        }
    }
    let Lsn(last) = transaction.last_lsn(entry.tree)?;
    let lsn = Lsn(last + 1);
    for change in &entry.changes {
        make(transaction, change, lsn)?;
    }
    transaction.log(entry, lsn)?;
    if let Some(through) = prunable(lsn) {
        transaction.prune(entry.tree, through)?;
    }
    Ok(EntryOutcome::Committed(lsn))
}

/// Whether an operation that was committed at `lsn` is remembered, when `last` is the last place of its log.
pub(crate) fn is_remembered(Lsn(lsn): Lsn, Lsn(last): Lsn) -> bool {
    last.saturating_sub(lsn) < OPS_KEPT
}

/// Up to which record a log is let go when `lsn` was written. Every [`PRUNE_STEP`] records, so that it needs no memory of what went before.
fn prunable(Lsn(lsn): Lsn) -> Option<Lsn> {
    (lsn % PRUNE_STEP == 0 && lsn > LOG_RETENTION).then(|| Lsn(lsn - LOG_RETENTION))
}

fn holds(transaction: &mut impl Transaction, precondition: &Precondition) -> Result<bool, StoreError> {
    match precondition {
        Precondition::Absent(key) => Ok(!transaction.holds(key, None)?),
        Precondition::Present(key) => transaction.holds(key, None),
        Precondition::Equals(key, value) => transaction.holds(key, Some(value)),
        Precondition::Vacant(prefix) => transaction.vacant(prefix),
        _ => Err(StoreError::NotSupported { what: "this precondition" }),
    }
}

fn make(transaction: &mut impl Transaction, change: &Change, lsn: Lsn) -> Result<(), StoreError> {
    match change {
        Change::Put(key, value) => transaction.put(key, value),
        Change::PutIfAbsent(key, value) => match transaction.holds(key, None)? {
            true => Ok(()),
            false => transaction.put(key, value),
        },
        Change::Delete(key) => transaction.delete(key),
        Change::PutAtLsn { prefix, value } => transaction.put(&prefix.at(lsn), value),
        Change::DeleteIfVacant { prefix, rows, kept } => match transaction.vacant(prefix)? {
            true => {
                rows.iter().try_for_each(|row| transaction.delete(row))?;
                kept.iter().try_for_each(|(prefix, value)| transaction.put(&prefix.at(lsn), value))
            }
            false => Ok(()),
        },
        _ => Err(StoreError::NotSupported { what: "this change" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_pruned_in_steps_and_never_below_its_retention() {
        let check = |lsn, expected| assert_eq!(prunable(Lsn(lsn)), expected, "{lsn}");
        check(1, None);
        check(LOG_RETENTION, None);
        check(LOG_RETENTION + 1, None);
        check(LOG_RETENTION + PRUNE_STEP, Some(Lsn(PRUNE_STEP)));
        check(2 * LOG_RETENTION, Some(Lsn(LOG_RETENTION)));
    }
}
