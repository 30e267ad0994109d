//! What was found at a path over time: the path resolved as of one place in the log after the other, backwards.
//!
//! To resolve a path is to look at rows, and what a row was it was from one change of it to the next. So what was found as of a place was found
//! from the latest of the changes before that any of the rows looked at had, to the first of those after; the place before the first is where the
//! next look goes. No place is looked at for nothing, and what the history no longer tells is passed by.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::{EntryType, FileId, Lsn, Op, Timestamp};

use super::history::{Was, pasts};
use super::rows::{self, DentryRow, InodeRow};
use crate::hal::{Reader, RowKey, StoreError, TreeId};

/// How many rows of history are looked at in one step.
const PAGE: usize = 64;

/// What changed a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) lsn: Lsn,
    pub(crate) at: Timestamp,
    pub(crate) by: Arc<str>,
    pub(crate) op: Op,
}

/// What a row was between two changes of it that follow each other.
#[derive(Debug, Clone)]
struct Span {
    was: Was,
    /// What made it so; none when it was so where the history begins.
    since: Option<Changed>,
    /// What made it another; none when nothing has.
    until: Option<Changed>,
}

/// What was found at the path, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Stay {
    /// The entry; none when there was none, or when what was there is no longer kept.
    pub(crate) found: Option<(FileId, InodeRow)>,
    /// What began it; none when it was so where the history begins.
    pub(crate) since: Option<Changed>,
    /// What ended it; none for what is so now.
    pub(crate) until: Option<Changed>,
}

/// A walk from what is at a path now to what was there where the history begins.
pub(crate) struct Trail<'r> {
    reader: &'r dyn Reader,
    tree: TreeId,
    root: FileId,
    names: Vec<&'r str>,
    begins: Lsn,
    /// As of where it looks next; none at the end.
    next: Option<Lsn>,
    /// The rows that the last look met: of most the next one finds the same.
    met: BTreeMap<RowKey, Span>,
}

impl<'r> Trail<'r> {
    /// What was at `relative`, a path without leading slash, below the directory `root`: as of `from`, and before.
    pub(crate) fn new(
        reader: &'r dyn Reader,
        tree: TreeId,
        root: FileId,
        relative: &'r str,
        begins: Lsn,
        from: Lsn,
    ) -> Self {
        let names = relative.split('/').filter(|name| !name.is_empty()).collect();
        let next = (from >= begins).then_some(from);
        Self { reader, tree, root, names, begins, next, met: BTreeMap::new() }
    }

    /// What was there before what the last look found.
    pub(crate) fn back(&mut self) -> Result<Option<Stay>, StoreError> {
        let Some(as_of) = self.next else { return Ok(None) };
        let mut look = Look { trail: self, as_of, met: BTreeMap::new(), since: None, until: None };
        let found = look.resolve()?;
        let Look { met, since, until, .. } = look;
        self.met = met;
        self.next = since
            .as_ref()
            .map(|since| Lsn(since.lsn.0.saturating_sub(1)))
            .filter(|next| *next >= self.begins);
        Ok(Some(Stay { found, since, until }))
    }
}

/// One look at the path, as of a place.
struct Look<'t, 'r> {
    trail: &'t Trail<'r>,
    as_of: Lsn,
    met: BTreeMap<RowKey, Span>,
    since: Option<Changed>,
    until: Option<Changed>,
}

impl Look<'_, '_> {
    fn resolve(&mut self) -> Result<Option<(FileId, InodeRow)>, StoreError> {
        let (tree, mut here) = (self.trail.tree, self.trail.root);
        let last = self.trail.names.len();
        for (name, nth) in self.trail.names.iter().zip(1..) {
            let Some(dentry) = self.row::<DentryRow>(rows::dentry_key(tree, here, name))? else {
                return Ok(None);
            };
            if nth < last && !matches!(dentry.entry_type, EntryType::Dir | EntryType::Mount) {
                return Ok(None);
            }
            here = dentry.id;
        }
        let key = rows::inode_key(tree, here);
        let row = self.row(key.clone())?;
        // A name leads to it, so it was there: it is no longer kept, or lost.
        if row.is_none() && self.met.get(&key).is_some_and(|span| span.was == Was::Nothing) {
            return Err(StoreError::Corrupt { what: format!("row {key:?}"), found: "nothing".into() });
        }
        Ok(row.map(|row| (here, row)))
    }

    /// What the row was. What is found can be so no longer than it.
    fn row<T: serde::de::DeserializeOwned>(&mut self, key: RowKey) -> Result<Option<T>, StoreError> {
        let is_in = |span: &&Span| {
            span.since.as_ref().is_none_or(|since| since.lsn <= self.as_of)
                && span.until.as_ref().is_none_or(|until| until.lsn > self.as_of)
        };
        let span = match self.trail.met.get(&key).filter(is_in) {
            Some(span) => span.clone(),
            None => span(self.trail.reader, &key, self.trail.begins, self.as_of)?,
        };
        let since = self.since.take().into_iter().chain(span.since.clone());
        self.since = since.max_by_key(|changed| changed.lsn);
        let until = self.until.take().into_iter().chain(span.until.clone());
        self.until = until.min_by_key(|changed| changed.lsn);
        let row = match &span.was {
            Was::Row(value) => Some(rows::decode(&key, value)?),
            Was::Nothing | Was::Dropped => None,
        };
        self.met.insert(key, span);
        Ok(row)
    }
}

