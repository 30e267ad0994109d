//! What a migration remembers over the end of a process: rows of the metastore, by the mount's root.
//!
//! A copy is announced before it is begun, so that what was written is known whenever the process ends, and confirmed once it is verified.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_messages::{ContentId, FileId, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Failed;
use super::view::Progress;
use crate::hal::{Change, RowKey, StoreError, Table};
use crate::kernel::Kernel;
use crate::mounts::attach::{commit, mount_entry};
use crate::mounts::messages::Attach;
use crate::mounts::mount::Mount;
use crate::namespace::{Rows, decode, encode, mount_key};

/// How many rows are read or changed at once.
pub(super) const PAGE: usize = 256;

/// How long a verified copy stays out of the rows at most while others are made: what is cut short makes so much again.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);

/// What is known of a migration as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StateRow {
    pub(super) spec: nexus_messages::syscall::MountSpec,
    pub(super) without_modes: bool,
    /// The new driver serves, or it was given up: rows are left to be removed.
    pub(super) over: bool,
    /// The root of the mount that takes the place of the old one, where names become rows.
    pub(super) successor: Option<FileId>,
    /// Of one that is over: by which root the rows are that are left, where that is not the mount's own any more.
    pub(super) left_by: Option<FileId>,
}

/// The row as earlier versions wrote it: names stayed what they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StateRowBefore {
    spec: nexus_messages::syscall::MountSpec,
    without_modes: bool,
    over: bool,
}

/// What is known of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CopyRow {
    /// Whether it was written by the migration, and goes with it.
    pub(super) ours: bool,
    pub(super) folder: bool,
    /// What it is a verified copy of; none while it is written.
    pub(super) of: Option<Of>,
    /// The tag that it has in the new store, as far as it has one and that is known.
    pub(super) tag: Option<ContentId>,
}

/// The row as earlier versions wrote it, which did not tell the copy's own tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CopyRowBefore {
    ours: bool,
    folder: bool,
    of: Option<Of>,
}

/// The row at `key`, whichever version wrote it.
fn copy_row(key: &RowKey, value: &[u8]) -> Result<CopyRow, StoreError> {
    decode::<CopyRow>(key, value).or_else(|error| {
        let before: CopyRowBefore = decode(key, value).map_err(|_| error)?;
        let CopyRowBefore { ours, folder, of } = before;
        Ok(CopyRow { ours, folder, of, tag: None })
    })
}

/// A state of what was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Of {
    pub(super) tag: ContentId,
    pub(super) size: u64,
    pub(super) mode: u32,
    /// When it was read.
    pub(super) at: Timestamp,
}

impl CopyRow {
    /// A copy that is begun.
    pub(super) fn begun(folder: bool) -> Self {
        Self { ours: true, folder, of: None, tag: None }
    }
}

fn key(root: FileId, rest: &str) -> RowKey {
    RowKey::new(Table::Settings, format!("migration/{root}/{rest}"))
}

/// The key of the migration of the mount with this root.
fn state_key(root: FileId) -> RowKey {
    key(root, "state")
}

/// What `rows` know of the migration of the mount with this root, if there is one.
pub(super) fn state_of(rows: &Rows, root: FileId) -> Result<Option<StateRow>, StoreError> {
    let key = state_key(root);
    rows.reader.get(&key)?.map(|value| state_row(&key, &value)).transpose()
}

/// The row at `key`, whichever version wrote it.
fn state_row(key: &RowKey, value: &[u8]) -> Result<StateRow, StoreError> {
    decode::<StateRow>(key, value).or_else(|error| {
        let before: StateRowBefore = decode(key, value).map_err(|_| error)?;
        let StateRowBefore { spec, without_modes, over } = before;
        Ok(StateRow { spec, without_modes, over, successor: None, left_by: None })
    })
}

/// The journal of one migration.
#[derive(Debug)]
pub(super) struct Journal {
    kernel: Arc<Kernel>,
    mount: Arc<Mount>,
    attach: Attach,
    /// By which root the copies are.
    root: FileId,
    /// The root of the successor, which goes with the journal unless it is attached.
    successor: Option<FileId>,
    /// Copies that are verified, and not yet confirmed in the rows.
    confirmed: Mutex<Vec<(String, CopyRow)>>,
    /// Contents that were announced and are written, and not yet said to be so in the rows. Before the copies that they are of.
    stored: Mutex<Vec<String>>,
    /// When rows were written last.
    written: Mutex<Instant>,
}

