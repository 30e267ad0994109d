//! Removing entries of a content-addressed mount.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::syscall::{Create, Expect, SysUnlink, Unlinked};
use nexus_messages::{EntryType, Error, ErrorKind, FileId, Holding, VPath};

use super::rows::{End, Place, RowVolume, expect};
use super::write::kind_of_removal;
use super::{Intent, Site, Stop, store_error};
use crate::hal::StoreError;
use crate::namespace::{Draft, Rows, Visible};

/// How many children are looked at in one step of a recursive removal.
const PAGE: usize = 1_024;

impl RowVolume<'_> {
    pub(crate) async fn unlink(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysUnlink,
    ) -> Result<Unlinked, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &site.path, &error));
        let rows = self.rows().map_err(failed)?;
        let Place { above, end } = self.place(&rows, site, intent)?;
        let End::Entry { step: Some(step), row } = end else {
            return Err(intent.fail(&site.path, ErrorKind::NotFound));
        };
        let id = step.dentry.id;
        expect(intent, &site.path, Some((id, &row)), Create::Never, &call.precondition)?;
        taken_for(intent, &site.path, row.entry_type, call.expect)?;

        let mut draft = self.draft(intent);
        draft.still_named(step.parent, step.name, step.dentry);
        draft.unchanged(id, &row);
        let mut removed = 1;
        if row.entry_type.is_directory() {
            if call.recursive {
                let weighed = intent.scales.as_ref().map(|_| &site.path);
                removed += remove_below(&rows, &mut draft, id, weighed).map_err(failed)?;
                draft.visible.push(Visible::Subtree);
            } else if rows.has_children(id).map_err(failed)? {
                return Err(intent.fail(&site.path, ErrorKind::NotEmpty));
            } else {
                draft.vacant(id);
            }
        }
        draft.frees(&site.path, &row);
        draft.remove_name(step.parent, step.name, step.dentry);
        draft.remove_inode(id, Some(&row));
        let gone = if row.entry_type.is_directory() { Visible::DirectoryGone } else { Visible::Gone };
        draft.visible.push(gone(site.path.clone()));
        draft.prune(&rows, &above, site.path.parent()).map_err(failed)?;
        drop(rows);
        let gone = row.metadata(site.path.clone(), self.mount.zone.clone(), id);
        let told = intent.told(kind_of_removal(row.entry_type), &gone, false);
        let receipt = self.commit(site, None, intent, draft, told).await?;
        Ok(Unlinked::new(row.entry_type, removed, receipt))
    }
}

/// Whether the entry is what the caller takes it for.
pub(crate) fn taken_for(
    intent: &Intent,
    path: &VPath,
    entry_type: EntryType,
    expected: Expect,
) -> Result<(), Stop> {
    match expected {
        Expect::File if entry_type.is_directory() => Err(intent.fail(path, ErrorKind::IsADirectory)),
        Expect::Directory if !entry_type.is_directory() => Err(intent.fail(path, ErrorKind::NotADirectory)),
        Expect::Mount if entry_type != EntryType::Mount => {
            let error = Error::new(intent.op, path, ErrorKind::InvalidArgument);
            Err(error.because("nothing is mounted there").into())
        }
        _ if entry_type == EntryType::Mount => {
            Err(Error::new(intent.op, path, ErrorKind::Busy).because("it is a mount point").into())
        }
        _ => Ok(()),
    }
}

/// Removes all rows below the directory `root`, whose subtree is locked, and says how many entries they were. When it is weighed, what they held is
/// summed up at the path `weighed` of the directory.
fn remove_below(
    rows: &Rows,
    draft: &mut Draft,
    root: FileId,
    weighed: Option<&VPath>,
) -> Result<u64, StoreError> {
    let mut removed = 0;
    let mut held: BTreeMap<Arc<str>, (u64, u64)> = BTreeMap::new();
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        let mut after: Option<String> = None;
        loop {
            let page = rows.children(directory, after.as_deref(), PAGE)?;
            for (name, dentry) in &page {
                let is_weighed = weighed.is_some() && !dentry.entry_type.is_directory();
                let row = (is_weighed || draft.keeps()).then(|| rows.inode(dentry.id)).transpose()?;
                draft.remove_name(directory, name, *dentry);
                draft.remove_inode(dentry.id, row.as_ref());
                removed += 1;
                if let Some(row) = row.filter(|_| is_weighed) {
                    let (files, bytes) = held.entry(row.owner).or_default();
                    *files += 1;
                    *bytes += if row.entry_type == EntryType::Reg { row.size } else { 0 };
                }
                if dentry.entry_type.is_directory() {
                    directories.push(dentry.id);
                }
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back().map(|(name, _)| name);
        }
    }
    if let Some(path) = weighed {
        let holding = |(owner, (files, bytes))| Holding { path: path.clone(), owner, files, bytes };
        draft.effect.before.extend(held.into_iter().map(holding));
        draft.effect.cleared.push(path.clone());
    }
    Ok(removed)
}