/// What the row at `key` was as of `as_of`, and between which changes. The changes after `begins` are found by halving what lies between it and
/// `as_of`, and most rows have so few that one page holds them.
fn span(reader: &dyn Reader, key: &RowKey, begins: Lsn, as_of: Lsn) -> Result<Span, StoreError> {
    let (mut low, mut high) = (begins, as_of);
    let mut after = low;
    let mut since = None;
    let until = loop {
        let mut page = pasts(reader, key, after, PAGE)?;
        let is_whole = page.len() < PAGE;
        let later = page.iter().position(|(lsn, _)| *lsn > as_of);
        let until = later.map(|at| page.remove(at));
        page.truncate(later.unwrap_or(page.len()));
        if let Some((lsn, past)) = page.pop() {
            since = Some(Changed { lsn, at: past.at, by: past.by, op: past.op });
            low = lsn;
            if is_whole || until.is_some() {
                break until;
            }
        } else if low == after {
            // Nothing lies between the last change that was found and the place.
            break until;
        } else {
            high = after;
        }
        // Until there is nothing left between them, what is between them is halved.
        after = if high.0.saturating_sub(low.0) <= PAGE as u64 { low } else { Lsn(low.0.midpoint(high.0)) };
    };
    let (was, until) = match until {
        Some((lsn, past)) => (past.was, Some(Changed { lsn, at: past.at, by: past.by, op: past.op })),
        None => (reader.get(key)?.map_or(Was::Nothing, Was::Row), None),
    };
    Ok(Span { was, since, until })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::namespace::fixture::Base;
    use crate::namespace::history::{Past, past_of};

    const TREE: TreeId = TreeId(3);

    fn past(lsn: u64, was: Was) -> Past {
        Past { mount: FileId(1), at: Timestamp(lsn + 1_000), by: "me".into(), op: Op::Write, was }
    }

    proptest! {
        /// Against the naive model: all changes, one after the other. Long runs of them, and gaps, so that what is halved is not in one page.
        #[test]
        fn a_row_was_what_it_was_between_the_changes_around_the_place(
            runs in prop::collection::vec((1u64..100_000, 1u64..200), 0..4),
            begins in 0u64..200, places in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        ) {
            let mut changes = BTreeSet::new();
            let mut at = 0;
            for (gap, length) in runs {
                at += gap;
                changes.extend(at..at + length);
                at += length;
            }
            let key = rows::inode_key(TREE, FileId(5));
            let mut base = Base::default();
            let value = |lsn: u64| bytes::Bytes::from(format!("until {lsn}"));
            for lsn in &changes {
                let row = past(*lsn, Was::Row(value(*lsn)));
                base.0.insert(past_of(&key).unwrap().at(Lsn(*lsn)), rows::encode(&row));
            }
            base.0.insert(key.clone(), value(0));
            let looked = places.iter().map(|place| begins + place.index(usize::try_from(at).unwrap() + 10) as u64);
            for as_of in looked.chain([u64::MAX]) {
                let found = span(&base, &key, Lsn(begins), Lsn(as_of)).unwrap();
                let since = changes.range(begins + 1..).take_while(|lsn| **lsn <= as_of).last();
                let until = changes.iter().find(|lsn| **lsn > as_of);
                let lsn = |changed: &Option<Changed>| changed.as_ref().map(|changed| changed.lsn.0);
                prop_assert_eq!((lsn(&found.since), lsn(&found.until)), (since.copied(), until.copied()));
                prop_assert_eq!(found.was, Was::Row(value(until.copied().unwrap_or(0))));
            }
        }
    }

    #[test]
    fn what_is_no_longer_kept_is_passed_by_and_what_is_lost_is_told() {
        let name = rows::dentry_key(TREE, FileId(1), "f");
        let inode = rows::inode_key(TREE, FileId(5));
        let dentry = DentryRow { id: FileId(5), entry_type: EntryType::Reg };
        let row = |version| {
            let mut row = InodeRow::new(EntryType::Reg, "me".into(), Timestamp(1));
            row.version = version;
            row
        };
        let mut base = Base::default();
        let mut put = |key: &RowKey, lsn, was| {
            base.0.insert(past_of(key).unwrap().at(Lsn(lsn)), rows::encode(&past(lsn, was)));
        };
        put(&name, 10, Was::Nothing);
        put(&inode, 20, Was::Dropped);
        put(&inode, 30, Was::Row(rows::encode(&row(7))));
        put(&inode, 40, Was::Row(rows::encode(&row(8))));
        put(&name, 40, Was::Row(rows::encode(&dentry)));
        let stays = |base: &Base| {
            let mut trail = Trail::new(base, TREE, FileId(1), "f", Lsn(2), Lsn(u64::MAX));
            let mut stays = Vec::new();
            while let Some(stay) = trail.back()? {
                let lsn = |changed: Option<Changed>| changed.map(|changed| changed.lsn.0);
                stays.push((stay.found.map(|(_, row)| row.version), lsn(stay.since), lsn(stay.until)));
            }
            Ok::<_, StoreError>(stays)
        };
        let expected = [
            (None, Some(40), None),
            (Some(8), Some(30), Some(40)),
            (Some(7), Some(20), Some(30)),
            (None, Some(10), Some(20)),
            (None, None, Some(10)),
        ];
        assert_eq!(stays(&base).unwrap(), expected);
        base.0
            .retain(|key, _| parts(key) != Some(40) || key.bytes.starts_with(&past_of(&name).unwrap().bytes));
        assert!(
            matches!(stays(&base), Err(StoreError::Corrupt { .. })),
            "a name leads to an entry that is lost"
        );
    }

    fn parts(key: &RowKey) -> Option<u64> {
        key.bytes.last_chunk().map(|lsn| u64::from_be_bytes(*lsn))
    }
}
