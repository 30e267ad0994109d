//! What readers see: the rows in memory over the rows in the database.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{LogRecord, Reader, RowKey, StoreError, TreeId};
use nexus_messages::{Lsn, OpId};

use super::layer::Layer;
use super::recent::Recent;
use crate::redb::Snapshot;

/// The layers, newest first, and the database as of the last fold. It changes with each fold; the frames in between are published within `active`.
#[derive(Debug)]
pub(super) struct State {
    /// What is being written.
    pub(super) active: Arc<Layer>,
    /// What is on its way into the database.
    pub(super) folding: Option<Arc<Layer>>,
    /// The database as it was when the state was made.
    pub(super) base: Snapshot,
    /// What was found there lately.
    pub(super) recent: Recent,
    /// In which epoch of the database.
    pub(super) epoch: u64,
}

/// The rows as of one frame.
#[derive(Debug, Clone)]
pub(super) struct View {
    state: Arc<State>,
    seq: u64,
}

impl View {
    /// What readers may see now.
    pub(super) fn of(state: &Arc<State>) -> Self {
        Self { state: state.clone(), seq: state.active.published() }
    }

    /// As of the frame `seq`, which is being made.
    pub(super) fn within(state: &Arc<State>, seq: u64) -> Self {
        Self { state: state.clone(), seq }
    }

    pub(super) fn active(&self) -> &Layer {
        &self.state.active
    }

    /// The records of `tree` after `since` that the frames up to `through` hold, at most `limit`.
    pub(super) fn changes(
        &self,
        tree: TreeId,
        since: Lsn,
        through: u64,
        limit: usize,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let through = through.min(self.seq);
        let mut records = self.state.base.changes(tree, since, limit)?;
        for layer in self.layers().rev() {
            let after = records.last().map_or(since, |record| record.lsn);
            records.extend(layer.changes(tree, after, through, limit - records.len()));
        }
        Ok(records)
    }

    pub(super) fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        match self.layers().find_map(|layer| layer.outcome(op_id, self.seq)) {
            Some(found) => Ok(Some(found)),
            None => self.state.base.outcome(op_id),
        }
    }

    /// The layers, newest first.
    fn layers(&self) -> impl DoubleEndedIterator<Item = &Layer> {
        std::iter::once(&*self.state.active).chain(self.state.folding.as_deref())
    }

    /// What the layers say of the rows within `prefix` after `after`, each once: of several that know it the newest is heard.
    fn in_memory<'a>(
        &'a self,
        prefix: &'a RowKey,
        after: Option<&'a RowKey>,
    ) -> impl Iterator<Item = (RowKey, Option<Bytes>)> + 'a {
        let within = move |layer: &'a Arc<Layer>| layer.within(prefix, after, self.seq);
        let mut newer = within(&self.state.active).peekable();
        let mut older = self.state.folding.iter().flat_map(within).peekable();
        std::iter::from_fn(move || {
            let order = match (newer.peek(), older.peek()) {
                (Some((new, _)), Some((old, _))) => new.cmp(old),
                (None, _) => Ordering::Greater,
                (_, None) => Ordering::Less,
            };
            match order {
                Ordering::Greater => older.next(),
                Ordering::Less => newer.next(),
                Ordering::Equal => {
                    older.next();
                    newer.next()
                }
            }
        })
    }
}

impl Reader for View {
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        match self.layers().find_map(|layer| layer.get(key, self.seq)) {
            Some(row) => Ok(row),
            None => self.state.recent.get(key, || self.state.base.get(key)),
        }
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let mut rows = Vec::new();
        // Before the first key of the prefix nothing of it can be.
        let after = after.filter(|after| after.bytes >= prefix.bytes);
        let mut below = Below { state: &self.state, prefix, after: after.cloned(), page: None };
        let mut under = below.next(limit)?;
        let mut in_memory = self.in_memory(prefix, after);
        let mut above = in_memory.next();
        while rows.len() < limit {
            let order = match (&above, &under) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((above, _)), Some((under, _))) => above.cmp(under),
            };
            match order {
                Ordering::Greater => {
                    rows.extend(under.take());
                }
                _ => {
                    if let Some((key, value)) = above.take() {
                        above = in_memory.next();
                        rows.extend(value.map(|value| (key, value)));
                    }
                }
            }
            // What memory says of the same key stands for what the database says.
            if order != Ordering::Less {
                under = below.next(limit - rows.len())?;
            }
        }
        Ok(rows)
    }
}

/// The rows of the database, in pages.
struct Below<'a> {
    state: &'a State,
    prefix: &'a RowKey,
    /// The last row of the last page.
    after: Option<RowKey>,
    page: Option<std::vec::IntoIter<(RowKey, Bytes)>>,
}

impl Below<'_> {
    /// The next row; `wanted` is how many are asked for at most.
    fn next(&mut self, wanted: usize) -> Result<Option<(RowKey, Bytes)>, StoreError> {
        if let Some(page) = &mut self.page {
            if let Some(row) = page.next() {
                return Ok(Some(row));
            }
            if self.after.is_none() {
                return Ok(None);
            }
        }
        if wanted == 0 {
            return Ok(None);
        }
        // Some more than are wanted: those that were removed since are passed over.
        let full = wanted.saturating_add(REMOVED_EXPECTED);
        let page = self.state.base.scan(self.prefix, self.after.as_ref(), full)?;
        let last = page.last().filter(|_| page.len() == full).map(|(key, _)| key.clone());
        self.after = last;
        let page = self.page.insert(page.into_iter());
        Ok(page.next())
    }
}

/// How many rows of the database are expected to be removed in memory, at the beginning of a listing.
const REMOVED_EXPECTED: usize = 4;
