//! Files and their versions, page by page, each page in one view of the rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_messages::{EntryType, FileId, Lsn};

use super::content::{Named, named};
use super::finding::Fault;
use super::survey::{Suspect, place, undecodable, undecodable_key};
use crate::hal::{Reader, RowKey, StoreError, Table, TreeId};
use crate::namespace::{DentryRow, InodeRow, Parts, Past, Was, decode, inode_key, parts_of};
use crate::store::Store;

/// How many rows with their small content are looked at in one view.
const PAGE: usize = 256;

/// A file, as its rows are in one view.
pub(super) struct File {
    pub(super) tree: TreeId,
    pub(super) parent: FileId,
    pub(super) id: FileId,
    pub(super) key: RowKey,
    pub(super) value: Bytes,
    pub(super) inode: Bytes,
    pub(super) row: InodeRow,
    pub(super) named: Named,
}

/// A version of a file that is kept.
pub(super) struct Version {
    pub(super) tree: TreeId,
    pub(super) id: Option<FileId>,
    pub(super) until: Lsn,
    pub(super) key: RowKey,
    pub(super) value: Bytes,
    pub(super) mount: FileId,
    pub(super) row: InodeRow,
    pub(super) named: Named,
}

/// The files whose names come behind `after`, and the last name that was looked at when there may be more.
pub(super) fn files_behind(
    store: &Store,
    after: Option<&RowKey>,
) -> Result<(Vec<File>, Option<RowKey>), StoreError> {
    let reader = store.metastore().reader()?;
    let rows = reader.scan(&RowKey::new(Table::Dentries, Vec::new()), after, PAGE)?;
    let last = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
    let mut files = Vec::new();
    for (key, value) in rows {
        files.extend(file_of(&*reader, key, value)?);
    }
    Ok((files, last))
}

pub(super) fn file_at(reader: &dyn Reader, key: &RowKey) -> Result<Option<File>, StoreError> {
    match reader.get(key)? {
        Some(value) => file_of(reader, key.clone(), value),
        None => Ok(None),
    }
}

/// The file that the name leads to. What cannot be read is told by the survey.
fn file_of(reader: &dyn Reader, key: RowKey, value: Bytes) -> Result<Option<File>, StoreError> {
    let Some((tree, parent)) = place(&key) else { return Ok(None) };
    let Ok(DentryRow { id, .. }) = decode::<DentryRow>(&key, &value) else { return Ok(None) };
    let at = inode_key(tree, id);
    let Some(inode) = reader.get(&at)? else { return Ok(None) };
    let Ok(row) = decode::<InodeRow>(&at, &inode) else { return Ok(None) };
    if row.entry_type != EntryType::Reg {
        return Ok(None);
    }
    let named = named(reader, &row)?;
    Ok(Some(File { tree, parent, id, key, value, inode, row, named }))
}

/// A page of the history.
pub(super) struct VersionsPage {
    pub(super) rows: u64,
    pub(super) versions: Vec<Version>,
    pub(super) suspects: Vec<Suspect>,
    pub(super) last: Option<RowKey>,
}

pub(super) fn versions_behind(store: &Store, after: Option<&RowKey>) -> Result<VersionsPage, StoreError> {
    let reader = store.metastore().reader()?;
    let rows = reader.scan(&RowKey::new(Table::History, Vec::new()), after, PAGE)?;
    let last = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
    let mut page = VersionsPage { rows: rows.len() as u64, versions: Vec::new(), suspects: Vec::new(), last };
    let mut ends: BTreeMap<TreeId, Lsn> = BTreeMap::new();
    for (key, value) in rows {
        let Some((tree, parts)) = tree_of(&key).zip(parts_of(&key).ok()) else {
            page.suspects.push(undecodable_key(key, value));
            continue;
        };
        let lsn = match &parts {
            Parts::Horizon(_, lsn) | Parts::Row(_, lsn) => *lsn,
        };
        // Asked for behind the row: the log has come to a row's place when it can be seen.
        let end = match ends.get(&tree) {
            Some(end) => *end,
            None => store.last_lsn(tree)?,
        };
        ends.insert(tree, end);
        if lsn > end {
            let fault = Fault::AheadOfLog { lsn, last: end };
            let suspect = Suspect::of_tree(tree, fault, format!("row {key:?}"));
            page.suspects.push(suspect.seen(key.clone(), Some(value.clone())));
        }
        let Parts::Row(of, until) = parts else { continue };
        let past = match decode::<Past>(&key, &value) {
            Ok(past) => past,
            Err(error) => {
                page.suspects.push(undecodable(tree, key, value, &error));
                continue;
            }
        };
        let Was::Row(was) = past.was else { continue };
        let read = match of.table {
            Table::Inodes => decode::<InodeRow>(&of, &was).map(Some),
            _ => decode::<DentryRow>(&of, &was).map(|_| None),
        };
        match read {
            Ok(Some(row)) => {
                let (named, id) = (named(&*reader, &row)?, place(&of).map(|(_, id)| id));
                page.versions.push(Version { tree, id, until, key, value, mount: past.mount, row, named });
            }
            Ok(None) => {}
            Err(error) => page.suspects.push(undecodable(tree, key, value, &error)),
        }
    }
    Ok(page)
}

fn tree_of(key: &RowKey) -> Option<TreeId> {
    Some(TreeId(u32::from_be_bytes(*key.bytes.first_chunk()?)))
}
