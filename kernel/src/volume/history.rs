//! The past of a content-addressed mount: rows as of a place in the log, and the versions of an entry.

use std::sync::Arc;

use nexus_messages::syscall::Version;
use nexus_messages::{FileId, Lsn, Op, Timestamp};

use super::Site;
use super::rows::RowVolume;
use crate::hal::{RowKey, StoreError};
use crate::namespace::{
    AsOf, Changed, DentryRow, InodeRow, LogTimes, Node, Past, Rows, Stay, Step, Steps, Trail, Walk, Was,
    decode, dentry_key, horizon, inode_key, pasts, place_at,
};

/// How many rows of history are read at once.
const PAGE: usize = 256;

/// How many changes of what a path led to, of which none is a version of its own, one call looks at before it says where to go on.
const LOOKS_MAX: usize = 16_384;

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
    fn identity<'p>(&self, rows: &Rows, site: &'p Site) -> Result<Option<(FileId, Steps<'p>)>, StoreError> {
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
            // Nor is there a directory for it: the last that was found there, whatever led to it.
            Walk::Missing { .. } | Walk::NotADirectory => {
                let begins = self.begins(rows)?;
                let (reader, root, last) = (&*rows.reader, self.mount.root, Lsn(u64::MAX));
                let mut trail = Trail::new(reader, rows.tree, root, site.relative(), begins, last);
                while let Some(stay) = trail.back()? {
                    if let Some((id, _)) = stay.found {
                        return Ok(Some((id, Steps::new())));
                    }
                }
                Ok(None)
            }
            Walk::Link => Ok(None),
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

    /// What was found at `site`, the latest first and at most `limit` of it: all before `before`, or up to now. Gives too from where on there is
    /// history.
    pub(crate) fn versions(
        &self,
        site: &Site,
        before: Option<Lsn>,
        limit: usize,
    ) -> Result<(VersionPage, Lsn), StoreError> {
        let rows = self.kernel.store().rows(self.mount.tree)?;
        let begins = self.begins(&rows)?;
        let Some(last) = before.map_or(Some(u64::MAX), |Lsn(before)| before.checked_sub(1)) else {
            return Ok(((Vec::new(), None), begins));
        };
        let mut trail =
            Trail::new(&*rows.reader, rows.tree, self.mount.root, site.relative(), begins, Lsn(last));
        let mut found: Vec<Version> = Vec::new();
        let mut looks = 0;
        while let Some(Stay { found: entry, since, until }) = trail.back()? {
            looks += 1;
            let until = until.map(|until| (until.lsn, until.at));
            let same = |version: &&mut Version| {
                entry.as_ref().is_some_and(|(id, row)| {
                    // Nothing else was there between the two.
                    version.from == until.map(|(lsn, _)| lsn)
                        && version.file_id == *id
                        && version.version == row.version
                })
            };
            if let Some(version) = found.last_mut().filter(same) {
                // Its attributes were changed.
                begun_by(version, since, begins);
                continue;
            }
            if found.len() == limit && entry.is_some() || looks > LOOKS_MAX {
                return Ok(((found, until.map(|(lsn, _)| lsn)), begins));
            }
            let Some((id, row)) = entry else { continue };
            let mut version = Version::new(id, row.entry_type, row.version);
            (version.size, version.content_id, version.modified) = (row.size, row.content_id, row.modified);
            (version.until, version.until_at) = until.unzip();
            begun_by(&mut version, since, begins);
            found.push(version);
        }
        Ok(((found, None), begins))
    }

    /// The versions of the file at `site`, or of the last one there, wherever it lay, that were superseded after `after`, at most `limit`. None when
    /// there never was one.
    pub(crate) fn versions_of_file(
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
                dropped = Some(changed(lsn, past));
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
                    (same.until, same.until_at) = until.as_ref().map(|(lsn, past)| (*lsn, past.at)).unzip();
                    same.modified = row.modified;
                }
                None if full => {
                    next = found.last().and_then(|last| last.until);
                    return false;
                }
                None => {
                    let mut version = Version::new(id, row.entry_type, row.version);
                    version.size = row.size;
                    version.content_id.clone_from(&row.content_id);
                    version.modified = row.modified;
                    if let Some(made) = made.take() {
                        begun_by(&mut version, Some(made), begins);
                    }
                    (version.until, version.until_at) =
                        until.as_ref().map(|(lsn, past)| (*lsn, past.at)).unzip();
                    found.push(version);
                }
            }
            made = until.map(|(lsn, past)| changed(lsn, past));
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

/// What made the row that comes after `past`.
fn changed(lsn: Lsn, past: Past) -> Changed {
    Changed { lsn, at: past.at, by: past.by, op: past.op }
}

/// Says of `version` what put it where it was; none when it was there where the history begins.
fn begun_by(version: &mut Version, since: Option<Changed>, begins: Lsn) {
    version.from = Some(since.as_ref().map_or(begins, |since| since.lsn));
    version.from_at = since.as_ref().map(|since| since.at);
    version.lsn = since.as_ref().map(|since| since.lsn);
    (version.by, version.op) = since.map(|since| (since.by, since.op)).unzip();
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
fn creation(rows: &Rows, steps: &[Step<'_>], begins: Lsn) -> Result<Option<Changed>, StoreError> {
    let mut at_once = None;
    for step in steps.iter().rev() {
        match appearance(rows, step, begins)? {
            Some((lsn, past)) => {
                let made = past.was == Was::Nothing && past.op != Op::Rename;
                let made = made && at_once.is_none_or(|at| at == past.at);
                return Ok(made.then(|| changed(lsn, past)));
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
