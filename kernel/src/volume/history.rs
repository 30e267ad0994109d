//! The past of a content-addressed mount: rows as of a place in the log, and the versions of an entry.

use std::sync::Arc;

use nexus_messages::syscall::Version;
use nexus_messages::{FileId, Lsn, Op, Timestamp};

use super::Site;
use super::rows::RowVolume;
use crate::hal::{RowKey, StoreError};
use crate::namespace::{
    AsOf, DentryRow, InodeRow, LogTimes, Node, Past, Rows, Step, Walk, Was, decode, dentry_key, horizon,
    inode_key, pasts, place_at,
};

/// How many rows of history are read at once.
const PAGE: usize = 256;

/// A page of versions, and where to go on.
type VersionPage = (Vec<Version>, Option<Lsn>);

/// What a row was, and what superseded it where.
struct State {
    row: InodeRow,
    until: Option<(Lsn, Past)>,
}

impl RowVolume<'_> {
    /// The rows as of `lsn`.
    pub(super) fn past(&self, lsn: Lsn) -> Result<Rows, StoreError> {
        let store = self.kernel.store();
        // Before the view, which then has all up to it.
        let last = store.last_lsn(self.mount.tree)?;
        if lsn > last {
            return Err(StoreError::BadOption {
                why: format!("{lsn} is yet to come: the last commit is {last}"),
            });
        }
        let rows = store.rows(self.mount.tree)?;
        let begins = self.begins(&rows)?;
        if lsn < begins {
            return Err(StoreError::NotKept {
                what: format!(
                    "what was as of {lsn}: the history of {} begins at {begins}, and that",
                    self.mount.point
                ),
            });
        }
        Ok(AsOf::over(rows, lsn))
    }

    /// The place in the log as of which there was what there was at `time`.
    pub(crate) fn moment(&self, time: Timestamp) -> Result<Lsn, StoreError> {
        let now = Timestamp(self.kernel.env().wall());
        if time > now {
            return Err(StoreError::BadOption { why: format!("{time} is yet to come: it is {now}") });
        }
        let (store, tree) = (self.kernel.store(), self.mount.tree);
        let begins = self.begins(&store.rows(tree)?)?;
        let log = store.metastore();
        let oldest = log.changes(tree, Lsn(begins.0.saturating_sub(1)), 1)?.pop();
        let place = match &oldest {
            Some(oldest) => {
                place_at(&LogTimes { store: log, tree }, oldest.lsn, store.last_lsn(tree)?, time)?
            }
            None => None,
        };
        place.ok_or_else(|| {
            let point = &self.mount.point;
            let oldest = oldest.map_or_else(|| "nothing".into(), |oldest| oldest.at.to_string());
            let what =
                format!("what was at {time}: {oldest} is the oldest time of {point} that is known, and that");
            StoreError::NotKept { what }
        })
    }

    /// Whether there is history as of `lsn`.
    pub(crate) fn has_past(&self, lsn: Lsn) -> Result<bool, StoreError> {
        let rows = self.kernel.store().rows(self.mount.tree)?;
        match self.begins(&rows) {
            Ok(begins) => Ok(begins <= lsn),
            Err(StoreError::NotKept { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// From where on there is history.
    fn begins(&self, rows: &Rows) -> Result<Lsn, StoreError> {
        let kept = self.mount.history().is_some();
        let begins = if kept { horizon(&*rows.reader, rows.tree, self.mount.root)? } else { None };
        begins
            .ok_or_else(|| StoreError::NotKept { what: format!("history on the mount {}", self.mount.point) })
    }

    /// The identity of what is at `site`, or was last there, and the steps to it.
    fn identity<'p>(
        &self,
        rows: &Rows,
        site: &'p Site,
    ) -> Result<Option<(FileId, Vec<Step<'p>>)>, StoreError> {
        match rows.walk(self.mount.root, site.relative())? {
            Walk::Found { steps } => {
                let id = steps.last().map_or(self.mount.root, |step| step.dentry.id);
                Ok(Some((id, steps)))
            }
            Walk::Missing { steps, parent, rest } if rest.len() == 1 => {
                let key = dentry_key(rows.tree, parent, rest[0]);
                let Some((_, Past { was: Was::Row(row), .. })) = newest(rows, &key)? else { return Ok(None) };
                let dentry: DentryRow = decode(&key, &row)?;
                let mut steps = steps;
                steps.push(Step { parent, name: rest[0], dentry });
                Ok(Some((dentry.id, steps)))
            }
            _ => Ok(None),
        }
    }

    /// The entry at `site`, or the last one there, as it was when it had this version.
    pub(crate) fn version(&self, site: &Site, version: u64) -> Result<Option<Node>, StoreError> {
        let rows = self.kernel.store().rows(self.mount.tree)?;
        let begins = self.begins(&rows)?;
        let Some((id, _)) = self.identity(&rows, site)? else { return Ok(None) };
        let node = |row: &InodeRow| Node {
            metadata: Arc::new(row.metadata(site.path.clone(), self.mount.zone.clone(), id)),
            placement: row.placement,
        };
        let mut last = None;
        self.states(&rows, id, begins, &mut |state| {
            if state.row.version == version {
                last = Some(node(&state.row));
            }
            // Numbers only grow: what follows has greater ones.
            state.row.version <= version
        })?;
        match last {
            Some(node) => Ok(Some(node)),
            None => Err(StoreError::NotKept { what: format!("version {version} of {}", site.path) }),
        }
    }

    /// The versions of the entry at `site`, or of the last one there, that were superseded after `after`, at most `limit`. None when there never was one.
    pub(crate) fn versions(
        &self,
        site: &Site,
        after: Option<Lsn>,
        limit: usize,
    ) -> Result<Option<VersionPage>, StoreError> {
        let rows = self.kernel.store().rows(self.mount.tree)?;
        let begins = self.begins(&rows)?;
        let Some((id, steps)) = self.identity(&rows, site)? else { return Ok(None) };
        let mut made = None;
        let mut begun = false;
        let mut found: Vec<Version> = Vec::new();
        let mut next = None;
        let from = after.map_or(begins, |Lsn(after)| Lsn(after.saturating_sub(1)).max(begins));
        let mut dropped = None;
        self.each_past(&rows, id, from, &mut |lsn, past| {
            // What the page before ended with tells who made the first version of this one.
            if Some(lsn) == after || past.was == Was::Dropped {
                dropped = Some((lsn, past.by.clone(), past.op));
            }
            false
        })?;
        let maker = match dropped {
            Some(maker) => Some(maker),
            None if after.is_none() => creation(&rows, &steps, begins)?,
            None => None,
        };
        let from = after.unwrap_or(begins).max(begins);
        self.states(&rows, id, from, &mut |State { row, until }| {
            if !begun {
                begun = true;
                made.clone_from(&maker);
            }
            let full = found.len() == limit;
            match found.last_mut().filter(|last| last.version == row.version) {
                // Its attributes were changed.
                Some(same) => {
                    same.until = until.as_ref().map(|(lsn, _)| *lsn);
                    same.modified = row.modified;
                }
                None if full => {
                    next = found.last().and_then(|last| last.until);
                    return false;
                }
                None => {
                    let mut version =
                        Version::new(row.version, row.size, row.content_id.clone(), row.modified);
                    if let Some((lsn, by, op)) = made.take() {
                        (version.lsn, version.by, version.op) = (Some(lsn), Some(by), Some(op));
                    }
                    version.until = until.as_ref().map(|(lsn, _)| *lsn);
                    found.push(version);
                }
            }
            made = until.map(|(lsn, past)| (lsn, past.by, past.op));
            true
        })?;
        Ok(Some((found, next)))
    }

    /// Looks at what is kept of the past of the entry after `from`, the oldest first, for as long as it is asked to go on.
    fn each_past(
        &self,
        rows: &Rows,
        id: FileId,
        from: Lsn,
        look: &mut dyn FnMut(Lsn, Past) -> bool,
    ) -> Result<(), StoreError> {
        let key = inode_key(rows.tree, id);
        let mut from = from;
        loop {
            let page = pasts(&*rows.reader, &key, from, PAGE)?;
            let full = page.len() == PAGE;
            for (lsn, past) in page {
                from = lsn;
                if !look(lsn, past) {
                    return Ok(());
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Looks at the states of the entry that were superseded after `from`, the oldest first and that of now last.
    fn states(
        &self,
        rows: &Rows,
        id: FileId,
        from: Lsn,
        look: &mut dyn FnMut(State) -> bool,
    ) -> Result<(), StoreError> {
        let key = inode_key(rows.tree, id);
        let mut failed = None;
        let mut goes_on = true;
        self.each_past(rows, id, from, &mut |lsn, past| {
            let Was::Row(value) = &past.was else { return true };
            match decode(&key, value) {
                Ok(row) => goes_on = look(State { row, until: Some((lsn, past)) }),
                Err(error) => (failed, goes_on) = (Some(error), false),
            }
            goes_on
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if let (true, Some(value)) = (goes_on, rows.reader.get(&key)?) {
            look(State { row: decode(&key, &value)?, until: None });
        }
        Ok(())
    }
}

/// The last thing that is kept of the past of the row at `key`.
fn newest(rows: &Rows, key: &RowKey) -> Result<Option<(Lsn, Past)>, StoreError> {
    let mut newest = None;
    let mut from = Lsn(0);
    loop {
        let page = pasts(&*rows.reader, key, from, PAGE)?;
        let full = page.len() == PAGE;
        newest = page.into_iter().next_back().or(newest);
        match &newest {
            Some((lsn, _)) if full => from = *lsn,
            _ => return Ok(newest),
        }
    }
}

/// What made the entry to which the steps lead, as far as its names tell: the commit, who and by which operation. A name that was there from its
/// directory's first moment has no history of its own.
fn creation(rows: &Rows, steps: &[Step<'_>], begins: Lsn) -> Result<Option<(Lsn, Arc<str>, Op)>, StoreError> {
    let mut at_once = None;
    for step in steps.iter().rev() {
        match appearance(rows, step, begins)? {
            Some((lsn, past)) => {
                let made = past.was == Was::Nothing && past.op != Op::Rename;
                let made = made && at_once.is_none_or(|at| at == past.at);
                return Ok(made.then_some((lsn, past.by, past.op)));
            }
            None => {
                let key = inode_key(rows.tree, step.dentry.id);
                let Some(value) = rows.reader.get(&key)? else { return Ok(None) };
                at_once.get_or_insert(decode::<InodeRow>(&key, &value)?.created);
            }
        }
    }
    Ok(None)
}

/// What gave the entry its name, when it was not there from the beginning: the last of what the name was before it.
fn appearance(rows: &Rows, step: &Step<'_>, begins: Lsn) -> Result<Option<(Lsn, Past)>, StoreError> {
    let key = dentry_key(rows.tree, step.parent, step.name);
    let is_it = |was: &Was| match was {
        Was::Row(row) => Ok(decode::<DentryRow>(&key, row)?.id == step.dentry.id),
        Was::Nothing | Was::Dropped => Ok(false),
    };
    let (mut appeared, mut before): (_, Option<(Lsn, Past)>) = (None, None);
    let mut from = begins;
    loop {
        let page = pasts(&*rows.reader, &key, from, PAGE)?;
        let full = page.len() == PAGE;
        for (lsn, past) in page {
            from = lsn;
            let other = before.take().map(|before| Ok((!is_it(&before.1.was)?, before))).transpose()?;
            if let Some((true, before)) = other
                && is_it(&past.was)?
            {
                appeared = Some(before);
            }
            before = Some((lsn, past));
        }
        if !full {
            break;
        }
    }
    let now = rows.reader.get(&key)?.map_or(Was::Nothing, Was::Row);
    match before {
        Some(before) if !is_it(&before.1.was)? && is_it(&now)? => Ok(Some(before)),
        _ => Ok(appeared),
    }
}