impl Journal {
    pub(super) fn new(kernel: &Arc<Kernel>, mount: &Arc<Mount>, attach: Attach) -> Self {
        let (confirmed, written) = (Mutex::default(), Mutex::new(kernel.env().now()));
        let (kernel, root, mount, stored) = (kernel.clone(), mount.root, mount.clone(), Mutex::default());
        Self { kernel, mount, attach, root, successor: None, confirmed, stored, written }
    }

    /// The same, with a successor.
    pub(super) fn with_successor(self, successor: Option<FileId>) -> Self {
        Self { successor, ..self }
    }

    /// What is left of the journal of one that is over, and brought `mount` in the place of the one with `root`.
    pub(super) fn left_by(kernel: &Arc<Kernel>, mount: &Arc<Mount>, attach: Attach, root: FileId) -> Self {
        Self { root, ..Self::new(kernel, mount, attach) }
    }

    /// What is known of the migration, if there is one.
    pub(super) fn state(kernel: &Kernel, mount: &Mount) -> Result<Option<StateRow>, StoreError> {
        let rows = kernel.store().rows(mount.tree)?;
        state_of(&rows, mount.root)
    }

    /// What is done at the mount, by whom.
    pub(super) fn order(&self) -> Attach {
        self.attach.clone()
    }

    /// What makes the rows say `state`.
    pub(super) fn says(&self, state: &StateRow) -> Change {
        Change::Put(state_key(self.mount.root), encode(state))
    }

    /// What makes the rows say `state`, which is over, of the mount with `root`, and of this one nothing.
    pub(super) fn moves_to(&self, root: FileId, state: StateRow) -> [Change; 2] {
        let state = StateRow { successor: None, left_by: Some(self.root), ..state };
        [Change::Delete(state_key(self.mount.root)), Change::Put(state_key(root), encode(&state))]
    }

    /// What takes the row away that remembers the successor: its rows are those of a mount that is gone then.
    fn forgets_successor(&self) -> Option<Change> {
        self.successor.map(|successor| Change::Delete(mount_key(successor)))
    }

    /// Announces a content, on disk.
    pub(super) async fn announce_content(&self, name: &str) -> Result<(), Failed> {
        self.write(vec![self.put_content(name, false)]).await
    }

    /// A content that was announced is written. It is in the rows before any copy is that is confirmed from now on.
    pub(super) fn content_is_stored(&self, name: String) {
        self.stored.lock().push(name);
    }

    /// The contents that were announced, whose names come after `after`, and whether they were written; one page.
    pub(super) fn contents(&self, after: Option<&str>) -> Result<Vec<(String, bool)>, Failed> {
        let rows = self.kernel.store().rows(self.mount.tree)?;
        let all = self.content_key("");
        let page = rows.reader.scan(&all, after.map(|name| self.content_key(name)).as_ref(), PAGE)?;
        let mut contents = Vec::with_capacity(page.len());
        for (key, value) in page {
            let name = String::from_utf8_lossy(&key.bytes[all.bytes.len()..]).into_owned();
            contents.push((name, decode(&key, &value)?));
        }
        Ok(contents)
    }

    /// What is known of the copies with these names.
    pub(super) fn copies(&self, names: &[String]) -> Result<Vec<Option<CopyRow>>, Failed> {
        let rows = self.kernel.store().rows(self.mount.tree)?;
        let mut copies = Vec::with_capacity(names.len());
        for name in names {
            let key = self.key(name);
            copies.push(rows.reader.get(&key)?.map(|value| copy_row(&key, &value)).transpose()?);
        }
        drop(rows);
        // What is not in the rows yet is newer.
        for (name, row) in &*self.confirmed.lock() {
            if let Some(n) = names.iter().position(|known| known == name) {
                copies[n] = Some(row.clone());
            }
        }
        Ok(copies)
    }

