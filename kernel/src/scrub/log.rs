//! Whether the log of a tree is a chain: each place once, in order, up to the last one that was on disk.

use nexus_messages::Lsn;

use super::finding::Fault;
use super::survey::Suspect;
use crate::hal::{LogRecord, Metastore, StoreError, TreeId};

/// How many records are read at once.
const PAGE: usize = 1_024;

/// More than this in one log is told no further.
const SUSPECTS_MAX: usize = 64;

/// What is wrong with the log of `tree`, and how many records it has. Blocks.
pub(super) fn check(
    metastore: &dyn Metastore,
    tree: TreeId,
    goes_on: &dyn Fn() -> bool,
) -> Result<(u64, Vec<Suspect>), StoreError> {
    let (mut records, mut suspects) = (0, Vec::new());
    // What was on disk when this began is told in any case.
    let durable = metastore.durable_lsn(tree)?;
    let mut last: Option<Lsn> = None;
    while goes_on() && suspects.len() < SUSPECTS_MAX {
        let page = metastore.changes(tree, last.unwrap_or_default(), PAGE)?;
        let full = page.len() == PAGE;
        for LogRecord { lsn, .. } in page {
            records += 1;
            if let Some(before) = last {
                suspects.extend(step(metastore, tree, before, lsn)?);
                if lsn <= before {
                    // Whatever comes behind it is told from where it was asked for again, and again.
                    return Ok((records, suspects));
                }
            }
            last = Some(lsn);
        }
        if !full {
            let end = last.unwrap_or_default();
            if end < durable {
                let fault = Fault::LogGap { after: end, next: durable };
                suspects.push(Suspect::of_tree(tree, fault, "the log ends before what was on disk"));
            }
            break;
        }
    }
    Ok((records, suspects))
}

/// What is wrong when `next` is told behind `before`.
fn step(
    metastore: &dyn Metastore,
    tree: TreeId,
    before: Lsn,
    next: Lsn,
) -> Result<Option<Suspect>, StoreError> {
    if next.0 == before.0 + 1 {
        return Ok(None);
    }
    if next <= before {
        let fault = Fault::LogDisorder { after: before, next };
        return Ok(Some(Suspect::of_tree(tree, fault, "places are told in order")));
    }
    // Unless those in between went with what is older than the log's retention, and `before` with them.
    if metastore.record(tree, before)?.is_none() || metastore.record(tree, Lsn(before.0 + 1))?.is_some() {
        return Ok(None);
    }
    let fault = Fault::LogGap { after: before, next };
    let cause = format!("{} places are not there", next.0 - before.0 - 1);
    Ok(Some(Suspect::of_tree(tree, fault, cause)))
}