    /// The copies whose names begin with `prefix` and come after `after`, one page.
    pub(super) fn page(&self, prefix: &str, after: Option<&str>) -> Result<Vec<(String, CopyRow)>, Failed> {
        let rows = self.kernel.store().rows(self.mount.tree)?;
        let all = self.key(prefix);
        let page = rows.reader.scan(&all, after.map(|name| self.key(name)).as_ref(), PAGE)?;
        let skipped = self.key("").bytes.len();
        let mut copies = Vec::with_capacity(page.len());
        for (key, value) in page {
            let name = String::from_utf8_lossy(&key.bytes[skipped..]).into_owned();
            copies.push((name, copy_row(&key, &value)?));
        }
        Ok(copies)
    }

    /// Counts what the rows say was copied into `progress`.
    pub(super) async fn count(&self, progress: &Progress) -> Result<(), Failed> {
        let mut after: Option<String> = None;
        loop {
            let page = self.page("", after.as_deref())?;
            for (_, row) in &page {
                if let Some(of) = row.of.as_ref().filter(|_| row.ours && !row.folder) {
                    Progress::count(&progress.copied, 1);
                    Progress::count(&progress.bytes, of.size);
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.into_iter().next_back().map(|(name, _)| name);
            // Others have something to do, too.
            self.kernel.env().sleep(Duration::ZERO).await;
        }
    }

    /// Announces copies, on disk; with them all that was confirmed.
    pub(super) async fn begin(&self, names: impl Iterator<Item = (String, bool)>) -> Result<(), Failed> {
        let begun = names.map(|(name, folder)| self.put(&name, &CopyRow::begun(folder)));
        let begun: Vec<_> = begun.collect();
        if begun.is_empty() { Ok(()) } else { self.write(begun).await }
    }

    /// A copy is verified. It is in the rows soon.
    pub(super) fn confirm(&self, name: &str, row: CopyRow) {
        self.confirmed.lock().push((name.to_owned(), row));
    }

    /// Brings what was confirmed into the rows, once it is worth it.
    pub(super) async fn flush(&self, all: bool) -> Result<(), Failed> {
        let waiting = self.confirmed.lock().len();
        let is_due = || self.kernel.env().now().duration_since(*self.written.lock()) >= CONFIRM_EVERY;
        if waiting == 0 || (!all && waiting < PAGE && !is_due()) {
            return Ok(());
        }
        self.write(Vec::new()).await
    }

    /// Says of the copy `name`, and of all below it, that it is none of anything any more: it is about to go.
    pub(super) async fn doubt(&self, name: &str) -> Result<(), Failed> {
        let doubted =
            |name: &str, row: CopyRow| row.of.is_some().then(|| self.put(name, &CopyRow { of: None, ..row }));
        self.change_all(name, doubted).await
    }

    /// Says so of all copies.
    pub(super) async fn doubt_all(&self) -> Result<(), Failed> {
        self.flush(true).await?;
        let mut after: Option<String> = None;
        loop {
            let page = self.page("", after.as_deref())?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(name, _)| name.clone());
            let known = page.into_iter().filter(|(_, row)| row.of.is_some());
            let changes: Vec<_> =
                known.map(|(name, row)| self.put(&name, &CopyRow { of: None, ..row })).collect();
            if !changes.is_empty() {
                self.write(changes).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Forgets the copy `name`, and all below it.
    pub(super) async fn forget(&self, name: &str) -> Result<(), Failed> {
        self.change_all(name, |name, _| Some(Change::Delete(self.key(name)))).await
    }

    /// Changes the rows of all copies below `name`, and then its own: while there is one of those, it can be told.
    async fn change_all(
        &self,
        name: &str,
        change: impl Fn(&str, CopyRow) -> Option<Change>,
    ) -> Result<(), Failed> {
        self.flush(true).await?;
        let below = format!("{name}/");
        let mut after: Option<String> = None;
        loop {
            let page = self.page(&below, after.as_deref())?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(name, _)| name.clone());
            let mut changes: Vec<_> = page.into_iter().filter_map(|(name, row)| change(&name, row)).collect();
            if is_last {
                let own = self.copies(&[name.to_owned()])?.pop().flatten();
                changes.extend(own.and_then(|row| change(name, row)));
            }
            if !changes.is_empty() {
                self.write(changes).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Says, in one commit, that the migration with this `row` is over, and forgets its copies: they stay where they are. Gives how many there may be.
    pub(super) async fn give_up(&self, row: StateRow) -> Result<u64, Failed> {
        let (mut left, mut after): (u64, Option<String>) = (0, None);
        loop {
            let page = self.page("", after.as_deref())?;
            left += page.iter().filter(|(_, row)| row.ours && !row.folder).count() as u64;
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back().map(|(name, _)| name);
            // Others have something to do, too.
            self.kernel.env().sleep(Duration::ZERO).await;
        }
        let mut over = vec![self.says(&StateRow { over: true, ..row })];
        over.extend(self.forgets_successor());
        self.write(over).await?;
        if let Err(failed) = self.clear().await {
            // They go at the next boot, or with the next migration.
            tracing::warn!(point = %self.mount.point, why = %failed.why, "rows of a migration are left");
        }
        Ok(left)
    }

    /// Removes all rows; the one of the migration as a whole goes last.
    pub(super) async fn clear(&self) -> Result<(), Failed> {
        self.confirmed.lock().clear();
        self.stored.lock().clear();
        loop {
            let page = self.page("", None)?;
            if page.is_empty() {
                break;
            }
            self.write(page.iter().map(|(name, _)| Change::Delete(self.key(name))).collect()).await?;
        }
        loop {
            let page = self.contents(None)?;
            if page.is_empty() {
                break;
            }
            self.write(page.iter().map(|(name, _)| Change::Delete(self.content_key(name))).collect()).await?;
        }
        let mut last = vec![Change::Delete(state_key(self.mount.root))];
        last.extend(self.forgets_successor());
        self.write(last).await
    }

    fn key(&self, name: &str) -> RowKey {
        key(self.root, &format!("copy/{name}"))
    }

    fn content_key(&self, name: &str) -> RowKey {
        key(self.root, &format!("content/{name}"))
    }

    fn put_content(&self, name: &str, stored: bool) -> Change {
        Change::Put(self.content_key(name), encode(&stored))
    }

    fn put(&self, name: &str, row: &CopyRow) -> Change {
        Change::Put(self.key(name), encode(row))
    }

    /// Commits `changes`, after what was confirmed.
    pub(super) async fn write(&self, changes: Vec<Change>) -> Result<(), Failed> {
        *self.written.lock() = self.kernel.env().now();
        // What is stored by the time that a copy is confirmed goes with it: so it is taken later.
        let confirmed = std::mem::take(&mut *self.confirmed.lock());
        let stored = std::mem::take(&mut *self.stored.lock());
        let mut entry = mount_entry(
            &self.attach,
            self.mount.tree,
            self.kernel.new_op_id(),
            Timestamp(self.kernel.env().wall()),
        );
        entry.changes = stored.iter().map(|name| self.put_content(name, true)).collect();
        entry.changes.extend(confirmed.iter().map(|(name, row)| self.put(name, row)));
        entry.changes.extend(changes);
        match commit(&self.kernel, entry, None).await {
            Ok(_) => Ok(()),
            Err(error) => {
                // They are copies still.
                self.confirmed.lock().splice(0..0, confirmed);
                self.stored.lock().splice(0..0, stored);
                Err(Failed { kind: error.kind(), why: format!("the metastore: {error}") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::syscall::MountSpec;

    use super::*;

    #[test]
    fn what_earlier_versions_wrote_of_a_migration_is_read() {
        let (key, spec) = (state_key(FileId(7)), MountSpec::new("d").option("folder", "/f"));
        let before = StateRowBefore { spec: spec.clone(), without_modes: true, over: false };
        let now = StateRow { spec, without_modes: true, over: false, successor: None, left_by: None };
        assert_eq!(state_row(&key, &encode(&before)).unwrap(), now);
        let row = StateRow { successor: Some(FileId(8)), left_by: Some(FileId(9)), ..now };
        assert_eq!(state_row(&key, &encode(&row)).unwrap(), row);
    }
}
